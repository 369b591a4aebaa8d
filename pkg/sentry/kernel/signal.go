package kernel

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/waiter"
)

const (
	sigKILL = linux.Signal(unix.SIGKILL)
	sigSTOP = linux.Signal(unix.SIGSTOP)
	sigCONT = linux.Signal(unix.SIGCONT)
	sigCHLD = linux.Signal(unix.SIGCHLD)
	sigSEGV = linux.Signal(unix.SIGSEGV)
)

// Sets of signals by default action (signal(7)).
const (
	stopSignals = linux.SignalSet(1<<(unix.SIGSTOP-1) | 1<<(unix.SIGTSTP-1) | 1<<(unix.SIGTTIN-1) | 1<<(unix.SIGTTOU-1))
	contSignals = linux.SignalSet(1 << (unix.SIGCONT - 1))
	// ignoredByDefault have the default action "ignore" (SIGCONT: beyond continuing).
	ignoredByDefault = linux.SignalSet(1<<(unix.SIGCONT-1) | 1<<(unix.SIGCHLD-1) | 1<<(unix.SIGWINCH-1) | 1<<(unix.SIGURG-1))
	coreSignals      = linux.SignalSet(1<<(unix.SIGQUIT-1) | 1<<(unix.SIGILL-1) | 1<<(unix.SIGTRAP-1) | 1<<(unix.SIGABRT-1) |
		1<<(unix.SIGFPE-1) | 1<<(unix.SIGSEGV-1) | 1<<(unix.SIGBUS-1) | 1<<(unix.SIGSYS-1) | 1<<(unix.SIGXCPU-1) | 1<<(unix.SIGXFSZ-1))
	// synchronous signals are delivered before others, so that a fault's handler sees the faulting registers.
	synchronous = linux.SignalSet(1<<(unix.SIGSEGV-1) | 1<<(unix.SIGBUS-1) | 1<<(unix.SIGILL-1) | 1<<(unix.SIGTRAP-1) |
		1<<(unix.SIGFPE-1) | 1<<(unix.SIGSYS-1))
)

// SignalHandlers are the dispositions that CLONE_SIGHAND shares.
type SignalHandlers struct {
	mu   sync.Mutex
	refs int                               // protected by mu
	act  [linux.NumSignals]linux.SigAction // protected by mu
}

func newSignalHandlers() *SignalHandlers { return &SignalHandlers{refs: 1} }

func (h *SignalHandlers) get(sig linux.Signal) linux.SigAction {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.act[sig-1]
}

func (h *SignalHandlers) fork() *SignalHandlers {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &SignalHandlers{refs: 1, act: h.act}
}

func (h *SignalHandlers) share() *SignalHandlers {
	h.mu.Lock()
	h.refs++
	h.mu.Unlock()
	return h
}

// forExec is a copy with handlers reset to the default action (execve(2)).
func (h *SignalHandlers) forExec() *SignalHandlers {
	n := h.fork()
	for i := range n.act {
		a := &n.act[i]
		if a.Handler == linux.SIG_IGN {
			*a = linux.SigAction{Handler: linux.SIG_IGN}
		} else {
			*a = linux.SigAction{}
		}
	}
	h.mu.Lock()
	h.refs--
	h.mu.Unlock()
	return n
}

// sigNode is a queued signal.
type sigNode struct {
	info  linux.SignalInfo
	timer *posixTimer // whose expiry it is, for overrun counts and requeueing
	next  *sigNode
}

// pendingSignals is a queue in order of arrival. Protected by the group's mu.
type pendingSignals struct {
	set        linux.SignalSet
	head, tail *sigNode
}

// taskSignals is a thread's signal state.
type taskSignals struct {
	// mask is changed by the own goroutine with the group's mu held; readable anywhere.
	mask atomic.Uint64
	// saved is the mask to restore after a call with a temporary one, if hasSaved. Own goroutine.
	saved    linux.SignalSet
	hasSaved bool
	// waiting is what sigtimedwait waits for (blocked or not, these wake it). Protected by the group's mu.
	waiting linux.SignalSet
	pending pendingSignals    // protected by the group's mu
	alt     linux.SignalStack // own goroutine
	// stopPending: the thread has yet to take part in the group stop. Protected by the group's mu.
	stopPending bool
	stopped     bool // is stopped; protected by the group's mu
	exiting     bool // takes no signals any more; protected by the group's mu
}

