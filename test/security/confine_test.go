package security

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"husk/test/harness"
)

// TestCapabilities looks at every thread of the processes of a sandbox, from the host: none has a capability that it does not need, none
// can gain one, and each is under a filter (P-2, P-3).
func TestCapabilities(t *testing.T) {
	root := harness.StateDir(t)
	cmd := exec.Command(harness.Runsc(t), append(harness.GlobalFlags(t, "--root", root), "do", "sh", "-c", "trap exit TERM; sleep 1000 & echo ready; wait")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		// It passes the signal on and removes what it made; killed, it could not.
		cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		if !late.Stop() {
			t.Error("do does not end by SIGTERM")
		}
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the container does not start: %q, %v", line, err)
	}
	var s struct{ Pid, GoferPid int }
	for i := 0; i < 200 && s.GoferPid == 0; i++ { // the process may be faster than the command line
		time.Sleep(50 * time.Millisecond)
		state, _ := filepath.Glob(filepath.Join(root, "*", "state.json"))
		for _, f := range state {
			text, _ := os.ReadFile(f)
			json.Unmarshal(text, &s)
		}
	}
	if s.Pid <= 1 || s.GoferPid <= 1 {
		t.Fatalf("no running container: %+v", s)
	}
	const files = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID: capabilities(7)
	look(t, s.Pid, 0)
	look(t, s.GoferPid, files)
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.Pid))
	n := 0
	for _, f := range children {
		text, _ := os.ReadFile(f)
		for _, c := range strings.Fields(string(text)) {
			var pid int
			fmt.Sscan(c, &pid)
			look(t, pid, 0)
			n++
		}
	}
	if n == 0 {
		t.Error("the sandbox has no processes for applications")
	}
}

// look checks the threads of a process whose only capabilities are those of mask.
func look(t *testing.T, pid int, mask uint64) {
	t.Helper()
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if len(threads) == 0 {
		t.Errorf("process %d has vanished", pid)
	}
	for _, f := range threads {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		have := map[string]string{}
		for _, l := range strings.Split(string(text), "\n") {
			name, value, _ := strings.Cut(l, ":\t")
			have[name] = value
		}
		for name, want := range map[string]string{
			"CapInh": fmt.Sprintf("%016x", mask), "CapPrm": fmt.Sprintf("%016x", mask), "CapEff": fmt.Sprintf("%016x", mask),
			"CapAmb": fmt.Sprintf("%016x", mask), "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
		} {
			if have[name] != want {
				t.Errorf("%s (%s): %s is %s, want %s", f, have["Name"], name, have[name], want)
			}
		}
	}
}
