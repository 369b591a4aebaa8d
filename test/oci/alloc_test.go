package oci

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"husk/test/harness"
)

// allocated is what the sandbox's kernel has allocated on its heap so far, in bytes, by its own profile, less what control
// connections and profiles take, and without the processes that the microbenchmarks make. The profile samples every 512 KiB.
func (b *bundle) allocated(id, pprof string) int {
	b.t.Helper()
	file := filepath.Join(b.dir, "heap")
	b.must("debug", "--profile-heap", file, id)
	out, err := exec.Command(pprof, "-top", "-unit=B", "-sample_index=alloc_space", "-relative_percentages",
		"-focus=sentry/kernel|sentry/syscalls", "-ignore=[cC]lone|[fF]ork|[eE]xit|[wW]ait4", file).CombinedOutput()
	if err != nil {
		b.t.Fatalf("pprof: %v\n%s", err, out)
	}
	m := regexp.MustCompile(`of ([0-9]+)B total`).FindSubmatch(out)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// TestHotPathAllocations holds S-7: what an application does all the time allocates nothing in the sentry. It asks the
// microbenchmarks for many calls of a row; a few samples of the profile are noise.
func TestHotPathAllocations(t *testing.T) {
	if isRunc() {
		t.Skip("runc has no heap of the container's")
	}
	b := newBundle(t, "/bin/micro", "-serve", "/image")
	program := filepath.Join(b.dir, "rootfs", "bin", "micro")
	source := filepath.Join(harness.Top(), "test", "perf", "c", "micro.c")
	if out, err := exec.Command("gcc", "-O2", "-static", "-pthread", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "rootfs", "image"), make([]byte, 16<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	// "go tool" looks at its build cache each time.
	tool, err := exec.Command("go", "tool", "-n", "pprof").Output()
	if err != nil {
		t.Fatal(err)
	}
	pprof := strings.TrimSpace(string(tool))
	b.write()
	id := newID()
	cmd := b.command("run", "--bundle", b.dir, id)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); b.call("delete", "--force", id); cmd.Wait() })
	out := bufio.NewReader(pipe)
	ask := func(row string) {
		t.Helper()
		if _, err := io.WriteString(in, row+"\n"); err != nil {
			t.Fatal(err)
		}
		if answer, err := out.ReadString('\n'); err != nil || strings.TrimSpace(answer) == "" {
			t.Fatalf("%s: %q, %v", row, answer, err)
		}
	}
	// The calls of a row each time it is asked for, by micro.c, and how often it is asked.
	for _, x := range []struct {
		row         string
		calls, asks int
	}{
		{"getpid", 11000, 5}, {"read-zero-1", 11000, 5}, {"pread-4k", 5500, 10}, {"image-pread-4k", 5500, 10}, {"fstat", 5500, 10},
		{"futex-processes", 1100, 10}, {"pipe-ping-pong", 1100, 10}, {"unix-ping-pong", 1100, 10}, {"epoll-cycle", 2200, 10},
	} {
		ask(x.row)
		before := b.allocated(id, pprof)
		for range x.asks {
			ask(x.row)
		}
		n := b.allocated(id, pprof) - before
		t.Logf("%s: %d bytes in %d calls", x.row, n, x.asks*x.calls)
		if n > 2<<20 {
			t.Errorf("%s allocates %d bytes per call", x.row, n/(x.asks*x.calls))
		}
	}
}
