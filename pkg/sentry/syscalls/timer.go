package syscalls

import (
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

// timerEntries are interval timers and POSIX timers.
func timerEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_GETITIMER, Name: "getitimer", Handler: getitimer, Args: "int ptr"},
		{Number: unix.SYS_SETITIMER, Name: "setitimer", Handler: setitimer, Args: "int ptr ptr"},
		{Number: unix.SYS_ALARM, Name: "alarm", Handler: alarm, Args: "int"},
		{Number: unix.SYS_TIMER_CREATE, Name: "timer_create", Handler: timerCreate, Args: "clock ptr ptr"},
		{Number: unix.SYS_TIMER_SETTIME, Name: "timer_settime", Handler: timerSettime, Args: "int hex ptr ptr"},
		{Number: unix.SYS_TIMER_GETTIME, Name: "timer_gettime", Handler: timerGettime, Args: "int ptr"},
		{Number: unix.SYS_TIMER_GETOVERRUN, Name: "timer_getoverrun", Handler: timerGetoverrun, Args: "int"},
		{Number: unix.SYS_TIMER_DELETE, Name: "timer_delete", Handler: timerDelete, Args: "int"},
	}
}

// itimerval is struct itimerval: interval, then value.
type itimerval struct{ Interval, Value unix.Timeval }

func writeItimer(t *kernel.Task, addr uint64, v kernel.ITimer) error {
	if addr == 0 {
		return nil
	}
	x := itimerval{timevalOf(v.Interval), timevalOf(v.Value)}
	return mm.Write(t.MM(), addr, &x)
}

func getitimer(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	w := a[0].Int()
	if w < 0 || w > unix.ITIMER_PROF {
		return 0, unix.EINVAL
	}
	v := t.Group().GetITimer(w)
	x := itimerval{timevalOf(v.Interval), timevalOf(v.Value)}
	return 0, mm.Write(t.MM(), a[1].Pointer(), &x)
}

func setitimer(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	w := a[0].Int()
	var v kernel.ITimer
	if p := a[1].Pointer(); p != 0 {
		var err error
		if v.Interval, err = readTimeval(t, p); err != nil {
			return 0, err
		}
		if v.Value, err = readTimeval(t, p+16); err != nil {
			return 0, err
		}
	}
	if w < 0 || w > unix.ITIMER_PROF {
		return 0, unix.EINVAL
	}
	return 0, writeItimer(t, a[2].Pointer(), t.Group().SetITimer(w, v))
}

func alarm(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	old := t.Group().SetITimer(unix.ITIMER_REAL, kernel.ITimer{Value: int64(min(a[0].Uint(), 1<<31-1)) * 1e9})
	sec := old.Value / 1e9
	if rest := old.Value % 1e9; rest >= 5e8 || sec == 0 && rest > 0 {
		sec++
	}
	return uintptr(sec), nil
}

func timerCreate(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	var ev *linux.Sigevent
	if p := a[1].Pointer(); p != 0 {
		v, err := mm.Read[linux.Sigevent](t.MM(), p)
		if err != nil {
			return 0, err
		}
		ev = &v
	}
	id, err := t.TimerCreate(a[0].Int(), ev)
	if err != nil {
		return 0, err
	}
	if err := t.MM().WriteUint32(a[2].Pointer(), uint32(id)); err != nil {
		t.TimerDelete(id)
		return 0, err
	}
	return 0, nil
}

// itimerspec is struct itimerspec.
type itimerspec struct{ Interval, Value unix.Timespec }

func timerSettime(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p := a[2].Pointer()
	if p == 0 {
		return 0, unix.EINVAL
	}
	x, err := mm.Read[itimerspec](t.MM(), p)
	if err != nil {
		return 0, err
	}
	var v kernel.ITimer
	if v.Interval, err = nsOf(x.Interval.Sec, x.Interval.Nsec); err != nil {
		return 0, err
	}
	if v.Value, err = nsOf(x.Value.Sec, x.Value.Nsec); err != nil {
		return 0, err
	}
	old, err := t.TimerSet(a[0].Int(), a[1].Uint()&unix.TIMER_ABSTIME != 0, v)
	if err != nil {
		return 0, err
	}
	if p := a[3].Pointer(); p != 0 {
		x := itimerspec{timespecOf(old.Interval), timespecOf(old.Value)}
		return 0, mm.Write(t.MM(), p, &x)
	}
	return 0, nil
}

func timerGettime(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	v, err := t.TimerGet(a[0].Int())
	if err != nil {
		return 0, err
	}
	x := itimerspec{timespecOf(v.Interval), timespecOf(v.Value)}
	return 0, mm.Write(t.MM(), a[1].Pointer(), &x)
}

func timerGetoverrun(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return result(t.TimerOverrun(a[0].Int()))
}

func timerDelete(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return 0, t.TimerDelete(a[0].Int())
}
