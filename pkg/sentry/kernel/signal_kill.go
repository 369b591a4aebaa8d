package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/vfs"
)

// KillProcess is kill(2) with a positive pid. EINVAL, ESRCH, EPERM.
func (t *Task) KillProcess(pid int32, sig linux.Signal) error {
	to := t.PIDNS().TaskByTID(pid)
	if to == nil {
		return unix.ESRCH
	}
	return t.killGroupOf(to, sig, linux.SI_USER, nil)
}

// killGroupOf sends sig to the process of thread to; info nil makes one.
func (t *Task) killGroupOf(to *Task, sig linux.Signal, code int32, info *linux.SignalInfo) error {
	if err := t.MaySignal(to, sig); err != nil {
		return err
	}
	if sig == 0 {
		return nil
	}
	if !sig.Valid() {
		return unix.EINVAL
	}
	if info == nil {
		info = t.UserInfo(sig, code, to.group)
	}
	return to.group.send(nil, info, t.fromAbove(to))
}

// fromAbove tells whether to lives in a PID namespace below t's, where even PID 1 gets SIGKILL and SIGSTOP from t.
func (t *Task) fromAbove(to *Task) bool {
	return t.PIDNS() != to.PIDNS() && t.PIDNS().contains(to.PIDNS())
}

// QueueProcess is rt_sigqueueinfo(2) with checked information.
func (t *Task) QueueProcess(pid int32, info *linux.SignalInfo) error {
	to := t.PIDNS().TaskByTID(pid)
	if to == nil {
		return unix.ESRCH
	}
	return t.killGroupOf(to, linux.Signal(info.Signo), 0, info)
}

// KillThread is tgkill(2), and tkill(2) where tgid is 0; info nil makes one.
func (t *Task) KillThread(tgid, tid int32, sig linux.Signal, info *linux.SignalInfo) error {
	if sig < 0 || sig > linux.NumSignals {
		return unix.EINVAL
	}
	to := t.PIDNS().TaskByTID(tid)
	if to == nil || tgid != 0 && to.group.IDIn(t.PIDNS()) != tgid {
		return unix.ESRCH
	}
	if err := t.MaySignal(to, sig); err != nil {
		return err
	}
	if sig == 0 {
		return nil
	}
	if info == nil {
		info = t.UserInfo(sig, linux.SI_TKILL, to.group)
	}
	return to.group.send(to, info, t.fromAbove(to))
}

// KillGroup is kill(2) of the process group pgid, the caller's where it is 0: it succeeds if any member got the signal.
func (t *Task) KillGroup(pgid int32, sig linux.Signal) error {
	k := t.k
	k.tree.Lock()
	pg := t.group.pgrp
	if pgid != 0 {
		pg = nil
		if p := t.PIDNS().pids[pgid]; p != nil {
			pg = p.pgrp
		}
	}
	var list []*Task
	if pg != nil {
		for m := pg.first; m != nil; m = m.nextMember {
			list = append(list, m.leader)
		}
	}
	k.tree.Unlock()
	return t.killList(list, sig)
}

// KillAll is kill(2) with -1: everybody that the caller may signal but itself and PID 1.
func (t *Task) KillAll(sig linux.Signal) error {
	k, ns := t.k, t.PIDNS()
	k.tree.Lock()
	var list []*Task
	for n, p := range ns.pids {
		if p.group != nil && p.group != t.group && n != 1 {
			list = append(list, p.group.leader)
		}
	}
	k.tree.Unlock()
	return t.killList(list, sig)
}

func (t *Task) killList(list []*Task, sig linux.Signal) error {
	var err error = unix.ESRCH
	done := false
	for _, to := range list {
		switch e := t.killGroupOf(to, sig, linux.SI_USER, nil); e {
		case nil:
			done = true
		default:
			err = e
		}
	}
	if done {
		return nil
	}
	return err
}

// SendPIDFD is pidfd_send_signal(2); thread tells that the descriptor stands for a thread, scope is PIDFD_SIGNAL_* of x/sys/unix, info nil
// makes one.
func (t *Task) SendPIDFD(p *PID, thread bool, sig linux.Signal, info *linux.SignalInfo, scope uint32) error {
	t.k.tree.Lock()
	to := p.task
	if to == nil && p.group != nil {
		to = p.group.leader
	}
	var pgid int32
	if to != nil && to.group.pgrp != nil && scope == pidfdSignalProcessGroup {
		pgid = to.group.pgrp.pid.In(t.PIDNS())
	}
	t.k.tree.Unlock()
	switch {
	case to == nil:
		return unix.ESRCH
	case sig < 0 || sig > linux.NumSignals:
		return unix.EINVAL
	case scope == pidfdSignalProcessGroup:
		return t.KillGroup(pgid, sig)
	case scope == pidfdSignalThread || scope == 0 && thread:
		return t.KillThread(0, to.TIDIn(t.PIDNS()), sig, info)
	}
	return t.killGroupOf(to, sig, linux.SI_USER, info)
}

// Scopes of pidfd_send_signal(2).
const (
	pidfdSignalThread       = 1
	pidfdSignalGroup        = 2
	pidfdSignalProcessGroup = 4
)

// WaitSignal is sigtimedwait(2): it takes a pending signal of set, waiting for one until deadline (CLOCK_MONOTONIC, ns). EAGAIN, EINTR.
func (t *Task) WaitSignal(set linux.SignalSet, deadline int64, info *linux.SignalInfo) error {
	tg := t.group
	set &^= linux.UnblockableSignals
	for {
		tg.mu.Lock()
		if t.dequeueLocked(set, info) != 0 {
			t.sig.waiting = 0
			tg.mu.Unlock()
			return nil
		}
		t.sig.waiting = set
		// A signal that arrives now sets workSignal: forget older reasons, unless one is there that interrupts.
		if (t.sig.pending.set|tg.pending.set)&^t.SignalMask() == 0 && !t.sig.stopPending && tg.stop.notify == 0 {
			t.work.And(^workSignal)
		}
		tg.mu.Unlock()
		err := t.Block(t.wake.C, deadline)
		tg.mu.Lock()
		t.sig.waiting = 0
		got := t.dequeueLocked(set, info) != 0
		tg.mu.Unlock()
		switch {
		case got:
			return nil
		case err == unix.ETIMEDOUT:
			return unix.EAGAIN
		case err == vfs.ErrInterrupted:
			return unix.EINTR
		}
	}
}
