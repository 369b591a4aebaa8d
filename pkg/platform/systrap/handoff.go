package systrap

import (
	"runtime"
	"sync/atomic"

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
	ticks    uint64      // time stamps per microsecond; immutable
	affinity unix.CPUSet // processors of the sentry, and of all application threads; immutable
	pauses   uint32      // rounds of the spin loop per microsecond; immutable
	_        [40]byte
	running  atomic.Int32 // contexts in application code
	_        [60]byte
	spinning atomic.Int32 // goroutines that spin for them
}

// calibrate measures the time stamp counter and the spin loop; it takes the best of a few tries of about 10 us.
func (p *pace) calibrate() {
	unix.SchedGetaffinity(0, &p.affinity)
	p.cpus = int32(min(runtime.NumCPU(), runtime.GOMAXPROCS(0)))
	const rounds = 300
	var zero uint32
	bestNs, bestTicks := int64(1<<62), uint64(0)
	for range 5 {
		var a, b unix.Timespec
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &a)
		t := rdtsc()
		spinEvent(&zero, 1, 1, rounds)
		t = rdtsc() - t
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &b)
		if ns := b.Nano() - a.Nano(); ns < bestNs && ns > 0 {
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

// resume lets the thread run.
func (t *thread) resume() {
	s, p := t.slot, &t.as.p.pace
	now := rdtsc()
	p.score(&t.spin.service, now-s.tsc, spinServiceMax)
	t.spin.resumed = now
	running := p.running.Add(1)
	s.spin = 0
	if t.spin.service >= 0 && running < p.cpus {
		s.spin = spinServiceMax * p.pauses
	}
	s.peer = cpuNumber()
	if atomic.SwapUint32(&s.state, stateRun) == stateEventSleep {
		futexWake(&s.state)
	}
}

// wait waits until the thread stops or the process is dead.
func (t *thread) wait() {
	s, p := t.slot, &t.as.p.pace
	for !t.spinRun() {
		if !atomic.CompareAndSwapUint32(&s.state, stateRun, stateRunSleep) && atomic.LoadUint32(&s.state)&1 != 0 {
			break
		}
		if !futexWait(&s.state, stateRunSleep, &unix.Timespec{Sec: 1}) && t.as.isDead() || t.as.dead.Load() {
			break
		}
	}
	p.running.Add(-1)
	p.score(&t.spin.run, s.tsc-t.spin.resumed, spinRunMax)
}

// spinRun spins for the thread if that seems worth while; true if it stopped.
func (t *thread) spinRun() bool {
	s, p := t.slot, &t.as.p.pace
	if atomic.LoadUint32(&s.state)&1 != 0 {
		return true
	}
	if t.spin.run < 0 || s.cpu == cpuNumber() {
		return false
	}
	if p.spinning.Add(1)+p.running.Load() > p.cpus {
		p.spinning.Add(-1)
		return false
	}
	// In pieces, so that the scheduler can stop the goroutine in between.
	hit := false
	for left := spinRunMax; left > 0 && !hit; left -= 10 {
		hit = spinEvent(&s.state, 1, 1, 10*p.pauses)
	}
	p.spinning.Add(-1)
	return hit
}
