package vfs

import (
	"strings"

	"golang.org/x/sys/unix"
)

// OpenOptions are the arguments of openat2(2).
type OpenOptions struct {
	Flags   uint32 // O_*
	Mode    uint32 // for O_CREAT and O_TMPFILE, before umask
	Resolve LookupFlags
	// Exec is an open for execve(2): execute permission instead of read, regular files only, noexec (EACCES), nobody may write (ETXTBSY); see
	// FileDescription.AllowWrite.
	Exec bool
}

// The access modes of open(2); 3 is for ioctl(2) only, but asks for both permissions.
const accIoctl = 3

const oTmpfile = unix.O_TMPFILE &^ unix.O_DIRECTORY

// accessMask is what permissions an open needs.
func (o *OpenOptions) accessMask() (mask uint32) {
	switch o.Flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		mask = MayRead
	case unix.O_WRONLY:
		mask = MayWrite
	default:
		mask = MayRead | MayWrite
	}
	if o.Flags&unix.O_TRUNC != 0 {
		mask |= MayWrite
	}
	if o.Exec {
		mask = MayExec
	}
	return mask
}

// staleTries is how often a path is walked again because its end was not what it had been: what a file system knows ahead may be stale, too.
const staleTries = 3

// Open is open(2). start is where a relative path begins (the zero Path: the working directory). The file has one reference.
func (v *VFS) Open(ctx Context, start Path, path string, o *OpenOptions) (fd *FileDescription, err error) {
	for range staleTries {
		if fd, err = v.openOnce(ctx, start, path, o); err != unix.ESTALE {
			break
		}
	}
	return fd, err
}

func (v *VFS) openOnce(ctx Context, start Path, path string, o *OpenOptions) (*FileDescription, error) {
	flags := o.Resolve
	if o.Flags&unix.O_NOFOLLOW == 0 {
		flags |= FollowLast
	}
	if o.Flags&unix.O_PATH == 0 {
		if o.Flags&oTmpfile != 0 {
			return v.openTmpfile(ctx, start, path, flags, o)
		}
		if o.Flags&unix.O_CREAT != 0 {
			return v.openCreate(ctx, start, path, flags, o)
		}
	}
	if o.Flags&unix.O_DIRECTORY != 0 {
		flags |= MustBeDir
	}
	p, err := v.walkOpen(ctx, start, path, flags, o)
	if err != nil {
		return nil, err
	}
	fd, err := v.OpenPath(ctx, p, o)
	p.DecRef()
	return fd, err
}

// walkOpen is Walk, but where O_NOFOLLOW meets O_DIRECTORY a symlink is ENOTDIR.
func (v *VFS) walkOpen(ctx Context, start Path, path string, flags LookupFlags, o *OpenOptions) (Path, error) {
	if flags&MustBeDir != 0 && flags&FollowLast == 0 {
		// The walk follows a last symlink where a directory is asked for by a slash, not for O_DIRECTORY.
		p, err := v.Walk(ctx, start, path, flags&^MustBeDir)
		if err == nil && !p.Dentry.inode.IsDir() {
			p.DecRef()
			err = unix.ENOTDIR
		}
		return p, err
	}
	return v.Walk(ctx, start, path, flags)
}

// OpenPath opens the file at p.
func (v *VFS) OpenPath(ctx Context, p Path, o *OpenOptions) (*FileDescription, error) {
	if o.Flags&unix.O_PATH != 0 {
		return v.NewFile(p, nil, o.Flags&(unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)), nil
	}
	return v.openInode(ctx, p, o, o.accessMask(), false, nil)
}

