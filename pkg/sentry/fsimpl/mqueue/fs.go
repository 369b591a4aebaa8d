package mqueue

import (
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"
)

// magic is MQUEUE_MAGIC.
const magic = 0x19800202

// Limits of /proc/sys/fs/mqueue, as Linux starts with, and its hard ones.
const (
	MaxQueues      = 256
	MaxMessages    = 10
	MaxSize        = 8192
	defaultMsgs    = 10
	defaultSize    = 8192
	hardMessages   = 65536
	hardSize       = 16 << 20
	messageCost    = 48 + 72 // bytes of kernel memory that Linux counts per message beside its text
	maxPriority    = 32768
	maxNameLength  = 255
	maxTotalQueues = 1 << 16
)

// FS is the message queues of an IPC namespace.
type FS struct {
	vfs.NoSuperblockOps
	v   *vfs.VFS
	sb  *vfs.Superblock // holds a reference
	mnt *vfs.Mount      // internal mount, by which mq_open(3) opens

	mu     sync.Mutex
	queues map[string]*Queue   // protected by mu: each with a reference
	order  []string            // protected by mu: names for listings
	ino    uint64              // protected by mu
	bytes  map[auth.KUID]int64 // protected by mu: memory by user (RLIMIT_MSGQUEUE)
}

type registryKey struct{}

// Of is the file system of an IPC namespace, made on first use.
func Of(n *kernel.IPCNamespace, v *vfs.VFS) *FS {
	return n.Registry(registryKey{}, func() any { return newFS(v) }).(*FS)
}

func newFS(v *vfs.VFS) *FS {
	f := &FS{v: v, queues: make(map[string]*Queue), bytes: make(map[auth.KUID]int64), ino: 1}
	f.sb = v.NewSuperblock(&Type{}, f, nil, magic)
	root := &dir{fs: f, ctime: clock.Realtime()}
	root.Init(root, f.sb, 1, unix.S_IFDIR|unix.S_ISVTX|0777, 0, 0, vfs.InodeRevalidate)
	f.sb.SetRoot(&root.Inode)
	f.sb.IncRef()
	f.mnt = v.NewInternalMount(f.sb)
	return f
}

// StatFS implements vfs.SuperblockOps.
func (f *FS) StatFS(_ vfs.Context, st *vfs.StatFS) error {
	st.Type, st.Bsize, st.Frsize, st.Namelen = magic, 4096, 4096, maxNameLength
	return nil
}

// Type is the file system type mqueue.
type Type struct{}

// Name implements vfs.FileSystemType.
func (*Type) Name() string { return "mqueue" }

// NoDev implements vfs.FileSystemType.
func (*Type) NoDev() bool { return true }

// UserNS implements vfs.FileSystemType.
func (*Type) UserNS() bool { return true }

// ipcOwner is implemented by callers that have an IPC namespace.
type ipcOwner interface {
	IPCNamespace() *kernel.IPCNamespace
}

// Mount implements vfs.FileSystemType: all mounts of a namespace show the same. The sentry itself, which mounts what a container's
// configuration says, gets one that no process shares.
func (t *Type) Mount(ctx vfs.Context, v *vfs.VFS, o *vfs.MountOptions) (*vfs.Superblock, error) {
	if c, ok := ctx.(ipcOwner); ok {
		f := Of(c.IPCNamespace(), v)
		f.sb.IncRef()
		return f.sb, nil
	}
	return newFS(v).sb, nil
}

// Superblock is the file system with a reference, to mount it.
func (f *FS) Superblock() *vfs.Superblock {
	f.sb.IncRef()
	return f.sb
}

// dir is the root, the only directory.
type dir struct {
	vfs.Inode
	vfs.NoOps
	fs    *FS
	ctime int64
}

// Lookup implements vfs.InodeOps.
func (d *dir) Lookup(_ vfs.Context, name string) (*vfs.Inode, error) {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	q := d.fs.queues[name]
	if q == nil {
		return nil, unix.ENOENT
	}
	q.IncRef()
	return &q.Inode, nil
}

// Revalidate implements vfs.Revalidator.
func (d *dir) Revalidate(_ vfs.Context, name string, child *vfs.Inode) bool {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	q := d.fs.queues[name]
	return q == nil && child == nil || q != nil && child == &q.Inode
}

// Create implements vfs.InodeOps: open(2) with O_CREAT makes a queue with the default attributes.
func (d *dir) Create(ctx vfs.Context, name string, a *vfs.CreateArgs) (*vfs.Inode, error) {
	if a.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, unix.EPERM
	}
	q, err := d.fs.create(ctx, name, a, Attr{MaxMsg: defaultMsgs, MsgSize: defaultSize})
	if err != nil {
		return nil, err
	}
	return &q.Inode, nil
}

// Unlink implements vfs.InodeOps.
func (d *dir) Unlink(_ vfs.Context, name string, victim *vfs.Inode) error {
	return d.fs.remove(name)
}

// Open implements vfs.InodeOps.
func (d *dir) Open(vfs.Context, uint32) (vfs.FileImpl, error) { return dirFile{d}, nil }

// Stat implements vfs.InodeOps.
func (d *dir) Stat(_ vfs.Context, _ uint32, st *vfs.Stat) error {
	st.Mode, st.Nlink, st.Ino, st.Dev, st.Blksize = d.Mode(), 2, 1, d.Superblock().Dev(), 4096
	st.UID, st.GID = d.UID(), d.GID()
	st.Atime, st.Mtime, st.Ctime = d.ctime, d.ctime, d.ctime
	return nil
}

