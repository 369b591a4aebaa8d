package gofer

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	broker "husk/pkg/gofer"
	"husk/pkg/sentry/vfs"
)

// Options say how an attach point is shown.
type Options struct {
	Source string // as /proc/mounts shows it
	// Shared says that others than the sentry change the files.
	Shared bool
	// ReadOnly makes the superblock read-only, which it is anyway where the broker says so.
	ReadOnly bool
	// Handles, if set, bounds the handles of the attach points that share it.
	Handles *Handles
	// MaxIdle is how many files without users keep their host descriptors; 0 is 512.
	MaxIdle int
}

// filesystem is one attach point.
type filesystem struct {
	vfs.NoSuperblockOps
	client  *broker.Client
	sb      *vfs.Superblock
	root    *inode
	shared  bool
	frozen  bool     // nobody changes anything
	handles *Handles // may be nil
	maxIdle int
	dev     uint64 // of the root on the host

	tableMu sync.Mutex // guards what follows
	table   map[fileKey]*inode
	devs    map[uint64]uint64 // other devices of the host below: small numbers

	idleMu    sync.Mutex        // guards what follows
	idle      idleList          // files whose descriptors nobody used when they came here
	dirs      idleList          // frozen attach points: directories with handles that can be had again
	ahead     [aheadDirs]*inode // directories with entries asked for ahead, without references
	aheadNext int

	habit  habit
	blocks blocks
	again  again
}

// fileKey is what makes a file of the host one file, whatever its names are. In a frozen attach point nothing keeps the host from giving the inode number of
// a file that it removes nevertheless to another one: there, type and time of birth count as well. (Elsewhere the broker's descriptor keeps the number, and
// on overlayfs of the host a file is born again when it is changed for the first time.)
type fileKey struct{ dev, ino, born uint64 }

func (fs *filesystem) keyOf(a *broker.Attr) fileKey {
	k := fileKey{dev: a.Dev, ino: a.Ino}
	if fs.frozen {
		k.born = uint64(nanos(a.Btime)) ^ uint64(a.Type())<<48
	}
	return k
}

// New makes a superblock with one reference of the attach point with the given index. The client stays
// the caller's, and in use until the superblock is released.
func New(v *vfs.VFS, c *broker.Client, index int, o Options) (*vfs.Superblock, error) {
	h, a, err := c.Attach(index)
	if err != nil {
		return nil, hostError(err)
	}
	var s broker.StatFS
	err = c.StatFS(h, &s)
	target := ""
	if err == nil && a.Type() == unix.S_IFLNK {
		target, err = c.Readlink(h)
	}
	if err != nil {
		c.Close(h)
		return nil, hostError(err)
	}
	fs := &filesystem{client: c, shared: o.Shared, handles: o.Handles, maxIdle: o.MaxIdle, dev: a.Dev, table: map[fileKey]*inode{}, devs: map[uint64]uint64{}}
	if fs.maxIdle == 0 {
		fs.maxIdle = 512
	}
	var flags uint64
	if o.ReadOnly || c.Attachments()[index]&broker.ReadOnly != 0 {
		flags = unix.MS_RDONLY
		fs.frozen = !fs.shared
	}
	fs.sb = v.NewSuperblock(typeOf(s.Type), fs, &vfs.MountOptions{Source: o.Source, Flags: flags}, s.Type)
	fs.root = fs.inode(nil, "", &broker.Entry{Handle: h, Attr: a, Target: target})
	fs.sb.SetRoot(&fs.root.Inode)
	return fs.sb, nil
}

// fsType names the file system for /proc/mounts. It is never registered: nothing can be mounted with it.
type fsType string

func (t fsType) Name() string { return string(t) }
func (t fsType) NoDev() bool  { return true }
func (t fsType) UserNS() bool { return false }
func (t fsType) Mount(vfs.Context, *vfs.VFS, *vfs.MountOptions) (*vfs.Superblock, error) {
	return nil, unix.ENODEV
}

// typeOf names a file system by its statfs(2) type, as programs compare the two.
func typeOf(magic uint64) fsType {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	}
	return "overlay"
}

