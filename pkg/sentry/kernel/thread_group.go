package kernel

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// ThreadGroup is a process: tasks that share signal handling and one TGID.
type ThreadGroup struct {
	k         *Kernel
	container *Container    // immutable
	pid       *PID          // immutable: numbers the process (that of its leader)
	pidns     *PIDNamespace // immutable
	tgid      atomic.Int32  // immutable after creation: number in the root namespace
	nsTGID    int32         // immutable: number in pidns
	limits    *limits.Set   // immutable pointer
	isInit    bool          // immutable: PID 1 of pidns

	// Links of the process tree, protected by Kernel.tree.
	leader       *Task
	parent       *ThreadGroup
	parentTask   *Task // the thread of parent that counts for __WNOTHREAD and PR_SET_PDEATHSIG
	firstChild   *ThreadGroup
	lastChild    *ThreadGroup
	prevSib      *ThreadGroup
	nextSib      *ThreadGroup
	pgrp         *ProcessGroup
	prevMember   *ThreadGroup // in pgrp
	nextMember   *ThreadGroup
	live         int          // tasks that have not exited
	execer       *Task        // the thread that waits in exec for the others to be gone
	exitSignal   linux.Signal // to parent at the end; 0 for none
	zombie       bool         // every thread has exited and the leader waits to be reaped
	reaped       bool
	subreaper    bool // PR_SET_CHILD_SUBREAPER
	hasSubreaper bool // some ancestor is or was one
	execed       bool // has done execve(2) (setpgid(2))
	exitStatus   int32
	tracees      []*Task // threads that threads of this process trace
	childAcct    rusage  // of waited-for children

	// tasks lists the threads that have not been released. Changed with both tree and mu held; read with either.
	tasks []*Task

	mu sync.Mutex
	// The rest is protected by mu.
	hand       *SignalHandlers
	pending    pendingSignals // signals for the process
	nextThread int            // where the search for a thread to take a signal goes on
	freeNodes  *sigNode
	numQueued  int
	exitCode   int32 // wait status of the group exit
	exiting    atomic.Bool
	killed     atomic.Bool // by SIGKILL
	groupExec  bool        // exec kills the other threads
	unstarted  bool        // made by CreateProcess, and waiting for StartProcess
	unkillable bool        // PID 1: no default actions from inside
	stop       groupStop
	deadAcct   rusage               // of released threads
	exe        *vfs.FileDescription // the program, with a reference
	timers     groupTimers
	atExit     []exitAction

	exited     chan struct{} // closed when the process is gone; host resource
	childQueue waiter.Queue  // waiters for state changes of children
	sigQueue   waiter.Queue  // signalfd
	dumpable   atomic.Int32
	dumpNS     atomic.Pointer[auth.UserNamespace] // see DumpUserNS
	oomAdj     atomic.Int32                       // oom_score_adj
	loginUID   atomic.Uint32
	// coredumpFilter differs from its default in these bits.
	coredumpFilter atomic.Uint32
	membarriers    atomic.Uint32
	noTHP          atomic.Bool
}

// Kernel is the group's kernel.
func (tg *ThreadGroup) Kernel() *Kernel { return tg.k }

// Container is what the process belongs to.
func (tg *ThreadGroup) Container() *Container { return tg.container }

// PIDNS is the namespace that the process is in.
func (tg *ThreadGroup) PIDNS() *PIDNamespace { return tg.pidns }

// ID is the TGID in the process' own namespace (getpid(2)).
func (tg *ThreadGroup) ID() int32 { return tg.nsTGID }

// IDIn is the TGID in ns; 0 where it is not visible.
func (tg *ThreadGroup) IDIn(ns *PIDNamespace) int32 { return tg.pid.In(ns) }

// PID is the identity of the process (pidfds refer to it).
func (tg *ThreadGroup) PID() *PID { return tg.pid }

// Limits are the resource limits.
func (tg *ThreadGroup) Limits() *limits.Set { return tg.limits }

// Leader is the main thread, which may be a zombie while others live.
func (tg *ThreadGroup) Leader() *Task {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	return tg.leader
}

// Parent is the process' parent; nil for a container's first process and for injected ones.
func (tg *ThreadGroup) Parent() *ThreadGroup {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	return tg.parent
}

// ParentIDIn is the parent's TGID in ns; 0 if there is none or it is not visible (getppid(2)).
func (tg *ThreadGroup) ParentIDIn(ns *PIDNamespace) int32 {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	if tg.parent == nil {
		return 0
	}
	return tg.parent.pid.In(ns)
}

// Tasks appends the threads that have not been released.
func (tg *ThreadGroup) Tasks(buf []*Task) []*Task {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return append(buf, tg.tasks...)
}

// NumThreads is the number of unreleased threads.
func (tg *ThreadGroup) NumThreads() int {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return len(tg.tasks)
}

