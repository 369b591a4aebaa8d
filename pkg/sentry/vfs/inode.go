package vfs

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
	"husk/pkg/sentry/auth"
)

// Stat is what statx(2) tells; fields that a file system does not set stay zero. Times are nanoseconds since the epoch.
type Stat struct {
	Mode                       uint32 // type and permissions
	Nlink                      uint32
	UID                        auth.KUID
	GID                        auth.KGID
	Ino                        uint64
	Size                       int64
	Blocks                     uint64 // of 512 bytes
	Blksize                    uint32
	Dev, Rdev                  uint64 // as unix.Mkdev makes them
	Atime, Mtime, Ctime, Btime int64  // Btime 0: unknown
	Attributes, AttributesMask uint64 // STATX_ATTR_*
}

// SetMask says which fields of a SetStat count.
type SetMask uint32

// The fields of SetStat.
const (
	SetMode SetMask = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	// SetFromOpen: SetSize comes from O_TRUNC.
	SetFromOpen
	// SetAtimeNow and SetMtimeNow ask vfs to fill in the current time; file systems see SetAtime and SetMtime.
	SetAtimeNow
	SetMtimeNow
)

// SetStat is a change of attributes (notify_change of Linux). Permissions have been checked, mode has no type bits,
// times are resolved; the file system also sets ctime to now.
type SetStat struct {
	Mask         SetMask
	Mode         uint32
	UID          auth.KUID
	GID          auth.KGID
	Size         int64
	Atime, Mtime int64
}

// CreateArgs describes a new inode. Mode holds the type, and permissions after umask; GID follows a set-group-ID directory.
type CreateArgs struct {
	Mode   uint32
	UID    auth.KUID
	GID    auth.KGID
	Rdev   uint64 // S_IFCHR, S_IFBLK
	Target string // S_IFLNK
}

// InodeFlags are properties of an inode that the path walk looks at.
type InodeFlags uint32

// The flags of inodes.
const (
	// InodeRevalidate (directory): a cached child must be confirmed by Revalidator before use.
	InodeRevalidate InodeFlags = 1 << iota
	// InodeNoCache (directory): children are looked up each time.
	InodeNoCache
	// InodeNegative (directory): that a name does not exist may be cached.
	InodeNegative
	// InodeBatch (directory): BatchLookup is implemented.
	InodeBatch
	// InodeMagicLink (symlink): MagicLinker is implemented.
	InodeMagicLink
	// InodeCustomPermission: PermissionChecker replaces the mode bits.
	InodeCustomPermission
	// InodeImmutable and InodeAppendOnly are FS_IMMUTABLE_FL and FS_APPEND_FL.
	InodeImmutable
	InodeAppendOnly
	// InodeNoExec refuses execution whatever the mode (synthetic files).
	InodeNoExec

	inodeWatched  // some inotify watch is on the inode
	inodeSlots    // a slot is in use
	inodeNoCaps   // has no security.capability, as far as vfs knows
	inodeLinkable // made by O_TMPFILE: link(2) may name it
	inodeDead     // removed directory: nothing may be created in it
)

// Inode is a file of a file system: the part that vfs knows. File systems embed it in their own inode type and
// call Init. It is reference counted: each positive dentry holds a reference; Release of the ops is called when the last is gone.
type Inode struct {
	ops   InodeOps    // immutable
	sb    *Superblock // immutable
	ino   uint64      // immutable
	refs  atomic.Int32
	mode  atomic.Uint32
	uid   atomic.Uint32
	gid   atomic.Uint32
	flags atomic.Uint32
	// writers counts files open for writing; below zero, it counts executions, which deny writing (ETXTBSY).
	writers atomic.Int32
	ext     atomic.Pointer[inodeExt] // locks, watches, FIFO and socket state; made on first use
}

// Init sets up an inode with one reference, which belongs to the caller (a Lookup hands it to vfs).
func (i *Inode) Init(ops InodeOps, sb *Superblock, ino uint64, mode uint32, uid auth.KUID, gid auth.KGID, flags InodeFlags) {
	i.ops, i.sb, i.ino = ops, sb, ino
	i.refs.Store(1)
	i.mode.Store(mode)
	i.uid.Store(uint32(uid))
	i.gid.Store(uint32(gid))
	i.flags.Store(uint32(flags))
}

// Ops is the file system's implementation.
func (i *Inode) Ops() InodeOps { return i.ops }

