package mm

import (
	"sync"

	"husk/pkg/platform"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/memfile"
)

// Fork makes a copy, for a process with limits l, with copy-on-write. It has one user. ENOMEM and what the platform gives.
func (m *MemoryManager) Fork(l *limits.Set) (*MemoryManager, error) {
	c := &MemoryManager{platform: m.platform, file: m.file, min: m.min, max: m.max, reach: m.reach, maxMaps: m.maxMaps}
	c.limits.Store(l)
	c.users.Store(1)
	err := m.forkTo(c)
	if err != nil {
		c.DecUsers()
		return nil, err
	}
	return c, nil
}

// forkTo copies m to the empty c, which is locked since it can be found through the mapping sets of files.
func (m *MemoryManager) forkTo(c *MemoryManager) error {
	m.lock()
	defer m.unlock()
	c.lock()
	defer c.unlock()
	c.pagesMu.Lock()
	defer c.pagesMu.Unlock()
	c.layout, c.brk, c.info = m.layout, m.brk, m.info
	m.pagesMu.Lock()
	defer m.pagesMu.Unlock()
	forker, canFork := m.as.(platform.Forker)
	var eager uint64
	if canFork {
		eager = m.eagerBytes()
	}
	if m.broken == nil {
		m.broken = new(brokenRanges)
	}
	c.report = m.broken
	m.heat()
	for len(m.spares.list) > 0 {
		m.dropSpare(0, false)
	}
	for p := m.vmas.First(); m.vmas.Valid(p); p = m.vmas.Next(p) {
		s := m.vmas.At(p)
		if s.Val.has(vmaDontFork) {
			continue
		}
		v := s.Val
		v.flags &^= vmaLocked
		c.account(&v, s.Len())
		c.fileBytes(&v, s.Len())
		c.vmas.Insert(s.Start, s.End, v)
		if !v.has(vmaWipeOnFork) {
			m.sharePages(c, s, canFork, &eager)
		}
	}
	c.stats.peak = c.stats.virtual
	if !canFork {
		return m.flush()
	}
	c.unmapUnshared(m)
	var err error
	c.as, err = forker.Fork(m.ops, c.ops)
	m.ops, c.ops = m.ops[:0], c.ops[:0]
	if err != nil {
		m.keep()
	}
	if ferr := m.flush(); err == nil {
		err = ferr
	}
	return err
}

const (
	// eagerMax bounds what a fork copies at once, in bytes. It takes about as long as five faults.
	eagerMax = 256 << 10
	// eagerForks is after how many forks all pages are copied on write again: those that are not written any more are not
	// worth a copy.
	eagerForks = 16
)

// eagerBytes is how much fork may copy at once: nothing if other threads might write meanwhile, as the copies together
// would not be what the memory was at any time.
func (m *MemoryManager) eagerBytes() uint64 {
	m.forks++
	if m.forks%eagerForks == 0 && m.broken != nil {
		m.broken.take(nil)
	}
	if m.users.Load() != 1 || m.forks%eagerForks == 0 || !m.file.Mapped() {
		return 0
	}
	return eagerMax
}

// brokenRanges is where a process' children had to copy memory that they shared with it: the next child is going to need copies there.
type brokenRanges struct {
	mu   sync.Mutex
	list []AddrRange // disjoint, at most maxBroken; mu
}

const maxBroken = 16

// add notes that a child copied [start, end).
func (b *brokenRanges) add(start, end uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.list {
		if r := &b.list[i]; start < r.Addr+r.Len && r.Addr < end {
			return
		}
	}
	if len(b.list) < maxBroken {
		b.list = append(b.list, AddrRange{Addr: start, Len: end - start})
	}
}

// take moves the list to dst.
func (b *brokenRanges) take(dst []AddrRange) []AddrRange {
	b.mu.Lock()
	defer b.mu.Unlock()
	dst = append(dst, b.list...)
	b.list = b.list[:0]
	return dst
}

// heat marks the pages that children had to copy as hot. pagesMu is held.
func (m *MemoryManager) heat() {
	var buf [maxBroken]AddrRange
	for _, r := range m.broken.take(buf[:0]) {
		m.heatRange(r.Addr, r.Addr+r.Len)
	}
}

// heatRange marks the owned pages in [start, end) as hot. pagesMu is held.
func (m *MemoryManager) heatRange(start, end uint64) {
	for p := m.pages.Isolate(start, end); m.pages.Valid(p) && m.pages.At(p).Start < end; p = m.pages.Next(p) {
		if s := m.pages.At(p); s.Val.has(pageOwned) {
			s.Val.flags |= pageHot
		}
	}
	m.pages.JoinRange(start, end)
}

