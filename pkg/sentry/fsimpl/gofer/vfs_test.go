package gofer

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// mounted is a harness with the directory as the root of a mount namespace.
func mounted(t testing.TB, o Options) *harness { return mountedOn(t, t.TempDir(), o) }

func mountedOn(t testing.TB, dir string, o Options) *harness {
	h := setupOn(t, dir, o)
	userns := auth.NewRootUserNamespace()
	ns := h.v.NewMountNamespace(h.sb, userns, 0)
	root := ns.Root()
	h.ctx = vfs.NewKernelContext(auth.NewRootCredentials(userns), vfs.NewFSContext(root, root, 0o22), ns)
	return h
}

func (h *harness) open(path string, flags, mode uint32) (*vfs.FileDescription, error) {
	return h.v.Open(h.ctx, vfs.Path{}, path, &vfs.OpenOptions{Flags: flags, Mode: mode})
}

func (h *harness) readDir(path string) ([]string, error) {
	fd, err := h.open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer fd.DecRef()
	var names []string
	for {
		s := &sink{max: 5}
		if err := fd.ReadDir(h.ctx, s); err != nil {
			return nil, err
		}
		if len(s.names) == 0 {
			slices.Sort(names)
			return names, nil
		}
		names = append(names, s.names...)
	}
}

// oracle does the same operations on a directory of the host, by system calls.
type oracle struct{ dir string }

func (o oracle) path(p string) string { return o.dir + "/" + p }

// tree describes all files below a directory of the host.
func tree(t *testing.T, dir string) (out []string) {
	inodes := map[uint64]int{}
	filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		if inodes[st.Ino] == 0 {
			inodes[st.Ino] = len(inodes) + 1
		}
		line := fmt.Sprintf("%s %o %d:%d %d %d", path[len(dir):], st.Mode, st.Uid, st.Gid, st.Nlink, inodes[st.Ino])
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, _ := os.ReadFile(path)
			line += fmt.Sprintf(" %q", b)
		case unix.S_IFLNK:
			s, _ := os.Readlink(path)
			line += " -> " + s
		}
		out = append(out, line)
		return nil
	})
	return out
}

// TestAgainstHost does random operations through the whole stack on one directory and by system calls on
// another. Errors, attributes, listings and the trees at the end must be the same.
func TestAgainstHost(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("shared=", shared), func(t *testing.T) {
			h := mounted(t, Options{Shared: shared, MaxIdle: 4})
			o := oracle{t.TempDir()}
			os.Chmod(o.dir, 0o755)
			os.Chmod(h.dir, 0o755)
			old := unix.Umask(0o22)
			defer unix.Umask(old)
			r := rand.New(rand.NewSource(11))
			steps := 6000
			if testing.Short() {
				steps = 2500
			}
			for n := range steps {
				what, got, want := step(h, o, r, n)
				if got != want {
					t.Fatalf("step %d: %s: %v, on the host %v", n, what, got, want)
				}
			}
			if a, b := tree(t, h.dir), tree(t, o.dir); !slices.Equal(a, b) {
				for k := range max(len(a), len(b)) {
					if k >= len(a) || k >= len(b) || a[k] != b[k] {
						t.Fatalf("trees differ from line %d on:\n%v\n%v", k, a[k:], b[k:])
					}
				}
			}
		})
	}
}

