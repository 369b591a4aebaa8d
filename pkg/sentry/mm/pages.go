package mm

import (
	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/ranges"
)

const (
	// anonChunk is the most that one fault in an anonymous mapping allocates. Extents are sparse, so a large one
	// costs offsets in the file and nothing else; it bounds what is wasted in mappings of terabytes.
	anonChunk = 16 << 20
	// fileChunk is the most that one fault maps of a file.
	fileChunk = 16 << 20
	// cowUnit is how much is copied around a write to a shared page: a fault costs as much as copying some
	// pages, and neighbours tend to be written, too.
	cowUnit = 64 << 10
	// populateFile is the largest part of a program or library that is entered into the page table as a whole: a fault for
	// 64 KiB costs as much as 128 pages more.
	populateFile = 2 << 20
	// smallRegion is the largest anonymous region that is mapped with all its pages at its first fault: the host's faults, one for each
	// page, take longer than zeroing some pages that may not be needed.
	smallRegion = 64 << 10
	// hugePage is the size of the host's huge pages; larger extents are congruent with it.
	hugePage = 2 << 20
)

// page is a run of consecutive pages with the same properties.
type page struct {
	off   uint64 // in the memory file or host file
	fd    int32  // host file, or MemoryFile
	flags pageFlags
	perms platform.Perms // those of the vma
	avail platform.Perms // what can be done without another fault
}

type pageFlags uint8

const (
	// pageMapped is set when the platform may have it mapped.
	pageMapped pageFlags = 1 << iota
	// pageOwned marks private copies and private anonymous memory; others belong to a Mappable.
	pageOwned
	// pageHot marks owned pages that were written soon after a fork, and are likely to be after the next.
	pageHot
)

type pageSeg = ranges.Seg[page]

// Tail and Joins make page a ranges.Value.
func (p page) Tail(off uint64) page {
	p.off += off
	return p
}

// Joins compares everything.
func (p page) Joins(n uint64, next page) bool {
	return p.off+n == next.off && p.fd == next.fd && p.flags == next.flags && p.perms == next.perms && p.avail == next.avail
}

func (p *page) has(f pageFlags) bool { return p.flags&f != 0 }

// effective is the rights with which the platform maps it.
func (p *page) effective() platform.Perms { return rights(p.perms) & p.avail }

// allows tells whether the sentry may access it for the application as it is.
func (p *page) allows(access platform.Perms, force bool) bool {
	if access&platform.Write != 0 && p.avail&platform.Write == 0 {
		return false
	}
	return force || access&^rights(p.perms) == 0
}

// addOp collects a change of the platform's address space. pagesMu is held, as it is for all that follows.
func (m *MemoryManager) addOp(op platform.MapOp) {
	if m.as != nil {
		m.pushOp(op)
	}
}

// pushOp is addOp for an address space that need not exist yet.
func (m *MemoryManager) pushOp(op platform.MapOp) {
	if n := len(m.ops); n > 0 {
		last := &m.ops[n-1]
		if last.Op == platform.OpUnmap && op.Op == platform.OpMap && op.Addr <= last.Addr && last.Addr+last.Length <= op.Addr+op.Length {
			*last = op // replaces it all
			return
		}
		if last.Op == op.Op && last.Addr+last.Length == op.Addr && last.Perms == op.Perms && last.Populate == op.Populate &&
			(op.Op != platform.OpMap || last.FD == op.FD && last.Offset+last.Length == op.Offset) {
			last.Length += op.Length
			return
		}
	}
	m.ops = append(m.ops, op)
}

// mapRun has the platform map [start, end) of the run s, which contains it.
func (m *MemoryManager) mapRun(s *pageSeg, start, end uint64, populate bool) {
	if m.as != nil {
		m.pushMap(s, start, end, populate)
	}
}