// Superblock is the mounted file system.
func (i *Inode) Superblock() *Superblock { return i.sb }

// Ino is the inode number.
func (i *Inode) Ino() uint64 { return i.ino }

// Mode is type and permissions.
func (i *Inode) Mode() uint32 { return i.mode.Load() }

// Type is the S_IFMT part of the mode.
func (i *Inode) Type() uint32 { return i.mode.Load() & unix.S_IFMT }

// IsDir tells whether the inode is a directory.
func (i *Inode) IsDir() bool { return i.Type() == unix.S_IFDIR }

// UID is the owner.
func (i *Inode) UID() auth.KUID { return auth.KUID(i.uid.Load()) }

// GID is the group.
func (i *Inode) GID() auth.KGID { return auth.KGID(i.gid.Load()) }

// SetMode, SetUID and SetGID are for the file system: they publish new attributes.
func (i *Inode) SetMode(m uint32) { i.mode.Store(m) }

// SetUID publishes a new owner.
func (i *Inode) SetUID(u auth.KUID) { i.uid.Store(uint32(u)) }

// SetGID publishes a new group.
func (i *Inode) SetGID(g auth.KGID) { i.gid.Store(uint32(g)) }

// Flags are the inode's flags.
func (i *Inode) Flags() InodeFlags { return InodeFlags(i.flags.Load()) }

// SetFlags and ClearFlags change flags.
func (i *Inode) SetFlags(f InodeFlags) { i.flags.Or(uint32(f)) }

// ClearFlags clears flags.
func (i *Inode) ClearFlags(f InodeFlags) { i.flags.And(^uint32(f)) }

// IncRef takes a reference; the caller already holds one.
func (i *Inode) IncRef() { i.refs.Add(1) }

