package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The limits of clause S-2, in KiB.
const (
	idlePrivate = 8 << 10
	idlePSS     = 16 << 10
	// manyPSS is for each of idleMany containers side by side.
	manyPSS  = 9 << 10
	idleMany = 50
	// idleGrowth is how much more private memory a container may take while it waits.
	idleGrowth = 512
)

// The limits of clause S-6, for the sandbox process and for the gofer.
const (
	idleThreads, goferThreads = 14, 11 // a busy machine makes the Go runtime start some more
	idleFDs, goferFDs         = 20, 16
	idleProcesses             = 6 // on the host: both and the sandbox's stubs
)

// memory is what processes take, in KiB.
type memory struct{ private, pss uint64 }

// processesOfContainer lists the host processes of a container: the sandbox and what it has started, and the gofer.
func (b *bundle) processesOfContainer(id string) []int {
	b.t.Helper()
	var s struct{ Pid, GoferPid int }
	text, err := os.ReadFile(filepath.Join(b.state, id, "state.json"))
	if err != nil || json.Unmarshal(text, &s) != nil || s.Pid <= 0 || s.GoferPid <= 0 {
		b.t.Fatalf("state of %s: %v: %s", id, err, text)
	}
	return append(treeOf(s.Pid), treeOf(s.GoferPid)...)
}

// memoryOf sums what smaps_rollup says of the processes.
func memoryOf(t *testing.T, pids []int) (sum memory) {
	t.Helper()
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			t.Fatal(err)
		}
		var m memory
		for _, l := range strings.Split(string(text), "\n") {
			var kib uint64
			name, value, _ := strings.Cut(l, ":")
			fmt.Sscan(value, &kib)
			switch name {
			case "Private_Clean", "Private_Dirty":
				m.private += kib
			case "Pss":
				m.pss = kib
			}
		}
		sum.private, sum.pss = sum.private+m.private, sum.pss+m.pss
	}
	return sum
}

// cpuTime is the processor time that the processes have used, in nanoseconds.
func cpuTime(t *testing.T, pids []int) (ns uint64) {
	t.Helper()
	for _, pid := range pids {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, f := range tasks {
			var n uint64
			text, _ := os.ReadFile(f)
			fmt.Sscan(string(text), &n)
			ns += n
		}
	}
	return ns
}

// TestIdleMemory holds clause S-2.
func TestIdleMemory(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	id := b.running()
	time.Sleep(2 * time.Second)
	pids := b.processesOfContainer(id)
	const watch = 5 * time.Second
	before := cpuTime(t, pids)
	time.Sleep(watch)
	after := cpuTime(t, pids)
	if before == 0 {
		t.Error("the host does not account processor time")
	}
	used := time.Duration(after - before)
	m := memoryOf(t, pids)
	t.Logf("%d processes: private %d KiB, PSS %d KiB; %v of processor time in %v", len(pids), m.private, m.pss, used, watch)
	if m.private > idlePrivate {
		t.Errorf("private memory: %d KiB, the limit is %d", m.private, idlePrivate)
	}
	if m.pss > idlePSS {
		t.Errorf("PSS: %d KiB, the limit is %d", m.pss, idlePSS)
	}
	if used > watch/500 {
		t.Errorf("%v of processor time in %v, the limit is 0.2 %%", used, watch)
	}
}

// TestIdlePrograms holds clause S-2 for programs that wait in other ways than sleep: a pipeline, a server with idle connections, many threads,
// a timer of 1 Hz. They wait side by side.
func TestIdlePrograms(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "idle")
	if out, err := exec.Command("gcc", "-O1", "-static", "-pthread", "-o", bin, "c/idle.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	program, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	const watch = 5 * time.Second
	type waiter struct {
		name   string
		id     string
		args   []string
		limit  time.Duration // of processor time in watch
		b      *bundle
		pids   []int
		cpu    uint64
		memory memory
	}
	// The timer's is 1 ms for each of its six or fewer ticks beside what the others may use.
	const limit = watch / 500
	waiters := []*waiter{
		{name: "pipeline", args: []string{"sh", "-c", "(echo ready >&2; exec sleep 1000) | cat | cat | cat"}, limit: limit},
		{name: "server", args: []string{"/bin/idle", "server"}, limit: limit},
		{name: "threads", args: []string{"/bin/idle", "threads"}, limit: limit},
		{name: "timer", args: []string{"/bin/idle", "timer"}, limit: limit + 6*time.Millisecond},
	}
	for _, w := range waiters {
		w.b = newBundle(t, w.args...)
		if err := os.WriteFile(filepath.Join(w.b.dir, "rootfs", "bin", "idle"), program, 0o755); err != nil {
			t.Fatal(err)
		}
		w.b.write()
		id, log := newID(), w.b.file()
		cmd := w.b.command("run", "--detach", "--bundle", w.b.dir, id)
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		t.Cleanup(func() { w.b.call("delete", "--force", id) })
		until(t, w.name, func() bool {
			text, _ := os.ReadFile(log.Name())
			return string(text) == "ready\n"
		})
		w.id = id
	}
	time.Sleep(2 * time.Second) // of clients, and of what the sentry does once after a start
	for _, w := range waiters {
		w.pids = w.b.processesOfContainer(w.id)
		w.memory, w.cpu = memoryOf(t, w.pids), cpuTime(t, w.pids)
	}
	time.Sleep(watch)
	for _, w := range waiters {
		used := time.Duration(cpuTime(t, w.pids) - w.cpu)
		m := memoryOf(t, w.pids)
		t.Logf("%s: %d processes, private %d KiB, PSS %d KiB; %v of processor time in %v", w.name, len(w.pids), m.private, m.pss, used, watch)
		if used > w.limit {
			t.Errorf("%s: %v of processor time in %v, the limit is %v", w.name, used, watch, w.limit)
		}
		if m.private > w.memory.private+idleGrowth {
			t.Errorf("%s: private memory grew from %d to %d KiB in %v", w.name, w.memory.private, m.private, watch)
		}
	}
}