func (m *MemoryManager) pushMap(s *pageSeg, start, end uint64, populate bool) {
	m.dropSpares(start, end)
	fd := int(s.Val.fd)
	if fd == MemoryFile {
		fd = m.file.FD()
	}
	m.pushOp(platform.MapOp{Op: platform.OpMap, Perms: s.Val.effective(), FD: fd, Addr: start, Length: end - start,
		Offset: s.Val.off + start - s.Start, Populate: populate})
}

// dropPages forgets the pages in [start, end).
func (m *MemoryManager) dropPages(start, end uint64) {
	first, last := end, start
	for p := m.pages.Isolate(start, end); m.pages.Valid(p) && m.pages.At(p).Start < end; p = m.pages.Remove(p) {
		s := m.pages.At(p)
		if s.Val.has(pageMapped) {
			first, last = min(first, s.Start), s.End
		}
		m.dropRef(s)
	}
	m.unmap(first, last)
}

// unmap has the platform unmap [start, end), if that is anything.
func (m *MemoryManager) unmap(start, end uint64) {
	if start < end {
		m.dropSpares(start, end)
		m.addOp(platform.MapOp{Op: platform.OpUnmap, Addr: start, Length: end - start})
	}
}

// protectPages makes perms the protection of the pages in [start, end).
func (m *MemoryManager) protectPages(start, end uint64, perms platform.Perms) {
	for p := m.pages.Isolate(start, end); m.pages.Valid(p) && m.pages.At(p).Start < end; p = m.pages.Next(p) {
		s := m.pages.At(p)
		before := s.Val.effective()
		s.Val.perms = perms
		if after := s.Val.effective(); after != before && s.Val.has(pageMapped) {
			m.addOp(platform.MapOp{Op: platform.OpProtect, Perms: after, Addr: s.Start, Length: s.Len()})
		}
	}
	m.pages.JoinRange(start, end)
}

// insertPages adds a run where there is none and has the platform map it.
func (m *MemoryManager) insertPages(start, end uint64, v page, populate bool) {
	if m.as != nil {
		v.flags |= pageMapped
	}
	s := pageSeg{Start: start, End: end, Val: v}
	m.mapRun(&s, start, end, populate)
	m.joinPages(start, end, v)
}

// joinPages adds a run where there is none.
func (m *MemoryManager) joinPages(start, end uint64, v page) {
	p := m.pages.Join(m.pages.Insert(start, end, v))
	if n := m.pages.Next(p); m.pages.Valid(n) {
		m.pages.Join(n)
	}
}

// window is the range around the page at addr where no pages are known, within seg and within the
// aligned chunk of the given size.
func (m *MemoryManager) window(seg *vmaSeg, addr, chunk uint64) (start, end uint64) {
	start = max(seg.Start, addr&^(chunk-1))
	end = seg.End
	if c := addr&^(chunk-1) + chunk; c > addr {
		end = min(end, c)
	}
	p := m.pages.Seek(addr)
	if m.pages.Valid(p) {
		end = min(end, m.pages.At(p).Start)
	}
	if p = m.pages.Prev(p); m.pages.Valid(p) {
		start = max(start, m.pages.At(p).End)
	}
	return start, end
}

