package mm

import (
	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/memfile"
)

// HolePuncher is implemented by a Mappable that can free a part of its pages (MADV_REMOVE).
type HolePuncher interface {
	// PunchHole makes [off, off+length) read as zeros; it is called without locks of mm held, and calls Invalidate.
	PunchHole(off, length uint64) error
}

// Syncer is implemented by a MappedFile whose data msync(MS_SYNC) can bring to stable storage.
type Syncer interface {
	// SyncRange is called without locks of mm held.
	SyncRange(off, length uint64) error
}

// checkedRange is the usual check of address and length; done is set if there is nothing to do.
func checkedRange(addr, length uint64) (end uint64, done bool, err error) {
	n, ok := arch.PageUp(length)
	end = addr + n
	if addr&arch.PageMask != 0 || !ok || end < addr {
		return 0, true, unix.EINVAL
	}
	return end, n == 0, nil
}

// Madvise is madvise(2). Errors: EINVAL, ENOMEM, EACCES, EPERM, EFAULT, EBUSY.
func (m *MemoryManager) Madvise(addr, length uint64, advice int) error {
	var set, clr vmaFlags
	switch advice {
	case unix.MADV_NORMAL, unix.MADV_RANDOM, unix.MADV_SEQUENTIAL, unix.MADV_WILLNEED, unix.MADV_MERGEABLE, unix.MADV_UNMERGEABLE,
		unix.MADV_COLD, unix.MADV_PAGEOUT, unix.MADV_COLLAPSE:
	case unix.MADV_DONTNEED, unix.MADV_FREE, madvDontneedLocked:
	case unix.MADV_REMOVE, unix.MADV_POPULATE_READ, unix.MADV_POPULATE_WRITE:
	case unix.MADV_DONTFORK:
		set = vmaDontFork
	case unix.MADV_DOFORK:
		clr = vmaDontFork
	case unix.MADV_WIPEONFORK:
		set = vmaWipeOnFork
	case unix.MADV_KEEPONFORK:
		clr = vmaWipeOnFork
	case unix.MADV_DONTDUMP:
		set = vmaDontDump
	case unix.MADV_DODUMP:
		clr = vmaDontDump
	case unix.MADV_HUGEPAGE:
		set, clr = vmaHugePage, vmaNoHugePage
	case unix.MADV_NOHUGEPAGE:
		set, clr = vmaNoHugePage, vmaHugePage
	case unix.MADV_HWPOISON, madvSoftOffline:
		return unix.EPERM
	default:
		return unix.EINVAL
	}
	end, done, err := checkedRange(addr, length)
	if done {
		return err
	}
	switch {
	case set|clr != 0:
		return m.setFlags(addr, end, set, clr)
	case advice == unix.MADV_DONTNEED, advice == unix.MADV_FREE, advice == madvDontneedLocked:
		return m.discard(addr, end, advice)
	case advice == unix.MADV_REMOVE:
		return m.removeFile(addr, end)
	case advice == unix.MADV_POPULATE_READ, advice == unix.MADV_POPULATE_WRITE:
		return m.madvPopulate(addr, end, advice == unix.MADV_POPULATE_WRITE)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.covered(addr, end, nil)
}

// Advice that x/sys lacks: MADV_DONTNEED_LOCKED, MADV_SOFT_OFFLINE.
const (
	madvDontneedLocked = 24
	madvSoftOffline    = 101
)

// setFlags changes flags of the mappings in [addr, end).
func (m *MemoryManager) setFlags(addr, end uint64, set, clr vmaFlags) error {
	m.lock()
	defer m.unlock()
	if m.vmas.Count()+m.cuts(addr, end) > m.maxMaps {
		return unix.ENOMEM
	}
	hole := m.covered(addr, end, func(s *vmaSeg) error {
		if s.Val.has(vmaSpecial) && clr&(vmaDontFork|vmaDontDump) != 0 || set&vmaWipeOnFork != 0 && (s.Val.mappable != nil || !s.Val.private()) {
			return unix.EINVAL
		}
		return nil
	})
	if hole != nil && hole != unix.ENOMEM {
		return hole
	}
	m.updateVMAs(addr, end, func(s *vmaSeg) { s.Val.flags = s.Val.flags&^clr | set })
	return hole
}

// discard drops the contents of private memory in [addr, end), and lets go of that of files.
func (m *MemoryManager) discard(addr, end uint64, advice int) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	hole := m.covered(addr, end, func(s *vmaSeg) error {
		v := &s.Val
		if v.has(vmaSpecial) || v.has(vmaLocked) && advice == unix.MADV_DONTNEED || advice == unix.MADV_FREE && (v.mappable != nil || !v.private()) {
			return unix.EINVAL
		}
		if v.has(vmaSealed) && v.private() && v.perms&platform.Write == 0 {
			return unix.EPERM
		}
		return nil
	})
	if hole != nil && hole != unix.ENOMEM {
		return hole
	}
	m.pagesMu.Lock()
	defer m.pagesMu.Unlock()
	for p := m.vmas.Seek(addr); m.vmas.Valid(p) && m.vmas.At(p).Start < end; p = m.vmas.Next(p) {
		s := m.vmas.At(p)
		from, to := max(s.Start, addr), min(s.End, end)
		if s.Val.mappable == nil {
			m.wipe(from, to)
		} else {
			m.dropPages(from, to)
		}
	}
	m.flush()
	return hole
}

