package hostfile

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/uio"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// stream is an open pipe, socket or character device of the host.
type stream struct{ *node }

// polledStream is one that the host's epoll takes.
type polledStream struct{ stream }

// Release implements vfs.FileImpl: the descriptor belongs to the inode.
func (stream) Release() {}

// ReadStream implements vfs.StreamReader.
func (s stream) ReadStream(ctx vfs.Context, dst mm.IOSeq) (int64, error) {
	if dst.NumBytes() == 0 {
		return 0, nil
	}
	n, err := dst.CopyOutFrom(func(b []byte) (int, error) { return readNow(s.fd, s.kind, b) })
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// WriteStream implements vfs.StreamWriter.
func (s stream) WriteStream(ctx vfs.Context, src mm.IOSeq) (int64, error) {
	if src.NumBytes() == 0 {
		return 0, nil
	}
	n, err := src.CopyInTo(func(b []byte) (int, error) { return writeNow(s.fd, s.kind, b) })
	if n == 0 && err == unix.EPIPE {
		ctx.SendSignal(int32(unix.SIGPIPE))
	}
	if n > 0 && err != unix.EAGAIN {
		err = nil
		if n < src.NumBytes() {
			err = unix.EAGAIN // a short write: the rest may have to wait
		}
	}
	return n, err
}

// nowait is RWF_NOWAIT.
const nowait = 8

// readNow reads what is there: EAGAIN instead of waiting.
func readNow(fd int, kind uint32, b []byte) (int, error) {
	if kind == unix.S_IFSOCK {
		return message(unix.SYS_RECVMSG, fd, b, unix.MSG_DONTWAIT)
	}
	if kind == unix.S_IFIFO {
		v := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
		k, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&v)), 1, ^uintptr(0), ^uintptr(0), nowait)
		if errno != unix.EOPNOTSUPP {
			return result(k, errno)
		}
	}
	// What cannot be told not to wait is asked first. Another reader may be faster; then this one waits with it.
	if Readiness(fd, waiter.EventIn) == 0 {
		return 0, unix.EAGAIN
	}
	k, _, errno := unix.Syscall(unix.SYS_READ, uintptr(fd), ptr(b), uintptr(len(b)))
	return result(k, errno)
}

// message is sendmsg(2) or recvmsg(2), which the sandbox's filter allows for its own connections.
func message(nr uintptr, fd int, b []byte, flags uintptr) (int, error) {
	v := unix.Iovec{Base: unsafe.SliceData(b), Len: uint64(len(b))}
	m := unix.Msghdr{Iov: &v, Iovlen: 1}
	k, _, errno := unix.Syscall(nr, uintptr(fd), uintptr(unsafe.Pointer(&m)), flags)
	return result(k, errno)
}

// smallWrite is a size that a descriptor that poll(2) calls writable takes without waiting.
const smallWrite = 4096

// writeNow writes what there is room for: EAGAIN instead of waiting.
func writeNow(fd int, kind uint32, b []byte) (int, error) {
	if kind == unix.S_IFSOCK {
		return message(unix.SYS_SENDMSG, fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
	if kind == unix.S_IFIFO {
		v := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
		k, _, errno := unix.Syscall6(unix.SYS_PWRITEV2, uintptr(fd), uintptr(unsafe.Pointer(&v)), 1, ^uintptr(0), ^uintptr(0), nowait)
		if errno != unix.EOPNOTSUPP {
			return result(k, errno)
		}
	}
	if Readiness(fd, waiter.EventOut) == 0 {
		return 0, unix.EAGAIN
	}
	b = b[:min(len(b), smallWrite)]
	k, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(fd), ptr(b), uintptr(len(b)))
	return result(k, errno)
}

func ptr(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

func result(n uintptr, errno unix.Errno) (int, error) {
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, unix.EAGAIN
	}
	return 0, errno
}

// Readiness implements waiter.Waitable.
func (s polledStream) Readiness(mask waiter.EventMask) waiter.EventMask { return Readiness(s.fd, mask) }

// EventRegister implements waiter.Waitable.
func (s polledStream) EventRegister(e *waiter.Entry) { s.queue.EventRegister(e) }

// EventUnregister implements waiter.Waitable.
func (s polledStream) EventUnregister(e *waiter.Entry) { s.queue.EventUnregister(e) }

// Ioctl implements vfs.Ioctler: what is harmless and tells programs what they talk to.
func (s stream) Ioctl(ctx vfs.Context, _ *vfs.FileDescription, cmd uint32, arg uint64) (uintptr, error) {
	switch cmd {
	case unix.TIOCINQ:
		n, err := unix.IoctlGetInt(s.fd, unix.TIOCINQ)
		if err != nil {
			return 0, err
		}
		return 0, uio.PutInt32(ctx, arg, int32(n))
	case unix.TCGETS:
		// struct termios has 36 bytes, but the host may only be asked for them into memory of the sentry.
		return 0, s.get(ctx, cmd, arg, 36)
	case unix.TIOCGWINSZ:
		return 0, s.get(ctx, cmd, arg, 8)
	case unix.TCSETS, unix.TCSETSW, unix.TCSETSF:
		var b [64]byte
		if err := uio.CopyIn(ctx, arg, b[:36]); err != nil {
			return 0, err
		}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.fd), uintptr(cmd), uintptr(unsafe.Pointer(&b[0])))
		if errno != 0 {
			return 0, errno
		}
		return 0, nil
	}
	return 0, linux.ENOIOCTLCMD
}

// get passes an ioctl that fills size bytes through; size <= 64.
func (s stream) get(ctx vfs.Context, cmd uint32, arg uint64, size int) error {
	if s.kind != unix.S_IFCHR {
		return unix.ENOTTY
	}
	var b [64]byte
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.fd), uintptr(cmd), uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return errno
	}
	return uio.CopyOut(ctx, arg, b[:size])
}