// SignalMask is the set of blocked signals. Any goroutine.
func (t *Task) SignalMask() linux.SignalSet { return linux.SignalSet(t.sig.mask.Load()) }

// kernelInfo describes a signal sent by the kernel.
func kernelInfo(sig linux.Signal) *linux.SignalInfo {
	return &linux.SignalInfo{Signo: int32(sig), Code: linux.SI_KERNEL}
}

// put queues a copy of info. The caller holds tg.mu.
func (tg *ThreadGroup) put(p *pendingSignals, info *linux.SignalInfo, tm *posixTimer) {
	n := tg.freeNodes
	if n != nil {
		tg.freeNodes = n.next
	} else {
		n = new(sigNode)
	}
	n.info, n.timer, n.next = *info, tm, nil
	if tm != nil {
		tm.queued = true
	}
	if p.tail != nil {
		p.tail.next = n
	} else {
		p.head = n
	}
	p.tail = n
	p.set |= linux.Signal(info.Signo).Bit()
	tg.numQueued++
}

// take dequeues the first signal of the set want into info: synchronous ones first, then by number. The caller holds tg.mu.
func (tg *ThreadGroup) take(p *pendingSignals, want linux.SignalSet, info *linux.SignalInfo) (linux.Signal, *posixTimer) {
	m := p.set & want
	if m == 0 {
		return 0, nil
	}
	if s := m & synchronous; s != 0 {
		m = s
	}
	sig := linux.Signal(lowestBit(uint64(m)) + 1)
	var prev, found, foundPrev *sigNode
	more := false
	for n := p.head; n != nil; prev, n = n, n.next {
		if linux.Signal(n.info.Signo) != sig {
			continue
		}
		if found != nil {
			more = true
			break
		}
		found, foundPrev = n, prev
	}
	if !more {
		p.set &^= sig.Bit()
	}
	if found == nil {
		// Only the bit was there: the queue had been full.
		*info = linux.SignalInfo{Signo: int32(sig), Code: linux.SI_USER}
		return sig, nil
	}
	*info = found.info
	tm := found.timer
	found.timer = nil
	tg.unlinkNode(p, foundPrev, found)
	return sig, tm
}

func (tg *ThreadGroup) unlinkNode(p *pendingSignals, prev, n *sigNode) {
	if prev != nil {
		prev.next = n.next
	} else {
		p.head = n.next
	}
	if p.tail == n {
		p.tail = prev
	}
	if n.timer != nil {
		n.timer.queued = false // flushed: the timer goes on without
		n.timer.forward(n.timer.nowLocked(), minRepeat)
		n.timer = nil
	}
	n.next = tg.freeNodes
	tg.freeNodes = n
	tg.numQueued--
}

// flush removes the signals of set. The caller holds tg.mu.
func (tg *ThreadGroup) flush(p *pendingSignals, set linux.SignalSet) {
	if p.set&set == 0 {
		return
	}
	p.set &^= set
	var prev *sigNode
	for n := p.head; n != nil; {
		next := n.next
		if set.Has(linux.Signal(n.info.Signo)) {
			tg.unlinkNode(p, prev, n)
		} else {
			prev = n
		}
		n = next
	}
}

func (tg *ThreadGroup) flushAll(set linux.SignalSet) {
	tg.flush(&tg.pending, set)
	for _, t := range tg.tasks {
		tg.flush(&t.sig.pending, set)
	}
}

// ignored tells whether sig sent to t would have no effect. The caller holds tg.mu.
func (t *Task) ignored(sig linux.Signal, force bool) bool {
	if t.SignalMask().Has(sig) || t.sig.waiting.Has(sig) {
		return false
	}
	if t.ptr.tracer.Load() != nil && sig != sigKILL {
		return false
	}
	h := t.group.hand.get(sig).Handler
	if t.group.unkillable && h == linux.SIG_DFL && !(force && linux.UnblockableSignals.Has(sig)) {
		return true
	}
	return h == linux.SIG_IGN || h == linux.SIG_DFL && ignoredByDefault.Has(sig)
}

// ignoresOrBlocks is for job control: SIGTTOU and SIGTTIN of processes that do not want them.
func (t *Task) ignoresOrBlocks(sig linux.Signal) bool {
	return t.SignalMask().Has(sig) || t.group.handlers().get(sig).Handler == linux.SIG_IGN
}

func (tg *ThreadGroup) handlers() *SignalHandlers {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return tg.hand
}

