package systrap

import (
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Who waits for the other side spins for a while, since waking a processor that idles in a
// virtual machine costs 50 us, and then sleeps. Spinning pays only where the other side is running on another
// processor and will be done soon. Each thread predicts that from its past, separately for the
// two directions; times are time stamps of both sides, so that they do not contain the wake-ups of the sentry. Those that
// contain one of the thread do not count.

// Longest times to spin, in microseconds. Chosen by the cost of what they save, a wake-up of an idle processor:
// a service that takes longer usually blocks, a stretch of application code that takes longer hides the cost of
// the wake-up. A thread whose context is blocked keeps its processor awake for the next one. Where contexts in application code need all processors, only the shortest stretches are worth one.
const (
	spinServiceMax = 50
	spinBlockMax   = 100
	spinRunMax     = 200 // where the mean is below that
	spinRunOften   = 50  // where a share is
	spinBusy       = 20
	// spinPiece is how long a goroutine spins before it lets others run. A system call right behind another takes less.
	spinPiece = 5
	// spinAlone is the same where there is nobody else: it is not for nothing then, as the runtime wakes another thread to look for work.
	spinAlone = 50
	// spinIdle is when a spinning goroutine does what it has put off, a multiple of spinPiece.
	spinIdle = 50
)

// pace holds what the machine can do, and how busy it is with this platform's threads.
type pace struct {
	cpus     int32
	poll     unix.Timespec // how often to look whether a silent thread is alive
	patience int32         // polls before a thread that cannot be stopped is killed
	ticks    uint64        // time stamps per microsecond; immutable
	affinity unix.CPUSet   // processors of the sentry, and of all application threads; immutable
	pauses   uint32        // rounds of the spin loop per microsecond; immutable
	_        [40]byte
	running  atomic.Int32           // contexts in application code
	latest   atomic.Pointer[thread] // told to go last
	cpu      [cpuSlots]cpuState     // by processor
}

// calibrate measures the time stamp counter and the spin loop; it takes the best of a few tries of about 10 us.
func (p *pace) calibrate() {
	unix.SchedGetaffinity(0, &p.affinity)
	p.poll, p.patience = unix.Timespec{Sec: 1}, 10
	p.cpus = int32(runtime.NumCPU())
	const rounds = 300
	var zero uint32
	bestNs, bestTicks := int64(1<<62), uint64(0)
	for range 5 {
		start := time.Now()
		t := rdtsc()
		spinEvent(&zero, 1, 1, rounds)
		t = rdtsc() - t
		if ns := time.Since(start).Nanoseconds(); ns < bestNs && ns > 0 {
			bestNs, bestTicks = ns, t
		}
	}
	p.ticks = max(bestTicks*1000/uint64(bestNs), 1)
	p.pauses = uint32(max(rounds*1000/bestNs, 1))
}

// spinState is what a thread's past says about its future, in time stamps.
type spinState struct {
	resumed uint64  // when it was told to go last
	run     average // of stretches of application code
	runs    odds    // of them, within spinRunOften
	service odds    // of the sentry's answers, within spinServiceMax, without
	block   average // those for which it blocked the thread
	yielded uint64  // of stretches that began after giveWay, the wait for the processor included: a slow mean
}

// odds are how often a time is within a limit, and within spinBusy. A mean would not tell: one service of a millisecond makes
// many short ones look long.
type odds struct{ short, brief share }

func (o *odds) add(ticks, limit uint64, p *pace) {
	o.short.add(ticks < limit*p.ticks)
	o.brief.add(ticks < spinBusy*p.ticks)
}

// share is a moving average of how often a time was not within the limit, in 1024ths; each new value has the weight of an eighth.
type share uint32

func (s *share) add(hit bool) {
	*s -= *s / 8
	if !hit {
		*s += 1024 / 8
	}
}

// pays tells whether it pays to spin for about as long as a wake-up takes: a quarter of hits makes up for the misses, as
// a miss costs the spinning, but a hit saves the wake-up on both sides, and two switches.
func (s share) pays() bool { return s <= 768 }

// usual is pays where others could use the processor meanwhile.
func (s share) usual() bool { return s <= 384 }

// average is a moving average; each new value has the weight of a quarter.
type average uint64

// add counts ticks; what is longer than four times the limit of interest counts as that, so that one
// long time ends the spinning, and a few short ones bring it back.
func (a *average) add(ticks, limit uint64) {
	*a += average(min(ticks, 4*limit))/4 - *a/4
}

// addYielded counts a stretch that began after giveWay, or (false) another: that makes it try again after a few hundred of them.
func (s *spinState) addYielded(ticks uint64, yielded bool, p *pace) {
	if yielded {
		s.yielded += min(ticks, giveWayCap*p.ticks)/16 - s.yielded/16
	} else {
		s.yielded -= s.yielded / 256
	}
}

// enter counts the thread as running, and tells Interrupt and freeze that it will be. The count is a full barrier.
func (t *thread) enter() (running int32) {
	store(&t.inside, 1)
	t.as.deferred.active.Add(1)
	return t.as.p.pace.running.Add(1)
}

func (t *thread) leave() {
	store(&t.inside, 0)
	t.as.deferred.active.Add(-1)
	t.as.p.pace.running.Add(-1)
}

// resume lets the thread run. running is how many contexts do, all in all.
func (t *thread) resume(running int32) {
	s, p := t.slot, &t.as.p.pace
	now := rdtsc()
	if t.fresh {
		t.fresh = false
	} else if t.blocked {
		t.blocked = false
		t.spin.block.add(now-s.tsc, spinBlockMax*p.ticks)
	} else {
		t.spin.service.add(now-s.tsc, spinServiceMax, p)
	}
	t.spin.resumed = now
	if p.latest.Load() == t {
		t.streak++
	} else {
		p.latest.Store(t)
		t.streak = 0
	}
	spin := uint32(0)
	if running <= p.cpus {
		if t.spin.service.short.pays() {
			spin = spinBlockMax * p.pauses
		}
	} else if t.spin.service.brief.usual() {
		spin = spinBusy * p.pauses
	}
	if fixedPace {
		spin = fixedStub * p.pauses
	}
	cpu := cpuNumber()
	yielded := t.yielding.Swap(false)
	s.spin, s.peer = int32(spin), cpu
	if t.seq = (t.seq + 1) & seqMask; t.seq == killedSeq {
		t.seq = 0
	}
	if last := &p.cpu[t.cpu%cpuSlots].last; last.Load() != t {
		last.Store(t)
	}
	if atomic.LoadUint32(&s.goSeq)&asleep != 0 {
		t.keepAway(cpu, running)
	}
	if t.woken = atomic.SwapUint32(&s.goSeq, t.seq)&asleep != 0; t.woken {
		t.rouse()
	} else if u := p.cpu[t.cpu%cpuSlots].idle.Swap(nil); u != nil && u != t {
		u.giveWay()
	}
	t.yielded = yielded && !t.woken
}

// soloStreak is after how many stretches in a row a thread counts as alone.
const soloStreak = 8

// solo tells whether no other thread ran for a while.
func (t *thread) solo() bool { return t.streak >= soloStreak && t.as.p.pace.running.Load() <= 1 }

// rest ends the spinning of a thread that has nothing to do.
func (t *thread) rest() { atomic.StoreInt32(&t.slot.spin, 0) }

// Two threads that take turns on a processor, as those of a pipeline do, hand it over by sched_yield(2): it costs 2 us less than a sleep
// and a wake-up. Where something else wants the processor, yielding costs more, up to a time slice of it: in the sandbox, who is in
// application code tells; of others, how long it took until the thread ran again.
const (
	giveWays   = 4    // calls before it sleeps: the scheduler may need more than one
	giveWayMax = 20   // microseconds that a stretch of application code behind it may take, on the average
	giveWayCap = 1000 // what is longer counts as that
)

// giveWay ends the spinning of a thread whose processor another one that is ready wants.
func (t *thread) giveWay() {
	if p := &t.as.p.pace; p.running.Load() >= p.cpus || !t.mayYield.Load() {
		t.rest()
		return
	}
	t.yielding.Store(true)
	atomic.StoreInt32(&t.slot.spin, -giveWays)
}

// rouse wakes the thread. Where another thread spins that has nothing to do, on the processor that t is to run on, that one
// does it before it goes to sleep: waking a thread of another processor takes an interrupt, which costs 30 us in a virtual
// machine. It may be hostile, so see insist.
func (t *thread) rouse() {
	atomic.AddUint32(t.word, 1)
	u := t.as.p.pace.cpu[t.cpu%cpuSlots].idle.Swap(nil)
	if u == nil || u == t || t.hint == noWord || atomic.LoadInt32(&u.slot.spin) <= 0 || atomic.LoadUint32(&u.slot.goSeq)&asleep != 0 {
		futexWake(t.word)
		return
	}
	t.waker = u
	atomic.StoreUint64(&u.slot.wake, t.wordAddr())
	u.giveWay()
}

// insist wakes the thread if the one that should do it did not.
func (t *thread) insist() {
	if t.waker == nil {
		return
	}
	t.waker = nil
	if atomic.LoadUint32(&t.slot.sleeping) != 0 {
		futexWake(t.word)
	}
}

// keepAway moves a sleeping thread to where it does not need the processor of the sentry, so that the two can hand over
// without sleeping; as long as there are enough processors, or the thread needs none for long.
func (t *thread) keepAway(cpu uint32, running int32) {
	p := &t.as.p.pace
	if running >= p.cpus && uint64(t.spin.run) >= spinBusy*p.ticks {
		cpu = noCPU
	}
	t.avoid(cpu)
}

// avoid keeps the thread off a processor; noCPU ends that.
func (t *thread) avoid(away uint32) {
	if t.away == away {
		return
	}
	set := t.as.p.pace.affinity
	if away != noCPU {
		set.Clear(int(away))
		if set.Count() == 0 {
			return
		}
	}
	if unix.SchedSetaffinity(t.tid, &set) == nil {
		t.away = away
		if t.cpu == away {
			t.cpu = next(&set, away)
		}
	}
}

// next is the first processor of a set, which is not empty, behind cpu and then from 0 on.
func next(set *unix.CPUSet, cpu uint32) uint32 {
	const all = 8 * uint32(unsafe.Sizeof(*set))
	for range all {
		if cpu = (cpu + 1) % all; set.IsSet(int(cpu)) {
			break
		}
	}
	return cpu
}

// cpuState says which threads may be on a processor. It is a guess: they move.
type cpuState struct {
	last atomic.Pointer[thread] // told to go last
	idle atomic.Pointer[thread] // spins though it is blocked
}

const cpuSlots = 64

// killedSeq is in slot.stopSeq when the process has been killed.
const killedSeq = seqMask

// stopped tells whether the thread stopped, or its process is dead.
func (t *thread) stopped() bool {
	stop := atomic.LoadUint32(&t.slot.stopSeq) & seqMask
	return stop == t.seq || stop == killedSeq || t.as.dead.Load()
}

// wait waits until the thread stops or the process is dead. idle, which may be nil, is called if that takes a while.
func (t *thread) wait(running int32, idle func()) {
	p := t.as.p
	t.asked = patience{}
	for !t.spinRun(running, idle) {
		t.insist()
		if idle != nil {
			idle()
		}
		if !p.reactor.doze(t) {
			p.reactor.await(t)
		}
	}
	t.cpu = t.slot.cpu
	if !t.woken {
		run := t.slot.tsc - t.spin.resumed
		t.spin.run.add(run, spinRunMax*p.pace.ticks)
		t.spin.runs.add(run, spinRunOften, &p.pace)
		t.spin.addYielded(run, t.yielded, &p.pace)
		if may := t.spin.yielded < giveWayMax*p.pace.ticks; may != t.mayYield.Load() {
			t.mayYield.Store(may)
		}
	}
}

// patience says when to give up on a thread that should answer. It goes by the clock, as the application can
// wake the sentry as often as it likes; but a pause longer than a poll is a frozen sandbox.
type patience struct {
	last, spent uint64 // time stamps
}

// over tells whether the thread has been silent for n times as long as an application thread may be.
func (w *patience) over(p *pace, n uint64) bool {
	poll := uint64(p.poll.Nano()) / 1000 * p.ticks
	now := rdtsc()
	if w.last != 0 {
		w.spent += min(now-w.last, 2*poll)
	}
	w.last = now
	return w.spent > n*uint64(p.patience)*poll
}

// patience is how many microseconds to spin for the end of a stretch of application code.
func (s *spinState) patience(p *pace, busy bool) int {
	switch {
	case busy && s.runs.brief.usual():
		return spinBusy
	case busy:
		return 0
	case uint64(s.run) < spinRunMax*p.ticks:
		return spinRunMax
	case s.runs.short.pays():
		return spinRunOften
	}
	return 0
}

// spinRun spins for the thread if that seems worth while; true if it stopped. No more goroutines spin than there are
// processors: where two threads on two processors do nothing but calls, each sentry's side then is with one stub at full speed for
// a time slice of the host (1.25 times the calls of one that spins for one and finds the stops of the other).
func (t *thread) spinRun(running int32, idle func()) bool {
	s, p, r := t.slot, &t.as.p.pace, &t.as.p.reactor
	r.share(t, t.spin.resumed)
	if t.stopped() {
		return true
	}
	limit := t.spin.patience(p, 2*running > p.cpus)
	if fixedPace {
		limit = fixedSentry
	} else if limit == 0 || t.cpu == s.peer || r.spinners.Load() >= p.cpus {
		return false
	}
	r.spinning()
	defer r.spun()
	// In pieces, so that others get their turn in between.
	for left := limit; left > 0; left -= spinPiece {
		if spinEvent(&s.stopSeq, seqMask, t.seq, spinPiece*p.pauses) {
			return true
		}
		if left == limit-3*spinPiece {
			t.insist()
		}
		if left == limit-spinIdle && idle != nil { // a shorter spin ends before
			idle()
		}
		if r.count.Load() != 0 {
			r.scan()
		}
		if left%spinAlone == 0 || !t.solo() {
			runtime.Gosched()
		}
	}
	return t.stopped()
}
