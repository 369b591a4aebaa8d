package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/sentry/clock"
)

// Encoding of CPU clocks of processes and threads in clock IDs (clock_getcpuclockid(3)): the complement of the ID above three bits.
const (
	cpuClockPerThread = 4
	cpuClockMask      = 3
	cpuClockProf      = 0
	cpuClockVirt      = 1
	cpuClockSched     = 2
)

// clockKind sorts clocks by what they need.
type clockKind uint8

const (
	clockHost    clockKind = iota // read from the host
	clockProcess                  // CPU time of a process
	clockThread                   // CPU time of a thread
)

// resolveClock finds what clock id measures: for CPU clocks the process or thread and how (cpuClock*). EINVAL.
func (t *Task) resolveClock(id int32) (kind clockKind, tg *ThreadGroup, th *Task, how int32, err error) {
	switch id {
	case unix.CLOCK_PROCESS_CPUTIME_ID:
		return clockProcess, t.group, nil, cpuClockSched, nil
	case unix.CLOCK_THREAD_CPUTIME_ID:
		return clockThread, nil, t, cpuClockSched, nil
	}
	if id >= 0 {
		if id > unix.CLOCK_TAI || id == 10 {
			return 0, nil, nil, 0, unix.EINVAL
		}
		return clockHost, nil, nil, 0, nil
	}
	how = id & cpuClockMask
	if how > cpuClockSched {
		return 0, nil, nil, 0, unix.EINVAL
	}
	n := ^(id >> 3)
	if id&cpuClockPerThread != 0 {
		th = t
		if n != 0 {
			th = t.PIDNS().TaskByTID(n)
		}
		if th == nil || th.group != t.group {
			return 0, nil, nil, 0, unix.EINVAL
		}
		return clockThread, nil, th, how, nil
	}
	tg = t.group
	if n != 0 {
		tg = t.PIDNS().GroupByTGID(n)
	}
	if tg == nil {
		return 0, nil, nil, 0, unix.EINVAL
	}
	return clockProcess, tg, nil, how, nil
}

func cpuOf(r *rusage, how int32) int64 {
	if how == cpuClockVirt {
		return r.utime
	}
	return r.utime + r.stime
}

// ClockNow reads a clock in nanoseconds (clock_gettime(2)). EINVAL.
func (t *Task) ClockNow(id int32) (int64, error) {
	kind, tg, th, how, err := t.resolveClock(id)
	if err != nil {
		return 0, err
	}
	if kind != clockHost {
		t.acct.sync()
	}
	switch kind {
	case clockProcess:
		r := tg.usage()
		return cpuOf(&r, how), nil
	case clockThread:
		r := th.usage()
		return cpuOf(&r, how), nil
	}
	return clock.Now(id), nil
}

// ClockValid checks a clock ID as clock_getres(2) does.
func (t *Task) ClockValid(id int32) error {
	_, _, _, _, err := t.resolveClock(id)
	return err
}

// ToMonotonic turns an absolute time of a host clock into one of CLOCK_MONOTONIC, by their present difference.
func ToMonotonic(id int32, abs int64) int64 {
	if id == unix.CLOCK_MONOTONIC {
		return abs
	}
	return addSat(clock.Monotonic(), abs-clock.Now(id))
}

// addSat adds durations or times without overflow.
func addSat(a, b int64) int64 {
	s := a + b
	if a > 0 && b > 0 && s < 0 {
		return maxTime
	}
	return s
}

// maxTime is later than anything, and less than vfs.NoDeadline.
const maxTime = 1<<63 - 2

// DeadlineAfter is the time d nanoseconds from now in CLOCK_MONOTONIC; it saturates.
func DeadlineAfter(d int64) int64 { return addSat(clock.Monotonic(), d) }

// SleepUntil blocks until clock id reads abs (clock_nanosleep(2)); the error is nil when it does, vfs.ErrInterrupted or EINVAL.
func (t *Task) SleepUntil(id int32, abs int64) error {
	kind, _, _, _, err := t.resolveClock(id)
	if err != nil {
		return err
	}
	for {
		now, err := t.ClockNow(id)
		if err != nil {
			return err
		}
		left := abs - now
		if left <= 0 {
			return nil
		}
		if kind != clockHost {
			// CPU time passes no faster than threads run.
			left = max(left/int64(t.k.numCPU), 1e6)
		}
		if err := t.Block(t.wake.C, DeadlineAfter(left)); err != nil && err != unix.ETIMEDOUT {
			return err
		}
	}
}
