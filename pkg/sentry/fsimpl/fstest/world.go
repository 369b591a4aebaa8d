package fstest

import (
	"testing"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// World is a VFS with a root file system.
type World struct {
	V   *vfs.VFS
	Ctx vfs.Context
	NS  *vfs.MountNamespace
	MF  *memfile.File
	FS  *vfs.FSContext
	UNS *auth.UserNamespace
}

// New makes a world whose root is what mount gives. Its dentry cache is small, so that names get lost all the time.
func New(t testing.TB, mount func(w *World) (*vfs.Superblock, error)) *World {
	t.Helper()
	mf, err := memfile.New(memfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mf.Close)
	w := &World{V: vfs.New(12), MF: mf, UNS: auth.NewRootUserNamespace()}
	w.Ctx = vfs.NewKernelContext(auth.NewRootCredentials(w.UNS), nil, nil)
	sb, err := mount(w)
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

// As is a context of the user with the ID, which is a member of the group of the same number; 0 is the superuser.
func (w *World) As(uid uint32) vfs.Context {
	c := auth.NewRootCredentials(w.UNS)
	if uid != 0 {
		u, g := auth.KUID(uid), auth.KGID(uid)
		c = &auth.Credentials{RUID: u, EUID: u, SUID: u, FSUID: u, RGID: g, EGID: g, SGID: g, FSGID: g, UserNS: w.UNS}
	}
	return vfs.NewKernelContext(c, w.FS, w.NS)
}

// Write makes a file with the contents.
func (w *World) Write(t testing.TB, path, data string) {
	t.Helper()
	fd, err := w.V.Open(w.Ctx, vfs.Path{}, path, &vfs.OpenOptions{Flags: unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC, Mode: 0644})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer fd.DecRef()
	if n, err := fd.Write(w.Ctx, mm.BytesSeq([]byte(data))); err != nil || n != int64(len(data)) {
		t.Fatalf("%s: write: %d, %v", path, n, err)
	}
}

// Read gives the contents of a file.
func (w *World) Read(t testing.TB, path string) string {
	t.Helper()
	fd, err := w.V.Open(w.Ctx, vfs.Path{}, path, &vfs.OpenOptions{})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer fd.DecRef()
	var out []byte
	b := make([]byte, 64<<10)
	for {
		n, err := fd.Read(w.Ctx, mm.BytesSeq(b))
		if err != nil {
			t.Fatalf("%s: read: %v", path, err)
		}
		if n == 0 {
			return string(out)
		}
		out = append(out, b[:n]...)
	}
}

// Mkdir makes a directory.
func (w *World) Mkdir(t testing.TB, path string) {
	t.Helper()
	if err := w.V.Mkdir(w.Ctx, vfs.Path{}, path, 0755); err != nil {
		t.Fatalf("mkdir %s: %v", path, err)
	}
}

// List gives the names in a directory.
func (w *World) List(t testing.TB, path string) []string {
	t.Helper()
	l, err := list(w.V, w.Ctx, path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return l
}

type names struct {
	l     []string
	burst int
}

// Emit implements vfs.DirSink; it takes a few entries at a time, so that offsets matter.
func (n *names) Emit(name string, ino uint64, typ uint8, next int64) bool {
	if n.burst == 3 {
		return false
	}
	n.burst++
	n.l = append(n.l, name)
	return true
}

func list(v *vfs.VFS, ctx vfs.Context, path string) ([]string, error) {
	fd, err := v.Open(ctx, vfs.Path{}, path, &vfs.OpenOptions{Flags: unix.O_DIRECTORY})
	if err != nil {
		return nil, err
	}
	defer fd.DecRef()
	n := &names{}
	for {
		n.burst = 0
		if err := fd.ReadDir(ctx, n); err != nil {
			return nil, err
		}
		if n.burst == 0 {
			return n.l, nil
		}
	}
}
