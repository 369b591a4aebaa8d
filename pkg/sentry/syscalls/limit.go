package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

// limitEntries are getrlimit(2), getrusage(2) and their like.
func limitEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_GETRLIMIT, Name: "getrlimit", Handler: getrlimit, Args: "rlimit ptr"},
		{Number: unix.SYS_SETRLIMIT, Name: "setrlimit", Handler: setrlimit, Args: "rlimit ptr"},
		{Number: unix.SYS_PRLIMIT64, Name: "prlimit64", Handler: prlimit, Args: "int rlimit ptr ptr"},
		{Number: unix.SYS_GETRUSAGE, Name: "getrusage", Handler: getrusage, Args: "int rusage"},
	}
}

func getrlimit(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	r := a[0].Uint()
	if r >= limits.Count {
		return 0, unix.EINVAL
	}
	l := t.Limits().Get(int(r))
	return 0, mm.Write(t.MM(), a[1].Pointer(), &l)
}

func setrlimit(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	l, err := mm.Read[limits.Limit](t.MM(), a[1].Pointer())
	if err != nil {
		return 0, err
	}
	_, err = changeLimit(t, t.Group(), a[0].Uint(), l)
	return 0, err
}

// changeLimit sets limit r of process tg.
func changeLimit(t *kernel.Task, tg *kernel.ThreadGroup, r uint32, l limits.Limit) (old limits.Limit, err error) {
	if r >= limits.Count {
		return old, unix.EINVAL
	}
	if r == unix.RLIMIT_NOFILE && l.Max > uint64(t.Kernel().VFS().Sysctl().NrOpen.Load()) {
		return old, unix.EPERM
	}
	old, err = tg.Limits().Replace(int(r), l, t.HasRootCap(unix.CAP_SYS_RESOURCE))
	if err == nil && r == unix.RLIMIT_CPU {
		tg.LimitChanged()
	}
	return old, err
}

func prlimit(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	r := a[1].Uint()
	if r >= limits.Count {
		return 0, unix.EINVAL
	}
	var l limits.Limit
	if p := a[2].Pointer(); p != 0 {
		var err error
		if l, err = mm.Read[limits.Limit](t.MM(), p); err != nil {
			return 0, err
		}
	}
	o := t
	if pid := a[0].Int(); pid != 0 {
		if o = t.PIDNS().TaskByTID(pid); o == nil {
			return 0, unix.ESRCH
		}
		if !mayPrlimit(t, o) {
			return 0, unix.EPERM
		}
	}
	old := o.Limits().Get(int(r))
	if a[2].Pointer() != 0 {
		var err error
		if old, err = changeLimit(t, o.Group(), r, l); err != nil {
			return 0, err
		}
	}
	if p := a[3].Pointer(); p != 0 {
		return 0, mm.Write(t.MM(), p, &old)
	}
	return 0, nil
}

// mayPrlimit is the permission check of prlimit(2).
func mayPrlimit(t, o *kernel.Task) bool {
	if t.Group() == o.Group() {
		return true
	}
	c, d := t.Credentials(), o.Credentials()
	if c.RUID == d.EUID && c.RUID == d.SUID && c.RUID == d.RUID && c.RGID == d.EGID && c.RGID == d.SGID && c.RGID == d.RGID {
		return true
	}
	return c.HasCapIn(unix.CAP_SYS_RESOURCE, d.UserNS)
}

func getrusage(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	var u kernel.Rusage
	t.SyncUsage()
	switch a[0].Int() {
	case unix.RUSAGE_SELF:
		u = t.Group().Usage()
	case unix.RUSAGE_CHILDREN:
		u = t.Group().ChildrenUsage()
	case unix.RUSAGE_THREAD:
		u = t.Usage()
	default:
		return 0, unix.EINVAL
	}
	if a[1].Pointer() == 0 {
		return 0, unix.EFAULT
	}
	return 0, writeRusage(t, a[1].Pointer(), &u)
}
