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
