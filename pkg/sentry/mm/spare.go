package mm

import (
	"time"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/memfile"
)

// Allocators give memory back and ask for it again at the same address, over and over. To unmap and map it each time costs most where the
// host itself runs in a virtual machine: each page leaves the page tables twice, and comes back by two faults. So what the application gives
// up stays mapped for a while, without any right, and still belongs to the process: an access faults, as it must. A new mapping there clears the
// memory and gets the rights back, which takes less than half of the time.

// spare is a part of the address space without a mapping, where the platform has mapped memory of the process without rights.
type spare struct {
	start, end uint64
	off        uint64 // in the memory file
	clean      bool   // it reads as zeros
}

const (
	// spareMax is how many bytes a process keeps at most; it covers what allocators give back at a time, as heldMax.
	spareMax = 256 << 10
	// spareCount is how many parts they may be in.
	spareCount = 8
	// spareIdle is how long their contents live when none is added.
	spareIdle = time.Second
	// spareCredit is how often memory must have been asked for again where it was given up before it is kept: to take the rights from what
	// nobody wants again is as much work as to unmap it, and that comes on top. maxCredit bounds what is remembered.
	spareCredit = 2
	maxCredit   = 8
	// lostCredit is what a spare costs that was of no use.
	lostCredit = 2
)

// spares are the spares of a process, the oldest first; the fields are protected by pagesMu.
type spares struct {
	list   []spare
	bytes  uint64
	credit uint8        // how often memory was asked for again lately
	none   bool         // no more of them: the host refused a change
	given  [4]AddrRange // what was given up lately without being kept
	next   uint8        // in given
	puts   uint64       // spares so far
	seen   uint64       // puts when expireSpares last looked
	expiry *time.Timer  // for expireSpares; nil if it is not going to run
}

// givePages is dropPages for where there is no mapping any more; sure is for memory that is known to have been used. pagesMu is held.
func (m *MemoryManager) givePages(start, end uint64, sure bool) {
	if end-start > spareMax {
		m.dropPages(start, end)
		return
	}
	m.pages.Isolate(start, end)
	for at := start; at < end; {
		p := m.pages.Seek(at)
		if !m.pages.Valid(p) || m.pages.At(p).Start >= end {
			break
		}
		s := *m.pages.At(p)
		if at = s.End; !m.maySpare(&s, sure) {
			continue
		}
		m.pages.Remove(p)
		if start < s.Start {
			m.dropPages(start, s.Start)
		}
		m.addSpare(spare{start: s.Start, end: s.End, off: s.Val.off})
		start = s.End
	}
	if start < end {
		m.dropPages(start, end)
	}
}

// maySpare tells whether the run s is worth keeping: small, nobody else's, and mapped. Where changes are made at once, that is under ptrace, nothing is:
// who traces cannot tell a read of what is mapped without rights from a write.
func (m *MemoryManager) maySpare(s *pageSeg, sure bool) bool {
	if _, ok := m.as.(platform.Deferrer); !ok {
		return false
	}
	const flags = pageMapped | pageOwned
	if m.as == nil || m.spares.none || s.Val.flags&flags != flags || s.Val.fd != MemoryFile || s.Len() > spareMax || s.Val.avail&platform.Write == 0 ||
		s.Val.effective()&platform.Write == 0 || !m.file.Mapped() || m.pages.Count() > deferRuns {
		return false
	}
	if l := &m.spares; l.credit < spareCredit {
		l.given[l.next%4] = AddrRange{Addr: s.Start, Len: s.Len()}
		l.next++
		return false
	}
	return m.file.Exclusive(s.Val.off, s.Len()) == s.Len() && (sure || m.written(s.Val.off))
}

// again notes that memory is asked for at addr.
func (l *spares) again(addr uint64) {
	for i := range l.given {
		if g := &l.given[i]; addr-g.Addr < g.Len {
			l.credit = min(l.credit+1, maxCredit)
			g.Len = 0
		}
	}
}

// written tells whether the page at off in the memory file has anything but zeros: what nobody wrote to need not be there the next time.
func (m *MemoryManager) written(off uint64) bool {
	var b [arch.PageSize]byte
	return m.file.ReadAt(b[:], off) == nil && b != [arch.PageSize]byte{}
}

