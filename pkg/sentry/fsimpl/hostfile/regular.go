package hostfile

import (
	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// regular is an open regular file of the host. It is read and written at the offset that vfs keeps; the host's offset, which
// processes outside may share, follows when the file is closed.
type regular struct {
	*node
	file *vfs.FileDescription
}

// Bind implements vfs.FileBinder.
func (r *regular) Bind(f *vfs.FileDescription) { r.file = f }

// Release implements vfs.FileImpl.
func (r *regular) Release() {
	if r.file != nil {
		unix.Seek(r.fd, r.file.Offset(), unix.SEEK_SET)
	}
}

// Read implements vfs.Reader.
func (r *regular) Read(_ vfs.Context, dst mm.IOSeq, off int64) (int64, error) {
	n, err := dst.CopyOutFrom(func(b []byte) (int, error) {
		k, err := unix.Pread(r.fd, b, off)
		if k > 0 {
			off += int64(k)
		}
		return max(k, 0), err
	})
	return n, err
}

// Write implements vfs.Writer.
func (r *regular) Write(_ vfs.Context, src mm.IOSeq, off int64) (int64, error) {
	n, err := src.CopyInTo(func(b []byte) (int, error) {
		k, err := unix.Pwrite(r.fd, b, off)
		if k > 0 {
			off += int64(k)
		}
		return max(k, 0), err
	})
	return n, err
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
