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
// is system time, both less what the thread lost to others in the crowd. Times are in clock.Ticks. What others read is published about
// every millisecond, and before blocking.
type taskAccounting struct {
	crowd *crowd // immutable

	// Own goroutine: sums, the time of the last change between user, system and blocked, what was lost by then, and of the last publication.
	user, system, mark, lost, published int64
	minflt                              int64

	seq           atomic.Uint32
	times         [2]publishedTimes // the last are times[seq&1]; the others change before seq does
	nvcsw, nivcsw atomic.Int64
	io            IOCounters
}

// publishedTimes are a thread's times as others see them: all of one publication, or they would go forth and back.
type publishedTimes struct {
	utime, stime atomic.Int64 // user and system
	since        atomic.Int64 // mark; 0 while the thread is blocked, or has not begun
	lost         atomic.Int64
}

// publishTicks is how old published times may get: 2^21 cycles are about a millisecond.
const publishTicks = 1 << 21

// IOCounters are those of /proc/PID/io.
type IOCounters struct {
	RChar, WChar, SyscR, SyscW atomic.Uint64
}

func (a *taskAccounting) begin(c *crowd) {
	a.crowd = c
	a.endBlock()
}

func (a *taskAccounting) publish() { a.publishSince(a.mark) }

func (a *taskAccounting) publishSince(since int64) {
	seq := a.seq.Load()
	p := &a.times[(seq+1)&1]
	p.utime.Store(a.user)
	p.stime.Store(a.system)
	p.since.Store(since)
	p.lost.Store(a.lost)
	a.seq.Store(seq + 1)
	a.published = a.mark
}

// lap is the thread's time since mark, which it moves to now.
func (a *taskAccounting) lap() int64 {
	now := clock.Ticks()
	d := now - a.mark
	a.mark = now
	if l := a.crowd.lost(now) - a.lost; l > 0 {
		l = min(l, max(d, 0))
		a.lost += l
		d -= l
	}
	return d
}

// enterUser tells whether it has published the times.
func (a *taskAccounting) enterUser() bool {
	a.system += a.lap()
	if a.mark-a.published <= publishTicks {
		return false
	}
	a.publish()
	return true
}

func (a *taskAccounting) leaveUser() { a.user += a.lap() }

func (a *taskAccounting) beginBlock() {
	a.system += a.lap()
	a.publishSince(0)
	a.nvcsw.Add(1)
	a.crowd.leave()
}

func (a *taskAccounting) endBlock() {
	a.crowd.join()
	a.mark = clock.Ticks()
	a.lost = a.crowd.lost(a.mark)
	a.publish()
}

// sync publishes exact times. Own goroutine, in the kernel.
func (a *taskAccounting) sync() {
	a.system += a.lap()
	a.publish()
}

// IO are the counters of /proc/PID/io. Any goroutine.
func (t *Task) IO() *IOCounters { return &t.acct.io }

// SyncUsage makes the times of the calling thread exact for whoever asks next. Own goroutine.
func (t *Task) SyncUsage() { t.acct.sync() }

// usage is what the thread has used so far. Any goroutine; what is under way is estimated.
func (t *Task) usage() rusage {
	a := &t.acct
	var u, s, since, lost int64
	for {
		seq := a.seq.Load()
		p := &a.times[seq&1]
		u, s, since, lost = p.utime.Load(), p.stime.Load(), p.since.Load(), p.lost.Load()
		if a.seq.Load() == seq {
			break
		}
	}
	if since != 0 {
		now := clock.Ticks()
		d := max(now-since-max(t.k.crowd.lost(now)-lost, 0), 0)
		if t.where.Load() == inUser {
			u += d
		} else {
			s += d
		}
	}
	return rusage{utime: clock.TicksToNS(max(u, 0)), stime: clock.TicksToNS(max(s, 0)), minflt: a.minflt, nvcsw: a.nvcsw.Load(), nivcsw: a.nivcsw.Load()}
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
