package overlay

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"husk/pkg/sentry/fsimpl/fstest"
	"husk/pkg/sentry/fsimpl/tmpfs"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// dirs and files are what the lower layer holds.
var (
	dirs  = []string{"a", "a/b", "a/b/c", "b", "c", "c/d", "c/d/e"}
	files = []string{"a/a", "a/b/a", "a/b/c/d", "b/e", "c/d/a", "c/c", "d", "c/d/e/e"}
)

// newWorld has an overlay of a tmpfs over another that holds dirs and files.
func newWorld(t testing.TB) *fstest.World {
	typ := (*tmpfs.Type)(nil)
	w := fstest.New(t, func(w *fstest.World) (*vfs.Superblock, error) {
		typ = tmpfs.NewType("tmpfs", w.MF, 1<<30)
		w.V.RegisterFileSystem(typ)
		w.V.RegisterFileSystem(Type{})
		return typ.Mount(w.Ctx, w.V, &vfs.MountOptions{Data: "mode=755"})
	})
	w.V.SetFIFOOpener(fstest.FIFOs{})
	for _, d := range dirs {
		w.Mkdir(t, "/"+d)
	}
	for _, f := range files {
		w.Write(t, "/"+f, "content of "+f)
	}
	lower := w.FS.Root().Mount.Superblock()
	lower.IncRef()
	upper, err := typ.Mount(w.Ctx, w.V, &vfs.MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sb, err := NewOver(w.Ctx, w.V, &vfs.MountOptions{Source: "overlay"}, upper, lower)
	if err != nil {
		t.Fatal(err)
	}
	w.NS = w.V.NewMountNamespace(sb, w.UNS, vfs.MountRelatime)
	root := w.NS.Root()
	w.FS = vfs.NewFSContext(root, root, 022)
	root.DecRef()
	w.Ctx = w.As(0)
	return w
}

func prepare(root string) {
	unix.Umask(022)
	for _, d := range dirs {
		os.Mkdir(filepath.Join(root, d), 0755)
	}
	for _, f := range files {
		os.WriteFile(filepath.Join(root, f), []byte("content of "+f), 0644)
	}
}

func TestDiffer(t *testing.T) {
	seeds := 20
	if testing.Short() {
		seeds = 4
	}
	for seed := range uint64(seeds) {
		newWorld(t).Differ(t, fstest.Options{Steps: 1500, Seed: seed, Prepare: prepare, AnyDirNlink: true, Forget: []int{0, 5, 40}[seed%3]})
		if t.Failed() {
			return
		}
	}
}

func TestCopyUpSeenByReaders(t *testing.T) {
	w := newWorld(t)
	fd, err := w.V.Open(w.Ctx, vfs.Path{}, "/a/a", &vfs.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer fd.DecRef()
	var before, after vfs.Stat
	if err := fd.Stat(w.Ctx, 0, &before); err != nil {
		t.Fatal(err)
	}
	w.Write(t, "/a/a", "new")
	if err := fd.Stat(w.Ctx, 0, &after); err != nil {
		t.Fatal(err)
	}
	if before.Ino != after.Ino || before.Dev != after.Dev || after.Size != 3 {
		t.Fatalf("before %+v, after %+v", before, after)
	}
	if s := w.Read(t, "/a/a"); s != "new" {
		t.Fatalf("%q", s)
	}
	w.Ctx.FS().Root().Dentry.ForgetTree()
	if err := w.V.Stat(w.Ctx, vfs.Path{}, "/a/a", 0, 0, &after); err != nil || before.Ino != after.Ino {
		t.Fatalf("after forgetting: %v, %d, want %d", err, after.Ino, before.Ino)
	}
}

// TestMoveLowerDirectory moves directories that the lower layer holds, and looks again with an empty cache.
func TestMoveLowerDirectory(t *testing.T) {
	w := newWorld(t)
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	move := func(from, to string, flags uint32) error {
		return w.V.Rename(w.Ctx, vfs.Path{}, from, vfs.Path{}, to, flags)
	}
	holds := func(dir string, want ...string) {
		t.Helper()
		for range 2 {
			if got := sorted(w.List(t, dir))[2:]; !slices.Equal(got, want) {
				t.Fatalf("%s holds %q instead of %q", dir, got, want)
			}
			w.FS.Root().Dentry.ForgetTree()
		}
	}
	do(w.V.Unlink(w.Ctx, vfs.Path{}, "/a/a"))
	do(move("/a", "/z", 0))
	holds("/", "b", "c", "d", "z")
	holds("/z", "b")
	w.Mkdir(t, "/a") // must not show what was there
	holds("/a")
	do(move("/z/b", "/a/x", 0))
	holds("/z")
	holds("/a/x", "a", "c")
	holds("/a/x/c", "d")
	if s := w.Read(t, "/a/x/c/d"); s != "content of a/b/c/d" {
		t.Fatal(s)
	}
	w.Write(t, "/a/x/c/d", "new")
	do(move("/a/x/c", "/c2", 0))
	if s := w.Read(t, "/c2/d"); s != "new" {
		t.Fatal(s)
	}
	do(move("/a", "/c", unix.RENAME_EXCHANGE))
	holds("/a", "c", "d")
	holds("/c/x", "a")
	holds("/a/d", "a", "e")
	do(move("/a/d", "/z", 0)) // over an empty directory
	holds("/z", "a", "e")
	do(move("/z", "/a/d", 0)) // and back
	holds("/a/d", "a", "e")
	if s := w.Read(t, "/a/d/e/e"); s != "content of c/d/e/e" {
		t.Fatal(s)
	}
	do(w.V.Unlink(w.Ctx, vfs.Path{}, "/b/e"))
	do(w.V.Rmdir(w.Ctx, vfs.Path{}, "/b"))
	do(move("/a", "/b", 0))
	holds("/b", "c", "d")
	holds("/", "b", "c", "c2", "d")
}

func TestMountType(t *testing.T) {
	w := newWorld(t)
	w.Mkdir(t, "/t")
	q, err := w.V.Walk(w.Ctx, vfs.Path{}, "/t", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer q.DecRef()
	if err := w.V.Mount(w.Ctx, "tmpfs", q, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"/l1", "/l2", "/t/u", "/t/w", "/m", "/l1/x", "/l2/x", "/l2/y"} {
		w.Mkdir(t, d)
	}
	w.Write(t, "/l1/x/f", "upper")
	w.Write(t, "/l2/x/f", "lower")
	w.Write(t, "/l2/x/g", "g")
	p, err := w.V.Walk(w.Ctx, vfs.Path{}, "/m", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.DecRef()
	if err := w.V.Mount(w.Ctx, "overlay", p, "overlay", 0, "lowerdir=/l1:/l2,upperdir=/t/u,workdir=/t/w"); err != nil {
		t.Fatal(err)
	}
	if got := w.List(t, "/m/x"); !slices.Equal(sorted(got), []string{".", "..", "f", "g"}) {
		t.Fatal(got)
	}
	if s := w.Read(t, "/m/x/f"); s != "upper" {
		t.Fatal(s)
	}
	if err := w.V.Unlink(w.Ctx, vfs.Path{}, "/m/x/f"); err != nil {
		t.Fatal(err)
	}
	if err := w.V.Unlink(w.Ctx, vfs.Path{}, "/m/x/g"); err != nil {
		t.Fatal(err)
	}
	if err := w.V.Rmdir(w.Ctx, vfs.Path{}, "/m/x"); err != nil {
		t.Fatal(err)
	}
	w.Mkdir(t, "/m/x")
	if got := w.List(t, "/m/x"); len(got) != 2 {
		t.Fatal(got)
	}
	if !strings.Contains(string(w.NS.MountInfo(w.FS.Root())), "lowerdir=/l1:/l2") {
		t.Fatal("no options in mountinfo")
	}
}

func sorted(l []string) []string {
	slices.Sort(l)
	return l
}

func TestStress(t *testing.T) { newWorld(t).Stress(t, 4, time.Second) }

// TestCopyGrown: the file below has grown since its attributes were asked for, and begins with a hole.
func TestCopyGrown(t *testing.T) {
	w := newWorld(t)
	create := func(name string) *vfs.Inode {
		i, err := w.FS.Root().Inode().Ops().(*inode).fs.layers.Upper.Ops().Create(w.Ctx, name, &vfs.CreateArgs{Mode: unix.S_IFREG | 0o644})
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	from, to := create("from"), create("to")
	defer from.DecRef()
	defer to.DecRef()
	f, err := from.Ops().Open(w.Ctx, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if _, err := f.(vfs.Writer).Write(w.Ctx, mm.BytesSeq([]byte("data")), 1<<20); err != nil {
		t.Fatal(err)
	}
	var st vfs.Stat
	if err := copyData(w.Ctx, from, to, 10); err != nil || to.Ops().Stat(w.Ctx, unix.STATX_BASIC_STATS, &st) != nil || st.Size != 1<<20+4 {
		t.Errorf("%v, size %d", err, st.Size)
	}
}

// dying is the context of a task that is to exit.
type dying struct{ vfs.Context }

func (dying) Killed() bool { return true }

// TestCopyKilled: who is killed while a file is copied up does not wait for the end of that, and the file stays as it is.
func TestCopyKilled(t *testing.T) {
	w := newWorld(t)
	i := w.FS.Root().Inode().Ops().(*inode)
	low, err := i.lower[0].Ops().Create(w.Ctx, "large", &vfs.CreateArgs{Mode: unix.S_IFREG | 0o644})
	if err != nil {
		t.Fatal(err)
	}
	defer low.DecRef()
	if err := low.Ops().SetStat(w.Ctx, &vfs.SetStat{Mask: vfs.SetSize, Size: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	f, err := low.Ops().Open(w.Ctx, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	f.(vfs.Writer).Write(w.Ctx, mm.BytesSeq([]byte("data")), 1<<39)
	f.Release()
	if fd, err := w.V.Open(dying{w.Ctx}, vfs.Path{}, "/large", &vfs.OpenOptions{Flags: unix.O_WRONLY}); err != unix.EINTR {
		t.Fatal(fd, err)
	}
	fd, err := w.V.Open(w.Ctx, vfs.Path{}, "/large", &vfs.OpenOptions{Flags: unix.O_RDONLY})
	if err != nil {
		t.Fatal(err)
	}
	defer fd.DecRef()
	var b [4]byte
	if n, err := fd.PRead(w.Ctx, mm.BytesSeq(b[:]), 1<<39); n != 4 || string(b[:]) != "data" {
		t.Error(n, err)
	}
}
