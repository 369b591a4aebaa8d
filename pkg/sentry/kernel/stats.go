package kernel

import (
	"math"
	"sync"

	"golang.org/x/sys/unix"
	"husk/pkg/sentry/clock"
)

// loadAverage follows the number of running tasks when somebody asks.
type loadAverage struct {
	mu   sync.Mutex
	last int64 // clock.Monotonic of the latest update
	avg  [3]float64
}

// LoadAverage are the averages over 1, 5 and 15 minutes (/proc/loadavg). They are updated when read, from the tasks that run then.
func (k *Kernel) LoadAverage() [3]float64 {
	running := float64(k.RunningTasks())
	l := &k.load
	l.mu.Lock()
	defer l.mu.Unlock()
	now := clock.Monotonic()
	if l.last == 0 {
		l.last = now - k.Uptime()
	}
	dt := float64(now-l.last) / 1e9
	l.last = now
	for i, period := range [3]float64{60, 300, 900} {
		f := math.Exp(-dt / period)
		l.avg[i] = l.avg[i]*f + running*(1-f)
	}
	return l.avg
}

// RunningTasks is the number of tasks that are not blocked.
func (k *Kernel) RunningTasks() int {
	n := 0
	k.tree.Lock()
	defer k.tree.Unlock()
	for _, p := range k.rootPIDNS.pids {
		if t := p.task; t != nil && !t.exit.done.Load() && t.where.Load() != inBlock {
			n++
		}
	}
	return n
}

// SetMemory says what the sandbox's memory limit is and how to find out what is used, in bytes; without it the host's memory shows.
// The total may change later (SetTotalMemory).
func (k *Kernel) SetMemory(total uint64, used func() uint64) {
	k.memTotal.Store(total)
	k.memUsed = used
}

// SetTotalMemory changes the limit that shows, in bytes; 0 is none, and the host's memory shows. Any goroutine.
func (k *Kernel) SetTotalMemory(total uint64) { k.memTotal.Store(total) }

// Memory is the sandbox's memory in bytes: all, and what is free (sysinfo(2), /proc/meminfo).
func (k *Kernel) Memory() (total, free uint64) {
	total = k.memTotal.Load()
	if total == 0 {
		var s unix.Sysinfo_t
		if unix.Sysinfo(&s) != nil {
			return 0, 0
		}
		total = s.Totalram * uint64(s.Unit)
		free = s.Freeram * uint64(s.Unit)
		return total, free
	}
	used := uint64(0)
	if k.memUsed != nil {
		used = k.memUsed()
	}
	return total, total - min(used, total)
}
