package kernel

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/vfs"
)

// vforkWait is what a vfork parent waits for.
type vforkWait struct {
	parent *Task
	done   atomic.Bool
}

// shareCount counts the tasks that share something without a count of its own.
type shareCount struct{ n atomic.Int32 }

func newShareCount() *shareCount {
	s := &shareCount{}
	s.n.Store(1)
	return s
}

// cloneNSFlags are the flags that make namespaces other than of users.
const cloneNSFlags = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME

// checkCloneFlags is the part of clone(2)'s EINVAL that depends on flags and the caller.
func (t *Task) checkCloneFlags(f uint64) error {
	has := func(m uint64) bool { return f&m != 0 }
	switch {
	case has(unix.CLONE_FS) && has(unix.CLONE_NEWNS|unix.CLONE_NEWUSER),
		has(unix.CLONE_THREAD) && !has(unix.CLONE_SIGHAND),
		has(unix.CLONE_SIGHAND) && !has(unix.CLONE_VM),
		has(unix.CLONE_SIGHAND) && has(unix.CLONE_CLEAR_SIGHAND),
		has(unix.CLONE_PARENT) && t.group.isInit,
		has(unix.CLONE_THREAD) && (has(unix.CLONE_NEWUSER|unix.CLONE_NEWPID) || t.childNS != t.group.pidns),
		has(unix.CLONE_NEWIPC) && has(unix.CLONE_SYSVSEM),
		has(unix.CLONE_PIDFD) && has(unix.CLONE_DETACHED),
		has(unix.CLONE_NEWTIME):
		return unix.EINVAL
	}
	return nil
}

// Clone is clone3(2) with its arguments checked for what does not depend on the caller; setTID are the wanted numbers from the innermost
// PID namespace outwards. It returns the child's TID in the caller's namespace. Own goroutine.
func (t *Task) Clone(a *linux.CloneArgs, setTID []int32) (int32, error) {
	if err := t.checkCloneFlags(a.Flags); err != nil {
		return 0, err
	}
	if t.interrupted() {
		return 0, linux.ERESTARTNOINTR
	}
	if err := t.group.container.charge(); err != nil {
		return 0, err
	}
	c, err := t.newChild(a)
	if err != nil {
		t.group.container.uncharge()
		return 0, err
	}
	var pidfd int32 = -1
	if a.Flags&unix.CLONE_PIDFD != 0 {
		if pidfd, err = t.FDTable().Reserve(t, true); err != nil {
			c.discard()
			return 0, err
		}
		if err = t.MM().WriteUint32(a.Pidfd, uint32(pidfd)); err != nil {
			t.FDTable().Unreserve(pidfd)
			c.discard()
			return 0, err
		}
	}
	if err = t.linkChild(c, a, setTID); err != nil {
		if pidfd >= 0 {
			t.FDTable().Unreserve(pidfd)
		}
		c.discard()
		return 0, err
	}
	if pidfd >= 0 {
		t.FDTable().Fill(pidfd, t.k.NewPIDFD(c.pid, a.Flags&unix.CLONE_THREAD != 0, 0))
	}
	tid := c.pid.In(t.PIDNS())
	if a.Flags&unix.CLONE_PARENT_SETTID != 0 {
		t.MM().WriteUint32(a.ParentTID, uint32(tid))
	}
	if a.Flags&unix.CLONE_CHILD_SETTID != 0 {
		c.MM().WriteUint32(a.ChildTID, uint32(c.TID()))
	}
	var vf *vforkWait
	if a.Flags&unix.CLONE_VFORK != 0 {
		vf = &vforkWait{parent: t}
		c.vfork = vf
	}
	t.attachChild(c, a.Flags, a.ExitSignal)
	t.k.start(c)
	t.traceClone(c, a.Flags, a.ExitSignal)
	if vf != nil {
		t.waitVfork(vf)
		t.traceEvent(unix.PTRACE_EVENT_VFORK_DONE, uint64(tid))
	}
	return tid, nil
}

// waitVfork blocks until the child has released the address space; only death ends it early.
func (t *Task) waitVfork(vf *vforkWait) {
	for !vf.done.Load() {
		if t.BlockKillable(t.wake.C, vfs.NoDeadline) != nil {
			return
		}
	}
}

// releaseVfork lets a vfork parent go on.
func (t *Task) releaseVfork() {
	if vf := t.vfork; vf != nil {
		t.vfork = nil
		vf.done.Store(true)
		vf.parent.wake.NotifyEvent(0)
	}
}

// start runs a task whose links are made.
func (k *Kernel) start(t *Task) {
	k.running.Add(1)
	if t.ct.Frozen() {
		t.work.Or(workFreeze)
	}
	go t.run()
}

// newTask makes the parts that every task has.
func (k *Kernel) newTask() *Task {
	t := &Task{k: k, ctx: k.platform.NewContext(), startTime: clock.Now(clockBoottime), timerSlack: defaultTimerSlack}
	t.wake.Init()
	t.timer.F = func() { t.wake.NotifyEvent(0) }
	t.waitEntry.Init(&t.wake, ^waiterNone)
	t.futex.init(t)
	return t
}

