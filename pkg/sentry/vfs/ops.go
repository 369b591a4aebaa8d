package vfs

import (
	"strings"

	"husk/pkg/sentry/clock"

	"golang.org/x/sys/unix"
)

// parentOf walks to the directory of the last component of path, which stays in w.last. It returns a reference. Errors include errRestart.
func (w *walker) parentOf(path string) (Path, error) {
	if err := w.begin(path); err != nil {
		return Path{}, err
	}
	if err := w.run(); err != nil {
		return Path{}, err
	}
	return w.finish()
}

// inParent runs f with the directory of path's last component (referenced), again as long as f gives errRestart.
func (v *VFS) inParent(ctx Context, start Path, path string, f func(w *walker, dir Path) error) error {
	w := v.walker(ctx, start, walkParent)
	defer w.done()
	for {
		dir, err := w.parentOf(path)
		if err == nil {
			err = f(w, dir)
			dir.DecRef()
		}
		if err == nil || !again(err) {
			return err
		}
	}
}

// Stat is statx(2).
func (v *VFS) Stat(ctx Context, start Path, path string, flags LookupFlags, mask uint32, st *Stat) error {
	p, err := v.Walk(ctx, start, path, flags)
	if err != nil {
		return err
	}
	*st = Stat{}
	err = p.Dentry.inode.ops.Stat(ctx, mask, st)
	p.DecRef()
	return err
}

// Access is access(2): mask of MayRead, MayWrite, MayExec, or 0 for existence. ctx has the credentials that count.
func (v *VFS) Access(ctx Context, start Path, path string, flags LookupFlags, mask uint32) error {
	p, err := v.Walk(ctx, start, path, flags)
	if err != nil {
		return err
	}
	defer p.DecRef()
	return v.AccessPath(ctx, p, mask)
}

// AccessPath is Access of a place.
func (v *VFS) AccessPath(ctx Context, p Path, mask uint32) error {
	i := p.Dentry.inode
	if mask&MayExec != 0 && i.Type() == unix.S_IFREG && (p.Mount.Flags()&MountNoExec != 0 || i.Flags()&InodeNoExec != 0) {
		return unix.EACCES
	}
	if err := CheckPermission(ctx, i, mask); err != nil {
		return err
	}
	if mask&MayWrite != 0 && p.Mount.ReadOnly() {
		switch i.Type() {
		case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK:
			return unix.EROFS
		}
	}
	return nil
}

// Mkdir is mkdir(2).
func (v *VFS) Mkdir(ctx Context, start Path, path string, mode uint32) error {
	return v.create(ctx, start, path, &CreateArgs{Mode: unix.S_IFDIR | mode&01777}, nil)
}

// Mknod is mknod(2); mode holds the type (0: a regular file).
func (v *VFS) Mknod(ctx Context, start Path, path string, mode uint32, rdev uint64) error {
	return v.mknod(ctx, start, path, mode, rdev, nil)
}

// MknodPath is Mknod, and returns the place with a reference: for bind(2) of unix sockets, whose EADDRINUSE is EEXIST here.
func (v *VFS) MknodPath(ctx Context, start Path, path string, mode uint32, rdev uint64) (p Path, err error) {
	err = v.mknod(ctx, start, path, mode, rdev, &p)
	return p, err
}

func (v *VFS) mknod(ctx Context, start Path, path string, mode uint32, rdev uint64, made *Path) error {
	switch mode & unix.S_IFMT {
	case 0:
		mode |= unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	case unix.S_IFCHR, unix.S_IFBLK:
		// A device 0:0 is a whiteout and harmless.
		if !(mode&unix.S_IFMT == unix.S_IFCHR && rdev == 0) && !ctx.Credentials().HasCap(unix.CAP_MKNOD) {
			return unix.EPERM
		}
	case unix.S_IFDIR:
		return unix.EPERM
	default:
		return unix.EINVAL
	}
	if t := mode & unix.S_IFMT; t != unix.S_IFCHR && t != unix.S_IFBLK {
		rdev = 0
	}
	return v.create(ctx, start, path, &CreateArgs{Mode: mode & (unix.S_IFMT | 07777), Rdev: rdev}, made)
}

