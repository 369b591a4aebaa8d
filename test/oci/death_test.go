package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKillEachProcess kills every process of a container in turn: the container must be stopped and leave nothing.
func TestKillEachProcess(t *testing.T) {
	b := newBundle(t, "sh", "-c", "sleep 1000 & sleep 1000")
	n := len(hostProcesses(b, b.running()))
	if n == 0 {
		t.Fatal("no processes")
	}
	for i := range n {
		id := b.running()
		list := hostProcesses(b, id)
		if i >= len(list) {
			break
		}
		victim := list[i]
		name, _ := os.ReadFile(filepath.Join("/proc", victim, "comm"))
		killProc(victim)
		deadline := time.Now().Add(10 * time.Second)
		for b.status(id) == "running" && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
		}
		// The death of a helper of one application process need not end the container.
		if s := b.status(id); s == "running" {
			b.must("kill", id, "KILL")
			b.awaitStatus(id, "stopped")
		}
		if r := b.call("delete", id); r.code != 0 {
			t.Errorf("after the death of %s (%s): delete: %s", victim, strings.TrimSpace(string(name)), r.err)
		}
		b.wantClean(id)
	}
}

// TestSandboxDies wants the container stopped as soon as the process of the pid file is dead.
func TestSandboxDies(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	id := b.running()
	kill9(b.pid(id))
	b.awaitStatus(id, "stopped")
	b.fails(nil, "exec", id, "true")
	b.must("delete", id)
	b.wantClean(id)
}

// TestCLIDiesDuringCreate kills the command line at different moments of create.
func TestCLIDiesDuringCreate(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	for i := range 12 {
		id := newID()
		cmd := b.command("create", "--bundle", b.dir, id)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		if b.status(id) != "" {
			b.call("kill", id, "KILL")
		}
		if r := b.call("delete", "--force", id); r.code != 0 {
			t.Errorf("after %d ms: delete --force: %s", i*3, r.err)
		}
		b.wantClean(id)
	}
}

// TestForegroundRunDies kills `run`: with it ends the container, which is then stopped and can be deleted like any other. With runc
// it runs on.
func TestForegroundRunDies(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	for i := range 8 {
		id := newID()
		cmd := b.command("run", "--bundle", b.dir, id)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			b.awaitStatus(id, "running")
		} else {
			time.Sleep(time.Duration(i) * 5 * time.Millisecond) // in the midst of it
		}
		cmd.Process.Kill()
		cmd.Wait()
		if isRunc() {
			if b.status(id) == "running" {
				b.must("kill", id, "KILL")
			}
			b.call("delete", "--force", id)
		} else if s := b.status(id); s != "" {
			if s != "creating" { // a process that is about to end may hold the lock
				b.awaitStatus(id, "stopped")
			}
			b.must("delete", id)
		}
		b.wantClean(id)
	}
}

// TestDoDies kills `do`, whose container nobody else knows: it is stopped, can be deleted, and goes with the next `do`, which
// leaves those of living commands and of other verbs alone.
func TestDoDies(t *testing.T) {
	if isRunc() {
		t.Skip("runc has no such verb")
	}
	b := newBundle(t, "true")
	b.write()
	start := func() (id string, cmd *exec.Cmd) {
		cmd = b.command("do", "/bin/sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		prefix := fmt.Sprintf("do-%d-", cmd.Process.Pid)
		until(t, "a container", func() bool {
			for _, l := range strings.Fields(b.must("list", "--quiet")) {
				if strings.HasPrefix(l, prefix) && b.status(l) == "running" {
					id = l
				}
			}
			return id != ""
		})
		t.Cleanup(func() { b.call("delete", "--force", id) })
		return id, cmd
	}
	die := func(cmd *exec.Cmd) {
		cmd.Process.Kill()
		cmd.Wait()
	}
	first, cmd := start()
	die(cmd)
	b.awaitStatus(first, "stopped")
	if out := b.must("list"); !strings.Contains(out, first) || !strings.Contains(out, "stopped") {
		t.Errorf("list: %s", out)
	}
	b.must("delete", first)
	b.wantClean(first)

	second, cmd := start()
	die(cmd)
	b.awaitStatus(second, "stopped")
	other := "do-" + itoa(cmd.Process.Pid) + "-0" // a name alone says nothing
	b.must("run", "--keep", "--bundle", b.dir, other)
	live, cmd := start()
	b.must("do", "/bin/true")
	if s := b.status(second); s != "" {
		t.Errorf("what a killed do left is %s after the next", s)
	}
	if s := b.status(other); s != "stopped" {
		t.Errorf("do made a stopped container of run %q", s)
	}
	if s := b.status(live); s != "running" {
		t.Errorf("do made the container of another do %q", s)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	die(cmd)
	b.must("delete", "--force", live)
	b.must("delete", other)
	for _, id := range []string{second, live, other} {
		b.wantClean(id)
	}

	// In the midst of its start.
	for i := range 6 {
		cmd := b.command("do", "/bin/sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(1+i) * 4 * time.Millisecond)
		die(cmd)
	}
	until(t, "all swept", func() bool {
		b.must("do", "/bin/true")
		return strings.TrimSpace(b.must("list", "--quiet")) == ""
	})
}

// hostProcesses lists the host's processes of a container: the tree of its pid and whatever else names its state directory.
func hostProcesses(b *bundle, id string) (pids []string) {
	seen := map[string]bool{}
	for _, p := range treeOf(b.pid(id)) {
		s := itoa(p)
		seen[s] = true
		pids = append(pids, s)
	}
	for _, p := range processesOf(b.state) {
		s := strings.Fields(p)[0]
		if !seen[s] {
			pids = append(pids, s)
		}
	}
	return pids
}
