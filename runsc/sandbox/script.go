package sandbox

import (
	"fmt"
	"io"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A script is the system calls that a new process makes between clone(2) and execve(2). It shares the launcher's memory
// meanwhile, as after vfork(2), but the launcher runs on: nothing is copied, and nothing of Go runs in the new process.
// The instructions that make the calls (script_amd64.s) use neither a stack nor any memory but the script's.
type script struct {
	steps []step
	names []name // of the steps
	keep  []any  // what the steps point to

	// Where the script failed, written by the process before it exits.
	failed unsafe.Pointer // a step
	errno  uintptr        // 0 if a call succeeded that should not have
}

// name is what the error says that failed, with the path that it did with or "".
type name struct{ what, path string }

// step is one system call.
type step struct {
	nr    uintptr
	args  [6]uintptr
	to    unsafe.Pointer // where the result goes, an argument of a later step; may be nil
	flags uintptr        // step...
}

// Flags of a step.
const (
	stepTry    = 1 << iota // goes on when it fails
	stepElse               // is left out unless the step before it failed
	stepResult             // fails when the result is 0: the end of a file
)

// maxSteps is the capacity of a script, as steps must not move.
func newScript(maxSteps int) *script {
	return &script{steps: make([]step, 0, maxSteps), names: make([]name, 0, maxSteps)}
}

// do adds a system call.
func (s *script) do(what string, nr uintptr, args ...uintptr) *step {
	if len(s.steps) == cap(s.steps) {
		panic("script too long")
	}
	st := step{nr: nr}
	copy(st.args[:], args)
	s.steps, s.names = append(s.steps, st), append(s.names, name{what: what})
	return &s.steps[len(s.steps)-1]
}

// try adds a system call that may fail.
func (s *script) try(nr uintptr, args ...uintptr) *step {
	st := s.do("", nr, args...)
	st.flags |= stepTry
	return st
}

// into moves the descriptor that the last step made to a number.
func (s *script) into(fd uintptr) {
	from := &s.steps[len(s.steps)-1]
	d := s.do("dup3", unix.SYS_DUP3, ^uintptr(0), fd, unix.O_CLOEXEC)
	d.flags = from.flags & stepTry
	from.to = unsafe.Pointer(&d.args[0])
}

// on says which path the last step's error is to name.
func (s *script) on(path string) { s.names[len(s.names)-1].path = path }

// str is the address of a string for a system call.
func (s *script) str(text string) uintptr {
	b := append(make([]byte, 0, len(text)+1), text...)
	b = append(b, 0)
	s.keep = append(s.keep, b)
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))
}

// strs is the address of a list of strings that ends with a null.
func (s *script) strs(list ...string) uintptr {
	p := make([]uintptr, len(list)+1)
	for i, text := range list {
		p[i] = s.str(text)
	}
	s.keep = append(s.keep, p)
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))
}

// keepAt is the address of a value, which must be on the heap.
func keepAt[T any](s *script, v *T) uintptr {
	s.keep = append(s.keep, v)
	return uintptr(unsafe.Pointer(v))
}

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
}

// cloneScript makes a process that runs a script, and returns its ID or a negative errno.
func cloneScript(a *cloneArgs, size uintptr, s *script, first *step, n int) int

// start runs the script in a new process with new namespaces. The script must be kept until the process has executed its
// program, and failure tells why it did not. The process begins with all signals blocked and without handlers.
func (s *script) start(namespaces uint64) (pid int, err error) {
	a := &cloneArgs{flags: namespaces | unix.CLONE_VM | unix.CLONE_CLEAR_SIGHAND, exitSignal: uint64(unix.SIGCHLD)}
	// A handler must not run in the child, where it would take itself for a thread of this process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return 0, fmt.Errorf("sigprocmask: %w", err)
	}
	r := cloneScript(a, unsafe.Sizeof(*a), s, &s.steps[0], len(s.steps))
	unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	if r < 0 {
		return 0, fmt.Errorf("clone: %w", unix.Errno(-r))
	}
	return r, nil
}

// failure says where the script of a process that has ended failed, nil if it did not.
func (s *script) failure() error {
	if s == nil || s.failed == nil {
		return nil
	}
	n := s.names[(uintptr(s.failed)-uintptr(unsafe.Pointer(&s.steps[0])))/unsafe.Sizeof(step{})]
	err := error(unix.Errno(s.errno))
	if s.errno == 0 {
		err = io.ErrUnexpectedEOF
	}
	if n.path != "" {
		return fmt.Errorf("%s %q: %w", n.what, n.path, err)
	}
	return fmt.Errorf("%s: %w", n.what, err)
}
