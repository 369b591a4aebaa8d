package syscalls

import (
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

// processEntries are the identities and lives of processes: getpid(2), clone(2), wait(2), exit(2), setpgid(2) and their like.
func processEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_GETPID, Name: "getpid", Handler: getpid},
		{Number: unix.SYS_GETTID, Name: "gettid", Handler: gettid},
		{Number: unix.SYS_GETPPID, Name: "getppid", Handler: getppid},
		{Number: unix.SYS_CLONE, Name: "clone", Handler: clone, Args: "cloneflags ptr ptr ptr hex"},
		{Number: unix.SYS_CLONE3, Name: "clone3", Handler: clone3, Args: "cloneargs int"},
		{Number: unix.SYS_FORK, Name: "fork", Handler: fork},
		{Number: unix.SYS_VFORK, Name: "vfork", Handler: vfork},
		{Number: unix.SYS_EXIT, Name: "exit", Handler: exit, Args: "int"},
		{Number: unix.SYS_EXIT_GROUP, Name: "exit_group", Handler: exitGroup, Args: "int"},
		{Number: unix.SYS_WAIT4, Name: "wait4", Handler: wait4, Args: "int outint waitflags rusage"},
		{Number: unix.SYS_WAITID, Name: "waitid", Handler: waitid, Args: "int int siginfo waitflags rusage"},
		{Number: unix.SYS_SETPGID, Name: "setpgid", Handler: setpgid, Args: "int int"},
		{Number: unix.SYS_GETPGID, Name: "getpgid", Handler: getpgid, Args: "int"},
		{Number: unix.SYS_GETPGRP, Name: "getpgrp", Handler: getpgrp},
		{Number: unix.SYS_SETSID, Name: "setsid", Handler: setsid},
		{Number: unix.SYS_GETSID, Name: "getsid", Handler: getsid, Args: "int"},
		{Number: unix.SYS_SET_TID_ADDRESS, Name: "set_tid_address", Handler: setTIDAddress, Args: "ptr"},
	}
}

func getpid(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) { return uintptr(t.Group().ID()), nil }

func gettid(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) { return uintptr(t.TID()), nil }

func getppid(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) {
	return uintptr(t.Group().ParentIDIn(t.PIDNS())), nil
}

func setTIDAddress(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	t.SetClearTID(a[0].Pointer())
	return uintptr(t.TID()), nil
}

// exitSignalMask is CSIGNAL: the part of clone(2)'s flags that is the exit signal.
const exitSignalMask = 0xff

func clone(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := uint64(a[0].Uint())
	c := linux.CloneArgs{
		Flags:      flags &^ exitSignalMask,
		ExitSignal: flags & exitSignalMask,
		Stack:      a[1].Pointer(),
		ParentTID:  a[2].Pointer(),
		Pidfd:      a[2].Pointer(),
		ChildTID:   a[3].Pointer(),
		TLS:        a[4].Pointer(),
	}
	if c.Flags&unix.CLONE_PIDFD != 0 && c.Flags&(unix.CLONE_PARENT_SETTID|unix.CLONE_DETACHED) != 0 {
		return 0, unix.EINVAL
	}
	return result(t.Clone(&c, nil))
}

// result makes a handler's result of a non-negative number.
func result[T int | int32 | int64 | uint32](n T, err error) (uintptr, error) { return uintptr(n), err }

func fork(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) {
	return result(t.Clone(&linux.CloneArgs{ExitSignal: uint64(unix.SIGCHLD)}, nil))
}

func vfork(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) {
	return result(t.Clone(&linux.CloneArgs{Flags: unix.CLONE_VFORK | unix.CLONE_VM, ExitSignal: uint64(unix.SIGCHLD)}, nil))
}

// copyInStruct reads an extensible structure of size bytes into b, the newest known version (zeroed by the caller): E2BIG where unknown
// fields are not zero (the convention of clone3(2), openat2(2), sched_setattr(2)).
func copyInStruct(m *mm.MemoryManager, addr uint64, size uint64, b []byte) error {
	if size > arch.PageSize {
		return unix.E2BIG
	}
	n := min(size, uint64(len(b)))
	if _, err := m.CopyIn(addr, b[:n]); err != nil {
		return err
	}
	var rest [64]byte
	for n < size {
		k := min(size-n, uint64(len(rest)))
		if _, err := m.CopyIn(addr+n, rest[:k]); err != nil {
			return err
		}
		for _, x := range rest[:k] {
			if x != 0 {
				return unix.E2BIG
			}
		}
		n += k
	}
	return nil
}

