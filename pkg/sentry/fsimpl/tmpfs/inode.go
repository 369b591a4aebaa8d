package tmpfs

import (
	"sort"
	"sync"

	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// inode is a file of any type.
type inode struct {
	vfs.Inode
	fs *fileSystem // immutable

	mu                         sync.Mutex
	nlink                      uint32            // protected by mu
	atime, mtime, ctime, btime int64             // protected by mu
	xattrs                     map[string][]byte // protected by mu; nil if none

	dir    *dirData // immutable while in use; directories
	reg    *regular // immutable; regular files
	rdev   uint64   // immutable; devices
	target string   // immutable; symlinks
}

// dirData are the entries of a directory.
type dirData struct {
	mu      sync.RWMutex
	byName  map[string]*entry // protected by mu; nil while empty
	entries []*entry          // protected by mu: by ascending cookie, nil where removed
	holes   int               // protected by mu: nils in entries
	last    int64             // protected by mu: cookie of the newest
}

// entry is a name; it holds a reference on the inode.
type entry struct {
	name   string
	inode  *inode
	cookie int64
}

// entrySize is what a name takes of st_size, as Linux has it.
const entrySize = 20

// newInode makes an inode with one reference and no links.
func (f *fileSystem) newInode(a *vfs.CreateArgs) *inode {
	i := &inode{fs: f, rdev: a.Rdev, target: a.Target}
	now := clock.Realtime()
	i.atime, i.mtime, i.ctime, i.btime = now, now, now, now
	var flags vfs.InodeFlags
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		i.dir = &dirData{last: 1}
		flags = vfs.InodeNegative
	case unix.S_IFREG:
		i.reg = &regular{seals: unix.F_SEAL_SEAL}
	}
	f.inodes.Add(1)
	i.Init(i, f.sb, f.lastIno.Add(1), a.Mode, a.UID, a.GID, flags)
	return i
}

// Release implements vfs.InodeOps: no name, no dentry and no open file holds the inode any more.
func (i *inode) Release() {
	if i.reg != nil {
		i.mu.Lock()
		i.reg.free(i.fs)
		i.mu.Unlock()
	}
	i.fs.inodes.Add(-1)
}

