package containerd

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"husk/test/harness"
)

// pid is the process that stands for a task on the host.
func (s *suite) pid(id string) int {
	s.Helper()
	for _, line := range strings.Split(s.must("task", "ls"), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			pid, _ := strconv.Atoi(f[1])
			return pid
		}
	}
	s.Fatalf("no task %s", id)
	return 0
}

// podFlags are those of a container of the pod of a sandbox container, as Kubernetes makes them: one shim for all, and
// shared IPC and UTS namespaces.
func (s *suite) podFlags(sandbox string, more ...string) []string {
	flags := []string{"--annotation", "io.kubernetes.cri.container-type=container", "--annotation", "io.kubernetes.cri.sandbox-id=" + sandbox}
	for _, kind := range []string{"ipc", "uts"} {
		flags = append(flags, "--with-ns", fmt.Sprintf("%s:/proc/%d/ns/%s", kind, s.pid(sandbox), kind))
	}
	return append(flags, more...)
}

// startSandbox starts the sandbox container of a pod.
func (s *suite) startSandbox() string {
	s.Helper()
	id := s.newID()
	s.must(append(s.flags("-d", "--annotation", "io.kubernetes.cri.container-type=sandbox", "--annotation", "io.kubernetes.cri.sandbox-id="+id),
		image, id, "sleep", "1000")...)
	return id
}

func TestPod(t *testing.T) {
	onBoth(t, func(s *suite) {
		sandbox := s.startSandbox()
		a := s.start("echo a >/tmp/f; trap 'exit 9' TERM; while :; do sleep 0.05; done", s.podFlags(sandbox)...)
		b := s.start("echo b >/tmp/f; exec sleep 1000", s.podFlags(sandbox, "--memory-limit", "67108864")...)
		for id, want := range map[string]string{a: "a\n", b: "b\n"} {
			s.eventually("the file of "+id, func() bool { return s.output(s.exec(id, "cat /tmp/f")...) == want })
			s.want(0, "1\n", s.exec(id, "test -e /proc/1 && ls /proc | grep -c '^1$'")...)
			s.want(5, "", s.exec(id, "exit 5")...)
		}
		if x, y := s.must(s.exec(a, "readlink /proc/self/ns/ipc")...), s.must(s.exec(sandbox, "readlink /proc/self/ns/ipc")...); x != y {
			s.Errorf("IPC namespaces %s and %s", x, y)
		}
		var m struct {
			Memory struct{ Usage struct{ Limit int64 } }
		}
		if err := json.Unmarshal([]byte(s.must("task", "metrics", "--format", "json", b)), &m); err != nil || m.Memory.Usage.Limit != 67108864 {
			s.Errorf("metrics of a member: %v, %+v", err, m)
		}
		s.want(7, "", s.sh("exit 7", s.podFlags(sandbox)...)...)
		s.must("task", "pause", b)
		if st := s.status(b); st != "PAUSED" {
			s.Errorf("paused: %s", st)
		}
		s.must("task", "resume", b)
		s.must("task", "kill", "-s", "TERM", a)
		s.awaitStatus(a, "STOPPED")
		s.remove(a, 9)
		s.want(0, "still here\n", s.exec(b, "echo still here")...)
		s.must("task", "kill", "-s", "KILL", b)
		s.awaitStatus(b, "STOPPED")
		s.remove(b, 137)
		s.must("task", "kill", "-s", "KILL", sandbox)
		s.awaitStatus(sandbox, "STOPPED")
		s.remove(sandbox, 137)
	})
}

func TestPodTerminal(t *testing.T) {
	onBoth(t, func(s *suite) {
		sandbox := s.startSandbox()
		args := append(append(s.flags("--rm", "-t"), s.podFlags(sandbox)...), image, s.newID(), "sh", "-c",
			`test -t 0 && echo t''ty; while read x; do [ "$x" = q ] && exit 6; echo "got $x"; stty size; done`)
		p := harness.StartPTY(s.T, containerd.command(args...), 24, 80)
		p.Expect(s.T, "tty\r")
		p.Send("one\n")
		p.Expect(s.T, "got one")
		p.Resize(s.T, 40, 100)
		s.eventually("the new size", func() bool { p.Send("again\n"); return p.Sees("40 100", 500e6) })
		p.Send("q\n")
		if code := p.Wait(s.T); code != 6 {
			s.Errorf("exit code %d, want 6", code)
		}
	})
}

// TestPodSandboxKilled kills the sandbox process: with it go all containers of the pod.
func TestPodSandboxKilled(t *testing.T) {
	s := newSuite(t)
	sandbox := s.startSandbox()
	a := s.start("exec sleep 1000", s.podFlags(sandbox)...)
	b := s.start("exec sleep 1000", s.podFlags(sandbox)...)
	if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.pid(a))); !strings.Contains(string(text), "exec-waiter") {
		s.Errorf("the member has a sandbox of its own: %q", text)
	}
	syscall.Kill(s.pid(sandbox), syscall.SIGKILL)
	for _, id := range []string{a, b, sandbox} {
		s.awaitStatus(id, "STOPPED")
		s.remove(id, 137)
	}
}
