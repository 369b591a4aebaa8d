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

	mu   sync.Mutex   // held for settling
	m    atomic.Int32 // n of the last settling while it is above cpus, else 0
	mark atomic.Int64 // of the last settling, in clock.Ticks
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
		now := clock.Ticks()
		sum := c.sum.Load() + c.share(now)
		n := c.n.Load()
		m := n
		if m <= c.cpus {
			m = 0
		}
		// In this order a reader in between sees too little, which it makes up for the next time.
		c.mark.Store(now)
		c.m.Store(m)
		c.sum.Store(sum)
		c.mu.Unlock()
		if c.n.Load() == n {
			return
		}
	}
}

// share is what has been lost since the last settling.
func (c *crowd) share(now int64) int64 {
	m := int64(c.m.Load())
	if d := now - c.mark.Load(); m != 0 && d > 0 {
		return d * (m - int64(c.cpus)) / m
	}
	return 0
}

// lost is what a thread that could run all the time until now has lost. Any goroutine.
func (c *crowd) lost(now int64) int64 {
	sum := c.sum.Load() // before the rest, see settle
	if c.m.Load() == 0 {
		return sum
	}
	return sum + c.share(now)
}
