package syscalls

import (
	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
)

// processVMEntries are process_vm_readv(2) and process_vm_writev(2).
func processVMEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_PROCESS_VM_READV, Name: "process_vm_readv", Handler: processVMReadv, Args: "int ptr size ptr size hex"},
		{Number: unix.SYS_PROCESS_VM_WRITEV, Name: "process_vm_writev", Handler: processVMWritev, Args: "int ptr size ptr size hex"},
	}
}

func processVMReadv(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return processVM(t, a, false)
}

func processVMWritev(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return processVM(t, a, true)
}

func processVM(t *kernel.Task, a arch.SyscallArgs, write bool) (uintptr, error) {
	if a[5].Uint64() != 0 {
		return 0, unix.EINVAL
	}
	m := t.MM()
	local, err := m.IOVecs(a[1].Pointer(), a[2].Uint64())
	if err != nil {
		return 0, err
	}
	if a[4].Uint64() > 1024 {
		return 0, unix.EINVAL
	}
	target := t.PIDNS().TaskByTID(a[0].Int())
	if target == nil {
		return 0, unix.ESRCH
	}
	if !mayAccess(t, target) {
		return 0, unix.EPERM
	}
	other := target.MM()
	if other == nil || !other.IncUsers() {
		return 0, unix.ESRCH
	}
	defer other.DecUsers()
	remote, err := m.IOVecsOf(other, a[3].Pointer(), a[4].Uint64())
	if err != nil {
		return 0, err
	}
	from, to := remote, local
	if write {
		from, to = local, remote
	}
	n, err := transfer(t, from, to)
	if n > 0 {
		return uintptr(n), nil
	}
	return 0, err
}

// transfer copies from one memory to another until either ends or fails, or the task is to exit.
func transfer(t *kernel.Task, from, to mm.IOSeq) (done int64, err error) {
	buf := make([]byte, min(from.NumBytes(), to.NumBytes(), 256<<10))
	for len(buf) > 0 && (done < mm.LongCopy || !t.Killed()) {
		n, rerr := from.CopyIn(buf)
		k, werr := to.CopyOut(buf[:n])
		done += int64(k)
		if werr != nil {
			return done, werr
		}
		if rerr != nil {
			return done, rerr
		}
		from, to = from.DropFirst(int64(n)), to.DropFirst(int64(n))
		buf = buf[:min(int64(len(buf)), from.NumBytes(), to.NumBytes())]
	}
	return done, nil
}

// mayAccess is ptrace(2)'s check (PTRACE_MODE_ATTACH_REALCREDS) of whether t may read and write target's memory.
func mayAccess(t, target *kernel.Task) bool {
	if t.Group() == target.Group() {
		return true
	}
	c, o := t.Credentials(), target.Credentials()
	if t.HasCapIn(unix.CAP_SYS_PTRACE, o.UserNS) {
		return true
	}
	return c.RUID == o.RUID && c.RUID == o.EUID && c.RUID == o.SUID && c.RGID == o.RGID && c.RGID == o.EGID && c.RGID == o.SGID &&
		target.Group().Dumpable() == 1
}
