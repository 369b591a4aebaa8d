package vfs

import (
	"sync/atomic"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/waiter"

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
	root   atomic.Pointer[Mount] // changed under vfs.mountMu
	id     uint64                // immutable: inode number of /proc/PID/ns/mnt
	UserNS *auth.UserNamespace   // immutable: who may change it
	events atomic.Int64          // counts changes, for poll on /proc/PID/mounts
	queue  waiter.Queue          // told of changes
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

// childAt is what is mounted at d of the mount; nil if nothing.
func (m *Mount) childAt(d *Dentry) *Mount {
	if c := m.children.Load(); c != nil {
		return (*c)[d]
	}
	return nil
}

// newMount makes a detached mount of the tree below root. The reference on sb passes to it.
func (v *VFS) newMount(sb *Superblock, root *Dentry, flags MountFlags) *Mount {
	m := &Mount{vfs: v, sb: sb, root: root, id: v.nextMountID.Add(1)}
	root.IncRef()
	m.refs.Store(1)
	m.flags.Store(uint64(flags))
	return m
}

// clone makes a detached mount like m of the tree below root. vfs.mountMu is held.
func (m *Mount) clone(root *Dentry) *Mount {
	m.sb.IncRef()
	c := m.vfs.newMount(m.sb, root, m.Flags())
	c.unbindable = m.unbindable
	if m.shared != nil {
		c.joinLocked(m.shared)
	}
	if m.master != nil {
		c.enslaveLocked(m.master)
	}
	return c
}

// lockMounts begins a change of mount trees; what it returns ends it and then drops the given references.
func (v *VFS) lockMounts() *mountChange {
	v.mountMu.Lock()
	v.mountSeq.Add(1)
	return &mountChange{v: v}
}

// mountChange is a change under way. References are dropped when it is over, since the last ones run code of file systems.
type mountChange struct {
	v      *VFS
	mounts []*Mount
	paths  []Path
	spaces []*MountNamespace
}

func (c *mountChange) done() {
	for _, ns := range c.spaces {
		ns.events.Add(1)
	}
	c.v.mountSeq.Add(1)
	c.v.mountMu.Unlock()
	for _, ns := range c.spaces {
		ns.queue.Notify(waiter.EventErr | waiter.EventPri)
	}
	for _, m := range c.mounts {
		m.DecRef()
	}
	for _, p := range c.paths {
		p.DecRef()
	}
}

// changed notes that ns must tell who polls its list.
func (c *mountChange) changed(ns *MountNamespace) {
	if ns == nil {
		return
	}
	for _, x := range c.spaces {
		if x == ns {
			return
		}
	}
	c.spaces = append(c.spaces, ns)
}

// attach puts m, whose tree reference passes to the mount tree, at the place. Nothing is mounted there.
func (c *mountChange) attach(m *Mount, at Path) {
	at.IncRef()
	m.at.Store(&mountPoint{at.Mount, at.Dentry})
	at.Mount.setChild(at.Dentry, m)
	l := c.v.mountpoints[at.Dentry]
	if len(l) == 0 {
		at.Dentry.flags.Or(dentryMounted)
	}
	c.v.mountpoints[at.Dentry] = append(l, m)
	m.setNS(at.Mount.ns.Load())
	c.changed(at.Mount.ns.Load())
}

// setChild publishes a new table of children.
func (m *Mount) setChild(d *Dentry, child *Mount) {
	n := map[*Dentry]*Mount{}
	if old := m.children.Load(); old != nil {
		for k, v := range *old {
			n[k] = v
		}
	}
	if child == nil {
		delete(n, d)
	} else {
		n[d] = child
	}
	if len(n) == 0 {
		m.children.Store(nil)
		return
	}
	m.children.Store(&n)
}

// setNS enters m and all below it in a namespace.
func (m *Mount) setNS(ns *MountNamespace) {
	m.walkTree(func(x *Mount) bool {
		x.ns.Store(ns)
		return true
	})
}

// walkTree calls f for m and the mounts below it, parents first; f says whether to go below.
func (m *Mount) walkTree(f func(*Mount) bool) {
	todo := []*Mount{m}
	for len(todo) > 0 {
		x := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !f(x) {
			continue
		}
		if c := x.children.Load(); c != nil {
			for _, y := range *c {
				todo = append(todo, y)
			}
		}
	}
}

// detach takes m, with all below it, from its place. The tree's reference is now the caller's.
func (c *mountChange) detach(m *Mount) {
	at := m.at.Load()
	if at == nil {
		return
	}
	c.changed(m.ns.Load())
	at.parent.setChild(at.dentry, nil)
	m.at.Store(nil)
	l := c.v.mountpoints[at.dentry]
	for i, x := range l {
		if x == m {
			l = append(l[:i:i], l[i+1:]...)
			break
		}
	}
	if len(l) == 0 {
		delete(c.v.mountpoints, at.dentry)
		at.dentry.flags.And(^dentryMounted)
	} else {
		c.v.mountpoints[at.dentry] = l
	}
	c.paths = append(c.paths, Path{at.parent, at.dentry})
}

// discard unmounts m and all below it; what is still in use lives on, detached.
func (c *mountChange) discard(m *Mount) {
	var all []*Mount
	m.walkTree(func(x *Mount) bool {
		all = append(all, x)
		return true
	})
	for i := len(all) - 1; i >= 0; i-- {
		x := all[i]
		c.detach(x)
		x.ns.Store(nil)
		x.makePrivateLocked()
		c.mounts = append(c.mounts, x)
	}
}

// isMountpoint tells whether something is mounted at d in ns.
func (d *Dentry) isMountpoint(ns *MountNamespace) bool {
	if d.flags.Load()&dentryMounted == 0 {
		return false
	}
	v := d.sb.vfs
	v.mountMu.Lock()
	defer v.mountMu.Unlock()
	for _, m := range v.mountpoints[d] {
		if m.ns.Load() == ns {
			return true
		}
	}
	return false
}

// detachMountsOn unmounts what is mounted on a name that was removed: in other namespaces.
func (v *VFS) detachMountsOn(d *Dentry) {
	if d.flags.Load()&dentryMounted == 0 {
		return
	}
	c := v.lockMounts()
	for _, m := range append([]*Mount(nil), v.mountpoints[d]...) {
		c.discard(m)
	}
	c.done()
}