// fill makes the page at addr, which is in mapping seg, ready for an access; the caller has checked the protection, and
// flushes. The error is a FaultError.
func (m *MemoryManager) fill(seg *vmaSeg, addr uint64, write, populate bool) error {
	addr = arch.PageDown(addr)
	v := &seg.Val
	if v.has(vmaSpecial) {
		return ErrBus
	}
	if p, ok := m.pages.Find(addr); ok {
		s := m.pages.At(p)
		switch {
		case !write || s.Val.avail&platform.Write != 0:
			m.remap(p, seg, addr, populate)
			return nil
		case s.Val.has(pageOwned):
			return m.breakCOW(p, seg, addr)
		case v.private():
			start, end := max(s.Start, seg.Start, addr&^(cowUnit-1)), min(s.End, seg.End, addr&^(cowUnit-1)+cowUnit)
			return m.copyRun(p, start, end, addr)
		}
		// A shared mapping of a page that the file wants to know about before it is written.
		m.dropPages(addr, addr+arch.PageSize)
	}
	if v.mappable == nil {
		return m.fillAnon(seg, addr, populate)
	}
	start, end := m.window(seg, addr, fileChunk)
	t, err := v.mappable.Translate(v.off+start-seg.Start, v.off+end-seg.Start, v.off+addr-seg.Start, write && !v.private())
	if err != nil {
		return ErrBus
	}
	start, end = seg.Start+t.Start-v.off, seg.Start+t.End-v.off
	run := page{off: t.Offset, fd: int32(t.HostFD), perms: v.perms, avail: t.Perms}
	if v.private() {
		run.avail &^= platform.Write
	}
	if !write || !v.private() {
		m.insertPages(start, end, run, populate)
		return nil
	}
	// The first access is a write: insert the run without mapping it, and copy at once.
	p := m.pages.Insert(start, end, run)
	if end-start > cowUnit {
		start, end = max(start, addr&^(cowUnit-1)), min(end, addr&^(cowUnit-1)+cowUnit)
	}
	return m.copyRun(p, start, end, addr)
}

// fillAnon allocates memory around addr.
func (m *MemoryManager) fillAnon(seg *vmaSeg, addr uint64, populate bool) error {
	if i := m.spareAt(addr); i >= 0 && m.useSpare(i, seg) {
		return nil
	}
	m.spares.again(addr)
	for chunk := uint64(anonChunk); ; chunk = max(chunk>>4, arch.PageSize) {
		start, end := m.window(seg, addr, chunk)
		var o memfile.AllocOpts
		if end-start >= hugePage {
			// The host uses huge pages where address and offset are congruent. Stacks, of which little is used, shall not be.
			o = memfile.AllocOpts{Align: hugePage, Phase: start}
			if seg.Val.has(vmaNoHugePage | vmaStack | vmaGrowsDown) {
				o.Phase += arch.PageSize
			}
		} else {
			o.Recycle = true
			populate = populate || end-start <= smallRegion && !seg.Val.has(vmaNoHugePage|vmaStack|vmaGrowsDown)
		}
		r, err := m.file.Allocate(end-start, o)
		if err != nil {
			if chunk == arch.PageSize {
				return ErrBus
			}
			continue
		}
		m.insertPages(start, end, page{off: r.Off, fd: MemoryFile, flags: pageOwned, perms: seg.Val.perms, avail: allPerms}, populate)
		return nil
	}
}

const allPerms = platform.Read | platform.Write | platform.Exec

// remap has the platform map known pages around addr, all of the run if it is not too large. After an access that
// faulted even though the page was mapped, that gives it the rights it has by now.
func (m *MemoryManager) remap(p ranges.Pos, seg *vmaSeg, addr uint64, populate bool) {
	if m.as == nil {
		return
	}
	s := m.pages.At(p)
	if s.Val.has(pageMapped) {
		m.mapRun(s, addr, addr+arch.PageSize, populate)
		return
	}
	start, end := max(s.Start, seg.Start), min(s.End, seg.End)
	if end-start > anonChunk {
		start, end = max(start, addr&^(anonChunk-1)), min(end, addr&^(anonChunk-1)+anonChunk)
	}
	s = m.pages.At(m.pages.Isolate(start, end))
	s.Val.flags |= pageMapped
	m.mapRun(s, start, end, populate)
	m.pages.JoinRange(start, end)
}

