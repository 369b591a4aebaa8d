package vfs

import (
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// StatFS is what statfs(2) tells.
type StatFS struct {
	Type                  uint64 // magic number
	Bsize, Frsize         uint64
	Blocks, Bfree, Bavail uint64 // of Frsize bytes
	Files, Ffree          uint64
	Namelen               uint64
	Fsid                  uint64
	Flags                 uint64 // ST_*; vfs adds those of the mount
}

// MountOptions are the arguments of mount(2) to a file system.
type MountOptions struct {
	Source string
	Flags  uint64 // MS_RDONLY, MS_SYNCHRONOUS and the like that belong to the superblock
	Data   string // comma-separated options
}

// FileSystemType makes superblocks: what /proc/filesystems lists.
type FileSystemType interface {
	Name() string
	// NoDev tells whether it needs no block device ("nodev" in /proc/filesystems).
	NoDev() bool
	// UserNS tells whether CAP_SYS_ADMIN in a user namespace other than the first suffices to mount it.
	UserNS() bool
	// Mount makes a superblock (or returns one that exists with one more reference) and its root inode with a reference.
	// EINVAL for unknown options.
	Mount(ctx Context, vfs *VFS, o *MountOptions) (*Superblock, error)
}

// SuperblockOps are the operations on a whole file system.
type SuperblockOps interface {
	StatFS(ctx Context, st *StatFS) error
	// Sync writes everything back.
	Sync(ctx Context) error
	// Remount changes options (mount(2) with MS_REMOUNT); the read-only flag is vfs's.
	Remount(ctx Context, o *MountOptions) error
	// ShowOptions gives the options for /proc/PID/mounts: "size=1024k,mode=755".
	ShowOptions() string
	// Release is called when the last mount is gone and all inodes are released.
	Release()
}

// NoSuperblockOps is embedded by SuperblockOps of simple file systems.
type NoSuperblockOps struct{}

func (NoSuperblockOps) Sync(Context) error                   { return nil }
func (NoSuperblockOps) Remount(Context, *MountOptions) error { return nil }
func (NoSuperblockOps) ShowOptions() string                  { return "" }
func (NoSuperblockOps) Release()                             {}

// Superblock is a file system instance; several mounts may show it.
type Superblock struct {
	vfs    *VFS           // immutable
	ops    SuperblockOps  // immutable
	typ    FileSystemType // immutable; nil for internal ones (pipefs and the like)
	source string         // immutable
	dev    uint64         // immutable: st_dev of its files
	magic  uint64         // immutable
	root   *Dentry        // immutable; the superblock holds a reference
	refs   atomic.Int32
	flags  atomic.Uint64 // MS_RDONLY, MS_SYNCHRONOUS, ...

	// renameMu serialises renames between directories, so that no two make a loop together.
	renameMu sync.Mutex
}

// NewSuperblock makes a superblock with one reference. root's reference passes to it. magic is statfs(2)'s f_type. typ may be
// nil for file systems that are never mounted.
func (v *VFS) NewSuperblock(typ FileSystemType, ops SuperblockOps, o *MountOptions, magic uint64) *Superblock {
	sb := &Superblock{vfs: v, ops: ops, typ: typ, magic: magic, dev: v.newAnonDev()}
	if o != nil {
		sb.source = o.Source
		sb.flags.Store(o.Flags & sbFlags)
	}
	sb.refs.Store(1)
	return sb
}

// sbFlags are the mount(2) flags that belong to the superblock.
const sbFlags = unix.MS_RDONLY | unix.MS_SYNCHRONOUS | unix.MS_MANDLOCK | unix.MS_DIRSYNC | unix.MS_LAZYTIME

// SetRoot gives the superblock its root directory (or single file), once, before it is used. The inode's reference passes to it.
func (sb *Superblock) SetRoot(root *Inode) {
	sb.root = newDentry(sb, root, nil, "/")
	sb.root.refs.Store(1)
}

// Ops is the implementation, Dev the st_dev of its files, Magic the f_type, Root the root dentry (no reference),
// Type is nil for internal file systems.
func (sb *Superblock) Ops() SuperblockOps { return sb.ops }

// Dev is the device number of the file system.
func (sb *Superblock) Dev() uint64 { return sb.dev }

// Magic is the type number of statfs(2).
func (sb *Superblock) Magic() uint64 { return sb.magic }

// Root is the root dentry, without a reference.
func (sb *Superblock) Root() *Dentry { return sb.root }

// Type is the file system type; nil for internal ones.
func (sb *Superblock) Type() FileSystemType { return sb.typ }

// VFS is the owner.
func (sb *Superblock) VFS() *VFS { return sb.vfs }

// Source is the first argument of mount(2).
func (sb *Superblock) Source() string { return sb.source }

// ReadOnly tells whether the file system itself is read-only.
func (sb *Superblock) ReadOnly() bool { return sb.flags.Load()&unix.MS_RDONLY != 0 }

// SetReadOnly marks it.
func (sb *Superblock) SetReadOnly(ro bool) {
	if ro {
		sb.flags.Or(unix.MS_RDONLY)
	} else {
		sb.flags.And(^uint64(unix.MS_RDONLY))
	}
}

// IncRef takes a reference; the caller already holds one.
func (sb *Superblock) IncRef() { sb.refs.Add(1) }

// TryIncRef takes a reference unless the superblock is being released.
func (sb *Superblock) TryIncRef() bool {
	for {
		n := sb.refs.Load()
		if n <= 0 {
			return false
		}
		if sb.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// DecRef drops a reference; the last one throws the dentries away and releases the file system.
func (sb *Superblock) DecRef() {
	if sb.refs.Add(-1) != 0 {
		return
	}
	if sb.root != nil {
		sb.root.killTree()
	}
	sb.ops.Release()
}

// SplitOptions calls f for each "key" or "key=value" of a comma-separated list, and stops at an error.
func SplitOptions(data string, f func(key, value string, hasValue bool) error) error {
	for data != "" {
		var o string
		o, data, _ = strings.Cut(data, ",")
		if o == "" {
			continue
		}
		k, v, ok := strings.Cut(o, "=")
		if err := f(k, v, ok); err != nil {
			return err
		}
	}
	return nil
}
