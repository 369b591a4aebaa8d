package devpts

import (
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/fsimpl/tty"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"
)

// magic is DEVPTS_SUPER_MAGIC.
const magic = 0x1cd1

// defaultMax is how many terminals an instance has at most: /proc/sys/kernel/pty/max.
const defaultMax = 4096

// Type is the file system type devpts.
type Type struct{ k *kernel.Kernel }

// NewType makes the type.
func NewType(k *kernel.Kernel) *Type { return &Type{k} }

// Name implements vfs.FileSystemType.
func (*Type) Name() string { return "devpts" }

// NoDev implements vfs.FileSystemType.
func (*Type) NoDev() bool { return true }

// UserNS implements vfs.FileSystemType.
func (*Type) UserNS() bool { return true }

// Instance is a superblock of devpts; every mount makes a new one.
type Instance struct {
	*pseudo.FS
	k    *kernel.Kernel
	root *pseudo.Dir
	v    *vfs.VFS

	mu   sync.Mutex
	opt  options              // protected by mu
	used map[uint32]*Terminal // protected by mu
}

// options are the mount options of devpts.
type options struct {
	mode, ptmxMode uint32
	uid, gid       uint32
	hasUID, hasGID bool
	max            int
}

func (o *options) parse(ctx vfs.Context, data string) error {
	ns := ctx.Credentials().UserNS
	return vfs.SplitOptions(data, func(key, value string, has bool) error {
		base := 10
		if key == "mode" || key == "ptmxmode" {
			base = 8
		}
		if key == "newinstance" {
			return nil
		}
		v, err := strconv.ParseUint(value, base, 32)
		if err != nil {
			return unix.EINVAL
		}
		switch key {
		case "mode":
			o.mode = uint32(v) & 0777
		case "ptmxmode":
			o.ptmxMode = uint32(v) & 0777
		case "uid":
			k, ok := ns.KUID(auth.UID(v))
			if !ok {
				return unix.EINVAL
			}
			o.uid, o.hasUID = uint32(k), true
		case "gid":
			k, ok := ns.KGID(auth.GID(v))
			if !ok {
				return unix.EINVAL
			}
			o.gid, o.hasGID = uint32(k), true
		case "max":
			o.max = int(min(v, 1<<20))
		default:
			return unix.EINVAL
		}
		return nil
	})
}

// Mount implements vfs.FileSystemType.
func (t *Type) Mount(ctx vfs.Context, v *vfs.VFS, o *vfs.MountOptions) (*vfs.Superblock, error) {
	i := &Instance{k: t.k, v: v, used: make(map[uint32]*Terminal)}
	i.opt = options{mode: 0600, max: defaultMax}
	if err := i.opt.parse(ctx, o.Data); err != nil {
		return nil, err
	}
	i.FS = &pseudo.FS{}
	i.SB = v.NewSuperblock(t, i, o, magic)
	i.root = i.NewDir(0755)
	i.root.SetFlags(vfs.InodeRevalidate)
	p := &ptmxNode{inst: i}
	p.Init(p, i.SB, 2, unix.S_IFCHR|i.opt.ptmxMode, 0, 0, 0)
	p.Rdev = unix.Mkdev(5, 2)
	i.root.Add("ptmx", &p.Inode)
	i.SB.SetRoot(&i.root.Inode)
	return i.SB, nil
}

// ShowOptions implements vfs.SuperblockOps.
func (i *Instance) ShowOptions() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := ""
	if i.opt.hasUID {
		s += "uid=" + strconv.Itoa(int(i.opt.uid)) + ","
	}
	if i.opt.hasGID {
		s += "gid=" + strconv.Itoa(int(i.opt.gid)) + ","
	}
	s += "mode=" + strconv.FormatUint(uint64(i.opt.mode), 8) + ",ptmxmode=" + strconv.FormatUint(uint64(i.opt.ptmxMode)|1<<9, 8)[1:]
	if i.opt.max != defaultMax {
		s += ",max=" + strconv.Itoa(i.opt.max)
	}
	return s
}

