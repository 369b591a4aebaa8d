package kernel

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// ptraceState is a thread's side of ptrace(2). Fields without another remark are protected by Kernel.tree while the thread is stopped or tracer
// is nil, and belong to the thread's goroutine otherwise.
type ptraceState struct {
	tracer  atomic.Pointer[Task] // changed with tree held
	options uint32
	seized  bool
	trap    atomic.Bool // a stop is wanted (PTRACE_INTERRUPT, new tracees of PTRACE_SEIZE)

	stopped  bool  // waits for the tracer
	reported bool  // a wait has told the tracer
	code     int32 // of the stop, as in bits 8 and up of the wait status
	listen   bool  // PTRACE_LISTEN
	zombie   bool  // a thread that has exited and waits to be reported
	info     linux.SignalInfo
	msg      uint64 // PTRACE_GETEVENTMSG
	inject   linux.Signal
	where    uint8 // PTRACE_SYSCALL_INFO_*
	nr       uint64
	ret      int64
	failed   bool

	// How the thread was let go.
	sysStops bool // PTRACE_SYSCALL
	step     bool // PTRACE_SINGLESTEP
	work     func()
	done     chan struct{}
}

// Events and options of ptrace(2) are those of x/sys/unix; this is SIGTRAP as a stop code.
const sigTRAP = linux.Signal(unix.SIGTRAP)

func (p *ptraceState) wantsStop() bool { return p.trap.Load() }

// ptraceStop stops the thread for its tracer and returns the signal that the tracer wants delivered. No locks are held. Own goroutine.
func (t *Task) ptraceStop(code int32, why int32, info *linux.SignalInfo) linux.Signal {
	p := &t.ptr
	k := t.k
	k.tree.Lock()
	tr := p.tracer.Load()
	// A process that exits stops for PTRACE_EVENT_EXIT, and nothing but SIGKILL keeps it from that.
	killed, stop := t.Killed, uint32(workExit)
	if code>>8 == unix.PTRACE_EVENT_EXIT {
		killed, stop = t.group.killed.Load, 0
	}
	if tr == nil || killed() {
		k.tree.Unlock()
		return 0
	}
	p.stopped, p.reported, p.code, p.inject, p.listen = true, false, code, 0, false
	p.step, p.sysStops = false, false
	if info != nil {
		p.info = *info
	} else {
		p.info = linux.SignalInfo{Signo: int32(sigTRAP), Code: code}
	}
	t.notifyTracer(tr, why, code&0x7f)
	k.tree.Unlock()
	t.acct.sync()
	for {
		k.tree.Lock()
		if !p.stopped {
			break
		}
		if p.work != nil {
			p.work()
			p.work = nil
			close(p.done)
		}
		if p.listen && t.group.running() {
			p.listen, p.reported, p.code = false, false, int32(sigTRAP)|unix.PTRACE_EVENT_STOP<<8
			t.notifyTracer(tr, linux.CLD_TRAPPED, int32(sigTRAP))
		}
		k.tree.Unlock()
		if t.block(t.wake.C, vfs.NoDeadline, stop) != nil || stop == 0 && killed() {
			k.tree.Lock()
			p.stopped = false
			if p.work != nil {
				p.work = nil
				close(p.done)
			}
			break
		}
	}
	sig := p.inject
	k.tree.Unlock()
	return sig
}

func (tg *ThreadGroup) running() bool {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return tg.stop.state == groupRunning
}

// notifyTracer sends SIGCHLD and wakes waits. The caller holds tree.
func (t *Task) notifyTracer(tr *Task, why, status int32) {
	tg := tr.group
	info := linux.SignalInfo{Signo: int32(sigCHLD), Code: why}
	info.SetPID(t.pid.In(tg.pidns))
	info.SetStatus(status)
	tg.mu.Lock()
	a := tg.hand.get(sigCHLD)
	if a.Handler != linux.SIG_IGN && (why == linux.CLD_EXITED || a.Flags&linux.SA_NOCLDSTOP == 0) {
		tg.sendLocked(nil, &info, true, nil)
	}
	tg.mu.Unlock()
	tg.childQueue.Notify(waiter.ReadableEvents)
}

