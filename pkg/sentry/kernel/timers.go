package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/clock"
)

// minRepeat bounds how often timers fire whose signal is ignored, and how often CPU timers are looked at, in nanoseconds.
const minRepeat = 1e6

// minOthers is how much longer that is for each timer of timer_create(2) that the process has: who has tens of thousands holds up nobody else's.
const minOthers = 2e4

// intervalTimer is one of setitimer(2). Times in nanoseconds: of CLOCK_MONOTONIC, or of CPU time.
type intervalTimer struct {
	deadline int64 // 0: not armed
	interval int64
	pending  bool // ITIMER_REAL: fired and to be armed again when SIGALRM is taken
}

// groupTimers are the timers of a process, protected by its mu.
type groupTimers struct {
	real, virt, prof intervalTimer
	realTimer        clock.Timer
	posix            map[int32]*posixTimer
	nextID           int32
	cpuTimer         clock.Timer // looks at CPU timers
	cpuArmed         bool
	cpuAt            int64 // when cpuTimer fires, if it is armed
	// cpuWarned is the CPU time in seconds at which RLIMIT_CPU sends SIGXCPU next; 0 before the first.
	cpuWarned uint64
	cpuTold   bool // SIGXCPU was sent
	restoreID bool // PR_TIMER_CREATE_RESTORE_IDS
	ended     bool
}

// ITimer describes an interval timer as getitimer(2) does, in nanoseconds.
type ITimer struct {
	Value, Interval int64
}

func (g *groupTimers) which(w int32) *intervalTimer {
	switch w {
	case unix.ITIMER_REAL:
		return &g.real
	case unix.ITIMER_VIRTUAL:
		return &g.virt
	}
	return &g.prof
}

// itimerNow is the time that timer w counts. The caller holds mu.
func (tg *ThreadGroup) itimerNow(w int32) int64 {
	if w == unix.ITIMER_REAL {
		return clock.Monotonic()
	}
	u := tg.usageLocked()
	if w == unix.ITIMER_VIRTUAL {
		return u.utime
	}
	return u.utime + u.stime
}

// GetITimer is getitimer(2) for a valid which (0 to 2).
func (tg *ThreadGroup) GetITimer(w int32) ITimer {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return tg.getITimerLocked(w)
}

func (tg *ThreadGroup) getITimerLocked(w int32) ITimer {
	it := tg.timers.which(w)
	v := ITimer{Interval: it.interval}
	if it.deadline != 0 {
		v.Value = max(it.deadline-tg.itimerNow(w), 1000)
	}
	return v
}

// SetITimer is setitimer(2) for a valid which; it returns the old setting.
func (tg *ThreadGroup) SetITimer(w int32, v ITimer) ITimer {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	old := tg.getITimerLocked(w)
	it := tg.timers.which(w)
	*it = intervalTimer{interval: v.Interval}
	if v.Value != 0 {
		it.deadline = addSat(tg.itimerNow(w), v.Value)
	}
	if w == unix.ITIMER_REAL {
		tg.armReal(v.Value)
	} else if v.Value != 0 {
		tg.armCPU()
	}
	return old
}

// armReal starts or stops the timer of ITIMER_REAL, which fires in d nanoseconds. The caller holds mu.
func (tg *ThreadGroup) armReal(d int64) {
	g := &tg.timers
	switch {
	case g.ended:
	case g.real.deadline == 0:
		tg.k.timers.Stop(&g.realTimer)
	default:
		tg.k.timers.Set(&g.realTimer, addSat(clock.Monotonic(), d))
	}
}

// realFired looks whether ITIMER_REAL is due. The caller holds mu.
func (tg *ThreadGroup) realFired() {
	it := &tg.timers.real
	now := clock.Monotonic()
	if it.deadline == 0 || it.pending || tg.timers.ended {
		return
	}
	if now < it.deadline {
		tg.armReal(it.deadline - now)
		return
	}
	alrm := linux.Signal(unix.SIGALRM)
	tg.sendLocked(nil, kernelInfo(alrm), true, nil)
	if it.interval == 0 {
		it.deadline = 0
		return
	}
	if tg.pending.set.Has(alrm) {
		it.pending = true // armed again when the signal is taken, so that a slow process is not flooded
		return
	}
	tg.forwardReal(now, minRepeat)
}

// forwardReal arms the next expiry of ITIMER_REAL behind now. The caller holds mu.
func (tg *ThreadGroup) forwardReal(now, least int64) {
	it := &tg.timers.real
	it.pending = false
	it.forward(now)
	tg.armReal(max(it.deadline-now, least))
}

// signalTaken is called when a signal has been dequeued. The caller holds mu.
func (tg *ThreadGroup) signalTaken(sig linux.Signal) {
	if sig == linux.Signal(unix.SIGALRM) && tg.timers.real.pending {
		tg.forwardReal(clock.Monotonic(), 0)
	}
}

