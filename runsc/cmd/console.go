package cmd

import (
	"time"

	"golang.org/x/sys/unix"
)

// console connects the caller's terminal with the master of a container's terminal.
type console struct {
	master int
	saved  *unix.Termios // the caller's terminal as it was, nil if standard input is none
	done   chan struct{} // closed when all output is copied
	// resized is told of new sizes, nil where the host's terminal says it itself.
	resized func(rows, cols uint16)
}

// attachConsole puts the caller's terminal into raw mode and copies in both directions. It owns master.
func attachConsole(master int) *console {
	c := &console{master: master, done: make(chan struct{})}
	if t, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		c.saved = t
		raw := *t
		raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		raw.Oflag &^= unix.OPOST
		raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
		unix.IoctlSetTermios(0, unix.TCSETSW, &raw)
		c.resize()
	}
	go copyFD(master, 0)
	go func() {
		copyFD(1, master)
		close(c.done)
	}()
	return c
}

// copyFD copies until either side ends.
func copyFD(dst, src int) {
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Read(src, buf)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		for b := buf[:n]; len(b) > 0; {
			m, err := unix.Write(dst, b)
			if err == unix.EINTR || err == unix.EAGAIN {
				continue
			}
			if err != nil {
				return
			}
			b = b[m:]
		}
	}
}

// resize gives the container's terminal the size of the caller's.
func (c *console) resize() {
	if c == nil {
		return
	}
	if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(c.master, unix.TIOCSWINSZ, ws)
		if c.resized != nil {
			c.resized(ws.Row, ws.Col)
		}
	}
}

// lateOutput is how long output may follow the end of the process that the command waits for, when
// others still hold its terminal open.
const lateOutput = time.Second

// finish waits for the rest of the output and restores the caller's terminal.
func (c *console) finish() {
	if c == nil {
		return
	}
	select {
	case <-c.done:
	case <-time.After(lateOutput):
	}
	if c.saved != nil {
		unix.IoctlSetTermios(0, unix.TCSETSW, c.saved)
	}
}
