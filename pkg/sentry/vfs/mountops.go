package vfs

import (
	"sort"
	"strings"

	"husk/pkg/sentry/auth"

	"golang.org/x/sys/unix"
)

// sortedMounts gives mounts in the order they were made.
func sortedMounts(m map[*Dentry]*Mount) []*Mount {
	l := make([]*Mount, 0, len(m))
	for _, x := range m {
		l = append(l, x)
	}
	sort.Slice(l, func(i, j int) bool { return l[i].id < l[j].id })
	return l
}

// NewMountNamespace makes a namespace whose root is a new mount of sb, whose reference passes to it.
func (v *VFS) NewMountNamespace(sb *Superblock, userns *auth.UserNamespace, flags MountFlags) *MountNamespace {
	ns := &MountNamespace{vfs: v, UserNS: userns, id: v.NewNamespaceID()}
	ns.refs.Store(1)
	m := v.newMount(sb, sb.root, flags)
	m.ns.Store(ns)
	ns.root.Store(m)
	return ns
}

// NewNamespaceID gives an inode number for a namespace, as nsfs numbers them.
func (v *VFS) NewNamespaceID() uint64 { return 0xf0000000 + v.anonIno.Add(1) }

// ID is the inode number of the namespace.
func (ns *MountNamespace) ID() uint64 { return ns.id }

// IncRef takes a reference; the caller already holds one.
func (ns *MountNamespace) IncRef() { ns.refs.Add(1) }

