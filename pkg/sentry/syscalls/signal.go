package syscalls

import (
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// signalEntries are the calls of signal(7).
func signalEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_RT_SIGACTION, Name: "rt_sigaction", Handler: rtSigaction, Args: "signal sigaction sigaction int"},
		{Number: unix.SYS_RT_SIGPROCMASK, Name: "rt_sigprocmask", Handler: rtSigprocmask, Args: "sighow sigset outsigset int"},
		{Number: unix.SYS_RT_SIGRETURN, Name: "rt_sigreturn", Handler: rtSigreturn},
		{Number: unix.SYS_RT_SIGPENDING, Name: "rt_sigpending", Handler: rtSigpending, Args: "outsigset int"},
		{Number: unix.SYS_RT_SIGTIMEDWAIT, Name: "rt_sigtimedwait", Handler: rtSigtimedwait, Args: "sigset siginfo timespec int"},
		{Number: unix.SYS_RT_SIGQUEUEINFO, Name: "rt_sigqueueinfo", Handler: rtSigqueueinfo, Args: "int signal siginfo"},
		{Number: unix.SYS_RT_TGSIGQUEUEINFO, Name: "rt_tgsigqueueinfo", Handler: rtTgsigqueueinfo, Args: "int int signal siginfo"},
		{Number: unix.SYS_RT_SIGSUSPEND, Name: "rt_sigsuspend", Handler: rtSigsuspend, Args: "sigset int"},
		{Number: unix.SYS_SIGALTSTACK, Name: "sigaltstack", Handler: sigaltstack, Args: "ptr ptr"},
		{Number: unix.SYS_KILL, Name: "kill", Handler: kill, Args: "int signal"},
		{Number: unix.SYS_TKILL, Name: "tkill", Handler: tkill, Args: "int signal"},
		{Number: unix.SYS_TGKILL, Name: "tgkill", Handler: tgkill, Args: "int int signal"},
		{Number: unix.SYS_PAUSE, Name: "pause", Handler: pause},
		{Number: unix.SYS_RESTART_SYSCALL, Name: "restart_syscall", Handler: restartSyscall},
	}
}

func restartSyscall(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) { return t.RestartSyscall() }

func rtSigaction(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[3].Uint64() != linux.SignalSetSize {
		return 0, unix.EINVAL
	}
	m := t.MM()
	var act *linux.SigAction
	if p := a[1].Pointer(); p != 0 {
		v, err := mm.Read[linux.SigAction](m, p)
		if err != nil {
			return 0, err
		}
		act = &v
	}
	old, err := t.SigAction(linux.Signal(a[0].Int()), act)
	if err != nil {
		return 0, err
	}
	if p := a[2].Pointer(); p != 0 {
		return 0, mm.Write(m, p, &old)
	}
	return 0, nil
}

// readSigset reads a signal set whose size has been given.
func readSigset(t *kernel.Task, addr, size uint64) (linux.SignalSet, error) {
	if size != linux.SignalSetSize {
		return 0, unix.EINVAL
	}
	v, err := t.MM().ReadUint64(addr)
	return linux.SignalSet(v), err
}

func rtSigprocmask(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[3].Uint64() != linux.SignalSetSize {
		return 0, unix.EINVAL
	}
	old := t.SignalMask()
	if p := a[1].Pointer(); p != 0 {
		set, err := readSigset(t, p, linux.SignalSetSize)
		if err != nil {
			return 0, err
		}
		switch a[0].Int() {
		case unix.SIG_BLOCK:
			set = old | set
		case unix.SIG_UNBLOCK:
			set = old &^ set
		case unix.SIG_SETMASK:
		default:
			return 0, unix.EINVAL
		}
		t.SetSignalMask(set)
	}
	if p := a[2].Pointer(); p != 0 {
		return 0, t.MM().WriteUint64(p, uint64(old))
	}
	return 0, nil
}

func rtSigreturn(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) { return t.SigReturn(), nil }