// breakCOW makes the page at addr in the owned run at p writable: as it is if nobody else has it, else by a copy of it and
// its neighbours.
func (m *MemoryManager) breakCOW(p ranges.Pos, seg *vmaSeg, addr uint64) error {
	s := m.pages.At(p)
	start, end := max(s.Start, addr&^(cowUnit-1)), min(s.End, addr&^(cowUnit-1)+cowUnit)
	limit := min(s.End, seg.End, start+anonChunk)
	if n := m.file.Exclusive(s.Val.off+start-s.Start, limit-start); start+n > addr {
		m.makeWritable(start, start+n)
		end = min(end, start+n)
	} else if m.file.Exclusive(s.Val.off+addr-s.Start, arch.PageSize) != 0 {
		m.makeWritable(addr, addr+arch.PageSize)
		start, end = addr, addr+arch.PageSize
	} else if err := m.copyRun(p, start, end, addr); err != nil {
		return err
	} else if m.report != nil {
		m.report.add(start, end)
	}
	m.heatRange(start, end)
	return nil
}

// makeWritable ends copy-on-write in [start, end), which is within one run.
func (m *MemoryManager) makeWritable(start, end uint64) {
	s := m.pages.At(m.pages.Isolate(start, end))
	s.Val.avail |= platform.Write
	if s.Val.has(pageMapped) { // keeps what is present in the host's page tables
		m.addOp(platform.MapOp{Op: platform.OpProtect, Perms: s.Val.effective(), Addr: start, Length: end - start})
	} else {
		if m.as != nil {
			s.Val.flags |= pageMapped
		}
		m.mapRun(s, start, end, false)
	}
	m.pages.JoinRange(start, end)
}

// copyRun replaces the pages in [start, end), a part of the run at p which contains the page at addr, by copies.
func (m *MemoryManager) copyRun(p ranges.Pos, start, end, addr uint64) error {
	r, err := m.file.Allocate(end-start, memfile.AllocOpts{Overwrite: true})
	if err != nil {
		return ErrBus
	}
	s := m.pages.At(p)
	from := s.Val.off + start - s.Start
	if s.Val.fd == MemoryFile {
		m.copyResident(r, from)
	} else {
		b := m.file.Slice(r.Off, r.Len)
		n := readHost(int(s.Val.fd), b, from)
		if start+n <= addr {
			m.file.DecRef(r)
			return ErrBus
		}
		if up, _ := arch.PageUp(start + n); up < end { // the rest is behind the end of the file
			m.file.DecRef(memfile.Range{Off: r.Off + up - start, Len: end - up})
			end = up
		}
		if r.Dirty {
			clear(b[n : end-start])
		}
	}
	s = m.pages.At(m.pages.Isolate(start, end))
	m.dropRef(s)
	s.Val.off, s.Val.fd, s.Val.avail = r.Off, MemoryFile, allPerms
	s.Val.flags = pageOwned
	if m.as != nil {
		s.Val.flags |= pageMapped
	}
	m.mapRun(s, start, end, true)
	m.pages.JoinRange(start, end)
	return nil
}

// copyResident copies from offset from to r, without what has never been touched.
func (m *MemoryManager) copyResident(r memfile.Range, from uint64) {
	var vec [cowUnit / arch.PageSize]byte
	n := r.Len / arch.PageSize
	if n > uint64(len(vec)) || !m.file.ResidentPages(from, vec[:n]) {
		copy(m.file.Slice(r.Off, r.Len), m.file.Slice(from, r.Len))
		return
	}
	for i := uint64(0); i < n; i++ {
		at := i * arch.PageSize
		if vec[i]&1 != 0 {
			copy(m.file.Slice(r.Off+at, arch.PageSize), m.file.Slice(from+at, arch.PageSize))
		} else if r.Dirty {
			clear(m.file.Slice(r.Off+at, arch.PageSize))
		}
	}
}

// readHost reads from a host file until b is full or the file ends, and gives the number of bytes.
func readHost(fd int, b []byte, off uint64) (done uint64) {
	for done < uint64(len(b)) {
		n, err := unix.Pread(fd, b[done:], int64(off+done))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		done += uint64(n)
	}
	return done
}