// traceStopLocked stops for PTRACE_INTERRUPT. Called and returns with the group's mu held.
func (t *Task) traceStopLocked() {
	tg := t.group
	t.ptr.trap.Store(false)
	tg.mu.Unlock()
	t.ptraceStop(int32(sigTRAP)|unix.PTRACE_EVENT_STOP<<8, linux.CLD_TRAPPED, nil)
	tg.mu.Lock()
}

// traceGroupStopLocked is the group stop of a traced thread. Called and returns with the group's mu held.
func (t *Task) traceGroupStopLocked() {
	tg := t.group
	code := int32(tg.stop.sig)
	t.sig.stopPending = false
	t.stopTakenLocked()
	if t.ptr.seized {
		code |= unix.PTRACE_EVENT_STOP << 8
	}
	tg.mu.Unlock()
	t.ptraceStop(code, linux.CLD_STOPPED, nil)
	tg.mu.Lock()
}

// syscallStop is a stop at the entry or exit of a system call.
func (t *Task) syscallStop() {
	code := int32(sigTRAP)
	if t.ptr.options&unix.PTRACE_O_TRACESYSGOOD != 0 {
		code |= 0x80
	}
	info := linux.SignalInfo{Signo: int32(sigTRAP), Code: code}
	if sig := t.ptraceStop(code, linux.CLD_TRAPPED, &info); sig != 0 {
		t.SendTaskSignal(&linux.SignalInfo{Signo: int32(sig), Code: linux.SI_USER})
	}
}

// traceSyscallEntry stops at the entry if the tracer asked for it; false skips the call, whose result the tracer has stored.
func (t *Task) traceSyscallEntry(nr *uint64) bool {
	if !t.ptr.sysStops {
		return true
	}
	enosys := unix.ENOSYS
	t.regs.Rax = -uint64(enosys)
	t.ptr.where, t.ptr.nr = ptraceInfoEntry, *nr
	t.syscallStop()
	*nr = t.regs.OrigRax
	t.ptr.where = ptraceInfoNone
	if int64(*nr) < 0 {
		t.traceSyscallExit()
		return false
	}
	return true
}

// Values of ptraceState.where (PTRACE_GET_SYSCALL_INFO).
const (
	ptraceInfoNone    = 0
	ptraceInfoEntry   = 1
	ptraceInfoExit    = 2
	ptraceInfoSeccomp = 3
)

// traceSyscallExit stops at the exit of a system call, or behind a single step over one.
func (t *Task) traceSyscallExit() {
	if t.ptr.step {
		t.SendTaskSignal(&linux.SignalInfo{Signo: int32(sigTRAP), Code: linux.TRAP_TRACE})
		return
	}
	if !t.ptr.sysStops {
		return
	}
	t.ptr.where = ptraceInfoExit
	t.ptr.ret = int64(t.regs.Rax)
	t.ptr.failed = t.ptr.ret < 0 && t.ptr.ret >= -4095
	t.syscallStop()
	t.ptr.where = ptraceInfoNone
}

// traceSignal stops for a signal that is about to be delivered; the tracer may replace or suppress (0) it.
func (t *Task) traceSignal(info *linux.SignalInfo) linux.Signal {
	sig := t.ptraceStop(info.Signo, linux.CLD_TRAPPED, info)
	if sig == 0 {
		return 0
	}
	if int32(sig) == t.ptr.info.Signo {
		*info = t.ptr.info // perhaps changed by PTRACE_SETSIGINFO
	} else {
		*info = linux.SignalInfo{Signo: int32(sig), Code: linux.SI_USER}
	}
	return sig
}

