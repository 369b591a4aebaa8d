package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/mm"
)

// restartState is what a system call left behind for signal delivery.
type restartState struct {
	err unix.Errno // one of linux.ERESTART*; 0 for none
	nr  uint64     // the call's number
	// block continues the call if it gave ERESTART_RESTARTBLOCK.
	block RestartBlock
}

// RestartBlock continues a system call by restart_syscall(2), with what time is left. It is a plain value: Fn must be a
// top-level function.
type RestartBlock struct {
	Fn   func(t *Task, b *RestartBlock) (uintptr, error)
	Args [6]uint64
}

// SetRestart stores b and returns the error that makes restart_syscall(2) continue with it.
func (t *Task) SetRestart(b RestartBlock) error {
	t.restart.block = b
	return linux.ERESTART_RESTARTBLOCK
}

// RestartSyscall is restart_syscall(2): EINTR where nothing is to be restarted.
func (t *Task) RestartSyscall() (uintptr, error) {
	b := t.restart.block
	if b.Fn == nil {
		return 0, unix.EINTR
	}
	return b.Fn(t, &b)
}

// run is the life of a task's goroutine.
func (t *Task) run() {
	t.acct.begin(&t.k.crowd)
	if l, ok := t.ctx.(platform.Lingerer); ok {
		t.linger = l
		l.OnIdle(t.wake.Flush)
		t.wake.Linger()
	}
	for {
		if t.work.Load() != 0 && !t.doWork() {
			break
		}
		// The order matters: setWork looks at where after it has set its bit.
		t.where.Store(inUser)
		if t.work.Load() != 0 {
			t.where.Store(inKernel)
			continue
		}
		if t.acct.enterUser() {
			t.k.heap.Look()
		}
		step := t.ptr.step
		if step {
			t.regs.Eflags |= arch.EflagsTF
		}
		ev, err := t.ctx.Switch(t.as, &t.regs)
		t.where.Store(inKernel)
		t.acct.leaveUser()
		if step {
			t.regs.Eflags &^= arch.EflagsTF
		}
		if err != nil {
			t.k.Logf("task %d (%s): platform: %v", t.TaskID(), t.Name(), err)
			t.group.Kill()
			continue
		}
		switch ev.Kind {
		case platform.EventSyscall:
			if ev.Hot {
				t.patchText()
			}
			t.syscall()
		case platform.EventFault:
			t.fault(&ev)
		case platform.EventInterrupt:
			t.acct.nivcsw.Add(1)
		}
	}
	t.wake.Hurry()
	t.doExit()
	t.k.running.Done()
}

// patchText lets the platform make the system call instruction that the thread stopped at cheaper. Traced
// threads keep their code, as tracers read and write it.
func (t *Task) patchText() {
	if p, ok := t.as.(platform.Patcher); ok && t.ptr.tracer.Load() == nil {
		p.Patch(t.mm.Load(), &t.regs)
	}
}

// doWork handles everything that must happen before the application runs on. False ends the task.
func (t *Task) doWork() bool {
	t.wake.Flush()
	if t.work.Load()&workExit != 0 {
		return false
	}
	if t.work.Load()&workFreeze != 0 {
		t.work.And(^workFreeze)
		t.waitThaw()
	}
	w := t.work.And(^(workSignal | workStop | workRestart | workUser | workBarrier))
	if w&workUser != 0 {
		t.runQueued()
	}
	return t.deliverSignals()
}

// syscall serves the system call that the thread stopped at.
func (t *Task) syscall() {
	nr := t.regs.OrigRax
	// Others may hear of what the last calls did when this task waits, unless that takes long.
	if t.wake.Late() && (!brief(nr) || t.overdue()) {
		t.wake.Flush()
	}
	late := t.wake.Late()
	// What the call leaves in rax is not defined yet; -ENOSYS is what tracers see at the entry.
	if t.secc.mode != 0 && !t.checkSeccomp(&nr) {
		return
	}
	if t.ptr.tracer.Load() != nil && !t.traceSyscallEntry(&nr) {
		return
	}
	tr := t.k.tracer.Load()
	if tr != nil {
		(*tr).Enter(t, nr)
	}
	ret, err := t.dispatch(nr)
	if tr != nil {
		(*tr).Exit(t, nr, ret, err)
	}
	t.finishSyscall(nr, ret, err)
	if !late && t.wake.Late() {
		t.late = t.acct.mark
	}
	if t.ptr.tracer.Load() != nil {
		t.traceSyscallExit()
	}
}

// How long a task that calls again and again may put the wake-ups of others off, in cycles: about 100 us, and 0.8 ms where who is woken
// would only take its processor. A pipe is full before that, mostly.
const (
	lateTicks    = 1 << 18
	crowdedTicks = 1 << 21
)

// overdue tells whether the wake-ups that have been put off must not wait any longer.
func (t *Task) overdue() bool {
	since := t.acct.mark - t.late
	return since > crowdedTicks || since > lateTicks && !t.linger.Crowded()
}

// brief tells whether a system call does not take long, unless it blocks.
func brief(nr uint64) bool {
	switch nr {
	case unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_LSEEK,
		unix.SYS_OPENAT, unix.SYS_CLOSE, unix.SYS_FSTAT, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_NEWFSTATAT, unix.SYS_GETDENTS64, unix.SYS_READLINKAT,
		unix.SYS_POLL, unix.SYS_FCNTL, unix.SYS_FUTEX, unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT,
		unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_RECVMSG:
		return true
	}
	return false
}

