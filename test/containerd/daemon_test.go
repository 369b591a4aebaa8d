package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
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

// image is the name of the imported Debian.
const image = "husk/debian:1"

// daemon is a private containerd: its root, state and sockets are below dir.
type daemon struct {
	dir       string
	socket    string
	namespace string
	cmd       *exec.Cmd
	log       *os.File
}

var containerd *daemon

func TestMain(m *testing.M) { harness.Main(m, "containerd", setup) }

func setup(dir string) (stop func(), err error) {
	d := &daemon{dir: dir, socket: filepath.Join(dir, "s"), namespace: fmt.Sprintf("husk-%d", os.Getpid())}
	if err := d.start(); err != nil {
		return nil, err
	}
	containerd = d
	rootfs, err := harness.Image()
	if err != nil {
		return d.stop, err
	}
	archive := filepath.Join(dir, "image.tar")
	if err := writeImage(archive, rootfs); err != nil {
		return d.stop, err
	}
	defer os.Remove(archive)
	if out, err := d.command("image", "import", archive).CombinedOutput(); err != nil {
		return d.stop, fmt.Errorf("ctr image import: %v\n%s", err, out)
	}
	return d.stop, nil
}

// start runs containerd and waits until it answers.
func (d *daemon) start() error {
	conf := filepath.Join(d.dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n",
		filepath.Join(d.dir, "root"), filepath.Join(d.dir, "state"), d.socket, filepath.Join(d.dir, "t"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	d.log = log
	d.cmd = exec.Command("containerd", "--config", conf)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	for range 300 {
		if d.command("version").Run() == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	d.halt()
	out, _ := os.ReadFile(log.Name())
	return fmt.Errorf("containerd does not answer:\n%s", out)
}

// halt ends containerd; its shims and containers live on.
func (d *daemon) halt() {
	d.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { d.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		d.cmd.Process.Kill()
		<-done
	}
	d.log.Close()
}

// stop ends containerd and removes what it leaves in the host: the parents of the containers' cgroups.
func (d *daemon) stop() {
	d.halt()
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + d.namespace)
	unified, _ := filepath.Glob("/sys/fs/cgroup/" + d.namespace)
	for _, g := range append(groups, unified...) {
		os.Remove(g)
	}
}

func (d *daemon) command(args ...string) *exec.Cmd {
	return exec.Command("ctr", append([]string{"-a", d.socket, "-n", d.namespace}, args...)...)
}

// writeImage makes an OCI image archive with one layer of a root file system's tar file.
func writeImage(path, layer string) error {
	in, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer in.Close()
	h := sha256.New()
	size, err := io.Copy(h, in)
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	add := func(name string, size int64, r io.Reader) {
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size})
		}
		if err == nil {
			_, err = io.Copy(w, r)
		}
	}
	blob := func(v any) map[string]any {
		text, _ := json.Marshal(v)
		sum := fmt.Sprintf("%x", sha256.Sum256(text))
		add("blobs/sha256/"+sum, int64(len(text)), bytes.NewReader(text))
		return map[string]any{"digest": "sha256:" + sum, "size": len(text)}
	}
	const kind = "application/vnd.oci.image."
	digest := fmt.Sprintf("sha256:%x", h.Sum(nil))
	config := blob(map[string]any{
		"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest}},
		"config": map[string]any{"Env": []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "Cmd": []string{"sh"}},
	})
	config["mediaType"] = kind + "config.v1+json"
	manifest := blob(map[string]any{"schemaVersion": 2, "mediaType": kind + "manifest.v1+json", "config": config, "layers": []any{
		map[string]any{"mediaType": kind + "layer.v1.tar", "digest": digest, "size": size}}})
	manifest["mediaType"] = kind + "manifest.v1+json"
	manifest["annotations"] = map[string]string{"io.containerd.image.name": image}
	index, _ := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}})
	add("index.json", int64(len(index)), bytes.NewReader(index))
	version := `{"imageLayoutVersion":"1.0.0"}`
	add("oci-layout", int64(len(version)), strings.NewReader(version))
	if _, serr := in.Seek(0, io.SeekStart); err == nil {
		err = serr
	}
	add("blobs/"+strings.Replace(digest, ":", "/", 1), size, in)
	if err != nil {
		return err
	}
	return w.Close()
}

// suite is a case on one runtime.
type suite struct {
	*testing.T
	binary string // the runtime
}

// onBoth runs a case on runc and, if that passes, on runsc.
func onBoth(t *testing.T, f func(s *suite)) {
	if t.Run("runc", func(t *testing.T) { f(&suite{t, "runc"}) }) {
		t.Run("runsc", func(t *testing.T) { f(newSuite(t)) })
	}
}