// step does one operation on both sides and describes the results.
func step(h *harness, o oracle, r *rand.Rand, n int) (what, got, want string) {
	names := [...]string{"a", "b", "c", "d", "e"}
	var path func(depth int) string
	path = func(depth int) string {
		p := names[r.Intn(len(names))]
		if depth > 0 && r.Intn(3) > 0 {
			p = path(depth-1) + "/" + p
		}
		if r.Intn(40) == 0 {
			p += "/.."
		}
		return p
	}
	p, q := path(3), path(3)
	none := vfs.Path{}
	result := func(what string, got, want error) (string, string, string) {
		return fmt.Sprintf("%s %s %s", what, p, q), fmt.Sprint(got), fmt.Sprint(want)
	}
	switch r.Intn(16) {
	case 0, 1:
		return result("mkdir", h.v.Mkdir(h.ctx, none, p, 0o777), unix.Mkdir(o.path(p), 0o777))
	case 2, 3, 4:
		flags := []int{unix.O_CREAT | unix.O_WRONLY, unix.O_CREAT | unix.O_EXCL | unix.O_RDWR, unix.O_CREAT | unix.O_TRUNC | unix.O_WRONLY, unix.O_WRONLY | unix.O_APPEND, unix.O_RDWR}[r.Intn(5)]
		data := []byte(fmt.Sprint("data ", n))
		f, err1 := h.open(p, uint32(flags), 0o666)
		g, err2 := unix.Open(o.path(p), flags, 0o666)
		if err1 == nil {
			f.Write(h.ctx, mm.BytesSeq(data))
			f.DecRef()
		}
		if err2 == nil {
			unix.Write(g, data)
			unix.Close(g)
		}
		return result(fmt.Sprintf("write %#x", flags), err1, err2)
	case 5:
		return result("unlink", h.v.Unlink(h.ctx, none, p), unix.Unlink(o.path(p)))
	case 6:
		return result("rmdir", h.v.Rmdir(h.ctx, none, p), unix.Rmdir(o.path(p)))
	case 7, 8:
		flags := []uint{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[r.Intn(4)]
		return result(fmt.Sprint("rename ", flags), h.v.Rename(h.ctx, none, p, none, q, uint32(flags)), unix.Renameat2(unix.AT_FDCWD, o.path(p), unix.AT_FDCWD, o.path(q), flags))
	case 9:
		return result("link", h.v.Link(h.ctx, none, p, none, q, 0), unix.Link(o.path(p), o.path(q)))
	case 10:
		target := names[r.Intn(len(names))]
		return result("symlink "+target, h.v.Symlink(h.ctx, target, none, p), unix.Symlink(target, o.path(p)))
	case 11:
		var a vfs.Stat
		var b unix.Stat_t
		flags := vfs.LookupFlags(0)
		err1, err2 := error(nil), error(nil)
		if r.Intn(2) == 0 {
			err2 = unix.Lstat(o.path(p), &b)
		} else {
			flags = vfs.FollowLast
			err2 = unix.Stat(o.path(p), &b)
		}
		err1 = h.v.Stat(h.ctx, none, p, flags, unix.STATX_BASIC_STATS, &a)
		if a.Mode&unix.S_IFMT == unix.S_IFDIR { // the size of directories depends on their past
			a.Size, b.Size = 0, 0
		}
		return fmt.Sprintf("stat %s", p), fmt.Sprint(err1, a.Mode, a.Nlink, a.Size, a.UID, a.GID), fmt.Sprint(err2, b.Mode, b.Nlink, b.Size, b.Uid, b.Gid)
	case 12:
		list, err1 := h.readDir(p)
		ents, err2 := os.ReadDir(o.path(p))
		names := []string{".", ".."}
		for _, e := range ents {
			names = append(names, e.Name())
		}
		if err2 != nil {
			return "readdir " + p, fmt.Sprint(err1 != nil), fmt.Sprint(err2 != nil)
		}
		slices.Sort(names)
		return "readdir " + p, fmt.Sprint(list, err1), fmt.Sprint(names, err2)
	case 13:
		mode := uint32(r.Intn(0o1000)) | 0o700
		return result("chmod", h.v.SetStat(h.ctx, none, p, vfs.FollowLast, &vfs.SetStat{Mask: vfs.SetMode, Mode: mode}), unix.Chmod(o.path(p), mode))
	case 14:
		uid := r.Intn(5)
		return result("chown", h.v.SetStat(h.ctx, none, p, 0, &vfs.SetStat{Mask: vfs.SetUID | vfs.SetGID, UID: auth.KUID(uid), GID: 9}), unix.Lchown(o.path(p), uid, 9))
	}
	size := int64(r.Intn(20))
	return result("truncate", h.v.SetStat(h.ctx, none, p, vfs.FollowLast, &vfs.SetStat{Mask: vfs.SetSize, Size: size}), unix.Truncate(o.path(p), size))
}

// TestHostChanges changes a shared directory on the host below the sentry's caches.
func TestHostChanges(t *testing.T) {
	h := mounted(t, Options{Shared: true})
	h.must(os.Mkdir(h.dir+"/d", 0o755))
	content := func(path string) string {
		fd, err := h.open(path, unix.O_RDONLY, 0)
		if err != nil {
			return err.Error()
		}
		defer fd.DecRef()
		b := make([]byte, 100)
		n, err := fd.Read(h.ctx, mm.BytesSeq(b))
		if err != nil {
			return err.Error()
		}
		return string(b[:n])
	}
	check := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("missing", content("d/f"), "no such file or directory")
	h.write("d/f", "one")
	check("created", content("d/f"), "one")
	h.write("d/f", "three")
	check("changed", content("d/f"), "three")
	h.write("d/g", "other")
	h.must(os.Rename(h.dir+"/d/g", h.dir+"/d/f"))
	check("replaced", content("d/f"), "other")
	h.must(os.Rename(h.dir+"/d", h.dir+"/e"))
	check("moved away", content("d/f"), "no such file or directory")
	check("moved", content("e/f"), "other")
	h.must(os.Symlink("/etc", h.dir+"/d"))
	check("link to a path that is not here", content("d/passwd"), "no such file or directory")
}

// TestParallel has tasks work in the same directories.
func TestParallel(t *testing.T) {
	h := mounted(t, Options{MaxIdle: 2})
	for k := range 4 {
		h.must(os.Mkdir(fmt.Sprint(h.dir, "/", k), 0o755))
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx := vfs.NewKernelContext(h.ctx.Credentials(), h.ctx.FS(), h.ctx.MountNS())
			r := rand.New(rand.NewSource(int64(g)))
			none := vfs.Path{}
			for n := range 300 {
				p := fmt.Sprintf("%d/f%d", r.Intn(4), r.Intn(6))
				q := fmt.Sprintf("%d/f%d", r.Intn(4), r.Intn(6))
				switch r.Intn(5) {
				case 0, 1:
					fd, err := h.v.Open(ctx, none, p, &vfs.OpenOptions{Flags: unix.O_CREAT | unix.O_RDWR, Mode: 0o644})
					if err != nil {
						t.Errorf("open %s: %v", p, err)
						continue
					}
					data := []byte(fmt.Sprint(g, n))
					fd.PWrite(ctx, mm.BytesSeq(data), 0)
					fd.PRead(ctx, mm.BytesSeq(data), 0)
					fd.DecRef()
				case 2:
					if err := h.v.Rename(ctx, none, p, none, q, 0); err != nil && err != unix.ENOENT {
						t.Errorf("rename: %v", err)
					}
				case 3:
					if err := h.v.Unlink(ctx, none, p); err != nil && err != unix.ENOENT {
						t.Errorf("unlink: %v", err)
					}
				case 4:
					var st vfs.Stat
					if err := h.v.Stat(ctx, none, p, 0, unix.STATX_BASIC_STATS, &st); err != nil && err != unix.ENOENT {
						t.Errorf("stat: %v", err)
					}
				}
			}
		}()
	}
	wg.Wait()
}