// newChild copies or shares everything that has no place in the process tree. The caller has charged the container.
func (t *Task) newChild(a *linux.CloneArgs) (c *Task, err error) {
	f := a.Flags
	creds := t.Credentials()
	if f&unix.CLONE_NEWUSER != 0 {
		if creds, err = t.newUserNS(); err != nil {
			return nil, err
		}
	}
	if f&cloneNSFlags != 0 && !creds.HasCap(unix.CAP_SYS_ADMIN) {
		return nil, unix.EPERM
	}
	c = t.k.newTask()
	c.creds.Store(creds)
	c.name.Store(t.name.Load())
	c.inherit(t, f)
	c.regs = t.regs
	c.regs.Rax = 0
	c.regs.OrigRax = ^uint64(0)
	if a.Stack != 0 {
		c.regs.Rsp = a.Stack + a.StackSize
	}
	if f&unix.CLONE_SETTLS != 0 {
		c.regs.FsBase = a.TLS
	}
	if f&unix.CLONE_CHILD_CLEARTID != 0 {
		c.clearTID = a.ChildTID
	}
	defer func() {
		if err != nil {
			c.discardResources()
			c = nil
		}
	}()
	if err = c.inheritNamespaces(t, f); err != nil {
		return
	}
	if f&unix.CLONE_FILES != 0 {
		t.FDTable().IncRef()
		c.files.Store(t.FDTable())
	} else {
		c.files.Store(t.FDTable().Fork(^uint32(0)))
	}
	if err = t.copyFP(c); err != nil {
		return
	}
	if f&unix.CLONE_THREAD == 0 {
		c.newLimits = t.Limits().Clone()
	}
	m := t.MM()
	if f&unix.CLONE_VM != 0 {
		m.IncUsers()
	} else if m, err = m.Fork(c.newLimits); err != nil {
		return
	}
	c.mm.Store(m)
	c.as, err = m.AddressSpace()
	return
}

// copyFP gives c the extended state of t.
func (t *Task) copyFP(c *Task) error {
	size := t.k.fpSize
	if t.fp == nil {
		t.fp = make([]byte, arch.FrameFPSize(size))
	}
	if err := t.ctx.ReadFP(t.fp[:size]); err != nil {
		return unix.ENOMEM
	}
	if err := c.ctx.WriteFP(t.fp[:size]); err != nil {
		return unix.ENOMEM
	}
	return nil
}

// inherit copies plain per-thread state.
func (c *Task) inherit(t *Task, f uint64) {
	c.ct = t.ct
	c.sig.mask.Store(t.sig.mask.Load())
	if f&unix.CLONE_VM == 0 || f&unix.CLONE_VFORK != 0 {
		c.sig.alt = t.sig.alt
	}
	c.noNewPrivs.Store(t.noNewPrivs.Load())
	c.personality.Store(t.personality.Load())
	c.secc = t.secc
	c.sched.inherit(&t.sched)
	c.ioprio.Store(t.ioprio.Load())
	c.timerSlack, c.tsc, c.memPolicy = t.timerSlack, t.tsc, t.memPolicy
}

// inheritNamespaces sets namespaces and fs, new ones where the flags say so.
func (c *Task) inheritNamespaces(t *Task, f uint64) error {
	if f&unix.CLONE_FS != 0 {
		t.fsShare.n.Add(1)
		c.fs.Store(t.FS())
		c.fsShare = t.fsShare
	} else {
		c.fs.Store(t.FS().Clone())
		c.fsShare = newShareCount()
	}
	user := c.UserNS()
	if f&unix.CLONE_NEWNS != 0 {
		ns, err := t.MountNS().Clone(c, user, c.FS())
		if err != nil {
			return err
		}
		c.mntNS.Store(ns)
	} else if ns := t.MountNS(); ns != nil {
		ns.IncRef()
		c.mntNS.Store(ns)
	}
	uts := t.UTSNamespace()
	if f&unix.CLONE_NEWUTS != 0 {
		uts = newUTSNamespace(t.k, user, uts.HostName(), uts.DomainName())
	}
	c.utsNS.Store(uts)
	ipc := t.IPCNamespace()
	if f&unix.CLONE_NEWIPC != 0 {
		ipc = newIPCNamespace(t.k, user)
	}
	c.ipcNS.Store(ipc)
	net := t.NetNS()
	if f&unix.CLONE_NEWNET != 0 {
		if t.k.cfg.NewNetNS == nil {
			return unix.EPERM
		}
		net = t.k.cfg.NewNetNS(user)
	} else if net != nil {
		net.IncRef()
	}
	c.netNS.Store(&net)
	c.childNS = t.childNS
	if f&unix.CLONE_NEWPID != 0 {
		ns, err := t.k.NewPIDNamespace(t.childNS, user)
		if err != nil {
			return err
		}
		c.childNS = ns
	}
	return nil
}

// newUserNS makes credentials in a new user namespace owned by the caller (CLONE_NEWUSER).
func (t *Task) newUserNS() (*auth.Credentials, error) {
	return t.Credentials().NewUserNamespace()
}

