package security

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// call is a system call that the host kernel is about to serve.
type call struct {
	tid  int
	nr   uint32
	args [6]uint64
}

// recorder notes what the host kernel serves to a process and its descendants, from their first instruction on: the tracepoint
// raw_syscalls:sys_enter of an instance of ftrace. The kernel comes to it after seccomp and ptrace have let a call pass, so that
// what those refuse or take over does not appear.
type recorder struct {
	t        *testing.T
	dir      string // of the instance
	pipe     int
	rest     []byte // of a line that is not complete
	calls    func(call)
	forks    func(parent, child int)
	lost, n  int
	failures int // lines that are not understood
}

// newRecorder makes one; it skips the test where the kernel does not let it.
func newRecorder(t *testing.T) *recorder {
	t.Helper()
	tracing := "/sys/kernel/tracing"
	if _, err := os.Stat(filepath.Join(tracing, "instances")); err != nil {
		tracing = t.TempDir()
		if err := unix.Mount("tracefs", tracing, "tracefs", 0, ""); err != nil {
			t.Skipf("the host cannot be traced: mount of tracefs: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(tracing, 0) })
	}
	r := &recorder{t: t, dir: filepath.Join(tracing, "instances", fmt.Sprintf("husk-test-%d", os.Getpid())), pipe: -1}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Skipf("the host cannot be traced: %v", err)
	}
	t.Cleanup(r.close)
	for _, f := range [][2]string{{"trace_clock", "global"}, {"buffer_size_kb", "16384"}, {"options/event-fork", "1"}, {"options/overwrite", "0"}} {
		if err := r.set(f[0], f[1]); err != nil {
			t.Skipf("the host cannot be traced: %v", err)
		}
	}
	var err error
	if r.pipe, err = unix.Open(filepath.Join(r.dir, "trace_pipe"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		t.Skipf("the host cannot be traced: trace_pipe: %v", err)
	}
	return r
}

func (r *recorder) set(file, value string) error {
	f, err := os.OpenFile(filepath.Join(r.dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

func (r *recorder) close() {
	if r.pipe >= 0 {
		unix.Close(r.pipe)
	}
	for _, e := range []string{"raw_syscalls/sys_enter", "sched/sched_process_fork"} {
		r.set("events/"+e+"/enable", "0")
	}
	if err := os.Remove(r.dir); err != nil {
		r.t.Errorf("the instance of ftrace stays: %v", err)
	}
}

// start starts a command so that all of it is recorded.
func (r *recorder) start(cmd *exec.Cmd) {
	r.t.Helper()
	cmd.Args = append([]string{"sh", "-c", `kill -STOP $$; exec "$@"`, "sh"}, cmd.Args...)
	cmd.Path = "/bin/sh"
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	pid := cmd.Process.Pid
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WUNTRACED, nil); err != nil || !ws.Stopped() {
		r.t.Fatalf("the shell does not stop: %v, %#x", err, ws)
	}
	err := r.set("set_event_pid", strconv.Itoa(pid))
	for _, e := range []string{"raw_syscalls/sys_enter", "sched/sched_process_fork"} {
		err = errors.Join(err, r.set("events/"+e+"/enable", "1"))
	}
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		r.t.Skipf("the host cannot be traced: %v", err)
	}
	cmd.Process.Signal(syscall.SIGCONT)
}

// drain hands over what was recorded until done is closed and no more comes.
func (r *recorder) drain(done <-chan struct{}) {
	buf := make([]byte, 64<<10)
	for last := false; ; {
		n, err := unix.Read(r.pipe, buf)
		switch {
		case n > 0:
			r.parse(buf[:n])
		case err != nil && err != unix.EAGAIN && err != unix.EINTR:
			r.t.Fatalf("trace_pipe: %v", err)
		case last:
			return
		default:
			select {
			case <-done:
				last = true
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
}

func (r *recorder) parse(b []byte) {
	r.rest = append(r.rest, b...)
	for {
		line, rest, ok := bytes.Cut(r.rest, []byte("\n"))
		if !ok {
			r.rest = append([]byte(nil), r.rest...)
			return
		}
		r.rest = rest
		r.line(string(line))
	}
}

// line takes one of
//
//	comm-123   [001] .....  12.345678: sys_enter: NR 202 (7f..., 0, ...)
//	comm-123   [001] .....  12.345678: sched_process_fork: comm=a pid=123 child_comm=a child_pid=124
//	CPU:1 [LOST 123 EVENTS]
func (r *recorder) line(s string) {
	if i := strings.Index(s, "[LOST "); i >= 0 && strings.HasPrefix(s, "CPU:") {
		var n int
		fmt.Sscan(s[i+6:], &n)
		r.lost += max(n, 1)
		return
	}
	if _, rest, ok := strings.Cut(s, ": sched_process_fork: "); ok {
		// Names may contain anything; numbers follow the last such word.
		parent, child := after(rest, " pid="), after(rest, " child_pid=")
		if parent > 0 && child > 0 {
			r.forks(parent, child)
			return
		}
	}
	head, rest, ok := strings.Cut(s, ": sys_enter: NR ")
	nr, list, ok2 := strings.Cut(rest, " (")
	args := strings.Split(strings.TrimSuffix(list, ")"), ", ")
	// The flags follow the processor in brackets; names may contain either.
	cpu := strings.LastIndex(head, " [")
	if !ok || !ok2 || len(args) != 6 || cpu < 0 {
		r.failures++
		if r.failures < 5 {
			r.t.Logf("not understood: %q", s)
		}
		return
	}
	head = strings.TrimRight(head[:cpu], " ")
	c := call{tid: -1}
	if n, err := strconv.ParseInt(nr, 10, 64); err == nil {
		c.nr = uint32(n)
	}
	c.tid, _ = strconv.Atoi(head[strings.LastIndexByte(head, '-')+1:])
	for i := range args {
		c.args[i], _ = strconv.ParseUint(args[i], 16, 64)
	}
	r.n++
	r.calls(c)
}

// after is the number behind the last occurrence of a word.
func after(s, word string) (n int) {
	if i := strings.LastIndex(s, word); i >= 0 {
		fmt.Sscan(s[i+len(word):], &n)
	}
	return n
}
