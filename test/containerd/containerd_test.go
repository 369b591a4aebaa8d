package containerd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"husk/test/harness"
)

func TestRun(t *testing.T) {
	onBoth(t, func(s *suite) {
		s.want(0, "hello\n", s.sh("echo hello")...)
		s.want(7, "", s.sh("exit 7")...)
		s.want(0, "137\n", s.sh("sh -c 'kill -9 $$'; echo $?")...)
		s.want(0, "1\n", s.sh("echo $$")...)
		s.want(0, "v /tmp\n", s.sh("echo $K $PWD", "--env", "K=v", "--cwd", "/tmp")...)
		s.want(0, "refused\n", s.sh("echo x 2>/dev/null >/x || echo refused", "--read-only")...)
		out, errs, code := s.ctr(s.sh("echo out; echo err >&2")...)
		if out != "out\n" || errs != "err\n" || code != 0 {
			s.Errorf("output %q, errors %q, exit code %d", out, errs, code)
		}
	})
}

func TestStdin(t *testing.T) {
	onBoth(t, func(s *suite) {
		cmd := containerd.command(s.sh("head -1 | tr a-z A-Z")...)
		cmd.Stdin = strings.NewReader("some text\n")
		if out, errs, code := s.run(cmd); out != "SOME TEXT\n" || code != 0 {
			s.Errorf("output %q, errors %q, exit code %d", out, errs, code)
		}
	})
}

// TestHostname wants the host's name where the specification has none, as a new UTS namespace of Linux is a copy.
func TestHostname(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	onBoth(t, func(s *suite) { s.want(0, name+"\n", s.sh("uname -n")...) })
}

func TestBadCommand(t *testing.T) {
	onBoth(t, func(s *suite) {
		_, errs, code := s.ctr(append(s.flags("--rm"), image, s.newID(), "no-such-program")...)
		if code == 0 || !strings.Contains(errs, "no-such-program") || !strings.Contains(errs, "executable file not found in $PATH") {
			s.Errorf("exit code %d, errors: %s", code, errs)
		}
		id := s.start("exec sleep 1000")
		_, errs, code = s.ctr("task", "exec", "--exec-id", "bad", id, "/etc/passwd")
		if code == 0 || !strings.Contains(errs, "permission denied") {
			s.Errorf("exec: exit code %d, errors: %s", code, errs)
		}
	})
}

func TestVolume(t *testing.T) {
	onBoth(t, func(s *suite) {
		dir := s.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("from the host\n"), 0o644); err != nil {
			s.Fatal(err)
		}
		mount := []string{"--mount", "type=bind,src=" + dir + ",dst=/v,options=rbind:rw"}
		s.want(0, "from the host\n", s.sh("cat /v/f; echo from inside >/v/g", mount...)...)
		if text, err := os.ReadFile(filepath.Join(dir, "g")); string(text) != "from inside\n" {
			s.Errorf("the host sees %q, %v", text, err)
		}
	})
}

func TestExec(t *testing.T) {
	onBoth(t, func(s *suite) {
		id := s.start("echo main >/tmp/f; exec sleep 1000")
		s.eventually("the file of the main process", func() bool { _, _, c := s.ctr(s.exec(id, "test -s /tmp/f")...); return c == 0 })
		s.want(0, "main\n", s.exec(id, "cat /tmp/f")...)
		s.want(5, "", s.exec(id, "exit 5")...)
		s.want(143, "", s.exec(id, "kill -TERM $$")...)
		s.want(0, "/usr 1234\n", s.exec(id, "echo $(pwd) $(id -u)", "--cwd", "/usr", "--user", "1234")...)
		s.must(s.exec(id, "echo detached >/tmp/d; exec sleep 1000", "-d")...)
		s.eventually("the detached process", func() bool { return s.output(s.exec(id, "cat /tmp/d")...) == "detached\n" })
		s.must("task", "kill", "-s", "KILL", id)
		s.awaitStatus(id, "STOPPED")
		s.remove(id, 137)
	})
}

