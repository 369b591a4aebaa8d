package gofer

import (
	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// file is an open regular file. It is a user of its inode's descriptors. As a pointer it needs no allocation.
type file struct{ inode *inode }

// Release implements vfs.FileImpl.
func (f file) Release() { f.inode.release() }

// Read implements vfs.Reader.
func (f file) Read(_ vfs.Context, dst mm.IOSeq, off int64) (int64, error) {
	i := f.inode
	if size := i.size.Load(); i.fs.frozen && size > 0 && dst.NumBytes() > 0 { // files of size 0 may be made up as they are read
		if off >= size {
			return 0, nil // the read at the end of the file, with which most programs find it
		}
		if n, ok, err := i.readBlock(dst, off, size); ok {
			return n, err
		}
	}
	i.touch()
	fd := i.fd()
	return dst.CopyOutFrom(func(b []byte) (int, error) {
		for {
			n, err := unix.Pread(fd, b, off)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return 0, err
			}
			off += int64(n)
			return n, nil
		}
	})
}

// Write implements vfs.Writer.
func (f file) Write(_ vfs.Context, src mm.IOSeq, off int64) (int64, error) {
	f.inode.touch()
	fd := int(f.inode.rw.Load())
	return src.CopyInTo(func(b []byte) (int, error) {
		for {
			n, err := unix.Pwrite(fd, b, off)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return 0, err
			}
			off += int64(n)
			return n, nil
		}
	})
}

// Append implements vfs.Appender. Each piece goes to what is the end then, so that others of the host who append are not
// overwritten; those of the sentry wait.
func (f file) Append(ctx vfs.Context, src mm.IOSeq) (n, end int64, err error) {
	i := f.inode
	i.appendMu.Lock()
	defer i.appendMu.Unlock()
	i.touch()
	fd := int(i.rw.Load())
	if !i.fs.shared {
		if end, err = f.Size(ctx); err != nil {
			return 0, 0, err
		}
		n, err = f.Write(ctx, src, end)
		return n, end + n, err
	}
	n, err = src.CopyInTo(func(b []byte) (int, error) {
		for {
			n, err := unix.Pwritev2(fd, [][]byte{b}, 0, unix.RWF_APPEND)
			if err != unix.EINTR {
				return max(n, 0), err
			}
		}
	})
	if end, serr := f.Size(ctx); serr == nil {
		return n, end, err
	}
	return n, n, err
}

// Size implements vfs.Sizer.
func (f file) Size(vfs.Context) (int64, error) {
	return f.inode.length()
}

// length asks the descriptor; the caller is a user.
func (i *inode) length() (int64, error) {
	if i.fs.frozen {
		return i.size.Load(), nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(i.fd(), &st); err != nil {
		return 0, err
	}
	return st.Size, nil
}

// SeekHole implements vfs.HoleSeeker. The host descriptor's own offset is used by nothing else.
func (f file) SeekHole(_ vfs.Context, off int64, whence int32) (int64, error) {
	return unix.Seek(f.inode.fd(), off, int(whence))
}

// Fsync implements vfs.Fsyncer.
func (f file) Fsync(_ vfs.Context, dataOnly bool) error {
	if dataOnly {
		return unix.Fdatasync(f.inode.fd())
	}
	return unix.Fsync(f.inode.fd())
}

// Allocate implements vfs.Allocator.
func (f file) Allocate(_ vfs.Context, mode uint32, off, length int64) error {
	i := f.inode
	i.touch()
	for {
		err := unix.Fallocate(int(i.rw.Load()), mode, off, length)
		switch err {
		case unix.EINTR:
			continue
		case nil:
			if mode&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0 {
				i.maps.Invalidate(i, uint64(off)&^arch.PageMask, 0, true)
			}
		}
		return err
	}
}

// Truncate implements vfs.Truncater.
func (f file) Truncate(_ vfs.Context, size int64) error { return f.inode.truncate(size) }

// resized tells mappings that the pages behind the end are gone.
func (i *inode) resized(size int64) {
	if up, ok := arch.PageUp(uint64(size)); ok {
		i.maps.Invalidate(i, up, 0, true)
	}
}

// Mappable implements vfs.Mapper.
func (f file) Mappable(vfs.Context) (mm.Mappable, error) { return f.inode, nil }

// MappingSet implements mm.Mappable.
func (i *inode) MappingSet() *mm.MappingSet { return &i.maps }

// Translate implements mm.Mappable. The mapping's file is a user of the descriptors.
func (i *inode) Translate(start, end, at uint64, write bool) (mm.Translation, error) {
	fd, perms := int(i.rw.Load()), platform.Read|platform.Write|platform.Exec
	if fd < 0 {
		fd, perms = i.fd(), platform.Read|platform.Exec
	}
	var st unix.Stat_t
	if fd < 0 || unix.Fstat(fd, &st) != nil {
		return mm.Translation{}, unix.EIO
	}
	limit, _ := arch.PageUp(uint64(st.Size))
	if at >= limit {
		return mm.Translation{}, mm.ErrBus
	}
	return mm.Translation{Start: start, End: min(end, limit), HostFD: fd, Offset: start, Perms: perms}, nil
}
