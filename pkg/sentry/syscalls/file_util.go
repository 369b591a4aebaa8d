package syscalls

import (
	"unsafe"

	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

const (
	pathMax = 4096
	// maxRW is the most bytes that one read or write moves: MAX_RW_COUNT of Linux.
	maxRW = 0x7ffff000
	// maxIov is UIO_MAXIOV.
	maxIov = 1024
)

// userPath is a path copied from user memory into a pooled buffer.
type userPath struct {
	s   string // valid until put
	buf *vfs.PathBuffer
}

// copyPath reads the path at addr. ENAMETOOLONG, EFAULT.
func copyPath(t *kernel.Task, addr arch.SyscallArg) (userPath, error) {
	v := t.Kernel().VFS()
	b := v.PathBuffer()
	var err error
	b.B, err = t.MM().AppendString(b.B[:0], addr.Pointer(), pathMax)
	if err != nil {
		v.PutPathBuffer(b)
		return userPath{}, err
	}
	return userPath{unsafe.String(unsafe.SliceData(b.B), len(b.B)), b}, nil
}

func (p *userPath) put(t *kernel.Task) { t.Kernel().VFS().PutPathBuffer(p.buf) }

// place is where a *at call begins, and the file that keeps it.
type place struct {
	path vfs.Path
	fd   *vfs.FileDescription
}

func (p *place) put() {
	if p.fd != nil {
		p.fd.DecRef()
	}
}

// startAt finds the start of path relative to dirfd: the zero place stands for the working directory. EBADF; ENOTDIR comes from the walk.
func startAt(t *kernel.Task, dirfd arch.SyscallArg, path string) (place, error) {
	n := dirfd.Int()
	if n == unix.AT_FDCWD || path != "" && path[0] == '/' {
		return place{}, nil
	}
	return startFD(t, n)
}

func startFD(t *kernel.Task, n int32) (place, error) {
	fd := t.FDTable().Get(n)
	if fd == nil {
		return place{}, unix.EBADF
	}
	return place{fd.Path(), fd}, nil
}

// pathAt is a path argument with its start.
type pathAt struct {
	userPath
	place
}

// copyPathAt reads the path at addr that is relative to dirfd.
func copyPathAt(t *kernel.Task, dirfd, addr arch.SyscallArg) (pathAt, error) {
	p, err := copyPath(t, addr)
	if err != nil {
		return pathAt{}, err
	}
	s, err := startAt(t, dirfd, p.s)
	if err != nil {
		p.put(t)
		return pathAt{}, err
	}
	return pathAt{p, s}, nil
}

func (p *pathAt) done(t *kernel.Task) {
	p.userPath.put(t)
	p.place.put()
}

// getFD returns the file of a descriptor argument with a reference. EBADF.
func getFD(t *kernel.Task, a arch.SyscallArg) (*vfs.FileDescription, error) {
	fd := t.FDTable().Get(a.Int())
	if fd == nil {
		return nil, unix.EBADF
	}
	return fd, nil
}

// getIOFD is getFD without those opened with O_PATH.
func getIOFD(t *kernel.Task, a arch.SyscallArg) (*vfs.FileDescription, error) {
	fd := t.FDTable().Get(a.Int())
	if fd == nil {
		return nil, unix.EBADF
	}
	if fd.IsPathOnly() {
		fd.DecRef()
		return nil, unix.EBADF
	}
	return fd, nil
}

// userSeq is the memory [addr, addr+n) for a transfer. n is cut to what one call moves; EINVAL for a negative one, EFAULT where
// the range lies outside of user space.
func userSeq(t *kernel.Task, addr, n arch.SyscallArg) (mm.IOSeq, error) {
	if n.Int64() < 0 {
		return mm.IOSeq{}, unix.EINVAL
	}
	if !t.MM().CheckRange(addr.Pointer(), n.Uint64()) {
		return mm.IOSeq{}, unix.EFAULT
	}
	return killable(t, t.MM().Seq(addr.Pointer(), min(n.Uint64(), maxRW))), nil
}

// killable lets the end of the task end a long transfer.
func killable(t *kernel.Task, s mm.IOSeq) mm.IOSeq {
	if s.NumBytes() > mm.LongCopy {
		return s.Until(t.Exiting())
	}
	return s
}

// userIov reads an array of struct iovec. EINVAL, EFAULT.
func userIov(t *kernel.Task, addr, count arch.SyscallArg) (mm.IOSeq, error) {
	n := count.Uint64()
	if n > maxIov {
		return mm.IOSeq{}, unix.EINVAL
	}
	if n == 0 {
		return t.MM().Seq(0, 0), nil
	}
	list := t.IOVecs(int(n))
	b := unsafe.Slice((*byte)(unsafe.Pointer(&list[0])), n*16)
	if _, err := t.MM().CopyIn(addr.Pointer(), b); err != nil {
		return mm.IOSeq{}, err
	}
	var sum uint64
	for i := range list {
		r := &list[i]
		if int64(r.Len) < 0 {
			return mm.IOSeq{}, unix.EINVAL
		}
		if !t.MM().CheckRange(r.Addr, r.Len) {
			return mm.IOSeq{}, unix.EFAULT
		}
		r.Len = min(r.Len, maxRW-sum)
		sum += r.Len
	}
	if n == 1 {
		return killable(t, t.MM().Seq(list[0].Addr, list[0].Len)), nil
	}
	return killable(t, t.MM().SeqOf(list)), nil
}

// followFlags are the lookup flags of AT_SYMLINK_NOFOLLOW (clear: follow) and AT_EMPTY_PATH.
func followFlags(at uint32) (f vfs.LookupFlags) {
	if at&unix.AT_SYMLINK_NOFOLLOW == 0 {
		f |= vfs.FollowLast
	}
	if at&unix.AT_EMPTY_PATH != 0 {
		f |= vfs.EmptyPath
	}
	return f
}
