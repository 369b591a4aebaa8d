package systrap

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Who waits for the other side spins for a while, since waking a processor that idles in a
// virtual machine costs 50 us, and then sleeps. Spinning pays only where the other side is running on another
// processor and will be done soon. Each thread predicts that from its past, separately for the
// two directions; times are time stamps of both sides, so that they do not contain the wake-ups.

// Longest times to spin, in microseconds. Chosen by the cost of what they save, a wake-up of an idle processor:
// a service that takes longer usually blocks, a stretch of application code that takes longer hides the cost of
// the wake-up.
const (
	spinServiceMax = 50
	spinRunMax     = 200
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
	running  atomic.Int32 // contexts in application code
}

// calibrate measures the time stamp counter and the spin loop; it takes the best of a few tries of about 10 us.
func (p *pace) calibrate() {
	unix.SchedGetaffinity(0, &p.affinity)
	p.poll, p.patience = unix.Timespec{Sec: 1}, 10
	p.cpus = int32(min(runtime.NumCPU(), runtime.GOMAXPROCS(0)))
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

// spinState is what a thread's past says about its future. Scores are saturating counters: above 0
// means that most waits are short.
type spinState struct {
	resumed uint64 // time stamp
	run     int8   // score of stretches of application code
	service int8   // score of the sentry's answers
}

const (
	scoreMax  = 8
	scoreMiss = 3 // a miss weighs as much as so many hits
)

func (p *pace) score(s *int8, ticks uint64, limit uint64) {
	if ticks < limit*p.ticks {
		*s = min(*s+1, scoreMax)
	} else {
		*s = max(*s-scoreMiss, -scoreMax)
	}
}

// enter counts the thread as running, and tells Interrupt and freeze that it will be. The count is a full barrier.
func (t *thread) enter() (running int32) {
	store(&t.inside, 1)
	return t.as.p.pace.running.Add(1)
}

func (t *thread) leave() {
	store(&t.inside, 0)
	t.as.p.pace.running.Add(-1)
}

// resume lets the thread run. running is how many contexts do, all in all.
func (t *thread) resume(running int32) {
	s, p := t.slot, &t.as.p.pace
	now := rdtsc()
	p.score(&t.spin.service, now-s.tsc, spinServiceMax)
	t.spin.resumed = now
	spin := uint32(0)
	if t.spin.service >= 0 && running < p.cpus {
		spin = spinServiceMax * p.pauses
	}
	s.spin, s.peer = spin, cpuNumber()
	t.seq = (t.seq + 1) & seqMask
	if atomic.SwapUint32(&s.goSeq, t.seq)&asleep != 0 {
		futexWake(&s.goSeq)
	}
}

// killedSeq is in slot.stopSeq when the process has been killed.
const killedSeq = seqMask

// wait waits until the thread stops or the process is dead. A thread that should stop, by the interrupt flag, and does
// not is hostile: it blocked the signal, hangs in the stub's code, or wakes the sentry again and again without a stop.
func (t *thread) wait(running int32, interrupt *atomic.Uint32) {
	s, p := t.slot, &t.as.p.pace
	poll := p.poll
	var asked patience
	for !t.spinRun(running) && !t.as.dead.Load() {
		stop := atomic.LoadUint32(&s.stopSeq)
		if stop&seqMask == t.seq || stop == killedSeq {
			break
		}
		if !atomic.CompareAndSwapUint32(&s.stopSeq, stop, stop|asleep) {
			continue
		}
		silent := !futexWait(&s.stopSeq, stop|asleep, &poll)
		switch {
		case silent && t.as.isDead():
		case interrupt.Load() == 0:
		case asked.over(p, 1):
			t.as.kill()
		case silent:
			t.kick()
		}
	}
	p.score(&t.spin.run, s.tsc-t.spin.resumed, spinRunMax)
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

// spinRun spins for the thread if that seems worth while; true if it stopped. There may be as many that spin
// as contexts in application code, each on a processor of its own.
func (t *thread) spinRun(running int32) bool {
	s, p := t.slot, &t.as.p.pace
	if t.spin.run < 0 || 2*running > p.cpus || s.cpu == s.peer {
		return atomic.LoadUint32(&s.stopSeq) == t.seq
	}
	// In pieces, so that the scheduler can stop the goroutine in between.
	for left := spinRunMax; left > 0; left -= 10 {
		if spinEvent(&s.stopSeq, seqMask, t.seq, 10*p.pauses) {
			return true
		}
	}
	return false
}
