package tmpfs

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"husk/pkg/sentry/fsimpl/fstest"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// newWorld is a namespace with a tmpfs as root.
func newWorld(t testing.TB) *fstest.World { return worldOn(t, nil) }

// worldOn has its data in disk, or in memory.
func worldOn(t testing.TB, disk *memfile.File) *fstest.World {
	w := fstest.New(t, func(w *fstest.World) (*vfs.Superblock, error) {
		if disk != nil {
			w.MF = disk
		}
		typ := NewType("tmpfs", w.MF, 1<<30)
		w.V.RegisterFileSystem(typ)
		return typ.Mount(w.Ctx, w.V, &vfs.MountOptions{Data: "mode=755"})
	})
	w.V.SetFIFOOpener(fstest.FIFOs{})
	return w
}

func TestDiffer(t *testing.T) {
	seeds := 20
	if testing.Short() {
		seeds = 4
	}
	for seed := range uint64(seeds) {
		newWorld(t).Differ(t, fstest.Options{Steps: 3000, Seed: seed})
		if t.Failed() {
			return
		}
	}
}

func TestDisk(t *testing.T) {
	fd, err := unix.Open(t.TempDir(), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0600)
	if err != nil {
		t.Skip(err)
	}
	mf, err := memfile.New(memfile.Options{FD: fd, Unmapped: true, Size: 1 << 36})
	if err != nil {
		t.Fatal(err)
	}
	defer mf.Close()
	worldOn(t, mf).Differ(t, fstest.Options{Steps: 3000, Seed: 100})
	w := worldOn(t, mf)
	big := strings.Repeat("0123456789abcdef", 10000)
	w.Write(t, "/f", big)
	if w.Read(t, "/f") != big {
		t.Error("contents differ")
	}
}

