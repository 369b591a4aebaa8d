package gofer

import (
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	broker "husk/pkg/gofer"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// inode is a file of the host.
type inode struct {
	vfs.Inode
	vfs.NoOps
	fs     *filesystem // immutable, as the next lines
	key    fileKey     //
	target string      // of a symbolic link
	// In a frozen attach point, where the file was found: that names it as long as it has no handle. A reference.
	parent *inode
	name   string

	held     atomic.Uint64 // the handle, closed by Release; zero: none so far
	maps     mm.MappingSet
	size     atomic.Int64 // frozen attach points, as the next line
	recent   recent
	appendMu sync.Mutex // serialises appending writes

	// Host descriptors; -1: none. Changed with mu held; a user reads them without.
	rd, rw   atomic.Int32          // for reading; for reading and writing
	touched  atomic.Bool           // attr may be outdated
	noCaps   atomic.Bool           // has no security.capability; exclusive attach points only
	expected atomic.Bool           // was found and is neither opened nor listed yet
	idle     idleLink              // guarded by fs.idleMu
	pins     int32                 // uses of the handle; guarded by fs.idleMu
	after    atomic.Pointer[inode] // was opened next the last time; nil once released

	mu      sync.Mutex  // guards what follows
	attr    broker.Attr // in frozen attach points they change with a new descriptor only
	users   int         // of the descriptors: open files and operations
	old     []int32     // descriptors for reading that rw replaced
	listing *listing    // of a directory; nil: not known
	listGen uint64      // counts changes of the directory
	ahead   *ahead      // of a directory whose entries are looked up
}

// Release implements vfs.InodeOps.
func (i *inode) Release() {
	fs := i.fs
	fs.tableMu.Lock()
	if fs.table[i.key] == i {
		delete(fs.table, i.key)
	}
	fs.tableMu.Unlock()
	i.after.Store(nil)
	fs.idleMu.Lock()
	if i.IsDir() {
		fs.dirs.drop(i)
	} else {
		fs.idle.drop(i)
	}
	fs.leaveAhead(i)
	fs.idleMu.Unlock()
	i.mu.Lock()
	i.closeLocked()
	i.dropAhead()
	gone := i.attr.Nlink == 0
	i.mu.Unlock()
	fs.lose(i.handle())
	if i.parent != nil {
		i.parent.DecRef()
	}
	if gone {
		fs.client.Flush() // the broker's descriptor keeps the space of a deleted file
	}
}

// Lookup implements vfs.InodeOps.
func (i *inode) Lookup(ctx vfs.Context, name string) (*vfs.Inode, error) {
	if i.fs.shared {
		return i.lookup(name)
	}
	s, ahead, err := i.find(name)
	if err != nil {
		return nil, err
	}
	return &i.fs.found(i, name, &s, ahead).Inode, nil
}

// lookup asks for one name.
func (i *inode) lookup(name string) (*vfs.Inode, error) {
	var buf [1]broker.Entry
	e, err := i.fs.walk(i.handle(), []string{name}, 0, buf[:0])
	if err != nil {
		return nil, hostError(err)
	}
	return &i.fs.inode(i, name, &e[0]).Inode, nil
}

// batch is how many components one request resolves: few paths are longer, and the broker allows 128.
const batch = 32

// LookupMany implements vfs.BatchLookup.
func (i *inode) LookupMany(ctx vfs.Context, names []string) (found []*vfs.Inode, err error) {
	dir := i
	if s, ok := i.takeAhead(names[0]); ok {
		dir = i.fs.found(i, names[0], &s, true)
		found, names = append(found, &dir.Inode), names[1:]
		if !dir.IsDir() {
			return found, nil
		}
	}
	var buf [8]broker.Entry
	for len(names) > 0 {
		n := min(len(names), batch)
		h, err := dir.use()
		if err != nil {
			return found, err
		}
		e, err := i.fs.walk(h, names[:n], i.fs.bare(), buf[:0])
		dir.done()
		for k := range e {
			if old, ok := dir.takeAhead(names[k]); ok {
				i.fs.giveOne(&old)
			}
			dir = i.fs.inode(dir, names[k], &e[k])
			found = append(found, &dir.Inode)
		}
		if err != nil {
			return found, hostError(err)
		}
		if len(e) < n || !dir.IsDir() {
			return found, nil
		}
		names = names[n:]
	}
	return found, nil
}

// Revalidate implements vfs.Revalidator. It brings the child's attributes up to date, too.
func (i *inode) Revalidate(ctx vfs.Context, name string, child *vfs.Inode) bool {
	var buf [1]broker.Entry
	e, err := i.fs.walk(i.handle(), []string{name}, 0, buf[:0])
	if err != nil {
		return child == nil && err == unix.ENOENT
	}
	c, ok := (*inode)(nil), false
	if child != nil {
		c, ok = child.Ops().(*inode)
	}
	if !ok || c.key != i.fs.keyOf(&e[0].Attr) {
		i.fs.client.Close(e[0].Handle)
		return false
	}
	i.fs.client.Close(e[0].Handle)
	c.setAttr(&e[0].Attr)
	return true
}

// changed notes that the directory's entries, and with them its times, have changed.
func (i *inode) changed() {
	i.mu.Lock()
	i.listing = nil
	i.listGen++
	i.dropAhead()
	i.ahead = nil
	i.mu.Unlock()
	i.touch()
}

// Create implements vfs.InodeOps.
func (i *inode) Create(ctx vfs.Context, name string, a *vfs.CreateArgs) (*vfs.Inode, error) {
	if a.Mode&unix.S_IFMT == unix.S_IFREG {
		c, err := i.create(name, a)
		if err != nil {
			return nil, err
		}
		c.release()
		return &c.Inode, nil
	}
	var e broker.Entry
	var err error
	mode, uid, gid := a.Mode&0o7777, uint32(a.UID), uint32(a.GID)
	switch typ := a.Mode & unix.S_IFMT; typ {
	case unix.S_IFDIR:
		e.Handle, e.Attr, err = i.fs.client.Mkdir(i.handle(), name, mode, uid, gid)
	case unix.S_IFLNK:
		e.Handle, e.Attr, err = i.fs.client.Symlink(i.handle(), name, a.Target, uid, gid)
		e.Target = strings.Clone(a.Target)
	default:
		rdev := uint64(unix.Major(a.Rdev))<<32 | uint64(unix.Minor(a.Rdev))
		e.Handle, e.Attr, err = i.fs.client.Mknod(i.handle(), name, typ, mode, uid, gid, rdev)
	}
	if err != nil {
		return nil, hostError(err)
	}
	i.changed()
	return &i.fs.inode(i, name, &e).Inode, nil
}

// create makes a regular file and leaves it with a descriptor and a user of it. An empty name makes one without a name.
func (i *inode) create(name string, a *vfs.CreateArgs) (*inode, error) {
	h, attr, fd, err := i.fs.client.Create(i.handle(), name, unix.O_RDWR, a.Mode&0o7777, uint32(a.UID), uint32(a.GID))
	if err != nil {
		return nil, hostError(err)
	}
	if name != "" {
		i.changed()
	}
	c := i.fs.inode(i, name, &broker.Entry{Handle: h, Attr: attr})
	c.mu.Lock()
	c.users++
	if c.rw.Load() < 0 {
		c.install(fd, true)
	} else {
		unix.Close(fd) // somebody looked it up and opened it meanwhile
	}
	c.mu.Unlock()
	return c, nil
}

// CreateOpen implements vfs.CreateOpener.
func (i *inode) CreateOpen(ctx vfs.Context, name string, a *vfs.CreateArgs, flags uint32) (*vfs.Inode, vfs.FileImpl, error) {
	c, err := i.create(name, a)
	if err != nil {
		return nil, nil, err
	}
	return &c.Inode, file{c}, nil
}

// Tmpfile implements vfs.TmpfileMaker.
func (i *inode) Tmpfile(ctx vfs.Context, a *vfs.CreateArgs) (*vfs.Inode, error) {
	c, err := i.create("", a)
	if err != nil {
		return nil, err
	}
	c.release()
	return &c.Inode, nil
}

// Link implements vfs.InodeOps.
func (i *inode) Link(ctx vfs.Context, name string, target *vfs.Inode) error {
	t, ok := target.Ops().(*inode)
	if !ok {
		return unix.EXDEV
	}
	var a broker.Attr
	if err := i.fs.client.Link(t.handle(), i.handle(), name, &a); err != nil {
		return hostError(err)
	}
	i.changed()
	t.setAttr(&a)
	return nil
}

// Unlink implements vfs.InodeOps.
func (i *inode) Unlink(ctx vfs.Context, name string, victim *vfs.Inode) error {
	return i.remove(name, victim, false)
}

// Rmdir implements vfs.InodeOps.
func (i *inode) Rmdir(ctx vfs.Context, name string, victim *vfs.Inode) error {
	return i.remove(name, victim, true)
}

func (i *inode) remove(name string, victim *vfs.Inode, dir bool) error {
	if err := i.fs.client.Unlink(i.handle(), name, dir); err != nil {
		return hostError(err)
	}
	i.changed()
	unlinked(victim)
	return nil
}

// unlinked notes that a file has lost a name.
func unlinked(victim *vfs.Inode) {
	if victim == nil {
		return
	}
	if v, ok := victim.Ops().(*inode); ok {
		v.mu.Lock()
		if v.attr.Nlink == 1 || v.attr.Type() == unix.S_IFDIR {
			v.attr.Nlink = 0 // so that Release knows without asking
		}
		v.mu.Unlock()
		v.touch()
	}
}

// Rename implements vfs.InodeOps.
func (i *inode) Rename(ctx vfs.Context, name string, src *vfs.Inode, newDir *vfs.Inode, newName string, target *vfs.Inode, flags uint32) error {
	to, ok := newDir.Ops().(*inode)
	if !ok {
		return unix.EXDEV
	}
	if err := i.fs.client.Rename(i.handle(), name, to.handle(), newName, flags); err != nil {
		return hostError(err)
	}
	i.changed()
	to.changed()
	src.Ops().(*inode).touch()
	if flags&unix.RENAME_EXCHANGE == 0 {
		unlinked(target)
	} else if t, ok := target.Ops().(*inode); ok {
		t.touch()
	}
	return nil
}

// Readlink implements vfs.InodeOps.
func (i *inode) Readlink(vfs.Context) (string, error) {
	if i.Type() != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	return i.target, nil
}

// Open implements vfs.InodeOps.
func (i *inode) Open(ctx vfs.Context, flags uint32) (vfs.FileImpl, error) {
	switch i.Type() {
	case unix.S_IFDIR:
		return &dirFile{inode: i}, nil
	case unix.S_IFREG:
		write := flags&unix.O_ACCMODE != unix.O_RDONLY
		if err := i.acquire(write); err != nil {
			return nil, err
		}
		if !write {
			i.fs.opened(i)
		}
		return file{i}, nil
	}
	return nil, unix.ENXIO
}

// ConnectHost connects to the socket of the host that the inode is, where the attach point allows that
// (EPERM). typ is SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET. The descriptor is non-blocking.
func (i *inode) ConnectHost(typ uint32) (fd int, err error) {
	h, err := i.use()
	if err != nil {
		return -1, err
	}
	defer i.done()
	fd, err = i.fs.client.Connect(h, typ)
	return fd, hostError(err)
}

// capability is the attribute that is asked for at each execve(2) and write(2).
const capability = "security.capability"

// GetXattr implements vfs.InodeOps.
func (i *inode) GetXattr(ctx vfs.Context, name string) ([]byte, error) {
	if name == capability && i.noCaps.Load() {
		return nil, unix.ENODATA
	}
	h, err := i.use()
	if err != nil {
		return nil, err
	}
	defer i.done()
	buf := make([]byte, 256)
	n, err := i.fs.client.GetXattr(h, name, buf)
	if err == unix.ERANGE {
		buf = make([]byte, 64<<10)
		n, err = i.fs.client.GetXattr(h, name, buf)
	}
	if err != nil {
		if name == capability && !i.fs.shared && (err == unix.ENODATA || err == unix.EOPNOTSUPP) {
			i.noCaps.Store(true)
		}
		return nil, hostError(err)
	}
	return buf[:n], nil
}

// SetXattr implements vfs.InodeOps.
func (i *inode) SetXattr(ctx vfs.Context, name string, value []byte, flags uint32) error {
	h, err := i.use()
	if err != nil {
		return err
	}
	defer i.done()
	if err := i.fs.client.SetXattr(h, name, value, flags); err != nil {
		return hostError(err)
	}
	i.noCaps.Store(false)
	i.touch()
	return nil
}

// ListXattr implements vfs.InodeOps.
func (i *inode) ListXattr(vfs.Context) ([]string, error) {
	h, err := i.use()
	if err != nil {
		return nil, err
	}
	defer i.done()
	b, err := i.fs.client.ListXattr(h)
	if err != nil {
		if err == unix.EOPNOTSUPP {
			return nil, nil
		}
		return nil, hostError(err)
	}
	if len(b) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

// RemoveXattr implements vfs.InodeOps.
func (i *inode) RemoveXattr(ctx vfs.Context, name string) error {
	h, err := i.use()
	if err != nil {
		return err
	}
	defer i.done()
	i.touch()
	return hostError(i.fs.client.RemoveXattr(h, name))
}
