package security

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/test/harness"
)

// process is what is known of a process of the host that is recorded.
type process struct {
	pid      int
	parent   *process // that cloned it
	filtered bool     // it, or who cloned it, installed a seccomp filter
	calls    map[uint32]int
}

// served checks the calls that the host serves to the processes of a sandbox.
type served struct {
	t       *testing.T
	rule    func(s *served, p *process, c call) string // of stubs: what is wrong with a call, "" if nothing
	threads map[int]*process
	clones  map[int]uint64 // flags of the last clone of a thread
	sentry  int
	gofer   int
	stubs   map[uint32]int // calls of stubs under their filter
	nstubs  int
	ring    uint64         // descriptor that stubs write to
	secret  [3]uint64      // of systrap's memory threads
	bad     map[uint32]int // calls of stubs that break the rule
}

func (s *served) fork(parent, child int) {
	p := s.threads[parent]
	if p == nil {
		p = s.add(parent, nil)
	}
	if s.clones[parent]&unix.CLONE_THREAD != 0 {
		s.threads[child] = p
		return
	}
	s.add(child, p)
}

func (s *served) add(pid int, parent *process) *process {
	p := &process{pid: pid, parent: parent, filtered: parent != nil && parent.filtered, calls: map[uint32]int{}}
	s.threads[pid] = p
	if s.isStub(p) {
		s.nstubs++
	}
	return p
}

// isStub tells whether a process descends from the sentry.
func (s *served) isStub(p *process) bool {
	for p = p.parent; p != nil; p = p.parent {
		if p.pid == s.sentry {
			return true
		}
	}
	return false
}

// uretprobe(2) and uprobe(2), which only the kernel's own code may call: the kernel lets them pass all filters since Linux 6.14, and sends
// SIGILL to anybody else. An application that tries all numbers comes to them.
const (
	sysUretprobe = 335
	sysUprobe    = 336
)

func (s *served) call(c call) {
	if c.nr == sysUretprobe || c.nr == sysUprobe {
		return
	}
	p := s.threads[c.tid]
	if p == nil {
		p = s.add(c.tid, nil)
	}
	switch c.nr {
	case unix.SYS_CLONE:
		s.clones[c.tid] = c.args[0]
	case unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_CLONE3:
		s.clones[c.tid] = 0
	}
	if p.filtered {
		p.calls[c.nr]++
		if s.isStub(p) {
			s.stubs[c.nr]++
			if what := s.rule(s, p, c); what != "" {
				if s.bad[c.nr]++; s.bad[c.nr] == 1 {
					s.t.Errorf("a stub made %s", what)
				}
			}
		}
	}
	if c.nr == unix.SYS_SECCOMP && c.args[0] == unix.SECCOMP_SET_MODE_FILTER || c.nr == unix.SYS_PRCTL && c.args[0] == unix.PR_SET_SECCOMP {
		p.filtered = true
	}
}

// systrapRule is what pkg/platform/systrap promises of its stubs, said once more: in any thread what harms only the caller;
// in the first thread of a process, which never runs application code, the changes of its memory, with one secret in the
// halves of arguments that the kernel ignores.
func systrapRule(s *served, p *process, c call) string {
	name := fmt.Sprintf("call %d(%#x)", c.nr, c.args)
	switch c.nr {
	case unix.SYS_RT_SIGRETURN, unix.SYS_SCHED_YIELD:
		return ""
	case unix.SYS_FUTEX: // only waits and wakes
		if uint32(c.args[1]) > 1 {
			return name
		}
		return ""
	case unix.SYS_WRITE: // only to the sentry's eventfd
		if s.ring == 0 {
			s.ring = c.args[0]
			if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", s.sentry, uint32(c.args[0]))); to != "anon_inode:[eventfd]" {
				return name + " to " + to
			}
		}
		if uint32(c.args[0]) != uint32(s.ring) {
			return name
		}
		return ""
	case unix.SYS_ARCH_PRCTL: // ARCH_SET_GS, ARCH_SET_FS
		if code := uint32(c.args[0]); code != 0x1001 && code != 0x1002 {
			return name
		}
		return ""
	case unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_CLONE, unix.SYS_PRCTL, unix.SYS_GETPPID, unix.SYS_EXIT_GROUP:
	default:
		return name + " is not in the filter"
	}
	if c.tid != p.pid {
		return name + " of a thread of the application"
	}
	last := 5
	if c.nr == unix.SYS_MMAP {
		last = 2
	}
	k := [3]uint64{c.args[3] >> 32, c.args[4] >> 32, c.args[last] >> 32}
	if s.secret == [3]uint64{} {
		s.secret = k
	}
	switch flags := c.args[3] & 0xffffffff; {
	case k != s.secret || k == [3]uint64{}:
		return name + " without the secret"
	case c.nr == unix.SYS_MMAP && flags&^unix.MAP_POPULATE != unix.MAP_SHARED|unix.MAP_FIXED:
		return name + " of other than the sentry's files"
	case c.nr == unix.SYS_PRCTL && uint32(c.args[0]) != unix.PR_SET_PDEATHSIG:
		return name
	}
	return ""
}

