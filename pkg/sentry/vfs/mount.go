package vfs

import (
	"sync/atomic"

	"husk/pkg/sentry/auth"

	"golang.org/x/sys/unix"
)

// MountFlags are the flags of one mount: ST_RDONLY, ST_NOSUID, ST_NODEV, ST_NOEXEC, ST_NOATIME, ST_NODIRATIME, ST_RELATIME as in statvfs(3).
type MountFlags uint64

// The flags; values of statfs(2).
const (
	MountReadOnly    MountFlags = unix.ST_RDONLY
	MountNoSUID      MountFlags = unix.ST_NOSUID
	MountNoDev       MountFlags = unix.ST_NODEV
	MountNoExec      MountFlags = unix.ST_NOEXEC
	MountNoAtime     MountFlags = unix.ST_NOATIME
	MountNoDirAtime  MountFlags = unix.ST_NODIRATIME
	MountRelatime    MountFlags = unix.ST_RELATIME
	MountNoSymfollow MountFlags = 0x2000

	mountFlagMask = MountReadOnly | MountNoSUID | MountNoDev | MountNoExec | MountNoAtime | MountNoDirAtime | MountRelatime | MountNoSymfollow
)

// Mount shows a tree of dentries of a superblock at a place.
type Mount struct {
	vfs     *VFS          // immutable
	sb      *Superblock   // immutable; a reference
	root    *Dentry       // immutable; a reference
	id      int64         // immutable: mount ID of mountinfo
	refs    atomic.Int32  // one is the mount tree's, as long as it is attached
	flags   atomic.Uint64 // MountFlags
	writers atomic.Int32  // files open for writing

	// Changed under vfs.mountMu; read without locks by walks.
	ns       atomic.Pointer[MountNamespace] // nil: detached
	at       atomic.Pointer[mountPoint]     // nil: root of a namespace, or detached
	children atomic.Pointer[map[*Dentry]*Mount]

	// Protected by vfs.mountMu.
	shared     *peerGroup // nil: not shared
	master     *peerGroup // nil: not a slave
	unbindable bool
	locked     bool // may not be unmounted apart from its parent (came with a user namespace)
}

// mountPoint is where a mount is attached.
type mountPoint struct {
	parent *Mount  // a reference
	dentry *Dentry // a reference
}

// peerGroup is a set of mounts that share mount events (mount_namespaces(7)).
type peerGroup struct {
	id     int64
	peers  []*Mount // protected by vfs.mountMu
	slaves []*Mount // protected by vfs.mountMu: mounts whose master is this group
}

// MountNamespace is a tree of mounts (mount_namespaces(7)).
type MountNamespace struct {
	vfs    *VFS // immutable
	refs   atomic.Int32
	root   *Mount              // protected by vfs.mountMu
	id     uint64              // immutable: inode number of /proc/PID/ns/mnt
	UserNS *auth.UserNamespace // immutable: who may change it
	events atomic.Int64        // counts changes, for poll on /proc/PID/mounts
}

// IncRef takes a reference; the caller already holds one.
func (m *Mount) IncRef() { m.refs.Add(1) }

// TryIncRef takes a reference unless the mount is gone.
func (m *Mount) TryIncRef() bool {
	for {
		n := m.refs.Load()
		if n <= 0 {
			return false
		}
		if m.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// DecRef drops a reference; the last one lets go of the file system.
func (m *Mount) DecRef() {
	if m.refs.Add(-1) == 0 {
		m.root.DecRef()
		m.sb.DecRef()
	}
}

// ID is the mount ID.
func (m *Mount) ID() int64 { return m.id }

// Superblock is the file system.
func (m *Mount) Superblock() *Superblock { return m.sb }

// Root is the root of the mount, without a reference.
func (m *Mount) Root() *Dentry { return m.root }

// Flags are the flags of the mount.
func (m *Mount) Flags() MountFlags { return MountFlags(m.flags.Load()) }

// ReadOnly tells whether nothing may be written through the mount.
func (m *Mount) ReadOnly() bool { return m.Flags()&MountReadOnly != 0 || m.sb.ReadOnly() }