// Lookup implements vfs.InodeOps.
func (i *inode) Lookup(_ vfs.Context, name string) (*vfs.Inode, error) {
	d := i.dir
	if d == nil {
		return nil, unix.ENOTDIR
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	e := d.byName[name]
	if e == nil {
		return nil, unix.ENOENT
	}
	e.inode.IncRef()
	return &e.inode.Inode, nil
}

// add enters a name, which holds a reference on child. i is a directory.
func (i *inode) add(name string, child *inode) {
	child.IncRef()
	d := i.dir
	d.mu.Lock()
	if d.byName == nil {
		d.byName = map[string]*entry{}
	}
	d.last++
	e := &entry{name, child, d.last}
	d.byName[name] = e
	d.entries = append(d.entries, e)
	d.mu.Unlock()
}

// remove takes a name away. The caller holds another reference on what it named.
func (i *inode) remove(name string) {
	d := i.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.byName[name]
	if e == nil {
		return
	}
	defer e.inode.DecRef()
	delete(d.byName, name)
	if len(d.byName) == 0 {
		if len(d.entries) > 16 { // a map does not shrink
			d.byName, d.entries = nil, nil
		}
		clear(d.entries)
		d.entries, d.holes = d.entries[:0], 0
		return
	}
	k := d.search(e.cookie)
	for d.entries[k] == nil {
		k++
	}
	d.entries[k] = nil
	if d.holes++; d.holes > 16 && d.holes > len(d.entries)/2 {
		l := make([]*entry, 0, len(d.byName)+8)
		for _, x := range d.entries {
			if x != nil {
				l = append(l, x)
			}
		}
		d.entries, d.holes = l, 0
	}
}

// search finds the first entry with at least cookie, or holes in front of it; d.mu is held.
func (d *dirData) search(cookie int64) int {
	return sort.Search(len(d.entries), func(k int) bool {
		for ; k < len(d.entries); k++ {
			if e := d.entries[k]; e != nil {
				return e.cookie >= cookie
			}
		}
		return true
	})
}

// touch sets ctime, and mtime if mod, to now, and adds links to the count.
func (i *inode) touch(mod bool, links int32) {
	now := clock.Realtime()
	i.mu.Lock()
	i.ctime = now
	if mod {
		i.mtime = now
	}
	i.nlink += uint32(links)
	i.mu.Unlock()
}

// Create implements vfs.InodeOps.
func (i *inode) Create(_ vfs.Context, name string, a *vfs.CreateArgs) (*vfs.Inode, error) {
	if i.dir == nil {
		return nil, unix.ENOTDIR
	}
	f := i.fs
	if m := f.maxInodes.Load(); m != 0 && f.inodes.Load() >= m {
		return nil, unix.ENOSPC
	}
	c := f.newInode(a)
	links := int32(0)
	c.nlink = 1
	if c.dir != nil {
		c.nlink, links = 2, 1
	}
	i.add(name, c)
	i.touch(true, links)
	return &c.Inode, nil
}

// Tmpfile implements vfs.TmpfileMaker.
func (i *inode) Tmpfile(_ vfs.Context, a *vfs.CreateArgs) (*vfs.Inode, error) {
	f := i.fs
	if m := f.maxInodes.Load(); m != 0 && f.inodes.Load() >= m {
		return nil, unix.ENOSPC
	}
	return &f.newInode(a).Inode, nil
}

// Link implements vfs.InodeOps.
func (i *inode) Link(_ vfs.Context, name string, target *vfs.Inode) error {
	t := target.Ops().(*inode)
	if m := i.fs.maxInodes.Load(); m != 0 && i.fs.inodes.Load() >= m {
		return unix.ENOSPC
	}
	i.add(name, t)
	i.touch(true, 0)
	t.touch(false, 1)
	return nil
}

// Unlink implements vfs.InodeOps.
func (i *inode) Unlink(_ vfs.Context, name string, victim *vfs.Inode) error {
	i.remove(name)
	i.touch(true, 0)
	victim.Ops().(*inode).touch(false, -1)
	return nil
}

func (i *inode) empty() bool {
	i.dir.mu.RLock()
	defer i.dir.mu.RUnlock()
	return len(i.dir.byName) == 0
}

// Rmdir implements vfs.InodeOps.
func (i *inode) Rmdir(_ vfs.Context, name string, victim *vfs.Inode) error {
	v := victim.Ops().(*inode)
	if !v.empty() {
		return unix.ENOTEMPTY
	}
	i.remove(name)
	i.touch(true, -1)
	v.touch(false, -2)
	return nil
}

// Rename implements vfs.InodeOps.
func (i *inode) Rename(_ vfs.Context, name string, src *vfs.Inode, newDir *vfs.Inode, newName string, target *vfs.Inode, flags uint32) error {
	s, to := src.Ops().(*inode), newDir.Ops().(*inode)
	var t *inode
	if target != nil {
		t = target.Ops().(*inode)
	}
	subdir := func(x *inode) int32 {
		if x.dir != nil {
			return 1
		}
		return 0
	}
	if flags&unix.RENAME_EXCHANGE != 0 {
		i.remove(name)
		to.remove(newName)
		i.add(name, t)
		to.add(newName, s)
		n := subdir(t) - subdir(s)
		if i == to {
			n = 0
		}
		i.touch(true, n)
		to.touch(true, -n)
		s.touch(false, 0)
		t.touch(false, 0)
		return nil
	}
	if t != nil {
		if t.dir != nil && !t.empty() {
			return unix.ENOTEMPTY
		}
		to.remove(newName)
		if t.dir != nil {
			t.touch(false, -2)
			to.touch(true, -1)
		} else {
			t.touch(false, -1)
		}
	}
	i.remove(name)
	to.add(newName, s)
	if i != to {
		i.touch(true, -subdir(s))
		to.touch(true, subdir(s))
	} else {
		i.touch(true, 0)
	}
	s.touch(false, 0)
	if flags&unix.RENAME_WHITEOUT != 0 {
		w := i.fs.newInode(&vfs.CreateArgs{Mode: unix.S_IFCHR, UID: s.UID(), GID: s.GID()})
		w.nlink = 1
		i.add(name, w)
		w.DecRef()
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
func (i *inode) Open(vfs.Context, uint32) (vfs.FileImpl, error) {
	switch {
	case i.dir != nil:
		return (*dirFile)(i), nil
	case i.reg != nil:
		return (*regFile)(i), nil
	}
	return nil, unix.ENXIO
}

// dirFile is an open directory.
type dirFile inode

// Release implements vfs.FileImpl.
func (*dirFile) Release() {}

// ReadDir implements vfs.DirReader.
func (f *dirFile) ReadDir(_ vfs.Context, cookie int64, sink vfs.DirSink) error {
	d := f.dir
	d.mu.RLock()
	list := append([]*entry(nil), d.entries[d.search(cookie):]...)
	d.mu.RUnlock()
	for _, e := range list {
		if e != nil && !sink.Emit(e.name, e.inode.Ino(), uint8(e.inode.Type()>>12), e.cookie+1) {
			break
		}
	}
	return nil
}

// Stat implements vfs.InodeOps.
func (i *inode) Stat(_ vfs.Context, _ uint32, st *vfs.Stat) error {
	st.Mode, st.UID, st.GID, st.Ino = i.Mode(), i.UID(), i.GID(), i.Ino()
	st.Dev, st.Rdev, st.Blksize = i.Superblock().Dev(), i.rdev, pageSize
	i.mu.Lock()
	st.Nlink = i.nlink
	st.Atime, st.Mtime, st.Ctime, st.Btime = i.atime, i.mtime, i.ctime, i.btime
	if r := i.reg; r != nil {
		st.Size = r.size.Load()
		st.Blocks = uint64(r.pages) * (pageSize / 512)
	}
	i.mu.Unlock()
	switch {
	case i.dir != nil:
		i.dir.mu.RLock()
		st.Size = int64(len(i.dir.byName)+2) * entrySize
		i.dir.mu.RUnlock()
	case i.target != "":
		st.Size = int64(len(i.target))
	}
	return nil
}

// SetStat implements vfs.InodeOps.
func (i *inode) SetStat(_ vfs.Context, s *vfs.SetStat) error {
	if s.Mask&vfs.SetSize != 0 {
		if i.reg == nil {
			return unix.EINVAL
		}
		if err := i.truncate(s.Size); err != nil {
			return err
		}
	}
	now := clock.Realtime()
	i.mu.Lock()
	defer i.mu.Unlock()
	if s.Mask&vfs.SetMode != 0 {
		i.Inode.SetMode(i.Type() | s.Mode&07777)
	}
	if s.Mask&vfs.SetUID != 0 {
		i.Inode.SetUID(s.UID)
	}
	if s.Mask&vfs.SetGID != 0 {
		i.Inode.SetGID(s.GID)
	}
	if s.Mask&vfs.SetSize != 0 {
		i.mtime = now
	}
	if s.Mask&vfs.SetAtime != 0 {
		i.atime = s.Atime
	}
	if s.Mask&vfs.SetMtime != 0 {
		i.mtime = s.Mtime
	}
	i.ctime = now
	return nil
}

// TouchAtime implements vfs.AtimeToucher.
func (i *inode) TouchAtime(relatime bool) {
	now := clock.Realtime()
	i.mu.Lock()
	if !relatime || i.atime <= i.mtime || i.atime <= i.ctime || now-i.atime >= 24*3600*1e9 {
		i.atime = now
	}
	i.mu.Unlock()
}

// maxXattrs bounds the bytes of extended attributes of an inode.
const maxXattrs = 1 << 20

// GetXattr implements vfs.InodeOps.
func (i *inode) GetXattr(_ vfs.Context, name string) ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	v, ok := i.xattrs[name]
	if !ok {
		return nil, unix.ENODATA
	}
	return v, nil
}

// ListXattr implements vfs.InodeOps.
func (i *inode) ListXattr(vfs.Context) ([]string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	l := make([]string, 0, len(i.xattrs))
	for k := range i.xattrs {
		l = append(l, k)
	}
	sort.Strings(l)
	return l, nil
}

// SetXattr implements vfs.InodeOps.
func (i *inode) SetXattr(_ vfs.Context, name string, value []byte, flags uint32) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, ok := i.xattrs[name]
	if ok && flags&unix.XATTR_CREATE != 0 {
		return unix.EEXIST
	}
	if !ok && flags&unix.XATTR_REPLACE != 0 {
		return unix.ENODATA
	}
	n := len(name) + len(value)
	for k, v := range i.xattrs {
		if k != name {
			n += len(k) + len(v)
		}
	}
	if n > maxXattrs {
		return unix.ENOSPC
	}
	if i.xattrs == nil {
		i.xattrs = map[string][]byte{}
	}
	i.xattrs[name] = append([]byte(nil), value...)
	i.ctime = clock.Realtime()
	return nil
}

// RemoveXattr implements vfs.InodeOps.
func (i *inode) RemoveXattr(_ vfs.Context, name string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.xattrs[name]; !ok {
		return unix.ENODATA
	}
	delete(i.xattrs, name)
	i.ctime = clock.Realtime()
	return nil
}
