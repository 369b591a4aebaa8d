package mm

import "husk/pkg/platform"

// VMAInfo describes a mapping for /proc/PID/maps and smaps.
type VMAInfo struct {
	Start, End      uint64
	Perms, MaxPerms platform.Perms
	Shared          bool
	Offset          uint64
	Name            string // path, or [heap] and such
	Dev, Ino        uint64
	// Flags of smaps.
	GrowsDown, Locked, DontFork, WipeOnFork, DontDump, NoReserve, HugePage, NoHugePage, Sealed bool
	// File is whether a file is mapped.
	File bool
}

// ForEachVMA calls f for the mappings in ascending order that end behind addr from, until it returns false. f runs with
// locks of mm held: it must not touch user memory nor call other methods.
func (m *MemoryManager) ForEachVMA(from uint64, f func(*VMAInfo) bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for p := m.vmas.Seek(from); m.vmas.Valid(p); p = m.vmas.Next(p) {
		s := m.vmas.At(p)
		v := &s.Val
		if v.hidden() {
			continue
		}
		i := VMAInfo{Start: s.Start, End: s.End, Perms: v.perms, MaxPerms: v.maxPerms, Shared: !v.private(), Offset: v.off, Name: v.name,
			GrowsDown: v.has(vmaGrowsDown), Locked: v.has(vmaLocked), DontFork: v.has(vmaDontFork), WipeOnFork: v.has(vmaWipeOnFork),
			DontDump: v.has(vmaDontDump), NoReserve: v.has(vmaNoReserve), HugePage: v.has(vmaHugePage), NoHugePage: v.has(vmaNoHugePage),
			Sealed: v.has(vmaSealed), File: v.mappable != nil}
		if v.file != nil {
			i.Name = v.file.MappedName()
			i.Dev, i.Ino = v.file.MappedInfo()
		} else if v.has(vmaStack) {
			i.Name = "[stack]"
		}
		if !f(&i) {
			return
		}
	}
}

// Residence is how much of a range takes memory, in bytes.
type Residence struct {
	Anon   uint64 // private memory
	File   uint64 // host files, as far as they are known to be used
	Shared uint64 // pages of files in the memory file
}

// Total is the resident set size.
func (r Residence) Total() uint64 { return r.Anon + r.File + r.Shared }

// ResidentIn counts what of [start, end) takes memory. It asks the host about every page.
func (m *MemoryManager) ResidentIn(start, end uint64) (r Residence) {
	m.pagesMu.RLock()
	defer m.pagesMu.RUnlock()
	for p := m.pages.Seek(start); m.pages.Valid(p) && m.pages.At(p).Start < end; p = m.pages.Next(p) {
		s := m.pages.At(p)
		from, to := max(s.Start, start), min(s.End, end)
		switch {
		case s.Val.fd != MemoryFile:
			r.File += to - from
		case s.Val.has(pageOwned):
			r.Anon += m.file.Resident(rangeOf(s, from, to))
		default:
			r.Shared += m.file.Resident(rangeOf(s, from, to))
		}
	}
	return r
}

// MemStats is figures for /proc/PID/status and statm, in bytes.
type MemStats struct {
	Virtual, PeakVirtual uint64
	RSS                  Residence
	PeakRSS              uint64
	Data, Stack, Exec    uint64
	Locked               uint64
	PageTables           uint64
	MinorFaults          uint64
	Maps                 int
}

// Stats counts. It is exact for what is resident in the memory file, and costs a look at every page.
func (m *MemoryManager) Stats() MemStats {
	r := m.ResidentIn(0, m.max)
	for {
		old := m.peakRSS.Load()
		if old >= r.Total() || m.peakRSS.CompareAndSwap(old, r.Total()) {
			break
		}
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	a := &m.stats
	return MemStats{Virtual: a.virtual, PeakVirtual: a.peak, RSS: r, PeakRSS: m.peakRSS.Load(), Data: a.data, Stack: a.stack, Exec: a.exec,
		Locked: a.locked, PageTables: r.Total()>>9 + 3<<12, MinorFaults: m.minFlt.Load(), Maps: m.vmas.Count()}
}

// MinorFaults is the number of faults that the sentry has seen.
func (m *MemoryManager) MinorFaults() uint64 { return m.minFlt.Load() }

// VirtualSize is the number of bytes that are mapped.
func (m *MemoryManager) VirtualSize() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.stats.virtual
}

// NextFile is the file (nil for none) of the first mapping that ends behind addr, without a reference, and where that mapping is; ok is
// false if there is none.
func (m *MemoryManager) NextFile(addr uint64) (f MappedFile, start, end, off uint64, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	p := m.vmas.Seek(addr)
	if !m.vmas.Valid(p) {
		return nil, 0, 0, 0, false
	}
	s := m.vmas.At(p)
	return s.Val.file, s.Start, s.End, s.Val.off, true
}

// Mapped tells whether all of [addr, addr+n) is mapped.
func (m *MemoryManager) Mapped(addr, n uint64) bool {
	end := addr + n
	if end < addr {
		return false
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.covered(addr, end, nil) == nil
}