func clone3(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	size := a[1].Uint64()
	if size < linux.CloneArgsSizeVer0 {
		return 0, unix.EINVAL
	}
	var c linux.CloneArgs
	if err := copyInStruct(t.MM(), a[0].Pointer(), size, bytesOf(&c)); err != nil {
		return 0, err
	}
	const known = uint64(0xffffffff)&^exitSignalMask | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_INTO_CGROUP | unix.CLONE_NEWTIME
	switch {
	case c.Flags&^known != 0, c.Flags&unix.CLONE_DETACHED != 0,
		c.Flags&(unix.CLONE_SIGHAND|unix.CLONE_CLEAR_SIGHAND) == unix.CLONE_SIGHAND|unix.CLONE_CLEAR_SIGHAND,
		c.Flags&(unix.CLONE_THREAD|unix.CLONE_PARENT) != 0 && c.ExitSignal != 0,
		c.ExitSignal > linux.NumSignals,
		(c.Stack == 0) != (c.StackSize == 0),
		c.SetTIDSize > 32, (c.SetTID == 0) != (c.SetTIDSize == 0):
		return 0, unix.EINVAL
	case c.Stack != 0 && !t.MM().CheckRange(c.Stack, c.StackSize):
		return 0, unix.EINVAL
	case c.Flags&unix.CLONE_INTO_CGROUP != 0:
		return 0, unix.EOPNOTSUPP
	}
	var tids []int32
	if c.SetTIDSize != 0 {
		if !t.HasCapIn(unix.CAP_SYS_ADMIN, t.PIDNS().UserNS()) && !t.HasCapIn(unix.CAP_CHECKPOINT_RESTORE, t.PIDNS().UserNS()) {
			return 0, unix.EPERM
		}
		tids = make([]int32, c.SetTIDSize)
		for i := range tids {
			v, err := t.MM().ReadUint32(c.SetTID + uint64(i)*4)
			if err != nil {
				return 0, err
			}
			if tids[i] = int32(v); tids[i] < 1 {
				return 0, unix.EINVAL
			}
		}
	}
	return result(t.Clone(&c, tids))
}

func exit(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	t.Exit(a[0].Int())
	return 0, nil
}

func exitGroup(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	t.ExitGroup(a[0].Int())
	return 0, nil
}

func wait4(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	pid, flags := a[0].Int(), int(a[2].Uint())
	const known = unix.WNOHANG | unix.WUNTRACED | unix.WCONTINUED | unix.WNOTHREAD | unix.WCLONE | unix.WALL
	if flags&^known != 0 {
		return 0, unix.EINVAL
	}
	o := kernel.WaitOptions{Flags: flags | unix.WEXITED}
	switch {
	case pid == -1<<31:
		return 0, unix.ESRCH
	case pid < -1:
		o.Type, o.ID = linux.P_PGID, -pid
	case pid == -1:
		o.Type = linux.P_ALL
	case pid == 0:
		o.Type = linux.P_PGID
	default:
		o.Type, o.ID = linux.P_PID, pid
	}
	var r kernel.WaitResult
	if err := t.Wait(&o, &r); err != nil {
		return 0, err
	}
	if r.PID == 0 {
		return 0, nil
	}
	if p := a[1].Pointer(); p != 0 {
		if err := t.MM().WriteUint32(p, uint32(r.Status)); err != nil {
			return 0, err
		}
	}
	return uintptr(r.PID), writeRusage(t, a[3].Pointer(), &r.Usage)
}

func waitid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := int(a[3].Uint())
	const known = unix.WNOHANG | unix.WNOWAIT | unix.WEXITED | unix.WSTOPPED | unix.WCONTINUED | unix.WNOTHREAD | unix.WCLONE | unix.WALL
	if flags&^known != 0 || flags&(unix.WEXITED|unix.WSTOPPED|unix.WCONTINUED) == 0 {
		return 0, unix.EINVAL
	}
	o := kernel.WaitOptions{Type: a[0].Int(), ID: a[1].Int(), Flags: flags}
	nonblock := false
	switch o.Type {
	case linux.P_ALL:
	case linux.P_PID:
		if o.ID <= 0 {
			return 0, unix.EINVAL
		}
	case linux.P_PGID:
		if o.ID < 0 {
			return 0, unix.EINVAL
		}
	case linux.P_PIDFD:
		if o.ID < 0 {
			return 0, unix.EINVAL
		}
		p, fd, err := pidfdOf(t, o.ID)
		if err != nil {
			return 0, err
		}
		nonblock = fd.Nonblocking()
		fd.DecRef()
		o.Type, o.PID = linux.P_PID, p.PID()
		if nonblock {
			o.Flags |= unix.WNOHANG
		}
	default:
		return 0, unix.EINVAL
	}
	var r kernel.WaitResult
	if err := t.Wait(&o, &r); err != nil {
		return 0, err
	}
	if r.PID == 0 && nonblock && flags&unix.WNOHANG == 0 {
		return 0, unix.EAGAIN
	}
	if p := a[2].Pointer(); p != 0 {
		var info linux.SignalInfo
		if r.PID != 0 {
			info.Signo, info.Code = int32(unix.SIGCHLD), r.Code
			info.SetPID(r.PID)
			info.SetUID(r.UID)
			info.SetStatus(r.ExitStatus)
		}
		if err := mm.Write(t.MM(), p, &info); err != nil {
			return 0, err
		}
	}
	if r.PID == 0 {
		return 0, nil
	}
	return 0, writeRusage(t, a[4].Pointer(), &r.Usage)
}

func setpgid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return 0, t.SetPGID(a[0].Int(), a[1].Int())
}

// groupArg finds the process of a pid argument, 0 for the caller's. ESRCH.
func groupArg(t *kernel.Task, pid int32) (*kernel.ThreadGroup, error) {
	if pid == 0 {
		return t.Group(), nil
	}
	if o := t.PIDNS().TaskByTID(pid); o != nil {
		return o.Group(), nil
	}
	return nil, unix.ESRCH
}

func getpgid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	tg, err := groupArg(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	return uintptr(tg.PGIDIn(t.PIDNS())), nil
}

func getpgrp(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) {
	return uintptr(t.Group().PGIDIn(t.PIDNS())), nil
}

func setsid(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) { return result(t.Group().SetSID()) }

func getsid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	tg, err := groupArg(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	return uintptr(tg.SIDIn(t.PIDNS())), nil
}