// StatFS implements vfs.SuperblockOps.
func (fs *filesystem) StatFS(_ vfs.Context, st *vfs.StatFS) error {
	var s broker.StatFS
	if err := fs.client.StatFS(fs.root.handle(), &s); err != nil {
		return hostError(err)
	}
	*st = vfs.StatFS{Type: s.Type, Bsize: s.Bsize, Frsize: s.Frsize, Blocks: s.Blocks, Bfree: s.Bfree, Bavail: s.Bavail, Files: s.Files, Ffree: s.Free, Namelen: s.Namelen}
	return nil
}

// Sync implements vfs.SuperblockOps: it writes back what the sentry has open for writing.
func (fs *filesystem) Sync(vfs.Context) error {
	var list []*inode
	fs.tableMu.Lock()
	for _, i := range fs.table {
		if i.rw.Load() >= 0 && i.TryIncRef() {
			list = append(list, i)
		}
	}
	fs.tableMu.Unlock()
	var first error
	for _, i := range list {
		i.mu.Lock()
		if fd := i.rw.Load(); fd >= 0 {
			if err := unix.Fsync(int(fd)); err != nil && first == nil {
				first = err
			}
		}
		i.mu.Unlock()
		i.DecRef()
	}
	return first
}

// Release implements vfs.SuperblockOps.
func (fs *filesystem) Release() { fs.client.Flush() }

// hostError is what the application sees of an error of the broker: without it, every access is an
// I/O error.
func hostError(err error) error {
	if err == nil {
		return nil
	}
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// bare is what look-ups ask for: in a frozen attach point, handles of directories only.
func (fs *filesystem) bare() broker.With {
	if fs.frozen {
		return broker.WithoutHandle
	}
	return 0
}

// inode returns the inode of an entry of dir with a reference; the entry's handle passes to it. A file that has an inode already,
// by another name, keeps that one.
func (fs *filesystem) inode(dir *inode, name string, e *broker.Entry) *inode {
	i, _ := fs.inodeOf(dir, name, e, false)
	return i
}

// inodeOf is inode; made tells that it is new. The attributes of an old entry are of no interest to an inode that exists.
func (fs *filesystem) inodeOf(dir *inode, name string, e *broker.Entry, old bool) (i *inode, made bool) {
	k := fs.keyOf(&e.Attr)
	fs.tableMu.Lock()
	if i := fs.table[k]; i != nil && i.TryIncRef() {
		fs.tableMu.Unlock()
		fs.client.Close(e.Handle)
		if !old && !fs.frozen {
			i.setAttr(&e.Attr)
		}
		return i, false
	}
	i = &inode{fs: fs, key: k, target: e.Target, attr: e.Attr}
	i.held.Store(uint64(e.Handle))
	i.size.Store(int64(e.Attr.Size))
	if fs.frozen && dir != nil {
		dir.IncRef()
		i.parent, i.name = dir, name
	}
	i.rd.Store(-1)
	i.rw.Store(-1)
	var flags vfs.InodeFlags
	if e.Attr.Type() == unix.S_IFDIR {
		flags = vfs.InodeBatch
		if fs.shared {
			flags |= vfs.InodeRevalidate
		} else {
			flags |= vfs.InodeNegative
		}
	}
	i.Init(i, fs.sb, fs.ino(k), e.Attr.Mode, kuid(e.Attr.UID), kgid(e.Attr.GID), flags)
	fs.table[k] = i
	fs.tableMu.Unlock()
	if e.Handle != 0 {
		fs.hold(i)
	}
	return i, true
}

// ino is the inode number that the application sees: the host's, with a mark where the file is on
// another device of the host than the root, as all are on one device here. tableMu is held.
func (fs *filesystem) ino(k fileKey) uint64 {
	if k.dev == fs.dev {
		return k.ino
	}
	n := fs.devs[k.dev]
	if n == 0 {
		n = uint64(len(fs.devs) + 1)
		fs.devs[k.dev] = n
	}
	return k.ino ^ n<<48
}