// Symlink is symlink(2).
func (v *VFS) Symlink(ctx Context, target string, start Path, path string) error {
	if target == "" {
		return unix.ENOENT
	}
	if len(target) >= pathMax {
		return unix.ENAMETOOLONG
	}
	return v.create(ctx, start, path, &CreateArgs{Mode: unix.S_IFLNK | 0777, Target: strings.Clone(target)}, nil)
}

// create makes a directory entry of any type; EEXIST. If made is set, it gets the place with a reference.
func (v *VFS) create(ctx Context, start Path, path string, a *CreateArgs, made *Path) error {
	if a.Mode&unix.S_IFMT != unix.S_IFLNK {
		a.Mode &^= ctx.FS().Umask()
	}
	return v.inParent(ctx, start, path, func(w *walker, dir Path) error {
		if w.lastKind != lastName {
			return unix.EEXIST
		}
		d := dir.Dentry
		name := strings.Clone(w.last)
		hash := v.hashName(name)
		d.dir.rw.Lock()
		defer d.dir.rw.Unlock()
		c, err := v.lookupFor(ctx, d, hash, name, true)
		if err == nil {
			c.DecRef()
			return unix.EEXIST
		}
		if err != unix.ENOENT {
			return err
		}
		if w.mustDir && a.Mode&unix.S_IFMT != unix.S_IFDIR {
			return unix.ENOENT
		}
		if dir.Mount.ReadOnly() {
			return unix.EROFS
		}
		if err := mayCreate(ctx, d); err != nil {
			return err
		}
		w.made = *a
		initMode(ctx, d.inode, &w.made)
		inode, err := d.inode.ops.Create(ctx, name, &w.made)
		if err != nil {
			return err
		}
		c = d.addChild(hash, name, inode, d.inode.Flags()&InodeNoCache == 0)
		if made != nil {
			dir.Mount.IncRef()
			*made = Path{dir.Mount, c}
		} else {
			c.DecRef()
		}
		mask := uint32(unix.IN_CREATE)
		if a.Mode&unix.S_IFMT == unix.S_IFDIR {
			mask |= inIsDir
		}
		d.inode.notify(mask, 0, name, false)
		return nil
	})
}

// Unlink is unlink(2).
func (v *VFS) Unlink(ctx Context, start Path, path string) error {
	return v.remove(ctx, start, path, false)
}

// Rmdir is rmdir(2).
func (v *VFS) Rmdir(ctx Context, start Path, path string) error {
	return v.remove(ctx, start, path, true)
}

func (v *VFS) remove(ctx Context, start Path, path string, isDir bool) error {
	return v.inParent(ctx, start, path, func(w *walker, dir Path) error {
		if err := removeKind(w.lastKind, isDir); err != nil {
			return err
		}
		if dir.Mount.ReadOnly() {
			return unix.EROFS
		}
		d := dir.Dentry
		d.dir.rw.Lock()
		defer d.dir.rw.Unlock()
		hash := v.hashName(w.last)
		name := d.keptName(hash, w.last)
		c, err := v.lookupLocked(ctx, d, hash, name)
		if err != nil {
			return err
		}
		defer c.DecRef()
		if w.mustDir && !isDir {
			if c.inode.IsDir() {
				return unix.EISDIR
			}
			return unix.ENOTDIR
		}
		if err := mayDelete(ctx, d.inode, c.inode, isDir); err != nil {
			return err
		}
		if c.isMountpoint(ctx.MountNS()) {
			return unix.EBUSY
		}
		if !isDir {
			if err := d.inode.ops.Unlink(ctx, name, c.inode); err != nil {
				return err
			}
			v.removed(d, c, name)
			return nil
		}
		c.dir.rw.Lock()
		defer c.dir.rw.Unlock()
		if err := d.inode.ops.Rmdir(ctx, name, c.inode); err != nil {
			return err
		}
		c.inode.SetFlags(inodeDead)
		v.removed(d, c, name)
		return nil
	})
}

