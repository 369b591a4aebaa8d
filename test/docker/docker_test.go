package docker

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"husk/test/harness"
)

func TestRun(t *testing.T) {
	want(t, 0, "hello\n", sh("echo hello")...)
	want(t, 7, "", sh("exit 7")...)
	want(t, 0, "137\n", sh("sh -c 'kill -9 $$'; echo $?")...)
	want(t, 0, "1\n", sh("echo $$")...)
}

func TestStreams(t *testing.T) {
	out, errs, code := run(t, sh("echo out; echo err >&2")...)
	if out != "out\n" || errs != "err\n" || code != 0 {
		t.Errorf("output %q, errors %q, exit code %d", out, errs, code)
	}
	cmd := docker.command(sh("tr a-z A-Z", "-i")...)
	cmd.Stdin = strings.NewReader("some text\n")
	if out, errs, code := runCommand(t, cmd); out != "SOME TEXT\n" || code != 0 {
		t.Errorf("output %q, errors %q, exit code %d", out, errs, code)
	}
}

func TestDebian(t *testing.T) {
	want(t, 0, "Debian GNU/Linux\n42\n0\n", sh(`. /etc/os-release; echo $NAME; python3 -c 'print(6*7)'; dpkg -l >/dev/null; echo $?`)...)
	want(t, 0, "changed\n", sh(`echo changed >/etc/motd; cat /etc/motd; rm -r /usr/share/doc`)...)
}

func TestKernelIsNotTheHosts(t *testing.T) {
	if runtimeName() == "runc" {
		t.Skip("runc shares the host's kernel")
	}
	host, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	out, errs, _ := run(t, sh("cat /proc/sys/kernel/random/boot_id")...)
	if out == "" || out == string(host) {
		t.Errorf("boot_id %q, on the host %q; errors: %s", out, host, errs)
	}
}

func TestNotFound(t *testing.T) {
	_, errs, code := run(t, append(container("--rm"), image, "no-such-program")...)
	if code != 127 || !strings.Contains(errs, "no-such-program") || !strings.Contains(errs, "executable file not found in $PATH") {
		t.Errorf("exit code %d, want 127; errors: %s", code, errs)
	}
	_, errs, code = run(t, append(container("--rm"), image, "/etc/passwd")...)
	if code != 126 || !strings.Contains(errs, "permission denied") {
		t.Errorf("exit code %d, want 126; errors: %s", code, errs)
	}
	_, errs, code = run(t, append(container("--rm", "-w", "/etc/passwd"), image, "true")...)
	if code == 0 || errs == "" {
		t.Errorf("working directory that is a file: exit code %d, errors: %s", code, errs)
	}
}

func TestIdentity(t *testing.T) {
	want(t, 0, "1000:1001\n", sh("echo $(id -u):$(id -g)", "--user", "1000:1001")...)
	want(t, 0, "nobody\n", sh("id -un", "--user", "nobody")...)
	want(t, 0, "v\n", sh("echo $K", "--env", "K=v")...)
	want(t, 0, "/root\n", sh("echo $HOME")...)
	want(t, 0, "/\n", sh("echo $HOME", "--user", "12345")...)
	want(t, 0, "/nonexistent\n", sh("echo $HOME", "--user", "nobody", "--env", "HOME=")...)
	want(t, 0, "/mine\n", sh("echo $HOME", "--env", "HOME=/mine")...)
	want(t, 0, "boxed\n", sh("hostname", "--hostname", "boxed")...)
	want(t, 0, "/tmp\n", sh("pwd", "-w", "/tmp")...)
	want(t, 0, "77\n", sh("ulimit -n", "--ulimit", "nofile=77:77")...)
	want(t, 0, "1234\n70000\n", sh("cat /proc/sys/kernel/msgmax /proc/sys/kernel/shmmax", "--sysctl", "kernel.msgmax=1234", "--sysctl", "kernel.shmmax=70000")...)
	want(t, 0, "1\n", sh("chown 5 /etc/motd 2>/dev/null; echo $?", "--cap-drop", "CHOWN")...)
}

func TestVolumes(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, 0, "from the host\n", sh("cat /v/f; echo from inside >/v/g", "-v", dir+":/v")...)
	if text, err := os.ReadFile(filepath.Join(dir, "g")); string(text) != "from inside\n" {
		t.Errorf("the host sees %q, %v", text, err)
	}
	want(t, 0, "from the host\nrefused\n", sh("cat /v/f; echo x 2>/dev/null >/v/h || echo refused", "-v", dir+":/v:ro")...)
	want(t, 0, "x\ntmpfs\n", sh("echo x >/t/x; cat /t/x; stat -f -c %T /t", "--tmpfs", "/t")...)
	want(t, 0, "refused\nallowed\n", sh("echo x 2>/dev/null >/x || echo refused; echo x >/t/x && echo allowed", "--read-only", "--tmpfs", "/t")...)
	want(t, 0, "from the host\n", sh("cat /etc/one", "-v", filepath.Join(dir, "f")+":/etc/one")...)
}

