package kernel

import (
	"sync/atomic"

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
