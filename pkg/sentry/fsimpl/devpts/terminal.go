package devpts

import (
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/fsimpl/tty"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Major is the major number of pseudo-terminal slaves.
const Major = 136

// Terminal is a terminal as applications have it: the slave end.
type Terminal struct {
	line *tty.Line
	job  kernel.TTY
	k    *kernel.Kernel
	inst *Instance // immutable; nil for a host terminal outside of any instance
	idx  uint32    // immutable: index in the instance
	host *hostEnd  // immutable; nil for a pseudo-terminal
	bufs sync.Pool // *[chunk]byte

	mu        sync.Mutex
	slaves    int  // protected by mu, as is what follows: open files of the slave
	opened    bool // the slave was open at some time
	master    bool // the master is open
	locked    bool // TIOCSPTLCK
	exclusive bool // TIOCEXCL
	finishing bool // host terminal: close it with the last open file
}

// chunk is how many bytes are moved at once.
const chunk = 4096

func newTerminal(k *kernel.Kernel, t tty.Termios, dev uint64) *Terminal {
	x := &Terminal{line: tty.NewLine(t), k: k}
	x.job.Device, x.job.Driver = dev, x
	return x
}

// Of is the terminal that a session has as its controlling one; nil for nil.
func Of(y *kernel.TTY) *Terminal {
	if y == nil {
		return nil
	}
	t, _ := y.Driver.(*Terminal)
	return t
}

// JobControl is the kernel's side of the terminal.
func (x *Terminal) JobControl() *kernel.TTY { return &x.job }

// Index is the number in /dev/pts.
func (x *Terminal) Index() uint32 { return x.idx }

// SignalForeground implements tty.Signaler.
func (x *Terminal) SignalForeground(sig unix.Signal) { x.job.SignalForeground(x.k, linux.Signal(sig)) }

// flush moves output towards the user where nobody fetches it.
func (x *Terminal) flush() {
	if x.host != nil {
		x.host.flush()
	}
}

func (x *Terminal) buffer() *[chunk]byte {
	if b, ok := x.bufs.Get().(*[chunk]byte); ok {
		return b
	}
	return new([chunk]byte)
}

// open opens the slave: EIO if the other end is gone or the slave is locked, EBUSY with TIOCEXCL.
func (x *Terminal) open(ctx vfs.Context, flags uint32, force bool) (vfs.FileImpl, error) {
	x.mu.Lock()
	switch {
	case x.host == nil && !x.master, x.locked && !force:
		x.mu.Unlock()
		return nil, unix.EIO
	case x.exclusive && x.slaves > 0 && !ctx.Credentials().HasCap(unix.CAP_SYS_ADMIN):
		x.mu.Unlock()
		return nil, unix.EBUSY
	}
	x.slaves++
	x.opened = true
	x.mu.Unlock()
	if t, ok := ctx.(*kernel.Task); ok && flags&unix.O_NOCTTY == 0 {
		t.OpenTTY(&x.job)
	}
	return &slave{x: x}, nil
}

// Reopen opens the slave for /dev/tty and /dev/console.
func (x *Terminal) Reopen(ctx vfs.Context, flags uint32) (vfs.FileImpl, error) {
	return x.open(ctx, flags|unix.O_NOCTTY, true)
}

// slave is an open file of the slave.
type slave struct {
	x  *Terminal
	fd *vfs.FileDescription
}

// Bind implements vfs.FileBinder.
func (s *slave) Bind(fd *vfs.FileDescription) { s.fd = fd }

// Release implements vfs.FileImpl.
func (s *slave) Release() {
	x := s.x
	x.mu.Lock()
	x.slaves--
	last := x.slaves == 0
	if last {
		x.exclusive = false
	}
	finish := last && x.finishing
	x.mu.Unlock()
	if finish {
		go x.Close()
	}
	if last {
		x.line.Master.Notify(waiter.AllEvents)
		x.freeIfUnused()
	}
}

// ReadStream implements vfs.StreamReader.
func (s *slave) ReadStream(ctx vfs.Context, dst mm.IOSeq) (int64, error) {
	x := s.x
	if x.line.HungUp() {
		return 0, nil
	}
	if t, ok := ctx.(*kernel.Task); ok {
		if err := t.CheckTTYRead(&x.job); err != nil {
			return 0, err
		}
	}
	b := x.buffer()
	defer x.bufs.Put(b)
	n, err := x.line.Read(b[:min(dst.NumBytes(), chunk)], s.fd != nil && s.fd.Nonblocking())
	if n == 0 {
		return 0, err
	}
	n, err = dst.CopyOut(b[:n])
	return int64(n), err
}

// WriteStream implements vfs.StreamWriter.
func (s *slave) WriteStream(ctx vfs.Context, src mm.IOSeq) (int64, error) {
	x := s.x
	if t, ok := ctx.(*kernel.Task); ok && x.line.Termios().Lflag&unix.TOSTOP != 0 {
		if err := t.CheckTTYChange(&x.job); err != nil {
			return 0, err
		}
	}
	b := x.buffer()
	defer x.bufs.Put(b)
	var done int64
	for done < src.NumBytes() {
		k, err := src.DropFirst(done).CopyIn(b[:])
		if k == 0 {
			return done, err
		}
		n, err := x.line.Write(b[:k])
		done += int64(n)
		x.flush()
		if err != nil {
			if err == unix.EAGAIN && n > 0 && x.host != nil {
				continue // the flush may have made room
			}
			return done, err
		}
	}
	return done, nil
}

// Readiness implements waiter.Waitable.
func (s *slave) Readiness(mask waiter.EventMask) waiter.EventMask { return s.x.line.Readiness() & mask }

// EventRegister implements waiter.Waitable.
func (s *slave) EventRegister(e *waiter.Entry) { s.x.line.Slave.EventRegister(e) }

// EventUnregister implements waiter.Waitable.
func (s *slave) EventUnregister(e *waiter.Entry) { s.x.line.Slave.EventUnregister(e) }

// hangUp is the end of the user's side.
func (x *Terminal) hangUp() {
	x.line.Hangup()
	x.job.HangUp(x.k)
}

// setWinsize changes the size and tells the foreground group.
func (x *Terminal) setWinsize(w tty.Winsize) {
	if x.line.SetWinsize(w) {
		x.SignalForeground(unix.SIGWINCH)
	}
}
