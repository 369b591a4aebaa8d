package kernel

import (
	"sync"
	"sync/atomic"

	"husk/pkg/sentry/clock"
)

// crowd counts the threads that run or could run. When they are more than the processors, each is taken to have its even share of
// them; lost is the part of the time that a thread that could run all along did not have. Which threads the host really ran cannot be
// had for the price of a system call: what the host gives to others, and quotas, are not seen.
type crowd struct {
	cpus int32        // immutable
	n    atomic.Int32 // threads that run or could

	mu    sync.Mutex // held for settling
	seq   atomic.Uint32
	state [2]settled // the last is state[seq&1]; the other changes before seq does
}

// settled is what a settling found. A reader sees all of one: with a part of two the time of all threads would go forth and back.
type settled struct {
	m    atomic.Int32 // n while it is above cpus, else 0
	mark atomic.Int64 // when that was, in clock.Ticks
	sum  atomic.Int64 // lost until then, in ticks
}

// join and leave say that the calling thread can run from now on, or no longer. Where processors are left over both cost one addition.
func (c *crowd) join() {
	if n := c.n.Add(1); n > c.cpus {
		c.settle()
	}
}

func (c *crowd) leave() {
	if n := c.n.Add(-1); n >= c.cpus {
		c.settle()
	}
}

// settle sums up what was lost under the last number of threads. Nobody waits for the lock: who has it looks at the number again after
// he has given it up.
func (c *crowd) settle() {
	for c.mu.TryLock() {
		seq := c.seq.Load()
		next := &c.state[(seq+1)&1]
		n := c.n.Load()
		m := n
		if m <= c.cpus {
			m = 0
		}
		now := clock.Ticks()
		next.m.Store(m)
		next.mark.Store(now)
		next.sum.Store(c.state[seq&1].lost(now, c.cpus))
		c.seq.Store(seq + 1)
		c.mu.Unlock()
		if c.n.Load() == n {
			return
		}
	}
}

// lost is what a thread that could run all the time until now has lost.
func (s *settled) lost(now int64, cpus int32) int64 {
	l := s.sum.Load()
	if m := int64(s.m.Load()); m != 0 {
		if d := now - s.mark.Load(); d > 0 {
			l += d * (m - int64(cpus)) / m
		}
	}
	return l
}

// lost is what a thread that could run all the time until now has lost. Any goroutine.
func (c *crowd) lost(now int64) int64 {
	for {
		seq := c.seq.Load()
		l := c.state[seq&1].lost(now, c.cpus)
		if c.seq.Load() == seq {
			return l
		}
	}
}
