package mm

import (
	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// MremapDontUnmap is MREMAP_DONTUNMAP of mremap(2).
const MremapDontUnmap = 4

// Mremap is mremap(2); flags are MREMAP_MAYMOVE, MREMAP_FIXED, MremapDontUnmap. Errors: EINVAL, EFAULT, ENOMEM, EAGAIN, EPERM (sealed).
func (m *MemoryManager) Mremap(old, oldLen, newLen uint64, flags int, newAddr uint64) (uint64, error) {
	const all = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED | MremapDontUnmap
	move, fixed, keep := flags&unix.MREMAP_MAYMOVE != 0, flags&unix.MREMAP_FIXED != 0, flags&MremapDontUnmap != 0
	oldN, ok1 := arch.PageUp(oldLen)
	newN, ok2 := arch.PageUp(newLen)
	if flags&^all != 0 || old&arch.PageMask != 0 || !ok1 || !ok2 || newN == 0 || newN > m.max-m.min ||
		(fixed || keep) && !move || keep && oldN != newN {
		return 0, unix.EINVAL
	}
	if fixed && (newAddr&arch.PageMask != 0 || newAddr > m.max || newN > m.max-newAddr || newAddr < old+oldN && old < newAddr+newN) {
		return 0, unix.EINVAL
	}
	m.lock()
	defer m.unlock()
	p, ok := m.vmas.Find(old)
	if !ok {
		return 0, unix.EFAULT
	}
	s := *m.vmas.At(p)
	if m.sealed(old, old+max(oldN, 1)) || fixed && m.sealed(newAddr, newAddr+newN) {
		return 0, unix.EPERM
	}
	if oldN == 0 && (s.Val.private() || !move) || keep && s.Val.has(vmaShared) && s.Val.mappable == nil {
		return 0, unix.EINVAL
	}
	if !fixed && !keep && newN <= oldN {
		if oldN > s.End-old && newN == oldN { // Linux tolerates it as nothing changes
			return old, nil
		}
		if newN < oldN {
			m.removeVMAs(old+newN, old+oldN, false)
		}
		return old, nil
	}
	if oldN > s.End-old {
		return 0, unix.EFAULT
	}
	v := s.Val.Tail(old - s.Start)
	if grow := newN - min(newN, oldN); grow > 0 || keep {
		if v.mappable != nil && v.off+newN < v.off {
			return 0, unix.EINVAL
		}
		add := grow
		if keep {
			add = newN
		}
		if err := m.checkLimits(&v, add, false); err != nil {
			return 0, err
		}
	}
	if !fixed && !keep && oldN > 0 && old+oldN == s.End {
		if end := old + newN; end <= m.max && end > old {
			if _, free := m.findFree(s.End, end, end-s.End, true); free {
				m.insertVMA(s.End, end, v.Tail(oldN))
				if v.has(vmaLocked) {
					m.populate(s.End, end, v.perms&platform.Write != 0)
				}
				return old, nil
			}
		}
	}
	if !move {
		return 0, unix.ENOMEM
	}
	if m.vmas.Count()+3 > m.maxMaps {
		return 0, unix.ENOMEM
	}
	to := newAddr
	if fixed {
		if newAddr < m.min {
			return 0, unix.EPERM
		}
		m.removeVMAs(newAddr, newAddr+newN, false)
	} else {
		if hint := arch.PageDown(newAddr); keep && hint != 0 {
			to, ok = m.findFree(hint, hint+newN, newN, true)
		} else {
			ok = false
		}
		if !ok {
			if to, ok = m.search(newN); !ok {
				return 0, unix.ENOMEM
			}
		}
	}
	if fixed && oldN > newN {
		m.removeVMAs(old+newN, old+oldN, false)
		oldN = newN
	}
	m.moveVMA(old, oldN, to, newN, v, keep)
	return to, nil
}

// moveVMA makes [to, to+newN) the mapping v and moves the pages of [old, old+oldN) there; the old mapping goes, or
// stays without pages if keep is set. mu is held.
func (m *MemoryManager) moveVMA(old, oldN, to, newN uint64, v vma, keep bool) {
	m.insertVMA(to, to+newN, v)
	if oldN > 0 {
		m.pagesMu.Lock()
		m.movePages(old, oldN, to)
		m.flush()
		m.pagesMu.Unlock()
		if !keep {
			m.removeVMAs(old, old+oldN, false)
		} else if v.has(vmaLocked) {
			m.updateVMAs(old, old+oldN, func(s *vmaSeg) { s.Val.flags &^= vmaLocked })
		}
	}
	if v.has(vmaLocked) {
		m.populate(to, to+newN, v.perms&platform.Write != 0 && v.private())
	}
}

// movePages moves pages of n bytes from old to to, where there are none. pagesMu is held.
func (m *MemoryManager) movePages(old, n, to uint64) {
	var list []pageSeg
	first, last := old+n, old
	for p := m.pages.Isolate(old, old+n); m.pages.Valid(p) && m.pages.At(p).Start < old+n; p = m.pages.Remove(p) {
		s := *m.pages.At(p)
		if s.Val.has(pageMapped) {
			first, last = min(first, s.Start), s.End
		}
		list = append(list, s)
	}
	m.unmap(first, last)
	for i := range list {
		s := &list[i]
		v := s.Val
		v.flags &^= pageMapped
		m.insertPages(s.Start-old+to, s.End-old+to, v, false)
	}
}

// RemapFilePages is remap_file_pages(2): it maps the file's range at off in the place of [start, start+n) of a shared mapping. All
// are multiples of the page size. EINVAL.
func (m *MemoryManager) RemapFilePages(start, n, off uint64) error {
	m.lock()
	defer m.unlock()
	p, ok := m.vmas.Find(start)
	if !ok {
		return unix.EINVAL
	}
	s := m.vmas.At(p)
	if s.Val.private() || s.Val.mappable == nil || start+n > s.End || off+n < off {
		return unix.EINVAL
	}
	if m.sealed(start, start+n) || m.vmas.Count()+2 > m.maxMaps {
		return unix.EPERM
	}
	v := s.Val
	v.off = off
	// The new mapping first holds on to the file, in case that the old one was its only user.
	m.fileBytes(&v, n)
	m.removeVMAs(start, start+n, false)
	m.insertVMA(start, start+n, v)
	m.fileBytes(&v, -n)
	return nil
}
