package profile

import (
	"math"
	"runtime"
	"strings"
	"time"
)

// Heap returns a profile of the Go heap, of at most max bytes: what has been allocated since the start and what is in use. It
// collects garbage first, so that what is in use is up to date.
func Heap(max int) ([]byte, error) {
	runtime.GC()
	rate := int64(runtime.MemProfileRate)
	records := make([]runtime.MemProfileRecord, 512)
	n, ok := runtime.MemProfile(records, true)
	for !ok {
		records = make([]runtime.MemProfileRecord, n+64) // more may come while this is allocated
		n, ok = runtime.MemProfile(records, true)
	}
	b := newBuilder(max, []valueType{{"alloc_objects", "count"}, {"alloc_space", "bytes"}, {"inuse_objects", "count"}, {"inuse_space", "bytes"}})
	b.period(valueType{"space", "bytes"}, rate)
	b.span(time.Now(), 0)
	b.defaultType = b.str("inuse_space")
	for i := range records[:n] {
		r := &records[i]
		ao, ab := scale(r.AllocObjects, r.AllocBytes, rate)
		uo, ub := scale(r.InUseObjects(), r.InUseBytes(), rate)
		b.sample(allocator(r.Stack()), ao, ab, uo, ub)
	}
	return b.finish()
}

// allocator drops the runtime's own frames from the innermost end of a stack: what counts is who allocates.
func allocator(stack []uintptr) []uintptr {
	for i := range stack {
		f, _ := runtime.CallersFrames(stack[i : i+1]).Next()
		if !strings.HasPrefix(f.Function, "runtime.") {
			return stack[i:]
		}
	}
	return stack
}

// scale estimates totals from samples: an object of size s is sampled with probability 1-exp(-s/rate), one sample per
// rate bytes on average.
func scale(objects, bytes, rate int64) (int64, int64) {
	if objects == 0 || bytes == 0 || rate <= 1 {
		return objects, bytes
	}
	f := 1 / (1 - math.Exp(-float64(bytes)/float64(objects)/float64(rate)))
	return int64(float64(objects) * f), int64(float64(bytes) * f)
}

// Stacks returns the stacks of all goroutines as text, of at most max bytes. The world is stopped meanwhile.
func Stacks(max int) []byte {
	for size := 64 << 10; ; size *= 2 {
		buf := make([]byte, min(size, max))
		if n := runtime.Stack(buf, true); n < len(buf) || size >= max {
			return buf[:n]
		}
	}
}
