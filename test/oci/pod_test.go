package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// pod is several containers in one sandbox, as Kubernetes makes them: a sandbox container, and others whose annotations and
// namespaces name it. RUNTIME=runc knows no such sandbox, but shares the same namespaces.
type pod struct {
	t    *testing.T
	main *bundle // the sandbox container
	id   string
	all  []string // every container, for the end of the test
}

// newPod creates and starts the sandbox container, which runs a script.
func newPod(t *testing.T, script string) *pod {
	t.Helper()
	p := &pod{t: t, main: newBundle(t, "sh", "-c", script), id: newID()}
	p.main.config["annotations"] = map[string]string{"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": p.id}
	p.main.config["hostname"] = "pod"
	p.main.write()
	t.Cleanup(func() {
		for _, id := range append(slices.Clone(p.all), p.id) {
			p.main.call("delete", "--force", id)
			p.main.wantClean(id)
		}
	})
	p.main.must("run", "--detach", "--bundle", p.main.dir, p.id)
	return p
}

// member makes the bundle of a further container that shares namespaces with the sandbox container.
func (p *pod) member(shared []string, args ...string) *bundle {
	p.t.Helper()
	b := newBundle(p.t, args...)
	b.state = p.main.state
	delete(b.config, "hostname")
	b.config["annotations"] = map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": p.id}
	var list []any
	for _, kind := range []string{"mount", "pid", "ipc", "uts", "network"} {
		n := ns(kind)
		if slices.Contains(shared, kind) {
			n["path"] = fmt.Sprintf("/proc/%d/ns/%s", p.main.pid(p.id), strings.Replace(kind, "network", "net", 1))
		}
		list = append(list, n)
	}
	b.config["linux"].(map[string]any)["namespaces"] = list
	return b
}

// cri are the namespaces that Kubernetes shares in every pod.
var cri = []string{"ipc", "uts", "network"}

// start runs a member, detached.
func (p *pod) start(b *bundle) string {
	p.t.Helper()
	b.write()
	id := newID()
	p.all = append(p.all, id)
	b.must("create", "--bundle", b.dir, id)
	if st := b.status(id); st != "created" {
		p.t.Errorf("a created member is %q", st)
	}
	b.must("start", id)
	return id
}

// sleeper starts a member that sleeps.
func (p *pod) sleeper() (*bundle, string) {
	p.t.Helper()
	b := p.member(cri, "sleep", "1000")
	return b, p.start(b)
}

// wantOut runs a script in a container and compares its output.
func wantOut(b *bundle, id, script, want string) {
	b.t.Helper()
	if r := b.call("exec", id, "sh", "-c", script); r.out != want || r.code != 0 {
		b.t.Errorf("exec %s: exit code %d, output %q, want %q; %s", script, r.code, r.out, want, r.err)
	}
}

func TestPod(t *testing.T) {
	p := newPod(t, "exec sleep 1000")
	a, aid := p.sleeper()
	b, bid := p.sleeper()
	for name, c := range map[string]*bundle{"main": p.main, "a": a, "b": b} {
		if err := os.WriteFile(filepath.Join(c.dir, "rootfs", "etc", "whoami"), []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wantOut(p.main, p.id, "cat /etc/whoami; hostname", "main\npod\n")
	wantOut(a, aid, "cat /etc/whoami; hostname", "a\npod\n")
	wantOut(b, bid, "cat /etc/whoami; hostname", "b\npod\n")
	// Each has a PID namespace of its own, with its first process as number 1.
	const first = "busybox tr '\\0' ' ' </proc/1/cmdline; set -- /proc/[0-9]*; echo $#"
	wantOut(a, aid, first, "sleep 1000 2\n")
	wantOut(b, bid, first, "sleep 1000 2\n")
	link := func(c *bundle, id, kind string) string {
		return c.must("exec", id, "busybox", "readlink", "/proc/self/ns/"+kind)
	}
	for kind, shared := range map[string]bool{"ipc": true, "uts": true, "net": true, "pid": false, "mnt": false} {
		m, x, y := link(p.main, p.id, kind), link(a, aid, kind), link(b, bid, kind)
		if (m == x && x == y) != shared || !shared && (m == x || x == y || m == y) {
			t.Errorf("%s namespaces: %s%s%s", kind, m, x, y)
		}
	}
	if isRunc() {
		return
	}
	// Only the sandbox container has a sandbox process; what stands for the others on the host is small.
	for id, want := range map[string]string{p.id: "runsc\x00boot\x00", aid: "runsc\x00exec-waiter\x00", bid: "runsc\x00exec-waiter\x00"} {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.main.pid(id)))
		if string(text) != want {
			t.Errorf("process of %s: %q, want %q", id, text, want)
		}
	}
}

