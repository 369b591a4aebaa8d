package syscalls_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"husk/pkg/platform"
	"husk/pkg/platform/ptrace"
	"husk/pkg/platform/systrap"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/tmpfs"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/syscalls"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// sandbox is a kernel with an empty tmpfs as its root.
type sandbox struct {
	t   *testing.T
	k   *kernel.Kernel
	v   *vfs.VFS
	ct  *kernel.Container
	ctx vfs.Context
	ns  *vfs.MountNamespace
}

// capture is a file that keeps what is written to it.
type capture struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (c *capture) Release() {}

func (c *capture) WriteStream(_ vfs.Context, src mm.IOSeq) (int64, error) {
	b := make([]byte, src.NumBytes())
	n, err := src.CopyIn(b)
	c.mu.Lock()
	c.buf.Write(b[:n])
	c.mu.Unlock()
	return int64(n), err
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}

func newSandbox(t *testing.T, p platform.Platform) *sandbox {
	t.Helper()
	mf, err := memfile.New(memfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	v := vfs.New(0)
	tab := syscalls.New()
	k, err := kernel.New(kernel.Config{Platform: p, MemFile: mf, VFS: v, Table: &tab.SyscallTable, HostName: "box", Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	user := k.RootUserNamespace()
	creds := auth.NewRootCredentials(user)
	typ := tmpfs.NewType("tmpfs", mf, 1<<30)
	sb, err := typ.Mount(vfs.NewKernelContext(creds, nil, nil), v, &vfs.MountOptions{Source: "none"})
	if err != nil {
		t.Fatal(err)
	}
	ns := v.NewMountNamespace(sb, user, 0)
	root := ns.Root()
	s := &sandbox{t: t, k: k, v: v, ns: ns, ctx: vfs.NewKernelContext(creds, vfs.NewFSContext(root, root, 022), ns)}
	root.DecRef()
	if s.ct, err = k.NewContainer(&kernel.ContainerConfig{ID: "test", MountNS: ns}); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("HUSK_STRACE") != "" {
		k.SetStrace(syscalls.NewStrace(tab, func(s string) { t.Log(s) }))
	}
	return s
}

// put stores a file with execute permission.
func (s *sandbox) put(path string, data []byte) {
	s.t.Helper()
	fd, err := s.v.Open(s.ctx, vfs.Path{}, path, &vfs.OpenOptions{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0755})
	if err != nil {
		s.t.Fatal(err)
	}
	defer fd.DecRef()
	if n, err := fd.Write(s.ctx, mm.BytesSeq(data)); err != nil || int(n) != len(data) {
		s.t.Fatal(n, err)
	}
}

// populate makes the root look like a small system: directories, and busybox for the commands, where the host has it.
func (s *sandbox) populate() {
	s.t.Helper()
	for _, d := range []string{"/bin", "/tmp", "/dev", "/etc", "/proc"} {
		if err := s.v.Mkdir(s.ctx, vfs.Path{}, d, 0777); err != nil {
			s.t.Fatal(err)
		}
	}
	s.put("/dev/null", nil)
	fd, err := s.v.Open(s.ctx, vfs.Path{}, "/etc/passwd", &vfs.OpenOptions{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0644})
	if err != nil {
		s.t.Fatal(err)
	}
	fd.DecRef()
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return
	}
	s.put("/bin/busybox", b)
	for _, n := range []string{"sh", "true", "false", "cat", "echo", "sleep", "ls", "env", "test"} {
		if err := s.v.Symlink(s.ctx, "busybox", vfs.Path{}, "/bin/"+n); err != nil {
			s.t.Fatal(err)
		}
	}
}

// start runs a program with its output captured.
func (s *sandbox) start(argv ...string) (*kernel.ThreadGroup, *capture) {
	s.t.Helper()
	out := &capture{}
	files := s.v.NewFDTable()
	fd := s.v.NewAnonFile("anon_inode:[test]", out, unix.O_RDWR)
	for range 3 {
		if _, err := files.Install(s.ctx, fd, 0, false); err != nil {
			s.t.Fatal(err)
		}
	}
	fd.DecRef()
	tg, err := s.k.CreateProcess(&kernel.CreateProcessArgs{Container: s.ct, Filename: argv[0], Argv: argv, FDs: files, Envv: []string{"PATH=/bin:/"}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.k.StartProcess(tg)
	return tg, out
}

// run is start and the wait for the end.
func (s *sandbox) run(argv ...string) (int32, string) {
	s.t.Helper()
	tg, out := s.start(argv...)
	select {
	case <-tg.Done():
	case <-time.After(30 * time.Second):
		s.t.Fatalf("%v does not end; output so far: %q", argv, out.String())
	}
	return tg.ExitStatus(), out.String()
}

// eachPlatform runs f with every platform.
func eachPlatform(t *testing.T, f func(t *testing.T, p platform.Platform)) {
	for _, x := range []struct {
		name string
		new  func() (platform.Platform, error)
	}{
		{"ptrace", func() (platform.Platform, error) { return ptrace.New() }},
		{"systrap", systrap.New},
	} {
		t.Run(x.name, func(t *testing.T) {
			p, err := x.new()
			if err != nil {
				t.Skip(err)
			}
			defer p.Release()
			f(t, p)
		})
	}
}

// compile builds a static C program; the test is skipped where there is no compiler.
func compile(t *testing.T, src string, flags ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	c, out := filepath.Join(dir, "p.c"), filepath.Join(dir, "p")
	if err := os.WriteFile(c, []byte(src), 0644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("gcc", append([]string{"-static", "-O1", "-w", "-o", out, c}, flags...)...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("no static C programs here: %v: %s", err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReturn(t *testing.T) {
	prog := compile(t, `int main(int c, char **v) { return c == 2 ? 42 : 1; }`)
	eachPlatform(t, func(t *testing.T, p platform.Platform) {
		s := newSandbox(t, p)
		s.put("/p", prog)
		if st, out := s.run("/p", "x"); st != 42<<8 {
			t.Fatalf("status %#x, output %q", st, out)
		}
	})
}