// fatal tells whether the default action of sig ends the process. The caller holds tg.mu.
func (tg *ThreadGroup) fatal(sig linux.Signal) bool {
	return !(ignoredByDefault | stopSignals).Has(sig) && tg.hand.get(sig).Handler == linux.SIG_DFL
}

// send sends info to thread t of the group, or to the process if t is nil. force is for signals of the kernel and of ancestor
// namespaces: SIGKILL and SIGSTOP reach even PID 1. EAGAIN if the queue is full.
func (tg *ThreadGroup) send(t *Task, info *linux.SignalInfo, force bool) error {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return tg.sendLocked(t, info, force, nil)
}

func (tg *ThreadGroup) sendLocked(t *Task, info *linux.SignalInfo, force bool, tm *posixTimer) error {
	sig := linux.Signal(info.Signo)
	if tg.exiting.Load() || len(tg.tasks) == 0 || t != nil && t.sig.exiting {
		return nil
	}
	tg.prepareStopCont(sig)
	to, queue := t, &tg.pending
	if t != nil {
		queue = &t.sig.pending
	} else {
		to = tg.mainForSignals()
	}
	if to == nil || to.ignored(sig, force) {
		return nil
	}
	if tm == nil && !sig.RealTime() && queue.set.Has(sig) {
		return nil
	}
	if lim := tg.limits.Get(unix.RLIMIT_SIGPENDING).Cur; uint64(tg.numQueued) >= lim && sig != sigKILL && info.Code != linux.SI_KERNEL && tm == nil {
		if sig.RealTime() && info.Code != linux.SI_USER {
			return unix.EAGAIN
		}
		queue.set |= sig.Bit() // the signal arrives, its information does not
	} else {
		tg.put(queue, info, tm)
	}
	tg.sigQueue.Notify(waiter.ReadableEvents)
	tg.complete(sig, to, t == nil)
	return nil
}

// mainForSignals is the thread that represents the process: the leader, or another if it has exited.
func (tg *ThreadGroup) mainForSignals() *Task {
	for _, t := range tg.tasks {
		if !t.sig.exiting {
			return t
		}
	}
	return nil
}

// prepareStopCont makes SIGCONT and stop signals cancel each other. The caller holds tg.mu.
func (tg *ThreadGroup) prepareStopCont(sig linux.Signal) {
	switch {
	case stopSignals.Has(sig):
		tg.flushAll(contSignals)
	case sig == sigCONT:
		tg.flushAll(stopSignals)
		tg.continueLocked()
	}
}

// wants tells whether t could take sig at once. The caller holds tg.mu.
func (t *Task) wants(sig linux.Signal) bool {
	if t.sig.exiting || t.SignalMask().Has(sig) && !t.sig.waiting.Has(sig) {
		return false
	}
	if sig == sigKILL {
		return true
	}
	if t.sig.stopped {
		return false
	}
	return true
}

// complete picks a thread for sig and wakes it; fatal signals start the end of the process at once. The caller holds tg.mu.
func (tg *ThreadGroup) complete(sig linux.Signal, to *Task, group bool) {
	t := to
	if !t.wants(sig) {
		t = nil
		if group {
			for i := range tg.tasks {
				j := (tg.nextThread + i) % len(tg.tasks)
				if c := tg.tasks[j]; c.wants(sig) {
					t, tg.nextThread = c, j
					break
				}
			}
		}
		if t == nil {
			return
		}
	}
	if tg.fatal(sig) && !t.SignalMask().Has(sig) && (sig == sigKILL || t.ptr.tracer.Load() == nil) && (sig == sigKILL || !coreSignals.Has(sig)) {
		tg.groupExitLocked(int32(sig))
		return
	}
	t.setWork(workSignal)
}

// groupExitLocked makes every thread exit with a wait status. The caller holds tg.mu.
func (tg *ThreadGroup) groupExitLocked(status int32) {
	if status == int32(sigKILL) && !tg.killed.Swap(true) && tg.exiting.Load() {
		for _, t := range tg.tasks {
			t.wake.NotifyEvent(0) // it may be in PTRACE_EVENT_EXIT
		}
	}
	if tg.exiting.Load() {
		return
	}
	tg.exitCode = status
	tg.exiting.Store(true)
	for _, t := range tg.tasks {
		t.sig.stopPending = false
		t.setWork(workExit)
	}
	tg.wakeUp()
}

// groupExit is groupExitLocked for callers without the lock; the first caller's status counts.
func (tg *ThreadGroup) groupExit(status int32) {
	tg.mu.Lock()
	tg.groupExitLocked(status)
	tg.mu.Unlock()
}

