package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/vfs"
)

// WaitOptions says what wait4(2) or waitid(2) waits for.
type WaitOptions struct {
	Type  int32 // linux.P_ALL, P_PID, P_PGID
	ID    int32 // in the caller's PID namespace
	PID   *PID  // instead of ID, for P_PIDFD
	Flags int   // WNOHANG, WEXITED, WSTOPPED, WCONTINUED, WNOWAIT, __WALL, __WCLONE, __WNOTHREAD
}

// WaitResult describes a change of a child's state.
type WaitResult struct {
	PID    int32  // 0: nothing to report (WNOHANG)
	UID    uint32 // in the caller's user namespace
	Status int32  // as wait4 stores it
	Code   int32  // CLD_*
	// ExitStatus is si_status of waitid(2).
	ExitStatus int32
	Usage      Rusage
}

// Wait waits for a change of state of a child. ECHILD if there is none that fits, ERESTARTSYS. Own goroutine.
func (t *Task) Wait(o *WaitOptions, r *WaitResult) error {
	q := &t.group.childQueue
	q.EventRegister(&t.waitEntry)
	defer q.EventUnregister(&t.waitEntry)
	for {
		found, any := t.waitScan(o, r)
		switch {
		case found:
			return nil
		case !any:
			return unix.ECHILD
		case o.Flags&unix.WNOHANG != 0:
			*r = WaitResult{}
			return nil
		}
		if err := t.Block(t.wake.C, vfs.NoDeadline); err != nil {
			// SIGCHLD interrupts as it announces: look once more, as Linux does, before giving up.
			if found, _ := t.waitScan(o, r); found {
				return nil
			}
			return err
		}
	}
}

// waitScan looks for a child to report; any tells whether some child could become one.
func (t *Task) waitScan(o *WaitOptions, r *WaitResult) (found, any bool) {
	k, tg := t.k, t.group
	k.tree.Lock()
	defer k.tree.Unlock()
	var want *PID
	switch o.Type {
	case linux.P_PID, linux.P_PGID:
		if want = o.PID; want == nil {
			if o.Type == linux.P_PGID && o.ID == 0 {
				want = tg.pgrp.pid
			} else {
				want = t.PIDNS().pids[o.ID]
			}
		}
		if want == nil {
			return false, false
		}
	}
	for c := tg.firstChild; c != nil; c = c.nextSib {
		if o.Flags&unix.WNOTHREAD != 0 && c.parentTask != t || !c.eligible(o, want) {
			continue
		}
		if c.isTracedByOther(tg) {
			any = true
			continue
		}
		any = true
		if t.waitChild(c, o, r) {
			return true, true
		}
	}
	f, a := t.waitTracees(o, want, r)
	return f, any || a
}

// eligible tells whether o selects the child. The caller holds tree.
func (c *ThreadGroup) eligible(o *WaitOptions, want *PID) bool {
	switch o.Type {
	case linux.P_PID:
		if c.pid != want {
			return false
		}
	case linux.P_PGID:
		if c.pgrp == nil || c.pgrp.pid != want {
			return false
		}
	}
	if o.Flags&unix.WALL != 0 {
		return true
	}
	return (c.exitSignal != sigCHLD) == (o.Flags&unix.WCLONE != 0)
}

// waitChild reports the state of c if o asks for it. The caller holds tree.
func (t *Task) waitChild(c *ThreadGroup, o *WaitOptions, r *WaitResult) bool {
	if c.zombie {
		if o.Flags&unix.WEXITED == 0 {
			return false
		}
		t.fillWait(c, r)
		r.Status = c.exitStatus
		r.Code, r.ExitStatus = exitCodeOf(c.exitStatus)
		u := c.usage()
		u.add(&c.childAcct)
		r.Usage = u.export()
		if o.Flags&unix.WNOWAIT == 0 {
			c.reap(true)
		}
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &c.stop
	if o.Flags&unix.WSTOPPED != 0 && st.state == groupStopped && st.waitCode != 0 {
		sig := int32(st.waitCode)
		if o.Flags&unix.WNOWAIT == 0 {
			st.waitCode = 0
		}
		t.fillWait(c, r)
		r.Status, r.Code, r.ExitStatus = sig<<8|0x7f, linux.CLD_STOPPED, sig
		u := c.usageLocked()
		r.Usage = u.export()
		return true
	}
	if o.Flags&unix.WCONTINUED != 0 && st.continued {
		if o.Flags&unix.WNOWAIT == 0 {
			st.continued = false
		}
		t.fillWait(c, r)
		r.Status, r.Code, r.ExitStatus = 0xffff, linux.CLD_CONTINUED, int32(sigCONT)
		u := c.usageLocked()
		r.Usage = u.export()
		return true
	}
	return false
}

func (t *Task) fillWait(c *ThreadGroup, r *WaitResult) {
	uid, _ := t.UserNS().UID(c.leader.Credentials().RUID)
	*r = WaitResult{PID: c.pid.In(t.PIDNS()), UID: uint32(uid)}
}
