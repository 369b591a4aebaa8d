package mm

import (
	"golang.org/x/sys/unix"

	"husk/pkg/platform"
	"husk/pkg/sentry/ranges"
)

// vma is a mapping as the application made it.
type vma struct {
	mappable Mappable   // nil for private anonymous memory and the vdso
	file     MappedFile // may be nil
	off      uint64     // of the start, in mappable
	name     string     // if file is nil
	perms    platform.Perms
	maxPerms platform.Perms
	flags    vmaFlags
}

type vmaFlags uint16

const (
	vmaShared vmaFlags = 1 << iota
	vmaGrowsDown
	vmaStack
	vmaLocked
	vmaDontFork
	vmaWipeOnFork
	vmaDontDump
	vmaNoReserve
	vmaHugePage
	vmaNoHugePage
	vmaSealed
	vmaImage
	vmaSpecial // vdso and vvar: mapped by the platform, unknown to the page map
)

type vmaSeg = ranges.Seg[vma]

// Tail and Joins make vma a ranges.Value.
func (v vma) Tail(off uint64) vma {
	if v.mappable != nil {
		v.off += off
	}
	return v
}

// Joins compares everything.
func (v vma) Joins(n uint64, next vma) bool {
	return v.flags == next.flags && v.perms == next.perms && v.maxPerms == next.maxPerms && v.name == next.name &&
		v.mappable == next.mappable && v.file == next.file && (v.mappable == nil || v.off+n == next.off)
}

func (v *vma) has(f vmaFlags) bool { return v.flags&f != 0 }

// private tells whether writes go to copies of the pages.
func (v *vma) private() bool { return v.flags&vmaShared == 0 }

// rights is what the processor allows with protection p: on x86, any right includes reading.
func rights(p platform.Perms) platform.Perms {
	if p != platform.None {
		p |= platform.Read
	}
	return p
}

// accounts counts bytes of mappings by kind.
type accounts struct {
	virtual, peak, data, stack, exec, locked uint64
}

// isData tells whether RLIMIT_DATA counts the mapping.
func (v *vma) isData() bool {
	return v.private() && v.perms&platform.Write != 0 && !v.has(vmaStack|vmaGrowsDown)
}

// account adds n bytes (negative to remove) of v to the counts.
func (m *MemoryManager) account(v *vma, n uint64) {
	s := &m.stats
	s.virtual += n
	s.peak = max(s.peak, s.virtual)
	if v.isData() {
		s.data += n
	}
	if v.has(vmaStack | vmaGrowsDown) {
		s.stack += n
	} else if v.perms&platform.Exec != 0 {
		s.exec += n
	}
	if v.has(vmaLocked) {
		s.locked += n
	}
}

// lock and unlock hold mu for changes of the mappings; unlock drops references to files, which may close them: no change that
// has been put off may name their descriptors. Nor may one be that takes the last right to write to a file: a hostile thread
// uses it until the change is made, and others rely on it being gone.
func (m *MemoryManager) lock() { m.mu.Lock() }

func (m *MemoryManager) unlock() {
	dead, unshared := m.dead, m.unshared
	m.dead, m.unshared = nil, nil
	if len(dead)+len(unshared) > 0 {
		m.pagesMu.Lock()
		m.settle()
		m.pagesMu.Unlock()
	}
	for _, u := range unshared {
		u.set.unwritable(u.n)
	}
	m.mu.Unlock()
	for _, f := range dead {
		f.DecRef()
	}
}

// unshared is n bytes less of a file that are mapped shared and may be written.
type unshared struct {
	set *MappingSet
	n   int
}

// fileBytes notes that n more bytes (negative for fewer) of f are mapped. References to files are counted by bytes,
// since that does not change as mappings are cut and joined.
func (m *MemoryManager) fileBytes(v *vma, n uint64) {
	if v.mappable != nil {
		set, writable := v.mappable.MappingSet(), !v.private() && v.maxPerms&platform.Write != 0
		if writable && int(n) < 0 && v.file != nil {
			m.unshared = append(m.unshared, unshared{set, int(-n)})
			writable = false
		}
		set.add(m, int(n), writable)
	}
	if v.file == nil {
		return
	}
	if m.files == nil {
		m.files = make(map[MappedFile]uint64)
	}
	old := m.files[v.file]
	switch now := old + n; {
	case now == 0:
		delete(m.files, v.file)
		m.dead = append(m.dead, v.file)
	default:
		m.files[v.file] = now
		if old == 0 {
			v.file.IncRef()
		}
	}
}

