package ptrace

import (
	"runtime"
	"sync"
	"time"
)

// How many contexts may execute at a time: perCPU for each processor, but at least minRunning. Each takes an OS
// thread of the sentry and a host thread. With 256 spinning on two processors the sentry got too little
// time to make their threads (20 s for 50 of them); with some more than there are processors the host's
// scheduler still finds work when some wait in page faults.
const (
	perCPU     = 4
	minRunning = 8
)

// slice is how long a context keeps its place while others wait for one: the shortest time slice that Linux
// gives under load is of that order.
const slice = 10 * time.Millisecond

// gate bounds how many contexts execute.
type gate struct {
	max     int // immutable
	mu      sync.Mutex
	running list // those that execute, longest first; protected by mu
	waiting list // first come first served; protected by mu
	ticks   uint32
	asleep  bool          // the ticker waits for alarm; protected by mu
	alarm   chan struct{} // capacity 1
	done    chan struct{}
}

// turn is a context's place in one of the lists. All fields are protected by gate.mu.
type turn struct {
	next, prev *context
	in         *list
	since      uint32 // value of ticks when it got its place
}

// list is a queue of contexts.
type list struct {
	first, last *context
	n           int
}

func (l *list) push(c *context) {
	c.turn.in, c.turn.next, c.turn.prev = l, nil, l.last
	if l.last != nil {
		l.last.turn.next = c
	} else {
		l.first = c
	}
	l.last = c
	l.n++
}

func (l *list) remove(c *context) {
	if p := c.turn.prev; p != nil {
		p.turn.next = c.turn.next
	} else {
		l.first = c.turn.next
	}
	if n := c.turn.next; n != nil {
		n.turn.prev = c.turn.prev
	} else {
		l.last = c.turn.prev
	}
	c.turn.in, c.turn.next, c.turn.prev = nil, nil, nil
	l.n--
}

func (g *gate) init() {
	g.alarm, g.done = make(chan struct{}, 1), make(chan struct{})
	g.asleep = true
	g.max = max(minRunning, perCPU*runtime.NumCPU())
	go g.tick()
}

func (g *gate) close() { close(g.done) }

// acquire waits for a place; it gives up (false) where the context is interrupted.
func (g *gate) acquire(c *context) bool {
	if c.takeInterrupt() {
		return false
	}
	g.mu.Lock()
	if g.running.n < g.max {
		g.admit(c)
		g.mu.Unlock()
		return true
	}
	g.waiting.push(c)
	g.mu.Unlock()
	for {
		<-c.wake
		stop := c.takeInterrupt()
		g.mu.Lock()
		in := c.turn.in
		if stop && in != nil {
			in.remove(c)
			if in == &g.running {
				g.promote()
			}
		}
		g.mu.Unlock()
		if stop {
			return false
		}
		if in == &g.running {
			return true
		}
	}
}

// admit lets a context execute. g.mu is held.
func (g *gate) admit(c *context) {
	c.turn.since = g.ticks
	g.running.push(c)
	if g.asleep {
		g.asleep = false
		g.alarm <- struct{}{}
	}
}

// promote gives free places to those that wait. g.mu is held.
func (g *gate) promote() {
	for g.running.n < g.max && g.waiting.first != nil {
		c := g.waiting.first
		g.waiting.remove(c)
		g.admit(c)
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// release gives up the place.
func (g *gate) release(c *context) {
	g.mu.Lock()
	g.running.remove(c)
	if g.waiting.first != nil {
		g.promote()
	}
	g.mu.Unlock()
}

// tick takes the place of contexts that had theirs for a slice, if others wait, while any context executes.
func (g *gate) tick() {
	timer := time.NewTicker(slice)
	defer timer.Stop()
	var old []*context
	for {
		select {
		case <-g.done:
			return
		case <-timer.C:
		}
		g.mu.Lock()
		g.ticks++
		idle := g.running.n == 0
		old = old[:0]
		for c := g.running.first; c != nil && len(old) < g.waiting.n && g.ticks-c.turn.since > 1; c = c.turn.next {
			old = append(old, c)
		}
		g.asleep = idle
		g.mu.Unlock()
		for _, c := range old {
			c.preempt()
		}
		if idle {
			timer.Stop()
			select {
			case <-g.done:
				return
			case <-g.alarm:
			}
			timer.Reset(slice)
		}
	}
}

// preempt makes the context give up its place if it executes.
func (c *context) preempt() {
	c.mu.Lock()
	if c.running != nil {
		c.preempted = true
		c.kick()
	}
	c.mu.Unlock()
}
