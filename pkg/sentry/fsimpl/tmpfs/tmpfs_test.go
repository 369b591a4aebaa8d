package tmpfs

import (
	"testing"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// world is a namespace with a tmpfs as root.
type world struct {
	v   *vfs.VFS
	ctx vfs.Context
	ns  *vfs.MountNamespace
	mf  *memfile.File
}

func newWorld(t testing.TB) *world {
	mf, err := memfile.New(memfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mf.Close)
	v := vfs.New(0)
	typ := NewType("tmpfs", mf, 1<<30)
	v.RegisterFileSystem(typ)
	userns := auth.NewRootUserNamespace()
	creds := auth.NewRootCredentials(userns)
	sb, err := typ.Mount(vfs.NewKernelContext(creds, nil, nil), v, &vfs.MountOptions{Data: "mode=755"})
	if err != nil {
		t.Fatal(err)
	}
	ns := v.NewMountNamespace(sb, userns, vfs.MountRelatime)
	root := ns.Root()
	fs := vfs.NewFSContext(root, root, 022)
	root.DecRef()
	return &world{v, vfs.NewKernelContext(creds, fs, ns), ns, mf}
}

func (w *world) write(t testing.TB, path, data string) {
	t.Helper()
	fd, err := w.v.Open(w.ctx, vfs.Path{}, path, &vfs.OpenOptions{Flags: unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC, Mode: 0644})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer fd.DecRef()
	if n, err := fd.Write(w.ctx, mm.BytesSeq([]byte(data))); err != nil || n != int64(len(data)) {
		t.Fatalf("%s: write: %d, %v", path, n, err)
	}
}

func (w *world) read(t testing.TB, path string) string {
	t.Helper()
	fd, err := w.v.Open(w.ctx, vfs.Path{}, path, &vfs.OpenOptions{})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer fd.DecRef()
	b := make([]byte, 1<<20)
	n, err := fd.Read(w.ctx, mm.BytesSeq(b))
	if err != nil {
		t.Fatalf("%s: read: %v", path, err)
	}
	return string(b[:n])
}

func TestFiles(t *testing.T) {
	w := newWorld(t)
	v, c, at := w.v, w.ctx, vfs.Path{}
	if err := v.Mkdir(c, at, "/a/", 0777); err != nil {
		t.Fatal(err)
	}
	w.write(t, "/a/f", "hello")
	if got := w.read(t, "a/./../a//f"); got != "hello" {
		t.Fatalf("read %q", got)
	}
	if err := v.Symlink(c, "a", at, "/l"); err != nil {
		t.Fatal(err)
	}
	if got := w.read(t, "/l/f"); got != "hello" {
		t.Fatalf("read %q", got)
	}
	if err := v.Rename(c, at, "/a", at, "/b", 0); err != nil {
		t.Fatal(err)
	}
	if got := w.read(t, "/b/f"); got != "hello" {
		t.Fatalf("read %q", got)
	}
	if err := v.Rmdir(c, at, "/b"); err != unix.ENOTEMPTY {
		t.Fatalf("rmdir: %v", err)
	}
	if err := v.Unlink(c, at, "/b/f"); err != nil {
		t.Fatal(err)
	}
	if err := v.Rmdir(c, at, "/b"); err != nil {
		t.Fatal(err)
	}
	var st vfs.Stat
	if err := v.Stat(c, at, "/b", 0, 0, &st); err != unix.ENOENT {
		t.Fatalf("stat: %v", err)
	}
}

func TestMounts(t *testing.T) {
	w := newWorld(t)
	v, c, at := w.v, w.ctx, vfs.Path{}
	for _, d := range []string{"/m", "/n"} {
		if err := v.Mkdir(c, at, d, 0755); err != nil {
			t.Fatal(err)
		}
	}
	p, err := v.Walk(c, at, "/m", vfs.FollowLast)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Mount(c, "none", p, "tmpfs", unix.MS_NOSUID, "size=1m"); err != nil {
		t.Fatal(err)
	}
	p.DecRef()
	w.write(t, "/m/x", "y")
	q, _ := v.Walk(c, at, "/n", vfs.FollowLast)
	if err := v.Mount(c, "/m", q, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	q.DecRef()
	if got := w.read(t, "/n/x"); got != "y" {
		t.Fatalf("read %q", got)
	}
	if got := w.read(t, "/n/../m/x"); got != "y" {
		t.Fatalf("read %q", got)
	}
	if err := v.Rmdir(c, at, "/n"); err != unix.EBUSY {
		t.Fatalf("rmdir: %v", err)
	}
	t.Logf("%s", w.ns.MountInfo(c.FS().Root()))
	for _, d := range []string{"/m", "/n"} {
		p, err := v.Walk(c, at, d, vfs.FollowLast)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Umount(c, p, 0); err != nil {
			t.Fatalf("%s: %v", d, err)
		}
		p.DecRef()
	}
	var st vfs.Stat
	if err := v.Stat(c, at, "/m/x", 0, 0, &st); err != unix.ENOENT {
		t.Fatalf("stat: %v", err)
	}
	w.mf.Reclaim()
	if n := w.mf.Allocated(); n != 0 {
		t.Fatalf("%d bytes still allocated", n)
	}
}

func TestStatAllocatesNothing(t *testing.T) {
	w := newWorld(t)
	if err := w.v.Mkdir(w.ctx, vfs.Path{}, "/dir", 0755); err != nil {
		t.Fatal(err)
	}
	w.write(t, "/dir/file", "x")
	var st vfs.Stat
	if n := testing.AllocsPerRun(100, func() {
		if err := w.v.Stat(w.ctx, vfs.Path{}, "/dir/file", vfs.FollowLast, 0, &st); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("stat allocates %v times", n)
	}
	fd, err := w.v.Open(w.ctx, vfs.Path{}, "/dir/file", &vfs.OpenOptions{Flags: unix.O_RDWR})
	if err != nil {
		t.Fatal(err)
	}
	defer fd.DecRef()
	b := make([]byte, 4096)
	s := mm.BytesSeq(b)
	if n := testing.AllocsPerRun(100, func() {
		fd.PWrite(w.ctx, s, 0)
		fd.PRead(w.ctx, s, 0)
	}); n != 0 {
		t.Errorf("pread and pwrite allocate %v times", n)
	}
}

func BenchmarkStat(b *testing.B) {
	w := newWorld(b)
	w.v.Mkdir(w.ctx, vfs.Path{}, "/usr", 0755)
	w.v.Mkdir(w.ctx, vfs.Path{}, "/usr/lib", 0755)
	w.write(b, "/usr/lib/file", "x")
	var st vfs.Stat
	b.ReportAllocs()
	for b.Loop() {
		if err := w.v.Stat(w.ctx, vfs.Path{}, "/usr/lib/file", vfs.FollowLast, 0, &st); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	w := newWorld(b)
	w.write(b, "/file", "x")
	b.ReportAllocs()
	for b.Loop() {
		fd, err := w.v.Open(w.ctx, vfs.Path{}, "/file", &vfs.OpenOptions{})
		if err != nil {
			b.Fatal(err)
		}
		fd.DecRef()
	}
}

func BenchmarkPRead4K(b *testing.B) {
	w := newWorld(b)
	w.write(b, "/file", string(make([]byte, 8192)))
	fd, err := w.v.Open(w.ctx, vfs.Path{}, "/file", &vfs.OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	s := mm.BytesSeq(make([]byte, 4096))
	b.ReportAllocs()
	for b.Loop() {
		fd.PRead(w.ctx, s, 0)
	}
}