// TryIncRef takes a reference unless the namespace is gone.
func (ns *MountNamespace) TryIncRef() bool {
	for {
		n := ns.refs.Load()
		if n <= 0 {
			return false
		}
		if ns.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// DecRef drops a reference; with the last one everything is unmounted.
func (ns *MountNamespace) DecRef() {
	if ns.refs.Add(-1) != 0 {
		return
	}
	c := ns.vfs.lockMounts()
	if m := ns.root.Load(); m != nil {
		c.discard(m)
	}
	c.done()
}

// Root is the root of the namespace, with what is mounted on it, with a reference.
func (ns *MountNamespace) Root() Path {
	for {
		m := ns.root.Load()
		p := Path{m, m.root}
		for p.Dentry.flags.Load()&dentryMounted != 0 {
			k := p.Mount.childAt(p.Dentry)
			if k == nil {
				break
			}
			p = Path{k, k.root}
		}
		if p.TryIncRef() {
			return p
		}
	}
}

// Clone copies the namespace (CLONE_NEWNS), and moves root and working directory of fs, if not nil, into the copy.
func (ns *MountNamespace) Clone(ctx Context, userns *auth.UserNamespace, fs *FSContext) (*MountNamespace, error) {
	v := ns.vfs
	n := &MountNamespace{vfs: v, UserNS: userns, id: v.NewNamespaceID()}
	n.refs.Store(1)
	seen := map[*Mount]*Mount{}
	kind := copySame
	if userns != ns.UserNS {
		kind = copySlave
	}
	c := v.lockMounts()
	old := ns.root.Load()
	top := c.copyTree(old, old.root, true, false, kind, seen)
	top.setNS(n)
	n.root.Store(top)
	if userns != ns.UserNS {
		for _, m := range seen {
			m.locked = m != top
		}
	}
	c.spaces = nil
	c.done()
	if fs != nil {
		root, cwd := fs.RootRef(), fs.CWDRef()
		if m := seen[root.Mount]; m != nil {
			fs.SetRoot(Path{m, root.Dentry})
		}
		if m := seen[cwd.Mount]; m != nil {
			fs.SetCWD(Path{m, cwd.Dentry})
		}
		root.DecRef()
		cwd.DecRef()
	}
	return n, nil
}

// SetFSWalker tells vfs how to reach the FSContext of every task, for pivot_root(2). Called once at start.
func (v *VFS) SetFSWalker(all func(f func(*FSContext))) { v.allFS = all }

// mountFlagsOf turns the flags of mount(2) into those of a mount.
func mountFlagsOf(flags uint64) (f MountFlags) {
	for _, x := range [...]struct {
		ms uint64
		mf MountFlags
	}{
		{unix.MS_RDONLY, MountReadOnly}, {unix.MS_NOSUID, MountNoSUID}, {unix.MS_NODEV, MountNoDev}, {unix.MS_NOEXEC, MountNoExec},
		{unix.MS_NOATIME, MountNoAtime}, {unix.MS_NODIRATIME, MountNoDirAtime}, {unix.MS_NOSYMFOLLOW, MountNoSymfollow},
	} {
		if flags&x.ms != 0 {
			f |= x.mf
		}
	}
	if flags&(unix.MS_NOATIME|unix.MS_STRICTATIME) == 0 {
		f |= MountRelatime
	}
	return f
}

const propagationFlags = unix.MS_SHARED | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_UNBINDABLE

// mayMount gives EPERM where ctx may not change its mount namespace.
func mayMount(ctx Context) error {
	if !ctx.Credentials().HasCapIn(unix.CAP_SYS_ADMIN, ctx.MountNS().UserNS) {
		return unix.EPERM
	}
	return nil
}

// Mount is mount(2) with the target looked up (following symlinks). source is a path for MS_BIND and MS_MOVE.
func (v *VFS) Mount(ctx Context, source string, target Path, fstype string, flags uint64, data string) error {
	if flags&0xffff0000 == unix.MS_MGC_VAL {
		flags &^= 0xffff0000
	}
	if err := mayMount(ctx); err != nil {
		return err
	}
	switch {
	case flags&(unix.MS_REMOUNT|unix.MS_BIND) == unix.MS_REMOUNT|unix.MS_BIND:
		return v.remountBind(ctx, target, mountFlagsOf(flags))
	case flags&unix.MS_REMOUNT != 0:
		return v.remount(ctx, target, flags, data)
	case flags&unix.MS_BIND != 0:
		return v.bindPath(ctx, source, target, flags&unix.MS_REC != 0)
	case flags&propagationFlags != 0:
		return v.SetPropagation(ctx, target, flags)
	case flags&unix.MS_MOVE != 0:
		src, err := v.Walk(ctx, Path{}, source, FollowLast)
		if err != nil {
			return err
		}
		defer src.DecRef()
		return v.MoveMount(ctx, src, target)
	}
	t := v.FileSystemType(fstype)
	if t == nil {
		return unix.ENODEV
	}
	if !t.UserNS() && ctx.Credentials().UserNS.Parent != nil {
		return unix.EPERM
	}
	sb, err := t.Mount(ctx, v, &MountOptions{Source: source, Flags: flags & sbFlags, Data: data})
	if err != nil {
		return err
	}
	return v.MountSuperblock(ctx, sb, target, mountFlagsOf(flags))
}

// MountSuperblock attaches a new mount of sb, whose reference passes on, at target: mounts of the container's configuration.
func (v *VFS) MountSuperblock(ctx Context, sb *Superblock, target Path, flags MountFlags) error {
	m := v.newMount(sb, sb.root, flags)
	return v.AttachMount(ctx, m, target)
}

// AttachMount attaches a detached mount at target; its reference passes on, also in case of an error.
func (v *VFS) AttachMount(ctx Context, m *Mount, target Path) error {
	c := v.lockMounts()
	err := c.mayAttach(ctx, m, target)
	if err == nil {
		err = c.room(m, c.topOf(target).Mount)
	}
	if err == nil {
		c.attachTree(m, c.topOf(target))
	} else {
		c.mounts = append(c.mounts, m)
	}
	c.done()
	return err
}

// topOf is the root of what is mounted at p by now.
func (c *mountChange) topOf(p Path) Path {
	for k := p.Mount.childAt(p.Dentry); k != nil; k = p.Mount.childAt(p.Dentry) {
		p = Path{k, k.root}
	}
	return p
}

// mayAttach vets a mount of m at the place.
func (c *mountChange) mayAttach(ctx Context, m *Mount, at Path) error {
	if at.Mount.ns.Load() == nil || ctx.MountNS() != nil && at.Mount.ns.Load() != ctx.MountNS() {
		return unix.EINVAL
	}
	if at.Dentry.Removed() {
		return unix.ENOENT
	}
	if m.root.inode.IsDir() != at.Dentry.inode.IsDir() {
		return unix.ENOTDIR
	}
	return nil
}

// mountMax is how many mounts a namespace may have: /proc/sys/fs/mount-max. Recursive binds of shared mounts double their number each time.
const mountMax = 100000

// room gives ENOSPC where the namespace would have too many mounts with the tree m below parent, and the copies that go to where that propagates to.
func (c *mountChange) room(m, parent *Mount) error {
	left := mountMax
	if ns := parent.ns.Load(); ns != nil {
		left -= ns.root.Load().count(mountMax)
	}
	if m.count(mountMax)*(1+len(parent.targetsFor(m))) > left {
		return unix.ENOSPC
	}
	return nil
}

// count is the number of mounts of the tree m, if that is not beyond the limit.
func (m *Mount) count(limit int) (n int) {
	m.walkTree(func(*Mount) bool {
		n++
		return n <= limit
	})
	return n
}

func (v *VFS) bindPath(ctx Context, source string, target Path, recursive bool) error {
	src, err := v.Walk(ctx, Path{}, source, FollowLast)
	if err != nil {
		return err
	}
	defer src.DecRef()
	return v.Bind(ctx, src, target, recursive)
}

// Bind is mount(2) with MS_BIND, and MS_REC if recursive.
func (v *VFS) Bind(ctx Context, src, target Path, recursive bool) error {
	m, err := v.CloneMount(ctx, src, recursive)
	if err != nil {
		return err
	}
	c := v.lockMounts()
	if err = c.mayAttach(ctx, m, target); err == nil {
		err = c.room(m, c.topOf(target).Mount)
	}
	if err == nil {
		c.attachTree(m, c.topOf(target))
	} else {
		c.discardDetached(m)
	}
	c.done()
	return err
}

// CloneMount makes a detached copy of the mount at src (open_tree(2)), with what is mounted below if recursive.
func (v *VFS) CloneMount(ctx Context, src Path, recursive bool) (*Mount, error) {
	c := v.lockMounts()
	defer c.done()
	if ns := src.Mount.ns.Load(); ns != nil && ctx.MountNS() != nil && ns != ctx.MountNS() {
		return nil, unix.EINVAL
	}
	if src.Mount.unbindable {
		return nil, unix.EINVAL
	}
	if !recursive {
		if kids := src.Mount.children.Load(); kids != nil {
			for _, k := range *kids {
				if k.locked && src.Dentry.IsAncestorOf(k.at.Load().dentry) {
					return nil, unix.EINVAL // would uncover what a locked mount covers
				}
			}
		}
	}
	return c.copyTree(src.Mount, src.Dentry, recursive, true, copySame, nil), nil
}

// discardDetached throws a detached tree away.
func (c *mountChange) discardDetached(m *Mount) { c.discard(m) }

// MoveMount is mount(2) with MS_MOVE. src is the root of a mount.
func (v *VFS) MoveMount(ctx Context, src, target Path) error {
	c := v.lockMounts()
	defer c.done()
	m := src.Mount
	at := m.at.Load()
	if src.Dentry != m.root || at == nil || m.locked || m.ns.Load() != ctx.MountNS() || at.parent.shared != nil {
		return unix.EINVAL
	}
	if err := c.mayAttach(ctx, m, target); err != nil {
		return err
	}
	for x := target.Mount; ; {
		if x == m {
			return unix.ELOOP
		}
		up := x.at.Load()
		if up == nil {
			break
		}
		x = up.parent
	}
	if target.Mount.shared != nil {
		bad := false
		m.walkTree(func(x *Mount) bool {
			bad = bad || x.unbindable
			return !bad
		})
		if bad {
			return unix.EINVAL
		}
	}
	if target.Mount.shared != nil {
		if err := c.room(m, c.topOf(target).Mount); err != nil {
			return err
		}
	}
	c.detach(m)
	c.attachTree(m, c.topOf(target))
	return nil
}

// SetPropagation is mount(2) with one of MS_SHARED, MS_PRIVATE, MS_SLAVE, MS_UNBINDABLE, and MS_REC. target is the root of a mount.
func (v *VFS) SetPropagation(ctx Context, target Path, flags uint64) error {
	kind := flags & propagationFlags
	if kind&(kind-1) != 0 || flags&^(propagationFlags|unix.MS_REC|unix.MS_SILENT) != 0 {
		return unix.EINVAL
	}
	c := v.lockMounts()
	defer c.done()
	if target.Dentry != target.Mount.root {
		return unix.EINVAL
	}
	target.Mount.walkTree(func(m *Mount) bool {
		switch kind {
		case unix.MS_SHARED:
			m.makeSharedLocked()
		case unix.MS_SLAVE:
			m.makeSlaveLocked()
		case unix.MS_PRIVATE:
			m.makePrivateLocked()
		case unix.MS_UNBINDABLE:
			m.makePrivateLocked()
			m.unbindable = true
		}
		return flags&unix.MS_REC != 0
	})
	c.changed(target.Mount.ns.Load())
	return nil
}

// remountBind changes the flags of one mount.
func (v *VFS) remountBind(ctx Context, target Path, f MountFlags) error {
	c := v.lockMounts()
	defer c.done()
	return c.setFlags(ctx, target, f)
}

func (c *mountChange) setFlags(ctx Context, target Path, f MountFlags) error {
	m := target.Mount
	if target.Dentry != m.root || m.ns.Load() != ctx.MountNS() {
		return unix.EINVAL
	}
	old := m.Flags()
	const sticky = MountReadOnly | MountNoSUID | MountNoDev | MountNoExec
	if m.locked && old&sticky&^f != 0 {
		return unix.EPERM
	}
	if f&MountReadOnly != 0 && old&MountReadOnly == 0 && m.writers.Load() > 0 {
		return unix.EBUSY
	}
	m.flags.Store(uint64(f & mountFlagMask))
	c.changed(m.ns.Load())
	return nil
}

// SetMountFlags changes flags of the mount at target, and of those below if recursive (mount_setattr(2)).
func (v *VFS) SetMountFlags(ctx Context, target Path, set, clear MountFlags, recursive bool) error {
	c := v.lockMounts()
	defer c.done()
	if target.Dentry != target.Mount.root {
		return unix.EINVAL
	}
	var err error
	target.Mount.walkTree(func(m *Mount) bool {
		if err == nil {
			err = c.setFlags(ctx, Path{m, m.root}, m.Flags()&^clear|set)
		}
		return recursive && err == nil
	})
	return err
}

// remount changes a superblock, and the flags of the mount.
func (v *VFS) remount(ctx Context, target Path, flags uint64, data string) error {
	m := target.Mount
	if target.Dentry != m.root || m.ns.Load() != ctx.MountNS() {
		return unix.EINVAL
	}
	if flags&unix.MS_RDONLY != 0 && !m.sb.ReadOnly() && m.writers.Load() > 0 {
		return unix.EBUSY
	}
	if err := m.sb.ops.Remount(ctx, &MountOptions{Source: m.sb.source, Flags: flags & sbFlags, Data: data}); err != nil {
		return err
	}
	m.sb.SetReadOnly(flags&unix.MS_RDONLY != 0)
	return v.remountBind(ctx, target, mountFlagsOf(flags))
}

// Umount is umount2(2) of the mount whose root target is; the caller has one reference on target.
func (v *VFS) Umount(ctx Context, target Path, flags uint32) error {
	if flags&^(unix.MNT_FORCE|unix.MNT_DETACH|unix.MNT_EXPIRE|unix.UMOUNT_NOFOLLOW) != 0 {
		return unix.EINVAL
	}
	if flags&unix.MNT_EXPIRE != 0 && flags&(unix.MNT_FORCE|unix.MNT_DETACH) != 0 {
		return unix.EINVAL
	}
	if err := mayMount(ctx); err != nil {
		return err
	}
	c := v.lockMounts()
	defer c.done()
	m := target.Mount
	if target.Dentry != m.root || m.ns.Load() != ctx.MountNS() || m.locked || m.at.Load() == nil {
		return unix.EINVAL
	}
	if flags&unix.MNT_DETACH == 0 {
		// The tree's reference and the caller's.
		if m.children.Load() != nil || m.refs.Load() > 2 {
			return unix.EBUSY
		}
		if flags&unix.MNT_EXPIRE != 0 {
			return unix.EAGAIN
		}
	}
	c.detachTree(m)
	return nil
}

// PivotRoot is pivot_root(2).
func (v *VFS) PivotRoot(ctx Context, newRoot, putOld Path) error {
	if err := mayMount(ctx); err != nil {
		return err
	}
	root := ctx.FS().RootRef()
	defer root.DecRef()
	c := v.lockMounts()
	err := c.pivot(ctx.MountNS(), root, newRoot, putOld)
	c.done()
	if err != nil {
		return err
	}
	to := Path{newRoot.Mount, newRoot.Mount.root}
	if v.allFS != nil {
		v.allFS(func(f *FSContext) { f.replaceRoot(root, to) })
	} else {
		ctx.FS().replaceRoot(root, to)
	}
	return nil
}

func (c *mountChange) pivot(ns *MountNamespace, root, newRoot, putOld Path) error {
	nm, om := newRoot.Mount, root.Mount
	if nm.ns.Load() != ns || om.ns.Load() != ns || putOld.Mount.ns.Load() != ns || nm.locked {
		return unix.EINVAL
	}
	if !newRoot.Dentry.inode.IsDir() || !putOld.Dentry.inode.IsDir() {
		return unix.ENOTDIR
	}
	if newRoot.Dentry.Removed() {
		return unix.ENOENT
	}
	if nm == om || putOld.Mount == om {
		return unix.EBUSY
	}
	at := nm.at.Load()
	if root.Dentry != om.root || newRoot.Dentry != nm.root || at == nil {
		return unix.EINVAL
	}
	oldAt := om.at.Load()
	if at.parent.shared != nil || putOld.Mount.shared != nil || oldAt != nil && oldAt.parent.shared != nil {
		return unix.EINVAL
	}
	if !below(putOld, newRoot) || !below(newRoot, root) {
		return unix.EINVAL
	}
	c.detach(nm)
	if oldAt != nil {
		place := Path{oldAt.parent, oldAt.dentry}
		place.IncRef()
		c.paths = append(c.paths, place)
		c.detach(om)
		c.attach(nm, place)
	} else {
		ns.root.Store(nm)
		nm.at.Store(nil)
	}
	c.attach(om, c.topOf(putOld))
	c.changed(ns)
	return nil
}

// below tells whether p is at or under top, through mounts. vfs.mountMu is held.
func below(p, top Path) bool {
	for p.Mount != top.Mount {
		at := p.Mount.at.Load()
		if at == nil {
			return false
		}
		p = Path{at.parent, at.dentry}
	}
	return top.Dentry.IsAncestorOf(p.Dentry)
}

// PathString is the path of p as seen from the root of ctx (getcwd(2), /proc/PID/fd); reachable is false if it lies outside, and s then
// begins at the root of its tree. " (deleted)" is appended for removed names.
func (v *VFS) PathString(ctx Context, p Path) (s string, reachable bool) {
	return v.PathFrom(ctx.FS().Root(), p)
}

// ShownPath is the path from the root of p's mount tree.
func (v *VFS) ShownPath(p Path) string {
	s, _ := v.PathFrom(Path{}, p)
	return s
}

// PathFrom is the path of p as seen from root; the zero Path is the root of the tree of mounts.
func (v *VFS) PathFrom(root, p Path) (string, bool) {
	if p.Dentry.flags.Load()&dentryNamed != 0 {
		return p.Dentry.Name(), true
	}
	for try := 0; ; try++ {
		r, m := v.renameSeq.Load(), v.mountSeq.Load()
		s, ok := pathFrom(root, p)
		if try == 8 || v.renameSeq.Load() == r && v.mountSeq.Load() == m {
			if p.Dentry.Removed() && !p.Dentry.isRoot() {
				s += " (deleted)"
			}
			return s, ok
		}
	}
}

func pathFrom(root, p Path) (string, bool) {
	var parts []string
	n := 0
	reachable := true
	for p != root {
		if p.Dentry == p.Mount.root || p.Dentry.isRoot() {
			at := p.Mount.at.Load()
			if at == nil {
				reachable = root.IsZero()
				break
			}
			p = Path{at.parent, at.dentry}
			continue
		}
		l := p.Dentry.loc.Load()
		parts = append(parts, l.name)
		n += 1 + len(l.name)
		p.Dentry = l.parent
	}
	if n == 0 {
		return "/", reachable
	}
	var b strings.Builder
	b.Grow(n)
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(parts[i])
	}
	return b.String(), reachable
}

// SyncAll writes all file systems of the namespace back (sync(2)).
func (ns *MountNamespace) SyncAll(ctx Context) {
	seen := map[*Superblock]bool{}
	for _, m := range ns.mounts() {
		if !seen[m.sb] && m.sb.TryIncRef() {
			seen[m.sb] = true
			_ = m.sb.ops.Sync(ctx)
		}
	}
	for sb := range seen {
		sb.DecRef()
	}
}
