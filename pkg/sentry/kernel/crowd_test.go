package kernel

import (
	"runtime"
	"sync"
	"testing"

	"husk/pkg/sentry/clock"
)

// TestCrowdWhileSettling reads what has been lost while others settle: less than has been read before, or than the share of the time, would make
// CPU clocks go back, and timers of them expire.
func TestCrowdWhileSettling(t *testing.T) {
	c := &crowd{cpus: 1}
	for range 4 {
		c.join()
	}
	start := clock.Ticks()
	var g sync.WaitGroup
	var stop = make(chan struct{})
	for range 2 {
		g.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c.join()
				runtime.Gosched()
				c.leave()
			}
		})
	}
	last := c.lost(start)
	bad, most := 0, int64(0)
	for clock.Ticks() < start+1<<31 {
		now := clock.Ticks()
		l := c.lost(now)
		if l < last {
			bad++
			most = max(most, last-l)
		}
		last = max(l, last)
	}
	close(stop)
	g.Wait()
	if most > 1<<20 { // who settles may be stopped between looking at the clock and telling others
		t.Errorf("%d times less was lost than before, by %d of %d ticks", bad, most, last)
	}
}

// TestUsageWhilePublishing reads a thread's times while the thread publishes them, and blocks.
func TestUsageWhilePublishing(t *testing.T) {
	k := &Kernel{}
	k.crowd.cpus = 1000
	task := &Task{k: k}
	task.where.Store(inKernel)
	task.acct.begin(&k.crowd)
	stop := make(chan struct{})
	var g sync.WaitGroup
	g.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			for end := clock.Ticks() + 1<<20; clock.Ticks() < end; {
			}
			if i&1 == 0 {
				task.acct.sync()
				continue
			}
			task.where.Store(inBlock)
			task.acct.beginBlock()
			task.leaveBlock()
		}
	})
	var last, most int64
	bad := 0
	for end := clock.Ticks() + 1<<31; clock.Ticks() < end; {
		u := task.usage()
		now := u.utime + u.stime
		if now < last {
			bad++
			most = max(most, last-now)
		}
		last = max(last, now)
	}
	close(stop)
	g.Wait()
	if limit := clock.TicksToNS(1 << 18); most > limit {
		t.Errorf("%d times less than before, by %d ns", bad, most)
	}
}
