package proc

import (
	"sort"
	"strconv"

	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// rootDir is the root: fixed entries, and a directory for each process.
type rootDir struct {
	pseudo.Dir
	fs *FS
}

func newRoot(f *FS) *vfs.Inode {
	r := &rootDir{fs: f}
	r.InitDir(r, &f.FS, 0555)
	r.FixedAttr = true
	r.SetFlags(vfs.InodeRevalidate)
	r.Add("self", &f.newSelf(false).Inode)
	r.Add("thread-self", &f.newSelf(true).Inode)
	if !f.pidOnly.Load() {
		f.addSystem(&r.Dir)
	}
	return &r.Inode
}

// newSelf makes /proc/self or /proc/thread-self.
func (f *FS) newSelf(thread bool) *pseudo.Symlink {
	l := f.NewSymlink("")
	l.FixedAttr = true
	l.Func = func(ctx vfs.Context) (string, error) {
		t := taskOf(ctx)
		if t == nil {
			return "", unix.ENOENT
		}
		id := t.Group().IDIn(f.ns)
		if id == 0 {
			return "", unix.ENOENT
		}
		s := strconv.Itoa(int(id))
		if thread {
			s += "/task/" + strconv.Itoa(int(t.TIDIn(f.ns)))
		}
		return s, nil
	}
	return l
}

// parseID reads a number as a name of a directory has it: no sign, no leading zero. 0 if it is none.
func parseID(s string) (n int32) {
	if s == "" || len(s) > 9 || s[0] == '0' {
		return 0
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0
		}
		n = n*10 + int32(s[i]-'0')
	}
	return n
}

// Lookup implements vfs.InodeOps.
func (r *rootDir) Lookup(ctx vfs.Context, name string) (*vfs.Inode, error) {
	id := parseID(name)
	if id == 0 {
		return r.Dir.Lookup(ctx, name)
	}
	p := r.fs.ns.PIDByNumber(id)
	if p == nil {
		return nil, unix.ENOENT
	}
	// A thread that is no process is found by its number, too, but not listed.
	ref := taskRef{fs: r.fs, pid: p, id: id}
	_, t := ref.get()
	if t == nil || r.fs.hidden(ctx, t, hidePtraceable) {
		return nil, unix.ENOENT
	}
	return newTaskDir(ref, t), nil
}

// Revalidate implements vfs.Revalidator.
func (r *rootDir) Revalidate(ctx vfs.Context, name string, child *vfs.Inode) bool {
	d, ok := child.Ops().(*taskDir)
	if !ok {
		return r.Dir.Revalidate(ctx, name, child)
	}
	p := r.fs.ns.PIDByNumber(d.id)
	if p != d.pid {
		return false
	}
	_, t := d.get()
	if t == nil || r.fs.hidden(ctx, t, hidePtraceable) {
		return false
	}
	d.setOwner(t)
	return true
}

// Create implements vfs.InodeOps.
func (r *rootDir) Create(vfs.Context, string, *vfs.CreateArgs) (*vfs.Inode, error) {
	return nil, unix.ENOENT
}

// Rename implements vfs.InodeOps.
func (r *rootDir) Rename(_ vfs.Context, _ string, _ *vfs.Inode, _ *vfs.Inode, _ string, target *vfs.Inode, _ uint32) error {
	return renameError(target)
}

// Stat implements vfs.InodeOps.
func (r *rootDir) Stat(ctx vfs.Context, mask uint32, st *vfs.Stat) error {
	err := r.Dir.Stat(ctx, mask, st)
	st.Nlink += uint32(len(r.fs.ns.Groups(nil)))
	return err
}

// Open implements vfs.InodeOps.
func (r *rootDir) Open(vfs.Context, uint32) (vfs.FileImpl, error) {
	return pseudo.DirFile{DirReader: r}, nil
}

// ReadDir implements vfs.DirReader: processes by number, so that a listing that goes on stays true when others come and go.
func (r *rootDir) ReadDir(ctx vfs.Context, cookie int64, sink vfs.DirSink) error {
	if cookie < firstPIDCookie {
		s := limitSink{sink: sink}
		if err := r.Dir.ReadDir(ctx, cookie, &s); err != nil || s.full {
			return err
		}
		cookie = firstPIDCookie
	}
	list := r.fs.ns.Groups(nil)
	from := cookie - firstPIDCookie
	keep := list[:0]
	for _, g := range list {
		if int64(g.PID) >= from {
			keep = append(keep, g)
		}
	}
	sort.Slice(keep, func(i, j int) bool { return keep[i].PID < keep[j].PID })
	for _, g := range keep {
		if t := g.Group.Leader(); t == nil || r.fs.hidden(ctx, t, hideInvisible) {
			continue
		}
		if !sink.Emit(strconv.Itoa(int(g.PID)), inoThread|uint64(g.PID)<<inoEntryBits, unix.DT_DIR, firstPIDCookie+int64(g.PID)+1) {
			return nil
		}
	}
	return nil
}

// limitSink notes that a listing ended because the buffer was full.
type limitSink struct {
	sink vfs.DirSink
	full bool
}

// Emit implements vfs.DirSink.
func (s *limitSink) Emit(name string, ino uint64, typ uint8, next int64) bool {
	if !s.sink.Emit(name, ino, typ, next) {
		s.full = true
	}
	return !s.full
}

// add enters a file that gen makes.
func (f *FS) add(d *pseudo.Dir, name string, perm uint32, gen func(*FS, vfs.Context, []byte) ([]byte, error)) {
	n := f.NewFile(perm, pseudo.GeneratorFunc(func(ctx vfs.Context, buf []byte) ([]byte, error) { return gen(f, ctx, buf) }))
	n.FixedAttr = true
	d.Add(name, &n.Inode)
}

// addLink enters a symlink.
func (f *FS) addLink(d *pseudo.Dir, name, target string) {
	l := f.NewSymlink(target)
	l.FixedAttr = true
	d.Add(name, &l.Inode)
}

// addDir enters a directory.
func (f *FS) addDir(d *pseudo.Dir, name string) *pseudo.Dir {
	n := f.NewDir(0555)
	n.FixedAttr = true
	d.Add(name, &n.Inode)
	return n
}
