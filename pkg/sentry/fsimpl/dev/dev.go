package dev

import (
	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/fsimpl/devpts"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/uio"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Register makes the devices and the file system devpts known to k's VFS.
func Register(k *kernel.Kernel) {
	v := k.VFS()
	v.RegisterFileSystem(devpts.NewType(k))
	for minor, open := range map[uint32]opener{
		3: func(vfs.Context, uint32) (vfs.FileImpl, error) { return null{}, nil },
		5: func(vfs.Context, uint32) (vfs.FileImpl, error) { return zero{}, nil },
		7: func(vfs.Context, uint32) (vfs.FileImpl, error) { return full{}, nil },
		8: func(vfs.Context, uint32) (vfs.FileImpl, error) { return random{}, nil },
		9: func(vfs.Context, uint32) (vfs.FileImpl, error) { return random{}, nil },
	} {
		v.RegisterDevice(false, 1, minor, open)
	}
	v.RegisterDevice(false, 5, 0, opener(openTTY))
	v.RegisterDevice(false, 5, 1, opener(openTTY))
	v.RegisterDevice(false, 5, 2, opener(func(ctx vfs.Context, _ uint32) (vfs.FileImpl, error) {
		i, err := devpts.Find(ctx, v)
		if err != nil {
			return nil, err
		}
		return i.OpenMaster(ctx)
	}))
}

// opener is a function as vfs.Device.
type opener func(ctx vfs.Context, flags uint32) (vfs.FileImpl, error)

// Open implements vfs.Device.
func (f opener) Open(ctx vfs.Context, _ *vfs.Inode, flags uint32) (vfs.FileImpl, error) {
	return f(ctx, flags)
}

// openTTY opens the controlling terminal of the caller; ENXIO without one.
func openTTY(ctx vfs.Context, flags uint32) (vfs.FileImpl, error) {
	t, ok := ctx.(*kernel.Task)
	if !ok {
		return nil, unix.ENXIO
	}
	x := devpts.Of(t.ControllingTTY())
	if x == nil {
		return nil, unix.ENXIO
	}
	return x.Reopen(ctx, flags)
}

// memory is what the memory devices have in common: they are always ready, seeking does nothing, and there
// is no offset.
type memory struct{}

// Release implements vfs.FileImpl.
func (memory) Release() {}

// Seek implements vfs.Seeker.
func (memory) Seek(vfs.Context, int64, int32, int64) (int64, error) { return 0, nil }

// Fsync implements vfs.Fsyncer: there is nothing to synchronise with.
func (memory) Fsync(vfs.Context, bool) error { return unix.EINVAL }

// null is /dev/null.
type null struct{ memory }

// Read implements vfs.Reader.
func (null) Read(vfs.Context, mm.IOSeq, int64) (int64, error) { return 0, nil }

// Write implements vfs.Writer.
func (null) Write(_ vfs.Context, src mm.IOSeq, _ int64) (int64, error) { return src.NumBytes(), nil }

// zero is /dev/zero.
type zero struct{ null }

// Read implements vfs.Reader.
func (zero) Read(_ vfs.Context, dst mm.IOSeq, _ int64) (int64, error) {
	return dst.ZeroOut(dst.NumBytes())
}

// Mappable implements vfs.Mapper: nil is anonymous memory.
func (zero) Mappable(vfs.Context) (mm.Mappable, error) { return nil, nil }

// full is /dev/full.
type full struct{ zero }

// Write implements vfs.Writer.
func (full) Write(_ vfs.Context, src mm.IOSeq, _ int64) (int64, error) {
	if src.NumBytes() == 0 {
		return 0, nil
	}
	return 0, unix.ENOSPC
}

// random is /dev/random and /dev/urandom: the host's generator.
type random struct{ memory }

// Read implements vfs.Reader.
func (random) Read(_ vfs.Context, dst mm.IOSeq, _ int64) (int64, error) {
	return dst.CopyOutFrom(func(b []byte) (int, error) { return unix.Getrandom(b, 0) })
}

// Write implements vfs.Writer: additional entropy is accepted and not used.
func (random) Write(_ vfs.Context, src mm.IOSeq, _ int64) (int64, error) { return src.NumBytes(), nil }

// Readiness implements waiter.Waitable.
func (random) Readiness(mask waiter.EventMask) waiter.EventMask {
	return mask & waiter.ReadableEvents
}

// EventRegister implements waiter.Waitable.
func (random) EventRegister(*waiter.Entry) {}

// EventUnregister implements waiter.Waitable.
func (random) EventUnregister(*waiter.Entry) {}

// Ioctl implements vfs.Ioctler: random(4).
func (random) Ioctl(ctx vfs.Context, _ *vfs.FileDescription, cmd uint32, arg uint64) (uintptr, error) {
	switch cmd {
	case unix.RNDGETENTCNT:
		return 0, uio.PutInt32(ctx, arg, 256)
	case unix.RNDADDTOENTCNT, unix.RNDADDENTROPY, unix.RNDZAPENTCNT, unix.RNDCLEARPOOL, unix.RNDRESEEDCRNG:
		if !ctx.Credentials().HasCap(unix.CAP_SYS_ADMIN) {
			return 0, unix.EPERM
		}
		return 0, nil
	}
	return 0, linux.ENOIOCTLCMD
}
