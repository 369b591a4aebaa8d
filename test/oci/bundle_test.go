package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"husk/test/harness"
)

// bundle is a temporary bundle with busybox as its root file system, and a state directory.
type bundle struct {
	t      *testing.T
	dir    string
	state  string
	config map[string]any
}

var serial atomic.Int64

// newID makes a container ID that no other test has.
func newID() string { return fmt.Sprintf("husk-oci-%d-%d", os.Getpid(), serial.Add(1)) }

func isRunc() bool { return os.Getenv("RUNTIME") == "runc" }

func newBundle(t *testing.T, args ...string) *bundle {
	t.Helper()
	dir, err := os.MkdirTemp("", "ob")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bundle{t: t, dir: dir, state: filepath.Join(dir, "s")}
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp", "etc", "root"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("busybox-static is missing: run tools/setup.sh (%v)", err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin", "busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"sh", "sleep", "cat", "echo", "true", "false", "id", "ps", "kill", "ls", "mkdir", "touch", "hostname", "mount", "env", "pwd"} {
		os.Symlink("busybox", filepath.Join(root, "bin", a))
	}
	os.WriteFile(filepath.Join(root, "etc", "passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"), 0o644)
	b.config = map[string]any{
		"ociVersion": "1.2.0",
		"process": map[string]any{
			"terminal": false, "user": map[string]any{"uid": 0, "gid": 0}, "args": args, "cwd": "/",
			"env":             []string{"PATH=/bin", "TERM=xterm"},
			"capabilities":    map[string]any{"bounding": caps, "effective": caps, "permitted": caps},
			"rlimits":         []any{map[string]any{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}},
			"noNewPrivileges": true,
		},
		"root": map[string]any{"path": "rootfs"}, "hostname": "husk",
		"mounts": []any{
			map[string]any{"destination": "/proc", "type": "proc", "source": "proc"},
			map[string]any{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=65536k"}},
		},
		"linux": map[string]any{"namespaces": []any{ns("pid"), ns("network"), ns("ipc"), ns("uts"), ns("mount")}},
	}
	return b
}

var caps = []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_CHOWN"}

func ns(kind string) map[string]any { return map[string]any{"type": kind} }

// process is the process object of the configuration.
func (b *bundle) process() map[string]any { return b.config["process"].(map[string]any) }

func (b *bundle) write() {
	b.t.Helper()
	text, err := json.Marshal(b.config)
	if err != nil {
		b.t.Fatal(err)
	}
	b.writeConfig(text)
}

func (b *bundle) writeConfig(text []byte) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, "config.json"), text, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// result is what a call of the runtime gave.
type result struct {
	out, err string
	code     int
}

// command is a call of the runtime with the bundle's state directory.
func (b *bundle) command(args ...string) *exec.Cmd {
	if isRunc() {
		return exec.Command("runc", append([]string{"--root", b.state}, args...)...)
	}
	flags := []string{"--root", b.state}
	if p := os.Getenv("HUSK_PLATFORM"); p != "" {
		flags = append(flags, "--platform="+p)
	}
	return exec.Command(harness.Runsc(b.t), append(flags, args...)...)
}

// call runs the runtime. Output goes to files and not to pipes: a detached container keeps its copies open.
func (b *bundle) call(args ...string) result {
	b.t.Helper()
	cmd := b.command(args...)
	out, errs := b.file(), b.file()
	defer out.Close()
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = out, errs
	return b.finish(cmd, out, errs)
}

func (b *bundle) file() *os.File {
	f, err := os.CreateTemp(b.dir, "out")
	if err != nil {
		b.t.Fatal(err)
	}
	return f
}

func (b *bundle) finish(cmd *exec.Cmd, out, errs *os.File) result {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		cmd.Process.Kill()
		o, _ := os.ReadFile(out.Name())
		e, _ := os.ReadFile(errs.Name())
		b.t.Fatalf("%v does not end; output %q, errors %q", cmd.Args, o, e)
	}
	o, _ := os.ReadFile(out.Name())
	e, _ := os.ReadFile(errs.Name())
	return result{string(o), string(e), cmd.ProcessState.ExitCode()}
}

