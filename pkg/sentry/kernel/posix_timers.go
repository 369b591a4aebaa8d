package kernel

import (
	"math"

	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/clock"
)

// posixTimer is a timer of timer_create(2). Fields that change are protected by the mu of the process.
type posixTimer struct {
	tg    *ThreadGroup // immutable: owner
	id    int32        // immutable
	clock int32        // immutable
	kind  clockKind    // immutable
	cpuTG *ThreadGroup // immutable: for clockProcess
	cpuTh *Task        // immutable: for clockThread
	how   int32        // immutable

	notify int32        // immutable: SIGEV_*
	sig    linux.Signal // immutable
	value  uint64       // immutable: si_value
	target *Task        // immutable: SIGEV_THREAD_ID

	deadline int64 // on its clock (CLOCK_MONOTONIC for host clocks); 0: not armed
	interval int64
	queued   bool // its signal waits to be taken; the timer is armed again then
	overrun  int64
	lastOver int32 // timer_getoverrun(2)
	timer    clock.Timer
	dead     bool
}

// maxPosixTimers bounds a process' timers; Linux bounds them by RLIMIT_SIGPENDING.
const maxPosixTimers = 1 << 16

// TimerCreate is timer_create(2); ev nil stands for SIGALRM to the process with the ID as its value. EINVAL, EAGAIN.
func (t *Task) TimerCreate(id int32, ev *linux.Sigevent) (int32, error) {
	kind, ctg, cth, how, err := t.resolveClock(id)
	if err != nil {
		return 0, err
	}
	switch id {
	case unix.CLOCK_REALTIME_COARSE, unix.CLOCK_MONOTONIC_COARSE, unix.CLOCK_MONOTONIC_RAW:
		return 0, unix.EOPNOTSUPP
	case unix.CLOCK_REALTIME_ALARM, unix.CLOCK_BOOTTIME_ALARM:
		if !t.HasRootCap(unix.CAP_WAKE_ALARM) {
			return 0, unix.EPERM
		}
	}
	p := &posixTimer{tg: t.group, clock: id, kind: kind, cpuTG: ctg, cpuTh: cth, how: how, sig: linux.Signal(unix.SIGALRM)}
	if ev != nil {
		p.notify, p.value, p.sig = ev.Notify, ev.Value, linux.Signal(ev.Signo)
		switch ev.Notify {
		case linux.SIGEV_NONE:
		case linux.SIGEV_SIGNAL, linux.SIGEV_THREAD:
			if !p.sig.Valid() {
				return 0, unix.EINVAL
			}
		case linux.SIGEV_THREAD_ID:
			p.target = t.PIDNS().TaskByTID(ev.TID)
			if p.target == nil || p.target.group != t.group || !p.sig.Valid() {
				return 0, unix.EINVAL
			}
		default:
			return 0, unix.EINVAL
		}
	}
	tg := t.group
	tg.mu.Lock()
	defer tg.mu.Unlock()
	g := &tg.timers
	if len(g.posix) >= maxPosixTimers || uint64(len(g.posix)) >= tg.limits.Get(unix.RLIMIT_SIGPENDING).Cur {
		return 0, unix.EAGAIN
	}
	if g.posix == nil {
		g.posix = make(map[int32]*posixTimer)
	}
	for g.posix[g.nextID] != nil {
		g.nextID = (g.nextID + 1) & math.MaxInt32
	}
	p.id = g.nextID
	g.nextID = (g.nextID + 1) & math.MaxInt32
	if ev == nil {
		p.value = uint64(p.id)
	}
	p.timer.F = p.fired
	g.posix[p.id] = p
	return p.id, nil
}

// nowLocked is the time on the timer's clock. The caller holds the owner's mu.
func (p *posixTimer) nowLocked() int64 {
	if p.kind == clockProcess && p.cpuTG == p.tg {
		r := p.tg.usageLocked()
		return cpuOf(&r, p.how)
	}
	return p.nowWith(nil)
}