func TestSharedVolumeSeesChanges(t *testing.T) {
	dir := t.TempDir()
	id := start(t, "while [ ! -e /v/go ]; do sleep 0.05; done; cat /v/go", "-v", dir+":/v")
	time.Sleep(300 * time.Millisecond)
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte("went\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, 0, "0\n", "wait", id)
	want(t, 0, "went\n", "logs", id)
}

func TestExec(t *testing.T) {
	id := start(t, "echo main >/tmp/f; exec sleep 1000")
	eventually(t, "the file of the main process", func() bool { _, _, c := run(t, "exec", id, "test", "-s", "/tmp/f"); return c == 0 })
	want(t, 0, "main\n", "exec", id, "cat", "/tmp/f")
	want(t, 5, "", "exec", id, "sh", "-c", "exit 5")
	want(t, 0, "1234\n", "exec", "-u", "1234", id, "id", "-u")
	want(t, 0, "/usr\n", "exec", "-w", "/usr", id, "pwd")
	want(t, 0, "y\n", "exec", "-e", "X=y", id, "sh", "-c", "echo $X")
	want(t, 0, "/root\n", "exec", id, "sh", "-c", "echo $HOME")
	if out, errs, code := run(t, "exec", "-w", "/no/such/directory", id, "pwd"); code == 0 || !strings.Contains(out+errs, "no such file") {
		t.Errorf("exec in a directory that is not there: exit code %d, output %s%s", code, out, errs)
	}
	_, _, code := run(t, "exec", id, "no-such-program")
	if code != 126 && code != 127 { // it depends on Docker's version
		t.Errorf("exec of a missing program: exit code %d, want 126 or 127", code)
	}
	cmd := docker.command("exec", "-i", id, "cat")
	cmd.Stdin = strings.NewReader("through")
	if out, _, _ := runCommand(t, cmd); out != "through" {
		t.Errorf("exec -i cat gave %q", out)
	}
	run(t, "exec", "-d", id, "sh", "-c", "echo detached >/tmp/d")
	eventually(t, "the detached process", func() bool { out, _, _ := run(t, "exec", id, "cat", "/tmp/d"); return out == "detached\n" })
}

func TestStopKillRestart(t *testing.T) {
	id := start(t, "trap 'echo stopping; exit 3' TERM; echo started; while :; do sleep 0.1; done")
	eventually(t, "start", func() bool { out, _, _ := run(t, "logs", id); return out == "started\n" })
	run(t, "stop", id)
	want(t, 0, "3 exited\n", "inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", id)
	want(t, 0, "started\nstopping\n", "logs", id)
	if _, errs, code := run(t, "restart", id); code != 0 {
		t.Errorf("restart: %s", errs)
	}
	eventually(t, "restart", func() bool { out, _, _ := run(t, "logs", id); return strings.HasSuffix(out, "stopping\nstarted\n") })
	run(t, "kill", id)
	want(t, 0, "137 exited\n", "inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", id)
	id = start(t, "exec sleep 1000")
	run(t, "kill", "-s", "USR1", id)
	run(t, "pause", id)
	want(t, 0, "paused\n", "inspect", "-f", "{{.State.Status}}", id)
	run(t, "unpause", id)
	run(t, "rm", "-f", id)
}

func TestTerminal(t *testing.T) {
	script := `test -t 0 && test -t 1 && echo tty; tty; while read x; do [ "$x" = q ] && exit 6; echo "got $x"; stty size; done`
	args := append(container("--rm", "-it"), image, "sh", "-c", script)
	p := harness.StartPTY(t, docker.command(args...), 24, 80)
	p.Expect(t, "tty\r\n")
	p.Expect(t, "/dev/")
	// The client sets the size once the container runs.
	eventually(t, "the first size", func() bool { p.Send("size\n"); return p.Sees("24 80", 500*time.Millisecond) })
	p.Send("one\n")
	p.Expect(t, "got one")
	p.Resize(t, 40, 100)
	eventually(t, "the new size", func() bool { p.Send("again\n"); return p.Sees("40 100", 500*time.Millisecond) })
	p.Send("q\n")
	if code := p.Wait(t); code != 6 {
		t.Errorf("exit code %d, want 6", code)
	}
}

func TestTerminalJobControl(t *testing.T) {
	args := append(container("--rm", "-it"), image, "bash", "--norc")
	p := harness.StartPTY(t, docker.command(args...), 24, 80)
	p.Send("echo re''ady\n")
	p.Expect(t, "ready")
	p.Send("sleep 1000\n")
	time.Sleep(500 * time.Millisecond)
	p.Send("\x1a")
	p.Expect(t, "Stopped")
	p.Send("jobs; fg\n")
	p.Expect(t, "sleep 1000")
	time.Sleep(300 * time.Millisecond)
	p.Send("\x03")
	p.Send("echo co''de $?\n")
	p.Expect(t, "code 130")
	p.Send("exit 4\n")
	if code := p.Wait(t); code != 4 {
		t.Errorf("exit code %d, want 4", code)
	}
}

func TestExecTerminal(t *testing.T) {
	id := start(t, "exec sleep 1000")
	p := harness.StartPTY(t, docker.command("exec", "-it", id, "sh", "-c", "tty; while read x; do [ $x = q ] && exit 9; echo got $x; stty size; done"), 30, 90)
	p.Expect(t, "/dev/")
	eventually(t, "the first size", func() bool { p.Send("size\n"); return p.Sees("30 90", 500*time.Millisecond) })
	p.Send("line\n")
	p.Expect(t, "got line")
	p.Send("q\n")
	if code := p.Wait(t); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
}

func TestTenAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			cmd := docker.command(sh(fmt.Sprintf("seq 1000 | tail -1; exit %d", i))...)
			out, err := cmd.Output()
			if string(out) != "1000\n" || cmd.ProcessState.ExitCode() != i {
				t.Errorf("container %d: output %q, %v", i, out, err)
			}
		}()
	}
	wg.Wait()
}