// must calls the runtime and wants exit code 0.
func (b *bundle) must(args ...string) string {
	b.t.Helper()
	r := b.call(args...)
	if r.code != 0 {
		b.t.Fatalf("%v: exit code %d: %s%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// fails calls the runtime and wants an error that has all the texts.
func (b *bundle) fails(texts []string, args ...string) result {
	b.t.Helper()
	r := b.call(args...)
	if r.code == 0 {
		b.t.Errorf("%v succeeded", args)
	}
	for _, text := range texts {
		if !strings.Contains(strings.ToLower(r.err), strings.ToLower(text)) {
			b.t.Errorf("%v: the error does not say %q: %s", args, text, r.err)
		}
	}
	if strings.Contains(r.err, "unexpected EOF") || strings.Contains(r.err, "goroutine ") {
		b.t.Errorf("%v: not an error for people: %s", args, r.err)
	}
	return r
}

// status is the status of a container, "" if there is none.
func (b *bundle) status(id string) string {
	b.t.Helper()
	r := b.call("state", id)
	var s struct{ Status string }
	if r.code != 0 || json.Unmarshal([]byte(r.out), &s) != nil {
		return ""
	}
	return s.Status
}

func (b *bundle) pid(id string) int {
	b.t.Helper()
	var s struct{ Pid int }
	if err := json.Unmarshal([]byte(b.must("state", id)), &s); err != nil {
		b.t.Fatal(err)
	}
	return s.Pid
}

// awaitStatus polls for a status.
func (b *bundle) awaitStatus(id, want string) {
	b.t.Helper()
	for range 200 {
		if b.status(id) == want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.t.Fatalf("container %s is %q, not %q", id, b.status(id), want)
}

// running starts a detached container and removes it at the end.
func (b *bundle) running() string {
	b.t.Helper()
	id := newID()
	b.write()
	b.must("run", "--detach", "--bundle", b.dir, id)
	b.t.Cleanup(func() { b.call("delete", "--force", id) })
	b.awaitStatus(id, "running")
	return id
}

// residue lists what is left of a container in the host: processes, mounts, cgroups and files of state.
func (b *bundle) residue(id string) (left []string) {
	for _, pid := range processesOf(b.state) {
		left = append(left, "process "+pid)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for _, l := range strings.Split(string(mounts), "\n") {
		if strings.Contains(l, id) || strings.Contains(l, b.dir) {
			left = append(left, "mount "+l)
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + id)
	unified, _ := filepath.Glob("/sys/fs/cgroup/" + id)
	left = append(left, append(groups, unified...)...)
	if entries, _ := os.ReadDir(filepath.Join(b.state, id)); len(entries) > 0 {
		left = append(left, "state directory")
	}
	return left
}

// processesOf lists the processes whose command line, working directory or root names dir.
func processesOf(dir string) (pids []string) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' {
			continue
		}
		cmdline, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if bytes.Contains(cmdline, []byte(dir)) {
			pids = append(pids, e.Name()+" "+string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	return pids
}

// wantClean waits until nothing is left of a container.
func (b *bundle) wantClean(id string) {
	b.t.Helper()
	var left []string
	for range 100 {
		if left = b.residue(id); len(left) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.t.Errorf("left of %s: %v", id, left)
}

// treeOf lists pid and its descendants in the host.
func treeOf(pid int) []int {
	list := []int{pid}
	for i := 0; i < len(list); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", list[i]))
		for _, f := range tasks {
			text, _ := os.ReadFile(f)
			for _, w := range strings.Fields(string(text)) {
				var p int
				if fmt.Sscan(w, &p); p > 0 {
					list = append(list, p)
				}
			}
		}
	}
	return list
}

func kill9(pid int) { syscall.Kill(pid, syscall.SIGKILL) }

func itoa(n int) string { return fmt.Sprint(n) }

func killProc(pid string) {
	var p int
	if fmt.Sscan(pid, &p); p > 1 {
		kill9(p)
	}
}