// TryIncRef takes a reference unless the inode is already released (for inode tables of file systems).
func (i *Inode) TryIncRef() bool {
	for {
		n := i.refs.Load()
		if n <= 0 {
			return false
		}
		if i.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// DecRef drops a reference and releases the inode with the last one.
func (i *Inode) DecRef() {
	if i.refs.Add(-1) == 0 {
		i.ops.Release()
	}
}

// denyWrite keeps the file from being opened for writing while it is executed. ETXTBSY if it is open for writing.
func (i *Inode) denyWrite() error {
	for {
		n := i.writers.Load()
		if n > 0 {
			return unix.ETXTBSY
		}
		if i.writers.CompareAndSwap(n, n-1) {
			return nil
		}
	}
}

// AllowWrite ends what an open with OpenOptions.Exec did, which otherwise lasts as long as the file is open: nobody can write to the file.
func (fd *FileDescription) AllowWrite() {
	if fd.denies.Swap(false) {
		fd.Inode().writers.Add(1)
	}
}

// getWrite counts a writer; ETXTBSY.
func (i *Inode) getWrite() error {
	for {
		n := i.writers.Load()
		if n < 0 {
			return unix.ETXTBSY
		}
		if i.writers.CompareAndSwap(n, n+1) {
			return nil
		}
	}
}

// AtimeToucher is implemented by inodes that keep access times. relatime: only if the old one is not newer than the other times, or a day old.
type AtimeToucher interface {
	TouchAtime(relatime bool)
}

// InodeOps are the operations of a file system on one inode. Names are single components, never "", "." or "..", at most 255 bytes.
// Embed NoOps to get the error of Linux for what a file type lacks. Concurrency: operations on one directory that change it exclude each other
// and Lookup on it; everything else may run at once. Returned inodes carry a reference for the caller. Strings passed in may be kept.
type InodeOps interface {
	// Lookup finds name in the directory; ENOENT if there is none.
	Lookup(ctx Context, name string) (*Inode, error)
	// Create makes a regular file, directory, symlink, device node, FIFO or socket by a.Mode.
	Create(ctx Context, name string, a *CreateArgs) (*Inode, error)
	// Link makes name another link to target, of the same superblock.
	Link(ctx Context, name string, target *Inode) error
	// Unlink removes a name that is not a directory.
	Unlink(ctx Context, name string, victim *Inode) error
	// Rmdir removes an empty directory; ENOTEMPTY.
	Rmdir(ctx Context, name string, victim *Inode) error
	// Rename moves src from name here to newName in newDir (of the same superblock); target is what newName was, or nil.
	// flags: RENAME_NOREPLACE (already checked), RENAME_EXCHANGE, RENAME_WHITEOUT; EINVAL for one it lacks. Types, permissions and loops are checked.
	Rename(ctx Context, name string, src *Inode, newDir *Inode, newName string, target *Inode, flags uint32) error
	// Readlink gives the target of a symlink.
	Readlink(ctx Context) (string, error)
	// Open makes the implementation of an open file. flags are open(2)'s; O_TRUNC has been done, O_CREAT is done.
	// Not called for O_PATH, devices, FIFOs and sockets.
	Open(ctx Context, flags uint32) (FileImpl, error)
	// Stat fills st; mask is what is wanted of STATX_*; st is zero before.
	Stat(ctx Context, mask uint32, st *Stat) error
	// SetStat changes attributes and publishes them by SetMode, SetUID and SetGID.
	SetStat(ctx Context, s *SetStat) error
	// GetXattr returns a value; ENODATA. ListXattr lists names; SetXattr has the flags XATTR_CREATE and XATTR_REPLACE.
	// EOPNOTSUPP where not supported. Name is the full name ("user.x").
	GetXattr(ctx Context, name string) ([]byte, error)
	ListXattr(ctx Context) ([]string, error)
	SetXattr(ctx Context, name string, value []byte, flags uint32) error
	RemoveXattr(ctx Context, name string) error
	// Release is called once, when the last reference is gone.
	Release()
}

// BatchLookup resolves several components in one round trip (InodeBatch).
type BatchLookup interface {
	// LookupMany walks names from the directory: the i-th result is names[i] inside the (i-1)-th. It stops behind the first result that
	// is not a directory. err tells why the name behind the last result was not found (nil if the walk stopped there by itself).
	LookupMany(ctx Context, names []string) (inodes []*Inode, err error)
}

// CreateOpener makes and opens a regular file in one round trip.
type CreateOpener interface {
	CreateOpen(ctx Context, name string, a *CreateArgs, flags uint32) (*Inode, FileImpl, error)
}

// Revalidator confirms cached children (InodeRevalidate).
type Revalidator interface {
	// Revalidate tells whether name is still child (nil: still does not exist).
	Revalidate(ctx Context, name string, child *Inode) bool
}

// MagicLinker is a symlink that leads to an object and not to a path, as /proc/PID/fd/N (InodeMagicLink).
type MagicLinker interface {
	// FollowLink returns the place with a reference.
	FollowLink(ctx Context) (Path, error)
}

// PermissionChecker replaces the check of mode bits (InodeCustomPermission).
type PermissionChecker interface {
	// CheckPermission checks mask, of MayRead, MayWrite and MayExec.
	CheckPermission(ctx Context, mask uint32) error
}

// Opener of O_TMPFILE files: an inode without a name.
type TmpfileMaker interface {
	Tmpfile(ctx Context, a *CreateArgs) (*Inode, error)
}

// NoOps is embedded by implementations of InodeOps: everything answers as Linux does where an inode has no such operation.
type NoOps struct{}

func (NoOps) Lookup(Context, string) (*Inode, error)              { return nil, unix.ENOTDIR }
func (NoOps) Create(Context, string, *CreateArgs) (*Inode, error) { return nil, unix.EACCES }
func (NoOps) Link(Context, string, *Inode) error                  { return unix.EPERM }
func (NoOps) Unlink(Context, string, *Inode) error                { return unix.EPERM }
func (NoOps) Rmdir(Context, string, *Inode) error                 { return unix.EPERM }
func (NoOps) Rename(Context, string, *Inode, *Inode, string, *Inode, uint32) error {
	return unix.EPERM
}
func (NoOps) Readlink(Context) (string, error)               { return "", unix.EINVAL }
func (NoOps) Open(Context, uint32) (FileImpl, error)         { return nil, unix.ENXIO }
func (NoOps) SetStat(Context, *SetStat) error                { return unix.EPERM }
func (NoOps) GetXattr(Context, string) ([]byte, error)       { return nil, unix.EOPNOTSUPP }
func (NoOps) ListXattr(Context) ([]string, error)            { return nil, nil }
func (NoOps) SetXattr(Context, string, []byte, uint32) error { return unix.EOPNOTSUPP }
func (NoOps) RemoveXattr(Context, string) error              { return unix.EOPNOTSUPP }
func (NoOps) Release()                                       {}

// The rights that permission checks ask for.
const (
	MayExec  uint32 = 1
	MayWrite uint32 = 2
	MayRead  uint32 = 4
)