// traceEvent is a PTRACE_EVENT_* stop, if the option for it is set.
func (t *Task) traceEvent(event uint32, msg uint64) bool {
	if t.ptr.tracer.Load() == nil || t.ptr.options&(1<<event) == 0 {
		return false
	}
	t.ptr.msg = msg
	if sig := t.ptraceStop(int32(sigTRAP)|int32(event)<<8, linux.CLD_TRAPPED, nil); sig != 0 {
		t.SendTaskSignal(&linux.SignalInfo{Signo: int32(sig), Code: linux.SI_USER})
	}
	return true
}

// traceSeccomp is SECCOMP_RET_TRACE: handled is false where nobody traces; ok is false where the tracer skips the call.
func (t *Task) traceSeccomp(data uint16) (ok, handled bool) {
	t.ptr.where, t.ptr.nr = ptraceInfoSeccomp, t.regs.OrigRax
	handled = t.traceEvent(unix.PTRACE_EVENT_SECCOMP, uint64(data))
	t.ptr.where = ptraceInfoNone
	return int64(t.regs.OrigRax) >= 0, handled
}

// cloneEvent is the event of a clone with these flags.
func cloneEvent(f, exitSignal uint64) uint32 {
	switch {
	case f&unix.CLONE_VFORK != 0:
		return unix.PTRACE_EVENT_VFORK
	case exitSignal != uint64(sigCHLD):
		return unix.PTRACE_EVENT_CLONE
	}
	return unix.PTRACE_EVENT_FORK
}

// attachChild makes the tracer of t trace the new task c as well, if its options or CLONE_PTRACE say so. c does not run yet.
func (t *Task) attachChild(c *Task, f, exitSignal uint64) {
	k := t.k
	k.tree.Lock()
	defer k.tree.Unlock()
	tr := t.ptr.tracer.Load()
	if tr == nil || f&unix.CLONE_UNTRACED != 0 ||
		t.ptr.options&(1<<cloneEvent(f, exitSignal)) == 0 && f&unix.CLONE_PTRACE == 0 {
		return
	}
	c.ptr.options, c.ptr.seized = t.ptr.options, t.ptr.seized
	c.link(tr)
	if c.ptr.seized {
		c.ptr.trap.Store(true)
		c.work.Or(workStop)
	} else {
		c.group.send(c, &linux.SignalInfo{Signo: int32(sigSTOP), Code: linux.SI_USER}, true)
	}
}

// traceClone reports a clone to the tracer.
func (t *Task) traceClone(c *Task, f, exitSignal uint64) {
	if tr := t.ptr.tracer.Load(); tr != nil && f&unix.CLONE_UNTRACED == 0 {
		t.traceEvent(cloneEvent(f, exitSignal), uint64(c.TIDIn(tr.PIDNS())))
	}
}

// traceExec reports an exec.
func (t *Task) traceExec() {
	tr := t.ptr.tracer.Load()
	if tr == nil {
		return
	}
	if !t.traceEvent(unix.PTRACE_EVENT_EXEC, uint64(t.TIDIn(tr.PIDNS()))) && !t.ptr.seized {
		t.SendTaskSignal(&linux.SignalInfo{Signo: int32(sigTRAP), Code: linux.SI_USER})
	}
}

// traceExit reports that the thread is about to exit.
func (t *Task) traceExit(status int32) { t.traceEvent(unix.PTRACE_EVENT_EXIT, uint64(status)) }

// link makes tr trace t. The caller holds tree.
func (t *Task) link(tr *Task) {
	t.ptr.tracer.Store(tr)
	tr.group.tracees = append(tr.group.tracees, t)
}

// detach ends the tracing of t and lets it run. The caller holds tree.
func (t *Task) detach() {
	tr := t.ptr.tracer.Load()
	if tr == nil {
		return
	}
	l := tr.group.tracees
	for i, x := range l {
		if x == t {
			tr.group.tracees = append(l[:i:i], l[i+1:]...)
			break
		}
	}
	p := &t.ptr
	p.tracer.Store(nil)
	p.trap.Store(false)
	p.options, p.seized, p.stopped, p.sysStops, p.step = 0, false, false, false, false
	t.wake.NotifyEvent(0)
}