// AnyTask is some thread that has not exited, to look at what the process shares; nil when there is none.
func (tg *ThreadGroup) AnyTask() *Task {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	for _, t := range tg.tasks {
		if !t.exit.done.Load() {
			return t
		}
	}
	return nil
}

// Children appends the children (zombies included) in the order of their birth.
func (tg *ThreadGroup) Children(buf []*ThreadGroup) []*ThreadGroup {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	for c := tg.firstChild; c != nil; c = c.nextSib {
		buf = append(buf, c)
	}
	return buf
}

// Done is closed when the last thread has exited.
func (tg *ThreadGroup) Done() <-chan struct{} { return tg.exited }

// WaitExited waits for the end of the process and returns its wait(2) status.
func (tg *ThreadGroup) WaitExited() int32 {
	<-tg.exited
	return tg.ExitStatus()
}

// ExitStatus is the wait(2) status; meaningful once Done is closed.
func (tg *ThreadGroup) ExitStatus() int32 {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	return tg.exitStatus
}

// Exited tells whether every thread has exited.
func (tg *ThreadGroup) Exited() bool {
	select {
	case <-tg.exited:
		return true
	default:
		return false
	}
}

// Dumpable is prctl(PR_GET_DUMPABLE): 0, 1 or 2. (Linux keeps it with the address space.)
func (tg *ThreadGroup) Dumpable() int32 { return tg.dumpable.Load() }

// SetDumpable changes it.
func (tg *ThreadGroup) SetDumpable(v int32) { tg.dumpable.Store(v) }

// OOMScoreAdj is /proc/PID/oom_score_adj.
func (tg *ThreadGroup) OOMScoreAdj() int32 { return tg.oomAdj.Load() }

// SetOOMScoreAdj changes it; the caller checks range and permission.
func (tg *ThreadGroup) SetOOMScoreAdj(v int32) { tg.oomAdj.Store(v) }

// LoginUID is /proc/PID/loginuid; ^0 when unset.
func (tg *ThreadGroup) LoginUID() uint32 { return tg.loginUID.Load() }

// SetLoginUID changes it.
func (tg *ThreadGroup) SetLoginUID(v uint32) { tg.loginUID.Store(v) }

// SetSubreaper is prctl(PR_SET_CHILD_SUBREAPER).
func (tg *ThreadGroup) SetSubreaper(on bool) {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	tg.subreaper = on
	if on {
		tg.markSubreaper()
	}
}

// markSubreaper tells descendants that a subreaper exists above them, as Linux does, so that most exits need no search.
func (tg *ThreadGroup) markSubreaper() {
	for c := tg.firstChild; c != nil; c = c.nextSib {
		if !c.hasSubreaper {
			c.hasSubreaper = true
			c.markSubreaper()
		}
	}
}

// Subreaper is prctl(PR_GET_CHILD_SUBREAPER).
func (tg *ThreadGroup) Subreaper() bool {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	return tg.subreaper
}

// addChild makes c the youngest child of tg. The caller holds tree.
func (tg *ThreadGroup) addChild(c *ThreadGroup, by *Task) {
	c.parent, c.parentTask = tg, by
	c.prevSib, c.nextSib = tg.lastChild, nil
	if tg.lastChild != nil {
		tg.lastChild.nextSib = c
	} else {
		tg.firstChild = c
	}
	tg.lastChild = c
}

// unlinkChild takes tg away from its parent. The caller holds tree.
func (tg *ThreadGroup) unlinkChild() {
	p := tg.parent
	if p == nil {
		return
	}
	if tg.prevSib != nil {
		tg.prevSib.nextSib = tg.nextSib
	} else {
		p.firstChild = tg.nextSib
	}
	if tg.nextSib != nil {
		tg.nextSib.prevSib = tg.prevSib
	} else {
		p.lastChild = tg.prevSib
	}
	tg.parent, tg.parentTask, tg.prevSib, tg.nextSib = nil, nil, nil, nil
}

// addTask links a new thread. The caller holds tree and tg.mu.
func (tg *ThreadGroup) addTask(t *Task) {
	tg.tasks = append(tg.tasks, t)
	tg.live++
}

// removeTask unlinks a released thread. The caller holds tree and tg.mu.
func (tg *ThreadGroup) removeTask(t *Task) {
	for i, x := range tg.tasks {
		if x == t {
			copy(tg.tasks[i:], tg.tasks[i+1:])
			tg.tasks[len(tg.tasks)-1] = nil
			tg.tasks = tg.tasks[:len(tg.tasks)-1]
			return
		}
	}
}

// ESRCHIfExited is the errno of operations on a process that is gone.
func (tg *ThreadGroup) ESRCHIfExited() error {
	if tg.Exited() {
		return unix.ESRCH
	}
	return nil
}
