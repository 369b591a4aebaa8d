package syscalls

import (
	"runtime"

	"husk/pkg/arch"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

// schedEntries are the calls of sched(7). The host schedules the threads; values are kept and checked as Linux does.
func schedEntries() []Entry {
	const kept = "kept and checked, without effect on scheduling"
	return []Entry{
		{Number: unix.SYS_SCHED_YIELD, Name: "sched_yield", Handler: schedYield},
		{Number: unix.SYS_SCHED_SETPARAM, Name: "sched_setparam", Handler: schedSetparam, Support: Partial, Note: kept, Args: "int ptr"},
		{Number: unix.SYS_SCHED_GETPARAM, Name: "sched_getparam", Handler: schedGetparam, Args: "int ptr"},
		{Number: unix.SYS_SCHED_SETSCHEDULER, Name: "sched_setscheduler", Handler: schedSetscheduler, Support: Partial, Note: kept, Args: "int int ptr"},
		{Number: unix.SYS_SCHED_GETSCHEDULER, Name: "sched_getscheduler", Handler: schedGetscheduler, Args: "int"},
		{Number: unix.SYS_SCHED_GET_PRIORITY_MAX, Name: "sched_get_priority_max", Handler: schedPriorityMax, Args: "int"},
		{Number: unix.SYS_SCHED_GET_PRIORITY_MIN, Name: "sched_get_priority_min", Handler: schedPriorityMin, Args: "int"},
		{Number: unix.SYS_SCHED_RR_GET_INTERVAL, Name: "sched_rr_get_interval", Handler: schedRRInterval, Args: "int outtimespec"},
		{Number: unix.SYS_SCHED_SETATTR, Name: "sched_setattr", Handler: schedSetattr, Support: Partial, Note: kept, Args: "int ptr hex"},
		{Number: unix.SYS_SCHED_GETATTR, Name: "sched_getattr", Handler: schedGetattr, Args: "int ptr int hex"},
		{Number: unix.SYS_SCHED_SETAFFINITY, Name: "sched_setaffinity", Handler: schedSetaffinity, Support: Partial, Note: kept, Args: "int int ptr"},
		{Number: unix.SYS_SCHED_GETAFFINITY, Name: "sched_getaffinity", Handler: schedGetaffinity, Args: "int int ptr"},
		{Number: unix.SYS_GETPRIORITY, Name: "getpriority", Handler: getpriority, Args: "int int"},
		{Number: unix.SYS_SETPRIORITY, Name: "setpriority", Handler: setpriority, Support: Partial, Note: kept, Args: "int int int"},
		{Number: unix.SYS_IOPRIO_GET, Name: "ioprio_get", Handler: ioprioGet, Args: "int int"},
		{Number: unix.SYS_IOPRIO_SET, Name: "ioprio_set", Handler: ioprioSet, Support: Partial, Note: kept, Args: "int int hex"},
		{Number: unix.SYS_GETCPU, Name: "getcpu", Handler: getcpu, Args: "outint outint ptr"},
		{Number: unix.SYS_RSEQ, Name: "rseq", Handler: fail(unix.ENOSYS), Support: Stub, Note: "ENOSYS: threads are not bound to visible processors, so that no processor number would be exclusive", Args: "ptr int hex hex"},
		{Number: unix.SYS_MEMBARRIER, Name: "membarrier", Handler: membarrier, Args: "int hex int"},
	}
}

func schedYield(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) {
	runtime.Gosched()
	return 0, nil
}

// schedTask finds the thread of a pid argument. EINVAL for negative ones (ESRCH for sched_getaffinity in glibc's eyes is the kernel's too), ESRCH.
func schedTask(t *kernel.Task, pid int32) (*kernel.Task, error) {
	switch {
	case pid < 0:
		return nil, unix.EINVAL
	case pid == 0:
		return t, nil
	}
	if o := t.PIDNS().TaskByTID(pid); o != nil {
		return o, nil
	}
	return nil, unix.ESRCH
}

// ownsTask tells whether t may change the scheduling of o.
func ownsTask(t, o *kernel.Task) bool {
	c, d := t.Credentials(), o.Credentials()
	return c.EUID == d.EUID || c.EUID == d.RUID || c.HasCapIn(unix.CAP_SYS_NICE, d.UserNS)
}

// policyRange is the range of priorities of a policy; ok is false for unknown ones.
func policyRange(policy int32) (lo, hi int32, ok bool) {
	switch policy {
	case unix.SCHED_FIFO, unix.SCHED_RR:
		return 1, 99, true
	case unix.SCHED_NORMAL, unix.SCHED_BATCH, unix.SCHED_IDLE, unix.SCHED_DEADLINE, unix.SCHED_EXT:
		return 0, 0, true
	}
	return 0, 0, false
}

// setPolicy checks and stores policy and priority.
func setPolicy(t, o *kernel.Task, policy, prio int32) error {
	plain := policy &^ kernel.SchedResetOnFork
	lo, hi, ok := policyRange(plain)
	if !ok || plain == unix.SCHED_DEADLINE || prio < lo || prio > hi {
		return unix.EINVAL
	}
	if !ownsTask(t, o) {
		return unix.EPERM
	}
	if lo > 0 && !t.HasRootCap(unix.CAP_SYS_NICE) && uint64(prio) > o.Limits().Get(unix.RLIMIT_RTPRIO).Cur {
		return unix.EPERM
	}
	o.SetSchedPolicy(policy, prio)
	return nil
}

func schedSetparam(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[1].Pointer() == 0 {
		return 0, unix.EINVAL
	}
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	prio, err := t.MM().ReadUint32(a[1].Pointer())
	if err != nil {
		return 0, err
	}
	policy, _ := o.SchedPolicy()
	return 0, setPolicy(t, o, policy, int32(prio))
}

func schedGetparam(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[1].Pointer() == 0 {
		return 0, unix.EINVAL
	}
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	_, prio := o.SchedPolicy()
	return 0, t.MM().WriteUint32(a[1].Pointer(), uint32(prio))
}

func schedSetscheduler(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[2].Pointer() == 0 || a[1].Int() < 0 {
		return 0, unix.EINVAL
	}
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	prio, err := t.MM().ReadUint32(a[2].Pointer())
	if err != nil {
		return 0, err
	}
	return 0, setPolicy(t, o, a[1].Int(), int32(prio))
}

func schedGetscheduler(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	policy, _ := o.SchedPolicy()
	return uintptr(policy), nil
}

func schedPriorityMax(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	_, hi, ok := policyRange(a[0].Int())
	if !ok {
		return 0, unix.EINVAL
	}
	return uintptr(hi), nil
}

func schedPriorityMin(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	lo, _, ok := policyRange(a[0].Int())
	if !ok {
		return 0, unix.EINVAL
	}
	return uintptr(lo), nil
}

func schedRRInterval(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	var d int64
	switch p, _ := o.SchedPolicy(); p &^ kernel.SchedResetOnFork {
	case unix.SCHED_RR:
		d = 100e6
	case unix.SCHED_NORMAL, unix.SCHED_BATCH:
		d = 4e6
	}
	ts := timespecOf(d)
	return 0, mm.Write(t.MM(), a[1].Pointer(), &ts)
}

// schedAttrMin is SCHED_ATTR_SIZE_VER0.
const schedAttrMin = 48

func schedSetattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p := a[1].Pointer()
	if p == 0 || a[0].Int() < 0 || a[2].Uint() != 0 {
		return 0, unix.EINVAL
	}
	size, err := t.MM().ReadUint32(p)
	if err != nil {
		return 0, err
	}
	if size == 0 {
		size = schedAttrMin
	}
	var s unix.SchedAttr
	if size < schedAttrMin {
		err = unix.E2BIG
	} else {
		err = copyInStruct(t.MM(), p, uint64(size), bytesOf(&s))
	}
	if err == unix.E2BIG {
		if err := t.MM().WriteUint32(p, unix.SizeofSchedAttr); err != nil {
			return 0, err
		}
		return 0, unix.E2BIG
	}
	if err != nil {
		return 0, err
	}
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	policy := int32(s.Policy)
	if policy < 0 || s.Nice < -20 || s.Nice > 19 {
		return 0, unix.EINVAL
	}
	if s.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0 {
		policy |= kernel.SchedResetOnFork
	}
	if err := setPolicy(t, o, policy, int32(s.Priority)); err != nil {
		return 0, err
	}
	if s.Policy == unix.SCHED_NORMAL || s.Policy == unix.SCHED_BATCH {
		return 0, setNice(t, o, s.Nice)
	}
	return 0, nil
}

func schedGetattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	size := a[2].Uint()
	if a[1].Pointer() == 0 || size < schedAttrMin || size > arch.PageSize || a[3].Uint() != 0 {
		return 0, unix.EINVAL
	}
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	policy, prio := o.SchedPolicy()
	s := unix.SchedAttr{Policy: uint32(policy &^ kernel.SchedResetOnFork), Priority: uint32(prio), Nice: o.Nice()}
	if policy&kernel.SchedResetOnFork != 0 {
		s.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
	}
	n := min(size, unix.SizeofSchedAttr)
	s.Size = n
	_, err = t.MM().CopyOut(a[1].Pointer(), bytesOf(&s)[:n])
	return 0, err
}

func schedSetaffinity(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	var m kernel.CPUSet
	n := min(int(a[1].Uint()), len(m)*8)
	if _, err := t.MM().CopyIn(a[2].Pointer(), bytesOf(&m)[:n]); err != nil {
		return 0, err
	}
	pid := a[0].Int()
	if pid < 0 {
		return 0, unix.ESRCH
	}
	o, err := schedTask(t, pid)
	if err != nil {
		return 0, err
	}
	if !ownsTask(t, o) {
		return 0, unix.EPERM
	}
	return 0, o.SetAffinity(m)
}

func schedGetaffinity(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	n := a[1].Uint()
	k := t.Kernel()
	if uint64(n)*8 < uint64(k.NumCPU()) || n%8 != 0 {
		return 0, unix.EINVAL
	}
	pid := a[0].Int()
	if pid < 0 {
		return 0, unix.ESRCH
	}
	o, err := schedTask(t, pid)
	if err != nil {
		return 0, err
	}
	m := o.Affinity()
	size := (k.NumCPU() + 63) / 64 * 8 // as cpumask_size, for the processors that there are
	size = min(size, int(n))
	_, err = t.MM().CopyOut(a[2].Pointer(), bytesOf(&m)[:size])
	return uintptr(size), err
}

