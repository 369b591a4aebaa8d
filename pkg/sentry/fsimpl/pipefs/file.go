package pipefs

import (
	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/uio"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// end is an open end of a pipe, or both (a FIFO opened O_RDWR).
type end struct {
	p    *Pipe                // immutable
	r, w bool                 // immutable
	fd   *vfs.FileDescription // set by Bind; holds O_DIRECT
}

// NewPipe makes a pipe and its two open files with one reference each (pipe2(2)); flags may have O_NONBLOCK and O_DIRECT. The
// inode is a FIFO that leads to the pipe, so that it can be opened again through /proc/PID/fd.
func NewPipe(ctx vfs.Context, v *vfs.VFS, flags uint32) (r, w *vfs.FileDescription) {
	p := New()
	p.anon = true
	p.open(true, true)
	at := v.NewAnonPath(ctx, "pipe", unix.S_IFIFO|0600)
	at.Inode().Slot(vfs.SlotFIFO, func(any) any { return p })
	flags &= unix.O_NONBLOCK | unix.O_DIRECT
	r = v.NewFile(at, &end{p: p, r: true}, flags|unix.O_RDONLY)
	w = v.NewFile(at, &end{p: p, w: true}, flags|unix.O_WRONLY)
	at.DecRef()
	return r, w
}

// Bind implements vfs.FileBinder.
func (e *end) Bind(fd *vfs.FileDescription) { e.fd = fd }

// Release implements vfs.FileImpl.
func (e *end) Release() { e.p.close(e.r, e.w) }

// ReadStream implements vfs.StreamReader.
func (e *end) ReadStream(ctx vfs.Context, dst mm.IOSeq) (int64, error) {
	return e.p.Read(dst, ctx.Waker())
}

// WriteStream implements vfs.StreamWriter.
func (e *end) WriteStream(ctx vfs.Context, src mm.IOSeq) (int64, error) {
	n, err := e.p.Write(src, ctx.Waker(), e.fd != nil && e.fd.Flags()&unix.O_DIRECT != 0)
	return n, signal(ctx, err)
}

// signal sends SIGPIPE with EPIPE.
func signal(ctx vfs.Context, err error) error {
	if err == unix.EPIPE {
		ctx.SendSignal(int32(unix.SIGPIPE))
	}
	return err
}

// Park implements vfs.StreamParker. Packets go through the pipe.
func (e *end) Park(by *waiter.Signal, seq mm.IOSeq, write bool) {
	if !write || seq.NumBytes() > atomicBuf && e.fd.Flags()&unix.O_DIRECT == 0 {
		e.p.park(by, seq, write)
	}
}

// Unpark implements vfs.StreamParker.
func (e *end) Unpark(by *waiter.Signal, write bool) int64 { return e.p.unpark(by, write) }

// Readiness implements waiter.Waitable.
func (e *end) Readiness(mask waiter.EventMask) waiter.EventMask {
	return e.p.readiness(e.r, e.w) & mask
}

// EventRegister implements waiter.Waitable.
func (e *end) EventRegister(w *waiter.Entry) { e.p.queue.EventRegister(w) }

// EventUnregister implements waiter.Waitable.
func (e *end) EventUnregister(w *waiter.Entry) { e.p.queue.EventUnregister(w) }

// PipeSize implements vfs.Pipe.
func (e *end) PipeSize() int64 { return int64(e.p.Size()) }

// SetPipeSize implements vfs.Pipe.
func (e *end) SetPipeSize(size int64, privileged bool) (int64, error) {
	if size < 0 {
		return 0, unix.EINVAL
	}
	limit := 1 << 31
	if !privileged && e.fd != nil {
		limit = int(e.fd.VFS().Sysctl().PipeMaxSize.Load())
	}
	n, err := e.p.SetSize(uint64(size), limit)
	return int64(n), err
}

// PipeReadable implements vfs.Pipe.
func (e *end) PipeReadable() int64 { return int64(e.p.Len()) }

// Ioctl implements vfs.Ioctler.
func (e *end) Ioctl(ctx vfs.Context, fd *vfs.FileDescription, cmd uint32, arg uint64) (uintptr, error) {
	if cmd == unix.TIOCINQ {
		return 0, uio.PutInt32(ctx, arg, int32(e.p.Len()))
	}
	return 0, linux.ENOIOCTLCMD
}

// FIFOs opens FIFOs; it implements vfs.FIFOOpener.
type FIFOs struct{}

// OpenFIFO implements vfs.FIFOOpener by the rules of fifo(7): the open of one end waits for the other; for reading with
// O_NONBLOCK it succeeds at once, for writing it fails with ENXIO while there is no reader. A pipe that is opened
// again through /proc/PID/fd has had both ends, so it waits for nobody.
func (FIFOs) OpenFIFO(ctx vfs.Context, node *vfs.Inode, flags uint32) (vfs.FileImpl, error) {
	p := pipeOf(node)
	nonblock := flags&unix.O_NONBLOCK != 0
	wait := !nonblock && !p.anon
	switch flags & unix.O_ACCMODE {
	case unix.O_RDWR:
		p.open(true, true)
		return &end{p: p, r: true, w: true}, nil
	case unix.O_RDONLY:
		gen := p.opened(false)
		p.open(true, false)
		if wait {
			if err := p.awaitOpen(ctx, false, gen); err != nil {
				p.close(true, false)
				return nil, err
			}
		}
		return &end{p: p, r: true}, nil
	case unix.O_WRONLY:
		gen := p.opened(true)
		if nonblock && !p.anon && !p.hasEnd(true) {
			return nil, unix.ENXIO
		}
		p.open(false, true)
		if wait {
			if err := p.awaitOpen(ctx, true, gen); err != nil {
				p.close(false, true)
				return nil, err
			}
		}
		return &end{p: p, w: true}, nil
	}
	return nil, unix.EINVAL
}

// pipeOf is the pipe of a FIFO, made on first use.
func pipeOf(node *vfs.Inode) *Pipe {
	return node.Slot(vfs.SlotFIFO, func(old any) any {
		if old == nil {
			return New()
		}
		return old
	}).(*Pipe)
}

// opened is the number of opens ever of an end.
func (p *Pipe) opened(read bool) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if read {
		return p.rOpens
	}
	return p.wOpens
}

// hasEnd tells whether an end is open.
func (p *Pipe) hasEnd(read bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return read && p.readers > 0 || !read && p.writers > 0
}

// awaitOpen waits until the other end is open, or has been since gen was counted.
func (p *Pipe) awaitOpen(ctx vfs.Context, read bool, gen uint64) error {
	s := ctx.Waker()
	var e waiter.Entry
	e.Init(s, waiter.AllEvents)
	p.queue.EventRegister(&e)
	defer p.queue.EventUnregister(&e)
	for {
		if p.hasEnd(read) || p.opened(read) != gen {
			return nil
		}
		if err := ctx.Block(s.C, vfs.NoDeadline); err != nil {
			return err
		}
	}
}
