package kernel

import (
	"sync"

	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
)

// ProcessGroup is a job of job control (credentials(7)).
type ProcessGroup struct {
	pid     *PID     // immutable
	session *Session // immutable
	first   *ThreadGroup
	last    *ThreadGroup // members, protected by Kernel.tree
}

// Session is a set of process groups that may share a controlling terminal (credentials(7)).
type Session struct {
	pid    *PID         // immutable
	leader *ThreadGroup // protected by Kernel.tree; nil when it is gone
	groups int          // protected by Kernel.tree: number of process groups
	tty    *TTY         // protected by Kernel.tree: controlling terminal
}

// ID is the number of the group in ns.
func (pg *ProcessGroup) ID(ns *PIDNamespace) int32 { return pg.pid.In(ns) }

// Session is what the group is in.
func (pg *ProcessGroup) Session() *Session { return pg.session }

// ID is the number of the session in ns.
func (s *Session) ID(ns *PIDNamespace) int32 { return s.pid.In(ns) }

// joinGroup moves tg into pg. The caller holds tree.
func (tg *ThreadGroup) joinGroup(pg *ProcessGroup) {
	tg.leaveGroup()
	tg.pgrp = pg
	tg.prevMember, tg.nextMember = pg.last, nil
	if pg.last != nil {
		pg.last.nextMember = tg
	} else {
		pg.first = tg
	}
	pg.last = tg
}

// leaveGroup takes tg out of its group and frees what becomes empty. The caller holds tree.
func (tg *ThreadGroup) leaveGroup() {
	pg := tg.pgrp
	if pg == nil {
		return
	}
	if tg.prevMember != nil {
		tg.prevMember.nextMember = tg.nextMember
	} else {
		pg.first = tg.nextMember
	}
	if tg.nextMember != nil {
		tg.nextMember.prevMember = tg.prevMember
	} else {
		pg.last = tg.prevMember
	}
	tg.pgrp, tg.prevMember, tg.nextMember = nil, nil, nil
	if pg.first != nil {
		return
	}
	pg.pid.pgrp = nil
	pg.pid.release()
	s := pg.session
	if tty := s.tty; tty != nil {
		tty.forget(pg)
	}
	if s.groups--; s.groups == 0 {
		if s.tty != nil {
			s.tty.dropSession(s)
			s.tty = nil
		}
		s.pid.session = nil
		s.pid.release()
	}
}

// newGroup makes a process group in s whose ID is pid. The caller holds tree.
func newGroup(s *Session, pid *PID) *ProcessGroup {
	pg := &ProcessGroup{pid: pid, session: s}
	pid.pgrp = pg
	s.groups++
	return pg
}

// newSession makes tg the leader of a new session and group. The caller holds tree.
func (tg *ThreadGroup) newSession() *Session {
	s := &Session{pid: tg.pid, leader: tg}
	pg := newGroup(s, tg.pid)
	tg.joinGroup(pg)
	tg.pid.session = s
	return s
}

// SetSID is setsid(2): it returns the new session's ID; EPERM for the leader of a process group.
func (tg *ThreadGroup) SetSID() (int32, error) {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	if tg.pid.pgrp != nil || tg.pid.session != nil {
		return 0, unix.EPERM
	}
	tg.newSession()
	return tg.nsTGID, nil
}