// mayOpen vets an open of p that needs mask.
func (v *VFS) mayOpen(ctx Context, p Path, o *OpenOptions, mask uint32) error {
	i := p.Dentry.inode
	switch i.Type() {
	case unix.S_IFLNK:
		return unix.ELOOP
	case unix.S_IFDIR:
		if mask&MayWrite != 0 || o.Flags&unix.O_CREAT != 0 {
			return unix.EISDIR
		}
		if mask&MayExec != 0 {
			return unix.EACCES
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		if o.Exec || p.Mount.Flags()&MountNoDev != 0 {
			return unix.EACCES
		}
	case unix.S_IFREG:
		if o.Exec && (p.Mount.Flags()&MountNoExec != 0 || i.Flags()&InodeNoExec != 0) {
			return unix.EACCES
		}
	default:
		if o.Exec {
			return unix.EACCES
		}
	}
	if mask&MayWrite != 0 && p.Mount.ReadOnly() {
		if t := i.Type(); t == unix.S_IFREG || t == unix.S_IFDIR {
			return unix.EROFS
		}
	}
	if err := CheckPermission(ctx, i, mask); err != nil {
		return err
	}
	if i.Flags()&InodeAppendOnly != 0 && (o.Flags&unix.O_ACCMODE != unix.O_RDONLY && o.Flags&unix.O_APPEND == 0 || o.Flags&unix.O_TRUNC != 0) {
		return unix.EPERM
	}
	if o.Flags&unix.O_NOATIME != 0 && !OwnerOrCapable(ctx.Credentials(), i) {
		return unix.EPERM
	}
	return nil
}

// openInode makes the open file. fresh: the file was just created, so that permissions do not matter; impl is what
// the file system opened already, or nil. It owns impl.
func (v *VFS) openInode(ctx Context, p Path, o *OpenOptions, mask uint32, fresh bool, impl FileImpl) (*FileDescription, error) {
	i := p.Dentry.inode
	if !fresh {
		if err := v.mayOpen(ctx, p, o, mask); err != nil {
			return nil, err
		}
	}
	regular := i.Type() == unix.S_IFREG
	writer := regular && o.Flags&unix.O_ACCMODE != unix.O_RDONLY
	if writer || regular && o.Flags&unix.O_TRUNC != 0 {
		if err := i.getWrite(); err != nil {
			return nil, err
		}
		if !writer {
			defer i.putWrite()
		}
	}
	if o.Exec {
		if err := i.denyWrite(); err != nil {
			return nil, err
		}
	}
	if impl == nil {
		var err error
		if impl, err = v.openImpl(ctx, i, o.Flags); err == nil && regular && o.Flags&unix.O_TRUNC != 0 && !fresh {
			if err = v.truncateOpen(ctx, i); err != nil {
				impl.Release()
			}
		}
		if err != nil {
			if writer {
				i.putWrite()
			} else if o.Exec {
				i.writers.Add(1)
			}
			if err == unix.ESTALE && regular && p.Dentry.flags.Load()&dentryMounted == 0 {
				p.Dentry.unhash() // so that the next walk looks it up again
			}
			return nil, err
		}
	}
	if writer {
		p.Mount.writers.Add(1)
	}
	fd := v.newFile(p, impl, o.Flags&^(unix.O_CREAT|unix.O_EXCL|unix.O_NOCTTY|unix.O_TRUNC), writer)
	fd.denies.Store(o.Exec)
	p.Dentry.Notify(unix.IN_OPEN)
	return fd, nil
}

// putWrite drops the writer that getWrite counted.
func (i *Inode) putWrite() { i.writers.Add(-1) }

// truncateOpen is O_TRUNC.
func (v *VFS) truncateOpen(ctx Context, i *Inode) error {
	s := SetStat{Mask: SetSize | SetFromOpen}
	dropFileCaps(ctx, i)
	killPrivs(ctx, i, &s)
	return i.ops.SetStat(ctx, &s)
}

// openImpl opens the inode by its type.
func (v *VFS) openImpl(ctx Context, i *Inode, flags uint32) (FileImpl, error) {
	if o, ok := i.ops.(SelfOpener); ok {
		return o.OpenSelf(ctx, flags)
	}
	switch t := i.Type(); t {
	case unix.S_IFREG, unix.S_IFDIR:
		return i.ops.Open(ctx, flags)
	case unix.S_IFIFO:
		if v.fifo != nil {
			return v.fifo.OpenFIFO(ctx, i, flags)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		var st Stat
		if err := i.ops.Stat(ctx, unix.STATX_BASIC_STATS, &st); err != nil {
			return nil, err
		}
		return v.openDevice(ctx, i, t == unix.S_IFBLK, st.Rdev, flags)
	case 0: // anonymous inodes
		return i.ops.Open(ctx, flags)
	}
	return nil, unix.ENXIO
}

// openCreate is an open with O_CREAT.
func (v *VFS) openCreate(ctx Context, start Path, path string, flags LookupFlags, o *OpenOptions) (*FileDescription, error) {
	w := v.walker(ctx, start, flags|walkParent)
	defer w.done()
	for {
		fd, err := v.openCreateOnce(w, path, o)
		if err == nil || !again(err) {
			return fd, err
		}
	}
}

func (v *VFS) openCreateOnce(w *walker, path string, o *OpenOptions) (*FileDescription, error) {
	if err := w.begin(path); err != nil {
		return nil, err
	}
	for {
		if err := w.run(); err != nil {
			return nil, err
		}
		if w.lastKind != lastName {
			if w.lastKind == lastRoot && w.heldMnt != nil { // a magic link
				break
			}
			if o.Flags&unix.O_EXCL != 0 && w.lastKind != lastRoot {
				return nil, unix.EEXIST
			}
			return nil, unix.EISDIR
		}
		if w.mustDir {
			return nil, unix.EISDIR
		}
		if err := w.hold(); err != nil {
			return nil, err
		}
		dir := w.cur
		fd, child, err := v.createLast(w, o)
		if err != nil || fd != nil {
			return fd, err
		}
		// It exists.
		if o.Flags&unix.O_EXCL != 0 {
			child.DecRef()
			return nil, unix.EEXIST
		}
		if child.inode.Type() == unix.S_IFLNK && child.flags.Load()&dentryMounted == 0 {
			if w.flags&FollowLast == 0 {
				err := v.mayCreateInSticky(w, dir.Dentry.inode, child.inode)
				if err == nil {
					err = unix.ELOOP
				}
				child.DecRef()
				return nil, err
			}
			err := w.follow(child)
			child.DecRef()
			if err != nil {
				return nil, err
			}
			continue
		}
		err = unix.EISDIR
		if !child.inode.IsDir() {
			err = v.mayCreateInSticky(w, dir.Dentry.inode, child.inode)
		}
		if err != nil {
			child.DecRef()
			return nil, err
		}
		if err := w.enter(child, true, false); err != nil {
			return nil, err
		}
		break
	}
	p, err := w.finish()
	if err != nil {
		return nil, err
	}
	fd, err := v.openInode(w.ctx, p, o, o.accessMask(), false, nil)
	p.DecRef()
	return fd, err
}

// createLast looks up the last component and creates it if need be: it returns either the new open file, or what exists with a reference.
func (v *VFS) createLast(w *walker, o *OpenOptions) (*FileDescription, *Dentry, error) {
	dir := w.cur
	d := dir.Dentry
	hash := v.hashName(w.last)
	if d.inode.Flags()&(InodeRevalidate|InodeNoCache) == 0 {
		if c := d.cached(hash, w.last); c != nil && c.inode != nil && c.TryIncRef() {
			return nil, c, nil
		}
	}
	if w.flags&CachedOnly != 0 {
		return nil, nil, unix.EAGAIN
	}
	name := strings.Clone(w.last)
	d.dir.rw.Lock()
	defer d.dir.rw.Unlock()
	c, err := v.lookupFor(w.ctx, d, hash, name, true)
	if err != unix.ENOENT {
		return nil, c, err
	}
	if dir.Mount.ReadOnly() {
		return nil, nil, unix.EROFS
	}
	if err := mayCreate(w.ctx, d); err != nil {
		return nil, nil, err
	}
	a := &w.made
	*a = CreateArgs{Mode: unix.S_IFREG | o.Mode&07777&^w.ctx.FS().Umask()}
	initMode(w.ctx, d.inode, a)
	var inode *Inode
	var impl FileImpl
	if co, ok := d.inode.ops.(CreateOpener); ok {
		inode, impl, err = co.CreateOpen(w.ctx, name, a, o.Flags)
	} else {
		inode, err = d.inode.ops.Create(w.ctx, name, a)
	}
	if err != nil {
		return nil, nil, err
	}
	inode.SetFlags(inodeNoCaps)
	c = d.addChild(hash, name, inode, d.inode.Flags()&InodeNoCache == 0)
	d.inode.notify(unix.IN_CREATE, 0, name, false)
	fd, err := v.openInode(w.ctx, Path{dir.Mount, c}, o, 0, true, impl)
	c.DecRef()
	return fd, nil, err
}

// mayCreate checks that something may be created in d; d.dir.rw is held.
func mayCreate(ctx Context, d *Dentry) error {
	if d.inode.Flags()&inodeDead != 0 {
		return unix.ENOENT
	}
	return CheckPermission(ctx, d.inode, MayWrite|MayExec)
}

// mayCreateInSticky is protected_fifos and protected_regular of proc_sys_fs(5).
func (v *VFS) mayCreateInSticky(w *walker, dir, i *Inode) error {
	if dir.Mode()&unix.S_ISVTX == 0 {
		return nil
	}
	level := int32(1) // other types are protected whatever the settings, as on Linux
	switch i.Type() {
	case unix.S_IFREG:
		level = v.sysctl.ProtectedRegular.Load()
	case unix.S_IFIFO:
		level = v.sysctl.ProtectedFIFOs.Load()
	}
	if level == 0 || i.UID() == dir.UID() || i.UID() == w.creds.FSUID {
		return nil
	}
	if m := dir.Mode(); m&0002 != 0 || level >= 2 && m&0020 != 0 {
		return unix.EACCES
	}
	return nil
}

// openTmpfile is O_TMPFILE.
func (v *VFS) openTmpfile(ctx Context, start Path, path string, flags LookupFlags, o *OpenOptions) (*FileDescription, error) {
	if o.Flags&unix.O_ACCMODE == unix.O_RDONLY || o.Flags&unix.O_DIRECTORY == 0 {
		return nil, unix.EINVAL
	}
	p, err := v.walkOpen(ctx, start, path, flags|MustBeDir, o)
	if err != nil {
		return nil, err
	}
	defer p.DecRef()
	d := p.Dentry
	if p.Mount.ReadOnly() {
		return nil, unix.EROFS
	}
	if err := mayCreate(ctx, d); err != nil {
		return nil, err
	}
	tm, ok := d.inode.ops.(TmpfileMaker)
	if !ok {
		return nil, unix.EOPNOTSUPP
	}
	a := CreateArgs{Mode: unix.S_IFREG | o.Mode&07777&^ctx.FS().Umask()}
	initMode(ctx, d.inode, &a)
	inode, err := tm.Tmpfile(ctx, &a)
	if err != nil {
		return nil, err
	}
	if o.Flags&unix.O_EXCL == 0 {
		inode.SetFlags(inodeLinkable)
	}
	c := newDentry(d.sb, inode, d, "#"+utoa(inode.ino))
	c.flags.Or(dentryRemoved)
	c.refs.Store(1)
	d.IncRef()
	fd, err := v.openInode(ctx, Path{p.Mount, c}, o, 0, true, nil)
	c.DecRef()
	return fd, err
}

// utoa formats n without fmt.
func utoa(n uint64) string {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}