// wipe makes anonymous memory in [start, end) read as zeros: in place where nobody else has the pages, so that the
// application need not fault to get them back. pagesMu is held.
func (m *MemoryManager) wipe(start, end uint64) {
	for at := start; at < end; {
		p := m.pages.Seek(at)
		if !m.pages.Valid(p) || m.pages.At(p).Start >= end {
			return
		}
		s := m.pages.At(p)
		at = max(at, s.Start)
		off, limit := s.Val.off+at-s.Start, min(s.End, end)
		if n := m.file.Exclusive(off, limit-at); n > 0 {
			m.file.Punch(memfile.Range{Off: off, Len: n})
			at += n
			continue
		}
		next := at + arch.PageSize
		for next < limit && m.file.Exclusive(off+next-at, arch.PageSize) == 0 {
			next += arch.PageSize
		}
		m.dropPages(at, next)
		at = next
	}
}

// removeFile is MADV_REMOVE.
func (m *MemoryManager) removeFile(addr, end uint64) error {
	for at := addr; at < end; {
		m.mu.RLock()
		p, ok := m.vmas.Find(at)
		if !ok {
			m.mu.RUnlock()
			return unix.ENOMEM
		}
		s := *m.vmas.At(p)
		m.mu.RUnlock()
		if s.Val.has(vmaLocked) || s.Val.mappable == nil {
			return unix.EINVAL
		}
		if s.Val.private() || s.Val.maxPerms&platform.Write == 0 {
			return unix.EACCES
		}
		h, ok := s.Val.mappable.(HolePuncher)
		if !ok {
			return unix.EOPNOTSUPP
		}
		to := min(s.End, end)
		if err := h.PunchHole(s.Val.off+at-s.Start, to-at); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// madvPopulate is MADV_POPULATE_READ and MADV_POPULATE_WRITE.
func (m *MemoryManager) madvPopulate(addr, end uint64, write bool) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	err := m.covered(addr, end, func(s *vmaSeg) error {
		if s.Val.has(vmaSpecial) || write && s.Val.perms&platform.Write == 0 || s.Val.perms == platform.None {
			return unix.EINVAL
		}
		return nil
	})
	if err != nil {
		return err
	}
	if m.populate(addr, end, write) != nil {
		return unix.EFAULT
	}
	return nil
}

// Msync is msync(2). Errors: EINVAL, EBUSY, ENOMEM, and those of the file.
func (m *MemoryManager) Msync(addr, length uint64, flags int) error {
	if flags&^(unix.MS_ASYNC|unix.MS_INVALIDATE|unix.MS_SYNC) != 0 || flags&unix.MS_ASYNC != 0 && flags&unix.MS_SYNC != 0 || addr&arch.PageMask != 0 {
		return unix.EINVAL
	}
	n, ok := arch.PageUp(length)
	end := addr + n
	if !ok || end < addr {
		return unix.ENOMEM
	}
	var hole error
	for at := addr; at < end; {
		m.mu.RLock()
		p := m.vmas.Seek(at)
		if !m.vmas.Valid(p) || m.vmas.At(p).Start >= end {
			m.mu.RUnlock()
			return unix.ENOMEM
		}
		s := *m.vmas.At(p)
		sync, can := s.Val.file.(Syncer)
		can = can && flags&unix.MS_SYNC != 0 && s.Val.has(vmaShared)
		if can {
			s.Val.file.IncRef()
		}
		m.mu.RUnlock()
		if s.Start > at {
			hole = unix.ENOMEM
			at = s.Start
		}
		var err error
		if flags&unix.MS_INVALIDATE != 0 && s.Val.has(vmaLocked) {
			err = unix.EBUSY
		}
		to := min(s.End, end)
		if can {
			if err == nil {
				err = sync.SyncRange(s.Val.off+at-s.Start, to-at)
			}
			s.Val.file.DecRef()
		}
		if err != nil {
			return err
		}
		at = to
	}
	return hole
}

// Mincore is mincore(2) for the len(vec) pages from addr on: it stores in bit 0 of vec's elements whether they are resident.
// Errors: EINVAL, ENOMEM.
func (m *MemoryManager) Mincore(addr uint64, vec []byte) error {
	end := addr + uint64(len(vec))*arch.PageSize
	if addr&arch.PageMask != 0 {
		return unix.EINVAL
	}
	if end < addr {
		return unix.ENOMEM
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.covered(addr, end, nil) != nil {
		return unix.ENOMEM
	}
	clear(vec)
	m.pagesMu.RLock()
	defer m.pagesMu.RUnlock()
	for p := m.pages.Seek(addr); m.pages.Valid(p) && m.pages.At(p).Start < end; p = m.pages.Next(p) {
		s := m.pages.At(p)
		from, to := max(s.Start, addr), min(s.End, end)
		part := vec[(from-addr)/arch.PageSize : (to-addr)/arch.PageSize]
		if s.Val.fd == MemoryFile {
			m.file.ResidentPages(s.Val.off+from-s.Start, part)
			continue
		}
		for i := range part {
			part[i] = 1
		}
	}
	return nil
}

// Mlock is mlock2(2); onFault is MLOCK_ONFAULT, privileged CAP_IPC_LOCK. Memory is only accounted as locked: the host
// swaps or not. Errors: EINVAL, ENOMEM, EPERM.
func (m *MemoryManager) Mlock(addr, length uint64, onFault, privileged bool) error {
	end, empty, err := lockRange(addr, length)
	if empty {
		return err
	}
	m.lock()
	defer m.unlock()
	if !privileged {
		l := m.limits.Load().Get(unix.RLIMIT_MEMLOCK).Cur
		if l == 0 {
			return unix.EPERM
		}
		var already uint64
		m.covered(addr, end, func(s *vmaSeg) error {
			if s.Val.has(vmaLocked) {
				already += min(s.End, end) - max(s.Start, addr)
			}
			return nil
		})
		if l != ^uint64(0) && m.stats.locked+(end-addr)-already > l {
			return unix.ENOMEM
		}
	}
	if m.vmas.Count()+m.cuts(addr, end) > m.maxMaps {
		return unix.ENOMEM
	}
	hole := m.covered(addr, end, nil)
	m.updateVMAs(addr, end, func(s *vmaSeg) {
		if !s.Val.has(vmaSpecial) {
			s.Val.flags |= vmaLocked
		}
	})
	if hole == nil && !onFault && m.populate(addr, end, false) != nil {
		return unix.ENOMEM
	}
	return hole
}

// lockRange rounds as mlock(2) does, which takes any address.
func lockRange(addr, length uint64) (end uint64, empty bool, err error) {
	n, ok := arch.PageUp(length + addr&arch.PageMask)
	end = arch.PageDown(addr) + n
	if !ok || end < addr || length > length+addr&arch.PageMask {
		return 0, true, unix.EINVAL
	}
	return end, n == 0, nil
}

// Munlock is munlock(2). Errors: EINVAL, ENOMEM.
func (m *MemoryManager) Munlock(addr, length uint64) error {
	end, empty, err := lockRange(addr, length)
	if empty {
		return err
	}
	addr = arch.PageDown(addr)
	return m.setFlags(addr, end, 0, vmaLocked)
}

// MlockAll is mlockall(2). Errors: EINVAL, EPERM, ENOMEM.
func (m *MemoryManager) MlockAll(flags int, privileged bool) error {
	if flags == 0 || flags&^(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT) != 0 || flags == unix.MCL_ONFAULT {
		return unix.EINVAL
	}
	m.lock()
	defer m.unlock()
	if !privileged {
		l := m.limits.Load().Get(unix.RLIMIT_MEMLOCK).Cur
		if l == 0 {
			return unix.EPERM
		}
		if flags&unix.MCL_CURRENT != 0 && l != ^uint64(0) && m.stats.virtual > l {
			return unix.ENOMEM
		}
	}
	m.lockFuture = 0
	if flags&unix.MCL_FUTURE != 0 {
		m.lockFuture = flags
	}
	if flags&unix.MCL_CURRENT != 0 {
		m.updateVMAs(0, m.max, func(s *vmaSeg) {
			if !s.Val.has(vmaSpecial) {
				s.Val.flags |= vmaLocked
			}
		})
		if flags&unix.MCL_ONFAULT == 0 {
			m.populate(0, m.max, false)
		}
	}
	return nil
}

// MunlockAll is munlockall(2).
func (m *MemoryManager) MunlockAll() {
	m.lock()
	defer m.unlock()
	m.lockFuture = 0
	m.updateVMAs(0, m.max, func(s *vmaSeg) { s.Val.flags &^= vmaLocked })
}

// Mseal is mseal(2). Errors: EINVAL, ENOMEM.
func (m *MemoryManager) Mseal(addr, length uint64) error {
	end, done, err := checkedRange(addr, length)
	if done {
		return err
	}
	m.lock()
	defer m.unlock()
	if m.covered(addr, end, nil) != nil || m.vmas.Count()+m.cuts(addr, end) > m.maxMaps {
		return unix.ENOMEM
	}
	m.updateVMAs(addr, end, func(s *vmaSeg) { s.Val.flags |= vmaSealed })
	return nil
}

// SetName is prctl(PR_SET_VMA_ANON_NAME): it names anonymous memory; "" takes the name away. Errors: EINVAL, ENOMEM, EBADF.
func (m *MemoryManager) SetName(addr, length uint64, name string) error {
	end, done, err := checkedRange(addr, length)
	if done {
		return err
	}
	m.lock()
	defer m.unlock()
	if m.vmas.Count()+m.cuts(addr, end) > m.maxMaps {
		return unix.ENOMEM
	}
	hole := m.covered(addr, end, func(s *vmaSeg) error {
		if s.Val.file != nil || s.Val.has(vmaSpecial) {
			return unix.EBADF
		}
		return nil
	})
	if hole == unix.EBADF {
		return hole
	}
	if name != "" {
		name = "[anon:" + name + "]"
	}
	m.updateVMAs(addr, end, func(s *vmaSeg) {
		if n := s.Val.name; n == "" || len(n) > 6 && n[:6] == "[anon:" {
			s.Val.name = name
		}
	})
	return hole
}