// SetStat implements vfs.InodeOps.
func (d *dir) SetStat(_ vfs.Context, s *vfs.SetStat) error {
	setAttributes(&d.Inode, s)
	return nil
}

func setAttributes(i *vfs.Inode, s *vfs.SetStat) {
	if s.Mask&vfs.SetMode != 0 {
		i.SetMode(i.Type() | s.Mode&07777)
	}
	if s.Mask&vfs.SetUID != 0 {
		i.SetUID(s.UID)
	}
	if s.Mask&vfs.SetGID != 0 {
		i.SetGID(s.GID)
	}
}

// dirFile is the open directory.
type dirFile struct{ d *dir }

// Release implements vfs.FileImpl.
func (dirFile) Release() {}

// ReadDir implements vfs.DirReader.
func (f dirFile) ReadDir(_ vfs.Context, cookie int64, sink vfs.DirSink) error {
	fs := f.d.fs
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for i := max(cookie-2, 0); i < int64(len(fs.order)); i++ {
		name := fs.order[i]
		if !sink.Emit(name, fs.queues[name].Ino(), unix.DT_REG, i+3) {
			break
		}
	}
	return nil
}

// create makes a queue; the caller gets a reference. EEXIST, ENOSPC, EINVAL, EMFILE.
func (f *FS) create(ctx vfs.Context, name string, a *vfs.CreateArgs, attr Attr) (*Queue, error) {
	c := ctx.Credentials()
	privileged := c.HasCap(unix.CAP_SYS_RESOURCE)
	if err := attr.check(privileged); err != nil {
		return nil, err
	}
	cost := attr.MaxMsg * (attr.MsgSize + messageCost)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queues[name] != nil {
		return nil, unix.EEXIST
	}
	if n := len(f.queues); n >= MaxQueues && !privileged || n >= maxTotalQueues {
		return nil, unix.ENOSPC
	}
	if uint64(f.bytes[c.EUID]+cost) > ctx.Limits().Get(unix.RLIMIT_MSGQUEUE).Cur {
		return nil, unix.EMFILE
	}
	f.bytes[c.EUID] += cost
	f.ino++
	q := &Queue{fs: f, attr: attr, owner: c.EUID, cost: cost, ctime: clock.Realtime()}
	q.Init(q, f.sb, f.ino, unix.S_IFREG|a.Mode&0777, a.UID, a.GID, vfs.InodeNoExec)
	f.queues[name] = q
	f.order = append(f.order, name)
	q.IncRef()
	return q, nil
}

// remove takes a name away; the queue lives on as long as it is open.
func (f *FS) remove(name string) error {
	f.mu.Lock()
	q := f.queues[name]
	if q == nil {
		f.mu.Unlock()
		return unix.ENOENT
	}
	delete(f.queues, name)
	for i, n := range f.order {
		if n == name {
			f.order = append(f.order[:i:i], f.order[i+1:]...)
			break
		}
	}
	f.mu.Unlock()
	q.DecRef()
	return nil
}

// Open is mq_open(3): flags are open(2)'s, attr is nil for the defaults. name has no slash.
func (f *FS) Open(ctx vfs.Context, name string, flags, mode uint32, attr *Attr) (*vfs.FileDescription, error) {
	f.mu.Lock()
	q := f.queues[name]
	if q != nil {
		q.IncRef()
	}
	f.mu.Unlock()
	created := false
	switch {
	case q != nil && flags&unix.O_CREAT != 0 && flags&unix.O_EXCL != 0:
		q.DecRef()
		return nil, unix.EEXIST
	case q == nil && flags&unix.O_CREAT == 0:
		return nil, unix.ENOENT
	case q == nil:
		c := ctx.Credentials()
		a := &vfs.CreateArgs{Mode: mode & 0777, UID: c.FSUID, GID: c.FSGID}
		if fs := ctx.FS(); fs != nil {
			a.Mode &^= fs.Umask()
		}
		want := Attr{MaxMsg: defaultMsgs, MsgSize: defaultSize}
		if attr != nil {
			want = *attr
		}
		var err error
		if q, err = f.create(ctx, name, a, want); err != nil {
			return nil, err
		}
		created = true
	}
	if !created {
		if err := vfs.CheckPermission(ctx, &q.Inode, accessMask(flags)); err != nil {
			q.DecRef()
			return nil, err
		}
	}
	at := f.v.NewInodePath(f.mnt, &q.Inode, "/"+name)
	defer at.DecRef()
	return f.v.NewFile(at, &file{q: q}, flags&(unix.O_ACCMODE|unix.O_NONBLOCK)), nil
}

func accessMask(flags uint32) uint32 {
	switch flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		return vfs.MayRead
	case unix.O_WRONLY:
		return vfs.MayWrite
	}
	return vfs.MayRead | vfs.MayWrite
}

// Unlink is mq_unlink(3).
func (f *FS) Unlink(ctx vfs.Context, name string) error {
	f.mu.Lock()
	q := f.queues[name]
	f.mu.Unlock()
	if q == nil {
		return unix.ENOENT
	}
	root := f.sb.Root().Inode()
	if err := vfs.CheckPermission(ctx, root, vfs.MayWrite|vfs.MayExec); err != nil {
		return err
	}
	c := ctx.Credentials()
	if root.Mode()&unix.S_ISVTX != 0 && c.FSUID != q.UID() && c.FSUID != root.UID() && !c.HasCap(unix.CAP_FOWNER) {
		return unix.EPERM
	}
	return f.remove(name)
}