// ptraceRule is what the filter of pkg/platform/ptrace lets pass.
func ptraceRule(s *served, p *process, c call) string {
	name := fmt.Sprintf("call %d(%#x)", c.nr, c.args)
	switch c.nr {
	case unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_PAUSE, unix.SYS_EXIT, unix.SYS_CLONE:
		return ""
	case unix.SYS_MMAP:
		if c.args[3]&^unix.MAP_POPULATE == unix.MAP_SHARED|unix.MAP_FIXED {
			return ""
		}
	case unix.SYS_PRCTL:
		if c.args[0] == unix.PR_SET_PDEATHSIG {
			return ""
		}
	}
	return name
}

// never are calls that neither a sentry nor a gofer makes once its filter stands: what makes processes out of files, changes
// credentials, namespaces or mounts, or looks into other processes.
var never = []uint32{unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE,
	unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_CAPSET, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN,
	unix.SYS_IO_URING_SETUP, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_INIT_MODULE, unix.SYS_KEYCTL, unix.SYS_USERFAULTFD}

// ofSentry are further ones that a sentry never makes: whatever has a path or an address.
var ofSentry = []uint32{unix.SYS_OPEN, unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_NEWFSTATAT, unix.SYS_READLINK, unix.SYS_READLINKAT, unix.SYS_UNLINK,
	unix.SYS_UNLINKAT, unix.SYS_MKDIRAT, unix.SYS_RENAMEAT2, unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND}

// TestServed holds P-1 and P-2: while programs run in a sandbox, hostile ones among them, the host kernel serves nothing to the
// processes that hold application memory but what the stub needs, and nothing to sentry and gofer that has no place there.
func TestServed(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"hostile", "random"} {
		if out, err := exec.Command("gcc", "-O1", "-w", "-static", "-pthread", "-o", filepath.Join(dir, f), "c/"+f+".c").CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s", err, out)
		}
	}
	const python = `
import os, subprocess, threading, time, socket, mmap
print(subprocess.run(['sh', '-c', 'ls -l /etc | sort | head -n 3; date >/dev/null'], capture_output=True).returncode)
def f():
    a, b = socket.socketpair()
    for i in range(200): a.send(b'x'); b.recv(1); os.getppid(); time.time(); os.stat('/')
ts = [threading.Thread(target=f) for i in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
m = mmap.mmap(-1, 1 << 20); m[:] = b'y' * (1 << 20)
open('/tmp/served', 'w').write('z'); os.unlink('/tmp/served')
if os.fork() == 0: os.kill(os.getpid(), 9)
print(os.wait()[1])`
	for _, x := range []struct {
		name, want string
		args       []string
	}{
		{"shell", "3\n", []string{"sh", "-c", "i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i+1)); done; seq 2000 | sort | grep -c 00$ >/dev/null; sh -c 'kill -9 $$' | cat; echo 3"}},
		{"python", "0\n9\n", []string{"python3", "-c", python}},
		{"hostile", "survived", []string{filepath.Join(dir, "hostile"), "20"}},
		{"random", "survived", []string{filepath.Join(dir, "random"), "7", "1"}},
	} {
		t.Run(x.name, func(t *testing.T) { record(t, x.want, x.args) })
	}
}