func TestKill(t *testing.T) {
	onBoth(t, func(s *suite) {
		const script = "trap 'exit 9' USR1; trap 'exit 8' TERM; touch /tmp/ready; while :; do sleep 0.05; done"
		for sig, code := range map[string]int{"USR1": 9, "TERM": 8, "KILL": 137} {
			id := s.start(script)
			s.eventually("the traps", func() bool { _, _, c := s.ctr(s.exec(id, "test -e /tmp/ready")...); return c == 0 })
			s.must("task", "kill", "-s", sig, id)
			s.awaitStatus(id, "STOPPED")
			s.remove(id, code)
		}
		id := s.start("exec sleep 1000")
		s.must(s.exec(id, "exec sleep 1000", "-d")...)
		s.must("task", "kill", "-s", "KILL", "-a", id)
		s.awaitStatus(id, "STOPPED")
		s.remove(id, 137)
	})
}

// TestKillExec signals one process of those that exec started.
func TestKillExec(t *testing.T) {
	onBoth(t, func(s *suite) {
		id := s.start("exec sleep 1000")
		s.must("task", "exec", "-d", "--exec-id", "one", id, "sh", "-c", "trap 'echo got >/tmp/got; exit' USR1; touch /tmp/ready; while :; do sleep 0.05; done")
		s.eventually("the trap", func() bool { _, _, c := s.ctr(s.exec(id, "test -e /tmp/ready")...); return c == 0 })
		s.must("task", "kill", "-s", "USR1", "--exec-id", "one", id)
		s.eventually("the signal", func() bool { return s.output(s.exec(id, "cat /tmp/got")...) == "got\n" })
		if st := s.status(id); st != "RUNNING" {
			s.Errorf("the task is %s", st)
		}
	})
}

func TestPauseResume(t *testing.T) {
	onBoth(t, func(s *suite) {
		dir := s.TempDir()
		count := filepath.Join(dir, "n")
		id := s.start("while :; do echo >>/v/n; sleep 0.02; done", "--mount", "type=bind,src="+dir+",dst=/v,options=rbind:rw")
		size := func() int64 {
			st, err := os.Stat(count)
			if err != nil {
				return 0
			}
			return st.Size()
		}
		s.eventually("work", func() bool { return size() > 3 })
		s.must("task", "pause", id)
		if st := s.status(id); st != "PAUSED" {
			s.Errorf("paused: %s", st)
		}
		n := size()
		time.Sleep(300 * time.Millisecond)
		if size() != n {
			s.Error("a paused task goes on working")
		}
		s.must("task", "resume", id)
		if st := s.status(id); st != "RUNNING" {
			s.Errorf("resumed: %s", st)
		}
		s.eventually("work goes on", func() bool { return size() > n })
	})
}

func TestTerminal(t *testing.T) {
	onBoth(t, func(s *suite) {
		args := append(s.flags("--rm", "-t"), image, s.newID(), "sh", "-c",
			`test -t 0 && test -t 1 && echo t''ty; while read x; do [ "$x" = q ] && exit 6; echo "got $x"; stty size; done`)
		p := harness.StartPTY(s.T, containerd.command(args...), 24, 80)
		p.Expect(s.T, "tty\r") // ctr leaves the output processing of its terminal on
		s.eventually("the first size", func() bool { p.Send("size\n"); return p.Sees("24 80", 500*time.Millisecond) })
		p.Send("one\n")
		p.Expect(s.T, "got one")
		p.Resize(s.T, 40, 100)
		s.eventually("the new size", func() bool { p.Send("again\n"); return p.Sees("40 100", 500*time.Millisecond) })
		p.Send("q\n")
		if code := p.Wait(s.T); code != 6 {
			s.Errorf("exit code %d, want 6", code)
		}
	})
}

func TestExecTerminal(t *testing.T) {
	onBoth(t, func(s *suite) {
		id := s.start("exec sleep 1000")
		p := harness.StartPTY(s.T, containerd.command(s.exec(id, "while read x; do [ $x = q ] && exit 9; echo got $x; stty size; done", "-t")...), 30, 90)
		s.eventually("the first size", func() bool { p.Send("size\n"); return p.Sees("30 90", 500*time.Millisecond) })
		p.Send("line\n")
		p.Expect(s.T, "got line")
		p.Send("q\n")
		if code := p.Wait(s.T); code != 9 {
			s.Errorf("exit code %d, want 9", code)
		}
	})
}

