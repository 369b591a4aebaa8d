package syscalls

import (
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// futexEntries are futex(2), futex_waitv(2) and robust lists.
func futexEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_FUTEX, Name: "futex", Handler: futex, Args: "ptr futexop hex timespec ptr hex"},
		{Number: unix.SYS_FUTEX_WAITV, Name: "futex_waitv", Handler: futexWaitv, Args: "ptr int hex timespec int"},
		{Number: unix.SYS_SET_ROBUST_LIST, Name: "set_robust_list", Handler: setRobustList, Args: "ptr int"},
		{Number: unix.SYS_GET_ROBUST_LIST, Name: "get_robust_list", Handler: getRobustList, Args: "int ptr ptr"},
	}
}

func futex(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	addr, op, val, addr2, val3 := a[0].Pointer(), a[1].Uint(), a[2].Uint(), a[4].Pointer(), a[5].Uint()
	private := op&linux.FUTEX_PRIVATE_FLAG != 0
	cmd := op &^ (linux.FUTEX_PRIVATE_FLAG | linux.FUTEX_CLOCK_REALTIME)
	if op&linux.FUTEX_CLOCK_REALTIME != 0 {
		switch cmd {
		case linux.FUTEX_WAIT_BITSET, linux.FUTEX_WAIT_REQUEUE_PI, linux.FUTEX_LOCK_PI2, linux.FUTEX_WAIT:
		default:
			return 0, unix.ENOSYS
		}
	}
	switch cmd {
	case linux.FUTEX_WAIT, linux.FUTEX_WAIT_BITSET:
		bitset := uint32(linux.FUTEX_BITSET_MATCH_ANY)
		if cmd == linux.FUTEX_WAIT_BITSET {
			bitset = val3
		}
		return futexWait(t, addr, private, val, bitset, op, a[3].Pointer())
	case linux.FUTEX_WAKE:
		return result(t.FutexWake(addr, private, int32(val), linux.FUTEX_BITSET_MATCH_ANY))
	case linux.FUTEX_WAKE_BITSET:
		return result(t.FutexWake(addr, private, int32(val), val3))
	case linux.FUTEX_REQUEUE, linux.FUTEX_CMP_REQUEUE:
		return result(t.FutexRequeue(addr, private, addr2, private, int32(val), a[3].Int(), cmd == linux.FUTEX_CMP_REQUEUE, val3))
	case linux.FUTEX_WAKE_OP:
		return result(t.FutexWakeOp(addr, private, addr2, int32(val), a[3].Int(), val3))
	case linux.FUTEX_LOCK_PI, linux.FUTEX_LOCK_PI2:
		if cmd == linux.FUTEX_LOCK_PI {
			op |= linux.FUTEX_CLOCK_REALTIME
		}
		deadline, err := futexDeadline(t, linux.FUTEX_WAIT_BITSET, op, a[3].Pointer())
		if err != nil {
			return 0, err
		}
		return 0, t.FutexLockPI(addr, private, deadline, false)
	case linux.FUTEX_TRYLOCK_PI:
		return 0, t.FutexLockPI(addr, private, vfs.NoDeadline, true)
	case linux.FUTEX_UNLOCK_PI:
		return 0, t.FutexUnlockPI(addr, private)
	case linux.FUTEX_WAIT_REQUEUE_PI:
		deadline, err := futexDeadline(t, linux.FUTEX_WAIT_BITSET, op, a[3].Pointer())
		if err != nil {
			return 0, err
		}
		return 0, t.FutexWaitRequeuePI(addr, private, val, linux.FUTEX_BITSET_MATCH_ANY, deadline, addr2)
	case linux.FUTEX_CMP_REQUEUE_PI:
		return result(t.FutexRequeuePI(addr, private, addr2, int32(val), a[3].Int(), val3))
	}
	return 0, unix.ENOSYS
}

