package gofer

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	broker "husk/pkg/gofer"
	"husk/pkg/platform"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// harness is a directory of the host, shown by a superblock.
type harness struct {
	t    testing.TB
	dir  string
	ctx  vfs.Context
	v    *vfs.VFS
	sb   *vfs.Superblock
	fs   *filesystem
	root vfs.InodeOps
	c    *broker.Client
}

func setup(t testing.TB, o Options) *harness {
	t.Helper()
	return setupOn(t, t.TempDir(), o)
}

// setupOn shows dir; handles, if given, is how many the broker allows.
func setupOn(t testing.TB, dir string, o Options, handles ...int) *harness {
	t.Helper()
	h := &harness{t: t, dir: dir, v: vfs.New(0)}
	h.ctx = vfs.NewKernelContext(auth.NewRootCredentials(auth.NewRootUserNamespace()), nil, nil)
	h.c = serve(t, h.dir, handles...)
	sb, err := New(h.v, h.c, 0, o)
	if err != nil {
		t.Fatal(err)
	}
	h.sb, h.fs = sb, sb.Ops().(*filesystem)
	h.root = sb.Root().Inode().Ops()
	return h
}

// serve starts a broker in this process.
func serve(t testing.TB, dir string, handles ...int) *broker.Client {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	proc, err1 := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_CLOEXEC, 0)
	at, err2 := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	done := make(chan error, 1)
	go func() {
		cfg := broker.Config{Attach: []broker.AttachPoint{{FD: at}}, ProcFD: proc}
		for _, cfg.MaxHandles = range handles {
		}
		done <- broker.Serve(fds[0], cfg)
	}()
	c, err := broker.NewClient(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Shutdown()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, fd := range []int{fds[0], fds[1], proc, at} {
			unix.Close(fd)
		}
	})
	return c
}