// nowWith is nowLocked where own, the owner's usage, is known: it takes a look at all threads.
func (p *posixTimer) nowWith(own *rusage) int64 {
	switch p.kind {
	case clockThread:
		r := p.cpuTh.usage()
		return cpuOf(&r, p.how)
	case clockProcess:
		if p.cpuTG == p.tg {
			return cpuOf(own, p.how)
		}
		r := p.cpuTG.deadAcct // of another process: read without its lock, good enough
		return cpuOf(&r, p.how)
	}
	return clock.Monotonic()
}

func (tg *ThreadGroup) posixTimer(id int32) (*posixTimer, error) {
	if p := tg.timers.posix[id]; p != nil {
		return p, nil
	}
	return nil, unix.EINVAL
}

// TimerSet is timer_settime(2): it returns the old setting. Value 0 disarms.
func (t *Task) TimerSet(id int32, abs bool, v ITimer) (ITimer, error) {
	tg := t.group
	tg.mu.Lock()
	defer tg.mu.Unlock()
	p, err := tg.posixTimer(id)
	if err != nil {
		return ITimer{}, err
	}
	old := p.getLocked()
	p.disarm()
	p.interval = v.Interval
	p.overrun = 0
	if v.Value == 0 {
		return old, nil
	}
	switch {
	case !abs:
		p.deadline = addSat(p.nowLocked(), v.Value)
	case p.kind == clockHost:
		p.deadline = max(ToMonotonic(p.clock, v.Value), 1)
	default:
		p.deadline = v.Value
	}
	p.armLocked(p.nowLocked(), 0)
	return old, nil
}

// TimerGet is timer_gettime(2).
func (t *Task) TimerGet(id int32) (ITimer, error) {
	tg := t.group
	tg.mu.Lock()
	defer tg.mu.Unlock()
	p, err := tg.posixTimer(id)
	if err != nil {
		return ITimer{}, err
	}
	return p.getLocked(), nil
}

// TimerOverrun is timer_getoverrun(2).
func (t *Task) TimerOverrun(id int32) (int32, error) {
	tg := t.group
	tg.mu.Lock()
	defer tg.mu.Unlock()
	p, err := tg.posixTimer(id)
	if err != nil {
		return 0, err
	}
	return p.lastOver, nil
}

// TimerDelete is timer_delete(2).
func (t *Task) TimerDelete(id int32) error {
	tg := t.group
	tg.mu.Lock()
	defer tg.mu.Unlock()
	p, err := tg.posixTimer(id)
	if err != nil {
		return err
	}
	p.stopLocked()
	delete(tg.timers.posix, id)
	return nil
}

func (p *posixTimer) getLocked() ITimer {
	v := ITimer{Interval: p.interval}
	if p.deadline == 0 {
		return v
	}
	left := p.deadline - p.nowLocked()
	if left <= 0 && p.interval > 0 && (p.queued || p.notify == linux.SIGEV_NONE) {
		left = p.interval - (-left)%p.interval
	}
	if left <= 0 && p.notify == linux.SIGEV_NONE && p.interval == 0 {
		return v
	}
	v.Value = max(left, 1)
	return v
}

// armLocked starts the timer; now is the time on its clock, and least the shortest wait.
func (p *posixTimer) armLocked(now, least int64) {
	if p.notify == linux.SIGEV_NONE || p.dead {
		return
	}
	if p.kind != clockHost {
		p.tg.armCPUIn(max(p.deadline-now, 0))
		return
	}
	// Never before the present: timers that are set into the past again and again would be served before all others.
	p.tg.k.timers.Set(&p.timer, max(p.deadline, now+least))
}

func (p *posixTimer) disarm() {
	p.deadline = 0
	p.tg.k.timers.Stop(&p.timer)
	if p.queued {
		p.unqueue()
	}
}

// stopLocked ends the timer and takes back a signal that has not been delivered.
func (p *posixTimer) stopLocked() {
	p.dead = true
	p.disarm()
}

