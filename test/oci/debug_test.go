package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pprof lists a profile with the reader that counts.
func pprof(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command("go", "tool", "pprof", "-top", file).CombinedOutput()
	if err != nil {
		t.Fatalf("pprof: %v\n%s", err, out)
	}
	return string(out)
}

// TestDebug takes profiles of a live sandbox.
func TestDebug(t *testing.T) {
	if isRunc() {
		t.Skip("runc has no sandbox")
	}
	b := newBundle(t, "sh", "-c", "while :; do /bin/true; done")
	id := b.running()
	cpu, heap := filepath.Join(b.dir, "cpu"), filepath.Join(b.dir, "heap")
	b.must("debug", "--profile-cpu", cpu, "--duration", "2s", id)
	if out := pprof(t, cpu); !strings.Contains(out, "Type: cpu") || !strings.Contains(out, "husk/pkg/sentry/kernel") {
		t.Errorf("no work of the kernel in the profile:\n%s", out)
	}
	b.must("debug", "--profile-heap", heap, id)
	if out := pprof(t, heap); !strings.Contains(out, "Type: inuse_space") {
		t.Errorf("heap profile:\n%s", out)
	}
	if out := b.must("debug", "--stacks", id); !strings.Contains(out, "goroutine ") || !strings.Contains(out, "husk/runsc/boot.(*sandbox).run") {
		t.Errorf("stacks:\n%s", out)
	}
	b.fails([]string{"nothing to do"}, "debug", id)
	b.fails([]string{"does not exist"}, "debug", "--stacks", "no-such-container")
	b.fails([]string{"no such file"}, "debug", "--profile-heap", filepath.Join(b.dir, "no", "where"), id)
	b.fails([]string{"limited"}, "debug", "--profile-cpu", cpu, "--duration", "3h", id)

	// A profile in progress ends with the connection, and the next one can be taken.
	slow := b.command("debug", "--profile-cpu", cpu, "--duration", "10m", id)
	if err := slow.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	b.fails([]string{"already"}, "debug", "--profile-cpu", filepath.Join(b.dir, "cpu2"), id)
	slow.Process.Kill()
	slow.Wait()
	for range 50 {
		if b.call("debug", "--profile-cpu", cpu, "--duration", "10ms", id).code == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.must("debug", "--profile-cpu", cpu, "--duration", "10ms", id)

	// One that outlives its container has what there was.
	b = newBundle(t, "sleep", "3")
	id = b.running()
	last := filepath.Join(b.dir, "last")
	ending := b.command("debug", "--profile-cpu", last, "--duration", "1m", id)
	if err := ending.Start(); err != nil {
		t.Fatal(err)
	}
	if err := ending.Wait(); err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(last); err != nil || fi.Size() == 0 {
		t.Errorf("no profile of a container that ended: %v", err)
	}
	b.fails([]string{"not running"}, "debug", "--stacks", id)
}

// TestTimeline checks that --debug tells of every phase of a container's life, each process's in order.
func TestTimeline(t *testing.T) {
	if isRunc() {
		t.Skip("runc has no timeline")
	}
	b := newBundle(t, "true")
	b.write()
	r := b.call("--debug", "run", "--bundle", b.dir, newID())
	if r.code != 0 {
		t.Fatalf("%+v", r)
	}
	for who, phases := range map[string][]string{
		"runsc": {"main entered", "flags parsed", "config.json loaded", "sandbox ready", "state saved", "sandbox ended", "container deleted"},
		"gofer": {"main entered", "seccomp filter installed"},
		"sandbox": {"main entered", "boot message received", "platform ready", "memory file mapped",
			"kernel made", "seccomp filter installed", "gofer connected", "file systems mounted", "program loaded",
			"first instruction of the application", "first system call of the application", "application exited"},
	} {
		rest := r.err
		for _, p := range phases {
			_, after, found := strings.Cut(rest, who+": "+p)
			if !found {
				t.Errorf("%s: %q is missing or out of order in\n%s", who, p, r.err)
				break
			}
			rest = after
		}
	}
	for _, p := range []string{"cgroup ready", "container directory ready", "sandbox process spawned", "gofer process spawned", "boot message sent", "gofer ready"} {
		if !strings.Contains(r.err, "runsc: "+p) {
			t.Errorf("runsc: %q is missing in\n%s", p, r.err)
		}
	}
}