// record runs a command in a sandbox and checks what the host served.
func record(t *testing.T, want string, args []string) {
	r := newRecorder(t)
	root := harness.StateDir(t)
	gate := []string{"sh", "-c", `echo ready; read go; "$@"; echo end; read go`, "sh"}
	cmd := exec.Command(harness.Runsc(t), append(append(harness.GlobalFlags(t, "--root", root), "do"), append(gate, args...)...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, _ := cmd.StdinPipe()
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	r.start(cmd)
	late := time.AfterFunc(2*time.Minute, func() { cmd.Process.Signal(syscall.SIGTERM); time.Sleep(5 * time.Second); cmd.Process.Kill() })
	out := bufio.NewReader(pipe)
	if line, err := out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("the container does not start: %q, %v", line, err)
	}
	s := &served{t: t, threads: map[int]*process{}, clones: map[int]uint64{}, stubs: map[uint32]int{}, bad: map[uint32]int{}, rule: systrapRule}
	if os.Getenv("HUSK_PLATFORM") == "ptrace" {
		s.rule = ptraceRule
	}
	s.sentry, s.gofer = processesBelow(t, root)
	r.calls, r.forks = s.call, s.fork
	done := make(chan struct{})
	var text strings.Builder
	go func() {
		defer close(done)
		in.Write([]byte("\n"))
		for {
			line, err := out.ReadString('\n')
			text.WriteString(line)
			if err != nil || line == "end\n" {
				break
			}
		}
		// The eventfd can be looked at while the sandbox is there.
		time.Sleep(50 * time.Millisecond)
		in.Write([]byte("\n"))
		in.Close()
		cmd.Wait()
	}()
	r.drain(done)
	late.Stop()
	if !strings.Contains(text.String(), want) {
		t.Errorf("the program printed %q, not %q", text.String(), want)
	}
	s.report(r)
}

// processesBelow are the sentry and the gofer of the one container of a state directory.
func processesBelow(t *testing.T, root string) (sentry, gofer int) {
	t.Helper()
	var s struct{ Pid, GoferPid int }
	for range 200 {
		files, _ := filepath.Glob(filepath.Join(root, "*", "state.json"))
		for _, f := range files {
			text, _ := os.ReadFile(f)
			json.Unmarshal(text, &s)
		}
		if s.Pid > 1 && s.GoferPid > 1 {
			return s.Pid, s.GoferPid
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("no running container: %+v", s)
	return 0, 0
}

// report says what was found.
func (s *served) report(r *recorder) {
	t := s.t
	t.Logf("%d calls recorded, %d lost; %d stub processes; theirs: %v", r.n, r.lost, s.nstubs, sorted(s.stubs))
	if len(s.bad) > 0 {
		t.Errorf("such calls, by number: %v", sorted(s.bad))
	}
	// What was seen is enough to say something.
	if s.nstubs < 3 || s.stubs[unix.SYS_MMAP] < 3 {
		t.Errorf("%d stub processes made the calls %v", s.nstubs, s.stubs)
	}
	if r.failures > 0 {
		t.Errorf("%d events are not understood", r.failures)
	}
	if 20*r.lost > r.n {
		t.Errorf("%d events of %d were lost", r.lost, r.lost+r.n)
	}
	for _, x := range []struct {
		name string
		pid  int
		not  []uint32
	}{{"sentry", s.sentry, slices.Concat(never, ofSentry)}, {"gofer", s.gofer, never}} {
		p := s.threads[x.pid]
		if p == nil || !p.filtered || len(p.calls) == 0 {
			t.Errorf("the %s was not seen under a filter", x.name)
			continue
		}
		t.Logf("%s: %v", x.name, sorted(p.calls))
		for _, nr := range x.not {
			if n := p.calls[nr]; n > 0 {
				t.Errorf("the %s made %d times call %d", x.name, n, nr)
			}
		}
	}
	for _, p := range s.threads {
		if p.parent != nil && p.parent.pid == s.gofer && p.filtered {
			t.Errorf("the gofer made a process")
		}
	}
}

func sorted(calls map[uint32]int) (list []string) {
	var nrs []uint32
	for nr := range calls {
		nrs = append(nrs, nr)
	}
	slices.Sort(nrs)
	for _, nr := range nrs {
		list = append(list, fmt.Sprintf("%d:%d", nr, calls[nr]))
	}
	return list
}