// SetPGID is setpgid(2) called by t for the process pid to the group pgid, in numbers of t's namespace.
func (t *Task) SetPGID(pid, pgid int32) error {
	k, ns := t.k, t.PIDNS()
	if pid == 0 {
		pid = t.group.nsTGID
	}
	if pgid == 0 {
		pgid = pid
	}
	if pgid < 0 {
		return unix.EINVAL
	}
	k.tree.Lock()
	defer k.tree.Unlock()
	p := ns.pids[pid]
	if p == nil || p.task == nil {
		return unix.ESRCH
	}
	tg := p.group
	if tg == nil || tg.zombie && tg != t.group && tg.parent != t.group {
		return unix.EINVAL
	}
	switch {
	case tg == t.group:
	case tg.parent != t.group:
		return unix.ESRCH
	case tg.pgrp.session != t.group.pgrp.session:
		return unix.EPERM
	case tg.execed:
		return unix.EACCES
	}
	if tg.pid.session != nil && tg.pid.session.leader == tg {
		return unix.EPERM
	}
	target := p
	if pgid != pid {
		if target = ns.pids[pgid]; target == nil || target.pgrp == nil || target.pgrp.session != t.group.pgrp.session {
			return unix.EPERM
		}
	}
	pg := target.pgrp
	if pg == tg.pgrp {
		return nil
	}
	if pg == nil {
		pg = newGroup(tg.pgrp.session, target)
	}
	tg.joinGroup(pg)
	return nil
}

// PGIDIn is the ID of the process' group in ns, SIDIn that of its session; 0 when reaped.
func (tg *ThreadGroup) PGIDIn(ns *PIDNamespace) int32 {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	if tg.pgrp == nil {
		return 0
	}
	return tg.pgrp.pid.In(ns)
}

// SIDIn is the session's ID in ns.
func (tg *ThreadGroup) SIDIn(ns *PIDNamespace) int32 {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	if tg.pgrp == nil {
		return 0
	}
	return tg.pgrp.session.pid.In(ns)
}

// ProcessGroup is the process' group; nil when reaped.
func (tg *ThreadGroup) ProcessGroup() *ProcessGroup {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	return tg.pgrp
}

// orphaned tells whether pg has no member whose parent is in another group of the session (but
// without, which is about to leave). The caller holds tree.
func (pg *ProcessGroup) orphaned(without *ThreadGroup) bool {
	for m := pg.first; m != nil; m = m.nextMember {
		if m == without || m.zombie || m.parent == nil || m.parent.isInit && m.parent.pgrp != nil && m.parent.pgrp.session != pg.session {
			continue
		}
		if p := m.parent.pgrp; p != nil && p != pg && p.session == pg.session {
			return false
		}
	}
	return true
}

// hasStopped tells whether a member is stopped. The caller holds tree.
func (pg *ProcessGroup) hasStopped() bool {
	for m := pg.first; m != nil; m = m.nextMember {
		m.mu.Lock()
		stopped := m.stop.state == groupStopped
		m.mu.Unlock()
		if stopped {
			return true
		}
	}
	return false
}

// hangUpIfOrphaned does what POSIX asks for when tg's exit (nil: a reparenting) orphans pg: stopped jobs get SIGHUP and SIGCONT. The caller
// holds tree and knows that pg was not orphaned before.
func (pg *ProcessGroup) hangUpIfOrphaned(tg *ThreadGroup) {
	if pg != nil && pg.orphaned(tg) && pg.hasStopped() {
		pg.signalLocked(linux.Signal(unix.SIGHUP))
		pg.signalLocked(linux.Signal(unix.SIGCONT))
	}
}

// signalLocked sends a signal of the kernel to every member. The caller holds tree.
func (pg *ProcessGroup) signalLocked(sig linux.Signal) {
	for m := pg.first; m != nil; m = m.nextMember {
		m.send(nil, kernelInfo(sig), true)
	}
}

// SendSignal sends a signal of the kernel to every member.
func (pg *ProcessGroup) SendSignal(sig linux.Signal, k *Kernel) {
	k.tree.Lock()
	defer k.tree.Unlock()
	pg.signalLocked(sig)
}

// Members appends the processes of the group.
func (pg *ProcessGroup) Members(k *Kernel, buf []*ThreadGroup) []*ThreadGroup {
	k.tree.Lock()
	defer k.tree.Unlock()
	for m := pg.first; m != nil; m = m.nextMember {
		buf = append(buf, m)
	}
	return buf
}