func removeKind(k lastKind, isDir bool) error {
	switch {
	case k == lastName:
		return nil
	case !isDir:
		return unix.EISDIR
	case k == lastDot:
		return unix.EINVAL
	case k == lastDotDot:
		return unix.ENOTEMPTY
	}
	return unix.EBUSY
}

// removed updates the cache after the name of c in d is gone. d.dir.rw is held.
func (v *VFS) removed(d, c *Dentry, name string) {
	c.flags.Or(dentryRemoved)
	c.unhash()
	v.detachMountsOn(c)
	mask := uint32(unix.IN_DELETE)
	if c.inode.IsDir() {
		mask |= inIsDir
	} else {
		c.inode.notify(unix.IN_ATTRIB, 0, "", true)
	}
	d.inode.notify(mask, 0, name, false)
}

// Link is linkat(2); flags may have FollowLast and EmptyPath.
func (v *VFS) Link(ctx Context, oldStart Path, old string, newStart Path, new string, flags LookupFlags) error {
	p, err := v.Walk(ctx, oldStart, old, flags)
	if err != nil {
		return err
	}
	defer p.DecRef()
	i := p.Dentry.inode
	return v.inParent(ctx, newStart, new, func(w *walker, dir Path) error {
		if w.lastKind != lastName {
			return unix.EEXIST
		}
		d := dir.Dentry
		name := strings.Clone(w.last)
		hash := v.hashName(name)
		d.dir.rw.Lock()
		defer d.dir.rw.Unlock()
		c, err := v.lookupFor(ctx, d, hash, name, true)
		if err == nil {
			c.DecRef()
			return unix.EEXIST
		}
		if err != unix.ENOENT {
			return err
		}
		if w.mustDir {
			return unix.ENOENT
		}
		if dir.Mount.ReadOnly() {
			return unix.EROFS
		}
		if p.Mount != dir.Mount {
			return unix.EXDEV
		}
		if err := v.mayLinkTo(ctx, i); err != nil {
			return err
		}
		if err := mayCreate(ctx, d); err != nil {
			return err
		}
		if i.Flags()&(InodeImmutable|InodeAppendOnly) != 0 || i.IsDir() {
			return unix.EPERM
		}
		var st Stat
		if p.Dentry.Removed() && i.Flags()&inodeLinkable == 0 {
			if err := i.ops.Stat(ctx, unix.STATX_NLINK, &st); err == nil && st.Nlink == 0 {
				return unix.ENOENT
			}
		}
		if err := d.inode.ops.Link(ctx, name, i); err != nil {
			return err
		}
		i.ClearFlags(inodeLinkable)
		i.IncRef()
		d.addChild(hash, name, i, d.inode.Flags()&InodeNoCache == 0).DecRef()
		i.notify(unix.IN_ATTRIB, 0, "", false)
		d.inode.notify(unix.IN_CREATE, 0, name, false)
		return nil
	})
}

// mayLinkTo is protected_hardlinks of proc_sys_fs(5).
func (v *VFS) mayLinkTo(ctx Context, i *Inode) error {
	c := ctx.Credentials()
	if v.sysctl.ProtectedHardlinks.Load() == 0 || OwnerOrCapable(c, i) {
		return nil
	}
	m := i.Mode()
	if m&unix.S_IFMT != unix.S_IFREG || m&unix.S_ISUID != 0 || m&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP {
		return unix.EPERM
	}
	if CheckPermission(ctx, i, MayRead|MayWrite) != nil {
		return unix.EPERM
	}
	return nil
}