// priorityTasks calls f for the threads that which and who select. ESRCH if there are none.
func priorityTasks(t *kernel.Task, which, who int32, f func(o *kernel.Task)) error {
	k, ns := t.Kernel(), t.PIDNS()
	found := false
	switch which {
	case unix.PRIO_PROCESS:
		o := t
		if who != 0 {
			o = ns.TaskByTID(who)
		}
		if o != nil {
			found = true
			f(o)
		}
	case unix.PRIO_PGRP:
		pg := t.Group().ProcessGroup()
		if who != 0 {
			pg = ns.ProcessGroupByID(who)
		}
		if pg != nil {
			for _, tg := range pg.Members(k, nil) {
				for _, o := range tg.Tasks(nil) {
					found = true
					f(o)
				}
			}
		}
	case unix.PRIO_USER:
		u := t.Credentials().RUID
		if who != 0 {
			v, ok := t.UserNS().KUID(auth.UID(who))
			if !ok {
				return unix.ESRCH
			}
			u = v
		}
		for _, g := range ns.Groups(nil) {
			for _, o := range g.Group.Tasks(nil) {
				if o.Credentials().RUID == u {
					found = true
					f(o)
				}
			}
		}
	default:
		return unix.EINVAL
	}
	if !found {
		return unix.ESRCH
	}
	return nil
}

func getpriority(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	best := int32(19)
	err := priorityTasks(t, a[0].Int(), a[1].Int(), func(o *kernel.Task) { best = min(best, o.Nice()) })
	return uintptr(20 - best), err
}

func setpriority(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	n := max(min(a[2].Int(), 19), -20)
	var bad error
	err := priorityTasks(t, a[0].Int(), a[1].Int(), func(o *kernel.Task) {
		if !ownsTask(t, o) {
			bad = unix.EPERM
			return
		}
		if e := setNice(t, o, n); e != nil {
			bad = e
		}
	})
	if err == nil {
		err = bad
	}
	return 0, err
}

// setNice stores a nice value: EACCES where it would raise the priority beyond RLIMIT_NICE.
func setNice(t, o *kernel.Task, n int32) error {
	if n < o.Nice() && uint64(20-n) > o.Limits().Get(unix.RLIMIT_NICE).Cur && !t.HasRootCap(unix.CAP_SYS_NICE) {
		return unix.EACCES
	}
	o.SetNice(n)
	return nil
}

// Classes and targets of ioprio_set(2).
const (
	ioprioClassNone = 0
	ioprioClassRT   = 1
	ioprioClassBE   = 2
	ioprioClassIdle = 3
	ioprioShift     = 13
)

func ioprioGet(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	best := int32(-1)
	err := priorityTasks(t, a[0].Int()-1, a[1].Int(), func(o *kernel.Task) {
		v := o.IOPrio()
		if v>>ioprioShift == ioprioClassNone {
			v = ioprioClassBE<<ioprioShift | 4
			if a[0].Int() == 1 {
				v = o.IOPrio()
			}
		}
		if best < 0 || v < best {
			best = v
		}
	})
	return uintptr(best), err
}

func ioprioSet(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	v := a[2].Int()
	switch class, data := v>>ioprioShift, v&(1<<ioprioShift-1); class {
	case ioprioClassRT:
		if !t.HasCap(unix.CAP_SYS_ADMIN) && !t.HasCap(unix.CAP_SYS_NICE) {
			return 0, unix.EPERM
		}
		if data&7 != data {
			return 0, unix.EINVAL
		}
	case ioprioClassBE:
		if data&7 != data {
			return 0, unix.EINVAL
		}
	case ioprioClassIdle:
	case ioprioClassNone:
		if data != 0 {
			return 0, unix.EINVAL
		}
	default:
		return 0, unix.EINVAL
	}
	var bad error
	err := priorityTasks(t, a[0].Int()-1, a[1].Int(), func(o *kernel.Task) {
		if !ownsTask(t, o) {
			bad = unix.EPERM
			return
		}
		o.SetIOPrio(v)
	})
	if err == nil {
		err = bad
	}
	return 0, err
}

func getcpu(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if p := a[0].Pointer(); p != 0 {
		if err := t.MM().WriteUint32(p, uint32(t.CPU())); err != nil {
			return 0, err
		}
	}
	if p := a[1].Pointer(); p != 0 {
		return 0, t.MM().WriteUint32(p, 0)
	}
	return 0, nil
}
