package nsfs

import (
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"strconv"

	"golang.org/x/sys/unix"
)

// magic is NSFS_MAGIC of statfs(2).
const magic = 0x6e736673

// Numbers of the namespaces that there is only one of.
const (
	cgroupInode = 0xeffffffb
	timeInode   = 0xeffffffa
)

// FS is the internal file system of a kernel.
type FS struct {
	pseudo.FS
	k   *kernel.Kernel
	mnt *vfs.Mount
}

type key struct{}

// Of gives the instance of k. The first call, which makes it, must not run beside another: procfs does it at registration.
func Of(k *kernel.Kernel) *FS {
	if f, ok := k.Value(key{}).(*FS); ok {
		return f
	}
	f := &FS{k: k}
	f.SB = k.VFS().NewSuperblock(nil, f, nil, magic)
	f.SB.SetRoot(&f.NewDir(0500).Inode)
	f.mnt = k.VFS().NewInternalMount(f.SB)
	k.SetValue(key{}, f)
	return f
}

// Kind is a kind of namespace.
type Kind struct {
	Name string // as readlink(2) shows it
	Flag uint64 // CLONE_NEW*
}

// The kinds.
var (
	Cgroup = Kind{"cgroup", unix.CLONE_NEWCGROUP}
	IPC    = Kind{"ipc", unix.CLONE_NEWIPC}
	Mount  = Kind{"mnt", unix.CLONE_NEWNS}
	Net    = Kind{"net", unix.CLONE_NEWNET}
	PID    = Kind{"pid", unix.CLONE_NEWPID}
	Time   = Kind{"time", unix.CLONE_NEWTIME}
	User   = Kind{"user", unix.CLONE_NEWUSER}
	UTS    = Kind{"uts", unix.CLONE_NEWUTS}
)

// Namespace is a namespace of some kind: NS is what kernel.NamespaceFile says, nil for cgroup and time.
type Namespace struct {
	Kind *Kind
	NS   any
}

// refCounted is implemented by namespaces that must be kept.
type refCounted interface {
	IncRef()
	DecRef()
}

// Inode is the inode number of the namespace.
func (f *FS) Inode(n Namespace) uint64 {
	switch v := n.NS.(type) {
	case interface{ Inode() uint64 }:
		return v.Inode()
	case *vfs.MountNamespace:
		return v.ID()
	case *auth.UserNamespace:
		return v.Inode(f.k.VFS().NewNamespaceID)
	}
	if n.Kind.Flag == unix.CLONE_NEWTIME {
		return timeInode
	}
	return cgroupInode - uint64(n.Kind.Flag>>24)
}

// Text is what readlink(2) shows: "mnt:[4026531841]".
func (f *FS) Text(n Namespace) string {
	return n.Kind.Name + ":[" + strconv.FormatUint(f.Inode(n), 10) + "]"
}

// Path gives the place of the namespace, with a reference. ENOENT where the namespace is gone.
func (f *FS) Path(n Namespace) (vfs.Path, error) {
	switch v := n.NS.(type) {
	case *vfs.MountNamespace:
		if !v.TryIncRef() {
			return vfs.Path{}, unix.ENOENT
		}
	case refCounted:
		v.IncRef()
	}
	i := &inode{fs: f, ns: n}
	i.Node.Init(i, f.SB, f.Inode(n), unix.S_IFREG|0444, 0, 0, vfs.InodeNoExec)
	i.FixedAttr = true
	return f.k.VFS().NewInodePath(f.mnt, &i.Inode, f.Text(n)), nil
}

// inode is a namespace as a file.
type inode struct {
	pseudo.Node
	fs *FS
	ns Namespace
}

// Release implements vfs.InodeOps.
func (i *inode) Release() {
	if r, ok := i.ns.NS.(refCounted); ok {
		r.DecRef()
	}
}

// Open implements vfs.InodeOps.
func (i *inode) Open(vfs.Context, uint32) (vfs.FileImpl, error) { return &File{i}, nil }

// File is an open namespace file. Its description keeps the inode, which keeps the namespace.
type File struct{ i *inode }

// Release implements vfs.FileImpl.
func (*File) Release() {}

// Namespace implements kernel.NamespaceFile.
func (f *File) Namespace() any { return f.i.ns.NS }

// Requests of ioctl_ns(2).
const (
	nsGetUserns   = 0xb701
	nsGetParent   = 0xb702
	nsGetNSType   = 0xb703
	nsGetOwnerUID = 0xb704
)

// Ioctl implements vfs.Ioctler.
func (f *File) Ioctl(ctx vfs.Context, fd *vfs.FileDescription, cmd uint32, arg uint64) (uintptr, error) {
	switch cmd {
	case nsGetNSType:
		return uintptr(f.i.ns.Kind.Flag), nil
	case nsGetUserns:
		u := f.i.ns.owner()
		if u == nil || !ctx.Credentials().UserNS.Contains(u) {
			return 0, unix.EPERM
		}
		return f.open(ctx, Namespace{&User, u})
	case nsGetParent:
		return f.parent(ctx)
	case nsGetOwnerUID:
		u, ok := f.i.ns.NS.(*auth.UserNamespace)
		if !ok {
			return 0, unix.EINVAL
		}
		id, _ := ctx.Credentials().UserNS.UID(u.Owner)
		return 0, mm.Write(ctx.MM(), arg, &id)
	}
	return 0, linux.ENOIOCTLCMD
}

// owner is the user namespace that owns the namespace, for a user namespace its parent; nil if there is none.
func (n *Namespace) owner() *auth.UserNamespace {
	switch v := n.NS.(type) {
	case *auth.UserNamespace:
		return v.Parent
	case *vfs.MountNamespace:
		return v.UserNS
	case interface{ UserNS() *auth.UserNamespace }:
		return v.UserNS()
	}
	return nil
}

func (f *File) parent(ctx vfs.Context) (uintptr, error) {
	switch v := f.i.ns.NS.(type) {
	case *auth.UserNamespace:
		if v.Parent == nil || !ctx.Credentials().UserNS.Contains(v.Parent) {
			return 0, unix.EPERM
		}
		return f.open(ctx, Namespace{&User, v.Parent})
	case *kernel.PIDNamespace:
		t, ok := ctx.(*kernel.Task)
		if !ok || v.Parent() == nil || !t.PIDNS().Contains(v.Parent()) {
			return 0, unix.EPERM
		}
		return f.open(ctx, Namespace{&PID, v.Parent()})
	}
	return 0, unix.EINVAL
}

// open makes a descriptor for another namespace.
func (f *File) open(ctx vfs.Context, n Namespace) (uintptr, error) {
	t, ok := ctx.(*kernel.Task)
	if !ok {
		return 0, unix.EINVAL
	}
	p, err := f.i.fs.Path(n)
	if err != nil {
		return 0, err
	}
	defer p.DecRef()
	file, err := f.i.fs.k.VFS().OpenPath(ctx, p, &vfs.OpenOptions{Flags: unix.O_RDONLY})
	if err != nil {
		return 0, err
	}
	defer file.DecRef()
	num, err := t.FDTable().Install(ctx, file, 0, true)
	return uintptr(num), err
}
