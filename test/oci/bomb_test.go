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

// hostRoom is how many processes and threads a sandbox may have on the host beyond one for each task of the application: the
// sentry's and the gofer's threads, and per stub process the thread that changes its memory is counted apart.
const hostRoom = 120

// mostTasks bounds what a container without a limit may do to the host if all else fails.
const mostTasks = 4000

// TestBombs lets processes, threads and programs multiply as fast as they can, under a limit of processes of the user, of the container,
// and under none: the only error is EAGAIN, as on Linux; the limit holds in the container and bounds what the host sees; the
// container answers; and it can be killed and deleted without residue.
func TestBombs(t *testing.T) {
	if isRunc() {
		t.Skip("the host is not to be bombed")
	}
	bin := filepath.Join(t.TempDir(), "bomb")
	if out, err := exec.Command("gcc", "-O1", "-w", "-static", "-pthread", "-o", bin, "c/bomb.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	program, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	const shell = "b() { b | b & }; b"
	for _, x := range []explosion{
		{name: "fork-nproc", args: []string{"fork"}, nproc: 60},
		{name: "fork-pids", args: []string{"fork"}, pids: 60},
		{name: "fork-100", args: []string{"fork", "100"}, ok: 100},
		{name: "fork", args: []string{"fork"}, tasks: 400},
		{name: "sh-nproc", args: []string{"sh", shell}, nproc: 60, tasks: 80},
		{name: "sh-pids", args: []string{"sh", shell}, pids: 60, tasks: 80},
		{name: "sh", args: []string{"sh", shell}, tasks: 400},
		{name: "thread-nproc", args: []string{"thread"}, nproc: 60},
		{name: "thread-pids", args: []string{"thread"}, pids: 60},
		{name: "exec-pids", args: []string{"exec"}, pids: 12},
		{name: "exec", args: []string{"exec"}, ok: 40},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := newBundle(t, append([]string{"/bin/bomb"}, x.args...)...)
			if err := os.WriteFile(filepath.Join(b.dir, "rootfs", "bin", "bomb"), program, 0o755); err != nil {
				t.Fatal(err)
			}
			x.run(b)
		})
	}
}

// explosion is a bomb, and when it has exploded: after some failures where there is a limit, else after as many successes, or
// with as many tasks on the host.
type explosion struct {
	name        string
	args        []string
	nproc, pids int // RLIMIT_NPROC, and the container's limit; 0 is none
	ok, tasks   int
}

func (x *explosion) run(b *bundle) {
	t := b.t
	b.process()["user"] = map[string]any{"uid": 1000, "gid": 1000}
	if x.nproc > 0 {
		b.process()["rlimits"] = []any{map[string]any{"type": "RLIMIT_NPROC", "hard": x.nproc, "soft": x.nproc}}
	}
	if x.pids > 0 {
		b.config["linux"].(map[string]any)["resources"] = map[string]any{"pids": map[string]any{"limit": x.pids}}
	}
	b.write()
	id := newID()
	log := b.file()
	defer log.Close()
	// In the foreground, so that it ends with this test, however that ends.
	cmd := b.command("run", "--keep", "--bundle", b.dir, id)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		b.call("delete", "--force", id)
	})
	b.awaitStatus(id, "running")
	if x.nproc == 0 && x.pids == 0 {
		// Should this test be too slow to end it, the host shall not suffer.
		host := filepath.Join("/sys/fs/cgroup/pids", id, "pids.max")
		if err := os.WriteFile(host, []byte(itoa(mostTasks)), 0); err != nil {
			host = filepath.Join("/sys/fs/cgroup", id, "pids.max")
			if err := os.WriteFile(host, []byte(itoa(mostTasks)), 0); err != nil {
				t.Skipf("no limit of last resort: %v", err)
			}
		}
	}
	var c struct{ ok, again, other, last int }
	most := 0
	look := func() {
		most = max(most, b.hostTasks(id))
		text, _ := os.ReadFile(log.Name())
		if i := strings.LastIndexByte(string(text), '\n'); i >= 0 {
			line := string(text[strings.LastIndexByte(string(text[:i]), '\n')+1 : i])
			if n, _ := fmt.Sscan(line, &c.ok, &c.again, &c.other, &c.last); n != 4 && x.args[0] != "sh" {
				t.Errorf("output %q", line)
			}
		}
	}
	limit := x.nproc + x.pids // it has one of them
	exploded := func() bool {
		look()
		if x.ok > 0 || x.tasks > 0 {
			return c.ok >= x.ok && most >= x.tasks
		}
		return c.again > 10
	}
	for end := time.Now().Add(60 * time.Second); !exploded() && !t.Failed(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("no explosion: %+v, %d tasks on the host", c, most)
		}
	}
	processes := 0
	var exec result
	if limit > 0 || x.ok > 0 { // else there are more and more of them, and each is as entitled to the processor
		processes = len(strings.Split(strings.TrimSpace(b.must("ps", id)), "\n")) - 1
		// The user's limit is not root's; a full container has no room for anybody.
		exec = b.call("exec", "--user", "0:0", id, "true")
		if exec.code != 0 && !(x.pids > 0 && strings.Contains(exec.err, "resource temporarily unavailable")) {
			t.Errorf("exec: exit code %d: %s", exec.code, exec.err)
		}
	}
	if limit > 0 || x.ok > 0 {
		look()
	}
	t.Logf("%+v; %d processes; at most %d tasks on the host; exec: %d %s", c, processes, most, exec.code, exec.err)
	if c.other > 0 {
		t.Errorf("%d failures with other errors, the last one %d", c.other, c.last)
	}
	if limit > 0 && (processes > limit+1 || most > 2*limit+hostRoom) {
		t.Errorf("%d processes, and %d tasks on the host, with a limit of %d", processes, most, limit)
	}
	b.must("kill", id, "KILL")
	for end := time.Now().Add(60 * time.Second); b.status(id) != "stopped" && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	b.must("delete", id)
	b.wantClean(id)
}

// hostTasks counts the processes and threads of a container on the host.
func (b *bundle) hostTasks(id string) (n int) {
	for _, pid := range b.processesOfContainer(id) {
		list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		n += len(list)
	}
	return n
}
