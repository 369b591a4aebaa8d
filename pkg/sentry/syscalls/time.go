package syscalls

import (
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// timeEntries read clocks and sleep.
func timeEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_TIME, Name: "time", Handler: timeCall, Args: "ptr"},
		{Number: unix.SYS_GETTIMEOFDAY, Name: "gettimeofday", Handler: gettimeofday, Args: "ptr ptr"},
		{Number: unix.SYS_SETTIMEOFDAY, Name: "settimeofday", Handler: setClock, Support: Stub, Note: "the clock is the host's: EPERM", Args: "ptr ptr"},
		{Number: unix.SYS_CLOCK_GETTIME, Name: "clock_gettime", Handler: clockGettime, Args: "clock outtimespec"},
		{Number: unix.SYS_CLOCK_GETRES, Name: "clock_getres", Handler: clockGetres, Args: "clock outtimespec"},
		{Number: unix.SYS_CLOCK_SETTIME, Name: "clock_settime", Handler: clockSettime, Support: Stub, Note: "the clock is the host's: EPERM", Args: "clock timespec"},
		{Number: unix.SYS_NANOSLEEP, Name: "nanosleep", Handler: nanosleep, Args: "timespec ptr"},
		{Number: unix.SYS_CLOCK_NANOSLEEP, Name: "clock_nanosleep", Handler: clockNanosleep, Args: "clock hex timespec ptr"},
		{Number: unix.SYS_TIMES, Name: "times", Handler: times, Args: "ptr"},
		{Number: unix.SYS_ADJTIMEX, Name: "adjtimex", Handler: adjtimex, Support: Partial, Note: "reading only; changes give EPERM", Args: "ptr"},
		{Number: unix.SYS_CLOCK_ADJTIME, Name: "clock_adjtime", Handler: clockAdjtime, Support: Partial, Note: "reading only; changes give EPERM", Args: "clock ptr"},
	}
}

func timeCall(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	sec := uint64(clock.Realtime() / 1e9)
	if p := a[0].Pointer(); p != 0 {
		if err := t.MM().WriteUint64(p, sec); err != nil {
			return 0, err
		}
	}
	return uintptr(sec), nil
}

func gettimeofday(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if p := a[0].Pointer(); p != 0 {
		tv := timevalOf(clock.Realtime())
		if err := mm.Write(t.MM(), p, &tv); err != nil {
			return 0, err
		}
	}
	if p := a[1].Pointer(); p != 0 {
		return 0, t.MM().WriteUint64(p, 0)
	}
	return 0, nil
}

func setClock(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if p := a[0].Pointer(); p != 0 {
		if _, err := readTimeval(t, p); err != nil {
			return 0, err
		}
	}
	return 0, unix.EPERM
}

func clockSettime(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	id := a[0].Int()
	if err := t.ClockValid(id); err != nil {
		return 0, err
	}
	if id != unix.CLOCK_REALTIME {
		return 0, unix.EINVAL
	}
	if _, err := readTimespec(t, a[1].Pointer()); err != nil {
		return 0, err
	}
	return 0, unix.EPERM
}

func clockGettime(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	ns, err := t.ClockNow(a[0].Int())
	if err != nil {
		return 0, err
	}
	ts := timespecOf(ns)
	return 0, mm.Write(t.MM(), a[1].Pointer(), &ts)
}

func clockGetres(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	id := a[0].Int()
	if err := t.ClockValid(id); err != nil {
		return 0, err
	}
	res := int64(1)
	if id == unix.CLOCK_REALTIME_COARSE || id == unix.CLOCK_MONOTONIC_COARSE {
		var ts unix.Timespec
		if unix.ClockGetres(id, &ts) == nil {
			res = ts.Nano()
		}
	}
	if p := a[1].Pointer(); p != 0 {
		ts := timespecOf(res)
		return 0, mm.Write(t.MM(), p, &ts)
	}
	return 0, nil
}

func nanosleep(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	d, err := readTimespec(t, a[0].Pointer())
	if err != nil {
		return 0, err
	}
	return sleep(t, unix.CLOCK_MONOTONIC, kernel.DeadlineAfter(d), a[1].Pointer())
}

