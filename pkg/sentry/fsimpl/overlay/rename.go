package overlay

import (
	"strings"

	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// Rename implements vfs.InodeOps.
func (i *inode) Rename(ctx vfs.Context, name string, src *vfs.Inode, newDir *vfs.Inode, newName string, target *vfs.Inode, flags uint32) error {
	s, to := src.Ops().(*inode), newDir.Ops().(*inode)
	var t *inode
	if target != nil {
		t = target.Ops().(*inode)
	}
	exchange := flags&unix.RENAME_EXCHANGE != 0
	if flags&unix.RENAME_WHITEOUT != 0 {
		return unix.EINVAL
	}
	if t != nil && t.IsDir() && !exchange {
		if empty, err := t.emptyDir(ctx); err != nil || !empty {
			if err == nil {
				err = unix.ENOTEMPTY
			}
			return err
		}
	}
	for _, x := range []*inode{s, i, to} {
		if err := x.copyUp(ctx, true); err != nil {
			return err
		}
	}
	if exchange {
		if err := t.copyUp(ctx, true); err != nil {
			return err
		}
	}
	oldBelow, err := i.inLower(ctx, name)
	if err != nil {
		return err
	}
	newBelow, err := to.inLower(ctx, newName)
	if err != nil {
		return err
	}
	i.lockUppers(to)
	defer i.unlockUppers(to)
	su := s.upper.Load()
	if exchange {
		return i.exchange(ctx, name, s, to, newName, t, oldBelow, newBelow)
	}
	if err := s.mark(ctx, newBelow); err != nil {
		return err
	}
	var tu *vfs.Inode
	if t != nil {
		if tu = t.upper.Load(); tu != nil && tu.IsDir() {
			if err := dropWhiteouts(ctx, tu); err != nil {
				return err
			}
		}
	}
	white := false
	if tu == nil {
		if white, err = to.clearName(ctx, newName); err != nil {
			return err
		}
	}
	if err := i.upper.Load().Ops().Rename(ctx, name, su, to.upper.Load(), newName, tu, 0); err != nil {
		if white {
			_ = to.whiteout(ctx, newName)
		}
		return err
	}
	if oldBelow {
		return i.whiteout(ctx, name)
	}
	return nil
}

func (i *inode) exchange(ctx vfs.Context, name string, s, to *inode, newName string, t *inode, oldBelow, newBelow bool) error {
	su, tu := s.upper.Load(), t.upper.Load()
	if err := s.mark(ctx, newBelow); err != nil {
		return err
	}
	if err := t.mark(ctx, oldBelow); err != nil {
		return err
	}
	return i.upper.Load().Ops().Rename(ctx, name, su, to.upper.Load(), newName, tu, unix.RENAME_EXCHANGE)
}

// mark prepares a directory that is about to be moved, and is in the upper layer: its lower parts, if it has some, stay with it, and what lower
// layers have at the new place (below) does not merge with it. EXDEV where the upper layer cannot note that.
func (i *inode) mark(ctx vfs.Context, below bool) error {
	var err error
	u := i.upper.Load()
	switch {
	case !u.IsDir():
	case len(i.lower) > 0:
		err = u.Ops().SetXattr(ctx, xattrRedirect, []byte(i.origin()), 0)
	case below:
		err = u.Ops().SetXattr(ctx, xattrOpaque, []byte("y"), 0)
	}
	if err != nil {
		return unix.EXDEV
	}
	return nil
}

// origin is the path of the directory's lower parts, from the overlay's root.
func (i *inode) origin() string {
	if i.redirect != "" {
		return i.redirect
	}
	if i.parent == nil {
		return ""
	}
	return i.parent.origin() + "/" + i.name
}

// redirectOf is where the lower parts of a directory of the upper layer (or nil) are; "" for those that were not moved.
func redirectOf(ctx vfs.Context, u *vfs.Inode) string {
	if u == nil || !u.IsDir() {
		return ""
	}
	b, err := u.Ops().GetXattr(ctx, xattrRedirect)
	if err != nil || len(b) == 0 || b[0] != '/' {
		return ""
	}
	return string(b)
}

// redirected makes the inode of a directory that was moved to name.
func (i *inode) redirected(ctx vfs.Context, name string, u *vfs.Inode, redirect string) (*vfs.Inode, error) {
	lower, err := i.fs.lowerAt(ctx, redirect)
	if err != nil {
		u.DecRef()
		return nil, err
	}
	return &i.fs.newInode(i, name, redirect, u, lower).Inode, nil
}

// lowerAt finds the lower parts of the directory at a path from the overlay's root. EIO for paths that cannot be: the upper layer may be the
// work of somebody else.
func (f *fileSystem) lowerAt(ctx vfs.Context, path string) ([]part, error) {
	at := f.root.lower
	drop := func() {
		for _, p := range at {
			p.DecRef()
		}
	}
	for n, name := range strings.Split(path[1:], "/") {
		if name == "" || name == "." || name == ".." || len(name) > 255 {
			if n > 0 {
				drop()
			}
			return nil, unix.EIO
		}
		next, err := f.search(ctx, at, name, true, nil, 0)
		if n > 0 {
			drop()
		}
		if err != nil {
			return nil, err
		}
		at = next
	}
	return at, nil
}
