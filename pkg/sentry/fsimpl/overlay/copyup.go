package overlay

import (
	"strings"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// copyChunk is how much of a file is copied at once.
const copyChunk = 256 << 10

// copyUp makes sure that the inode is in the upper layer, and its directories before it. data says whether the contents are wanted.
// EROFS where there is no upper layer.
func (i *inode) copyUp(ctx vfs.Context, data bool) error {
	if i.upper.Load() != nil {
		return nil
	}
	if i.parent == nil {
		return unix.EROFS
	}
	if err := i.parent.copyUp(ctx, true); err != nil {
		return err
	}
	i.copyMu.Lock()
	defer i.copyMu.Unlock()
	if i.upper.Load() != nil {
		return nil
	}
	low := i.lower[0]
	var st vfs.Stat
	if err := low.Ops().Stat(ctx, unix.STATX_BASIC_STATS, &st); err != nil {
		return err
	}
	a := vfs.CreateArgs{Mode: st.Mode, UID: st.UID, GID: st.GID, Rdev: st.Rdev}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		var err error
		if a.Target, err = low.Ops().Readlink(ctx); err != nil {
			return err
		}
	}
	p := i.parent
	p.upperMu.Lock()
	defer p.upperMu.Unlock()
	dir := p.upper.Load()
	var dst vfs.Stat // of the directory, whose times the application must not see change
	if err := dir.Ops().Stat(ctx, unix.STATX_BASIC_STATS, &dst); err != nil {
		return err
	}
	u, err := dir.Ops().Create(ctx, i.name, &a)
	if err != nil {
		return err
	}
	err = copyXattrs(ctx, low.Inode, u)
	if err == nil && data && st.Mode&unix.S_IFMT == unix.S_IFREG {
		err = copyData(ctx, low.Inode, u, st.Size)
	}
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		err = u.Ops().SetStat(ctx, &vfs.SetStat{Mask: vfs.SetAtime | vfs.SetMtime | vfs.SetMode, Atime: st.Atime, Mtime: st.Mtime, Mode: st.Mode & 07777})
	}
	if err != nil {
		if u.IsDir() {
			_ = dir.Ops().Rmdir(ctx, i.name, u)
		} else {
			_ = dir.Ops().Unlink(ctx, i.name, u)
		}
		u.DecRef()
		return err
	}
	_ = dir.Ops().SetStat(ctx, &vfs.SetStat{Mask: vfs.SetAtime | vfs.SetMtime, Atime: dst.Atime, Mtime: dst.Mtime})
	f := i.fs
	f.mu.Lock()
	f.origin[u.Ino()] = i.Ino()
	if !u.IsDir() {
		f.uppers[u] = i
	}
	f.mu.Unlock()
	i.upper.Store(u)
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		// From now on mappings show the copy.
		i.mappings.Invalidate(i, 0, 0, false)
	}
	return nil
}

func copyXattrs(ctx vfs.Context, from, to *vfs.Inode) error {
	l, err := from.Ops().ListXattr(ctx)
	if err != nil {
		return nil // a layer without attributes
	}
	for _, n := range l {
		if strings.HasPrefix(n, xattrPrefix) {
			continue
		}
		b, err := from.Ops().GetXattr(ctx, n)
		if err != nil {
			continue
		}
		if err := to.Ops().SetXattr(ctx, n, b, 0); err != nil && err != unix.EOPNOTSUPP {
			return err
		}
	}
	return nil
}

// copyData copies the contents; runs of zeros become holes. EINTR if the task is killed.
func copyData(ctx vfs.Context, from, to *vfs.Inode, size int64) error {
	if size == 0 {
		return nil
	}
	src, err := from.Ops().Open(ctx, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer src.Release()
	if s, ok := src.(vfs.Sizer); ok { // as it is now
		if size, err = s.Size(ctx); err != nil {
			return err
		}
	}
	dst, err := to.Ops().Open(ctx, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer dst.Release()
	r, ok1 := src.(vfs.Reader)
	w, ok2 := dst.(vfs.Writer)
	if !ok1 || !ok2 {
		return unix.EIO
	}
	holes, _ := src.(vfs.HoleSeeker)
	b := make([]byte, min(size, copyChunk))
	for off := int64(0); off < size; {
		if vfs.Killed(ctx) {
			return unix.EINTR
		}
		if holes != nil {
			d, err := holes.SeekHole(ctx, off, unix.SEEK_DATA)
			if err == unix.ENXIO {
				break
			}
			if err == nil && d > off {
				off = d
			}
			if off >= size {
				break // the file has grown meanwhile
			}
		}
		n, err := r.Read(ctx, mm.BytesSeq(b[:min(size-off, int64(len(b)))]), off)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		for done := int64(0); done < n; {
			m, err := w.Write(ctx, mm.BytesSeq(b[done:n]), off+done)
			if err != nil {
				return err
			}
			if m == 0 {
				return unix.ENOSPC
			}
			done += m
		}
		off += n
	}
	return to.Ops().SetStat(ctx, &vfs.SetStat{Mask: vfs.SetSize, Size: size})
}
