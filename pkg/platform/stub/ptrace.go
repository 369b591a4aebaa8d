package stub

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
)

// ptrace(2) requests and constants that x/sys/unix lacks or names otherwise.
const (
	ptraceSetSigMask = 0x420b
	ntX86XState      = 0x202
	saNoCldStop      = 1

	// EventStop is the event of a status that PTRACE_INTERRUPT, a group stop, or the birth of an
	// automatically attached child causes.
	EventStop = 128
)

// ErrGone says that the traced thread is dying or dead. Its ID stays its own until a wait reports the end.
var ErrGone = errors.New("stub: traced thread is gone")

// ErrEnded says that the end of the thread was reported: its ID may belong to another one from now on.
var ErrEnded = errors.New("stub: traced thread has ended")

// errUnexpected says that injected code did not stop where it ends.
var errUnexpected = errors.New("stub: injected code failed")

// Tracee is the thread ID of a thread that the calling OS thread traces. No method but Wait may be called
// from another thread, and those only while it is stopped (but for Interrupt and Wait).
type Tracee int

// Status is a status of wait4(2).
type Status uint32

// Stopped says whether the thread stopped (otherwise it ended).
func (s Status) Stopped() bool { return s&0xff == 0x7f }

// Signal is the signal of a stop; a system call stop has 0x80 added.
func (s Status) Signal() int { return int(s>>8) & 0xff }

// Event is the ptrace event number of a stop, or 0.
func (s Status) Event() int { return int(s >> 16) }

// SyscallStop is Signal at a system call stop.
const SyscallStop = int(unix.SIGTRAP) | 0x80

func (t Tracee) ptrace(req int, addr, data uintptr) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(t), addr, data, 0, 0)
	if e == unix.ESRCH {
		return ErrGone
	}
	if e != 0 {
		return e
	}
	return nil
}

// Seize attaches to the thread, so that it dies with the calling thread; options are PTRACE_O_ bits.
func (t Tracee) Seize(options int) error {
	return t.ptrace(unix.PTRACE_SEIZE, 0, uintptr(options|unix.PTRACE_O_EXITKILL|unix.PTRACE_O_TRACESYSGOOD))
}

// Interrupt makes a running thread stop with EventStop. Tracer only.
func (t Tracee) Interrupt() error { return t.ptrace(unix.PTRACE_INTERRUPT, 0, 0) }

// Cont resumes the thread without a signal.
func (t Tracee) Cont() error { return t.ptrace(unix.PTRACE_CONT, 0, 0) }

// Sysemu resumes the thread without a signal; it stops at its next system call, which is not executed.
func (t Tracee) Sysemu() error { return t.ptrace(unix.PTRACE_SYSEMU, 0, 0) }

// Detach lets the thread run untraced.
func (t Tracee) Detach() error { return t.ptrace(unix.PTRACE_DETACH, 0, 0) }

// GetRegs reads the general registers.
func (t Tracee) GetRegs(r *arch.Registers) error {
	return t.ptrace(unix.PTRACE_GETREGS, 0, uintptr(unsafe.Pointer(r)))
}

// SetRegs writes the general registers. OrigRax must be ^0, or the kernel may restart a system call.
func (t Tracee) SetRegs(r *arch.Registers) error {
	return t.ptrace(unix.PTRACE_SETREGS, 0, uintptr(unsafe.Pointer(r)))
}

// SetSigMask replaces the thread's mask of blocked signals.
func (t Tracee) SetSigMask(mask uint64) error {
	return t.ptrace(ptraceSetSigMask, 8, uintptr(unsafe.Pointer(&mask)))
}

// Siginfo holds the fields of siginfo_t that matter for faults.
type Siginfo struct {
	Signo, Errno, Code int32
	_                  int32
	Addr               uint64 // of faults and SIGSYS
	_                  [104]byte
}

// GetSiginfo reads the siginfo of a signal stop.
func (t Tracee) GetSiginfo(s *Siginfo) error {
	return t.ptrace(unix.PTRACE_GETSIGINFO, 0, uintptr(unsafe.Pointer(s)))
}

