package overlay

import (
	"sync"
	"sync/atomic"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// Open implements vfs.InodeOps.
func (i *inode) Open(ctx vfs.Context, flags uint32) (vfs.FileImpl, error) {
	if i.IsDir() {
		return &dirFile{i: i}, nil
	}
	if flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0 {
		if err := i.copyUp(ctx, flags&unix.O_TRUNC == 0); err != nil {
			return nil, err
		}
	}
	if len(i.lower) == 0 {
		return i.upper.Load().Ops().Open(ctx, flags) // nothing that the overlay must know of
	}
	f, _ := i.fs.files.Get().(*file)
	if f == nil {
		f = new(file)
	}
	f.i, f.flags = i, flags
	if err := f.open(ctx, &f.first); err != nil {
		return nil, err
	}
	f.cur.Store(&f.first)
	return f, nil
}

// file is an open regular file with a part in a lower layer. It reads the copy in the upper layer as soon as there is one.
type file struct {
	i     *inode                 // immutable
	flags uint32                 // immutable
	first handle                 // immutable
	cur   atomic.Pointer[handle] // first, or its successor; changed under mu

	mu  sync.Mutex
	old *handle // protected by mu: the lower file, kept while pages of it may be mapped
}

// handle is an open file of a layer.
type handle struct {
	impl  vfs.FileImpl
	upper bool
	// Parts of impl, nil if it lacks them.
	reader vfs.Reader
	writer vfs.Writer
}

// open opens the file of the topmost layer as h.
func (f *file) open(ctx vfs.Context, h *handle) (err error) {
	u := f.i.upper.Load()
	top := u
	if top == nil {
		top = f.i.lower[0].Inode
	}
	if h.impl, err = top.Ops().Open(ctx, f.flags&^unix.O_TRUNC); err != nil {
		return err
	}
	h.upper = u != nil
	h.reader, _ = h.impl.(vfs.Reader)
	h.writer, _ = h.impl.(vfs.Writer)
	return nil
}

// handle is where the data is now.
func (f *file) handle(ctx vfs.Context) (*handle, error) {
	h := f.cur.Load()
	if h.upper || f.i.upper.Load() == nil {
		return h, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.cur.Load(); h.upper {
		return h, nil
	}
	n := new(handle)
	if err := f.open(ctx, n); err != nil {
		return nil, err
	}
	f.old = f.cur.Swap(n)
	return n, nil
}

// Release implements vfs.FileImpl.
func (f *file) Release() {
	f.cur.Load().impl.Release()
	if f.old != nil {
		f.old.impl.Release()
	}
	fs := f.i.fs
	*f = file{}
	fs.files.Put(f)
}

// Read implements vfs.Reader.
func (f *file) Read(ctx vfs.Context, dst mm.IOSeq, off int64) (int64, error) {
	h, err := f.handle(ctx)
	if err != nil {
		return 0, err
	}
	if h.reader == nil {
		return 0, unix.EINVAL
	}
	return h.reader.Read(ctx, dst, off)
}

// Write implements vfs.Writer.
func (f *file) Write(ctx vfs.Context, src mm.IOSeq, off int64) (int64, error) {
	h, err := f.handle(ctx)
	if err != nil {
		return 0, err
	}
	if h.writer == nil {
		return 0, unix.EINVAL
	}
	return h.writer.Write(ctx, src, off)
}

// Append implements vfs.Appender.
func (f *file) Append(ctx vfs.Context, src mm.IOSeq) (n, end int64, err error) {
	h, err := f.handle(ctx)
	if err != nil {
		return 0, 0, err
	}
	if a, ok := h.impl.(vfs.Appender); ok {
		return a.Append(ctx, src)
	}
	size, err := f.Size(ctx)
	if err != nil {
		return 0, 0, err
	}
	n, err = f.Write(ctx, src, size)
	return n, size + n, err
}

// Size implements vfs.Sizer.
func (f *file) Size(ctx vfs.Context) (int64, error) {
	h, err := f.handle(ctx)
	if err != nil {
		return 0, err
	}
	if s, ok := h.impl.(vfs.Sizer); ok {
		return s.Size(ctx)
	}
	var st vfs.Stat
	err = f.i.Stat(ctx, unix.STATX_SIZE, &st)
	return st.Size, err
}

// SeekHole implements vfs.HoleSeeker.
func (f *file) SeekHole(ctx vfs.Context, off int64, whence int32) (int64, error) {
	h, err := f.handle(ctx)
	if err != nil {
		return 0, err
	}
	if s, ok := h.impl.(vfs.HoleSeeker); ok {
		return s.SeekHole(ctx, off, whence)
	}
	if whence == unix.SEEK_HOLE {
		return f.Size(ctx)
	}
	return off, nil
}

// Fsync implements vfs.Fsyncer.
func (f *file) Fsync(ctx vfs.Context, dataOnly bool) error {
	h := f.cur.Load()
	if s, ok := h.impl.(vfs.Fsyncer); ok && h.upper {
		return s.Fsync(ctx, dataOnly)
	}
	return nil
}

// Allocate implements vfs.Allocator.
func (f *file) Allocate(ctx vfs.Context, mode uint32, off, length int64) error {
	h, err := f.handle(ctx)
	if err != nil {
		return err
	}
	a, ok := h.impl.(vfs.Allocator)
	if !ok {
		return unix.EOPNOTSUPP
	}
	if err := a.Allocate(ctx, mode, off, length); err != nil {
		return err
	}
	if mode&unix.FALLOC_FL_PUNCH_HOLE != 0 {
		f.i.invalidate(uint64(off), uint64(length), false)
	}
	return nil
}

// Mappable implements vfs.Mapper: the upper file itself, or the overlay's inode as long as the file may be copied up.
func (f *file) Mappable(ctx vfs.Context) (mm.Mappable, error) {
	h, err := f.handle(ctx)
	if err != nil {
		return nil, err
	}
	m, ok := h.impl.(vfs.Mapper)
	if !ok {
		return nil, unix.ENODEV
	}
	x, err := m.Mappable(ctx)
	if err != nil || h.upper {
		return x, err
	}
	f.i.lowerMap.CompareAndSwap(nil, &x)
	return f.i, nil
}

// MappingSet implements mm.Mappable.
func (i *inode) MappingSet() *mm.MappingSet { return &i.mappings }

// Translate implements mm.Mappable.
func (i *inode) Translate(start, end, at uint64, write bool) (mm.Translation, error) {
	if u := i.upper.Load(); u != nil {
		m := i.upperMap.Load()
		if m == nil {
			x, ok := u.Ops().(mm.Mappable)
			if !ok {
				return mm.Translation{}, unix.EIO
			}
			m = &x
			i.upperMap.Store(m)
		}
		return (*m).Translate(start, end, at, write)
	}
	m := i.lowerMap.Load()
	if m == nil {
		return mm.Translation{}, unix.EIO
	}
	return (*m).Translate(start, end, at, write)
}
