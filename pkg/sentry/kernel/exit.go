package kernel

import (
	"sync/atomic"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// waiterNone is an empty event mask.
const waiterNone waiter.EventMask = 0

// exitState is how a task ends.
type exitState struct {
	code int32       // wait status given to exit(2); own goroutine
	done atomic.Bool // resources are being or have been released
	// status is the final wait status of the thread; protected by tree.
	status int32
}

// Exit is exit(2): the calling thread ends behind the system call. Own goroutine.
func (t *Task) Exit(code int32) {
	t.exit.code = code & 0xff << 8
	t.work.Or(workExit)
}

// ExitGroup is exit_group(2).
func (t *Task) ExitGroup(code int32) {
	t.group.groupExit(code & 0xff << 8)
	t.work.Or(workExit)
}

// doExit releases everything of the thread, at the end of its goroutine.
func (t *Task) doExit() {
	tg := t.group
	tg.mu.Lock()
	status := t.exit.code
	if tg.exiting.Load() {
		status = tg.exitCode
	}
	tg.mu.Unlock()
	t.traceExit(status)
	tg.mu.Lock()
	t.sig.exiting = true
	if set := tg.pending.set &^ t.SignalMask(); set != 0 {
		tg.retarget(t, set)
	}
	if t.sig.stopPending {
		t.sig.stopPending = false
		t.stopTakenLocked()
	}
	tg.mu.Unlock()
	t.exitMM()
	t.exit.done.Store(true)
	for _, f := range t.k.exitHooks {
		f(t)
	}
	tg.runAtExit()
	t.releaseFiles()
	t.acct.beginBlock()
	if tg.isInit {
		t.zapNamespace()
	}
	t.ctx.Release()
	t.k.tree.Lock()
	t.exit.status = status
	t.exitNotify()
	last := tg.live == 0
	t.k.tree.Unlock()
	if last {
		tg.setExe(nil)
	}
}

// exitMM tells other threads that this one is gone, by memory, and leaves the address space.
func (t *Task) exitMM() {
	t.leaveMM()
	m := t.mm.Swap(nil)
	t.as = nil
	t.releaseVfork()
	if m != nil {
		m.DecUsers()
	}
}

// leaveMM handles robust futexes and clear_child_tid before the address space is left by exit or exec.
func (t *Task) leaveMM() {
	t.exitRobust()
	if t.clearTID != 0 {
		if m := t.MM(); m.Users() > 1 {
			if m.WriteUint32(t.clearTID, 0) == nil {
				t.FutexWake(t.clearTID, false, 1, ^uint32(0))
			}
		}
		t.clearTID = 0
	}
}

// releaseFiles drops descriptors, directories and namespaces.
func (t *Task) releaseFiles() {
	if f := t.files.Swap(nil); f != nil {
		f.DecRef(t)
	}
	if fs := t.fs.Swap(nil); fs != nil && t.fsShare.n.Add(-1) == 0 {
		fs.Release()
	}
	if ns := t.mntNS.Load(); ns != nil {
		ns.DecRef()
	}
	if ns := t.netNS.Swap(nil); ns != nil && *ns != nil {
		(*ns).DecRef()
	}
}

// exitNotify takes the thread out of the tree. The caller holds tree.
func (t *Task) exitNotify() {
	tg := t.group
	stay := t.exitTracing()
	tg.live--
	last := tg.live == 0
	if last {
		tg.reparentChildren()
		tg.leaveSession()
	} else {
		tg.passChildren(t)
	}
	if t != tg.leader && !stay {
		t.release()
	}
	if last {
		tg.becomeZombie()
	} else if tg.execer != nil {
		tg.execer.wake.NotifyEvent(0)
	}
}

// release frees a thread's number and links. The caller holds tree.
func (t *Task) release() {
	if t.released {
		return
	}
	t.released = true
	t.detach()
	tg := t.group
	tg.mu.Lock()
	u := t.usage()
	tg.deadAcct.add(&u)
	tg.flush(&t.sig.pending, ^linux.SignalSet(0))
	tg.removeTask(t)
	tg.mu.Unlock()
	t.pid.task = nil
	t.pid.queue.Notify(waiter.ReadableEvents | waiter.EventHUp)
	t.pid.release()
	t.counted(-1)
	tg.container.uncharge()
}

// passChildren hands the children that thread t made to another thread of the process. The caller holds tree.
func (tg *ThreadGroup) passChildren(t *Task) {
	var heir *Task
	for c := tg.firstChild; c != nil; c = c.nextSib {
		if c.parentTask != t {
			continue
		}
		if heir == nil {
			heir = tg.otherTask(t)
		}
		c.parentTask = heir
		c.parentDied()
	}
}

func (tg *ThreadGroup) otherTask(t *Task) *Task {
	for _, o := range tg.tasks {
		if o != t && !o.exit.done.Load() {
			return o
		}
	}
	return nil
}

// parentDied sends the signals of PR_SET_PDEATHSIG. The caller holds tree.
func (c *ThreadGroup) parentDied() {
	for _, t := range c.tasks {
		if s := t.pdeathSignal; s != 0 {
			c.send(nil, kernelInfo(s), true)
		}
	}
}

// reaper is who adopts the children of tg; nil if nobody does. The caller holds tree.
func (tg *ThreadGroup) reaper() *ThreadGroup {
	if tg.hasSubreaper {
		for p := tg.parent; p != nil && p.pidns == tg.pidns && !p.isInit; p = p.parent {
			if p.subreaper && p.live > 0 {
				return p
			}
		}
	}
	if in := tg.pidns.init; in != nil && in != tg && in.live > 0 {
		return in
	}
	return nil
}

// reparentChildren gives tg's children to its reaper. The caller holds tree.
func (tg *ThreadGroup) reparentChildren() {
	to := tg.reaper()
	for c := tg.firstChild; c != nil; c = tg.firstChild {
		wasLink := c.pgrp != nil && c.pgrp != tg.pgrp && c.pgrp.session == tg.pgrp.session
		c.unlinkChild()
		if to != nil {
			to.addChild(c, to.leader)
		}
		c.exitSignal = sigCHLD
		c.parentDied()
		if c.zombie {
			if to == nil || c.notifyParentExit() {
				c.reap(false)
			}
			continue
		}
		if wasLink {
			c.pgrp.hangUpIfOrphaned(nil)
		}
	}
}

// leaveSession does what the end of tg means for its session and group. The caller holds tree.
func (tg *ThreadGroup) leaveSession() {
	pg := tg.pgrp
	if p := tg.parent; p != nil && p.pgrp != nil && p.pgrp != pg && p.pgrp.session == pg.session {
		pg.hangUpIfOrphaned(tg)
	}
	if s := pg.session; s.leader == tg {
		tg.k.disassociateTTY(s)
		s.leader = nil
	}
}

// becomeZombie ends the process: the parent learns of it, or nobody has to. The caller holds tree.
func (tg *ThreadGroup) becomeZombie() {
	tg.zombie = true
	tg.exitStatus = tg.leader.exit.status
	tg.mu.Lock()
	if tg.exiting.Load() {
		tg.exitStatus = tg.exitCode
	}
	tg.mu.Unlock()
	tg.endTimers()
	if tr := tg.leader.ptr.tracer.Load(); tr != nil && tr.group != tg.parent {
		code, st := exitCodeOf(tg.exitStatus)
		tg.leader.notifyTracer(tr, code, st)
	} else if tg.parent == nil || tg.notifyParentExit() {
		tg.reap(false)
	}
	close(tg.exited)
	tg.wakeZappers()
	tg.pid.queue.Notify(waiter.ReadableEvents | waiter.EventHUp)
}

// notifyParentExit sends the exit signal and wakes waiters; true if the process is to be reaped at once. The caller holds tree.
func (tg *ThreadGroup) notifyParentExit() bool {
	p := tg.parent
	status := tg.exitStatus
	code, st := exitCodeOf(status)
	sig := tg.exitSignal
	reap := false
	p.mu.Lock()
	if sig == sigCHLD {
		a := p.hand.get(sigCHLD)
		reap = a.Handler == linux.SIG_IGN || a.Flags&linux.SA_NOCLDWAIT != 0
		if a.Handler == linux.SIG_IGN {
			sig = 0
		}
	}
	p.mu.Unlock()
	if sig.Valid() { // clone(2) takes any number
		info := tg.childInfo(code, st)
		info.Signo = int32(sig)
		p.send(nil, info, true)
	}
	p.childQueue.Notify(waiter.ReadableEvents)
	return reap
}

// exitCodeOf splits a wait status into si_code and si_status.
func exitCodeOf(status int32) (code, st int32) {
	if status&0x7f == 0 {
		return linux.CLD_EXITED, status >> 8 & 0xff
	}
	return linux.CLD_KILLED, status & 0x7f
}

// reap removes a zombie for good. waited says that the parent's wait got it, so that its usage counts as the parent's children's.
// The caller holds tree.
func (tg *ThreadGroup) reap(waited bool) {
	if tg.reaped {
		return
	}
	tg.reaped = true
	if waited && tg.parent != nil {
		u := tg.usage()
		tg.parent.childAcct.add(&u)
		tg.parent.childAcct.add(&tg.childAcct)
	}
	tg.unlinkChild()
	tg.leaveGroup()
	for len(tg.tasks) > 0 {
		tg.tasks[0].release() // the leader, and threads that were kept for a tracer
	}
	pid := tg.pid
	pid.group = nil
	pid.release()
	if tg.isInit {
		tg.pidns.init = nil
	}
	tg.mu.Lock()
	tg.flush(&tg.pending, ^linux.SignalSet(0))
	tg.freeNodes = nil
	tg.mu.Unlock()
	tg.wakeZappers()
}

// wakeZappers tells a dying PID 1 that waits for the others that there is one less. The caller holds tree.
func (tg *ThreadGroup) wakeZappers() {
	for ns := tg.pidns; ns != nil; ns = ns.parent {
		if ns.zapper != nil {
			ns.zapper.wake.NotifyEvent(0)
		}
	}
}

// zapNamespace runs in the last thread of a PID namespace's init: it kills everybody else in there and waits for their end.
func (t *Task) zapNamespace() {
	k, tg := t.k, t.group
	ns := tg.pidns
	k.tree.Lock()
	if tg.live != 1 {
		k.tree.Unlock()
		return
	}
	ns.dead, ns.zapper = true, t
	for {
		left := false
		for _, p := range ns.pids {
			g := p.group
			if g == nil || g == tg {
				continue
			}
			if g.zombie && g.parent == tg {
				g.reap(false)
				continue
			}
			left = true
			g.groupExit(int32(sigKILL))
		}
		if !left {
			break
		}
		k.tree.Unlock()
		t.block(t.wake.C, vfs.NoDeadline, 0)
		k.tree.Lock()
	}
	ns.zapper = nil
	k.tree.Unlock()
}