// addSpare takes the rights from what is mapped there, and keeps it. pagesMu is held, as for all that follows.
func (m *MemoryManager) addSpare(s spare) {
	l := &m.spares
	for len(l.list) > 0 && (len(l.list) >= spareCount || l.bytes+s.end-s.start > spareMax) {
		m.dropSpare(0, false)
	}
	m.addOp(platform.MapOp{Op: platform.OpProtect, Addr: s.start, Length: s.end - s.start})
	l.list = append(l.list, s)
	l.bytes += s.end - s.start
	if l.puts++; l.expiry == nil {
		l.expiry = time.AfterFunc(spareIdle, m.expireSpares)
	}
}

// dropSpare gives up the spare with an index, which something else replaces if gone is set.
func (m *MemoryManager) dropSpare(i int, gone bool) {
	l := &m.spares
	s := l.list[i]
	l.list = append(l.list[:i], l.list[i+1:]...)
	l.bytes -= s.end - s.start
	if !gone {
		m.addOp(platform.MapOp{Op: platform.OpUnmap, Addr: s.start, Length: s.end - s.start})
	}
	m.drops = append(m.drops, memfile.Range{Off: s.off, Len: s.end - s.start})
	l.credit -= min(l.credit, lostCredit)
}

// dropSpares gives up the spares in [start, end), where the platform is about to unmap or map something.
func (m *MemoryManager) dropSpares(start, end uint64) {
	for i := 0; i < len(m.spares.list); {
		if s := &m.spares.list[i]; s.start < end && start < s.end {
			m.dropSpare(i, start <= s.start && s.end <= end)
		} else {
			i++
		}
	}
}

// spareAt gives the index of the spare at addr, or a negative number.
func (m *MemoryManager) spareAt(addr uint64) int {
	for i := range m.spares.list {
		if s := &m.spares.list[i]; s.start <= addr && addr < s.end {
			return i
		}
	}
	return -1
}

// spared tells whether all of [start, end) is in one spare.
func (m *MemoryManager) spared(start, end uint64) bool {
	i := m.spareAt(start)
	return i >= 0 && end <= m.spares.list[i].end
}

// useSpare makes the part of the spare with index i that is in mapping seg what its pages are; false if it cannot be cleared.
func (m *MemoryManager) useSpare(i int, seg *vmaSeg) bool {
	l := &m.spares
	s := l.list[i]
	start, end := max(s.start, seg.Start), min(s.end, seg.End)
	r := memfile.Range{Off: s.off + start - s.start, Len: end - start}
	if !s.clean && m.file.Clear(r) != nil {
		m.dropSpare(i, false)
		return false
	}
	l.list = append(l.list[:i], l.list[i+1:]...)
	l.bytes -= r.Len
	if s.start < start {
		l.list = append(l.list, spare{start: s.start, end: start, off: s.off, clean: s.clean})
	}
	if end < s.end {
		l.list = append(l.list, spare{start: end, end: s.end, off: s.off + end - s.start, clean: s.clean})
	}
	l.credit = min(l.credit+1, maxCredit)
	v := page{off: r.Off, fd: MemoryFile, flags: pageOwned | pageMapped, perms: seg.Val.perms, avail: allPerms}
	m.addOp(platform.MapOp{Op: platform.OpProtect, Perms: v.effective(), Addr: start, Length: r.Len})
	m.joinPages(start, end, v)
	return true
}

// expireSpares gives their memory back to the host when none has been added for a while. They stay mapped: the process may not run for long.
func (m *MemoryManager) expireSpares() {
	m.pagesMu.Lock()
	defer m.pagesMu.Unlock()
	l := &m.spares
	if l.expiry == nil {
		return // too late
	}
	if l.puts != l.seen {
		l.seen = l.puts
		l.expiry.Reset(spareIdle)
		return
	}
	l.expiry = nil
	for i := range l.list {
		s := &l.list[i]
		if !s.clean {
			m.file.Punch(memfile.Range{Off: s.off, Len: s.end - s.start})
			s.clean = true
		}
	}
}

// stopExpiry keeps expireSpares from running; one that has begun does nothing.
func (m *MemoryManager) stopExpiry() {
	if t := m.spares.expiry; t != nil {
		t.Stop()
		m.spares.expiry = nil
	}
}
