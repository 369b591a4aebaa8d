package overlay

import (
	"sync"

	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// inLower tells whether a lower layer has name in the directory, so that its removal needs a whiteout.
func (i *inode) inLower(ctx vfs.Context, name string) (bool, error) {
	if i.knownAbsent(name) {
		return false, nil
	}
	l, err := i.lowerSearch(ctx, name, false, nil, 0)
	for _, p := range l {
		p.DecRef()
	}
	if err == nil && len(l) == 0 {
		i.noteAbsent(name)
	}
	return len(l) > 0, err
}

// clearName removes a whiteout at name from the upper directory and tells whether there was one. upperMu is held.
func (i *inode) clearName(ctx vfs.Context, name string) (bool, error) {
	up := i.upper.Load()
	w, err := up.Ops().Lookup(ctx, name)
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer w.DecRef()
	if !isWhiteout(ctx, w) {
		return false, unix.EEXIST
	}
	return true, up.Ops().Unlink(ctx, name, w)
}

// whiteout puts a whiteout at name into the upper directory. upperMu is held.
func (i *inode) whiteout(ctx vfs.Context, name string) error {
	w, err := i.upper.Load().Ops().Create(ctx, name, &vfs.CreateArgs{Mode: unix.S_IFCHR})
	if err == nil {
		w.DecRef()
	}
	return err
}

// Create implements vfs.InodeOps.
func (i *inode) Create(ctx vfs.Context, name string, a *vfs.CreateArgs) (*vfs.Inode, error) {
	if err := i.copyUp(ctx, true); err != nil {
		return nil, err
	}
	i.upperMu.Lock()
	defer i.upperMu.Unlock()
	white, err := i.clearName(ctx, name)
	if err != nil {
		return nil, err
	}
	u, err := i.upper.Load().Ops().Create(ctx, name, a)
	if err == nil && white && u.IsDir() {
		if err = u.Ops().SetXattr(ctx, xattrOpaque, []byte("y"), 0); err != nil {
			_ = i.upper.Load().Ops().Rmdir(ctx, name, u)
			u.DecRef()
		}
	}
	if err != nil {
		if white {
			_ = i.whiteout(ctx, name)
		}
		return nil, err
	}
	return i.child(name, u, nil)
}

// Tmpfile implements vfs.TmpfileMaker.
func (i *inode) Tmpfile(ctx vfs.Context, a *vfs.CreateArgs) (*vfs.Inode, error) {
	if err := i.copyUp(ctx, true); err != nil {
		return nil, err
	}
	t, ok := i.upper.Load().Ops().(vfs.TmpfileMaker)
	if !ok {
		return nil, unix.EOPNOTSUPP
	}
	u, err := t.Tmpfile(ctx, a)
	if err != nil {
		return nil, err
	}
	return i.child("", u, nil)
}

// Link implements vfs.InodeOps.
func (i *inode) Link(ctx vfs.Context, name string, target *vfs.Inode) error {
	t := target.Ops().(*inode)
	if err := t.copyUp(ctx, true); err != nil {
		return err
	}
	if err := i.copyUp(ctx, true); err != nil {
		return err
	}
	i.upperMu.Lock()
	defer i.upperMu.Unlock()
	white, err := i.clearName(ctx, name)
	if err != nil {
		return err
	}
	if err = i.upper.Load().Ops().Link(ctx, name, t.upper.Load()); err != nil && white {
		_ = i.whiteout(ctx, name)
	}
	return err
}

// Unlink implements vfs.InodeOps.
func (i *inode) Unlink(ctx vfs.Context, name string, victim *vfs.Inode) error {
	return i.remove(ctx, name, victim.Ops().(*inode), false)
}

// Rmdir implements vfs.InodeOps.
func (i *inode) Rmdir(ctx vfs.Context, name string, victim *vfs.Inode) error {
	v := victim.Ops().(*inode)
	empty, err := v.emptyDir(ctx)
	if err != nil {
		return err
	}
	if !empty {
		return unix.ENOTEMPTY
	}
	return i.remove(ctx, name, v, true)
}

// remove takes name out of the upper directory, and hides it in the lower ones.
func (i *inode) remove(ctx vfs.Context, name string, v *inode, isDir bool) error {
	below, err := i.inLower(ctx, name)
	if err != nil {
		return err
	}
	if err := i.copyUp(ctx, true); err != nil {
		return err
	}
	i.upperMu.Lock()
	defer i.upperMu.Unlock()
	if err := i.removeUpper(ctx, name, v, isDir); err != nil {
		return err
	}
	if below {
		return i.whiteout(ctx, name)
	}
	return nil
}

// removeUpper removes v's upper part, if it has one. upperMu is held.
func (i *inode) removeUpper(ctx vfs.Context, name string, v *inode, isDir bool) error {
	u := v.upper.Load()
	if u == nil {
		return nil
	}
	if !isDir {
		return i.upper.Load().Ops().Unlink(ctx, name, u)
	}
	if err := dropWhiteouts(ctx, u); err != nil {
		return err
	}
	return i.upper.Load().Ops().Rmdir(ctx, name, u)
}

// dropWhiteouts removes the whiteouts of a directory of the upper layer that is empty but for them.
func dropWhiteouts(ctx vfs.Context, dir *vfs.Inode) error {
	l, err := list(ctx, dir)
	if err != nil {
		return err
	}
	for _, e := range l {
		c, err := dir.Ops().Lookup(ctx, e.name)
		if err != nil {
			return err
		}
		if isWhiteout(ctx, c) {
			err = dir.Ops().Unlink(ctx, e.name, c)
		}
		c.DecRef()
		if err != nil {
			return err
		}
	}
	return nil
}

// lockUppers locks the upper directories of a rename. Renames between directories exclude each other in vfs, and nothing else locks two.
func (i *inode) lockUppers(to *inode) {
	i.upperMu.Lock()
	if to != i {
		to.upperMu.Lock()
	}
}

func (i *inode) unlockUppers(to *inode) {
	i.upperMu.Unlock()
	if to != i {
		to.upperMu.Unlock()
	}
}

// listed is an entry of a directory.
type listed struct {
	name string
	ino  uint64
	typ  uint8
}

// lister collects entries.
type lister struct {
	l    []listed
	next int64
}

// Emit implements vfs.DirSink.
func (s *lister) Emit(name string, ino uint64, typ uint8, next int64) bool {
	s.l = append(s.l, listed{name, ino, typ})
	s.next = next
	return true
}

// list reads a whole directory of a layer.
func list(ctx vfs.Context, dir *vfs.Inode) ([]listed, error) {
	f, err := dir.Ops().Open(ctx, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	r, ok := f.(vfs.DirReader)
	if !ok {
		return nil, unix.ENOTDIR
	}
	s := lister{next: 2}
	for {
		n := len(s.l)
		if err := r.ReadDir(ctx, s.next, &s); err != nil {
			return nil, err
		}
		if len(s.l) == n {
			return s.l, nil
		}
	}
}

// merged lists the directory. Numbers are the overlay's.
func (i *inode) merged(ctx vfs.Context) (out []listed, err error) {
	seen := map[string]bool{}
	add := func(dir *vfs.Inode, layer int) error {
		l, err := list(ctx, dir)
		if err != nil {
			return err
		}
		for _, e := range l {
			if seen[e.name] {
				continue
			}
			seen[e.name] = true
			if e.typ == unix.DT_CHR && layer < len(i.fs.layers.Lower)-1 {
				c, err := dir.Ops().Lookup(ctx, e.name)
				if err != nil {
					continue
				}
				white := isWhiteout(ctx, c)
				c.DecRef()
				if white {
					continue
				}
			}
			e.ino = i.fs.number(layer, e.ino)
			out = append(out, e)
		}
		return nil
	}
	if u := i.upper.Load(); u != nil {
		if err := add(u, -1); err != nil {
			return nil, err
		}
	}
	for _, l := range i.lower {
		if err := add(l.Inode, l.layer); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// emptyDir tells whether the directory has no entries.
func (i *inode) emptyDir(ctx vfs.Context) (bool, error) {
	l, err := i.merged(ctx)
	return len(l) == 0, err
}

// dirFile is an open directory. Each time it is read from the start it chooses where the entries come from: a directory that
// only one lower layer has is read there, others are merged into a list.
type dirFile struct {
	i     *inode
	mu    sync.Mutex
	l     []listed      // protected by mu: the merged list
	lower vfs.FileImpl  // protected by mu: the open directory of the lower layer
	plain vfs.DirReader // protected by mu: lower, while it is what is read
}

// Release implements vfs.FileImpl.
func (f *dirFile) Release() {
	if f.lower != nil {
		f.lower.Release()
	}
}

// start chooses the source; mu is held.
func (f *dirFile) start(ctx vfs.Context) error {
	i := f.i
	f.l, f.plain = nil, nil
	if i.upper.Load() == nil && len(i.lower) == 1 && i.lower[0].layer == len(i.fs.layers.Lower)-1 {
		if f.lower == nil {
			var err error
			if f.lower, err = i.lower[0].Ops().Open(ctx, unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
				return err
			}
		}
		f.plain, _ = f.lower.(vfs.DirReader)
	}
	if f.plain != nil {
		return nil
	}
	var err error
	f.l, err = i.merged(ctx)
	return err
}

// ReadDir implements vfs.DirReader. The cookie of entry k of a merged list is 2+k.
func (f *dirFile) ReadDir(ctx vfs.Context, cookie int64, sink vfs.DirSink) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cookie == 2 || f.l == nil && f.plain == nil {
		if err := f.start(ctx); err != nil {
			return err
		}
	}
	if f.plain != nil {
		if f.i.fs.number(f.i.lower[0].layer, 1) == 1 {
			return f.plain.ReadDir(ctx, cookie, sink)
		}
		return f.plain.ReadDir(ctx, cookie, &numberer{sink, f.i})
	}
	for k := max(cookie-2, 0); k < int64(len(f.l)); k++ {
		e := f.l[k]
		if !sink.Emit(e.name, e.ino, e.typ, k+3) {
			break
		}
	}
	return nil
}

// numberer turns inode numbers of the lower layer into the overlay's.
type numberer struct {
	sink vfs.DirSink
	i    *inode
}

// Emit implements vfs.DirSink.
func (n *numberer) Emit(name string, ino uint64, typ uint8, next int64) bool {
	return n.sink.Emit(name, n.i.fs.number(n.i.lower[0].layer, ino), typ, next)
}