// TTY is the job control side of a terminal; the terminal driver embeds it.
type TTY struct {
	// Device is the device number (stat field tty_nr); immutable.
	Device uint64
	// Driver is what the terminal driver keeps here to find its object again; immutable.
	Driver any

	mu      sync.Mutex
	session *Session      // protected by mu: whose controlling terminal it is
	fg      *ProcessGroup // protected by mu: foreground group
}

// forget is called when pg becomes empty. The caller holds tree.
func (y *TTY) forget(pg *ProcessGroup) {
	y.mu.Lock()
	if y.fg == pg {
		y.fg = nil
	}
	y.mu.Unlock()
}

func (y *TTY) dropSession(s *Session) {
	y.mu.Lock()
	if y.session == s {
		y.session, y.fg = nil, nil
	}
	y.mu.Unlock()
}

// SetControllingTTY is ioctl(TIOCSCTTY) and open(2) of a terminal by a session leader without one. steal is
// TIOCSCTTY's argument 1. EPERM where tty_ioctl(4) says so.
func (t *Task) SetControllingTTY(y *TTY, steal bool) error {
	k := t.k
	k.tree.Lock()
	defer k.tree.Unlock()
	s := t.group.pgrp.session
	if s.leader != t.group {
		return unix.EPERM
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if s.tty == y && y.session == s {
		return nil
	}
	if s.tty != nil {
		return unix.EPERM
	}
	if old := y.session; old != nil {
		if !steal || !t.HasCap(unix.CAP_SYS_ADMIN) {
			return unix.EPERM
		}
		old.tty = nil
	}
	y.session, y.fg, s.tty = s, t.group.pgrp, y
	return nil
}

// OpenTTY makes y the controlling terminal if t leads a session without one, as open(2) without O_NOCTTY does.
func (t *Task) OpenTTY(y *TTY) {
	k := t.k
	k.tree.Lock()
	defer k.tree.Unlock()
	s := t.group.pgrp.session
	y.mu.Lock()
	defer y.mu.Unlock()
	if s.leader == t.group && s.tty == nil && y.session == nil {
		y.session, y.fg, s.tty = s, t.group.pgrp, y
	}
}

// ControllingTTY is the terminal of t's session; nil if it has none. Any goroutine.
func (t *Task) ControllingTTY() *TTY { return t.group.ControllingTTY() }

// ControllingTTY is the terminal of the process' session; nil if it has none.
func (tg *ThreadGroup) ControllingTTY() *TTY {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	if tg.pgrp == nil {
		return nil
	}
	return tg.pgrp.session.tty
}

// ReleaseControllingTTY is ioctl(TIOCNOTTY): ENOTTY if y is not t's. When the session leader calls it the foreground
// group gets SIGHUP and SIGCONT and the whole session loses the terminal; another process cannot leave alone, as all of
// a session share the link here, so its call succeeds without effect.
func (t *Task) ReleaseControllingTTY(y *TTY) error {
	k := t.k
	k.tree.Lock()
	defer k.tree.Unlock()
	s := t.group.pgrp.session
	if s.tty != y || y == nil {
		return unix.ENOTTY
	}
	if s.leader == t.group {
		k.disassociateTTY(s)
	}
	return nil
}

// disassociateTTY takes the terminal away from s and hangs up its foreground group. The caller holds tree.
func (k *Kernel) disassociateTTY(s *Session) {
	y := s.tty
	if y == nil {
		return
	}
	s.tty = nil
	y.mu.Lock()
	fg := y.fg
	y.session, y.fg = nil, nil
	y.mu.Unlock()
	if fg != nil {
		fg.signalLocked(linux.Signal(unix.SIGHUP))
		fg.signalLocked(linux.Signal(unix.SIGCONT))
	}
}

// HangUp is what a vanished terminal does: SIGHUP and SIGCONT to the session leader and to the foreground group, and the
// session loses the terminal.
func (y *TTY) HangUp(k *Kernel) {
	k.tree.Lock()
	defer k.tree.Unlock()
	y.mu.Lock()
	s, fg := y.session, y.fg
	y.session, y.fg = nil, nil
	y.mu.Unlock()
	if s != nil {
		s.tty = nil
		if s.leader != nil {
			s.leader.send(nil, kernelInfo(linux.Signal(unix.SIGHUP)), true)
			s.leader.send(nil, kernelInfo(linux.Signal(unix.SIGCONT)), true)
		}
	}
	if fg != nil {
		fg.signalLocked(linux.Signal(unix.SIGHUP))
		fg.signalLocked(linux.Signal(unix.SIGCONT))
	}
}

// Foreground is the foreground process group; nil if none.
func (y *TTY) Foreground() *ProcessGroup {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.fg
}

// Session is the session that the terminal controls; nil if none.
func (y *TTY) Session() *Session {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.session
}

// SignalForeground sends a signal (SIGINT, SIGQUIT, SIGTSTP, SIGWINCH) to the foreground group. It must be
// called without locks that a signal's receiver could need.
func (y *TTY) SignalForeground(k *Kernel, sig linux.Signal) {
	k.tree.Lock()
	defer k.tree.Unlock()
	if fg := y.Foreground(); fg != nil {
		fg.signalLocked(sig)
	}
}

// SetForeground is ioctl(TIOCSPGRP) by t with a group number of t's namespace. Background callers get
// SIGTTOU as in CheckChange.
func (t *Task) SetForeground(y *TTY, pgid int32) error {
	if err := t.CheckTTYChange(y); err != nil {
		return err
	}
	k := t.k
	k.tree.Lock()
	defer k.tree.Unlock()
	s := t.group.pgrp.session
	if s.tty != y {
		return unix.ENOTTY
	}
	if pgid < 0 {
		return unix.EINVAL
	}
	p := t.PIDNS().pids[pgid]
	if p == nil || p.pgrp == nil {
		return unix.ESRCH
	}
	if p.pgrp.session != s {
		return unix.EPERM
	}
	y.mu.Lock()
	y.fg = p.pgrp
	y.mu.Unlock()
	return nil
}

// ForegroundID is ioctl(TIOCGPGRP): the foreground group in t's namespace; ENOTTY unless y controls t's session.
func (t *Task) ForegroundID(y *TTY) (int32, error) {
	if t.ControllingTTY() != y {
		return 0, unix.ENOTTY
	}
	if fg := y.Foreground(); fg != nil {
		return fg.pid.In(t.PIDNS()), nil
	}
	return 0, nil
}

// CheckTTYChange is tty_check_change of job control: a process of a background group that changes the terminal gets SIGTTOU
// (EIO where its group is orphaned, nothing if it blocks or ignores the signal). The result is nil or ERESTARTSYS or EIO.
func (t *Task) CheckTTYChange(y *TTY) error {
	return t.checkTTY(y, linux.Signal(unix.SIGTTOU))
}

// CheckTTYRead is the same for reads: SIGTTIN, and EIO if it is blocked or ignored or the group orphaned.
func (t *Task) CheckTTYRead(y *TTY) error {
	return t.checkTTY(y, linux.Signal(unix.SIGTTIN))
}

func (t *Task) checkTTY(y *TTY, sig linux.Signal) error {
	k := t.k
	k.tree.Lock()
	defer k.tree.Unlock()
	pg := t.group.pgrp
	if pg == nil || pg.session.tty != y {
		return nil
	}
	fg := y.Foreground()
	if fg == nil || fg == pg {
		return nil
	}
	if t.ignoresOrBlocks(sig) {
		if sig == linux.Signal(unix.SIGTTIN) {
			return unix.EIO
		}
		return nil
	}
	if pg.orphaned(nil) {
		return unix.EIO
	}
	pg.signalLocked(sig)
	t.setWork(workSignal)
	return linux.ERESTARTSYS
}
