package unix

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/socket"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Files fly between sockets that are closed meanwhile: every reference is dropped in the end.
func TestConcurrentRights(t *testing.T) {
	v, f := vfs.New(0), NewFamily()
	d := 400 * time.Millisecond
	if testing.Short() {
		d = 100 * time.Millisecond
	}
	stop := time.Now().Add(d)
	a, b := files(t, v, f)
	var wg sync.WaitGroup
	for range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for time.Now().Before(stop) {
				c, d := files(t, v, f)
				c.IncRef()
				m := socket.Message{Control: socket.Control{Rights: []*vfs.FileDescription{c}}}
				s := d.Impl().(*Socket)
				if n, _ := s.sendRights(nil, mm.BytesSeq([]byte("x")), &m, s.peer.Load(), &message{}, new(waiter.Signal)); n == 0 {
					m.Control.DropRights()
				}
				d.IncRef()
				m = socket.Message{Control: socket.Control{Rights: []*vfs.FileDescription{d}}}
				s = a.Impl().(*Socket)
				if n, _ := s.sendRights(nil, mm.BytesSeq([]byte("y")), &m, s.peer.Load(), &message{}, new(waiter.Signal)); n == 0 {
					m.Control.DropRights()
				}
				c.DecRef()
				d.DecRef()
				var r socket.Message
				b.Impl().(*Socket).receive(context(), mm.BytesSeq(make([]byte, 1)), &r, 0)
				r.Control.DropRights()
			}
		}()
	}
	wg.Wait()
	a.DecRef()
	b.DecRef()
	f.rights.collectAll()
	if n := f.rights.files.Load(); n != 0 || len(f.rights.sockets) != 0 {
		t.Fatal("files left in flight:", n)
	}
}

// A stream moves all bytes in order through readers and writers that block.
func TestConcurrentStream(t *testing.T) {
	v, f := vfs.New(0), NewFamily()
	a, b := files(t, v, f)
	const total = 4 << 20
	go func() {
		ctx := context()
		buf := make([]byte, 50000)
		for sent := 0; sent < total; {
			n := min(len(buf), total-sent)
			for i := range buf[:n] {
				buf[i] = byte((sent + i) * 7)
			}
			k, err := a.Write(ctx, mm.BytesSeq(buf[:n]))
			if err != nil {
				t.Error(err)
				break
			}
			sent += int(k)
		}
		a.DecRef()
	}()
	ctx := context()
	buf := make([]byte, 30000)
	got := 0
	for {
		n, err := b.Read(ctx, mm.BytesSeq(buf))
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		for i, c := range buf[:n] {
			if c != byte((got+i)*7) {
				t.Fatalf("byte %d is wrong", got+i)
			}
		}
		got += int(n)
	}
	if got != total || b.Readiness(waiter.EventHUp) == 0 {
		t.Fatal(got)
	}
	_ = unix.EAGAIN
}