// unqueue removes the timer's signal from whatever queue it waits in.
func (p *posixTimer) unqueue() {
	p.queued = false
	tg := p.tg
	tg.dropTimer(&tg.pending, p)
	for _, t := range tg.tasks {
		tg.dropTimer(&t.sig.pending, p)
	}
}

// dropTimer removes p's node from q. The caller holds mu.
func (tg *ThreadGroup) dropTimer(q *pendingSignals, p *posixTimer) {
	var prev, found *sigNode
	others := false
	for n, before := q.head, (*sigNode)(nil); n != nil; before, n = n, n.next {
		if n.timer == p {
			prev, found = before, n
		} else if n.info.Signo == int32(p.sig) {
			others = true
		}
	}
	if found == nil {
		return
	}
	found.timer = nil
	tg.unlinkNode(q, prev, found)
	if !others {
		q.set &^= p.sig.Bit()
	}
}

// dropTimers removes the nodes of all timers from q: one by one is quadratic. The caller holds mu, and drops the timers as well.
func (tg *ThreadGroup) dropTimers(q *pendingSignals) {
	var dropped, others linux.SignalSet
	var prev *sigNode
	for n := q.head; n != nil; {
		next, bit := n.next, linux.Signal(n.info.Signo).Bit()
		if n.timer != nil {
			n.timer = nil
			dropped |= bit
			tg.unlinkNode(q, prev, n)
		} else {
			others |= bit
			prev = n
		}
		n = next
	}
	q.set &^= dropped &^ others
}

// fired runs on the goroutine of timers.
func (p *posixTimer) fired() { p.tg.whenFree(p.expired) }

// whenFree runs f with mu held, on a goroutine of its own where somebody else holds it: a process with very many timers or threads may hold it
// for long, and the timers of others do not wait for that.
func (tg *ThreadGroup) whenFree(f func()) {
	if tg.mu.TryLock() {
		defer tg.mu.Unlock()
		f()
		return
	}
	go func() {
		tg.mu.Lock()
		defer tg.mu.Unlock()
		f()
	}()
}

// expired looks whether the timer is due. The caller holds mu.
func (p *posixTimer) expired() {
	if p.dead || p.deadline == 0 || p.queued {
		return
	}
	now := clock.Monotonic()
	if now < p.deadline {
		p.armLocked(now, 0)
		return
	}
	p.expireLocked(now)
}

// expireLocked sends the signal. now is the time on the timer's clock.
func (p *posixTimer) expireLocked(now int64) {
	info := linux.SignalInfo{Signo: int32(p.sig), Code: linux.SI_TIMER}
	info.SetTimer(p.id, 0)
	info.SetValue(p.value)
	to := p.target
	if to != nil && to.sig.exiting {
		p.deadline = 0
		return
	}
	if p.notify != linux.SIGEV_NONE {
		p.tg.sendLocked(to, &info, true, p)
	}
	if p.queued {
		return
	}
	p.forward(now, minRepeat+int64(len(p.tg.timers.posix))*minOthers)
}

// forward moves the deadline behind now, the present on the timer's clock, and arms again; a one-shot timer ends.
func (p *posixTimer) forward(now, least int64) {
	if p.interval == 0 {
		p.deadline = 0
		return
	}
	if now < p.deadline {
		p.armLocked(now, least)
		return
	}
	n := (now - p.deadline) / p.interval
	p.overrun += n
	p.deadline = addSat(p.deadline+n*p.interval, p.interval)
	p.armLocked(now, least)
}

// delivered is called when the timer's signal is taken: it fills the overrun count and arms again. The caller holds mu.
func (p *posixTimer) delivered(info *linux.SignalInfo) {
	p.queued = false
	if p.dead {
		return
	}
	p.overrun = 0
	p.forward(p.nowLocked(), 0)
	p.lastOver = int32(min(p.overrun, math.MaxInt32))
	info.SetTimer(p.id, p.lastOver)
}
