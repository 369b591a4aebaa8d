package mm

import (
	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// MMapOpts describes a mapping, see mmap(2).
type MMapOpts struct {
	Addr   uint64 // hint, or the address if Fixed
	Length uint64 // in bytes, rounded up to pages
	Perms  platform.Perms
	// MaxPerms bounds what mprotect(2) may give later; zero means all rights.
	MaxPerms platform.Perms
	// Fixed is MAP_FIXED, NoReplace makes it MAP_FIXED_NOREPLACE, Low32 is MAP_32BIT.
	Fixed, NoReplace, Low32 bool
	// Shared is MAP_SHARED; otherwise the mapping is private.
	Shared bool
	// Mappable is the contents; nil maps anonymous memory. Offset is a multiple of the page size.
	Mappable Mappable
	Offset   uint64
	// File, if not nil, is kept referenced by the mapping (MMap takes its own references).
	File MappedFile
	// GrowsDown is MAP_GROWSDOWN, Stack marks the initial stack (which grows down as well).
	GrowsDown, Stack bool
	// Populate is MAP_POPULATE, Locked MAP_LOCKED (subject to RLIMIT_MEMLOCK unless LockPrivileged), NoReserve MAP_NORESERVE.
	Populate, Locked, LockPrivileged, NoReserve bool
	// NoHugePage is for regions of which little is going to be used, as MADV_NOHUGEPAGE.
	NoHugePage bool
	// Prefault maps what there is at once, for mappings that are going to be used soon.
	Prefault bool
	// Image is for the parts of a program or library, which the dynamic linker maps one by one before it uses them: they are all
	// made ready at the first fault in one.
	Image bool
	// Name is what /proc/PID/maps shows if File is nil, such as "[heap]".
	Name string
}

// MMap makes a mapping, as mmap(2), and gives its address. Errors: EINVAL, ENOMEM, EEXIST, EPERM, EAGAIN, EOVERFLOW.
func (m *MemoryManager) MMap(o MMapOpts) (uint64, error) {
	if o.Length == 0 {
		return 0, unix.EINVAL
	}
	n, ok := arch.PageUp(o.Length)
	if !ok || n > m.max-m.min {
		return 0, unix.ENOMEM
	}
	if o.Offset&arch.PageMask != 0 {
		return 0, unix.EINVAL
	}
	if o.Offset+n < o.Offset || o.Offset+n > 1<<63 {
		return 0, unix.EOVERFLOW
	}
	if o.Mappable == nil && o.Shared {
		o.Mappable = NewShared(m.file, n)
		o.Name = "/dev/zero (deleted)"
	}
	m.lock()
	defer m.unlock()
	addr, err := m.place(&o, n)
	if err != nil {
		return 0, err
	}
	v := o.vma()
	if m.lockFuture != 0 {
		v.flags |= vmaLocked
	}
	if err := m.checkLimits(&v, n, o.LockPrivileged); err != nil {
		return 0, err
	}
	replaced := false
	if o.Fixed {
		if m.vmas.Count()+m.cuts(addr, addr+n) >= m.maxMaps {
			return 0, unix.ENOMEM
		}
		replaced = m.takeVMAs(addr, addr+n)
	} else if m.vmas.Count() >= m.maxMaps {
		return 0, unix.ENOMEM
	}
	m.insertVMA(addr, addr+n, v)
	populate := o.Populate || v.has(vmaLocked) && m.lockFuture&unix.MCL_ONFAULT == 0
	prefault := !populate && v.perms != platform.None &&
		(o.Prefault && !o.Image && n <= fileChunk || v.mappable == nil && n <= prefaultAnon && v.perms&platform.Write != 0 && !o.NoHugePage)
	// Memory that was in use there before is going to be again.
	spare := !populate && v.mappable == nil && v.perms&platform.Write != 0 && n <= spareMax
	if replaced || prefault || spare {
		m.pagesMu.Lock()
		if replaced {
			m.dropPages(addr, addr+n)
		}
		if prefault || spare && m.spared(addr, addr+n) {
			m.prefault(addr)
		}
		m.flush()
		m.pagesMu.Unlock()
	}
	if populate {
		m.populate(addr, addr+n, v.perms&platform.Write != 0 && v.private())
	}
	return addr, nil
}

// prefaultAnon is the largest anonymous mapping that is made ready at once: what is that small is going to be used.
const prefaultAnon = 16 << 10

// prefault makes the pages of the new mapping at addr ready, without errors. Small private mappings that can be written are
// copied, as they are the data of programs and libraries. mu and pagesMu are held.
func (m *MemoryManager) prefault(addr uint64) {
	if p, ok := m.vmas.Find(addr); ok {
		m.fillFirst(m.vmas.At(p), addr)
	}
}

func (m *MemoryManager) fillFirst(s *vmaSeg, addr uint64) error {
	return m.fill(s, addr, s.Val.perms&platform.Write != 0 && s.Val.private() && s.Len() <= cowUnit, s.Val.mappable != nil && s.Len() <= populateFile)
}

// vma is the mapping that o describes.
func (o *MMapOpts) vma() vma {
	v := vma{mappable: o.Mappable, file: o.File, name: o.Name, perms: o.Perms, maxPerms: o.MaxPerms}
	if v.maxPerms == platform.None {
		v.maxPerms = allPerms
	}
	if o.Mappable != nil {
		v.off = o.Offset
	}
	for _, f := range [...]struct {
		set  bool
		flag vmaFlags
	}{{o.Shared, vmaShared}, {o.GrowsDown || o.Stack, vmaGrowsDown}, {o.Stack, vmaStack}, {o.Locked, vmaLocked}, {o.NoReserve, vmaNoReserve},
		{o.NoHugePage, vmaNoHugePage}, {o.Image && !o.Shared && o.Mappable != nil, vmaImage}} {
		if f.set {
			v.flags |= f.flag
		}
	}
	return v
}

// place chooses the address of a mapping of n bytes. mu is held.
func (m *MemoryManager) place(o *MMapOpts, n uint64) (uint64, error) {
	if o.Fixed {
		switch end := o.Addr + n; {
		case o.Addr&arch.PageMask != 0:
			return 0, unix.EINVAL
		case end < o.Addr || end > m.max:
			return 0, unix.ENOMEM
		case o.Addr < m.min:
			return 0, unix.EPERM
		case o.NoReplace && m.used(o.Addr, end):
			return 0, unix.EEXIST
		case m.sealed(o.Addr, end):
			return 0, unix.EPERM
		}
		return o.Addr, nil
	}
	if hint, ok := arch.PageUp(o.Addr); ok && o.Addr != 0 {
		hint = max(hint, m.min)
		if end := hint + n; end > hint && end <= m.max && (!o.Low32 || end <= 1<<31) {
			if a, ok := m.findFree(hint, end, n, true); ok {
				return a, nil
			}
		}
	}
	if o.Low32 {
		if a, ok := m.findFree(1<<30, 1<<31, n, true); ok {
			return a, nil
		}
		return 0, unix.ENOMEM
	}
	if a, ok := m.search(n); ok {
		return a, nil
	}
	return 0, unix.ENOMEM
}

// search finds n free bytes where mappings without an address go. mu is held.
func (m *MemoryManager) search(n uint64) (uint64, bool) {
	base := min(max(m.layout.MmapBase, m.min), m.max)
	if m.layout.BottomUp {
		return m.findFree(base, m.max, n, true)
	}
	if a, ok := m.findFree(m.min, base, n, false); ok {
		return a, true
	}
	return m.findFree(base, m.max, n, true)
}

// used tells whether anything is mapped in [start, end). mu is held.
func (m *MemoryManager) used(start, end uint64) bool {
	p := m.vmas.Seek(start)
	return m.vmas.Valid(p) && m.vmas.At(p).Start < end
}

// checkLimits checks whether n bytes may be mapped as v. mu is held.
func (m *MemoryManager) checkLimits(v *vma, n uint64, lockPrivileged bool) error {
	l := m.limits.Load()
	if as := l.Get(unix.RLIMIT_AS).Cur; as != ^uint64(0) && m.stats.virtual+n > as {
		return unix.ENOMEM
	}
	if v.isData() {
		if d := l.Get(unix.RLIMIT_DATA).Cur; d != ^uint64(0) && m.stats.data+n > d {
			return unix.ENOMEM
		}
	}
	if v.has(vmaLocked) && !lockPrivileged && !m.mayLock(n) {
		return unix.EAGAIN
	}
	return nil
}

// mayLock tells whether RLIMIT_MEMLOCK allows to lock n more bytes. mu is held.
func (m *MemoryManager) mayLock(n uint64) bool {
	l := m.limits.Load().Get(unix.RLIMIT_MEMLOCK).Cur
	return l == ^uint64(0) || m.stats.locked+n <= l
}

// populate makes the pages in [start, end) ready, as far as possible, and present in the host's page tables. mu is held.
func (m *MemoryManager) populate(start, end uint64, write bool) (err error) {
	m.pagesMu.Lock()
	defer m.pagesMu.Unlock()
	for p := m.vmas.Seek(start); m.vmas.Valid(p) && m.vmas.At(p).Start < end && err == nil; p = m.vmas.Next(p) {
		s := m.vmas.At(p)
		if s.Val.perms == platform.None || write && rights(s.Val.perms)&platform.Write == 0 {
			continue
		}
		for at := max(start, s.Start); at < min(end, s.End) && err == nil; {
			if q, ok := m.pages.Find(at); ok {
				r := m.pages.At(q)
				if r.Val.has(pageMapped) && (!write || r.Val.avail&platform.Write != 0) {
					m.mapRun(r, at, min(r.End, s.End, end), true)
					at = min(r.End, s.End, end)
					continue
				}
			}
			if err = m.fill(s, at, write, true); err == nil {
				q, _ := m.pages.Find(at)
				at = m.pages.At(q).End
			}
			if len(m.ops) > 64 {
				m.flush()
			}
		}
	}
	m.flush()
	return err
}

// Munmap is munmap(2). Errors: EINVAL, ENOMEM, EPERM (sealed).
func (m *MemoryManager) Munmap(addr, length uint64) error {
	n, ok := arch.PageUp(length)
	if !ok || n == 0 || addr&arch.PageMask != 0 || addr > m.max || n > m.max-addr {
		return unix.EINVAL
	}
	m.lock()
	defer m.unlock()
	if m.sealed(addr, addr+n) {
		return unix.EPERM
	}
	if m.cuts(addr, addr+n) == 2 && m.vmas.Count() >= m.maxMaps {
		if p, _ := m.vmas.Find(addr); m.vmas.At(p).End > addr+n {
			return unix.ENOMEM
		}
	}
	m.removeVMAs(addr, addr+n, false)
	return nil
}

// Flags of mprotect(2) beside the rights.
const (
	ProtGrowsDown = 0x01000000
	ProtGrowsUp   = 0x02000000
)

// Mprotect is mprotect(2); flags are ProtGrowsDown and ProtGrowsUp. Errors: EINVAL, ENOMEM, EACCES, EPERM (sealed).
func (m *MemoryManager) Mprotect(addr, length uint64, perms platform.Perms, flags int) error {
	if addr&arch.PageMask != 0 || flags == ProtGrowsDown|ProtGrowsUp {
		return unix.EINVAL
	}
	if length == 0 {
		return nil
	}
	n, ok := arch.PageUp(length)
	end := addr + n
	if !ok || end < addr {
		return unix.ENOMEM
	}
	m.lock()
	defer m.unlock()
	p := m.vmas.Seek(addr)
	if !m.vmas.Valid(p) || m.vmas.At(p).Start >= end {
		return unix.ENOMEM
	}
	first := m.vmas.At(p)
	switch {
	case flags&ProtGrowsUp != 0:
		return unix.EINVAL
	case flags&ProtGrowsDown != 0:
		if !first.Val.has(vmaGrowsDown) {
			return unix.EINVAL
		}
		addr = first.Start
	}
	if m.sealed(addr, end) {
		return unix.EPERM
	}
	if m.vmas.Count()+m.cuts(addr, end) > m.maxMaps {
		return unix.ENOMEM
	}
	// As Linux, change everything up to the first mapping that cannot be.
	at := addr
	var err error
	for ; m.vmas.Valid(p) && at < end; p = m.vmas.Next(p) {
		s := m.vmas.At(p)
		if s.Start > at {
			break
		}
		if perms&^s.Val.maxPerms != 0 {
			err = unix.EACCES
			break
		}
		if perms&platform.Write != 0 && s.Val.perms&platform.Write == 0 && s.Val.private() {
			w := s.Val
			w.perms = perms
			if d := m.limits.Load().Get(unix.RLIMIT_DATA).Cur; w.isData() && d != ^uint64(0) && m.stats.data+min(s.End, end)-at > d {
				err = unix.ENOMEM
				break
			}
		}
		at = s.End
	}
	at = min(at, end)
	if err == nil && at < end {
		err = unix.ENOMEM
	}
	if at > addr {
		m.updateVMAs(addr, at, func(s *vmaSeg) { s.Val.perms = perms })
		m.pagesMu.Lock()
		m.protectPages(addr, at, perms)
		if ferr := m.flush(); err == nil && ferr != nil {
			err = unix.ENOMEM
		}
		m.pagesMu.Unlock()
	}
	return err
}

// SetBrk makes addr the start of the heap, which is empty.
func (m *MemoryManager) SetBrk(addr uint64) {
	m.lock()
	m.brk = AddrRange{Addr: addr}
	m.unlock()
}

// Heap is the start and the current end of the heap.
func (m *MemoryManager) Heap() (start, end uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.brk.Addr, m.brk.Addr + m.brk.Len
}

// Brk is brk(2) as the kernel has it: it gives the new break, or the old one if it cannot be addr.
func (m *MemoryManager) Brk(addr uint64) uint64 {
	m.lock()
	defer m.unlock()
	old := m.brk.Addr + m.brk.Len
	if addr < m.brk.Addr || addr > m.max {
		return old
	}
	from, _ := arch.PageUp(old)
	to, _ := arch.PageUp(addr)
	switch {
	case to < from:
		if m.sealed(to, from) {
			return old
		}
		m.removeVMAs(to, from, true)
	case to > from:
		v := vma{name: "[heap]", perms: platform.ReadWrite, maxPerms: allPerms}
		if m.lockFuture != 0 {
			v.flags |= vmaLocked
		}
		if d := m.limits.Load().Get(unix.RLIMIT_DATA).Cur; d != ^uint64(0) && addr-m.brk.Addr > d {
			return old
		}
		if _, free := m.findFree(from, to, to-from, true); !free || m.vmas.Count() >= m.maxMaps || m.checkLimits(&v, to-from, false) != nil {
			return old
		}
		m.insertVMA(from, to, v)
		if m.lockFuture&unix.MCL_FUTURE != 0 && m.lockFuture&unix.MCL_ONFAULT == 0 {
			m.populate(from, to, true)
		} else if to-from <= anonChunk {
			m.pagesMu.Lock()
			m.prefault(from) // programs ask for a larger heap when they need it
			if q, ok := m.pages.Find(from); ok && m.pages.At(q).End < to {
				m.prefault(m.pages.At(q).End) // behind a spare
			}
			m.flush()
			m.pagesMu.Unlock()
		}
	}
	m.brk.Len = addr - m.brk.Addr
	return addr
}

// FindFree gives the address of n free bytes where mappings without an address go, a multiple of align, which is a power
// of two. ENOMEM. Nothing is reserved: it is for who builds an address space that nobody else uses yet.
func (m *MemoryManager) FindFree(n, align uint64) (uint64, error) {
	n, ok := arch.PageUp(n)
	align = max(align, arch.PageSize)
	if !ok || n == 0 || n+align < n {
		return 0, unix.ENOMEM
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	a, ok := m.search(n + align - arch.PageSize)
	if !ok {
		return 0, unix.ENOMEM
	}
	if m.layout.BottomUp {
		return (a + align - 1) &^ (align - 1), nil
	}
	return (a + align - arch.PageSize) &^ (align - 1), nil
}