// TestPodIPC wants a System V segment of one container in the others, and not in a container with an IPC namespace of its own.
func TestPodIPC(t *testing.T) {
	p := newPod(t, "exec sleep 1000")
	a, aid := p.sleeper()
	alone := p.member([]string{"uts"}, "sleep", "1000")
	other := p.start(alone)
	for _, c := range []*bundle{p.main, a, alone} {
		gcc := exec.Command("gcc", "-O1", "-static", "-o", filepath.Join(c.dir, "rootfs", "bin", "shm"), "c/shm.c")
		if out, err := gcc.CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s", err, out)
		}
	}
	wantOut(a, aid, "shm put 'from a'", "")
	wantOut(p.main, p.id, "shm get", "from a\n")
	wantOut(alone, other, "shm get || true", "none\n")
}

// TestPodSharedMemory has a directory of the host, in memory, at /dev/shm of each container, as Kubernetes makes it: changes in one are seen
// in the others at once.
func TestPodSharedMemory(t *testing.T) {
	p := newPod(t, "exec sleep 1000")
	dir, err := os.MkdirTemp("/dev/shm", "pod")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	start := func() (*bundle, string) {
		b := p.member(cri, "sleep", "1000")
		b.config["mounts"] = append(b.config["mounts"].([]any), map[string]any{"destination": "/dev/shm", "type": "bind", "source": dir, "options": []string{"rbind"}})
		return b, p.start(b)
	}
	a, aid := start()
	b, bid := start()
	wantOut(b, bid, "ls /dev/shm", "")
	wantOut(a, aid, "echo one >/dev/shm/f", "")
	wantOut(b, bid, "cat /dev/shm/f; ls /dev/shm", "one\nf\n")
	wantOut(a, aid, "echo two >>/dev/shm/f; echo g >/dev/shm/g", "")
	wantOut(b, bid, "cat /dev/shm/f /dev/shm/g; busybox mv /dev/shm/g /dev/shm/h", "one\ntwo\ng\n")
	wantOut(a, aid, "cat /dev/shm/h; busybox rm /dev/shm/f; ls /dev/shm", "g\nh\n")
	wantOut(b, bid, "ls /dev/shm; cat /dev/shm/f 2>/dev/null || echo gone", "h\ngone\n")
}

// TestPodHostname changes the name in one container: those that share the namespace see it.
func TestPodHostname(t *testing.T) {
	p := newPod(t, "exec sleep 1000")
	admin := append(slices.Clone(caps), "CAP_SYS_ADMIN")
	a := p.member(cri, "sleep", "1000")
	a.process()["capabilities"] = map[string]any{"bounding": admin, "effective": admin, "permitted": admin}
	aid := p.start(a)
	alone := p.member([]string{"ipc"}, "sleep", "1000")
	alone.config["hostname"] = "own"
	other := p.start(alone)
	wantOut(a, aid, "hostname changed", "")
	wantOut(p.main, p.id, "hostname", "changed\n")
	wantOut(alone, other, "hostname", "own\n")
}

