package kernel

import (
	"sync/atomic"

	"husk/pkg/sentry/clock"
)

// rusage is what getrusage(2) reports. Times in nanoseconds.
type rusage struct {
	utime, stime   int64
	minflt, majflt int64
	nvcsw, nivcsw  int64
	inblock        int64
	oublock        int64
	maxrss         int64 // bytes
}

func (r *rusage) add(o *rusage) {
	r.utime += o.utime
	r.stime += o.stime
	r.minflt += o.minflt
	r.majflt += o.majflt
	r.nvcsw += o.nvcsw
	r.nivcsw += o.nivcsw
	r.inblock += o.inblock
	r.oublock += o.oublock
	r.maxrss = max(r.maxrss, o.maxrss)
}

// Rusage is the exported form of resource usage, times in nanoseconds, MaxRSS in bytes.
type Rusage struct {
	UTime, STime   int64
	MinFlt, MajFlt int64
	NVCSw, NIvCSw  int64
	MaxRSS         int64
}

func (r *rusage) export() Rusage {
	return Rusage{r.utime, r.stime, r.minflt, r.majflt, r.nvcsw, r.nivcsw, r.maxrss}
}

// taskAccounting counts a thread's use of processors: the time inside Context.Switch is user time, the rest but for blocking
// is system time. Written by the own goroutine, times readable anywhere.
type taskAccounting struct {
	utime, stime  atomic.Int64
	mark          atomic.Int64 // clock.Fast at the last change between user, system and blocked
	nvcsw, nivcsw atomic.Int64
	minflt        int64
	io            IOCounters
}

// IOCounters are those of /proc/PID/io.
type IOCounters struct {
	RChar, WChar, SyscR, SyscW atomic.Uint64
}

func (a *taskAccounting) begin() { a.mark.Store(clock.Fast()) }

func (a *taskAccounting) enterUser() {
	now := clock.Fast()
	a.stime.Store(a.stime.Load() + now - a.mark.Load())
	a.mark.Store(now)
}

func (a *taskAccounting) leaveUser() {
	now := clock.Fast()
	a.utime.Store(a.utime.Load() + now - a.mark.Load())
	a.mark.Store(now)
}

func (a *taskAccounting) beginBlock() {
	now := clock.Fast()
	a.stime.Store(a.stime.Load() + now - a.mark.Load())
	a.mark.Store(now)
	a.nvcsw.Add(1)
}

func (a *taskAccounting) endBlock() { a.mark.Store(clock.Fast()) }

// IO are the counters of /proc/PID/io. Any goroutine.
func (t *Task) IO() *IOCounters { return &t.acct.io }

// usage is what the thread has used so far. Any goroutine; what is under way is estimated.
func (t *Task) usage() rusage {
	a := &t.acct
	r := rusage{utime: a.utime.Load(), stime: a.stime.Load(), minflt: a.minflt, nvcsw: a.nvcsw.Load(), nivcsw: a.nivcsw.Load()}
	if t.exit.done.Load() {
		return r
	}
	mark, where := a.mark.Load(), t.where.Load()
	if mark == 0 {
		return r
	}
	if d := clock.Fast() - mark; d > 0 {
		switch where {
		case inUser:
			r.utime += d
		case inKernel:
			r.stime += d
		}
	}
	return r
}

// Usage is the thread's resource usage (RUSAGE_THREAD). Any goroutine.
func (t *Task) Usage() Rusage {
	r := t.usage()
	return r.export()
}

// CPUTime is the thread's user and system time in nanoseconds. Any goroutine.
func (t *Task) CPUTime() (user, system int64) {
	r := t.usage()
	return r.utime, r.stime
}

// usage sums over all threads; the caller holds tree or mu.
func (tg *ThreadGroup) usageLocked() rusage {
	r := tg.deadAcct
	for _, t := range tg.tasks {
		u := t.usage()
		r.add(&u)
	}
	return r
}

// usage is usageLocked for callers that do not hold mu.
func (tg *ThreadGroup) usage() rusage {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return tg.usageLocked()
}

// Usage is the process' resource usage (RUSAGE_SELF).
func (tg *ThreadGroup) Usage() Rusage {
	r := tg.usage()
	if t := tg.AnyTask(); t != nil {
		if m := t.MM(); m != nil && m.IncUsers() {
			r.maxrss = max(r.maxrss, int64(m.Stats().PeakRSS))
			m.DecUsers()
		}
	}
	return r.export()
}

// ChildrenUsage is that of children that have been waited for (RUSAGE_CHILDREN).
func (tg *ThreadGroup) ChildrenUsage() Rusage {
	tg.k.tree.Lock()
	defer tg.k.tree.Unlock()
	return tg.childAcct.export()
}

// CPUTimes are the process' times and those of its waited-for children; only the times are filled (times(2)).
func (tg *ThreadGroup) CPUTimes() (self, children Rusage) {
	r := tg.usage()
	return r.export(), tg.ChildrenUsage()
}
