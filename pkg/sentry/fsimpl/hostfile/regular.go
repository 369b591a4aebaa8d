package hostfile

import (
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// regular is an open regular file of the host. Processes outside, and other descriptors of the sandbox, may share the host's
// offset (sh -c 'a; b' >file 2>&1), so reads and writes that go on where the last one ended use that one; others say where.
type regular struct {
	*node

	mu sync.Mutex
	// next is the offset of vfs that stands for the host's offset, -1 where there is none; guarded by mu.
	next int64
}

// Release implements vfs.FileImpl, which the node would do else: the descriptor is the node's, until nothing has it open.
func (*regular) Release() {}

// transfer runs op on pieces at an offset: positional, or (off is -1) at the host's offset.
func (r *regular) transfer(off int64, pieces func(op func(b []byte) (int, error)) (int64, error), op func(b []byte, off int64) (int, error)) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	follow, at := off == r.next, off
	n, err := pieces(func(b []byte) (int, error) {
		if follow {
			at = -1
		}
		k, err := op(b, at)
		if k > 0 && !follow {
			at += int64(k)
		}
		return max(k, 0), err
	})
	if follow {
		r.next += n
	}
	return n, err
}

// Read implements vfs.Reader.
func (r *regular) Read(_ vfs.Context, dst mm.IOSeq, off int64) (int64, error) {
	return r.transfer(off, dst.CopyOutFrom, func(b []byte, off int64) (int, error) {
		if off < 0 {
			return unix.Read(r.fd, b)
		}
		return unix.Pread(r.fd, b, off)
	})
}

// Write implements vfs.Writer.
func (r *regular) Write(_ vfs.Context, src mm.IOSeq, off int64) (int64, error) {
	return r.transfer(off, src.CopyInTo, func(b []byte, off int64) (int, error) {
		if off < 0 {
			return unix.Write(r.fd, b)
		}
		return unix.Pwrite(r.fd, b, off)
	})
}

// Seek implements vfs.Seeker.
func (r *regular) Seek(ctx vfs.Context, off int64, whence int32, old int64) (int64, error) {
	switch whence {
	case unix.SEEK_CUR:
		if off == 0 {
			return old, nil
		}
		off, whence = old+off, unix.SEEK_SET // an overflow is negative, hence EINVAL
	case unix.SEEK_SET, unix.SEEK_END, unix.SEEK_DATA, unix.SEEK_HOLE:
	default:
		return 0, unix.EINVAL
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next < 0 { // opened again: the host's offset is that of the first open
		if here, err := unix.Seek(r.fd, 0, unix.SEEK_CUR); err == nil {
			defer unix.Seek(r.fd, here, unix.SEEK_SET)
		}
		return unix.Seek(r.fd, off, int(whence))
	}
	pos, err := unix.Seek(r.fd, off, int(whence))
	if err == nil {
		r.next = pos
	}
	return pos, err
}

// Size implements vfs.Sizer.
func (r *regular) Size(vfs.Context) (int64, error) {
	var st unix.Stat_t
	err := unix.Fstat(r.fd, &st)
	return st.Size, err
}

// Fsync implements vfs.Fsyncer.
func (r *regular) Fsync(_ vfs.Context, dataOnly bool) error {
	if dataOnly {
		return unix.Fdatasync(r.fd)
	}
	return unix.Fsync(r.fd)
}