// sleep waits until clock id reads abs; interrupted, it stores what is left at rem and can be restarted.
func sleep(t *kernel.Task, id int32, abs int64, rem uint64) (uintptr, error) {
	err := t.SleepUntil(id, abs)
	if err != vfs.ErrInterrupted {
		return 0, err
	}
	if rem != 0 {
		now, _ := t.ClockNow(id)
		ts := timespecOf(max(abs-now, 0))
		if err := mm.Write(t.MM(), rem, &ts); err != nil {
			return 0, err
		}
	}
	return 0, t.SetRestart(kernel.RestartBlock{Fn: restartSleep, Args: [6]uint64{uint64(uint32(id)), uint64(abs), rem}})
}

func restartSleep(t *kernel.Task, b *kernel.RestartBlock) (uintptr, error) {
	return sleep(t, int32(b.Args[0]), int64(b.Args[1]), b.Args[2])
}

func clockNanosleep(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	id, flags := a[0].Int(), a[1].Uint()
	switch id {
	case unix.CLOCK_REALTIME, unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME, unix.CLOCK_TAI, unix.CLOCK_PROCESS_CPUTIME_ID:
	case unix.CLOCK_REALTIME_ALARM, unix.CLOCK_BOOTTIME_ALARM:
		if !t.HasRootCap(unix.CAP_WAKE_ALARM) {
			return 0, unix.EPERM
		}
	case unix.CLOCK_THREAD_CPUTIME_ID:
		return 0, unix.EINVAL
	default:
		if err := t.ClockValid(id); err != nil {
			return 0, err
		}
		if id >= 0 {
			return 0, unix.EOPNOTSUPP
		}
	}
	d, err := readTimespec(t, a[2].Pointer())
	if err != nil {
		return 0, err
	}
	if flags&unix.TIMER_ABSTIME != 0 {
		err := t.SleepUntil(id, d)
		if err == vfs.ErrInterrupted {
			err = linux.ERESTARTNOHAND
		}
		return 0, err
	}
	if id == unix.CLOCK_REALTIME {
		id = unix.CLOCK_MONOTONIC // a relative sleep does not follow changes of the clock
	}
	now, err := t.ClockNow(id)
	if err != nil {
		return 0, err
	}
	abs := now + d
	if abs < 0 {
		abs = vfs.NoDeadline - 1
	}
	return sleep(t, id, abs, a[3].Pointer())
}

func times(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	const tick = 1e9 / linux.ClockTick
	t.SyncUsage()
	if p := a[0].Pointer(); p != 0 {
		u, c := t.Group().CPUTimes()
		v := [4]int64{u.UTime / tick, u.STime / tick, c.UTime / tick, c.STime / tick}
		if err := mm.Write(t.MM(), p, &v); err != nil {
			return 0, err
		}
	}
	return uintptr(clock.Monotonic() / tick), nil
}

// readTimex gives the host's clock state; modes other than reading are refused.
func readTimex(t *kernel.Task, addr uint64) (uintptr, error) {
	tx, err := mm.Read[unix.Timex](t.MM(), addr)
	if err != nil {
		return 0, err
	}
	const adjOffsetSSRead = 0xa001
	if tx.Modes != 0 && tx.Modes != adjOffsetSSRead {
		return 0, unix.EPERM
	}
	tx.Modes = 0
	tx.Maxerror, tx.Esterror, tx.Status = 16000000, 16000000, unix.STA_UNSYNC
	tx.Constant, tx.Precision, tx.Tolerance, tx.Tick = 2, 1, 32768000, 10000
	tx.Time = timevalOf(clock.Realtime())
	const timeError = 5
	return timeError, mm.Write(t.MM(), addr, &tx)
}

func adjtimex(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return readTimex(t, a[0].Pointer())
}

func clockAdjtime(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if id := a[0].Int(); id != unix.CLOCK_REALTIME {
		if err := t.ClockValid(id); err != nil {
			return 0, err
		}
		return 0, unix.EOPNOTSUPP
	}
	return readTimex(t, a[1].Pointer())
}