// TestPodSharedPIDs shares the sandbox container's PID namespace.
func TestPodSharedPIDs(t *testing.T) {
	p := newPod(t, "exec sleep 1000")
	shared := append([]string{"pid"}, cri...)
	a := p.member(shared, "sleep", "2000")
	aid := p.start(a)
	b := p.member(shared, "sleep", "3000")
	bid := p.start(b)
	for id, c := range map[string]*bundle{p.id: p.main, aid: a, bid: b} {
		out := c.must("exec", id, "sh", "-c", "for f in /proc/[0-9]*; do busybox tr '\\0' ' ' <$f/cmdline; echo; done | busybox grep ^sleep | busybox sort")
		if out != "sleep 1000 \nsleep 2000 \nsleep 3000 \n" {
			t.Errorf("%s sees %q", id, out)
		}
	}
	// A process of one container may signal one of another.
	b.must("exec", bid, "sh", "-c", "for f in /proc/[0-9]*; do case $(busybox tr '\\0' ' ' <$f/cmdline) in 'sleep 2000 ') kill -KILL ${f#/proc/};; esac; done")
	a.awaitStatus(aid, "stopped")
	for id, c := range map[string]*bundle{p.id: p.main, bid: b} {
		if st := c.status(id); st != "running" {
			t.Errorf("%s is %s", id, st)
		}
	}
	if isRunc() {
		return
	}
	// ps shows the container's own processes, by their numbers in the shared namespace.
	if out := b.must("ps", bid); !strings.Contains(out, "sleep 3000") || strings.Contains(out, "sleep 1000") {
		t.Errorf("ps: %s", out)
	}
	a.must("delete", aid)
	again := p.member(shared, "sleep", "4000")
	wantOut(again, p.start(again), "echo ok", "ok\n")
}

// TestPodSharedPIDsEndWithTheirContainer: what a container with a shared PID namespace leaves behind goes with it.
func TestPodSharedPIDsEndWithTheirContainer(t *testing.T) {
	p := newPod(t, "exec sleep 1000")
	a := p.member(append([]string{"pid"}, cri...), "sh", "-c", "sleep 2000 & (while :; do sleep 0.01 & wait; done) & exec sleep 3000")
	aid := p.start(a)
	a.must("kill", aid, "KILL")
	a.awaitStatus(aid, "stopped")
	a.must("delete", aid)
	out := p.main.must("exec", p.id, "sh", "-c", "for f in /proc/[0-9]*; do busybox tr '\\0' ' ' <$f/cmdline; echo; done")
	if strings.Contains(out, "2000") || strings.Contains(out, "3000") || strings.Contains(out, "0.01") {
		t.Errorf("left: %q", out)
	}
}

func TestPodExitCodes(t *testing.T) {
	p := newPod(t, "exec sleep 1000")
	for script, want := range map[string]int{"exit 0": 0, "exit 42": 42, "kill -9 $$; sh -c 'kill -9 $PPID'; exit 5": 5, "busybox sleep 1; exit 7": 7} {
		b := p.member(cri, "sh", "-c", script)
		b.write()
		id := newID()
		if r := b.call("run", "--bundle", b.dir, id); r.code != want {
			t.Errorf("%s: exit code %d, want %d; %s", script, r.code, want, r.err)
		}
		b.wantClean(id)
	}
	b := p.member(cri, "no-such-program")
	b.write()
	id := newID()
	b.fails([]string{"no-such-program", "executable file not found in $PATH"}, "run", "--bundle", b.dir, id)
	b.wantClean(id)
	if st := p.main.status(p.id); st != "running" {
		t.Errorf("the sandbox container is %s", st)
	}
}