// discard undoes newChild and the charge of the container.
func (c *Task) discard() {
	c.discardResources()
	c.ct.uncharge()
}

// discardResources frees what a task that never ran holds.
func (c *Task) discardResources() {
	if m := c.mm.Swap(nil); m != nil {
		m.DecUsers()
	}
	c.releaseFiles()
	c.ctx.Release()
}

// linkChild gives c its numbers and its place in the process tree.
func (t *Task) linkChild(c *Task, a *linux.CloneArgs, setTID []int32) error {
	k, tg := t.k, t.group
	f := a.Flags
	k.tree.Lock()
	defer k.tree.Unlock()
	if tg.exiting.Load() || tg.execer != nil && f&unix.CLONE_THREAD != 0 {
		return linux.ERESTARTNOINTR
	}
	if !t.mayHaveProcess() {
		return unix.EAGAIN
	}
	pid, err := k.allocPID(c.childNS, setTID)
	if err != nil {
		return err
	}
	c.pid = pid
	pid.task = c
	if f&unix.CLONE_THREAD != 0 {
		c.group = tg
		tg.mu.Lock()
		tg.addTask(c)
		tg.mu.Unlock()
	} else {
		g := k.newGroup(c, tg.container, c.newLimits)
		c.newLimits = nil
		t.initGroup(g, a)
	}
	c.publishIDs()
	c.counted(1)
	return nil
}

// publishIDs stores the numbers that are read without locks. The caller holds tree.
func (t *Task) publishIDs() {
	t.tid.Store(t.pid.nums[0])
	t.nsTID.Store(t.pid.nums[len(t.pid.nums)-1])
}

// newGroup makes the process of leader t, whose PID is set. The caller holds tree.
func (k *Kernel) newGroup(t *Task, ct *Container, lim *limits.Set) *ThreadGroup {
	g := &ThreadGroup{k: k, container: ct, pid: t.pid, pidns: t.pid.ns, leader: t, limits: lim, exited: make(chan struct{})}
	g.timers.realTimer.F, g.timers.cpuTimer.F = func() { g.whenFree(g.realFired) }, func() { go g.cpuFired() }
	g.tgid.Store(t.pid.nums[0])
	g.nsTGID = t.pid.nums[len(t.pid.nums)-1]
	t.pid.group = g
	t.group = g
	g.dumpable.Store(1)
	g.dumpNS.Store(t.UserNS())
	g.loginUID.Store(^uint32(0))
	g.exitSignal = sigCHLD
	if g.pidns.init == nil && g.nsTGID == 1 {
		g.pidns.init, g.isInit, g.unkillable = g, true, true
	}
	g.tasks = append(g.tasks, t)
	g.live = 1
	return g
}

// initGroup fills a forked process. The caller holds tree.
func (t *Task) initGroup(g *ThreadGroup, a *linux.CloneArgs) {
	tg := t.group
	tg.mu.Lock()
	switch {
	case a.Flags&unix.CLONE_SIGHAND != 0:
		g.hand = tg.hand.share()
	case a.Flags&unix.CLONE_CLEAR_SIGHAND != 0:
		g.hand = newSignalHandlers()
	default:
		g.hand = tg.hand.fork()
	}
	if g.exe = tg.exe; g.exe != nil {
		g.exe.IncRef()
	}
	tg.mu.Unlock()
	g.dumpable.Store(tg.dumpable.Load())
	g.dumpNS.Store(tg.dumpNS.Load())
	g.loginUID.Store(tg.loginUID.Load())
	g.oomAdj.Store(tg.oomAdj.Load())
	g.coredumpFilter.Store(tg.coredumpFilter.Load())
	g.mu.Lock()
	g.armCPU() // timers do not pass on, RLIMIT_CPU does
	g.mu.Unlock()
	parent, by := tg, t
	g.exitSignal = linux.Signal(a.ExitSignal)
	if a.Flags&unix.CLONE_PARENT != 0 {
		parent, by, g.exitSignal = tg.parent, tg.parentTask, tg.exitSignal
	}
	if parent != nil {
		parent.addChild(g, by)
		g.hasSubreaper = parent.subreaper || parent.hasSubreaper
	}
	g.joinGroup(tg.pgrp)
}

// mayHaveProcess checks RLIMIT_NPROC. The caller holds tree.
func (t *Task) mayHaveProcess() bool {
	c := t.Credentials()
	lim := t.Limits().Get(unix.RLIMIT_NPROC).Cur
	return uint64(t.k.uidTasks[c.RUID]) < lim || c.RUID == 0 || c.HasCapIn(unix.CAP_SYS_RESOURCE, t.k.rootUserNS) || c.HasCapIn(unix.CAP_SYS_ADMIN, t.k.rootUserNS)
}

// counted adds n to the tasks of t's user and of the kernel. The caller holds tree.
func (t *Task) counted(n int) {
	k := t.k
	t.countUser(t.Credentials().RUID, n)
	k.tasks.Add(int32(n))
	if n > 0 {
		k.forks.Add(1)
	}
}