// sharePages gives the child c the pages of mapping s, whose private ones both have to copy before a write from now on.
// Pages that either side wrote after the last fork are copied now, up to eager bytes: two faults cost more. mu and pagesMu are held.
func (m *MemoryManager) sharePages(c *MemoryManager, s *vmaSeg, mapped bool, eager *uint64) {
	for p := m.pages.Isolate(s.Start, s.End); m.pages.Valid(p) && m.pages.At(p).Start < s.End; p = m.pages.Next(p) {
		r := m.pages.At(p)
		if r.Val.has(pageHot) {
			if r.Val.perms&platform.Write != 0 && r.Len() <= *eager && m.copyTo(c, r) {
				*eager -= r.Len()
				continue
			}
			r.Val.flags &^= pageHot
		}
		if r.Val.has(pageOwned) && r.Val.avail&platform.Write != 0 {
			before := r.Val.effective()
			r.Val.avail &^= platform.Write
			if after := r.Val.effective(); after != before && r.Val.has(pageMapped) {
				m.addOp(platform.MapOp{Op: platform.OpProtect, Perms: after, Addr: r.Start, Length: r.Len()})
			}
		}
		if r.Val.fd == MemoryFile {
			m.file.IncRef(memfile.Range{Off: r.Val.off, Len: r.Len()})
		}
		v := r.Val
		if !mapped {
			v.flags &^= pageMapped
		}
		c.pages.Join(c.pages.Insert(r.Start, r.End, v))
	}
	m.pages.JoinRange(s.Start, s.End)
}

// copyTo gives the child c a copy of the run r, which goes on as it is; false if there is no memory.
func (m *MemoryManager) copyTo(c *MemoryManager, r *pageSeg) bool {
	to, err := m.file.Allocate(r.Len(), memfile.AllocOpts{Overwrite: true})
	if err != nil {
		return false
	}
	m.copyResident(to, r.Val.off)
	s := pageSeg{Start: r.Start, End: r.End, Val: r.Val}
	s.Val.off, s.Val.avail = to.Off, allPerms
	if s.Val.has(pageMapped) {
		c.pushMap(&s, s.Start, s.End, true)
	}
	c.pages.Join(c.pages.Insert(s.Start, s.End, s.Val))
	return true
}

// unmapUnshared takes from the copied platform address space what m has mapped and c must not see.
func (c *MemoryManager) unmapUnshared(m *MemoryManager) {
	for p := m.vmas.First(); m.vmas.Valid(p); p = m.vmas.Next(p) {
		if s := m.vmas.At(p); s.Val.has(vmaDontFork|vmaWipeOnFork) && !s.Val.has(vmaSpecial) {
			c.pushOp(platform.MapOp{Op: platform.OpUnmap, Addr: s.Start, Length: s.Len()})
		}
	}
}

// destroy frees everything. No thread runs in the address space.
func (m *MemoryManager) destroy() {
	m.lock()
	defer m.unlock()
	m.pagesMu.Lock()
	if m.as != nil {
		m.as.Release()
		m.as = nil
	}
	m.drops, m.stuck = append(m.drops, m.stuck...), nil
	m.dropSpares(0, m.max)
	m.stopExpiry()
	for p := m.pages.First(); m.pages.Valid(p); p = m.pages.Next(p) {
		m.dropRef(m.pages.At(p))
	}
	m.pages.Clear()
	m.flushNow()
	m.pagesMu.Unlock()
	for p := m.vmas.First(); m.vmas.Valid(p); p = m.vmas.Next(p) {
		s := m.vmas.At(p)
		m.account(&s.Val, -s.Len())
		m.fileBytes(&s.Val, -s.Len())
	}
	m.vmas.Clear()
}

// invalidate forgets what backs [off, off+length) of f; see MappingSet.Invalidate.
func (m *MemoryManager) invalidate(f Mappable, off, length uint64, private bool) {
	last := off + length
	if length == 0 || last < off {
		last = ^uint64(0)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.pagesMu.Lock()
	defer m.pagesMu.Unlock()
	for p := m.vmas.First(); m.vmas.Valid(p); p = m.vmas.Next(p) {
		s := m.vmas.At(p)
		if s.Val.mappable != f || s.Val.off+s.Len() <= off || s.Val.off >= last {
			continue
		}
		start, end := s.Start, s.End
		if off > s.Val.off {
			start += off - s.Val.off
		}
		if s.Val.off+s.Len() > last {
			end = s.Start + last - s.Val.off
		}
		m.dropFilePages(start, end, private)
	}
	m.flushNow()
}

// dropFilePages forgets the pages of a file in [start, end), and private copies too if asked to. pagesMu is held.
func (m *MemoryManager) dropFilePages(start, end uint64, private bool) {
	if private {
		m.dropPages(start, end)
		return
	}
	for at := start; at < end; {
		p := m.pages.Seek(at)
		if !m.pages.Valid(p) || m.pages.At(p).Start >= end {
			return
		}
		s := *m.pages.At(p)
		if !s.Val.has(pageOwned) {
			m.dropPages(max(s.Start, start), min(s.End, end))
		}
		at = s.End
	}
}
