package kernel

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
)

// ptraceState is a thread's side of ptrace(2).
type ptraceState struct {
	tracer atomic.Pointer[Task]
}

func (p *ptraceState) wantsStop() bool { return false }

func (t *Task) traceStopLocked() {}

func (t *Task) traceSyscallEntry(*uint64) bool { return true }

func (t *Task) traceSyscallExit() {}

func (t *Task) traceSignal(info *linux.SignalInfo) linux.Signal { return linux.Signal(info.Signo) }

func (t *Task) traceSeccomp(uint16) (ok, handled bool) { return false, false }

func (t *Task) traceClone(*Task, uint64) {}

func (t *Task) traceExitLocked(int32) {}

func (t *Task) exitTracing() {}

func (t *Task) traceExec() {}

func (t *Task) waitTracees(*WaitOptions, *PID, *WaitResult) (found, any bool) { return false, false }

func (tg *ThreadGroup) isTracedByOther(*ThreadGroup) bool { return false }

// MayPtrace is the access check PTRACE_MODE_ATTACH_REALCREDS of ptrace(2).
func (t *Task) MayPtrace(o *Task) bool {
	if t.group == o.group {
		return true
	}
	c, d := t.Credentials(), o.Credentials()
	same := c.RUID == d.RUID && c.RUID == d.EUID && c.RUID == d.SUID && c.RGID == d.RGID && c.RGID == d.EGID && c.RGID == d.SGID
	if !same && !c.HasCapIn(unix.CAP_SYS_PTRACE, d.UserNS) {
		return false
	}
	if o.group.dumpable.Load() != 1 && !c.HasCapIn(unix.CAP_SYS_PTRACE, d.UserNS) {
		return false
	}
	return d.Permitted&^c.Permitted == 0 || c.HasCapIn(unix.CAP_SYS_PTRACE, d.UserNS)
}

// MayInspect is PTRACE_MODE_READ_FSCREDS: access to another process' /proc files.
func (t *Task) MayInspect(o *Task) bool {
	if t.group == o.group {
		return true
	}
	c, d := t.Credentials(), o.Credentials()
	if c.HasCapIn(unix.CAP_SYS_PTRACE, d.UserNS) {
		return true
	}
	same := c.FSUID == d.RUID && c.FSUID == d.EUID && c.FSUID == d.SUID && c.FSGID == d.RGID && c.FSGID == d.EGID && c.FSGID == d.SGID
	return same && o.group.dumpable.Load() == 1 && d.Permitted&^c.Permitted == 0
}
