package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// image is a program that has been loaded into a new address space and waits to replace the task's.
type image struct {
	mm        *mm.MemoryManager
	entry, sp uint64
	name      string // comm
	creds     *auth.Credentials
	secure    bool
	exe       *vfs.FileDescription // with a reference
	// unreadable: the caller may not read the file, so that the process is not dumpable.
	unreadable bool
}

// Exec is execve(2) and execveat(2). Errors leave the process as it was. Own goroutine; the result is the new rax.
func (t *Task) Exec(a *ExecArgs) (uintptr, error) {
	img, err := t.loadImage(a)
	if err != nil {
		return 0, err
	}
	if err := t.killOtherThreads(); err != nil {
		img.discard()
		return 0, err
	}
	as, err := img.mm.AddressSpace()
	if err != nil {
		img.discard()
		t.group.Kill()
		return 0, unix.ENOMEM
	}
	t.leaveMM()
	old := t.mm.Swap(img.mm)
	t.as = as
	t.releaseVfork()
	old.DecUsers()
	t.resetForExec(img)
	t.regs.StartProgram(img.entry, img.sp)
	arch.InitFP(t.fpBuffer()[:t.k.fpSize])
	if t.ctx.WriteFP(t.fp[:t.k.fpSize]) != nil {
		t.group.Kill()
	}
	t.traceExec()
	return 0, nil
}

func (img *image) discard() {
	img.mm.DecUsers()
	img.exe.DecRef()
}

func (t *Task) fpBuffer() []byte {
	if t.fp == nil {
		t.fp = make([]byte, arch.FrameFPSize(t.k.fpSize))
	}
	return t.fp
}

// resetForExec sets everything else to what a new program finds.
func (t *Task) resetForExec(img *image) {
	tg := t.group
	tg.mu.Lock()
	tg.hand = tg.hand.forExec()
	tg.stopTimers(false)
	tg.mu.Unlock()
	t.sig.alt = linux.SignalStack{}
	t.restart = restartState{}
	t.lastFault = arch.Fault{}
	t.robust, t.clearTID = 0, 0
	t.SetName(img.name)
	tg.setExe(img.exe)
	tg.membarriers.Store(0)
	if f := t.FDTable(); f.Shared() {
		n := f.Fork(^uint32(0))
		t.files.Store(n)
		f.DecRef(t)
	}
	t.FDTable().CloseOnExec(t)
	old := t.Credentials()
	t.SetCredentials(img.creds)
	tg.resetDumpable(img)
	if img.secure || old.EUID != img.creds.EUID || old.EGID != img.creds.EGID {
		t.SetPDeathSignal(0)
		t.personality.Store(t.personality.Load() &^ linux.PER_CLEAR_ON_SETID)
	}
	t.k.tree.Lock()
	tg.execed = true
	tg.exitSignal = sigCHLD
	t.k.tree.Unlock()
}

// killOtherThreads makes the calling thread the only one and the leader of its process. EAGAIN when another thread got there first.
func (t *Task) killOtherThreads() error {
	k, tg := t.k, t.group
	k.tree.Lock()
	tg.mu.Lock()
	if tg.exiting.Load() || tg.execer != nil {
		tg.mu.Unlock()
		k.tree.Unlock()
		return unix.EAGAIN
	}
	if len(tg.tasks) == 1 {
		if tg.hand.refsShared() {
			tg.hand = tg.hand.unshare()
		}
		tg.mu.Unlock()
		k.tree.Unlock()
		return nil
	}
	tg.execer = t
	for _, o := range tg.tasks {
		if o != t {
			o.exit.code = int32(sigKILL)
			o.setWork(workExit)
		}
	}
	tg.mu.Unlock()
	for tg.live > 1 {
		k.tree.Unlock()
		err := t.BlockKillable(t.wake.C, vfs.NoDeadline)
		k.tree.Lock()
		if err != nil {
			tg.execer = nil
			k.tree.Unlock()
			return unix.EAGAIN
		}
	}
	if tg.leader != t {
		t.takeLeadership()
	}
	for i := 0; i < len(tg.tasks); {
		if o := tg.tasks[i]; o != t {
			o.release() // kept for a tracer
			continue
		}
		i++
	}
	tg.execer = nil
	k.tree.Unlock()
	return nil
}

// takeLeadership gives t the identity of the dead leader. The caller holds tree.
func (t *Task) takeLeadership() {
	tg := t.group
	old := tg.leader
	own, lead := t.pid, old.pid
	// The leader's release frees the number that it holds: let that be t's.
	t.pid, old.pid = lead, own
	lead.task, own.task = t, old
	t.publishIDs()
	tg.leader = t
	old.release()
}

func (h *SignalHandlers) refsShared() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refs > 1
}

// unshare is a copy for a process that shared h with others.
func (h *SignalHandlers) unshare() *SignalHandlers {
	n := h.fork()
	h.mu.Lock()
	h.refs--
	h.mu.Unlock()
	return n
}

// ExecArgs are the arguments of execve(2).
type ExecArgs struct {
	// File, if not nil, is the program (execveat(2) with AT_EMPTY_PATH); otherwise Path is resolved from Start (the zero Path: the
	// working directory). Flags are AT_SYMLINK_NOFOLLOW or 0.
	File       *vfs.FileDescription
	Start      vfs.Path
	Path       string
	NoFollow   bool
	Argv, Envv []string
	// Name is what scripts and AT_EXECFN see: Path, or /dev/fd/N.
	Name string
	// Hidden: the name lies behind a close-on-exec descriptor, which a script's interpreter could not open (ENOENT).
	Hidden bool
	// Create: the container's configuration names the program: without a slash it is searched in PATH of Envv.
	Create bool
}
