package devpts

import (
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/fsimpl/tty"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// hostEnd is the user's side of a terminal of the host: the host's own line discipline is switched off, input is fed to the
// sentry's, and output goes to the host as soon as it is made. Everything in it is a host resource.
type hostEnd struct {
	x     *Terminal
	fd    int
	file  *os.File // the same descriptor with the runtime's poller
	conn  syscall.RawConn
	saved *unix.Termios

	mu      sync.Mutex
	out     [chunk]byte // protected by mu: output on its way
	off, n  int         // protected by mu
	pumping bool        // protected by mu: a goroutine waits for the host to take more
	failed  bool        // protected by mu: the host's side is gone
	closed  bool        // protected by mu
}

// OpenHost makes host descriptor fd, a terminal that nobody else uses, the terminal of a process: a slave in the instance
// at /dev/pts of ctx, or without a name if there is none. fd belongs to the terminal from now on, also on error. It returns the open
// file with one reference.
func OpenHost(ctx vfs.Context, k *kernel.Kernel, fd int) (*vfs.FileDescription, *Terminal, error) {
	saved, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil {
		raw := *saved
		raw.Iflag, raw.Oflag = 0, 0
		raw.Lflag &^= unix.ICANON | unix.ECHO | unix.ECHONL | unix.ISIG | unix.IEXTEN
		raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
		if err = unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err == nil {
			err = unix.SetNonblock(fd, true)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	h := &hostEnd{fd: fd, saved: saved, file: os.NewFile(uintptr(fd), "terminal")}
	if h.conn, err = h.file.SyscallConn(); err != nil {
		h.file.Close()
		return nil, nil, err
	}
	set := tty.PtyTermios()
	set.Cflag = saved.Cflag
	create := func(idx uint32) *Terminal {
		x := newTerminal(k, set, unix.Mkdev(Major, idx))
		x.host, h.x = h, x
		return x
	}
	v := k.VFS()
	inst, err := Find(ctx, v)
	var at vfs.Path
	var x *Terminal
	if err == nil {
		if x, err = inst.add(ctx, create); err == nil {
			at, err = v.Walk(ctx, vfs.Path{}, "/dev/pts/"+strconv.Itoa(int(x.idx)), 0)
		}
	} else {
		x = create(0)
		at, err = v.NewAnonPath(ctx, "terminal", unix.S_IFCHR|0620), nil
	}
	if err != nil {
		h.file.Close()
		return nil, nil, err
	}
	defer at.DecRef()
	h.readSize()
	impl, err := x.open(ctx, unix.O_RDWR|unix.O_NOCTTY, true)
	if err != nil {
		h.file.Close()
		return nil, nil, err
	}
	go h.input()
	return v.NewFile(at, impl, unix.O_RDWR), x, nil
}

// input feeds what the user types to the line discipline until the host's side is gone.
func (h *hostEnd) input() {
	var room waiter.Signal
	room.Init()
	var e waiter.Entry
	e.Init(&room, waiter.WritableEvents)
	h.x.line.Master.EventRegister(&e)
	defer h.x.line.Master.EventUnregister(&e)
	b := make([]byte, chunk)
	for {
		n, err := h.file.Read(b)
		if n <= 0 || err != nil {
			h.fail()
			return
		}
		for p := b[:n]; len(p) > 0; {
			k, err := h.x.line.Input(p, h.x)
			h.flush()
			if p = p[k:]; err == unix.EAGAIN {
				if h.x.line.HungUp() {
					return
				}
				<-room.C
			}
		}
	}
}

// fail hangs the terminal up.
func (h *hostEnd) fail() {
	h.mu.Lock()
	was := h.failed
	h.failed = true
	h.mu.Unlock()
	if !was {
		h.x.hangUp()
	}
}

// flush writes output to the host, and leaves what the host does not take at once to a goroutine.
func (h *hostEnd) flush() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pumping {
		return
	}
	if h.step() {
		return
	}
	h.pumping = true
	go h.pump()
}

// step writes until there is no output (true) or the host takes no more (false); mu is held.
func (h *hostEnd) step() bool {
	for {
		if h.n == 0 {
			k, err := h.x.line.TakeOutput(h.out[:])
			if err != nil || k == 0 {
				return true
			}
			h.off, h.n = 0, k
		}
		if h.failed {
			h.n = 0
			continue
		}
		k, err := unix.Write(h.fd, h.out[h.off:h.off+h.n])
		switch {
		case k > 0:
			h.off += k
			h.n -= k
		case err == unix.EAGAIN:
			return false
		case err != unix.EINTR:
			h.failed, h.n = true, 0
		}
	}
}

// pump writes the rest as the host takes it.
func (h *hostEnd) pump() {
	err := h.conn.Write(func(uintptr) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		done := h.step()
		if done {
			h.pumping = false
		}
		return done
	})
	if err != nil {
		h.mu.Lock()
		h.failed, h.pumping = true, false
		h.step()
		h.mu.Unlock()
	}
}

// Drain waits until the host has taken all output, at most for the given time: before the end of the sandbox.
func (x *Terminal) Drain(limit time.Duration) {
	if x.host == nil {
		return
	}
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		x.host.flush()
		x.host.mu.Lock()
		done := !x.host.pumping
		x.host.mu.Unlock()
		if done {
			return
		}
	}
}

// readSize takes the size over from the host.
func (h *hostEnd) readSize() {
	if ws, err := unix.IoctlGetWinsize(h.fd, unix.TIOCGWINSZ); err == nil {
		h.x.setWinsize(tty.Winsize{Rows: ws.Row, Cols: ws.Col, XPixel: ws.Xpixel, YPixel: ws.Ypixel})
	}
}

// writeSize tells the host the size.
func (h *hostEnd) writeSize(w tty.Winsize) {
	unix.IoctlSetWinsize(h.fd, unix.TIOCSWINSZ, &unix.Winsize{Row: w.Rows, Col: w.Cols, Xpixel: w.XPixel, Ypixel: w.YPixel})
}

// Resize sets the size and sends SIGWINCH to the foreground group if it differs. With 0 x 0 the size is that of the
// host's terminal.
func (x *Terminal) Resize(rows, cols uint16) {
	if rows == 0 && cols == 0 {
		if x.host != nil {
			x.host.readSize()
		}
		return
	}
	w := tty.Winsize{Rows: rows, Cols: cols}
	if x.host != nil {
		x.host.writeSize(w)
	}
	x.setWinsize(w)
}

// Finish follows the end of the process that the terminal belongs to: it waits until the host has taken the output, and
// closes the terminal once no other process has it open.
func (x *Terminal) Finish() {
	x.Drain(drainLimit)
	x.mu.Lock()
	x.finishing = true
	unused := x.slaves == 0
	x.mu.Unlock()
	if unused {
		x.Close()
	}
}

// drainLimit is how long the end of a process waits for a user who does not read.
const drainLimit = 2 * time.Second

// Close hangs a host terminal up and gives the host's settings and the descriptor back: when its container is gone.
func (x *Terminal) Close() {
	h := x.host
	if h == nil {
		return
	}
	x.Drain(time.Second)
	h.mu.Lock()
	closed := h.closed
	h.closed, h.failed = true, true
	h.mu.Unlock()
	if closed {
		return
	}
	x.hangUp()
	unix.IoctlSetTermios(h.fd, unix.TCSETS, h.saved)
	h.file.Close()
	x.unlink()
	if i := x.inst; i != nil {
		i.mu.Lock()
		if i.used[x.idx] == x {
			delete(i.used, x.idx)
		}
		i.mu.Unlock()
	}
}
