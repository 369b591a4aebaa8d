package container

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestCheckID(t *testing.T) {
	for _, id := range []string{"a", "a.b", "A-9_+", "0123456789abcdef"} {
		if CheckID(id) != nil {
			t.Errorf("%q refused", id)
		}
	}
	for _, id := range []string{"", ".", "..", "a/b", "a b", "ä", "a\x00", strings.Repeat("x", 256)} {
		if CheckID(id) == nil {
			t.Errorf("%q accepted", id)
		}
	}
}

// self is a container whose sandbox is this test, in a state.
func self(t *testing.T, root, id string, st Status) *Container {
	t.Helper()
	dir := filepath.Join(root, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := &Container{dir: dir, lock: -1, State: State{ID: id, Sandbox: id, Status: st, PID: os.Getpid(), OCIVersion: "1.0.0"}}
	_, c.StartTime, _ = procStat(c.PID)
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStatus(t *testing.T) {
	root := t.TempDir()
	self(t, root, "up", Running)
	c, err := Load(root, "up", true)
	if err != nil || c.CurrentStatus() != Running {
		t.Fatalf("%v, %v", c, err)
	}
	// Another process with the same id is not the container's.
	c.StartTime++
	if got := c.CurrentStatus(); got != Stopped {
		t.Errorf("with another start time: %s", got)
	}
	c.StartTime--
	c.GoferPID, c.GoferStart = 1<<22, 1
	if got := c.CurrentStatus(); got != Stopped {
		t.Errorf("with a dead gofer: %s", got)
	}
	c.Close()
	if _, err := Load(root, "none", false); !errors.Is(err, ErrNotExist) {
		t.Errorf("missing container: %v", err)
	}
	if _, err := Load(root, "../up", false); !errors.Is(err, ErrInvalidID) {
		t.Errorf("bad id: %v", err)
	}
}

// What a create left that was killed early is a stopped container that can be deleted.
func TestHalfCreated(t *testing.T) {
	root := t.TempDir()
	os.Mkdir(filepath.Join(root, "half"), 0o700)
	holder := &Container{dir: filepath.Join(root, "half"), lock: -1}
	if err := holder.acquire(unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	c, err := Load(root, "half", false)
	if err != nil || c.CurrentStatus() != Creating {
		t.Fatalf("while being created: %v, %v", c, err)
	}
	holder.Close()
	if got := c.CurrentStatus(); got != Stopped {
		t.Errorf("after the creator's death: %s", got)
	}
	c, err = Load(root, "half", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(false, nil); err != nil {
		t.Fatal(err)
	}
	if all, errs := List(root); len(all)+len(errs) != 0 {
		t.Errorf("left behind: %v %v", all, errs)
	}
}

func TestTransitions(t *testing.T) {
	root := t.TempDir()
	run := self(t, root, "run", Running)
	if err := run.StartInit(nil); err == nil || !strings.Contains(err.Error(), "already running") {
		t.Errorf("start while running: %v", err)
	}
	if err := run.Resume(); !errors.Is(err, ErrNotPaused) {
		t.Errorf("resume while running: %v", err)
	}
	if err := run.Delete(false, nil); err == nil || !strings.Contains(err.Error(), "not stopped: running") {
		t.Errorf("delete while running: %v", err)
	}
	dead := self(t, root, "dead", Running)
	dead.StartTime++
	for name, err := range map[string]error{"kill": dead.Signal(15, 0, false), "pause": dead.Pause()} {
		if !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s when stopped: %v", name, err)
		}
	}
	if err := dead.Signal(9, 0, true); err != nil {
		t.Errorf("kill --all when stopped: %v", err)
	}
	if err := dead.StartInit(nil); err == nil {
		t.Error("start when stopped: no error")
	}
	if err := dead.Delete(false, nil); err != nil {
		t.Errorf("delete when stopped: %v", err)
	}
}

func minimal() *specs.Spec {
	return &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{"true"}, Cwd: "/"},
	}
}

func TestCheckSpec(t *testing.T) {
	if err := CheckSpec(minimal()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*specs.Spec){
		"no version":      func(s *specs.Spec) { s.Version = "" },
		"future version":  func(s *specs.Spec) { s.Version = "2.0.0" },
		"no root":         func(s *specs.Spec) { s.Root = nil },
		"no process":      func(s *specs.Spec) { s.Process = nil },
		"no args":         func(s *specs.Spec) { s.Process.Args = nil },
		"relative cwd":    func(s *specs.Spec) { s.Process.Cwd = "tmp" },
		"NUL in args":     func(s *specs.Spec) { s.Process.Args = []string{"a\x00b"} },
		"absurd argument": func(s *specs.Spec) { s.Process.Args = []string{strings.Repeat("x", 1<<20)} },
		"absurd environment": func(s *specs.Spec) {
			for range 1000 {
				s.Process.Env = append(s.Process.Env, strings.Repeat("x", 100000))
			}
		},
		"rlimit":         func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_BOGUS"}} },
		"hostname":       func(s *specs.Spec) { s.Hostname = strings.Repeat("h", 65) },
		"no destination": func(s *specs.Spec) { s.Mounts = []specs.Mount{{Type: "tmpfs"}} },
		"namespace twice": func(s *specs.Spec) {
			s.Linux = &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "pid"}}}
		},
		"unknown namespace": func(s *specs.Spec) { s.Linux = &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "bogus"}}} },
	} {
		s := minimal()
		spoil(s)
		if CheckSpec(s) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLoadSpec(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, SpecFile)
	load := func(content string) error {
		os.WriteFile(config, []byte(content), 0o600)
		_, err := LoadSpec(dir)
		return err
	}
	if _, err := LoadSpec(dir); err == nil || !strings.Contains(err.Error(), "config.json not found") {
		t.Errorf("missing file: %v", err)
	}
	if err := load("{\n\"ociVersion\": \"1.0.0\",\n!}"); err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("malformed file: %v", err)
	}
	ok := `{"ociVersion":"1.0.0","root":{"path":"rootfs"},"process":{"args":["true"],"cwd":"/"}}`
	if err := load(ok); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("missing root: %v", err)
	}
	os.Symlink("/", filepath.Join(dir, "rootfs"))
	if err := load(ok); err == nil || !strings.Contains(err.Error(), "symlink") {
		t.Errorf("root is a link: %v", err)
	}
	os.Remove(filepath.Join(dir, "rootfs"))
	os.Mkdir(filepath.Join(dir, "rootfs"), 0o755)
	if err := load(ok); err != nil {
		t.Error(err)
	}
}