// Kill ends the process as SIGKILL does. Any goroutine.
func (tg *ThreadGroup) Kill() { tg.groupExit(int32(sigKILL)) }

// SendSignal sends a signal of the sandbox itself to the process (runsc kill): even PID 1 gets it. Any goroutine.
func (tg *ThreadGroup) SendSignal(info *linux.SignalInfo) error {
	if !linux.Signal(info.Signo).Valid() {
		return unix.EINVAL
	}
	return tg.send(nil, info, true)
}

// SendTaskSignal sends a thread-directed signal of the kernel to t. Any goroutine.
func (t *Task) SendTaskSignal(info *linux.SignalInfo) error {
	return t.group.send(t, info, true)
}

// ForceSignal sends a synchronous signal that cannot be escaped: if t blocks or ignores it, the default action applies
// (faults, failed signal frames). Own goroutine.
func (t *Task) ForceSignal(info *linux.SignalInfo) {
	tg := t.group
	sig := linux.Signal(info.Signo)
	tg.mu.Lock()
	defer tg.mu.Unlock()
	blocked := t.SignalMask().Has(sig)
	tg.hand.mu.Lock()
	a := &tg.hand.act[sig-1]
	if blocked || a.Handler == linux.SIG_IGN {
		a.Handler = linux.SIG_DFL
		t.sig.mask.Store(uint64(t.SignalMask() &^ sig.Bit()))
	}
	dfl := a.Handler == linux.SIG_DFL
	tg.hand.mu.Unlock()
	if dfl && t.ptr.tracer.Load() == nil {
		tg.unkillable = false
	}
	tg.sendLocked(t, info, true, nil)
	t.setWork(workSignal)
}

// SetSignalMask replaces the set of blocked signals. Own goroutine.
func (t *Task) SetSignalMask(m linux.SignalSet) {
	m &^= linux.UnblockableSignals
	old := t.SignalMask()
	if m == old {
		return
	}
	tg := t.group
	tg.mu.Lock()
	t.setMaskLocked(m)
	tg.mu.Unlock()
}

// setMaskLocked changes the mask and passes process signals that it newly blocks to other threads.
func (t *Task) setMaskLocked(m linux.SignalSet) {
	tg := t.group
	newly := m &^ t.SignalMask()
	t.sig.mask.Store(uint64(m))
	if (t.sig.pending.set|tg.pending.set)&^m != 0 {
		t.work.Or(workSignal)
	}
	if len(tg.tasks) > 1 {
		tg.retarget(t, newly&tg.pending.set)
	}
}

// retarget finds other threads for process signals that t cannot take any more. The caller holds tg.mu.
func (tg *ThreadGroup) retarget(t *Task, set linux.SignalSet) {
	for _, o := range tg.tasks {
		if set == 0 {
			return
		}
		if o == t || o.sig.exiting || set&^o.SignalMask() == 0 {
			continue
		}
		set &= o.SignalMask()
		o.setWork(workSignal)
	}
}

// SetTempMask replaces the mask for one system call (ppoll, sigsuspend, ...). If the call is interrupted the
// old mask comes back behind the handler, and at the end of the call otherwise. Own goroutine.
func (t *Task) SetTempMask(m linux.SignalSet) {
	if !t.sig.hasSaved {
		t.sig.saved, t.sig.hasSaved = t.SignalMask(), true
	}
	t.SetSignalMask(m)
}

// restoreMask ends SetTempMask.
func (t *Task) restoreMask() {
	if t.sig.hasSaved {
		t.sig.hasSaved = false
		t.SetSignalMask(t.sig.saved)
	}
}

// PendingSignals is what sigpending(2) reports: signals pending for the thread or process, blocked ones only.
func (t *Task) PendingSignals() linux.SignalSet {
	own, shared := t.PendingSets()
	return (own | shared) & t.SignalMask()
}

// PendingSets are the signals pending for the thread and for its process. Any goroutine.
func (t *Task) PendingSets() (own, shared linux.SignalSet) {
	t.group.mu.Lock()
	defer t.group.mu.Unlock()
	return t.sig.pending.set, t.group.pending.set
}

// QueuedSignals is the number of queued signals (SigQ of /proc/PID/status).
func (tg *ThreadGroup) QueuedSignals() int {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return tg.numQueued
}

