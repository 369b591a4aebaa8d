package heap

import (
	"runtime/metrics"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// block is the size of a huge page.
	block = 2 << 20
	// step is how much is allocated between two probes of where the heap ends.
	step = 128 << 10
	// growth is how much a heap grows before it gets huge pages. An idle container's grows less.
	growth = 512 << 10
	// probeSize is the unit in which the Go runtime hands out the heap's pages, from low addresses on.
	probeSize = 8 << 10
)

// Growth follows the growth of this process' heap. The zero value is ready.
type Growth struct {
	busy   atomic.Bool // somebody looks, who owns the rest
	sample [1]metrics.Sample
	seen   uint64  // bytes that had been allocated at the last probe
	start  uintptr // where the first probe found the end of the heap
	last   uintptr // the highest block that got a huge page
	probe  []byte  // so that it is in the heap
}

// Look gives the block into which the heap is growing a huge page. It takes about a microsecond where there is nothing to do: call it about once in a
// millisecond of work. Any goroutine.
func (g *Growth) Look() {
	if !g.busy.CompareAndSwap(false, true) {
		return
	}
	defer g.busy.Store(false)
	g.sample[0].Name = "/gc/heap/allocs:bytes"
	metrics.Read(g.sample[:])
	n := g.sample[0].Value.Uint64()
	if n-g.seen < step {
		return
	}
	g.seen = n
	g.probe = make([]byte, probeSize)
	end := uintptr(unsafe.Pointer(unsafe.SliceData(g.probe)))
	if g.start == 0 {
		g.start = end
	}
	at := end &^ (block - 1)
	if end < g.start+growth || at <= g.last {
		return
	}
	g.last = at
	// The runtime maps its heap in multiples of the block. One that is used already is copied, an untouched one gets its page with the first use. Where
	// the host has no huge pages, all stays as it is.
	for _, advice := range [...]uintptr{unix.MADV_HUGEPAGE, unix.MADV_COLLAPSE} {
		unix.RawSyscall(unix.SYS_MADVISE, at, block, advice)
	}
}
