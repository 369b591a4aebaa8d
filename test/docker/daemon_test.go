package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"husk/test/harness"
)

// image is the name of the imported Debian.
const image = "husk-debian"

// daemon is a private dockerd (with a containerd that it starts itself).
type daemon struct {
	dir    string
	socket string
	cmd    *exec.Cmd
	log    *os.File
}

var docker *daemon

func TestMain(m *testing.M) { harness.Main(m, "docker", setup) }

func setup(dir string) (stop func(), err error) {
	if docker, err = startDaemon(dir); err != nil {
		return nil, err
	}
	tar, err := harness.Image()
	if err != nil {
		return docker.stop, err
	}
	if out, err := docker.command("import", tar, image).CombinedOutput(); err != nil {
		return docker.stop, fmt.Errorf("docker import: %v\n%s", err, out)
	}
	return docker.stop, nil
}

// startDaemon runs dockerd with directories and a socket of its own and without a network.
func startDaemon(dir string) (*daemon, error) {
	runsc := os.Getenv("RUNSC")
	if runsc == "" {
		runsc = filepath.Join(harness.Top(), "bin", "runsc")
	}
	args := []string{}
	if p := os.Getenv("HUSK_PLATFORM"); p != "" {
		args = append(args, "--platform="+p)
	}
	config, _ := json.Marshal(map[string]any{
		"runtimes": map[string]any{"runsc": map[string]any{"path": runsc, "runtimeArgs": args}},
	})
	conf := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(conf, config, 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	d := &daemon{dir: dir, socket: filepath.Join(dir, "s"), log: log}
	d.cmd = exec.Command("dockerd", "--config-file", conf, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "-H", "unix://"+d.socket, "--bridge=none", "--iptables=false", "--ip6tables=false",
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--storage-driver", "overlay2")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	for range 300 {
		if d.command("version").Run() == nil {
			return d, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	d.stop()
	text, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("dockerd does not answer:\n%s", text)
}

func (d *daemon) command(args ...string) *exec.Cmd {
	return exec.Command("docker", append([]string{"-H", "unix://" + d.socket}, args...)...)
}

// stop ends dockerd and with it its containerd; what is left in its process group is killed.
func (d *daemon) stop() {
	ids, _ := d.command("ps", "-aq").Output()
	if list := strings.Fields(string(ids)); len(list) > 0 {
		d.command(append([]string{"rm", "-f"}, list...)...).Run()
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { d.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
	}
	syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
	d.log.Close()
}

// runtimeName is what docker run --runtime gets.
func runtimeName() string {
	if r := os.Getenv("RUNTIME"); r != "" {
		return r
	}
	return "runsc"
}

// run runs docker with a limit of time and returns standard output, standard error and the exit code.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return runCommand(t, docker.command(args...))
}

func runCommand(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		<-ctx.Done()
		if ctx.Err() == context.DeadlineExceeded {
			cmd.Process.Kill()
		}
	}()
	cmd.Wait()
	if ctx.Err() != nil {
		t.Fatalf("%v: did not end; output %q, errors %q", cmd.Args, out.String(), errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// want runs docker and checks exit code and standard output.
func want(t *testing.T, code int, output string, args ...string) {
	t.Helper()
	out, errs, c := run(t, args...)
	if c != code || out != output {
		t.Errorf("docker %s: exit code %d, want %d; output %q, want %q; errors: %s", strings.Join(args, " "), c, code, out, output, errs)
	}
}

// container is the start of a docker run command line.
func container(flags ...string) []string {
	return append([]string{"run", "--runtime", runtimeName(), "--network=none"}, flags...)
}

// sh is docker run --rm FLAGS image sh -c SCRIPT.
func sh(script string, flags ...string) []string {
	return append(container(append([]string{"--rm"}, flags...)...), image, "sh", "-c", script)
}

// start runs a detached container and returns its name; it is removed at the end of the test.
func start(t *testing.T, script string, flags ...string) string {
	t.Helper()
	args := append(container(append([]string{"-d"}, flags...)...), image, "sh", "-c", script)
	out, errs, code := run(t, args...)
	if code != 0 {
		t.Fatalf("docker %v: exit code %d: %s", args, code, errs)
	}
	id := strings.TrimSpace(out)
	t.Cleanup(func() { docker.command("rm", "-f", id).Run() })
	return id
}

// eventually polls until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 300 {
		if f() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%s: not within 15 s", what)
}