func (h *harness) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) want(what string, err, want error) {
	h.t.Helper()
	if err != want {
		h.t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func (h *harness) lookup(dir vfs.InodeOps, name string) *inode {
	h.t.Helper()
	i, err := dir.Lookup(h.ctx, name)
	h.must(err)
	return i.Ops().(*inode)
}

func (h *harness) stat(i vfs.InodeOps) (st vfs.Stat) {
	h.t.Helper()
	h.must(i.Stat(h.ctx, unix.STATX_BASIC_STATS, &st))
	return st
}

func (h *harness) write(name, data string) { h.must(os.WriteFile(h.dir+"/"+name, []byte(data), 0o644)) }

func read(t testing.TB, f vfs.FileImpl, n int, off int64) string {
	t.Helper()
	b := make([]byte, n)
	k, err := f.(vfs.Reader).Read(nil, mm.BytesSeq(b), off)
	if err != nil {
		t.Error(err)
	}
	return string(b[:k])
}

func TestLookup(t *testing.T) {
	h := setup(t, Options{})
	os.MkdirAll(h.dir+"/a/b", 0o755)
	h.write("a/b/f", "hello")
	os.Link(h.dir+"/a/b/f", h.dir+"/a/g")
	os.Symlink("b/f", h.dir+"/a/l")
	many := h.root.(vfs.BatchLookup)
	list, err := many.LookupMany(h.ctx, []string{"a", "b", "f"})
	h.want("batch", err, nil)
	if len(list) != 3 || !list[1].IsDir() || list[2].Type() != unix.S_IFREG {
		t.Fatal(list)
	}
	list2, err := many.LookupMany(h.ctx, []string{"a", "g", "x"})
	h.want("batch through a file", err, nil)
	if len(list2) != 2 || list2[1] != list[2] {
		t.Error("two names of a file have two inodes")
	}
	l, err := many.LookupMany(h.ctx, []string{"a", "l", "x"})
	if len(l) != 2 || err != nil {
		t.Fatal(l, err)
	}
	if s, err := l[1].Ops().Readlink(h.ctx); s != "b/f" || err != nil {
		t.Error(s, err)
	}
	part, err := many.LookupMany(h.ctx, []string{"a", "nope", "x"})
	h.want("missing", err, unix.ENOENT)
	if len(part) != 1 {
		t.Error(part)
	}
	_, err = h.root.Lookup(h.ctx, "nope")
	h.want("missing", err, unix.ENOENT)
	deep := []string{}
	path := h.dir
	for k := range 50 {
		deep = append(deep, fmt.Sprint("d", k))
		path += "/" + deep[k]
	}
	h.must(os.MkdirAll(path, 0o755))
	if list, err := many.LookupMany(h.ctx, deep); len(list) != 50 || err != nil {
		t.Error(len(list), err)
	}
	st := h.stat(list[2].Ops())
	if st.Size != 5 || st.Nlink != 2 || st.Mode != unix.S_IFREG|0o644 || st.Dev != h.sb.Dev() || st.Mtime == 0 {
		t.Errorf("%+v", st)
	}
	for _, l := range [][]*vfs.Inode{list, list2, l, part} {
		for _, i := range l {
			i.DecRef()
		}
	}
	h.fs.tableMu.Lock()
	if n := len(h.fs.table); n != 51 {
		t.Errorf("%d inodes stay", n)
	}
	h.fs.tableMu.Unlock()
}

func TestReadWrite(t *testing.T) {
	for _, shared := range []bool{false, true} {
		h := setup(t, Options{Shared: shared})
		n, f, err := h.root.(vfs.CreateOpener).CreateOpen(h.ctx, "f", &vfs.CreateArgs{Mode: unix.S_IFREG | 0o640, UID: 7, GID: 8}, unix.O_RDWR)
		h.must(err)
		i := n.Ops().(*inode)
		if n.Mode() != unix.S_IFREG|0o640 || n.UID() != 7 || n.GID() != 8 {
			t.Errorf("%o %d %d", n.Mode(), n.UID(), n.GID())
		}
		k, err := f.(vfs.Writer).Write(h.ctx, mm.BytesSeq([]byte("hello world")), 0)
		if k != 11 || err != nil {
			t.Fatal(k, err)
		}
		if s := read(t, f, 100, 6); s != "world" {
			t.Errorf("%q", s)
		}
		if s := read(t, f, 100, 11); s != "" {
			t.Errorf("%q", s)
		}
		k, end, err := f.(vfs.Appender).Append(h.ctx, mm.BytesSeq([]byte("!!")))
		if k != 2 || end != 13 || err != nil {
			t.Error(k, end, err)
		}
		if st := h.stat(i); st.Size != 13 {
			t.Error(st.Size)
		}
		h.want("truncate", f.(vfs.Truncater).Truncate(h.ctx, 5), nil)
		h.want("allocate", f.(vfs.Allocator).Allocate(h.ctx, 0, 0, 8192), nil)
		if st := h.stat(i); st.Size != 8192 {
			t.Error(st.Size)
		}
		h.want("fsync", f.(vfs.Fsyncer).Fsync(h.ctx, false), nil)
		if off, err := f.(vfs.HoleSeeker).SeekHole(h.ctx, 0, unix.SEEK_DATA); off != 0 || err != nil {
			t.Error(off, err)
		}
		_, err = f.(vfs.HoleSeeker).SeekHole(h.ctx, 9000, unix.SEEK_DATA)
		h.want("seek behind the end", err, unix.ENXIO)
		f.Release()
		if (i.rw.Load() >= 0) == shared {
			t.Errorf("shared %v: the descriptor for writing is %d", shared, i.rw.Load())
		}
		h.want("O_TRUNC", i.SetStat(h.ctx, &vfs.SetStat{Mask: vfs.SetSize | vfs.SetFromOpen}), nil)
		r, err := i.Open(h.ctx, unix.O_RDONLY)
		h.must(err)
		if s := read(t, r, 10, 0); s != "" {
			t.Errorf("%q", s)
		}
		w, err := i.Open(h.ctx, unix.O_WRONLY)
		h.must(err)
		w.(vfs.Writer).Write(h.ctx, mm.BytesSeq([]byte("new")), 0)
		if s := read(t, r, 10, 0); s != "new" {
			t.Errorf("%q", s)
		}
		r.Release()
		w.Release()
		n.DecRef()
	}
}

func TestTranslate(t *testing.T) {
	h := setup(t, Options{})
	h.write("f", string(make([]byte, 5000)))
	i := h.lookup(h.root, "f")
	f, err := i.Open(h.ctx, unix.O_RDONLY)
	h.must(err)
	m, err := f.(vfs.Mapper).Mappable(h.ctx)
	h.must(err)
	tr, err := m.Translate(0, 1<<20, 4096, false)
	if err != nil || tr.Start != 0 || tr.End != 8192 || tr.Offset != 0 || tr.Perms != platform.Read|platform.Exec {
		t.Errorf("%+v %v", tr, err)
	}
	if _, err := m.Translate(0, 1<<20, 8192, false); err != mm.ErrBus {
		t.Error(err)
	}
	w, err := i.Open(h.ctx, unix.O_RDWR)
	h.must(err)
	tr2, err := m.Translate(4096, 8192, 4096, true)
	if err != nil || tr2.Perms&platform.Write == 0 || tr2.Offset != 4096 {
		t.Errorf("%+v %v", tr2, err)
	}
	if _, err := unix.FcntlInt(uintptr(tr.HostFD), unix.F_GETFD, 0); err != nil {
		t.Error("the descriptor of an older mapping is closed")
	}
	w.Release()
	f.Release()
	i.DecRef()
}

func TestNames(t *testing.T) {
	h := setup(t, Options{})
	mk := func(dir vfs.InodeOps, name string, a vfs.CreateArgs) *inode {
		t.Helper()
		i, err := dir.Create(h.ctx, name, &a)
		h.must(err)
		return i.Ops().(*inode)
	}
	d := mk(h.root, "d", vfs.CreateArgs{Mode: unix.S_IFDIR | 0o755, UID: 3})
	f := mk(h.root, "f", vfs.CreateArgs{Mode: unix.S_IFREG | 0o600})
	l := mk(d, "l", vfs.CreateArgs{Mode: unix.S_IFLNK | 0o777, Target: "../f"})
	p := mk(d, "p", vfs.CreateArgs{Mode: unix.S_IFIFO | 0o600})
	s := mk(d, "s", vfs.CreateArgs{Mode: unix.S_IFSOCK | 0o600})
	_, err := d.Create(h.ctx, "dev", &vfs.CreateArgs{Mode: unix.S_IFCHR | 0o600, Rdev: unix.Mkdev(1, 3)})
	h.want("device", err, unix.EPERM)
	_, err = d.Create(h.ctx, "l", &vfs.CreateArgs{Mode: unix.S_IFREG})
	h.want("exists", err, unix.EEXIST)
	if str, err := l.Readlink(h.ctx); str != "../f" || err != nil {
		t.Error(str, err)
	}
	if st := h.stat(d); st.UID != 3 || st.Nlink != 2 {
		t.Errorf("%+v", st)
	}
	h.want("link", d.Link(h.ctx, "f2", &f.Inode), nil)
	if st := h.stat(f); st.Nlink != 2 {
		t.Errorf("%+v", st)
	}
	h.want("rmdir full", h.root.Rmdir(h.ctx, "d", &d.Inode), unix.ENOTEMPTY)
	h.want("rename", d.Rename(h.ctx, "f2", &f.Inode, h.sb.Root().Inode(), "f3", nil, 0), nil)
	h.want("rename over", h.root.Rename(h.ctx, "f3", &f.Inode, &d.Inode, "p", &p.Inode, 0), nil)
	if st := h.stat(p); st.Nlink != 0 {
		t.Errorf("replaced: %+v", st)
	}
	h.want("exchange", d.Rename(h.ctx, "s", &s.Inode, h.sb.Root().Inode(), "f", &f.Inode, unix.RENAME_EXCHANGE), nil)
	h.want("unlink", h.root.Unlink(h.ctx, "f", &s.Inode), nil)
	for _, name := range []string{"l", "p", "s"} {
		i := h.lookup(d, name)
		h.want("unlink "+name, d.Unlink(h.ctx, name, &i.Inode), nil)
		i.DecRef()
	}
	if st := h.stat(f); st.Nlink != 0 {
		t.Errorf("%+v", st)
	}
	h.want("rmdir", h.root.Rmdir(h.ctx, "d", &d.Inode), nil)
	if st := h.stat(h.root); st.Nlink != 2 {
		t.Errorf("%+v", st)
	}
	tmp, err := h.root.(vfs.TmpfileMaker).Tmpfile(h.ctx, &vfs.CreateArgs{Mode: unix.S_IFREG | 0o600})
	h.must(err)
	h.want("link of a temporary file", h.root.Link(h.ctx, "named", tmp), nil)
	if st := h.stat(tmp.Ops()); st.Nlink != 1 {
		t.Errorf("%+v", st)
	}
	for _, i := range []*inode{d, f, l, p, s} {
		i.DecRef()
	}
	tmp.DecRef()
}

func TestSetStat(t *testing.T) {
	h := setup(t, Options{})
	h.write("f", "x")
	i := h.lookup(h.root, "f")
	const when = -1500000001 // before the epoch
	h.must(i.SetStat(h.ctx, &vfs.SetStat{Mask: vfs.SetMode | vfs.SetUID | vfs.SetGID | vfs.SetMtime | vfs.SetSize, Mode: 0o4711, UID: 5, GID: 6, Mtime: when, Size: 100}))
	st := h.stat(i)
	if st.Mode != unix.S_IFREG|0o4711 || st.UID != 5 || st.GID != 6 || st.Mtime != when || st.Size != 100 || i.Mode() != st.Mode || i.UID() != 5 {
		t.Errorf("%+v", st)
	}
	i.DecRef()
}

// sink collects names and stops after max.
type sink struct {
	names []string
	max   int
	next  int64
}

func (s *sink) Emit(name string, ino uint64, typ uint8, next int64) bool {
	if len(s.names) == s.max {
		return false
	}
	s.names = append(s.names, name)
	s.next = next
	return true
}

func TestReadDir(t *testing.T) {
	h := setup(t, Options{})
	for k := range 300 {
		h.write(fmt.Sprintf("a-long-name-%d", k), "")
	}
	f, err := h.root.Open(h.ctx, unix.O_RDONLY|unix.O_DIRECTORY)
	h.must(err)
	seen := map[string]bool{}
	cookie := int64(2)
	for {
		s := &sink{max: 7}
		h.must(f.(vfs.DirReader).ReadDir(h.ctx, cookie, s))
		if len(s.names) == 0 {
			break
		}
		for _, n := range s.names {
			if seen[n] {
				t.Error("twice:", n)
			}
			seen[n] = true
		}
		cookie = s.next
	}
	if len(seen) != 300 {
		t.Error(len(seen))
	}
	i, err := h.root.Create(h.ctx, "new", &vfs.CreateArgs{Mode: unix.S_IFREG})
	h.must(err)
	i.DecRef()
	s := &sink{max: 1000}
	h.must(f.(vfs.DirReader).ReadDir(h.ctx, 2, s))
	if len(s.names) != 301 {
		t.Error("the cached listing is old:", len(s.names))
	}
	f.Release()
}

func TestSharedRevalidates(t *testing.T) {
	h := setup(t, Options{Shared: true})
	h.write("f", "one")
	i := h.lookup(h.root, "f")
	rev := h.root.(vfs.Revalidator)
	if !rev.Revalidate(h.ctx, "f", &i.Inode) {
		t.Error("the same file is another")
	}
	os.Chmod(h.dir+"/f", 0o600)
	if !rev.Revalidate(h.ctx, "f", &i.Inode) || i.Mode() != unix.S_IFREG|0o600 {
		t.Errorf("mode %o", i.Mode())
	}
	h.write("f", "three")
	if st := h.stat(i); st.Size != 5 {
		t.Error(st.Size)
	}
	h.write("g", "new")
	os.Rename(h.dir+"/g", h.dir+"/f")
	if rev.Revalidate(h.ctx, "f", &i.Inode) {
		t.Error("another file is the same")
	}
	if rev.Revalidate(h.ctx, "f", nil) || !rev.Revalidate(h.ctx, "g", nil) {
		t.Error("negative names")
	}
	i.DecRef()
}

func TestIdleDescriptors(t *testing.T) {
	h := setup(t, Options{MaxIdle: 3})
	var list []*inode
	for k := range 6 {
		h.write(fmt.Sprint(k), "x")
		i := h.lookup(h.root, fmt.Sprint(k))
		f, err := i.Open(h.ctx, unix.O_RDONLY)
		h.must(err)
		f.Release()
		list = append(list, i)
	}
	for k, i := range list {
		if (i.fd() >= 0) != (k >= 3) {
			t.Errorf("file %d: descriptor %d", k, i.fd())
		}
	}
	f, err := list[3].Open(h.ctx, unix.O_RDONLY)
	h.must(err)
	for _, i := range list[:3] { // the one in use must survive being first on the list
		g, err := i.Open(h.ctx, unix.O_RDONLY)
		h.must(err)
		g.Release()
	}
	if s := read(t, f, 5, 0); s != "x" {
		t.Errorf("%q", s)
	}
	f.Release()
	for _, i := range list {
		i.DecRef()
	}
	if h.fs.idle.length != 0 || h.fs.idle.first != nil || h.fs.idle.last != nil {
		t.Error("the idle list is not empty")
	}
}

func TestBrokerGone(t *testing.T) {
	h := setup(t, Options{})
	h.write("f", "x")
	i := h.lookup(h.root, "f")
	h.c.Shutdown()
	_, err := h.root.Lookup(h.ctx, "f")
	h.want("lookup", err, unix.EIO)
	_, err = i.Open(h.ctx, unix.O_RDONLY)
	h.want("open", err, unix.EIO)
	if st := h.stat(i); st.Size != 1 {
		t.Error("what is cached is lost")
	}
	i.DecRef()
}

func TestXattr(t *testing.T) {
	h := setup(t, Options{})
	h.write("f", "x")
	i := h.lookup(h.root, "f")
	defer i.DecRef()
	_, err := i.GetXattr(h.ctx, capability)
	h.want("no capabilities", err, unix.ENODATA)
	if err := i.SetXattr(h.ctx, "user.a", []byte("v"), 0); err != nil {
		t.Skip(err)
	}
	big := make([]byte, 1000)
	h.must(i.SetXattr(h.ctx, "user.big", big, 0))
	if v, err := i.GetXattr(h.ctx, "user.big"); len(v) != 1000 || err != nil {
		t.Error(len(v), err)
	}
	if l, err := i.ListXattr(h.ctx); len(l) != 2 || err != nil {
		t.Error(l, err)
	}
	h.must(i.RemoveXattr(h.ctx, "user.a"))
	_, err = i.GetXattr(h.ctx, "user.a")
	h.want("removed", err, unix.ENODATA)
}

func TestReadAllocatesNothing(t *testing.T) {
	h := setup(t, Options{})
	h.write("f", "some content")
	i := h.lookup(h.root, "f")
	defer i.DecRef()
	f, err := i.Open(h.ctx, unix.O_RDWR)
	h.must(err)
	defer f.Release()
	b := make([]byte, 8)
	r, w := f.(vfs.Reader), f.(vfs.Writer)
	var st vfs.Stat
	if n := testing.AllocsPerRun(100, func() {
		r.Read(h.ctx, mm.BytesSeq(b), 0)
		w.Write(h.ctx, mm.BytesSeq(b), 0)
		i.Stat(h.ctx, 0, &st)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		g, _ := i.Open(h.ctx, unix.O_RDONLY)
		g.Release()
	}); n > 1 {
		t.Errorf("open and close: %v allocations", n)
	}
}

func BenchmarkOpenClose(b *testing.B) {
	h := setup(b, Options{})
	h.write("f", "x")
	i := h.lookup(h.root, "f")
	for b.Loop() {
		f, _ := i.Open(h.ctx, unix.O_RDONLY)
		f.Release()
	}
}

func BenchmarkRead4K(b *testing.B) {
	h := setup(b, Options{})
	h.write("f", string(make([]byte, 4096)))
	i := h.lookup(h.root, "f")
	f, _ := i.Open(h.ctx, unix.O_RDONLY)
	buf := make([]byte, 4096)
	for b.Loop() {
		f.(vfs.Reader).Read(h.ctx, mm.BytesSeq(buf), 0)
	}
}

func BenchmarkStat(b *testing.B) {
	h := setup(b, Options{})
	h.write("f", "x")
	i := h.lookup(h.root, "f")
	var st vfs.Stat
	for b.Loop() {
		i.Stat(h.ctx, 0, &st)
	}
}