// futexDeadline reads the time limit of a wait: relative for FUTEX_WAIT, absolute otherwise, in nanoseconds of CLOCK_MONOTONIC.
func futexDeadline(t *kernel.Task, cmd, op uint32, addr uint64) (int64, error) {
	if addr == 0 {
		return vfs.NoDeadline, nil
	}
	d, err := readTimespec(t, addr)
	if err != nil {
		return 0, err
	}
	if cmd == linux.FUTEX_WAIT {
		return kernel.DeadlineAfter(d), nil
	}
	if op&linux.FUTEX_CLOCK_REALTIME != 0 {
		return kernel.ToMonotonic(unix.CLOCK_REALTIME, d), nil
	}
	return d, nil
}

func futexWait(t *kernel.Task, addr uint64, private bool, val, bitset, op uint32, timeout uint64) (uintptr, error) {
	deadline, err := futexDeadline(t, op&0x7f, op, timeout)
	if err != nil {
		return 0, err
	}
	err = t.FutexWait(addr, private, val, bitset, deadline)
	if err == vfs.ErrInterrupted && timeout != 0 {
		b := kernel.RestartBlock{Fn: restartFutexWait, Args: [6]uint64{addr, 0, uint64(val), uint64(bitset), uint64(deadline)}}
		if private {
			b.Args[1] = 1
		}
		return 0, t.SetRestart(b)
	}
	return 0, err
}

// restartFutexWait goes on with a wait that had a time limit.
func restartFutexWait(t *kernel.Task, b *kernel.RestartBlock) (uintptr, error) {
	err := t.FutexWait(b.Args[0], b.Args[1] != 0, uint32(b.Args[2]), uint32(b.Args[3]), int64(b.Args[4]))
	if err == vfs.ErrInterrupted {
		return 0, t.SetRestart(*b)
	}
	return 0, err
}

func futexWaitv(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	n := a[1].Uint()
	if a[2].Uint() != 0 || n == 0 || n > linux.FUTEX_WAITV_MAX || a[0].Pointer() == 0 {
		return 0, unix.EINVAL
	}
	deadline := vfs.NoDeadline
	if p := a[3].Pointer(); p != 0 {
		id := a[4].Int()
		if id != unix.CLOCK_MONOTONIC && id != unix.CLOCK_REALTIME {
			return 0, unix.EINVAL
		}
		d, err := readTimespec(t, p)
		if err != nil {
			return 0, err
		}
		deadline = kernel.ToMonotonic(id, d)
	}
	list := make([]linux.FutexWaitv, n)
	for i := range list {
		v, err := mm.Read[linux.FutexWaitv](t.MM(), a[0].Pointer()+uint64(i)*24)
		if err != nil {
			return 0, err
		}
		if v.Flags&^(linux.FUTEX2_SIZE_MASK|linux.FUTEX2_PRIVATE) != 0 || v.Flags&linux.FUTEX2_SIZE_MASK != linux.FUTEX2_SIZE_U32 ||
			v.Reserved != 0 || v.Val>>32 != 0 {
			return 0, unix.EINVAL
		}
		list[i] = v
	}
	return result(t.FutexWaitv(list, deadline))
}

// robustListSize is sizeof(struct robust_list_head).
const robustListSize = 24

func setRobustList(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[1].Uint64() != robustListSize {
		return 0, unix.EINVAL
	}
	t.SetRobustList(a[0].Pointer())
	return 0, nil
}

func getRobustList(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	o := t
	if tid := a[0].Int(); tid != 0 {
		if o = t.PIDNS().TaskByTID(tid); o == nil {
			return 0, unix.ESRCH
		}
		if !t.MayPtrace(o) {
			return 0, unix.EPERM
		}
	}
	if err := t.MM().WriteUint64(a[2].Pointer(), robustListSize); err != nil {
		return 0, err
	}
	return 0, t.MM().WriteUint64(a[1].Pointer(), o.RobustList())
}