func TestPodKillAndPause(t *testing.T) {
	p := newPod(t, "exec sleep 1000")
	a := p.member(cri, "sh", "-c", "trap 'echo term >/v/out; exit 9' TERM; while :; do echo >>/v/count; sleep 0.02; done")
	a.config["mounts"] = append(a.config["mounts"].([]any), map[string]any{"destination": "/v", "type": "bind", "source": a.dir, "options": []string{"rbind"}})
	aid := p.start(a)
	_, bid := p.sleeper()
	size := func() int64 {
		st, err := os.Stat(filepath.Join(a.dir, "count"))
		if err != nil {
			return 0
		}
		return st.Size()
	}
	until(t, "work", func() bool { return size() > 2 })
	a.must("pause", aid)
	if st := a.status(aid); st != "paused" {
		t.Errorf("paused: %s", st)
	}
	n := size()
	time.Sleep(200 * time.Millisecond)
	if size() != n {
		t.Error("a paused member works on")
	}
	wantOut(p.main, bid, "echo others run", "others run\n")
	a.must("resume", aid)
	until(t, "work after resume", func() bool { return size() > n })
	a.must("kill", aid, "TERM")
	a.awaitStatus(aid, "stopped")
	if text, _ := os.ReadFile(filepath.Join(a.dir, "out")); string(text) != "term\n" {
		t.Errorf("the trap wrote %q", text)
	}
	a.must("delete", aid)
	// A paused member can be deleted by force.
	p.main.must("pause", bid)
	p.main.must("delete", "--force", bid)
	p.main.wantClean(bid)
	wantOut(p.main, p.id, "echo still here", "still here\n")
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 200 {
		if f() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%s: not within 10 s", what)
}

// TestPodDeletionOrders ends and deletes the three containers of a pod in every order.
func TestPodDeletionOrders(t *testing.T) {
	for _, order := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		p := newPod(t, "exec sleep 1000")
		_, aid := p.sleeper()
		_, bid := p.sleeper()
		ids := [3]string{p.id, aid, bid}
		for i, n := range order {
			if i%2 == 0 {
				p.main.call("kill", ids[n], "KILL") // it may have ended with the sandbox
				p.main.awaitStatus(ids[n], "stopped")
				p.main.must("delete", ids[n])
			} else {
				p.main.must("delete", "--force", ids[n])
			}
			p.main.fails([]string{"does not exist"}, "state", ids[n])
			for _, later := range order[i+1:] {
				want := "running"
				if !isRunc() && slices.Contains(order[:i+1], 0) {
					want = "stopped" // the sandbox has gone
				}
				p.main.awaitStatus(ids[later], want)
			}
		}
		for _, id := range ids {
			p.main.wantClean(id)
		}
	}
}

// TestPodSameIDAgain makes a member with the ID of a deleted one, as a restarted container has.
func TestPodSameIDAgain(t *testing.T) {
	p := newPod(t, "exec sleep 1000")
	b := p.member(cri, "sh", "-c", "sleep 1000 & exec sleep 1000")
	b.write()
	id := newID()
	p.all = append(p.all, id)
	for range 5 {
		b.must("run", "--detach", "--bundle", b.dir, id)
		wantOut(b, id, "echo up", "up\n")
		b.must("delete", "--force", id)
	}
	b.must("create", "--bundle", b.dir, id)
	b.must("delete", id) // never started
	b.must("run", "--detach", "--bundle", b.dir, id)
	b.must("kill", id, "KILL")
	b.awaitStatus(id, "stopped")
	b.must("delete", id)
	b.wantClean(id)
}

// TestPodSandboxDies wants every container of the pod stopped when the sandbox process is killed.
func TestPodSandboxDies(t *testing.T) {
	if isRunc() {
		t.Skip("with runc, containers do not share a process")
	}
	p := newPod(t, "exec sleep 1000")
	a, aid := p.sleeper()
	b := p.member(cri, "sleep", "1000")
	b.write()
	bid := newID() // created, and not started
	p.all = append(p.all, bid)
	b.must("create", "--bundle", b.dir, bid)
	kill9(p.main.pid(p.id))
	for _, id := range []string{p.id, aid, bid} {
		p.main.awaitStatus(id, "stopped")
	}
	a.fails(nil, "exec", aid, "true")
	late := p.member(nil, "true")
	late.write()
	late.fails([]string{p.id, "stopped"}, "run", "--bundle", late.dir, newID())
	for _, id := range []string{bid, p.id, aid} {
		p.main.must("delete", id)
		p.main.wantClean(id)
	}
}

