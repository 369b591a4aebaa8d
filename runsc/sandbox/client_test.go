package sandbox

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/runsc/boot"
)

// hostile makes a client of a connection whose other end is served by f, until f returns or the test ends.
func hostile(t *testing.T, f func(peer int)) *Client {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		f(pair[1])
		close(done)
	}()
	c := NewClient(pair[0])
	t.Cleanup(func() {
		unix.Shutdown(pair[1], unix.SHUT_RDWR)
		<-done
		c.Close()
		unix.Close(pair[1])
	})
	return c
}

// ends fails if f does not return soon.
func ends(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("a hostile sandbox makes a command wait for ever")
		return nil
	}
}

// TestStrayReplies: replies without end that nobody asked for do not keep a command busy, even one that waits without limit.
func TestStrayReplies(t *testing.T) {
	c := hostile(t, func(peer int) {
		conn := boot.NewConn(peer)
		for id := uint32(0); conn.SendMessage(boot.KindReply, id%100, &boot.Reply{}) == nil; id++ {
		}
	})
	err := ends(t, func() error {
		_, err := c.Call(boot.KindWait, &boot.Request{})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "too many replies") {
		t.Error(err)
	}
}

// TestSlowReply: a reply that comes byte by byte is given up when the time is over.
func TestSlowReply(t *testing.T) {
	c := hostile(t, func(peer int) {
		head := []byte{0x48, 0x53, 0x4b, 0x31, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0x80, 0}
		for {
			if _, err := unix.SendmsgN(peer, head[:1], nil, nil, unix.MSG_NOSIGNAL); err != nil {
				return
			}
			if head = head[1:]; len(head) == 0 {
				head = make([]byte, 100)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	err := ends(t, func() error {
		_, err := c.CallWithin(2, boot.KindStats, &boot.Request{})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "did not answer within") {
		t.Error(err)
	}
}

// TestDeafSandbox: one that does not read does not block a command for ever.
func TestDeafSandbox(t *testing.T) {
	stop := make(chan struct{})
	c := hostile(t, func(int) { <-stop })
	t.Cleanup(func() { close(stop) })
	err := ends(t, func() error {
		_, err := c.CallWithin(1, boot.KindStats, &boot.Request{Container: strings.Repeat("x", 8<<20)})
		return err
	})
	if err == nil || errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

// TestErrorText: what a hostile sandbox gives as the text of an error controls no terminal, and fills no log.
func TestErrorText(t *testing.T) {
	c := hostile(t, func(peer int) {
		conn := boot.NewConn(peer)
		f, err := conn.Recv()
		if err == nil {
			conn.SendMessage(boot.KindReply, f.ID, &boot.Reply{Err: boot.Error{Code: boot.ErrNotFound, Text: "x\x1b]0;title\a\u009b31m\n" + strings.Repeat("y", 1<<20)}})
		}
	})
	_, err := c.Call(boot.KindStats, &boot.Request{})
	var e *boot.Error
	if !errors.As(err, &e) || e.Code != boot.ErrNotFound || len(e.Text) > maxError || !strings.HasPrefix(e.Text, "x?]0;title??31m\n") {
		t.Errorf("%.100q", err)
	}
}
