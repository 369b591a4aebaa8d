package pseudo

import (
	"sync"
	"sync/atomic"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// FS is a synthetic file system: embed it or use it as it is as vfs.SuperblockOps.
type FS struct {
	vfs.NoSuperblockOps
	SB      *vfs.Superblock // set by NewFS
	lastIno atomic.Uint64
}

// NewFS makes a superblock with the statfs(2) type magic. The caller gives it a root by SB.SetRoot.
func NewFS(v *vfs.VFS, typ vfs.FileSystemType, o *vfs.MountOptions, magic uint64) *FS {
	f := &FS{}
	f.SB = v.NewSuperblock(typ, f, o, magic)
	return f
}

// NextIno gives a fresh inode number.
func (f *FS) NextIno() uint64 { return f.lastIno.Add(1) }

// StatFS implements vfs.SuperblockOps.
func (f *FS) StatFS(_ vfs.Context, st *vfs.StatFS) error {
	st.Type, st.Bsize, st.Frsize, st.Namelen = f.SB.Magic(), 4096, 4096, 255
	return nil
}

// Node is an inode with attributes in memory. Embed it in a type with the rest of vfs.InodeOps, and call Init with that
// type as ops. Stat, SetStat (mode, owner, times), Release and refusals are there.
type Node struct {
	vfs.Inode
	vfs.NoOps
	// Nlink is what Stat shows; 0 stands for 1 (2 for directories). Immutable.
	Nlink uint32
	// Rdev is the device number of device nodes. Immutable.
	Rdev uint64
	// Size is what Stat shows. Immutable.
	Size int64
	// FixedAttr makes SetStat fail with EPERM, as in proc. Immutable.
	FixedAttr bool

	mu                  sync.Mutex
	atime, mtime, ctime int64 // protected by mu
}

// Init sets up the node with one reference; times are now.
func (n *Node) Init(ops vfs.InodeOps, sb *vfs.Superblock, ino uint64, mode uint32, uid auth.KUID, gid auth.KGID, flags vfs.InodeFlags) {
	n.Inode.Init(ops, sb, ino, mode, uid, gid, flags)
	n.mtime = clock.Realtime()
	n.atime, n.ctime = n.mtime, n.mtime
}

// Stat implements vfs.InodeOps.
func (n *Node) Stat(_ vfs.Context, _ uint32, st *vfs.Stat) error {
	st.Mode, st.UID, st.GID, st.Ino = n.Mode(), n.UID(), n.GID(), n.Ino()
	st.Dev, st.Rdev, st.Size, st.Blksize = n.Superblock().Dev(), n.Rdev, n.Size, 4096
	st.Nlink = n.Nlink
	if st.Nlink == 0 {
		st.Nlink = 1
		if n.IsDir() {
			st.Nlink = 2
		}
	}
	n.mu.Lock()
	st.Atime, st.Mtime, st.Ctime = n.atime, n.mtime, n.ctime
	n.mu.Unlock()
	return nil
}

// Touch sets mtime and ctime to now.
func (n *Node) Touch() {
	now := clock.Realtime()
	n.mu.Lock()
	n.mtime, n.ctime = now, now
	n.mu.Unlock()
}

// SetStat implements vfs.InodeOps. A size from O_TRUNC is ignored.
func (n *Node) SetStat(_ vfs.Context, s *vfs.SetStat) error {
	if s.Mask&^(vfs.SetSize|vfs.SetFromOpen) == 0 {
		if s.Mask&vfs.SetFromOpen != 0 || n.Type() == unix.S_IFREG {
			return nil
		}
		return unix.EINVAL
	}
	if n.FixedAttr {
		return unix.EPERM
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.Mask&vfs.SetMode != 0 {
		n.Inode.SetMode(n.Type() | s.Mode&07777)
	}
	if s.Mask&vfs.SetUID != 0 {
		n.Inode.SetUID(s.UID)
	}
	if s.Mask&vfs.SetGID != 0 {
		n.Inode.SetGID(s.GID)
	}
	if s.Mask&vfs.SetAtime != 0 {
		n.atime = s.Atime
	}
	if s.Mask&vfs.SetMtime != 0 {
		n.mtime = s.Mtime
	}
	n.ctime = clock.Realtime()
	return nil
}

// Symlink is a symlink with a fixed target, or with one made at each use.
type Symlink struct {
	Node
	Target string
	// Func, if set, makes the target.
	Func func(ctx vfs.Context) (string, error)
}

// NewSymlink makes a symlink, with one reference.
func (f *FS) NewSymlink(target string) *Symlink {
	l := &Symlink{Target: target}
	l.Init(l, f.SB, f.NextIno(), unix.S_IFLNK|0777, 0, 0, 0)
	l.Size = int64(len(target))
	return l
}

// Readlink implements vfs.InodeOps.
func (l *Symlink) Readlink(ctx vfs.Context) (string, error) {
	if l.Func != nil {
		return l.Func(ctx)
	}
	return l.Target, nil
}

// NewDevice makes a device node; mode holds S_IFCHR or S_IFBLK and permissions.
func (f *FS) NewDevice(mode uint32, rdev uint64) *Node {
	d := &deviceNode{}
	d.Init(d, f.SB, f.NextIno(), mode, 0, 0, 0)
	d.Rdev = rdev
	return &d.Node
}

// deviceNode is a Node that is complete as vfs.InodeOps.
type deviceNode struct{ Node }
