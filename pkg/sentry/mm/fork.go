package mm

import (
	"husk/pkg/platform"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/memfile"
)

// Fork makes a copy, for a process with limits l, with copy-on-write. It has one user. ENOMEM and what the platform gives.
func (m *MemoryManager) Fork(l *limits.Set) (*MemoryManager, error) {
	c := &MemoryManager{platform: m.platform, file: m.file, min: m.min, max: m.max, maxMaps: m.maxMaps}
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
			m.sharePages(c, s, canFork)
		}
	}
	c.stats.peak = c.stats.virtual
	err := m.flush()
	if err == nil && canFork {
		if c.as, err = forker.Fork(); err == nil {
			err = c.unmapUnshared(m)
		}
	}
	return err
}

// sharePages gives the child c the pages of mapping s, whose private ones both have to copy before a write from now on.
// mu and pagesMu are held.
func (m *MemoryManager) sharePages(c *MemoryManager, s *vmaSeg, mapped bool) {
	for p := m.pages.Isolate(s.Start, s.End); m.pages.Valid(p) && m.pages.At(p).Start < s.End; p = m.pages.Next(p) {
		r := m.pages.At(p)
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

// unmapUnshared takes from the copied platform address space what m has mapped and c must not see.
func (c *MemoryManager) unmapUnshared(m *MemoryManager) error {
	for p := m.vmas.First(); m.vmas.Valid(p); p = m.vmas.Next(p) {
		if s := m.vmas.At(p); s.Val.has(vmaDontFork|vmaWipeOnFork) && !s.Val.has(vmaSpecial) {
			c.addOp(platform.MapOp{Op: platform.OpUnmap, Addr: s.Start, Length: s.Len()})
		}
	}
	return c.flush()
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
	for p := m.pages.First(); m.pages.Valid(p); p = m.pages.Next(p) {
		m.dropRef(m.pages.At(p))
	}
	m.pages.Clear()
	m.flush()
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
	m.flush()
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