// Readlink is readlinkat(2); with path "" it is that of start itself.
func (v *VFS) Readlink(ctx Context, start Path, path string) (string, error) {
	p, err := v.Walk(ctx, start, path, EmptyPath)
	if err != nil {
		return "", err
	}
	defer p.DecRef()
	return v.ReadlinkPath(ctx, p)
}

// ReadlinkPath is the target of the symlink at p; EINVAL. Magic links give the path of what they lead to.
func (v *VFS) ReadlinkPath(ctx Context, p Path) (string, error) {
	i := p.Dentry.inode
	if i.Type() != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	if a, ok := i.ops.(AtimeToucher); ok {
		touchAtime(p.Mount, i, a)
	}
	return i.ops.Readlink(ctx)
}

// SetStat changes attributes by path: chmod(2), chown(2), truncate(2), utimensat(2).
func (v *VFS) SetStat(ctx Context, start Path, path string, flags LookupFlags, s *SetStat) error {
	p, err := v.Walk(ctx, start, path, flags)
	if err != nil {
		return err
	}
	defer p.DecRef()
	return v.SetStatPath(ctx, p, s)
}

// SetStatPath is SetStat of a place.
func (v *VFS) SetStatPath(ctx Context, p Path, s *SetStat) error { return v.setStat(ctx, p, s, nil) }

// setStat checks and makes a change; fd is the open file by which it is asked for, or nil.
func (v *VFS) setStat(ctx Context, p Path, s *SetStat, fd *FileDescription) error {
	i := p.Dentry.inode
	if s.Mask&SetSize != 0 {
		if err := v.mayTruncate(ctx, p, s.Size, fd); err != nil {
			return err
		}
	}
	if p.Mount.ReadOnly() {
		return unix.EROFS
	}
	c := *s // the caller's may be used again
	if err := prepareSetStat(ctx, i, &c); err != nil {
		return err
	}
	if c.Mask&(SetSize|SetUID|SetGID) != 0 {
		dropFileCaps(ctx, i)
	}
	var err error
	if t, ok := truncaterOf(fd); ok && c.Mask == SetSize {
		err = t.Truncate(ctx, c.Size)
	} else {
		err = i.ops.SetStat(ctx, &c)
	}
	if err != nil {
		return err
	}
	if s.Mask&SetSize != 0 {
		p.Dentry.Notify(unix.IN_MODIFY)
	} else {
		p.Dentry.Notify(unix.IN_ATTRIB)
	}
	return nil
}

func truncaterOf(fd *FileDescription) (t Truncater, ok bool) {
	if fd != nil {
		t, ok = fd.impl.(Truncater)
	}
	return t, ok
}

// mayTruncate vets truncate(2) and ftruncate(2).
func (v *VFS) mayTruncate(ctx Context, p Path, size int64, fd *FileDescription) error {
	i := p.Dentry.inode
	if size < 0 {
		return unix.EINVAL
	}
	if fd == nil {
		switch i.Type() {
		case unix.S_IFREG:
		case unix.S_IFDIR:
			return unix.EISDIR
		default:
			return unix.EINVAL
		}
		if p.Mount.ReadOnly() {
			return unix.EROFS
		}
		if err := CheckPermission(ctx, i, MayWrite); err != nil {
			return err
		}
		if err := i.getWrite(); err != nil {
			return err
		}
		i.putWrite()
	} else if !fd.Writable() || i.Type() != unix.S_IFREG {
		return unix.EINVAL
	}
	if i.Flags()&InodeAppendOnly != 0 {
		return unix.EPERM
	}
	return checkFileSize(ctx, size)
}