// dispatch calls the handler.
func (t *Task) dispatch(nr uint64) (uintptr, error) {
	if nr < MaxSyscall {
		if f := t.k.table.Fn[nr]; f != nil {
			return f(t, t.regs.SyscallArgs())
		}
	}
	t.k.unknownSyscall(nr)
	return 0, unix.ENOSYS
}

// finishSyscall stores the result of a call, or prepares its restart.
func (t *Task) finishSyscall(nr uint64, ret uintptr, err error) {
	if err == nil {
		t.regs.Rax = uint64(ret)
		if t.sig.hasSaved {
			t.restoreMask()
		}
		return
	}
	e, ok := err.(unix.Errno)
	if !ok {
		e = t.foreignError(nr, err)
	}
	switch e {
	case linux.ERESTARTSYS, linux.ERESTARTNOINTR, linux.ERESTARTNOHAND, linux.ERESTART_RESTARTBLOCK:
		t.restart.err, t.restart.nr = e, nr
		t.work.Or(workRestart)
	case linux.ENOIOCTLCMD:
		e = unix.ENOTTY
	case unix.EINTR:
		if t.sig.hasSaved {
			t.work.Or(workRestart)
		}
	default:
		if t.sig.hasSaved {
			t.restoreMask()
		}
	}
	t.regs.Rax = -uint64(e)
}

// foreignError maps an error that is no errno, a bug of a handler, to one.
func (t *Task) foreignError(nr uint64, err error) unix.Errno {
	if _, ok := err.(mm.FaultError); ok {
		return unix.EFAULT
	}
	t.k.Logf("system call %d gave the error %v, which is no errno", nr, err)
	return unix.EIO
}

// prepareRestart decides the fate of an interrupted system call: act is the handler that is about to run, nil if none is.
func (t *Task) prepareRestart(act *linux.SigAction) {
	e := t.restart.err
	if e == 0 {
		return
	}
	t.restart.err = 0
	if act != nil && (e == linux.ERESTARTNOHAND || e == linux.ERESTART_RESTARTBLOCK ||
		e == linux.ERESTARTSYS && act.Flags&linux.SA_RESTART == 0) {
		eintr := unix.EINTR
		t.regs.Rax = -uint64(eintr)
		return
	}
	nr := t.restart.nr
	if e == linux.ERESTART_RESTARTBLOCK {
		nr = unix.SYS_RESTART_SYSCALL
	}
	t.regs.RestartSyscall(nr)
}

// Page fault error codes and trap numbers for signal frames.
const (
	trapPF = 14
	trapGP = 13
	trapUD = 6
	trapDE = 0
	trapDB = 1
	trapBP = 3
	trapMF = 16
)

// fault handles a processor exception.
func (t *Task) fault(ev *platform.Event) {
	sig, code, addr := ev.Signal, ev.Code, ev.Addr
	flt := arch.Fault{Cr2: t.lastFault.Cr2}
	switch unix.Signal(sig) {
	case unix.SIGSEGV:
		if code == linux.SI_KERNEL {
			flt.Trapno, addr = trapGP, 0
			break
		}
		if ev.Access&platform.Exec != 0 || addr == t.regs.Rip {
			if addr>>12 == vsyscallPage>>12 {
				if t.emulateVsyscall() {
					return
				}
				code, addr, flt.Trapno = linux.SI_KERNEL, 0, trapGP // as Linux reports what it does not emulate
				break
			}
		}
		access := ev.Access
		if access == platform.None && code == linux.SEGV_ACCERR {
			access = platform.Write // what is mapped at all can be read
		}
		err := t.MM().HandleFault(addr, access)
		if err == nil {
			t.acct.minflt++
			return
		}
		flt.Trapno, flt.Cr2 = trapPF, addr
		if fe, ok := err.(mm.FaultError); ok {
			sig, code = fe.Signal(), fe.Code()
		}
		flt.Err = arch.ErrorCode(code == linux.SEGV_ACCERR, ev.Access&platform.Write != 0, ev.Access&platform.Exec != 0)
	case unix.SIGBUS:
		flt.Trapno, flt.Cr2 = trapPF, addr
		flt.Err = arch.ErrorCode(false, ev.Access&platform.Write != 0, false)
	case unix.SIGILL:
		flt.Trapno = trapUD
	case unix.SIGFPE:
		flt.Trapno = trapDE
		if code != linux.FPE_INTDIV {
			flt.Trapno = trapMF
		}
	case unix.SIGTRAP:
		flt.Trapno = trapBP
		if code == linux.TRAP_TRACE {
			flt.Trapno = trapDB
		}
	}
	t.lastFault = flt
	info := linux.SignalInfo{Signo: sig, Code: code}
	info.SetAddr(addr)
	t.ForceSignal(&info)
}

// RunInTask makes fn run on t's goroutine before the application runs on; false if t is exiting. Any goroutine.
func (t *Task) RunInTask(fn func()) bool {
	t.mu.Lock()
	if t.exit.done.Load() {
		t.mu.Unlock()
		return false
	}
	t.queued = append(t.queued, fn)
	t.mu.Unlock()
	t.setWork(workUser)
	return true
}

func (t *Task) runQueued() {
	t.takeFilters()
	t.mu.Lock()
	q := t.queued
	t.queued = nil
	t.mu.Unlock()
	for _, fn := range q {
		fn()
	}
}