// insertVMA adds the mapping of [start, end), where nothing is mapped, and joins it to its neighbours. mu is held.
func (m *MemoryManager) insertVMA(start, end uint64, v vma) {
	m.account(&v, end-start)
	m.fileBytes(&v, end-start)
	p := m.vmas.Insert(start, end, v)
	p = m.vmas.Join(p)
	if n := m.vmas.Next(p); m.vmas.Valid(n) {
		m.vmas.Join(n)
	}
}

// removeVMAs unmaps all of [start, end), with its pages; sure is that of givePages. mu is held.
func (m *MemoryManager) removeVMAs(start, end uint64, sure bool) {
	if m.takeVMAs(start, end) {
		m.pagesMu.Lock()
		m.givePages(start, end, sure)
		m.flush()
		m.pagesMu.Unlock()
	}
}

// takeVMAs takes all mappings within [start, end) off the list, without their pages; false if there are none. mu is held.
func (m *MemoryManager) takeVMAs(start, end uint64) (any bool) {
	p := m.vmas.Isolate(start, end)
	for m.vmas.Valid(p) && m.vmas.At(p).Start < end {
		s := m.vmas.At(p)
		m.account(&s.Val, -s.Len())
		m.fileBytes(&s.Val, -s.Len())
		p = m.vmas.Remove(p)
		any = true
	}
	return any
}

// updateVMAs changes all mappings within [start, end) by f. mu is held.
func (m *MemoryManager) updateVMAs(start, end uint64, f func(s *vmaSeg)) {
	for p := m.vmas.Isolate(start, end); m.vmas.Valid(p) && m.vmas.At(p).Start < end; p = m.vmas.Next(p) {
		s := m.vmas.At(p)
		m.account(&s.Val, -s.Len())
		f(s)
		m.account(&s.Val, s.Len())
	}
	m.vmas.JoinRange(start, end)
}

// covered tells whether all of [start, end) is mapped, and calls f (if not nil) for the mappings there; it stops at f's first
// error. The error is ENOMEM where something is not mapped, after all that is has been seen. mu is held.
func (m *MemoryManager) covered(start, end uint64, f func(s *vmaSeg) error) error {
	at := start
	var hole error
	for p := m.vmas.Seek(start); m.vmas.Valid(p) && m.vmas.At(p).Start < end; p = m.vmas.Next(p) {
		s := m.vmas.At(p)
		if s.Start > at {
			hole = unix.ENOMEM
		}
		at = s.End
		if f != nil {
			if err := f(s); err != nil {
				return err
			}
		}
	}
	if at < end {
		hole = unix.ENOMEM
	}
	return hole
}

// sealed tells whether a mapping in [start, end) must not change. mu is held.
func (m *MemoryManager) sealed(start, end uint64) bool {
	for p := m.vmas.Seek(start); m.vmas.Valid(p) && m.vmas.At(p).Start < end; p = m.vmas.Next(p) {
		if m.vmas.At(p).Val.has(vmaSealed) {
			return true
		}
	}
	return false
}

// cuts is the number of mappings that cutting at start and end adds. mu is held.
func (m *MemoryManager) cuts(start, end uint64) (n int) {
	if p, ok := m.vmas.Find(start); ok && m.vmas.At(p).Start < start {
		n++
	}
	if p, ok := m.vmas.Find(end); ok && m.vmas.At(p).Start < end {
		n++
	}
	return n
}

// stackGuard is the distance that a mapping which grows down keeps from the one below (stack_guard_gap).
const stackGuard = 256 << 12

// findFree finds n free bytes within [lo, hi). mu is held.
func (m *MemoryManager) findFree(lo, hi, n uint64, bottomUp bool) (addr uint64, ok bool) {
	m.vmas.Gaps(lo, hi, n, !bottomUp, func(start, end uint64, next ranges.Pos) bool {
		if m.vmas.Valid(next) {
			if s := m.vmas.At(next); s.Val.has(vmaGrowsDown) && s.Start < end+stackGuard {
				end = max(start, s.Start-min(stackGuard, s.Start))
			}
		}
		if end < start || end-start < n {
			return true
		}
		if addr, ok = end-n, true; bottomUp {
			addr = start
		}
		return false
	})
	return addr, ok
}

// mapVDSO lists the pages that the platform maps in every address space.
func (m *MemoryManager) mapVDSO() {
	base, size, ehdr := m.platform.VDSO()
	if size == 0 {
		return
	}
	v := vma{perms: platform.Read, maxPerms: platform.Read, flags: vmaSpecial | vmaSealed | vmaDontDump, name: "[vvar]"}
	if ehdr == 0 {
		m.insertVMA(base, base+size, v)
		return
	}
	if ehdr > base {
		m.insertVMA(base, ehdr, v)
	}
	v.perms |= platform.Exec
	v.maxPerms = v.perms
	v.name = "[vdso]"
	m.insertVMA(ehdr, base+size, v)
}
