package kernel

import (
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Values of groupStop.state.
const (
	groupRunning = iota
	groupStopping
	groupStopped
)

// groupStop is the job control state of a process, protected by its mu.
type groupStop struct {
	state int
	sig   linux.Signal // what stops it
	left  int          // threads that have yet to stop
	// notify is CLD_STOPPED or CLD_CONTINUED when the parent is to be told by a thread of the group.
	notify int32
	// waitCode is the signal that a wait for stopped children reports; 0 when it has been taken.
	waitCode linux.Signal
	// continued says that a wait with WCONTINUED has something to report.
	continued bool
}

// stopSignal is the default action of sig: it stops the process. Called and returns with tg.mu held.
func (t *Task) stopSignal(sig linux.Signal) {
	tg := t.group
	if sig != sigSTOP {
		tg.mu.Unlock()
		tg.k.tree.Lock()
		orphaned := tg.pgrp == nil || tg.pgrp.orphaned(nil)
		tg.k.tree.Unlock()
		tg.mu.Lock()
		if orphaned || tg.exiting.Load() {
			return
		}
	}
	if tg.pending.set.Has(sigCONT) || t.sig.pending.set.Has(sigCONT) {
		return // it came while the lock was free
	}
	if tg.stop.state == groupRunning {
		tg.stop.state, tg.stop.sig, tg.stop.left = groupStopping, sig, 0
		for _, o := range tg.tasks {
			if !o.sig.exiting && !o.sig.stopped && !o.sig.stopPending {
				o.sig.stopPending = true
				tg.stop.left++
				if o != t {
					o.setWork(workStop)
				}
			}
		}
	} else if !t.sig.stopPending {
		t.sig.stopPending = true
		tg.stop.left++
	}
}

// handleStops lets the thread take part in a group stop and tells the parent of changes. Called and returns with tg.mu held.
func (t *Task) handleStops() {
	tg := t.group
	if t.ptr.wantsStop() {
		t.traceStopLocked()
		return
	}
	if why := tg.stop.notify; why != 0 {
		tg.stop.notify = 0
		tg.mu.Unlock()
		tg.notifyParentStop(why)
		tg.mu.Lock()
		return
	}
	if t.ptr.tracer.Load() != nil {
		t.traceGroupStopLocked()
		return
	}
	t.sig.stopPending, t.sig.stopped = false, true
	t.stopTakenLocked()
	for t.sig.stopped && !tg.exiting.Load() {
		tg.mu.Unlock()
		t.BlockKillable(t.wake.C, vfs.NoDeadline)
		tg.mu.Lock()
	}
	t.sig.stopped = false
}

// stopTakenLocked counts a thread that has stopped (or exits instead); the last one makes the process stopped.
func (t *Task) stopTakenLocked() {
	tg := t.group
	if tg.stop.left > 0 {
		tg.stop.left--
	}
	if tg.stop.left != 0 || tg.stop.state != groupStopping {
		return
	}
	tg.stop.state, tg.stop.waitCode, tg.stop.continued = groupStopped, tg.stop.sig, false
	tg.mu.Unlock()
	tg.notifyParentStop(linux.CLD_STOPPED)
	tg.mu.Lock()
}

// continueLocked is the effect of SIGCONT's generation. The caller holds tg.mu.
func (tg *ThreadGroup) continueLocked() {
	st := &tg.stop
	switch st.state {
	case groupStopped:
		st.notify, st.continued = linux.CLD_CONTINUED, true
	case groupStopping:
		st.notify = linux.CLD_STOPPED
	default:
		return
	}
	st.state, st.left, st.waitCode = groupRunning, 0, 0
	told := false
	for _, t := range tg.tasks {
		t.sig.stopPending = false
		t.sig.stopped = false
		if !t.sig.exiting {
			if !told {
				told = true
				t.work.Or(workStop)
			}
			t.wake.NotifyEvent(0)
		}
	}
}

// notifyParentStop sends SIGCHLD for a stop or continuation and wakes waiters.
func (tg *ThreadGroup) notifyParentStop(why int32) {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	p := tg.parent
	if p == nil {
		return
	}
	info := tg.childInfo(why, 0)
	tg.mu.Lock()
	status := int32(tg.stop.sig)
	tg.mu.Unlock()
	if why == linux.CLD_CONTINUED {
		status = int32(sigCONT)
	}
	info.SetStatus(status)
	p.mu.Lock()
	a := p.hand.get(sigCHLD)
	if a.Handler != linux.SIG_IGN && a.Flags&linux.SA_NOCLDSTOP == 0 {
		p.sendLocked(nil, info, true, nil)
	}
	p.mu.Unlock()
	p.childQueue.Notify(waiter.ReadableEvents)
}

// childInfo fills the SIGCHLD information about tg. The caller holds tree.
func (tg *ThreadGroup) childInfo(code, status int32) *linux.SignalInfo {
	info := &linux.SignalInfo{Signo: int32(sigCHLD), Code: code}
	info.SetPID(tg.pid.In(tg.parent.pidns))
	if tg.leader != nil {
		uid := tg.leader.Credentials().RUID
		ns := tg.k.rootUserNS
		if t := tg.parent.anyTaskTree(); t != nil {
			ns = t.UserNS()
		}
		u, _ := ns.UID(uid)
		info.SetUID(uint32(u))
	}
	info.SetStatus(status)
	u := tg.usage()
	info.SetTimes(nsToTicks(u.utime), nsToTicks(u.stime))
	return info
}

// anyTaskTree is AnyTask for callers that hold tree.
func (tg *ThreadGroup) anyTaskTree() *Task {
	if len(tg.tasks) == 0 {
		return nil
	}
	return tg.tasks[0]
}

func nsToTicks(ns int64) int64 { return ns / (1e9 / linux.ClockTick) }
