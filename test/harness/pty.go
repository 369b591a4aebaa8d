package harness

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// PTY is a command on a pseudo-terminal, whose output is collected and matched in order.
type PTY struct {
	master *os.File
	cmd    *exec.Cmd

	mu  sync.Mutex
	out string // protected by mu: output that no expectation has consumed
}

// StartPTY starts a command on a new terminal of a size; it is killed at the end of the test.
func StartPTY(t *testing.T, cmd *exec.Cmd, rows, cols uint16) *PTY {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &PTY{master: master, cmd: cmd}
	p.Resize(t, rows, cols)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			p.mu.Lock()
			p.out += string(b[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { cmd.Process.Kill(); master.Close() })
	return p
}

// Send types text.
func (p *PTY) Send(s string) { p.master.WriteString(s) }

// Resize changes the terminal's size.
func (p *PTY) Resize(t *testing.T, rows, cols uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.Fatal(err)
	}
}

// Sees waits for text and consumes the output up to its end.
func (p *PTY) Sees(text string, limit time.Duration) bool {
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		p.mu.Lock()
		i := strings.Index(p.out, text)
		if i >= 0 {
			p.out = p.out[i+len(text):]
		}
		p.mu.Unlock()
		if i >= 0 {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// Expect is Sees for what must come.
func (p *PTY) Expect(t *testing.T, text string) {
	t.Helper()
	if !p.Sees(text, 30*time.Second) {
		p.mu.Lock()
		defer p.mu.Unlock()
		t.Fatalf("the terminal does not show %q; it shows %q", text, p.out)
	}
}

// Wait waits for the command's end and returns its exit code.
func (p *PTY) Wait(t *testing.T) int {
	t.Helper()
	done := make(chan struct{})
	go func() { p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the command does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}