// prepareSetStat checks permissions, fills in times and drops set-ID bits that the change must not leave.
func prepareSetStat(ctx Context, i *Inode, s *SetStat) error {
	c := ctx.Credentials()
	const times = SetAtime | SetMtime | SetAtimeNow | SetMtimeNow
	if i.Flags()&InodeImmutable != 0 || i.Flags()&InodeAppendOnly != 0 && s.Mask&^(SetAtimeNow|SetMtimeNow) != 0 {
		return unix.EPERM
	}
	if s.Mask&SetUID != 0 && !(c.FSUID == i.UID() && s.UID == i.UID()) && !capableWrtInode(c, i, unix.CAP_CHOWN) {
		return unix.EPERM
	}
	if s.Mask&SetGID != 0 && !(c.FSUID == i.UID() && (s.GID == i.GID() || c.InGroup(s.GID))) && !capableWrtInode(c, i, unix.CAP_CHOWN) {
		return unix.EPERM
	}
	if s.Mask&SetMode != 0 {
		if !OwnerOrCapable(c, i) {
			return unix.EPERM
		}
		s.Mode &= 07777
		gid := i.GID()
		if s.Mask&SetGID != 0 {
			gid = s.GID
		}
		if s.Mode&unix.S_ISGID != 0 && !c.InGroup(gid) && !capableWrtInode(c, i, unix.CAP_FSETID) {
			s.Mode &^= unix.S_ISGID
		}
	}
	if s.Mask&times != 0 {
		now := s.Mask&(SetAtime|SetMtime) == 0
		// Setting both to now needs only write permission.
		both := s.Mask&(SetAtimeNow|SetMtimeNow) == SetAtimeNow|SetMtimeNow
		if !OwnerOrCapable(c, i) {
			if !now || !both {
				return unix.EPERM
			}
			if err := CheckPermission(ctx, i, MayWrite); err != nil {
				return err
			}
		}
		if s.Mask&(SetAtimeNow|SetMtimeNow) != 0 {
			t := clock.Realtime()
			if s.Mask&SetAtimeNow != 0 {
				s.Atime = t
				s.Mask |= SetAtime
			}
			if s.Mask&SetMtimeNow != 0 {
				s.Mtime = t
				s.Mask |= SetMtime
			}
			s.Mask &^= SetAtimeNow | SetMtimeNow
		}
	}
	if s.Mask&(SetUID|SetGID) != 0 && s.Mask&SetMode == 0 && !i.IsDir() {
		m := i.Mode()
		k := m &^ unix.S_ISUID
		if m&unix.S_IXGRP != 0 || !c.InGroup(i.GID()) && !capableWrtInode(c, i, unix.CAP_FSETID) {
			k &^= unix.S_ISGID
		}
		if k != m {
			s.Mask |= SetMode
			s.Mode = k & 07777
		}
	}
	if s.Mask&SetSize != 0 {
		killPrivs(ctx, i, s)
	}
	return nil
}

// killPrivs adds to s what a change of the contents takes away: set-user-ID, and set-group-ID of executables and of other groups' files.
func killPrivs(ctx Context, i *Inode, s *SetStat) {
	m := i.Mode()
	c := ctx.Credentials()
	if !hasPrivs(m) || s.Mask&SetMode != 0 || capableWrtInode(c, i, unix.CAP_FSETID) {
		return
	}
	keep := m &^ unix.S_ISUID
	if m&unix.S_IXGRP != 0 || !c.InGroup(i.GID()) {
		keep &^= unix.S_ISGID
	}
	if keep != m {
		s.Mask |= SetMode
		s.Mode = keep & 07777
	}
}

func hasPrivs(m uint32) bool {
	return m&(unix.S_ISUID|unix.S_ISGID) != 0 && m&unix.S_IFMT == unix.S_IFREG
}

// checkFileSize gives EFBIG, and SIGXFSZ, where size is over RLIMIT_FSIZE.
func checkFileSize(ctx Context, size int64) error {
	if uint64(size) > ctx.Limits().Get(unix.RLIMIT_FSIZE).Cur {
		ctx.SendSignal(int32(unix.SIGXFSZ))
		return unix.EFBIG
	}
	return nil
}