// armCPU makes sure that CPU timers and limits are looked at. The caller holds mu.
func (tg *ThreadGroup) armCPU() {
	if left, any := tg.cpuLeft(); any {
		tg.armCPUIn(left)
	}
}

// armCPUIn makes sure that CPU timers are looked at when the process may have used that much more CPU time. The caller holds mu.
func (tg *ThreadGroup) armCPUIn(left int64) {
	g := &tg.timers
	at := addSat(clock.Monotonic(), max(left/int64(max(len(tg.tasks), 1)), minRepeat))
	if g.ended || g.cpuArmed && g.cpuAt <= at {
		return
	}
	g.cpuArmed, g.cpuAt = true, at
	tg.k.timers.Set(&g.cpuTimer, at)
}

// cpuLeft is the CPU time until the next CPU timer or limit is due. The caller holds mu.
func (tg *ThreadGroup) cpuLeft() (left int64, any bool) {
	g := &tg.timers
	u := tg.usageLocked()
	cpu := u.utime + u.stime
	left = maxTime
	due := func(deadline, now int64) {
		any = true
		left = min(left, max(deadline-now, 0))
	}
	if g.virt.deadline != 0 {
		due(g.virt.deadline, u.utime)
	}
	if g.prof.deadline != 0 {
		due(g.prof.deadline, cpu)
	}
	for _, p := range g.posix {
		if p.kind != clockHost && p.deadline != 0 && !p.queued {
			due(p.deadline, p.nowWith(&u))
		}
	}
	if lim := tg.limits.Get(unix.RLIMIT_CPU); lim.Cur != ^uint64(0) {
		next := max(lim.Cur, g.cpuWarned)
		due(int64(min(next, 1<<33))*1e9, cpu)
	}
	return left, any
}

// cpuFired looks at the CPU timers; it runs on a goroutine of its own, as there may be many.
func (tg *ThreadGroup) cpuFired() {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	g := &tg.timers
	g.cpuArmed = false
	if g.ended || tg.exiting.Load() {
		return
	}
	u := tg.usageLocked()
	cpu := u.utime + u.stime
	tg.expireCPU(&g.virt, u.utime, linux.Signal(unix.SIGVTALRM))
	tg.expireCPU(&g.prof, cpu, linux.Signal(unix.SIGPROF))
	for _, p := range g.posix {
		if p.kind == clockHost || p.deadline == 0 || p.queued {
			continue
		}
		if now := p.nowWith(&u); now >= p.deadline {
			p.expireLocked(now)
		}
	}
	if lim := tg.limits.Get(unix.RLIMIT_CPU); lim.Cur != ^uint64(0) {
		sec := uint64(cpu / 1e9)
		switch {
		case lim.Max != ^uint64(0) && sec >= lim.Max && (g.cpuTold || lim.Cur >= lim.Max):
			tg.groupExitLocked(int32(sigKILL))
			return
		case sec >= max(lim.Cur, g.cpuWarned):
			// Time passes both limits at once where the host stopped the sandbox meanwhile, which cannot be told from work.
			tg.sendLocked(nil, kernelInfo(linux.Signal(unix.SIGXCPU)), true, nil)
			g.cpuWarned, g.cpuTold = sec+1, true
		}
	}
	tg.armCPU()
}

func (tg *ThreadGroup) expireCPU(it *intervalTimer, now int64, sig linux.Signal) {
	if it.deadline == 0 || now < it.deadline {
		return
	}
	tg.sendLocked(nil, kernelInfo(sig), true, nil)
	if it.interval == 0 {
		it.deadline = 0
		return
	}
	it.forward(now)
}

// forward moves the deadline, which has passed, behind now.
func (it *intervalTimer) forward(now int64) {
	it.deadline = addSat(it.deadline+(now-it.deadline)/it.interval*it.interval, it.interval)
}

// LimitChanged is called after RLIMIT_CPU has changed.
func (tg *ThreadGroup) LimitChanged() {
	tg.mu.Lock()
	tg.timers.cpuWarned = 0
	tg.armCPU()
	tg.mu.Unlock()
}

// stopTimers ends timers that do not survive execve(2) (all: those of setitimer as well, at exit). The caller holds mu.
func (tg *ThreadGroup) stopTimers(all bool) {
	g := &tg.timers
	if len(g.posix) != 0 {
		tg.dropTimers(&tg.pending)
		for _, t := range tg.tasks {
			tg.dropTimers(&t.sig.pending)
		}
	}
	for id, p := range g.posix {
		p.queued = false
		p.stopLocked()
		delete(g.posix, id)
	}
	if !all {
		return
	}
	g.ended = true
	tg.k.timers.Stop(&g.realTimer)
	tg.k.timers.Stop(&g.cpuTimer)
}

// endTimers is called when the last thread is gone.
func (tg *ThreadGroup) endTimers() {
	tg.mu.Lock()
	tg.stopTimers(true)
	tg.mu.Unlock()
}
