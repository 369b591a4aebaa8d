package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRunExitCodes(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 42": 42, "sh -c 'kill -9 $$'; exit $?": 137, "sh -c 'kill -TERM $$'; exit $?": 143} {
		b := newBundle(t, "sh", "-c", script)
		b.write()
		id := newID()
		if r := b.call("run", "--bundle", b.dir, id); r.code != want {
			t.Errorf("%s: exit code %d, want %d; %s", script, r.code, want, r.err)
		}
		b.wantClean(id)
	}
}

func TestLifecycle(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	id := newID()
	pidFile := filepath.Join(b.dir, "pid")
	b.must("create", "--bundle", b.dir, "--pid-file", pidFile, id)
	t.Cleanup(func() { b.call("delete", "--force", id) })
	if s := b.status(id); s != "created" {
		t.Fatalf("after create: %q", s)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil || string(text) != fmt.Sprint(b.pid(id)) {
		t.Errorf("pid file %q, %v; state says %d", text, err, b.pid(id))
	}
	b.fails([]string{id}, "create", "--bundle", b.dir, id)
	b.must("start", id)
	if s := b.status(id); s != "running" {
		t.Errorf("after start: %q", s)
	}
	b.fails([]string{"running"}, "start", id)
	b.fails([]string{id, "not stopped"}, "delete", id)
	if out := b.must("list"); !strings.Contains(out, id) || !strings.Contains(out, "running") {
		t.Errorf("list: %s", out)
	}
	if out := b.must("list", "--quiet"); strings.TrimSpace(out) != id {
		t.Errorf("list --quiet: %q", out)
	}
	b.must("pause", id)
	if s := b.status(id); s != "paused" {
		t.Errorf("after pause: %q", s)
	}
	b.must("resume", id)
	b.must("kill", id, "KILL")
	b.awaitStatus(id, "stopped")
	b.fails(nil, "kill", id, "TERM")
	b.fails(nil, "exec", id, "true")
	b.must("delete", id)
	b.fails([]string{"does not exist"}, "state", id)
	b.fails([]string{"does not exist"}, "delete", id)
	b.must("delete", "--force", id)
	b.wantClean(id)
}

func TestStateFields(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.config["annotations"] = map[string]any{"a.b": "c"}
	id := b.running()
	var s struct {
		OciVersion, ID, Status, Bundle string
		Pid                            int
		Annotations                    map[string]string
	}
	if err := json.Unmarshal([]byte(b.must("state", id)), &s); err != nil {
		t.Fatal(err)
	}
	if s.ID != id || s.Status != "running" || s.Bundle != b.dir || s.Pid <= 0 || s.OciVersion == "" || s.Annotations["a.b"] != "c" {
		t.Errorf("%+v", s)
	}
}

func TestKillSignals(t *testing.T) {
	b := newBundle(t, "sh", "-c", "trap 'exit 9' USR1; trap 'exit 8' TERM; touch /tmp/ready; while :; do sleep 0.05; done")
	for _, sig := range []string{"USR1", "SIGUSR1", "10", "TERM"} {
		id := b.running()
		for range 100 {
			if b.call("exec", id, "ls", "/tmp/ready").code == 0 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		b.must("kill", id, sig)
		b.awaitStatus(id, "stopped")
	}
	id := b.running()
	b.fails([]string{"NOSUCHSIGNAL"}, "kill", id, "NOSUCHSIGNAL")
}

func TestExec(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	id := b.running()
	if r := b.call("exec", id, "sh", "-c", "echo out; echo err >&2; exit 5"); r.code != 5 || r.out != "out\n" || r.err != "err\n" {
		t.Errorf("%+v", r)
	}
	if r := b.call("exec", "--user", "1000:1000", "--cwd", "/tmp", "--env", "A=b", id, "sh", "-c", "id -u; pwd; echo $A"); r.out != "1000\n/tmp\nb\n" {
		t.Errorf("%+v", r)
	}
	if r := b.call("exec", id, "sh", "-c", "kill -9 $$"); r.code != 137 {
		t.Errorf("killed: exit code %d", r.code)
	}
	b.fails([]string{"no-such", "executable file not found in $PATH"}, "exec", id, "no-such")
	process := filepath.Join(b.dir, "p.json")
	os.WriteFile(process, []byte(`{"args":["sh","-c","echo from file; exit 4"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0}}`), 0o644)
	if r := b.call("exec", "--process", process, id); r.code != 4 || r.out != "from file\n" {
		t.Errorf("%+v", r)
	}
	pidFile := filepath.Join(b.dir, "execpid")
	b.must("exec", "--detach", "--pid-file", pidFile, id, "sleep", "500")
	if text, err := os.ReadFile(pidFile); err != nil || len(text) == 0 {
		t.Errorf("pid file of exec: %q, %v", text, err)
	}
	if out := b.must("ps", id); !strings.Contains(out, "sleep") {
		t.Errorf("ps: %s", out)
	}
}

func TestManyExecs(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	id := b.running()
	for i := range 20 {
		if r := b.call("exec", id, "sh", "-c", fmt.Sprintf("exit %d", i)); r.code != i {
			t.Errorf("exec %d: %+v", i, r)
		}
	}
}

func TestContainerEnvironment(t *testing.T) {
	b := newBundle(t, "sh", "-c", "id -u; id -g; pwd; hostname; echo $X; cat /proc/self/status | busybox grep -E 'CapEff|NoNewPrivs'; ulimit -n; cat < /proc/mounts | busybox wc -l >/dev/null; echo $$")
	p := b.process()
	p["user"] = map[string]any{"uid": 1000, "gid": 1000, "additionalGids": []int{7}}
	p["cwd"] = "/tmp"
	p["env"] = []string{"PATH=/bin", "X=y z"}
	b.write()
	r := b.call("run", "--bundle", b.dir, newID())
	want := "1000\n1000\n/tmp\nhusk\ny z\nCapEff:\t0000000020000421\nNoNewPrivs:\t1\n1024\n1\n"
	if r.code != 0 || r.out != strings.ReplaceAll(want, "0000000020000421", strings.TrimPrefix(effective(r.out), "CapEff:\t")) {
		t.Errorf("exit code %d, output %q, want %q; %s", r.code, r.out, want, r.err)
	}
}

func effective(out string) string {
	for _, l := range strings.Split(out, "\n") {
		if strings.HasPrefix(l, "CapEff") {
			return l
		}
	}
	return ""
}

func TestHooks(t *testing.T) {
	b := newBundle(t, "true")
	log := filepath.Join(b.dir, "hooks")
	hook := func(name string) []any {
		return []any{map[string]any{"path": "/bin/sh", "args": []string{"sh", "-c", "read -r s; echo " + name + " >>" + log}}}
	}
	b.config["hooks"] = map[string]any{"prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "poststart": hook("poststart"), "poststop": hook("poststop")}
	b.write()
	b.must("run", "--bundle", b.dir, newID())
	text, _ := os.ReadFile(log)
	if string(text) != "prestart\ncreateRuntime\npoststart\npoststop\n" {
		t.Errorf("hooks ran: %q", text)
	}
	b.config["hooks"] = map[string]any{"createRuntime": []any{map[string]any{"path": "/bin/false"}}}
	b.write()
	id := newID()
	b.fails([]string{"hook"}, "run", "--bundle", b.dir, id)
	b.wantClean(id)
}

func TestMounts(t *testing.T) {
	b := newBundle(t, "sh", "-c", "cat /b/f; echo x 2>/dev/null >/b/g || echo ro; echo y >/t/f && cat /t/f; cat /deep/er/f")
	src := t.TempDir()
	os.WriteFile(filepath.Join(src, "f"), []byte("bound\n"), 0o644)
	b.config["mounts"] = append(b.config["mounts"].([]any),
		map[string]any{"destination": "/b", "type": "bind", "source": src, "options": []string{"rbind", "ro"}},
		map[string]any{"destination": "/deep/er", "type": "bind", "source": src, "options": []string{"rbind"}},
		map[string]any{"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": []string{"size=1m"}})
	b.write()
	if r := b.call("run", "--bundle", b.dir, newID()); r.out != "bound\nro\ny\nbound\n" {
		t.Errorf("%+v", r)
	}
}

func TestReadonlyRoot(t *testing.T) {
	b := newBundle(t, "sh", "-c", "touch /x 2>/dev/null || echo refused")
	b.config["root"].(map[string]any)["readonly"] = true
	b.write()
	if r := b.call("run", "--bundle", b.dir, newID()); r.out != "refused\n" {
		t.Errorf("%+v", r)
	}
}

func TestSymlinkInRootfsDoesNotEscape(t *testing.T) {
	b := newBundle(t, "sh", "-c", "cat /link/secret 2>/dev/null || echo safe; ls /evil/")
	outside := t.TempDir()
	os.WriteFile(filepath.Join(outside, "secret"), []byte("secret\n"), 0o644)
	os.Symlink(outside, filepath.Join(b.dir, "rootfs", "link"))
	os.Symlink(outside, filepath.Join(b.dir, "rootfs", "evil"))
	src := t.TempDir()
	os.WriteFile(filepath.Join(src, "f"), []byte("x"), 0o644)
	// A mount whose destination leads through the symlink must land inside the root file system.
	b.config["mounts"] = append(b.config["mounts"].([]any),
		map[string]any{"destination": "/evil/sub", "type": "bind", "source": src, "options": []string{"bind"}})
	b.write()
	r := b.call("run", "--bundle", b.dir, newID())
	if strings.Contains(r.out, "secret") {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(outside, "sub")); err == nil {
		t.Error("a mount point was made outside of the root file system")
	}
}

func TestSpecAndFeatures(t *testing.T) {
	b := newBundle(t)
	dir := t.TempDir()
	b.must("spec", "--bundle", dir)
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil || !json.Valid(text) {
		t.Errorf("spec wrote %q, %v", text, err)
	}
	b.fails([]string{"config.json"}, "spec", "--bundle", dir)
	if !json.Valid([]byte(b.must("features"))) {
		t.Error("features is not JSON")
	}
	if !strings.Contains(b.must("--version"), "spec: 1.") {
		t.Errorf("--version: %s", b.must("--version"))
	}
	b.must("--help")
}

// TestPS wants the columns of ps -f, with whole command lines and the real start time, in a table; and the process that stands for the
// container on the host in JSON.
func TestPS(t *testing.T) {
	b := newBundle(t, "sh", "-c", "busybox sh -c 'while :; do sleep 1000; done' 'a b' & exec busybox sh -c 'while :; do sleep 1000; done' \"$(echo -e 'x\\033[2Jy')\"")
	b.process()["user"] = map[string]any{"uid": 65534, "gid": 65534}
	begin := time.Now()
	id := b.running()
	var lines []string
	until(t, "four processes", func() bool {
		lines = strings.Split(strings.TrimSuffix(b.must("ps", id), "\n"), "\n")
		return len(lines) == 5 && strings.Count(strings.Join(lines, "\n"), "sleep 1000\n") > 0
	})
	if f := strings.Join(strings.Fields(lines[0]), " "); f != "UID PID PPID C STIME TTY TIME CMD" {
		t.Errorf("columns: %s", f)
	}
	var cmds []string
	for _, l := range lines[1:] {
		f := strings.Fields(l)
		if len(f) < 8 {
			t.Fatalf("line %q", l)
		}
		if f[0] != "nobody" || f[5] != "?" || !strings.HasPrefix(f[6], "00:00:0") {
			t.Errorf("line %q", l)
		}
		if s := f[4]; s != begin.Format("15:04") && s != time.Now().Format("15:04") {
			t.Errorf("start time %s in %q", s, l)
		}
		cmds = append(cmds, l[strings.Index(l, f[6])+len(f[6])+1:])
		if strings.ContainsAny(l, "\x1b\x00") {
			t.Errorf("the table has control characters: %q", l)
		}
	}
	for _, want := range []string{"busybox sh -c while :; do sleep 1000; done a b", "busybox sh -c while :; do sleep 1000; done x?[2Jy", "sleep 1000"} {
		if !strings.Contains(strings.Join(cmds, "\n"), want) {
			t.Errorf("no %q in %q", want, cmds)
		}
	}
	if out := strings.TrimSpace(b.must("ps", "--format", "json", id)); isRunc() && !strings.Contains(out, itoa(b.pid(id))) || !isRunc() && out != fmt.Sprintf("[%d]", b.pid(id)) {
		t.Errorf("ps --format json: %s", out)
	}
}