func TestManyLogLines(t *testing.T) {
	id := start(t, "seq 20000")
	want(t, 0, "0\n", "wait", id)
	out, _, _ := run(t, "logs", id)
	if n := strings.Count(out, "\n"); n != 20000 {
		t.Errorf("%d lines in the log", n)
	}
}

func TestTopAndStats(t *testing.T) {
	id := start(t, "exec sleep 1000", "--memory", "256m", "--pids-limit", "50")
	if out, errs, code := run(t, "top", id); code != 0 || strings.Count(out, "\n") < 2 {
		t.Errorf("top: exit code %d, %q, %s", code, out, errs)
	}
	if out, errs, code := run(t, "stats", "--no-stream", id); code != 0 {
		t.Errorf("stats: exit code %d, %q, %s", code, out, errs)
	}
}

func TestPidsLimit(t *testing.T) {
	out, errs, code := run(t, sh("for i in $(seq 40); do sleep 5 & done; echo all", "--pids-limit", "20")...)
	if code == 0 || out != "" || !strings.Contains(errs, "fork") {
		t.Errorf("exit code %d, output %q, errors %q", code, out, errs)
	}
}

func TestDaemonRestartIsNotNeededAfterKilledSandbox(t *testing.T) {
	id := start(t, "exec sleep 1000")
	out, _, _ := run(t, "inspect", "-f", "{{.State.Pid}}", id)
	var pid int
	if _, err := fmt.Fscan(bufio.NewReader(strings.NewReader(out)), &pid); err != nil || pid <= 1 {
		t.Fatalf("no pid: %q", out)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	eventually(t, "the exit", func() bool {
		out, _, _ := run(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id)
		return out == "exited 137\n"
	})
	if _, errs, code := run(t, "rm", id); code != 0 {
		t.Errorf("rm: %s", errs)
	}
}

// TestUpdate changes the limits of a running container.
func TestUpdate(t *testing.T) {
	id := start(t, "exec sleep 1000", "--memory", "128m", "--pids-limit", "5")
	const many = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
	if _, errs, code := run(t, "exec", id, "sh", "-c", many); code == 0 {
		t.Errorf("nine processes in a container with five: %s", errs)
	}
	if _, errs, code := run(t, "update", "--memory", "256m", "--memory-swap", "512m", "--pids-limit", "50", "--cpus", "0.5", id); code != 0 {
		t.Fatalf("update: %s", errs)
	}
	eventually(t, "more processes", func() bool { _, _, code := run(t, "exec", id, "sh", "-c", many); return code == 0 })
	if runtimeName() != "runc" {
		want(t, 0, "262144\n", "exec", id, "sed", "-n", `s/^MemTotal: *\([0-9]*\) kB/\1/p`, "/proc/meminfo")
	}
}
