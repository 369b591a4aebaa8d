package proc

import (
	"strconv"
	"time"

	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// maxFD bounds descriptor numbers (NrOpen never exceeds it).
const maxFD = 1 << inoFDNumberBits

// fdDir is /proc/PID/fd or /proc/PID/fdinfo.
type fdDir struct {
	dirNode
	taskRef
	info bool
}

func newFDDir(r taskRef, ino uint64) *vfs.Inode { return newFDs(r, ino, unix.S_IFDIR|0500, false) }

func newFDInfoDir(r taskRef, ino uint64) *vfs.Inode { return newFDs(r, ino, unix.S_IFDIR|0555, true) }

func newFDs(r taskRef, ino uint64, mode uint32, info bool) *vfs.Inode {
	d := &fdDir{taskRef: r, info: info}
	d.Node.Init(d, r.fs.SB, ino, mode, 0, 0, vfs.InodeRevalidate|vfs.InodeCustomPermission)
	d.FixedAttr = true
	return &d.Inode
}

// file is the task's file n, with a reference; nil if there is none.
func (r *taskRef) file(n int32) (*kernel.Task, *vfs.FileDescription) {
	_, t := r.get()
	if t == nil || n < 0 || n >= maxFD {
		return nil, nil
	}
	files := t.FDTable()
	if files == nil {
		return t, nil
	}
	return t, files.Get(n)
}

// parseFD reads a descriptor's number; -1 if it is none.
func parseFD(s string) int32 {
	if s == "0" {
		return 0
	}
	if n := parseID(s); n > 0 {
		return n
	}
	return -1
}

// CheckPermission implements vfs.PermissionChecker: a process may always look at its own descriptors; those who may not look into a task see nothing
// of its fdinfo.
func (d *fdDir) CheckPermission(ctx vfs.Context, mask uint32) error {
	tg, t := d.get()
	if t == nil {
		return unix.ESRCH
	}
	setOwner(&d.Inode, t)
	if mask&vfs.MayWrite == 0 {
		if me := taskOf(ctx); me != nil && me.Group() == tg {
			return nil
		}
		if d.info && !mayAccess(ctx, t) {
			return unix.EACCES
		}
	}
	return vfs.CheckMode(ctx.Credentials(), &d.Inode, mask)
}

// Stat implements vfs.InodeOps: the size is the number of descriptors.
func (d *fdDir) Stat(ctx vfs.Context, mask uint32, st *vfs.Stat) error {
	_, t := d.get()
	if t == nil {
		if d.info {
			return d.Node.Stat(ctx, mask, st)
		}
		return unix.ENOENT
	}
	setOwner(&d.Inode, t)
	err := d.Node.Stat(ctx, mask, st)
	if files := t.FDTable(); files != nil && !d.info {
		n, _ := files.Count()
		st.Size = int64(n)
	}
	return err
}

// ino is the inode number of descriptor n.
func (d *fdDir) entryIno(n int32) uint64 {
	kind := uint64(inoFD)
	if d.info {
		kind = inoFDInfo
	}
	if d.sub {
		kind |= inoThread << 3
	}
	return kind | uint64(d.id)<<inoFDNumberBits | uint64(n)
}

// Lookup implements vfs.InodeOps.
func (d *fdDir) Lookup(_ vfs.Context, name string) (*vfs.Inode, error) {
	n := parseFD(name)
	t, fd := d.file(n)
	if fd == nil {
		return nil, unix.ENOENT
	}
	defer fd.DecRef()
	if d.info {
		f := &fdInfo{taskRef: d.taskRef, n: n}
		f.Node.Init(f, d.fs.SB, d.entryIno(n), unix.S_IFREG|0444, 0, 0, vfs.InodeNoExec)
		f.FixedAttr = true
		setOwner(&f.Inode, t)
		return &f.Inode, nil
	}
	l := &fdLink{taskRef: d.taskRef, n: n}
	l.Node.Init(l, d.fs.SB, d.entryIno(n), linkMode(fd), 0, 0, vfs.InodeMagicLink)
	l.FixedAttr, l.Size = true, 64
	setOwner(&l.Inode, t)
	return &l.Inode, nil
}

// linkMode is the mode of a descriptor's link: how the file is open.
func linkMode(fd *vfs.FileDescription) uint32 {
	m := uint32(unix.S_IFLNK)
	if fd.Readable() || fd.IsPathOnly() {
		m |= 0500
	}
	if fd.Writable() {
		m |= 0300
	}
	return m
}

// Revalidate implements vfs.Revalidator.
func (d *fdDir) Revalidate(_ vfs.Context, name string, child *vfs.Inode) bool {
	t, fd := d.file(parseFD(name))
	if fd == nil {
		return false
	}
	if !d.info {
		child.SetMode(linkMode(fd))
	}
	setOwner(child, t)
	fd.DecRef()
	return true
}

// Open implements vfs.InodeOps.
func (d *fdDir) Open(ctx vfs.Context, _ uint32) (vfs.FileImpl, error) {
	return pseudo.DirFile{DirReader: d}, nil
}

// ReadDir implements vfs.DirReader. The cookie of a descriptor is its number and 2.
func (d *fdDir) ReadDir(ctx vfs.Context, cookie int64, sink vfs.DirSink) error {
	_, t := d.get()
	if t == nil {
		return unix.ENOENT
	}
	files := t.FDTable()
	if files == nil || cookie-2 >= maxFD {
		return nil
	}
	typ := uint8(unix.DT_LNK)
	if d.info {
		typ = unix.DT_REG
	}
	for n := int32(cookie - 2); ; n++ {
		var fd *vfs.FileDescription
		if n, fd = files.Next(n); n < 0 {
			return nil
		}
		fd.DecRef()
		if !sink.Emit(strconv.Itoa(int(n)), d.entryIno(n), typ, int64(n)+3) {
			return nil
		}
	}
}

// fdLink is /proc/PID/fd/N: a magic link to the open file's place.
type fdLink struct {
	pseudo.Node
	taskRef
	n int32
}

// open gives the file, with a reference, if ctx may look into the task. ENOENT, EACCES.
func (l *fdLink) target(ctx vfs.Context) (*vfs.FileDescription, error) {
	return l.accessedFile(ctx, l.n)
}

func (r *taskRef) accessedFile(ctx vfs.Context, n int32) (*vfs.FileDescription, error) {
	t, fd := r.file(n)
	if t != nil && !mayAccess(ctx, t) {
		if fd != nil {
			fd.DecRef()
		}
		return nil, unix.EACCES
	}
	if fd == nil {
		return nil, unix.ENOENT
	}
	return fd, nil
}

// FollowLink implements vfs.MagicLinker.
func (l *fdLink) FollowLink(ctx vfs.Context) (vfs.Path, error) {
	fd, err := l.target(ctx)
	if err != nil {
		return vfs.Path{}, err
	}
	defer fd.DecRef()
	p := fd.Path()
	p.IncRef()
	return p, nil
}

// Readlink implements vfs.InodeOps.
func (l *fdLink) Readlink(ctx vfs.Context) (string, error) {
	fd, err := l.target(ctx)
	if err != nil {
		return "", err
	}
	defer fd.DecRef()
	if n, ok := fd.Impl().(vfs.PathNamer); ok {
		return n.PathName(), nil
	}
	s, _ := l.fs.k.VFS().PathString(ctx, fd.Path())
	return s, nil
}

// offsetOf is the file's offset. A read or write that does not end, of a file system in user space, must not hold up who looks: it is 0 then.
func offsetOf(fd *vfs.FileDescription) int64 {
	const tries, pause = 50, 100 * time.Microsecond
	for range tries {
		if off, ok := fd.TryOffset(); ok {
			return off
		}
		time.Sleep(pause)
	}
	return 0
}

// fdInfo is /proc/PID/fdinfo/N.
type fdInfo struct {
	pseudo.Node
	taskRef
	n int32
}

// Open implements vfs.InodeOps: who opens must have the right to look into the task, whatever the cache of names let through.
func (f *fdInfo) Open(ctx vfs.Context, _ uint32) (vfs.FileImpl, error) {
	fd, err := f.accessedFile(ctx, f.n)
	if err != nil {
		return nil, err
	}
	fd.DecRef()
	return pseudo.NewOpenFile(f), nil
}

// Generate implements pseudo.Generator.
func (f *fdInfo) Generate(_ vfs.Context, b []byte) ([]byte, error) {
	_, fd := f.file(f.n)
	if fd == nil {
		return b, unix.ENOENT
	}
	defer fd.DecRef()
	flags := fd.Flags()
	if _, t := f.get(); t != nil {
		if files := t.FDTable(); files != nil {
			if on, err := files.Cloexec(f.n); err == nil && on {
				flags |= unix.O_CLOEXEC
			}
		}
	}
	pos := int64(0)
	if !fd.IsPathOnly() && fd.Seekable() {
		pos = offsetOf(fd)
	}
	b = appendLine(b, "pos:\t", pos)
	b = append(strconv.AppendUint(append(b, "flags:\t0"...), uint64(flags), 8), '\n')
	p := fd.Path()
	b = appendLine(b, "mnt_id:\t", p.Mount.ID())
	b = append(strconv.AppendUint(append(b, "ino:\t"...), p.Inode().Ino(), 10), '\n')
	if w, ok := fd.Impl().(vfs.FDInfoWriter); ok {
		b = append(b, w.FDInfo()...)
	}
	return b, nil
}