// HandlerSets are the ignored and the caught signals (SigIgn, SigCgt of /proc/PID/status).
func (tg *ThreadGroup) HandlerSets() (ignored, caught linux.SignalSet) {
	h := tg.handlers()
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.act {
		switch h.act[i].Handler {
		case linux.SIG_DFL:
		case linux.SIG_IGN:
			ignored |= 1 << i
		default:
			caught |= 1 << i
		}
	}
	return
}

// SigAction gets and, if act is not nil, sets the disposition of sig (sigaction(2)). EINVAL for SIGKILL and SIGSTOP. Own goroutine.
func (t *Task) SigAction(sig linux.Signal, act *linux.SigAction) (linux.SigAction, error) {
	if !sig.Valid() || act != nil && linux.UnblockableSignals.Has(sig) {
		return linux.SigAction{}, unix.EINVAL
	}
	tg := t.group
	tg.mu.Lock()
	defer tg.mu.Unlock()
	tg.hand.mu.Lock()
	old := tg.hand.act[sig-1]
	if act == nil {
		tg.hand.mu.Unlock()
		return old, nil
	}
	const known = linux.SA_NOCLDSTOP | linux.SA_NOCLDWAIT | linux.SA_SIGINFO | linux.SA_ONSTACK | linux.SA_RESTART | linux.SA_NODEFER | linux.SA_RESETHAND | linux.SA_RESTORER
	a := *act
	a.Flags &= known
	a.Mask &^= linux.UnblockableSignals
	tg.hand.act[sig-1] = a
	tg.hand.mu.Unlock()
	if a.Handler == linux.SIG_IGN || a.Handler == linux.SIG_DFL && ignoredByDefault.Has(sig) {
		tg.flushAll(sig.Bit())
	}
	return old, nil
}

// RegisterSignalfd makes e hear of signals that arrive for the process or its threads (signalfd(2)); UnregisterSignalfd ends it.
func (tg *ThreadGroup) RegisterSignalfd(e *waiter.Entry) { tg.sigQueue.EventRegister(e) }

// UnregisterSignalfd undoes RegisterSignalfd.
func (tg *ThreadGroup) UnregisterSignalfd(e *waiter.Entry) { tg.sigQueue.EventUnregister(e) }

// DequeueSignal takes a pending signal of set (signalfd(2), sigtimedwait(2)); false if there is none. Own goroutine.
func (t *Task) DequeueSignal(set linux.SignalSet, info *linux.SignalInfo) bool {
	tg := t.group
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return t.dequeueLocked(set&^linux.UnblockableSignals, info) != 0
}

func (t *Task) dequeueLocked(set linux.SignalSet, info *linux.SignalInfo) linux.Signal {
	tg := t.group
	sig, tm := tg.take(&t.sig.pending, set, info)
	if sig == 0 {
		sig, tm = tg.take(&tg.pending, set, info)
	}
	if tm != nil {
		tm.delivered(info)
	}
	if sig != 0 {
		tg.signalTaken(sig)
	}
	return sig
}

// UserInfo describes a signal sent by t with kill(2) and the like as to sees it: IDs are mapped to the receiver's namespaces.
func (t *Task) UserInfo(sig linux.Signal, code int32, to *ThreadGroup) *linux.SignalInfo {
	info := &linux.SignalInfo{Signo: int32(sig), Code: code}
	info.SetPID(t.group.IDIn(to.pidns))
	uid := t.Credentials().RUID
	ns := t.UserNS()
	if r := to.AnyTask(); r != nil {
		ns = r.UserNS()
	}
	u, _ := ns.UID(uid)
	info.SetUID(uint32(u))
	return info
}

// MaySignal is the permission check of kill(2): EPERM. sig 0 only checks.
func (t *Task) MaySignal(to *Task, sig linux.Signal) error {
	if to.group == t.group {
		return nil
	}
	c, d := t.Credentials(), to.Credentials()
	if c.EUID == d.SUID || c.EUID == d.RUID || c.RUID == d.SUID || c.RUID == d.RUID {
		return nil
	}
	if c.HasCapIn(unix.CAP_KILL, d.UserNS) {
		return nil
	}
	if sig == sigCONT && t.group.sameSession(to.group) {
		return nil
	}
	return unix.EPERM
}

func (tg *ThreadGroup) sameSession(o *ThreadGroup) bool {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	return tg.pgrp != nil && o.pgrp != nil && tg.pgrp.session == o.pgrp.session
}

// SignalHandlers identifies the dispositions, for kcmp(2).
func (tg *ThreadGroup) SignalHandlers() *SignalHandlers { return tg.handlers() }
