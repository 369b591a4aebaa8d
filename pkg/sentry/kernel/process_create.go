package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/vfs"
)

// CreateProcess makes a process from a program file, as the container's first one or (like docker exec) beside it: a new
// session and group without a parent. It does not run before StartProcess. Errors are those of execve(2).
func (k *Kernel) CreateProcess(a *CreateProcessArgs) (*ThreadGroup, error) {
	ct := a.Container
	if err := ct.charge(); err != nil {
		return nil, err
	}
	t, err := k.firstTask(a)
	if err != nil {
		ct.uncharge()
		return nil, err
	}
	img, err := t.loadImage(&ExecArgs{Path: a.Filename, Name: a.Filename, Argv: a.Argv, Envv: a.Envv, Create: true})
	if err != nil {
		t.discard()
		return nil, err
	}
	t.mm.Store(img.mm)
	if t.as, err = img.mm.AddressSpace(); err != nil {
		img.exe.DecRef()
		t.discard()
		return nil, err
	}
	t.SetName(img.name)
	t.creds.Store(img.creds)
	t.regs.StartProgram(img.entry, img.sp)
	g, err := k.linkFirst(t, a)
	if err != nil {
		img.exe.DecRef()
		return nil, err
	}
	g.resetDumpable(img)
	g.setExe(img.exe)
	return g, nil
}

// firstTask makes a task that no other has cloned.
func (k *Kernel) firstTask(a *CreateProcessArgs) (*Task, error) {
	ct := a.Container
	t := k.newTask()
	t.ct = ct
	creds := a.Credentials
	if creds == nil {
		creds = auth.NewRootCredentials(k.rootUserNS)
	}
	t.creds.Store(creds)
	name := ""
	t.name.Store(&name)
	t.noNewPrivs.Store(a.NoNewPrivs)
	t.personality.Store(a.Personality)
	t.childNS = ct.pidns
	if a.CPUs != 0 {
		t.SetAffinity(CPUSet{a.CPUs})
	}
	lim := a.Limits
	if lim == nil {
		lim = k.cfg.Limits.Clone()
	}
	t.newLimits = lim
	ns := a.MountNS
	if ns == nil {
		ns = ct.mntNS
	}
	if ns == nil {
		t.ctx.Release()
		return nil, unix.EINVAL
	}
	ns.IncRef()
	t.mntNS.Store(ns)
	root := a.Root
	if root.IsZero() {
		root = ns.Root()
	} else {
		root.IncRef()
	}
	t.fs.Store(vfs.NewFSContext(root, root, a.Umask))
	t.fsShare = newShareCount()
	root.DecRef()
	files := a.FDs
	if files == nil {
		files = k.vfs.NewFDTable()
	}
	t.files.Store(files)
	t.utsNS.Store(ct.uts)
	t.ipcNS.Store(ct.ipc)
	t.SetNetNS(ct.net)
	for _, prog := range a.Seccomp {
		f, err := newFilter(prog, t.secc.filters, false)
		if err != nil {
			t.discardResources()
			return nil, err
		}
		t.secc = seccompState{unix.SECCOMP_MODE_FILTER, f}
	}
	if a.WorkingDir != "" && a.WorkingDir != "/" {
		p, err := k.vfs.Walk(t, vfs.Path{}, a.WorkingDir, vfs.FollowLast|vfs.MustBeDir)
		if err != nil {
			t.discardResources()
			return nil, err
		}
		t.FS().SetCWD(p)
		p.DecRef()
	}
	return t, nil
}

// linkFirst gives the task its place in the tree.
func (k *Kernel) linkFirst(t *Task, a *CreateProcessArgs) (*ThreadGroup, error) {
	ct := a.Container
	k.tree.Lock()
	pid, err := k.allocPID(ct.pidns, nil)
	if err != nil {
		k.tree.Unlock()
		t.discard()
		return nil, err
	}
	t.pid = pid
	pid.task = t
	g := k.newGroup(t, ct, t.newLimits)
	t.newLimits = nil
	g.hand = newSignalHandlers()
	g.oomAdj.Store(a.OOMScoreAdj)
	g.execed, g.unstarted = true, true
	g.newSession()
	t.publishIDs()
	t.counted(1)
	if ct.init == nil {
		ct.init = g
	}
	if y := a.TTY; y != nil {
		s := g.pgrp.session
		y.mu.Lock()
		if y.session == nil {
			y.session, y.fg, s.tty = s, g.pgrp, y
		}
		y.mu.Unlock()
	}
	k.tree.Unlock()
	g.LimitChanged()
	return g, nil
}

// StartProcess lets a process made by CreateProcess run.
func (k *Kernel) StartProcess(tg *ThreadGroup) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	tg.wakeUp()
}

// wakeUp starts a process that has not been started; one that is killed before starts only to end. The caller holds tg.mu.
func (tg *ThreadGroup) wakeUp() {
	if tg.unstarted {
		tg.unstarted = false
		tg.k.start(tg.tasks[0])
	}
}
