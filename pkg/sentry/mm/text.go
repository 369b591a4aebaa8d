package mm

import (
	"bytes"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// The methods of platform.Text.

// textAt tells whether [addr, addr+n) is within a mapping whose code the application cannot change. mu is held.
func (m *MemoryManager) textAt(addr, n uint64) (seg *vmaSeg, ok bool) {
	p, ok := m.vmas.Find(addr)
	if !ok {
		return nil, false
	}
	s := m.vmas.At(p)
	return s, s.End-addr >= n && s.Val.perms&(platform.Exec|platform.Write) == platform.Exec && !s.Val.has(vmaSpecial)
}

// ReadText implements platform.Text.
func (m *MemoryManager) ReadText(addr uint64, b []byte) error {
	m.mu.RLock()
	_, ok := m.textAt(addr, uint64(len(b)))
	m.mu.RUnlock()
	if !ok {
		return unix.EFAULT
	}
	_, err := m.copyIn(addr, b, false)
	return err
}

// ReplaceText implements platform.Text. The page is copied even if it is private already: no thread
// sees an instruction while it is written.
func (m *MemoryManager) ReplaceText(addr uint64, old, new []byte) error {
	n := uint64(len(old))
	page := arch.PageDown(addr)
	if n == 0 || len(new) != len(old) || arch.PageDown(addr+n-1) != page {
		return unix.EFAULT
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	seg, ok := m.textAt(addr, n)
	if !ok || !seg.Val.private() {
		return unix.EFAULT
	}
	m.pagesMu.Lock()
	defer m.pagesMu.Unlock()
	p, ok := m.pages.Find(page)
	if !ok {
		if m.fill(seg, page, false, false) != nil {
			return unix.EFAULT
		}
		if p, ok = m.pages.Find(page); !ok {
			return unix.EFAULT
		}
	}
	if m.copyRun(p, page, page+arch.PageSize, page) != nil {
		m.flush()
		return unix.EFAULT
	}
	p, _ = m.pages.Find(page)
	s := m.pages.At(p)
	b := m.file.Slice(s.Val.off+addr-s.Start, n)
	same := bytes.Equal(b, old)
	if same {
		copy(b, new)
	}
	if m.flush() != nil || !same {
		return unix.EFAULT
	}
	return nil
}

// ReserveText implements platform.Text. The reservation is not among what ForEachVMA shows.
func (m *MemoryManager) ReserveText(addr, length uint64) error {
	m.lock()
	defer m.unlock()
	for p := m.vmas.Seek(addr); m.vmas.Valid(p) && m.vmas.At(p).Start < addr+length; p = m.vmas.Next(p) {
		s := m.vmas.At(p)
		if !s.Val.hidden() || s.Start > addr || s.End < addr+length {
			return unix.ENOMEM
		}
		return nil
	}
	m.insertVMA(addr, addr+length, vma{flags: vmaSpecial | vmaSealed | vmaDontDump, name: "[text]"})
	// What the application gave up there and is kept would be unmapped later, with what the platform has there then.
	m.pagesMu.Lock()
	m.dropSpares(addr, addr+length)
	m.flush()
	m.pagesMu.Unlock()
	return nil
}

// hidden tells whether the mapping is a reservation by ReserveText.
func (v *vma) hidden() bool { return v.has(vmaSpecial) && v.perms == platform.None }
