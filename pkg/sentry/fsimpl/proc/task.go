package proc

import (
	"sort"
	"strconv"

	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// taskRef names a process or a thread without holding it.
type taskRef struct {
	fs  *FS
	pid *kernel.PID
	sub bool  // what is meant is a thread in the task directory of its process
	id  int32 // number in fs.ns
}

// get finds process and thread (for a process, its main thread); nil when they are gone.
func (r *taskRef) get() (*kernel.ThreadGroup, *kernel.Task) {
	if !r.sub {
		if tg, t := r.pid.Process(); t != nil {
			return tg, t
		}
	}
	if t := r.pid.Thread(); t != nil {
		return t.Group(), t
	}
	return nil, nil
}

// env is what the functions of an entry work with.
type env struct {
	taskRef
	ctx vfs.Context
	tg  *kernel.ThreadGroup
	t   *kernel.Task
}

// env finds the task; ESRCH when it is gone.
func (r *taskRef) env(ctx vfs.Context) (*env, error) {
	tg, t := r.get()
	if t == nil {
		return nil, unix.ESRCH
	}
	return &env{*r, ctx, tg, t}, nil
}

// Where an entry of a task's directory is.
const (
	inProcess = 1 << iota
	inThread
	inBoth = inProcess | inThread
)

// entry is a file of /proc/PID and /proc/PID/task/TID.
type entry struct {
	name  string
	mode  uint32 // type and permissions
	where uint8
	// access, if not 0, is the error of a read without the right to look into the task; openAccess checks that at the open instead.
	access     unix.Errno
	openAccess bool
	// gen makes the content, set takes what is written.
	gen func(e *env, buf []byte) ([]byte, error)
	set func(e *env, data []byte, off int64) error
	// open replaces both for files that read in another way.
	open func(e *env, flags uint32) (vfs.FileImpl, error)
	// link is where a magic link leads, text what readlink(2) shows of it.
	link func(e *env) (vfs.Path, error)
	// dir makes a directory.
	dir func(r taskRef, ino uint64) *vfs.Inode
	// target is that of a plain symlink.
	target string
}

// dirNode is what directories have in common: nothing can be made in them.
type dirNode struct{ pseudo.Node }

// Create implements vfs.InodeOps: names that do not exist cannot come to exist.
func (*dirNode) Create(vfs.Context, string, *vfs.CreateArgs) (*vfs.Inode, error) {
	return nil, unix.ENOENT
}

// Rename implements vfs.InodeOps.
func (*dirNode) Rename(_ vfs.Context, _ string, _ *vfs.Inode, _ *vfs.Inode, _ string, target *vfs.Inode, _ uint32) error {
	return renameError(target)
}

// renameError is that of a rename in a place where names cannot change: the new name would have to exist.
func renameError(target *vfs.Inode) error {
	if target == nil {
		return unix.ENOENT
	}
	return unix.EPERM
}

// taskDir is /proc/PID or /proc/PID/task/TID.
type taskDir struct {
	dirNode
	taskRef
}

func newTaskDir(ref taskRef, t *kernel.Task) *vfs.Inode {
	d := &taskDir{taskRef: ref}
	ino := inoThread | uint64(ref.id)<<inoEntryBits
	if ref.sub {
		ino |= inoThread << 3
	}
	u, g := ownerOf(t, unix.S_IFDIR|0555)
	d.Node.Init(d, ref.fs.SB, ino, unix.S_IFDIR|0555, u, g, vfs.InodeRevalidate|vfs.InodeCustomPermission)
	d.FixedAttr = true
	d.Nlink = 9
	if ref.sub {
		d.Nlink = 7
	}
	return &d.Inode
}

// ProcessID is the process that the directory stands for where a pidfd may be given; nil for a thread.
func (d *taskDir) ProcessID() *kernel.PID {
	if d.sub {
		return nil
	}
	return d.pid
}

// setOwner follows a change of the task's user.
func (d *taskDir) setOwner(t *kernel.Task) { setOwner(&d.Inode, t) }

func setOwner(i *vfs.Inode, t *kernel.Task) {
	u, g := ownerOf(t, i.Mode())
	if i.UID() != u {
		i.SetUID(u)
	}
	if i.GID() != g {
		i.SetGID(g)
	}
}

// CheckPermission implements vfs.PermissionChecker: hidepid=.
func (d *taskDir) CheckPermission(ctx vfs.Context, mask uint32) error {
	_, t := d.get()
	if t == nil {
		return unix.ESRCH
	}
	if d.fs.hidden(ctx, t, hideNoAccess) {
		if d.fs.hide.Load() == hideInvisible {
			return unix.ENOENT
		}
		return unix.EPERM
	}
	return vfs.CheckMode(ctx.Credentials(), &d.Inode, mask)
}

// Stat implements vfs.InodeOps.
func (d *taskDir) Stat(ctx vfs.Context, mask uint32, st *vfs.Stat) error {
	_, t := d.get()
	if t != nil {
		if d.fs.hidden(ctx, t, hideInvisible) {
			return unix.ENOENT
		}
		d.setOwner(t)
	}
	return d.Node.Stat(ctx, mask, st)
}

func (d *taskDir) where() uint8 {
	if d.sub {
		return inThread
	}
	return inProcess
}

// entryIno is the inode number of entry i of the directory.
func (d *taskDir) entryIno(i int) uint64 { return d.Ino() | uint64(i+1) }

// Lookup implements vfs.InodeOps.
func (d *taskDir) Lookup(_ vfs.Context, name string) (*vfs.Inode, error) {
	_, t := d.get()
	if t == nil {
		return nil, unix.ENOENT
	}
	for i := range entries {
		e := &entries[i]
		if e.name == name && e.where&d.where() != 0 {
			return d.newEntry(e, t, d.entryIno(i)), nil
		}
	}
	return nil, unix.ENOENT
}

// Revalidate implements vfs.Revalidator.
func (d *taskDir) Revalidate(_ vfs.Context, _ string, child *vfs.Inode) bool {
	_, t := d.get()
	if t == nil {
		return false
	}
	setOwner(child, t)
	return true
}

func (d *taskDir) newEntry(e *entry, t *kernel.Task, ino uint64) *vfs.Inode {
	var i *vfs.Inode
	var flags vfs.InodeFlags
	switch {
	case e.dir != nil:
		i = e.dir(d.taskRef, ino)
	case e.link != nil:
		l := &taskLink{taskRef: d.taskRef, entry: e}
		l.Node.Init(l, d.fs.SB, ino, e.mode, 0, 0, vfs.InodeMagicLink)
		l.FixedAttr = true
		i = &l.Inode
	case e.target != "":
		l := d.fs.NewSymlink(e.target)
		l.FixedAttr = true
		i = &l.Inode
	default:
		f := &taskFile{taskRef: d.taskRef, entry: e}
		f.Node.Init(f, d.fs.SB, ino, e.mode, 0, 0, flags|vfs.InodeNoExec)
		f.FixedAttr = true
		i = &f.Inode
	}
	setOwner(i, t)
	return i
}

// Open implements vfs.InodeOps.
func (d *taskDir) Open(vfs.Context, uint32) (vfs.FileImpl, error) {
	return pseudo.DirFile{DirReader: d}, nil
}

// ReadDir implements vfs.DirReader.
func (d *taskDir) ReadDir(_ vfs.Context, cookie int64, sink vfs.DirSink) error {
	if _, t := d.get(); t == nil {
		return nil
	}
	for i := int(min(cookie-2, int64(len(entries)))); i < len(entries); i++ {
		e := &entries[i]
		if e.where&d.where() != 0 && !sink.Emit(e.name, d.entryIno(i), pseudo.DirType(e.mode), int64(i)+3) {
			return nil
		}
	}
	return nil
}

// taskFile is a file of a task.
type taskFile struct {
	pseudo.Node
	taskRef
	entry *entry
}

// Open implements vfs.InodeOps.
func (f *taskFile) Open(ctx vfs.Context, flags uint32) (vfs.FileImpl, error) {
	e, err := f.env(ctx)
	if err != nil {
		return nil, err
	}
	if f.entry.openAccess && !mayAccess(ctx, e.t) {
		return nil, unix.EACCES
	}
	if f.entry.open != nil {
		return f.entry.open(e, flags)
	}
	g := &taskGen{f.taskRef, f.entry}
	if f.entry.set == nil {
		return pseudo.NewOpenFile(g), nil
	}
	return pseudo.NewOpenFile(&taskSetter{*g}), nil
}

// taskGen makes the content of a file at the time of reading.
type taskGen struct {
	taskRef
	entry *entry
}

// Generate implements pseudo.Generator.
func (g *taskGen) Generate(ctx vfs.Context, buf []byte) ([]byte, error) {
	e, err := g.env(ctx)
	if err != nil {
		return buf, err
	}
	if g.entry.access != 0 && !mayAccess(ctx, e.t) {
		return buf, g.entry.access
	}
	if g.entry.gen == nil {
		return buf, unix.EINVAL
	}
	return g.entry.gen(e, buf)
}

// taskSetter is a taskGen that can be written, too.
type taskSetter struct{ taskGen }

// Set implements pseudo.Setter.
func (g *taskSetter) Set(ctx vfs.Context, data []byte, off int64) error {
	e, err := g.env(ctx)
	if err != nil {
		return err
	}
	return g.entry.set(e, data, off)
}

// taskLink is a magic link: cwd, root, exe.
type taskLink struct {
	pseudo.Node
	taskRef
	entry *entry
}

// FollowLink implements vfs.MagicLinker.
func (l *taskLink) FollowLink(ctx vfs.Context) (vfs.Path, error) {
	e, err := l.env(ctx)
	if err != nil {
		return vfs.Path{}, unix.ENOENT
	}
	if !mayAccess(ctx, e.t) {
		return vfs.Path{}, unix.EACCES
	}
	return l.entry.link(e)
}

// Readlink implements vfs.InodeOps.
func (l *taskLink) Readlink(ctx vfs.Context) (string, error) {
	p, err := l.FollowLink(ctx)
	if err != nil {
		return "", err
	}
	s, _ := l.fs.k.VFS().PathString(ctx, p)
	p.DecRef()
	return s, nil
}

func linkCWD(e *env) (vfs.Path, error) {
	if f := e.t.FS(); f != nil {
		if p := f.TryCWDRef(); !p.IsZero() {
			return p, nil
		}
	}
	return vfs.Path{}, unix.ENOENT
}

func linkRoot(e *env) (vfs.Path, error) {
	if f := e.t.FS(); f != nil {
		if p := f.TryRootRef(); !p.IsZero() {
			return p, nil
		}
	}
	return vfs.Path{}, unix.ENOENT
}

func linkExe(e *env) (vfs.Path, error) {
	fd := e.tg.Exe()
	if fd == nil {
		return vfs.Path{}, unix.ENOENT
	}
	defer fd.DecRef()
	p := fd.Path()
	p.IncRef()
	return p, nil
}

// threadsDir is /proc/PID/task.
type threadsDir struct {
	dirNode
	taskRef
}

func newThreadsDir(r taskRef, ino uint64) *vfs.Inode {
	d := &threadsDir{taskRef: r}
	d.Node.Init(d, r.fs.SB, ino, unix.S_IFDIR|0555, 0, 0, vfs.InodeRevalidate)
	d.FixedAttr = true
	return &d.Inode
}

// thread finds the thread with number id of the process.
func (d *threadsDir) find(id int32) (*kernel.PID, *kernel.Task) {
	tg, _ := d.get()
	p := d.fs.ns.PIDByNumber(id)
	if tg == nil || p == nil {
		return nil, nil
	}
	t := p.Thread()
	if t == nil || t.Group() != tg {
		return nil, nil
	}
	return p, t
}

// Lookup implements vfs.InodeOps.
func (d *threadsDir) Lookup(_ vfs.Context, name string) (*vfs.Inode, error) {
	id := parseID(name)
	p, t := d.find(id)
	if t == nil {
		return nil, unix.ENOENT
	}
	return newTaskDir(taskRef{d.fs, p, true, id}, t), nil
}

// Revalidate implements vfs.Revalidator.
func (d *threadsDir) Revalidate(_ vfs.Context, name string, child *vfs.Inode) bool {
	c, ok := child.Ops().(*taskDir)
	if !ok {
		return false
	}
	p, t := d.find(c.id)
	if t == nil || p != c.pid {
		return false
	}
	c.setOwner(t)
	return true
}

// Stat implements vfs.InodeOps.
func (d *threadsDir) Stat(ctx vfs.Context, mask uint32, st *vfs.Stat) error {
	err := d.Node.Stat(ctx, mask, st)
	if tg, t := d.get(); t != nil {
		setOwner(&d.Inode, t)
		st.UID, st.GID = d.UID(), d.GID()
		st.Nlink = 2 + uint32(tg.NumThreads())
	}
	return err
}

// Open implements vfs.InodeOps.
func (d *threadsDir) Open(vfs.Context, uint32) (vfs.FileImpl, error) {
	return pseudo.DirFile{DirReader: d}, nil
}

// ReadDir implements vfs.DirReader.
func (d *threadsDir) ReadDir(_ vfs.Context, cookie int64, sink vfs.DirSink) error {
	tg, _ := d.get()
	if tg == nil {
		return nil
	}
	var ids []int
	for _, t := range tg.Tasks(nil) {
		if id := t.TIDIn(d.fs.ns); id != 0 && int64(id) >= cookie-firstPIDCookie {
			ids = append(ids, int(id))
		}
	}
	sort.Ints(ids)
	for _, id := range ids {
		if !sink.Emit(strconv.Itoa(id), inoThread|inoThread<<3|uint64(id)<<inoEntryBits, unix.DT_DIR, firstPIDCookie+int64(id)+1) {
			return nil
		}
	}
	return nil
}
