package mm

import (
	"sync/atomic"

	"husk/pkg/arch"
)

// Strings that programs pass to system calls over and over, such as names of files, lie in pages of host files, which the
// sentry reads by pread(2). hotPages finds the pages that are read often, which are worth a private copy in the memory file.
// Linux leaves it open whether a private mapping shows later changes of its file, see mmap(2).
type hotPages [hotSlots]atomic.Uint64 // a page's address, and how often it was read

const (
	hotSlots = 8 // direct-mapped by the page's number
	// hotReads is how many reads cost about as much as the copy.
	hotReads = 16
)

// read counts a read at addr; true if the page has become hot.
func (h *hotPages) read(addr uint64) bool {
	page := arch.PageDown(addr)
	e := &h[page/arch.PageSize%hotSlots]
	old := e.Load()
	if arch.PageDown(old) != page {
		old = page
	}
	n := old&arch.PageMask + 1
	if n > hotReads {
		return false
	}
	e.Store(page + n)
	return n == hotReads
}

// keepHot gives the page at addr, if it is one of a private mapping of a host file, a copy in the memory file.
func (m *MemoryManager) keepHot(addr uint64) {
	page := arch.PageDown(addr)
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, ok := m.vmas.Find(page)
	if !ok || !m.vmas.At(v).Val.private() || !m.file.Mapped() {
		return
	}
	m.pagesMu.Lock()
	defer m.pagesMu.Unlock()
	p, ok := m.pages.Find(page)
	if !ok || m.pages.At(p).Val.fd == MemoryFile {
		return
	}
	// If it fails, the page stays what it is.
	m.copyRun(p, page, page+arch.PageSize, page)
	m.flush()
}
