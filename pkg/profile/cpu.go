package profile

import (
	"errors"
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// cpuRate is the number of samples per second of processor time. 100 is what Go's own profiler takes: a sample costs a signal.
const cpuRate = 100

// ErrBusy says that a CPU profile is being taken already: the process has one timer for it.
var ErrBusy = errors.New("a CPU profile is being taken already")

// readProfile returns the next chunk of samples of the runtime's profiler, and at its end eof; it blocks while there is
// none. The runtime keeps its name and type for profilers other than runtime/pprof (go.dev/issue/67401).
//
//go:linkname readProfile runtime/pprof.readProfile
func readProfile() (data []uint64, tags []unsafe.Pointer, eof bool)

// CPU takes profiles of processor time. The zero value is ready. The process's signals SIGPROF and its timers must be free for it.
type CPU struct {
	mu   sync.Mutex
	busy bool // guarded by mu
}

// Take profiles until stop is closed or has a value, and returns the profile, of at most max bytes.
func (c *CPU) Take(stop <-chan time.Time, max int) ([]byte, error) {
	c.mu.Lock()
	if c.busy {
		c.mu.Unlock()
		return nil, ErrBusy
	}
	c.busy = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.busy = false
		c.mu.Unlock()
	}()
	begin := time.Now()
	runtime.SetCPUProfileRate(cpuRate)
	got := make(chan *samples)
	go func() { got <- readSamples() }()
	<-stop
	runtime.SetCPUProfileRate(0) // makes the reader reach the end
	s := <-got
	b := newBuilder(max, []valueType{{"samples", "count"}, {"cpu", "nanoseconds"}})
	b.period(valueType{"cpu", "nanoseconds"}, 1e9/cpuRate)
	b.span(begin, time.Since(begin))
	for _, x := range s.byStack {
		b.sample(x.stack, x.count, x.count*(1e9/cpuRate))
	}
	return b.finish()
}

// samples counts equal stacks.
type samples struct {
	byStack map[uint64]*stackCount
}

type stackCount struct {
	stack []uintptr
	count int64
}

// readSamples reads to the end of the profile. The runtime's records are words: length, time, count, return addresses from
// the innermost; the first record is a header without addresses, and a count of 0 with one address counts samples
// for which the buffer had no room.
func readSamples() *samples {
	s := &samples{byStack: map[uint64]*stackCount{}}
	for header := true; ; {
		data, _, eof := readProfile()
		for len(data) >= 3 && data[0] >= 3 && data[0] <= uint64(len(data)) {
			r := data[:data[0]]
			data = data[data[0]:]
			if header {
				header = false
				continue
			}
			count, stack := int64(r[2]), r[3:]
			if count == 0 && len(stack) == 1 {
				continue // lost samples belong to no stack
			}
			s.add(stack, count)
		}
		if eof {
			return s
		}
		if len(data) == 0 {
			// The runtime wakes the reader for every few samples; a pause keeps it out of its own profile.
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// add counts a stack. Two stacks that share a hash of 64 bits are counted as one.
func (s *samples) add(stack []uint64, count int64) {
	h := uint64(14695981039346656037) // FNV-1a over words
	for _, pc := range stack {
		h = (h ^ pc) * 1099511628211
		h ^= h >> 29
	}
	if x := s.byStack[h]; x != nil {
		x.count += count
		return
	}
	x := &stackCount{stack: make([]uintptr, len(stack)), count: count}
	for i, pc := range stack {
		x.stack[i] = uintptr(pc)
	}
	s.byStack[h] = x
}
