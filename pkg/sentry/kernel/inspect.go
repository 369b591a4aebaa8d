package kernel

import "sort"

// Placement is where a process stands in the tree, in the numbers of one PID namespace (0: not visible).
type Placement struct {
	PPID, PGID, SID int32
	TTY             uint64 // device of the controlling terminal; 0 for none
	TPGID           int32  // foreground group of that terminal; -1 for none
	ExitSignal      int32
}

// PlacementIn tells where the process stands, in numbers of ns (proc_pid_stat(5)). Any goroutine.
func (tg *ThreadGroup) PlacementIn(ns *PIDNamespace) (p Placement) {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	p.TPGID, p.ExitSignal = -1, int32(tg.exitSignal)
	if tg.parent != nil {
		p.PPID = tg.parent.pid.In(ns)
	}
	pg := tg.pgrp
	if pg == nil {
		return p
	}
	p.PGID, p.SID = pg.pid.In(ns), pg.session.pid.In(ns)
	if y := pg.session.tty; y != nil {
		p.TTY = y.Device
		if fg := y.Foreground(); fg != nil {
			p.TPGID = fg.pid.In(ns)
		}
	}
	return p
}

// State is the letter of proc_pid_stat(5): R, S, T, t, Z or X. Any goroutine.
func (t *Task) State() byte {
	if t.exit.done.Load() {
		if t.group.leaderIs(t) {
			return 'Z'
		}
		return 'X'
	}
	t.group.mu.Lock()
	stopped := t.sig.stopped
	t.group.mu.Unlock()
	switch {
	case stopped:
		return 'T'
	case t.where.Load() == inBlock:
		return 'S'
	}
	return 'R'
}

func (tg *ThreadGroup) leaderIs(t *Task) bool {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	return tg.leader == t
}

// Exited tells whether the thread has given up its resources. Any goroutine.
func (t *Task) Exited() bool { return t.exit.done.Load() }

// Container is what the task belongs to. Any goroutine.
func (t *Task) Container() *Container { return t.ct }

// Tracer is the thread that traces t; nil if none. Any goroutine.
func (t *Task) Tracer() *Task { return t.ptr.tracer.Load() }

// BlockedSyscall gives number, arguments, stack pointer and program counter of the system call that the thread waits in; false if it
// runs (proc_pid_syscall(5)). Any goroutine: what is read belongs together unless the thread ran meanwhile.
func (t *Task) BlockedSyscall() (nr uint64, args [6]uint64, sp, pc uint64, ok bool) {
	if t.where.Load() != inBlock {
		return
	}
	r := t.regs
	a := r.SyscallArgs()
	for i := range args {
		args[i] = a[i].Uint64()
	}
	return r.OrigRax, args, r.Rsp, r.Rip, t.where.Load() == inBlock
}

// TimerInfo describes a timer of timer_create(2) for proc_pid_timers(5).
type TimerInfo struct {
	ID, Signal, Notify, Clock int32
	Value                     uint64
	Target                    *Task // thread that is notified; nil: the process
}

// Timers appends the timers of the process. Any goroutine.
func (tg *ThreadGroup) Timers(buf []TimerInfo) []TimerInfo {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	for _, p := range tg.timers.posix {
		buf = append(buf, TimerInfo{p.id, int32(p.sig), p.notify, p.clock, p.value, p.target})
	}
	sort.Slice(buf, func(i, j int) bool { return buf[i].ID < buf[j].ID })
	return buf
}

// Thread is the thread with this number; nil after its release. Any goroutine.
func (p *PID) Thread() *Task {
	p.ns.k.tree.Lock()
	defer p.ns.k.tree.Unlock()
	return p.task
}

// Process is the process with this number, which may be a zombie, and its main thread; nil after its release. Any goroutine.
func (p *PID) Process() (*ThreadGroup, *Task) {
	p.ns.k.tree.Lock()
	defer p.ns.k.tree.Unlock()
	if p.group == nil {
		return nil, nil
	}
	return p.group, p.group.leader
}

// PID is the thread's identity; nil after its release. Any goroutine.
func (t *Task) PID() *PID {
	t.k.tree.Lock()
	defer t.k.tree.Unlock()
	return t.pid
}

// Level is the depth of the namespace: 0 at the root.
func (ns *PIDNamespace) Level() int { return ns.level }

// Numbers are the numbers of p in ns and in the namespaces below it that p is in (NSpid of /proc/PID/status); empty where p is not visible in ns.
func (p *PID) Numbers(ns *PIDNamespace) []int32 {
	if p.In(ns) == 0 {
		return nil
	}
	return p.nums[ns.level:]
}

// Resources are the limits of a container that its cgroup files show; 0 and "" mean no limit.
type Resources struct {
	Memory    int64  // bytes
	CPUQuota  int64  // microseconds per CPUPeriod
	CPUPeriod uint64 // microseconds; 0 is 100000
	CPUShares uint64 // of cgroup v1
	CPUs      string // list of processors
	Mems      string // list of memory nodes
}

// Resources are the limits that cgroup files show. Any goroutine.
func (c *Container) Resources() Resources {
	if r := c.resources.Load(); r != nil {
		return *r
	}
	return Resources{}
}

// SetResources replaces the limits (runsc update).
func (c *Container) SetResources(r Resources) { c.resources.Store(&r) }

// CPUTime is what the container's living processes and the children they have waited for used, in nanoseconds.
func (c *Container) CPUTime() (user, system int64) {
	for _, tg := range c.Groups(nil) {
		u, ch := tg.usage(), tg.ChildrenUsage()
		user += u.utime + ch.UTime
		system += u.stime + ch.STime
	}
	return user, system
}

// CoredumpFilter and SetCoredumpFilter are /proc/PID/coredump_filter (core(5)); there are no core dumps to filter.
func (tg *ThreadGroup) CoredumpFilter() uint32 {
	return tg.coredumpFilter.Load() ^ defaultCoredumpFilter
}

// SetCoredumpFilter changes it.
func (tg *ThreadGroup) SetCoredumpFilter(v uint32) {
	tg.coredumpFilter.Store(v ^ defaultCoredumpFilter)
}

const defaultCoredumpFilter = 0x33

// Children appends the processes that the thread is the parent of. Any goroutine.
func (t *Task) Children(buf []*ThreadGroup) []*ThreadGroup {
	t.k.tree.Lock()
	defer t.k.tree.Unlock()
	for c := t.group.firstChild; c != nil; c = c.nextSib {
		if c.parentTask == t {
			buf = append(buf, c)
		}
	}
	return buf
}

// Contains tells whether ns is other or an ancestor of it.
func (ns *PIDNamespace) Contains(other *PIDNamespace) bool { return ns.contains(other) }

// What uname(2) and /proc/version show: a release that current C libraries accept.
const (
	Release = "6.12.0"
	Version = "#1 SMP PREEMPT_DYNAMIC husk"
)
