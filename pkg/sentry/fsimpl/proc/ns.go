package proc

import (
	"husk/pkg/sentry/fsimpl/nsfs"
	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// nsLink is a name in /proc/PID/ns.
type nsLink struct {
	name string
	kind *nsfs.Kind
	of   func(t *kernel.Task) any
}

// nsLinks are the names in the order of listings.
var nsLinks = [...]nsLink{
	{"cgroup", &nsfs.Cgroup, noNS},
	{"ipc", &nsfs.IPC, func(t *kernel.Task) any { return t.IPCNamespace() }},
	{"mnt", &nsfs.Mount, func(t *kernel.Task) any { return t.MountNS() }},
	{"net", &nsfs.Net, netNS},
	{"pid", &nsfs.PID, func(t *kernel.Task) any { return t.PIDNS() }},
	{"pid_for_children", &nsfs.PID, childPIDNS},
	{"time", &nsfs.Time, noNS},
	{"time_for_children", &nsfs.Time, noNS},
	{"user", &nsfs.User, func(t *kernel.Task) any { return t.UserNS() }},
	{"uts", &nsfs.UTS, func(t *kernel.Task) any { return t.UTSNamespace() }},
}

func noNS(*kernel.Task) any { return nil }

func netNS(t *kernel.Task) any {
	if n := t.NetNS(); n != nil {
		return n
	}
	return nil
}

func childPIDNS(t *kernel.Task) any {
	if n := t.ChildPIDNS(); n != nil {
		return n
	}
	return t.PIDNS()
}

// nsDir is /proc/PID/ns.
type nsDir struct {
	dirNode
	taskRef
}

func newNSDir(r taskRef, ino uint64) *vfs.Inode {
	d := &nsDir{taskRef: r}
	d.Node.Init(d, r.fs.SB, ino, unix.S_IFDIR|0511, 0, 0, vfs.InodeRevalidate)
	d.FixedAttr = true
	return &d.Inode
}

func (d *nsDir) entryIno(i int) uint64 { return d.Ino()&^0xff | uint64(i+128) }

// Lookup implements vfs.InodeOps.
func (d *nsDir) Lookup(_ vfs.Context, name string) (*vfs.Inode, error) {
	_, t := d.get()
	if t == nil {
		return nil, unix.ENOENT
	}
	for i := range nsLinks {
		if nsLinks[i].name == name {
			f := &nsFile{taskRef: d.taskRef, link: &nsLinks[i]}
			f.Node.Init(f, d.fs.SB, d.entryIno(i), symlink, 0, 0, vfs.InodeMagicLink)
			f.FixedAttr = true
			setOwner(&f.Inode, t)
			return &f.Inode, nil
		}
	}
	return nil, unix.ENOENT
}

// Revalidate implements vfs.Revalidator.
func (d *nsDir) Revalidate(_ vfs.Context, _ string, child *vfs.Inode) bool {
	_, t := d.get()
	if t == nil {
		return false
	}
	setOwner(child, t)
	return true
}

// Open implements vfs.InodeOps.
func (d *nsDir) Open(vfs.Context, uint32) (vfs.FileImpl, error) {
	return pseudo.DirFile{DirReader: d}, nil
}

// ReadDir implements vfs.DirReader.
func (d *nsDir) ReadDir(_ vfs.Context, cookie int64, sink vfs.DirSink) error {
	for i := int(min(cookie-2, int64(len(nsLinks)))); i < len(nsLinks); i++ {
		if !sink.Emit(nsLinks[i].name, d.entryIno(i), unix.DT_LNK, int64(i)+3) {
			break
		}
	}
	return nil
}

// nsFile is a magic link to a namespace of a task.
type nsFile struct {
	pseudo.Node
	taskRef
	link *nsLink
}

func (f *nsFile) namespace(ctx vfs.Context) (nsfs.Namespace, error) {
	_, t := f.get()
	if t == nil || t.Exited() {
		return nsfs.Namespace{}, unix.ENOENT
	}
	if !mayAccess(ctx, t) {
		return nsfs.Namespace{}, unix.EACCES
	}
	return nsfs.Namespace{Kind: f.link.kind, NS: f.link.of(t)}, nil
}

// FollowLink implements vfs.MagicLinker.
func (f *nsFile) FollowLink(ctx vfs.Context) (vfs.Path, error) {
	n, err := f.namespace(ctx)
	if err != nil {
		return vfs.Path{}, err
	}
	return nsfs.Of(f.fs.k).Path(n)
}

// Readlink implements vfs.InodeOps.
func (f *nsFile) Readlink(ctx vfs.Context) (string, error) {
	n, err := f.namespace(ctx)
	if err != nil {
		return "", err
	}
	return nsfs.Of(f.fs.k).Text(n), nil
}