func TestToMount(t *testing.T) {
	dir := t.TempDir()
	m, a, err := toMount(&specs.Mount{Destination: "/x", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "exec", "ro", "mode=755", "size=64k", "rslave"}})
	if err != nil || a != nil || m.Data != "mode=755,size=64k" || m.Flags != unix.MS_NOSUID|unix.MS_RDONLY || m.Propagation != unix.MS_SLAVE|unix.MS_REC {
		t.Errorf("%+v %+v %v", m, a, err)
	}
	m, a, err = toMount(&specs.Mount{Destination: "/x", Type: "none", Source: dir, Options: []string{"rbind", "ro"}})
	if err != nil || m.Type != GoferType || a == nil || !a.Recursive || !a.ReadOnly || a.Path != dir {
		t.Errorf("%+v %+v %v", m, a, err)
	}
	if _, _, err = toMount(&specs.Mount{Destination: "/x", Type: "bind", Source: dir + "/none"}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing source: %v", err)
	}
}

// Every option that features lists is understood.
func TestMountOptions(t *testing.T) {
	for _, o := range MountOptions() {
		if _, _, ok := mountOption(o); !ok && o != "bind" && o != "rbind" {
			t.Errorf("%s is not understood", o)
		}
	}
}

func TestCapabilities(t *testing.T) {
	if CapNumber("CAP_CHOWN") != 0 || CapNumber("sys_admin") != unix.CAP_SYS_ADMIN || CapNumber("CAP_CHECKPOINT_RESTORE") != unix.CAP_LAST_CAP {
		t.Error("capability numbers are off")
	}
	if CapNumber("CAP_BOGUS") != -1 || CapName(-1) != "" || CapName(99) != "" {
		t.Error("unknown capabilities are known")
	}
}

func TestHook(t *testing.T) {
	st := &specs.State{ID: "x", Bundle: t.TempDir()}
	if err := runHook(&specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", `grep -q '"id":"x"'`}}, st); err != nil {
		t.Error(err)
	}
	err := runHook(&specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo out; echo bad >&2; exit 3"}}, st)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "bad") {
		t.Error(err)
	}
	one := 1
	if err := runHook(&specs.Hook{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Timeout: &one}, st); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Error(err)
	}
	if err := runHook(&specs.Hook{Path: "/none"}, st); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}