func TestTmpfileLink(t *testing.T) {
	h := mounted(t, Options{})
	fd, err := h.open(".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	h.must(err)
	fd.Write(h.ctx, mm.BytesSeq([]byte("x")))
	h.must(h.v.Link(h.ctx, fd.Path(), "", vfs.Path{}, "named", vfs.EmptyPath))
	fd.DecRef()
	if b, err := os.ReadFile(h.dir + "/named"); string(b) != "x" {
		t.Error(b, err)
	}
}

func BenchmarkStatPath5(b *testing.B) {
	h := mounted(b, Options{})
	h.must(os.MkdirAll(h.dir+"/a/b/c/d", 0o755))
	h.write("a/b/c/d/f", "x")
	var st vfs.Stat
	for b.Loop() {
		if err := h.v.Stat(h.ctx, vfs.Path{}, "/a/b/c/d/f", 0, unix.STATX_BASIC_STATS, &st); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenPath(b *testing.B) {
	h := mounted(b, Options{})
	h.write("f", "x")
	for b.Loop() {
		fd, err := h.open("/f", unix.O_RDONLY, 0)
		if err != nil {
			b.Fatal(err)
		}
		fd.DecRef()
	}
}

// walkTree does what find does with a stat of each file, or tar; it returns how many entries there are.
func (h *harness) walkTree(b *testing.B, dir string, o order, open bool) int {
	fd, err := h.open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	h.must(err)
	defer fd.DecRef()
	s := &sink{max: 1 << 20}
	h.must(fd.ReadDir(h.ctx, s))
	if o == byName {
		slices.Sort(s.names)
	}
	n := len(s.names)
	for _, name := range s.names {
		if name == "." || name == ".." {
			continue
		}
		var st vfs.Stat
		if err := h.v.Stat(h.ctx, fd.Path(), name, 0, unix.STATX_BASIC_STATS, &st); err != nil {
			b.Fatal(name, err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			n += h.walkTree(b, dir+"/"+name, o, open)
		case unix.S_IFREG:
			if open {
				f, err := h.v.Open(h.ctx, fd.Path(), name, &vfs.OpenOptions{})
				h.must(err)
				f.DecRef()
			}
		}
	}
	return n
}

// BenchmarkWalkTree walks through a tree of 100 directories of 3 files and 10 of 100 that nothing is known of.
func BenchmarkWalkTree(b *testing.B) {
	dir := b.TempDir()
	for d := range 110 {
		sub := fmt.Sprintf("%s/d%d", dir, d)
		os.Mkdir(sub, 0o755)
		n := 3
		if d%11 == 0 {
			n = 100
		}
		for k := range n {
			os.WriteFile(fmt.Sprintf("%s/f%d", sub, k), nil, 0o644)
		}
	}
	for _, open := range []bool{false, true} {
		b.Run(map[bool]string{false: "stat", true: "open"}[open], func(b *testing.B) {
			n := 0
			for b.Loop() {
				b.StopTimer()
				h := mountedOn(b, dir, Options{MaxIdle: 512})
				h.v.SetCacheSize(200) // the limit of descriptors may be low
				b.StartTimer()
				n += h.walkTree(b, ".", listed, open)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/entry")
		})
	}
}