// ptmxNode is the multiplexer of an instance.
type ptmxNode struct {
	pseudo.Node
	inst *Instance
}

// OpenSelf implements vfs.SelfOpener.
func (p *ptmxNode) OpenSelf(ctx vfs.Context, flags uint32) (vfs.FileImpl, error) {
	return p.inst.OpenMaster(ctx)
}

// slaveNode is a slave in the instance's directory.
type slaveNode struct {
	pseudo.Node
	x *Terminal
}

// OpenSelf implements vfs.SelfOpener.
func (n *slaveNode) OpenSelf(ctx vfs.Context, flags uint32) (vfs.FileImpl, error) {
	return n.x.open(ctx, flags, false)
}

// add gives x an index and a node in the directory. ENOSPC.
func (i *Instance) add(ctx vfs.Context, make func(idx uint32) *Terminal) (*Terminal, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.used) >= i.opt.max {
		return nil, unix.ENOSPC
	}
	idx := uint32(0)
	for i.used[idx] != nil {
		idx++
	}
	x := make(idx)
	x.inst, x.idx = i, idx
	i.used[idx] = x
	c := ctx.Credentials()
	uid, gid := c.FSUID, c.FSGID
	if i.opt.hasUID {
		uid = auth.KUID(i.opt.uid)
	}
	if i.opt.hasGID {
		gid = auth.KGID(i.opt.gid)
	}
	n := &slaveNode{x: x}
	n.Init(n, i.SB, uint64(idx)+3, unix.S_IFCHR|i.opt.mode, uid, gid, 0)
	n.Rdev = unix.Mkdev(Major, idx)
	i.root.Add(strconv.Itoa(int(idx)), &n.Inode)
	return x, nil
}

// unlink takes the node out of the directory; the index stays in use.
func (x *Terminal) unlink() {
	if i := x.inst; i != nil {
		i.root.Remove(strconv.Itoa(int(x.idx)))
	}
}

// freeIfUnused gives the index back once both ends are closed.
func (x *Terminal) freeIfUnused() {
	i := x.inst
	if i == nil || x.host != nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	x.mu.Lock()
	unused := !x.master && x.slaves == 0
	x.mu.Unlock()
	if unused && i.used[x.idx] == x {
		delete(i.used, x.idx)
	}
}

// OpenMaster makes a pseudo-terminal and opens its master.
func (i *Instance) OpenMaster(ctx vfs.Context) (vfs.FileImpl, error) {
	x, err := i.add(ctx, func(idx uint32) *Terminal {
		x := newTerminal(i.k, tty.PtyTermios(), unix.Mkdev(Major, idx))
		x.master, x.locked = true, true
		return x
	})
	if err != nil {
		return nil, err
	}
	return &master{x: x}, nil
}

// Find is the instance that is mounted at /dev/pts in the caller's view: what a ptmx node elsewhere refers to. ENXIO, ENODEV.
func Find(ctx vfs.Context, v *vfs.VFS) (*Instance, error) {
	if ctx.FS() == nil {
		return nil, unix.ENXIO
	}
	p, err := v.Walk(ctx, vfs.Path{}, "/dev/pts", vfs.FollowLast|vfs.MustBeDir)
	if err != nil {
		return nil, unix.ENODEV
	}
	defer p.DecRef()
	i, ok := p.Inode().Superblock().Ops().(*Instance)
	if !ok {
		return nil, unix.ENODEV
	}
	return i, nil
}

// slavePath is the slave's place, seen through the mount by which the master was opened if that is of the instance.
func (x *Terminal) slavePath(master *vfs.FileDescription) (vfs.Path, error) {
	n := x.inst.root.Child(strconv.Itoa(int(x.idx)))
	if n == nil || !n.TryIncRef() {
		return vfs.Path{}, unix.EIO
	}
	return x.inst.v.NewInodePath(master.Path().Mount, n, "/dev/pts/"+strconv.Itoa(int(x.idx))), nil
}