// TestMetrics wants figures of the container's own cgroup.
func TestMetrics(t *testing.T) {
	onBoth(t, func(s *suite) {
		id := s.start("exec sleep 1000", "--memory-limit", "201326592", "--cpus", "0.5")
		var m struct {
			Pids   struct{ Current int }
			CPU    struct{ Usage struct{ Total int64 } }
			Memory struct{ Usage struct{ Limit, Usage int64 } }
		}
		if err := json.Unmarshal([]byte(s.must("task", "metrics", "--format", "json", id)), &m); err != nil {
			s.Fatal(err)
		}
		if m.Pids.Current == 0 || m.CPU.Usage.Total == 0 || m.Memory.Usage.Limit != 201326592 || m.Memory.Usage.Usage == 0 {
			s.Errorf("%+v", m)
		}
		var pid int
		for _, line := range strings.Split(s.must("task", "ls"), "\n") {
			if f := strings.Fields(line); len(f) == 3 && f[0] == id {
				pid, _ = strconv.Atoi(f[1])
			}
		}
		if out := s.must("task", "ps", id); !strings.Contains(out, strconv.Itoa(pid)) {
			s.Errorf("ctr task ps does not have process %d: %s", pid, out)
		}
	})
}

// TestEvents wants the events that containerd gives of a container's life.
func TestEvents(t *testing.T) {
	onBoth(t, func(s *suite) {
		cmd := containerd.command("events")
		out, err := cmd.StdoutPipe()
		if err != nil {
			s.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			s.Fatal(err)
		}
		defer func() { cmd.Process.Kill(); cmd.Wait() }()
		lines := make(chan string, 1000)
		go func() {
			defer close(lines)
			for sc := bufio.NewScanner(out); sc.Scan(); {
				lines <- sc.Text()
			}
		}()
		time.Sleep(300 * time.Millisecond)
		id := s.start("exec sleep 1000")
		s.want(0, "", s.exec(id, "true")...)
		s.must("task", "pause", id)
		s.must("task", "resume", id)
		s.must("task", "kill", "-s", "KILL", id)
		s.awaitStatus(id, "STOPPED")
		s.remove(id, 137)
		limit := time.After(10 * time.Second)
		for _, topic := range []string{"create", "start", "exec-added", "exec-started", "exit", "paused", "resumed", "exit", "delete"} {
			for found := false; !found; {
				select {
				case l := <-lines:
					found = strings.Contains(l, "/tasks/"+topic+" ") && strings.Contains(l, id)
				case <-limit:
					s.Fatalf("no event %s", topic)
				}
			}
		}
	})
}

// TestOutOfMemory wants a container that needs more memory than it has to end.
func TestOutOfMemory(t *testing.T) {
	onBoth(t, func(s *suite) {
		_, _, code := s.ctr(s.sh("exec python3 -c 'x=bytearray(1<<29)'", "--memory-limit", "134217728")...)
		if code == 0 {
			s.Error("exit code 0")
		}
	})
}

// TestSandboxKilled kills the process that stands for the container on the host.
func TestSandboxKilled(t *testing.T) {
	onBoth(t, func(s *suite) {
		file := filepath.Join(s.TempDir(), "pid")
		id := s.start("exec sleep 1000", "--pid-file", file)
		text, _ := os.ReadFile(file)
		pid, err := strconv.Atoi(string(text))
		if err != nil || pid <= 1 {
			s.Fatalf("pid file: %q", text)
		}
		syscall.Kill(pid, syscall.SIGKILL)
		s.awaitStatus(id, "STOPPED")
		s.remove(id, 137)
	})
}

// TestDaemonRestart wants containers to outlive containerd.
func TestDaemonRestart(t *testing.T) {
	onBoth(t, func(s *suite) {
		id := s.start("exec sleep 1000")
		containerd.halt()
		if err := containerd.start(); err != nil {
			s.Fatal(err)
		}
		s.awaitStatus(id, "RUNNING")
		s.want(0, "still here\n", s.exec(id, "echo still here")...)
		s.must("task", "kill", "-s", "KILL", id)
		s.awaitStatus(id, "STOPPED")
		s.remove(id, 137)
	})
}

func TestFiveAtOnce(t *testing.T) {
	onBoth(t, func(s *suite) {
		var cmds []*exec.Cmd
		for i := range 5 {
			cmd := containerd.command(s.sh(fmt.Sprintf("seq 1000 | tail -1; exit %d", i))...)
			if err := cmd.Start(); err != nil {
				s.Fatal(err)
			}
			cmds = append(cmds, cmd)
		}
		for i, cmd := range cmds {
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != i {
				s.Errorf("container %d: exit code %d", i, code)
			}
		}
	})
}