// newSuite is for a case that holds for runsc alone. A platform other than the default takes a wrapper, as ctr has no
// way to pass flags.
func newSuite(t *testing.T) *suite {
	s := &suite{t, harness.Runsc(t)}
	if p := os.Getenv("HUSK_PLATFORM"); p != "" {
		wrapper := filepath.Join(t.TempDir(), "runsc")
		text := fmt.Sprintf("#!/bin/sh\nexec %s --platform=%s \"$@\"\n", s.binary, p)
		if err := os.WriteFile(wrapper, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		s.binary = wrapper
	}
	return s
}

var serial atomic.Int64

// newID makes the ID of a container; whatever the case leaves of it is removed at its end.
func (s *suite) newID() string {
	id := fmt.Sprintf("c%d-%d", os.Getpid(), serial.Add(1))
	s.Cleanup(func() {
		containerd.command("task", "kill", "-s", "KILL", "-a", id).Run()
		for range 50 {
			if containerd.command("task", "delete", "-f", id).Run() == nil || !strings.Contains(s.output("task", "ls"), id) {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		containerd.command("container", "rm", id).Run()
		s.wantClean(id)
	})
	return id
}

// ctr runs ctr with a limit of time and returns standard output, standard error and the exit code.
func (s *suite) ctr(args ...string) (stdout, stderr string, code int) {
	s.Helper()
	return s.run(containerd.command(args...))
}

func (s *suite) run(cmd *exec.Cmd) (stdout, stderr string, code int) {
	s.Helper()
	// Files and not pipes: a shim that ctr starts keeps copies.
	var files [2]*os.File
	for i := range files {
		f, err := os.CreateTemp(containerd.dir, "out")
		if err != nil {
			s.Fatal(err)
		}
		defer f.Close()
		defer os.Remove(f.Name())
		files[i] = f
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		cmd.Process.Kill()
		<-done
	}
	out, _ := os.ReadFile(files[0].Name())
	errs, _ := os.ReadFile(files[1].Name())
	if ctx.Err() != nil {
		s.Fatalf("%v: did not end; output %q, errors %q", cmd.Args, out, errs)
	}
	return string(out), string(errs), cmd.ProcessState.ExitCode()
}

// must runs ctr, which has to succeed, and returns its output.
func (s *suite) must(args ...string) string {
	s.Helper()
	out, errs, code := s.ctr(args...)
	if code != 0 {
		s.Fatalf("ctr %s: exit code %d: %s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// output is the output of ctr, whatever its exit code.
func (s *suite) output(args ...string) string {
	out, _, _ := s.ctr(args...)
	return out
}

// want runs ctr and checks exit code and standard output.
func (s *suite) want(code int, output string, args ...string) {
	s.Helper()
	out, errs, c := s.ctr(args...)
	if c != code || out != output {
		s.Errorf("ctr %s: exit code %d, want %d; output %q, want %q; errors: %s", strings.Join(args, " "), c, code, out, output, errs)
	}
}

// flags is the start of a ctr run command line.
func (s *suite) flags(more ...string) []string {
	return append([]string{"run", "--runc-binary", s.binary, "--runc-root", filepath.Join(containerd.dir, "r")}, more...)
}

// sh is ctr run --rm FLAGS image ID sh -c SCRIPT.
func (s *suite) sh(script string, flags ...string) []string {
	return append(s.flags(append([]string{"--rm"}, flags...)...), image, s.newID(), "sh", "-c", script)
}

// start runs a detached container and returns its ID.
func (s *suite) start(script string, flags ...string) string {
	s.Helper()
	id := s.newID()
	s.must(append(s.flags(append([]string{"-d"}, flags...)...), image, id, "sh", "-c", script)...)
	return id
}

// exec is ctr task exec ID sh -c SCRIPT.
func (s *suite) exec(id, script string, flags ...string) []string {
	args := append([]string{"task", "exec", "--exec-id", fmt.Sprintf("x%d", serial.Add(1))}, flags...)
	return append(args, id, "sh", "-c", script)
}

// status is the state of a task, "" without one.
func (s *suite) status(id string) string {
	for _, line := range strings.Split(s.output("task", "ls"), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			return f[2]
		}
	}
	return ""
}

func (s *suite) awaitStatus(id, want string) {
	s.Helper()
	s.eventually(id+" is "+want, func() bool { return s.status(id) == want })
}

// remove deletes a stopped task and its container; the exit code of the task is checked.
func (s *suite) remove(id string, code int) {
	s.Helper()
	_, errs, _ := s.ctr("task", "delete", id)
	if want := fmt.Sprintf("exit code %d", code); code != 0 && !strings.Contains(errs, want) || code == 0 && errs != "" {
		s.Errorf("ctr task delete %s says %q, not exit code %d", id, errs, code)
	}
	s.must("container", "rm", id)
	s.wantClean(id)
}

// wantClean waits until nothing is left of a container: process, mount, cgroup or state.
func (s *suite) wantClean(id string) {
	s.Helper()
	var left []string
	s.eventually("nothing is left of "+id, func() bool {
		left = nil
		comm, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range comm {
			if text, _ := os.ReadFile(f); bytes.Contains(text, []byte(id+"\x00")) || bytes.HasSuffix(text, []byte(id)) {
				left = append(left, f)
			}
		}
		mounts, _ := os.ReadFile("/proc/self/mountinfo")
		for _, l := range strings.Split(string(mounts), "\n") {
			if strings.Contains(l, "/"+id+"/") {
				left = append(left, l)
			}
		}
		groups, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", containerd.namespace, id))
		unified, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", containerd.namespace, id))
		state, _ := filepath.Glob(filepath.Join(containerd.dir, "r", "*", id))
		bundle, _ := filepath.Glob(filepath.Join(containerd.dir, "state", "*", "*", id))
		for _, list := range [][]string{groups, unified, state, bundle} {
			left = append(left, list...)
		}
		return len(left) == 0
	})
	if len(left) > 0 {
		s.Errorf("left of %s: %q", id, left)
	}
}

// eventually polls until f holds.
func (s *suite) eventually(what string, f func() bool) {
	s.Helper()
	for range 200 {
		if f() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.Errorf("%s: not within 10 s", what)
}