func rtSigpending(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[1].Uint64() > linux.SignalSetSize {
		return 0, unix.EINVAL
	}
	set := uint64(t.PendingSignals())
	_, err := t.MM().CopyOut(a[0].Pointer(), bytesOf(&set)[:a[1].Uint64()])
	return 0, err
}

func rtSigtimedwait(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	set, err := readSigset(t, a[0].Pointer(), a[3].Uint64())
	if err != nil {
		return 0, err
	}
	deadline := vfs.NoDeadline
	if p := a[2].Pointer(); p != 0 {
		d, err := readTimespec(t, p)
		if err != nil {
			return 0, err
		}
		deadline = kernel.DeadlineAfter(d)
	}
	var info linux.SignalInfo
	if err := t.WaitSignal(set, deadline, &info); err != nil {
		return 0, err
	}
	if p := a[1].Pointer(); p != 0 {
		if err := mm.Write(t.MM(), p, &info); err != nil {
			return 0, err
		}
	}
	return uintptr(info.Signo), nil
}

func rtSigsuspend(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	set, err := readSigset(t, a[0].Pointer(), a[1].Uint64())
	if err != nil {
		return 0, err
	}
	t.SetTempMask(set)
	return pauseTask(t)
}

func pause(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) { return pauseTask(t) }

func pauseTask(t *kernel.Task) (uintptr, error) {
	for t.Block(t.Waker().C, vfs.NoDeadline) == nil {
	}
	return 0, linux.ERESTARTNOHAND
}

func sigaltstack(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	m := t.MM()
	var s *linux.SignalStack
	if p := a[0].Pointer(); p != 0 {
		v, err := mm.Read[linux.SignalStack](m, p)
		if err != nil {
			return 0, err
		}
		s = &v
	}
	old, err := t.SigAltStack(s)
	if err != nil {
		return 0, err
	}
	if p := a[1].Pointer(); p != 0 {
		return 0, mm.Write(m, p, &old)
	}
	return 0, nil
}

func kill(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	pid, sig := a[0].Int(), linux.Signal(a[1].Int())
	if sig < 0 || sig > linux.NumSignals {
		return 0, unix.EINVAL
	}
	switch {
	case pid > 0:
		return 0, t.KillProcess(pid, sig)
	case pid == -1:
		return 0, t.KillAll(sig)
	case pid == -1<<31:
		return 0, unix.ESRCH
	}
	return 0, t.KillGroup(-pid, sig)
}

func tkill(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	tid, sig := a[0].Int(), linux.Signal(a[1].Int())
	if tid <= 0 {
		return 0, unix.EINVAL
	}
	return 0, t.KillThread(0, tid, sig, nil)
}

func tgkill(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	tgid, tid, sig := a[0].Int(), a[1].Int(), linux.Signal(a[2].Int())
	if tgid <= 0 || tid <= 0 {
		return 0, unix.EINVAL
	}
	return 0, t.KillThread(tgid, tid, sig, nil)
}

// readSiginfo reads what a process wants to send: EPERM where it pretends to be the kernel or kill(2), unless to itself.
func readSiginfo(t *kernel.Task, addr uint64, sig int32, self bool) (info linux.SignalInfo, err error) {
	if info, err = mm.Read[linux.SignalInfo](t.MM(), addr); err != nil {
		return
	}
	info.Signo = sig
	if (info.Code >= 0 || info.Code == linux.SI_TKILL) && !self {
		err = unix.EPERM
	}
	return
}

func rtSigqueueinfo(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	pid, sig := a[0].Int(), a[1].Int()
	info, err := readSiginfo(t, a[2].Pointer(), sig, pid == t.Group().ID())
	if err != nil {
		return 0, err
	}
	return 0, t.QueueProcess(pid, &info)
}

func rtTgsigqueueinfo(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	tgid, tid, sig := a[0].Int(), a[1].Int(), a[2].Int()
	if tgid <= 0 || tid <= 0 {
		return 0, unix.EINVAL
	}
	info, err := readSiginfo(t, a[3].Pointer(), sig, tgid == t.Group().ID())
	if err != nil {
		return 0, err
	}
	return 0, t.KillThread(tgid, tid, linux.Signal(sig), &info)
}