// GetXState reads the extended state in the standard XSAVE format and returns its size.
func (t Tracee) GetXState(buf []byte) (int, error) {
	iov := unix.Iovec{Base: unsafe.SliceData(buf), Len: uint64(len(buf))}
	err := t.ptrace(unix.PTRACE_GETREGSET, ntX86XState, uintptr(unsafe.Pointer(&iov)))
	return int(iov.Len), err
}

// SetXState writes the extended state. EINVAL where XRSTOR would fault.
func (t Tracee) SetXState(buf []byte) error {
	iov := unix.Iovec{Base: unsafe.SliceData(buf), Len: uint64(len(buf))}
	err := t.ptrace(unix.PTRACE_SETREGSET, ntX86XState, uintptr(unsafe.Pointer(&iov)))
	runtime.KeepAlive(buf)
	return err
}

// Wait waits until the thread stops or ends. It blocks in a way that the Go scheduler knows of. Where
// the thread was waited for already the error is ErrEnded.
func (t Tracee) Wait() (Status, error) {
	var st Status
	for {
		_, _, e := unix.Syscall6(unix.SYS_WAIT4, uintptr(t), uintptr(unsafe.Pointer(&st)), unix.WALL, 0, 0, 0)
		switch e {
		case 0:
			return st, nil
		case unix.EINTR:
		case unix.ECHILD:
			return 0, ErrEnded
		default:
			return 0, e
		}
	}
}

// WaitStop is Wait, with ErrEnded where the thread ended.
func (t Tracee) WaitStop() (Status, error) {
	st, err := t.Wait()
	if err == nil && !st.Stopped() {
		return st, ErrEnded
	}
	return st, err
}

// Run sets the registers, which point into the code block, and runs the thread until an int3; r then holds the
// new registers. Signals that others sent meanwhile are dropped.
func (t Tracee) Run(r *arch.Registers) error {
	r.OrigRax, r.Cs, r.Ss, r.Eflags = ^uint64(0), arch.UserCS, arch.UserSS, 0x202
	r.FsBase, r.GsBase, r.Ds, r.Es, r.Fs, r.Gs = 0, 0, 0, 0, 0, 0
	if err := t.SetRegs(r); err != nil {
		return err
	}
	return t.Finish(r)
}

// Finish is Run, with the registers that the thread has already.
func (t Tracee) Finish(r *arch.Registers) error {
	for {
		if err := t.Cont(); err != nil {
			return err
		}
		st, err := t.WaitStop()
		if err != nil {
			return err
		}
		if st.Event() != 0 {
			continue
		}
		switch unix.Signal(st.Signal()) {
		case unix.SIGTRAP:
			return t.GetRegs(r)
		case unix.SIGSEGV, unix.SIGBUS, unix.SIGILL, unix.SIGFPE, unix.SIGSYS:
			return errUnexpected
		}
	}
}

// Call executes one system call through the "syscall; int3" at address at of the code block.
func (t Tracee) Call(at uint64, nr uintptr, args ...uint64) (uint64, error) {
	var a [6]uint64
	copy(a[:], args)
	r := arch.Registers{Rip: at, Rax: uint64(nr), Rdi: a[0], Rsi: a[1], Rdx: a[2], R10: a[3], R8: a[4], R9: a[5]}
	if err := t.Run(&r); err != nil {
		return 0, err
	}
	if e := Errno(r.Rax); e != 0 {
		return 0, e
	}
	return r.Rax, nil
}

// Errno is the error that a system call's result rax stands for, or 0.
func Errno(rax uint64) unix.Errno {
	if rax >= ^uint64(4094) {
		return unix.Errno(-rax)
	}
	return 0
}

// QuietChildren makes stops of traced threads send no SIGCHLD to this process: they would interrupt some
// Go thread at each stop. The disposition becomes the default (not SIG_IGN, which would reap the children
// of others); it does not survive os/signal.Notify(SIGCHLD).
func QuietChildren() error {
	type sigaction struct{ handler, flags, restorer, mask uint64 }
	sa := sigaction{flags: saNoCldStop}
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&sa)), 0, 8, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
