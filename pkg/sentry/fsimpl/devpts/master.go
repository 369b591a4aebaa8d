package devpts

import (
	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/uio"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// master is the open master of a pseudo-terminal.
type master struct {
	x  *Terminal
	fd *vfs.FileDescription
}

// Bind implements vfs.FileBinder.
func (m *master) Bind(fd *vfs.FileDescription) { m.fd = fd }

// Release implements vfs.FileImpl: the slave is hung up.
func (m *master) Release() {
	x := m.x
	x.mu.Lock()
	x.master = false
	x.mu.Unlock()
	x.unlink()
	x.hangUp()
	x.freeIfUnused()
}

// slaveGone tells whether the slave was open and is no more.
func (x *Terminal) slaveGone() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.opened && x.slaves == 0
}

// ReadStream implements vfs.StreamReader.
func (m *master) ReadStream(_ vfs.Context, dst mm.IOSeq) (int64, error) {
	x := m.x
	b := x.buffer()
	defer x.bufs.Put(b)
	var done int64
	for done < dst.NumBytes() {
		n, err := x.line.TakeOutput(b[:min(dst.NumBytes()-done, chunk)])
		if err == unix.EAGAIN {
			if done == 0 && x.slaveGone() {
				return 0, unix.EIO
			}
			if done > 0 {
				err = nil
			}
			return done, err
		}
		k, err := dst.DropFirst(done).CopyOut(b[:n])
		done += int64(k)
		if err != nil || x.line.Packet() {
			return done, err
		}
	}
	return done, nil
}

// WriteStream implements vfs.StreamWriter.
func (m *master) WriteStream(_ vfs.Context, src mm.IOSeq) (int64, error) {
	x := m.x
	b := x.buffer()
	defer x.bufs.Put(b)
	var done int64
	for done < src.NumBytes() {
		k, err := src.DropFirst(done).CopyIn(b[:])
		if k == 0 {
			return done, err
		}
		n, err := x.line.Input(b[:k], x)
		done += int64(n)
		if err == nil && n < k {
			err = unix.EAGAIN
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Readiness implements waiter.Waitable.
func (m *master) Readiness(mask waiter.EventMask) waiter.EventMask {
	r := m.x.line.MasterReadiness()
	if m.x.slaveGone() {
		r |= waiter.EventHUp
	}
	return r & mask
}

// EventRegister implements waiter.Waitable.
func (m *master) EventRegister(e *waiter.Entry) { m.x.line.Master.EventRegister(e) }

// EventUnregister implements waiter.Waitable.
func (m *master) EventUnregister(e *waiter.Entry) { m.x.line.Master.EventUnregister(e) }

// Ioctl implements vfs.Ioctler.
func (m *master) Ioctl(ctx vfs.Context, fd *vfs.FileDescription, cmd uint32, arg uint64) (uintptr, error) {
	x := m.x
	switch cmd {
	case unix.TIOCGPTN:
		return 0, uio.PutInt32(ctx, arg, int32(x.idx))
	case unix.TIOCSPTLCK:
		v, err := uio.GetInt32(ctx, arg)
		if err != nil {
			return 0, err
		}
		x.mu.Lock()
		x.locked = v != 0
		x.mu.Unlock()
		return 0, nil
	case gptlck:
		x.mu.Lock()
		v := x.locked
		x.mu.Unlock()
		return 0, putBool(ctx, arg, v)
	case unix.TIOCGPTPEER:
		return m.openPeer(ctx, fd, uint32(arg))
	case unix.TIOCPKT:
		v, err := uio.GetInt32(ctx, arg)
		if err == nil {
			x.line.SetPacket(v != 0)
		}
		return 0, err
	case gpkt:
		return 0, putBool(ctx, arg, x.line.Packet())
	case unix.TIOCSIG:
		sig := linux.Signal(int32(arg))
		if !sig.Valid() {
			return 0, unix.EINVAL
		}
		x.SignalForeground(unix.Signal(sig))
		return 0, nil
	case unix.TIOCINQ:
		return 0, uio.PutInt32(ctx, arg, int32(x.line.OutputLen()))
	case unix.TIOCOUTQ:
		return 0, uio.PutInt32(ctx, arg, 0)
	case unix.TCFLSH:
		// The master's input is the slave's output.
		which := int(int32(arg))
		switch which {
		case unix.TCIFLUSH:
			which = unix.TCOFLUSH
		case unix.TCOFLUSH:
			which = unix.TCIFLUSH
		}
		return 0, x.line.Flush(which)
	}
	return x.ioctl(ctx, cmd, arg, false)
}

func putBool(ctx vfs.Context, arg uint64, v bool) error {
	n := int32(0)
	if v {
		n = 1
	}
	return uio.PutInt32(ctx, arg, n)
}

// openPeer is TIOCGPTPEER: it opens the slave wherever the instance is mounted, or not.
func (m *master) openPeer(ctx vfs.Context, fd *vfs.FileDescription, flags uint32) (uintptr, error) {
	x := m.x
	t, ok := ctx.(*kernel.Task)
	if !ok || x.inst == nil {
		return 0, unix.EIO
	}
	at, err := x.slavePath(fd)
	if err != nil {
		return 0, err
	}
	defer at.DecRef()
	impl, err := x.open(ctx, flags, true)
	if err != nil {
		return 0, err
	}
	f := x.inst.v.NewFile(at, impl, flags&^(unix.O_CREAT|unix.O_EXCL|unix.O_NOCTTY|unix.O_TRUNC))
	defer f.DecRef()
	n, err := t.FDTable().Install(ctx, f, 0, flags&unix.O_CLOEXEC != 0)
	return uintptr(n), err
}