// entries counts what a directory of a process in /proc holds.
func entries(t *testing.T, pid int, dir string) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", pid, dir))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestIdleHostResources holds clause S-6.
func TestIdleHostResources(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	id := b.running()
	time.Sleep(time.Second)
	var s struct{ Pid, GoferPid int }
	text, err := os.ReadFile(filepath.Join(b.state, id, "state.json"))
	if err != nil || json.Unmarshal(text, &s) != nil {
		t.Fatalf("state: %v: %s", err, text)
	}
	for _, x := range []struct {
		name      string
		got, most int
	}{
		{"threads of the sandbox process", entries(t, s.Pid, "task"), idleThreads},
		{"threads of the gofer", entries(t, s.GoferPid, "task"), goferThreads},
		{"descriptors of the sandbox process", entries(t, s.Pid, "fd"), idleFDs},
		{"descriptors of the gofer", entries(t, s.GoferPid, "fd"), goferFDs},
		{"processes", len(b.processesOfContainer(id)), idleProcesses},
	} {
		t.Logf("%s: %d", x.name, x.got)
		if x.got > x.most {
			t.Errorf("%d %s, the limit is %d", x.got, x.name, x.most)
		}
	}
}

// TestManyIdle holds clause S-2 for containers side by side, which share what is the same in them.
func TestManyIdle(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	var ids []string
	for range idleMany {
		id := newID()
		b.must("run", "--detach", "--bundle", b.dir, id)
		t.Cleanup(func() { b.call("delete", "--force", id) })
		ids = append(ids, id)
	}
	time.Sleep(2 * time.Second)
	var sum memory
	for _, id := range ids {
		m := memoryOf(t, b.processesOfContainer(id))
		sum.private, sum.pss = sum.private+m.private, sum.pss+m.pss
	}
	t.Logf("each of %d: private %d KiB, PSS %d KiB", idleMany, sum.private/idleMany, sum.pss/idleMany)
	if sum.pss/idleMany > manyPSS {
		t.Errorf("PSS of each of %d: %d KiB, the limit is %d", idleMany, sum.pss/idleMany, manyPSS)
	}
}

// memoryFile is the host memory in bytes of the file that backs the memory of a sandbox's applications: the one file of
// that size that the process has open.
func memoryFile(t *testing.T, pid int) int64 {
	t.Helper()
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		var st syscall.Stat_t
		if syscall.Stat(fd, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG && st.Size == 1<<40 {
			return st.Blocks * 512
		}
	}
	t.Fatal("no memory file")
	return 0
}

// TestFreedMemory checks that memory which an application frees goes back to the host within seconds.
func TestFreedMemory(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "free")
	if out, err := exec.Command("gcc", "-O1", "-static", "-o", program, "c/free.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	const size = 256 << 20
	for _, how := range []string{"munmap", "shared", "madvise", "pages", "exit", "tmpfs"} {
		t.Run(how, func(t *testing.T) {
			b := newBundle(t, "/bin/free", how)
			if err := os.WriteFile(filepath.Join(b.dir, "rootfs", "bin", "free"), text, 0o755); err != nil {
				t.Fatal(err)
			}
			b.config["mounts"] = append(b.config["mounts"].([]any)[:1],
				map[string]any{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"size=1g"}})
			id := b.running()
			pid := b.pid(id)
			await := func(what string, limit time.Duration, done func(int64) bool) {
				t.Helper()
				begin := time.Now()
				for !done(memoryFile(t, pid)) {
					if time.Since(begin) > limit {
						t.Fatalf("%s: the memory file has %d MiB", what, memoryFile(t, pid)>>20)
					}
					time.Sleep(20 * time.Millisecond)
				}
				t.Logf("%s after %v", what, time.Since(begin).Round(time.Millisecond))
			}
			await("full", 60*time.Second, func(n int64) bool { return n >= size })
			time.Sleep(100 * time.Millisecond)
			b.must("kill", id, "USR1")
			await("free", 5*time.Second, func(n int64) bool { return n < 16<<20 })
		})
	}
}
