package harness

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Top is the directory of the repository: the nearest one above the working directory with a go.mod
// (go test runs a test in its package's directory).
func Top() string {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return "."
}

// Runsc is the path of the runtime under test: $RUNSC, else bin/runsc of the repository. A test that
// needs it fails where it has not been built.
func Runsc(t testing.TB) string {
	t.Helper()
	path := os.Getenv("RUNSC")
	if path == "" {
		path = filepath.Join(Top(), "bin", "runsc")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("runsc is not built (%v): run make", err)
	}
	return path
}

// GlobalFlags are the flags before the verb: a state directory of the test's own and the platform
// that $HUSK_PLATFORM names.
func GlobalFlags(t testing.TB, extra ...string) []string {
	t.Helper()
	flags := []string{"--root", StateDir(t)}
	if p := os.Getenv("HUSK_PLATFORM"); p != "" {
		flags = append(flags, "--platform="+p)
	}
	return append(flags, extra...)
}

// StateDir makes a state directory with a short name, since socket paths are limited to 107 bytes.
func StateDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "husk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Do is a command that runs args in a sandbox over the host's root file system.
func Do(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return exec.Command(Runsc(t), append(append(GlobalFlags(t), "do"), args...)...)
}

// Output runs cmd until it ends or ctx does, in a process group of its own that is killed as a
// whole, and returns standard output and error together.
func Output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return "", err
	}
	done := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		case <-done:
		}
	}()
	err := cmd.Wait()
	close(done)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.String(), err
}