// exitTracing is called when t exits: its tracees are let go (or killed), and its own tracer learns of the end of a thread that is not
// the leader. The caller holds tree. It tells whether t must stay until that has been waited for.
func (t *Task) exitTracing() (stay bool) {
	for i := 0; i < len(t.group.tracees); {
		c := t.group.tracees[i]
		if c.ptr.tracer.Load() != t {
			i++
			continue
		}
		kill := c.ptr.options&unix.PTRACE_O_EXITKILL != 0
		c.untrace()
		if kill {
			c.group.Kill()
		}
	}
	tr := t.ptr.tracer.Load()
	if tr == nil {
		return false
	}
	if t == t.group.leader {
		return false
	}
	t.ptr.zombie = true
	t.notifyTracer(tr, linux.CLD_EXITED, t.exit.status>>8)
	return true
}

// untrace is detach for threads that may be dead. The caller holds tree.
func (t *Task) untrace() {
	other := t.group.zombie && t.group.leader == t && t.ptr.tracer.Load().group != t.group.parent
	t.detach()
	switch {
	case t.ptr.zombie:
		t.ptr.zombie = false
		t.release()
	case other:
		if t.group.parent == nil || t.group.notifyParentExit() {
			t.group.reap(false)
		}
	}
}

// isTracedByOther tells whether c is a zombie whose end another process has to be told first. The caller holds tree.
func (tg *ThreadGroup) isTracedByOther(parent *ThreadGroup) bool {
	if !tg.zombie {
		return false
	}
	tr := tg.leader.ptr.tracer.Load()
	return tr != nil && tr.group != parent
}

// waitTracees looks for a tracee to report. The caller holds tree.
func (t *Task) waitTracees(o *WaitOptions, want *PID, r *WaitResult) (found, any bool) {
	for _, c := range t.group.tracees {
		if o.Flags&unix.WNOTHREAD != 0 && c.ptr.tracer.Load() != t {
			continue
		}
		switch o.Type {
		case linux.P_PID:
			if c.pid != want {
				continue
			}
		case linux.P_PGID:
			if c.group.pgrp == nil || c.group.pgrp.pid != want {
				continue
			}
		}
		p := &c.ptr
		dead := p.zombie || c == c.group.leader && c.group.zombie && c.group.parent != t.group
		if dead && o.Flags&unix.WEXITED != 0 {
			status := c.exit.status
			if !p.zombie {
				status = c.group.exitStatus
			}
			t.fillTracee(c, r)
			r.Status = status
			r.Code, r.ExitStatus = exitCodeOf(status)
			if o.Flags&unix.WNOWAIT == 0 {
				c.untrace()
			}
			return true, true
		}
		if c.group.zombie && c.group.parent == t.group {
			continue // the ordinary wait reports it
		}
		any = true
		if p.stopped && !p.reported {
			t.fillTracee(c, r)
			r.Status = p.code<<8 | 0x7f
			r.Code, r.ExitStatus = linux.CLD_TRAPPED, p.code
			if p.code&^0x7f == 0 && stopSignals.Has(linux.Signal(p.code)) && p.info.Code == p.code {
				r.Code = linux.CLD_STOPPED
			}
			if o.Flags&unix.WNOWAIT == 0 {
				p.reported = true
			}
			return true, true
		}
	}
	return false, any
}

func (t *Task) fillTracee(c *Task, r *WaitResult) {
	uid, _ := t.UserNS().UID(c.Credentials().RUID)
	u := c.usage()
	*r = WaitResult{PID: c.pid.In(t.PIDNS()), UID: uint32(uid), Usage: u.export()}
}
