package pseudo

import (
	"sort"
	"sync"

	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// Dir is a directory whose entries are added and removed by the sentry. The application cannot change it.
type Dir struct {
	Node
	mu      sync.RWMutex
	byName  map[string]*entry // protected by mu
	entries []*entry          // protected by mu: by ascending cookie
	last    int64             // protected by mu
	subdirs uint32            // protected by mu
}

type entry struct {
	name   string
	inode  *vfs.Inode
	cookie int64
}

// NewDir makes an empty directory of root, with one reference.
func (f *FS) NewDir(perm uint32) *Dir {
	d := &Dir{}
	d.InitDir(d, f, perm)
	return d
}

// InitDir sets up a Dir that is embedded in ops.
func (d *Dir) InitDir(ops vfs.InodeOps, f *FS, perm uint32) {
	d.Node.Init(ops, f.SB, f.NextIno(), unix.S_IFDIR|perm, 0, 0, 0)
	d.byName = map[string]*entry{}
	d.last = 1
}

// Add enters child, whose reference passes to the directory. It returns d for chains of calls. A name that exists is replaced; the
// dentry cache is not told (use Remove first where it may be cached).
func (d *Dir) Add(name string, child *vfs.Inode) *Dir {
	d.Remove(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	e := &entry{name, child, d.last}
	d.byName[name] = e
	d.entries = append(d.entries, e)
	if child.IsDir() {
		d.subdirs++
	}
	return d
}

// Remove takes name out of the directory; false if it was not there. The caller makes the cache forget it, by
// vfs.Dentry.ForgetChild, unless the directory has InodeNoCache or InodeRevalidate.
func (d *Dir) Remove(name string) bool {
	d.mu.Lock()
	e := d.byName[name]
	if e != nil {
		delete(d.byName, name)
		i := d.search(e.cookie)
		d.entries = append(d.entries[:i:i], d.entries[i+1:]...)
		if e.inode.IsDir() {
			d.subdirs--
		}
	}
	d.mu.Unlock()
	if e == nil {
		return false
	}
	e.inode.DecRef()
	return true
}

// search finds the first entry with at least cookie; mu is held.
func (d *Dir) search(cookie int64) int {
	return sort.Search(len(d.entries), func(i int) bool { return d.entries[i].cookie >= cookie })
}

// Child returns the inode of name, without a reference; nil if there is none.
func (d *Dir) Child(name string) *vfs.Inode {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if e := d.byName[name]; e != nil {
		return e.inode
	}
	return nil
}

// Lookup implements vfs.InodeOps.
func (d *Dir) Lookup(_ vfs.Context, name string) (*vfs.Inode, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e := d.byName[name]
	if e == nil {
		return nil, unix.ENOENT
	}
	e.inode.IncRef()
	return e.inode, nil
}

// Revalidate implements vfs.Revalidator, for directories with InodeRevalidate.
func (d *Dir) Revalidate(_ vfs.Context, name string, child *vfs.Inode) bool {
	return d.Child(name) == child
}

// Stat implements vfs.InodeOps.
func (d *Dir) Stat(ctx vfs.Context, mask uint32, st *vfs.Stat) error {
	err := d.Node.Stat(ctx, mask, st)
	d.mu.RLock()
	st.Nlink = 2 + d.subdirs
	d.mu.RUnlock()
	return err
}

// ReadDir implements vfs.DirReader.
func (d *Dir) ReadDir(_ vfs.Context, cookie int64, sink vfs.DirSink) error {
	d.mu.RLock()
	list := d.entries[d.search(cookie):]
	list = list[:len(list):len(list)]
	d.mu.RUnlock()
	for _, e := range list {
		if !sink.Emit(e.name, e.inode.Ino(), DirType(e.inode.Mode()), e.cookie+1) {
			return nil
		}
	}
	return nil
}

// Open implements vfs.InodeOps.
func (d *Dir) Open(vfs.Context, uint32) (vfs.FileImpl, error) { return DirFile{d}, nil }

// Create and the like refuse as file systems without them do.
func (d *Dir) Create(vfs.Context, string, *vfs.CreateArgs) (*vfs.Inode, error) {
	return nil, unix.EPERM
}

// DirFile is an open directory.
type DirFile struct{ vfs.DirReader }

// Release implements vfs.FileImpl.
func (DirFile) Release() {}

// DirType is the DT_* value of a mode.
func DirType(mode uint32) uint8 { return uint8(mode & unix.S_IFMT >> 12) }

// Entry is an entry of a dynamic directory.
type Entry struct {
	Name string
	Ino  uint64
	Type uint8 // DT_*
}

// EmitList emits a list that is made anew for each call; the cookie of entry i is 2+i.
func EmitList(list []Entry, cookie int64, sink vfs.DirSink) error {
	for i := max(cookie-2, 0); i < int64(len(list)); i++ {
		if !sink.Emit(list[i].Name, list[i].Ino, list[i].Type, i+3) {
			break
		}
	}
	return nil
}
