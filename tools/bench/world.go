package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// runtime is an OCI runtime: its name in the tables and the start of its command line.
type runtime struct {
	name string
	args []string
}

// The columns.
const (
	native  = "native"
	runc    = "runc"
	systrap = "systrap"
	ptrace  = "ptrace"
)

// world is the bundles that all runtimes run.
type world struct {
	dir      string
	runtimes map[string]runtime
	serial   int
	mounted  bool // the image is mounted

	mu       sync.Mutex
	detached [][2]string // column and ID of containers that do not end with their input; guarded by mu
}

// detach notes that a container has to be deleted, whatever happens.
func (w *world) detach(column, id string) {
	w.mu.Lock()
	w.detached = append(w.detached, [2]string{column, id})
	w.mu.Unlock()
}

// deleteDetached deletes the containers that detach has noted.
func (w *world) deleteDetached() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.detached {
		w.command(d[0], "delete", "--force", d[1]).Run()
	}
	w.detached = nil
}

func newWorld(runscPath, runcPath string) (*world, error) {
	runscPath, err := filepath.Abs(runscPath)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hb")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, runtimes: map[string]runtime{
		runc:    {runc, []string{runcPath, "--root", filepath.Join(dir, "s", runc)}},
		systrap: {systrap, []string{runscPath, "--root", filepath.Join(dir, "s", systrap), "--platform=systrap"}},
		ptrace:  {ptrace, []string{runscPath, "--root", filepath.Join(dir, "s", ptrace), "--platform=ptrace"}},
	}}
	if err := w.makeRootfs(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// close removes everything.
func (w *world) close() {
	w.deleteDetached()
	if w.mounted {
		unix.Unmount(filepath.Join(w.dir, "image", "rootfs"), unix.MNT_DETACH)
		unix.Unmount(filepath.Join(w.dir, "image", "layer"), unix.MNT_DETACH)
	}
	os.RemoveAll(w.dir)
}

// closeOnSignal removes everything when the command is told to end: containers end by themselves, with their input.
func (w *world) closeOnSignal() {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGINT, unix.SIGTERM)
	<-ch
	w.close()
	os.Exit(1)
}

// imageSize is the size of the file that the rows "image-" of the microbenchmarks read.
const imageSize = 16 << 20

// makeRootfs builds a root file system of busybox and the microbenchmarks in the bundle "small".
func (w *world) makeRootfs() error {
	root := filepath.Join(w.dir, "small", "rootfs")
	for _, d := range []string{"bin", "proc", "dev", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	for _, name := range []string{"true", "sleep", "sh"} {
		if err := os.WriteFile(filepath.Join(root, "bin", name), busybox, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "image.16m"), make([]byte, imageSize), 0o644); err != nil {
		return err
	}
	gcc := exec.Command("gcc", "-O2", "-static", "-pthread", "-o", filepath.Join(root, "bin", "micro"), "test/perf/c/micro.c")
	if out, err := gcc.CombinedOutput(); err != nil {
		return fmt.Errorf("gcc: %v\n%s", err, out)
	}
	return nil
}

// mountImage makes the bundle "image", whose root is that of this machine, with what is written going to memory: as an engine
// would give it to a container.
func (w *world) mountImage() error {
	if w.mounted {
		return nil
	}
	layer, root := filepath.Join(w.dir, "image", "layer"), filepath.Join(w.dir, "image", "rootfs")
	for _, d := range []string{layer, root} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("tmpfs", layer, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	w.mounted = true
	upper, work := filepath.Join(layer, "upper"), filepath.Join(layer, "work")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return nil
}

// config writes a bundle's config.json.
func (w *world) config(bundle string, args ...string) error {
	ns := func(t string) map[string]string { return map[string]string{"type": t} }
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"}
	c := map[string]any{
		"ociVersion": "1.0.2",
		"process": map[string]any{"args": args, "cwd": "/", "user": map[string]int{"uid": 0, "gid": 0}, "noNewPrivileges": true,
			"env":          []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp", "LC_ALL=C.UTF-8"},
			"capabilities": map[string]any{"bounding": caps, "effective": caps, "permitted": caps}},
		"root": map[string]any{"path": "rootfs"},
		"mounts": []any{map[string]any{"destination": "/proc", "type": "proc", "source": "proc"},
			map[string]any{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"mode=755", "size=1g"}}},
		"linux": map[string]any{"namespaces": []any{ns("pid"), ns("network"), ns("ipc"), ns("uts"), ns("mount")}},
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.dir, bundle, "config.json"), text, 0o644)
}

func (w *world) id() string {
	w.serial++
	return fmt.Sprintf("husk-bench-%d-%d", os.Getpid(), w.serial)
}

func (w *world) command(column string, args ...string) *exec.Cmd {
	r := w.runtimes[column]
	return exec.Command(r.args[0], append(append([]string{}, r.args[1:]...), args...)...)
}

// session is a running process, of a container or native, that answers each line with a line.
type session struct {
	column string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	errs   *os.File
}

// open starts a session: in a container of the bundle with the arguments of its configuration, or natively with argv.
func (w *world) open(column, bundle string, argv ...string) (*session, error) {
	var cmd *exec.Cmd
	if column == native {
		cmd = exec.Command(argv[0], argv[1:]...)
	} else {
		cmd = w.command(column, "run", "--bundle", filepath.Join(w.dir, bundle), w.id())
	}
	s := &session{column: column, cmd: cmd}
	var err error
	if s.errs, err = os.CreateTemp(w.dir, "errors"); err != nil {
		return nil, err
	}
	cmd.Stderr = s.errs
	if s.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	return s, cmd.Start()
}

// ask sends lines and returns the answer.
func (s *session) ask(lines string) (string, error) {
	if _, err := io.WriteString(s.in, lines+"\n"); err != nil {
		return "", s.failed(err)
	}
	answer, err := s.out.ReadString('\n')
	if err != nil {
		return "", s.failed(err)
	}
	return strings.TrimSpace(answer), nil
}

// failed says why a session does not answer.
func (s *session) failed(err error) error {
	s.close()
	text, _ := os.ReadFile(s.errs.Name())
	return fmt.Errorf("%s: %w: %s", s.column, err, text[max(0, len(text)-500):])
}

// close ends a session: its process reads the end of its input.
func (s *session) close() {
	s.in.Close()
	s.cmd.Wait()
}