// TestPodEndsWithItsSandboxContainer: the end of the first container's process is the end of the pod.
func TestPodEndsWithItsSandboxContainer(t *testing.T) {
	if isRunc() {
		t.Skip("with runc, containers do not share a sandbox")
	}
	p := newPod(t, "trap 'exit 3' TERM; while :; do sleep 0.05; done")
	_, aid := p.sleeper()
	b := p.member(append([]string{"pid"}, cri...), "sleep", "1000")
	b.write()
	bid := newID() // created, and not started
	p.all = append(p.all, bid)
	b.must("create", "--bundle", b.dir, bid)
	time.Sleep(100 * time.Millisecond) // until the trap is set
	p.main.must("kill", p.id, "TERM")
	for _, id := range []string{p.id, aid, bid} {
		p.main.awaitStatus(id, "stopped")
		p.main.must("delete", id)
	}
}

// TestPodMemberDies kills the host processes of one member: only that container ends.
func TestPodMemberDies(t *testing.T) {
	if isRunc() {
		t.Skip("with runc, a container has no such processes")
	}
	p := newPod(t, "exec sleep 1000")
	b, bid := p.sleeper()
	for _, field := range []string{"pid", "goferPid"} {
		a, aid := p.sleeper()
		text, err := os.ReadFile(filepath.Join(a.state, aid, "state.json"))
		var s map[string]any
		if err != nil || json.Unmarshal(text, &s) != nil {
			t.Fatalf("%v: %s", err, text)
		}
		kill9(int(s[field].(float64)))
		a.awaitStatus(aid, "stopped")
		a.must("delete", aid)
		a.wantClean(aid)
		wantOut(b, bid, "echo still here", "still here\n")
		wantOut(p.main, p.id, "echo still here", "still here\n")
	}
}

// TestPodCreateDies kills the command line at different moments of a member's creation.
func TestPodCreateDies(t *testing.T) {
	p := newPod(t, "exec sleep 1000")
	b := p.member(append([]string{"pid"}, cri...), "sleep", "1000")
	b.write()
	for i := range 10 {
		id := newID()
		cmd := b.command("create", "--bundle", b.dir, id)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 4 * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		if b.status(id) != "" {
			b.call("kill", id, "KILL")
		}
		if r := b.call("delete", "--force", id); r.code != 0 {
			t.Errorf("after %d ms: delete --force: %s", i*4, r.err)
		}
		b.wantClean(id)
	}
	if isRunc() {
		return
	}
	until(t, "no member is left in the sandbox", func() bool {
		out := p.main.must("exec", p.id, "sh", "-c", "for f in /proc/[0-9]*; do busybox tr '\\0' ' ' <$f/cmdline; echo; done")
		return strings.Count(out, "sleep 1000") == 1
	})
}

// TestPodCgroups wants the process that stands for a member in the member's own cgroup: engines take its figures from there.
func TestPodCgroups(t *testing.T) {
	p := newPod(t, "exec sleep 1000")
	b, id := p.sleeper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", b.pid(id)))
	if err != nil || !strings.Contains(string(text), "/"+id+"\n") {
		t.Errorf("cgroups of %s: %s %v", id, text, err)
	}
}

// TestPodRefuses wants clear errors for pods that cannot be.
func TestPodRefuses(t *testing.T) {
	if isRunc() {
		t.Skip("runc does not know pods")
	}
	p := newPod(t, "exec sleep 1000")
	b := p.member(nil, "true")
	b.config["annotations"] = map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "no-such"}
	b.write()
	id := newID()
	b.fails([]string{"no-such", "does not exist"}, "run", "--bundle", b.dir, id)
	b.wantClean(id)
	other := newPod(t, "exec sleep 1000")
	b = other.member([]string{"ipc"}, "true")
	b.state = p.main.state
	b.config["annotations"] = map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": p.id}
	b.write()
	b.fails([]string{"ipc", "not that of a container"}, "run", "--bundle", b.dir, id)
	b.wantClean(id)
}