func TestFiles(t *testing.T) {
	w := newWorld(t)
	v, c, at := w.V, w.Ctx, vfs.Path{}
	if err := v.Mkdir(c, at, "/a/", 0777); err != nil {
		t.Fatal(err)
	}
	w.Write(t, "/a/f", "hello")
	if got := w.Read(t, "a/./../a//f"); got != "hello" {
		t.Fatalf("read %q", got)
	}
	if err := v.Symlink(c, "a", at, "/l"); err != nil {
		t.Fatal(err)
	}
	if got := w.Read(t, "/l/f"); got != "hello" {
		t.Fatalf("read %q", got)
	}
	if err := v.Rename(c, at, "/a", at, "/b", 0); err != nil {
		t.Fatal(err)
	}
	if got := w.Read(t, "/b/f"); got != "hello" {
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
	v, c, at := w.V, w.Ctx, vfs.Path{}
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
	w.Write(t, "/m/x", "y")
	q, _ := v.Walk(c, at, "/n", vfs.FollowLast)
	if err := v.Mount(c, "/m", q, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	q.DecRef()
	if got := w.Read(t, "/n/x"); got != "y" {
		t.Fatalf("read %q", got)
	}
	if got := w.Read(t, "/n/../m/x"); got != "y" {
		t.Fatalf("read %q", got)
	}
	if err := v.Rmdir(c, at, "/n"); err != unix.EBUSY {
		t.Fatalf("rmdir: %v", err)
	}
	t.Logf("%s", w.NS.MountInfo(c.FS().Root()))
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
	w.MF.Reclaim()
	if n := w.MF.Allocated(); n != 0 {
		t.Fatalf("%d bytes still allocated", n)
	}
}

// TestColdAndWarm reads and overwrites data that the host wrote, before and after the sentry uses it as memory.
func TestColdAndWarm(t *testing.T) {
	w := newWorld(t)
	fd, err := w.V.Open(w.Ctx, vfs.Path{}, "/file", &vfs.OpenOptions{Flags: unix.O_RDWR | unix.O_CREAT, Mode: 0600})
	if err != nil {
		t.Fatal(err)
	}
	defer fd.DecRef()
	r := fd.Impl().(*regFile).reg
	want := make([]byte, 5*pageSize+17)
	b := make([]byte, len(want)+100)
	change := func(off, n int) {
		for i := range want[off : off+n] {
			want[off+i] += byte(off + i + 1)
		}
		if k, err := fd.PWrite(w.Ctx, mm.BytesSeq(want[off:off+n]), int64(off)); k != int64(n) || err != nil {
			t.Fatal(k, err)
		}
	}
	change(pageSize+10, 4*pageSize)
	for i := range 20 {
		if cold := r.cold > 0; cold != (i < 3) {
			t.Errorf("read %d: %d", i, r.cold)
		}
		size := len(want)
		if i == 0 {
			size = 5*pageSize + 10
		}
		if n, err := fd.PRead(w.Ctx, mm.BytesSeq(b), 0); n != int64(size) || err != nil || !bytes.Equal(b[:size], want[:size]) {
			t.Fatalf("read %d: %d bytes, %v", i, n, err)
		}
		if i == 0 {
			change(5*pageSize, 17)
		}
		change(i*1000, 100)
	}
}

func TestHotPathsAllocateNothing(t *testing.T) {
	w := newWorld(t)
	if err := w.V.Mkdir(w.Ctx, vfs.Path{}, "/dir", 0755); err != nil {
		t.Fatal(err)
	}
	w.Write(t, "/dir/file", "x")
	var st vfs.Stat
	if n := testing.AllocsPerRun(100, func() {
		if err := w.V.Stat(w.Ctx, vfs.Path{}, "/dir/file", vfs.FollowLast, 0, &st); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("stat allocates %v times", n)
	}
	o := vfs.OpenOptions{Flags: unix.O_RDWR}
	if n := testing.AllocsPerRun(100, func() {
		fd, err := w.V.Open(w.Ctx, vfs.Path{}, "/dir/file", &o)
		if err != nil {
			t.Fatal(err)
		}
		fd.DecRef()
	}); n != 0 {
		t.Errorf("open and close allocate %v times", n)
	}
	fd, err := w.V.Open(w.Ctx, vfs.Path{}, "/dir/file", &vfs.OpenOptions{Flags: unix.O_RDWR})
	if err != nil {
		t.Fatal(err)
	}
	defer fd.DecRef()
	b := make([]byte, 4096)
	s := mm.BytesSeq(b)
	if n := testing.AllocsPerRun(100, func() {
		fd.PWrite(w.Ctx, s, 0)
		fd.PRead(w.Ctx, s, 0)
	}); n != 0 {
		t.Errorf("pread and pwrite allocate %v times", n)
	}
}

func BenchmarkStat(b *testing.B) {
	w := newWorld(b)
	w.V.Mkdir(w.Ctx, vfs.Path{}, "/usr", 0755)
	w.V.Mkdir(w.Ctx, vfs.Path{}, "/usr/lib", 0755)
	w.Write(b, "/usr/lib/file", "x")
	var st vfs.Stat
	b.ReportAllocs()
	for b.Loop() {
		if err := w.V.Stat(w.Ctx, vfs.Path{}, "/usr/lib/file", vfs.FollowLast, 0, &st); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	w := newWorld(b)
	w.Write(b, "/file", "x")
	b.ReportAllocs()
	for b.Loop() {
		fd, err := w.V.Open(w.Ctx, vfs.Path{}, "/file", &vfs.OpenOptions{})
		if err != nil {
			b.Fatal(err)
		}
		fd.DecRef()
	}
}

func BenchmarkPRead4K(b *testing.B) {
	w := newWorld(b)
	w.Write(b, "/file", string(make([]byte, 8192)))
	fd, err := w.V.Open(w.Ctx, vfs.Path{}, "/file", &vfs.OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	s := mm.BytesSeq(make([]byte, 4096))
	b.ReportAllocs()
	for b.Loop() {
		fd.PRead(w.Ctx, s, 0)
	}
}

func TestStress(t *testing.T) {
	w := newWorld(t)
	w.Stress(t, 4, time.Second)
	w.NS.DecRef()
	w.Ctx.FS().Release()
	w.MF.Reclaim()
	if n := w.MF.Allocated(); n != 0 {
		t.Errorf("%d bytes still allocated", n)
	}
}

func TestHeapPerFile(t *testing.T) {
	w := newWorld(t)
	w.Mkdir(t, "/d")
	const n = 100000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for k := range n {
		w.Write(t, fmt.Sprintf("/d/file%d", k), "x")
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(w)
	if per := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; per > 700 {
		t.Errorf("%d bytes of heap per file", per)
	} else {
		t.Logf("%d bytes of heap per file", per)
	}
}

func BenchmarkWrite1M(b *testing.B) {
	w := newWorld(b)
	fd, err := w.V.Open(w.Ctx, vfs.Path{}, "/f", &vfs.OpenOptions{Flags: unix.O_CREAT | unix.O_RDWR})
	if err != nil {
		b.Fatal(err)
	}
	s := mm.BytesSeq(make([]byte, 1<<20))
	b.SetBytes(16 << 20)
	for b.Loop() {
		for off := int64(0); off < 16<<20; off += 1 << 20 {
			fd.PWrite(w.Ctx, s, off)
		}
		fd.SetStat(w.Ctx, &vfs.SetStat{Mask: vfs.SetSize})
	}
}

func TestFileCapabilitiesGoWithWrites(t *testing.T) {
	w := newWorld(t)
	w.Write(t, "/f", "x")
	p, err := w.V.Walk(w.Ctx, vfs.Path{}, "/f", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.DecRef()
	const name = "security.capability"
	for _, change := range []func(){
		func() { w.Write(t, "/f", "y") },
		func() { w.V.SetStatPath(w.Ctx, p, &vfs.SetStat{Mask: vfs.SetUID, UID: 1}) },
	} {
		if err := w.V.SetXattr(w.Ctx, p, name, []byte("caps"), 0); err != nil {
			t.Fatal(err)
		}
		change()
		if _, err := w.V.GetXattr(w.Ctx, p, name); err != unix.ENODATA {
			t.Fatalf("after the change: %v", err)
		}
	}
}
