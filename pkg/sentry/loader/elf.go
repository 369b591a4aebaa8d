package loader

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/mm"
)

// Fields of elf(5), for 64-bit files.
const (
	ehdrSize = 64
	phdrSize = 56
	maxPhdrs = 65536 / phdrSize

	etExec    = 2
	etDyn     = 3
	emX8664   = 62
	ptLoad    = 1
	ptInterp  = 3
	ptPhdr    = 6
	ptStack   = 0x6474e551
	flagExec  = 1
	flagWrite = 2
	flagRead  = 4
	pathMax   = 4096
)

// segment is a PT_LOAD program header.
type segment struct {
	off, vaddr, filesz, memsz uint64
	perms                     platform.Perms
}

// elfFile is what a program's headers say.
type elfFile struct {
	file       File
	entry      uint64
	dynamic    bool // ET_DYN: position independent
	segments   []segment
	start, end uint64 // addresses of the first page, and behind the last byte
	align      uint64 // of the base
	phdr       uint64 // address of the program headers; 0 if they are not mapped
	phnum      uint16
	interp     string
	execStack  bool
}

// first is the lowest address rounded down to the alignment of the base.
func (e *elfFile) first() uint64 { return e.start &^ (e.align - 1) }

// parse reads the headers of f, whose first bytes are head. ENOEXEC for what is not a program for this machine.
func parse(f File, head []byte) (*elfFile, error) {
	if len(head) < ehdrSize || string(head[:4]) != "\x7fELF" || head[4] != 2 || head[5] != 1 {
		return nil, unix.ENOEXEC
	}
	le := binary.LittleEndian
	typ := le.Uint16(head[16:])
	phoff, phnum := le.Uint64(head[32:]), le.Uint16(head[56:])
	if typ != etExec && typ != etDyn || le.Uint16(head[18:]) != emX8664 || le.Uint16(head[54:]) != phdrSize || phnum == 0 || phnum > maxPhdrs {
		return nil, unix.ENOEXEC
	}
	e := &elfFile{file: f, entry: le.Uint64(head[24:]), dynamic: typ == etDyn, phnum: phnum, align: arch.PageSize}
	table, err := e.bytes(head, phoff, uint64(phnum)*phdrSize)
	if err != nil {
		return nil, err
	}
	for ; len(table) > 0; table = table[phdrSize:] {
		if err := e.header(head, table, phoff); err != nil {
			return nil, err
		}
	}
	if len(e.segments) == 0 {
		return nil, unix.ENOEXEC
	}
	if e.entry < e.start || e.entry >= e.end {
		// Linux would run it, and the program would fault at once; the file is broken.
		if e.dynamic || e.entry > 1<<47 {
			return nil, unix.ENOEXEC
		}
	}
	return e, nil
}

// bytes is the range [off, off+n) of the file, which may be in head already.
func (e *elfFile) bytes(head []byte, off, n uint64) ([]byte, error) {
	if off <= uint64(len(head)) && n <= uint64(len(head))-off {
		return head[off : off+n], nil
	}
	if off > 1<<62 {
		return nil, unix.ENOEXEC
	}
	b := make([]byte, n)
	k, err := readFull(e.file, b, int64(off))
	if err != nil {
		return nil, err
	}
	if k < len(b) {
		return nil, unix.ENOEXEC
	}
	return b, nil
}

// header takes a program header in, the first of table.
func (e *elfFile) header(head, table []byte, phoff uint64) error {
	le := binary.LittleEndian
	typ, flags := le.Uint32(table), le.Uint32(table[4:])
	s := segment{off: le.Uint64(table[8:]), vaddr: le.Uint64(table[16:]), filesz: le.Uint64(table[32:]), memsz: le.Uint64(table[40:])}
	switch typ {
	case ptLoad:
		return e.load(s, flags, le.Uint64(table[48:]), phoff)
	case ptInterp:
		if e.interp != "" {
			return nil // Linux takes the first
		}
		if s.filesz < 2 || s.filesz > pathMax {
			return unix.ENOEXEC
		}
		b, err := e.bytes(head, s.off, s.filesz)
		if err != nil {
			return err
		}
		if b[len(b)-1] != 0 {
			return unix.ENOEXEC
		}
		for i, c := range b {
			if c == 0 {
				b = b[:i]
				break
			}
		}
		if e.interp = string(b); e.interp == "" {
			return unix.ENOENT
		}
	case ptStack:
		e.execStack = flags&flagExec != 0
	case ptPhdr:
		e.phdr = s.vaddr
	}
	return nil
}

// load checks a PT_LOAD header: EINVAL where mmap(2) would fail, ENOEXEC where it makes no sense.
func (e *elfFile) load(s segment, flags uint32, align, phoff uint64) error {
	if s.memsz == 0 {
		return nil
	}
	end := s.vaddr + s.memsz
	if end < s.vaddr || end > 1<<47 || s.filesz > s.memsz || s.off+s.filesz < s.off || s.off+s.filesz > 1<<62 {
		return unix.ENOEXEC
	}
	if s.filesz != 0 && (s.vaddr^s.off)&arch.PageMask != 0 {
		return unix.EINVAL
	}
	if n := len(e.segments); n > 0 {
		if last := e.segments[n-1]; s.vaddr < last.vaddr {
			return unix.ENOEXEC // elf(5): ascending
		}
	} else {
		e.start = arch.PageDown(s.vaddr)
	}
	e.end = max(e.end, end)
	if align&(align-1) == 0 && align <= 1<<30 {
		e.align = max(e.align, align)
	}
	if flags&flagRead != 0 {
		s.perms |= platform.Read
	}
	if flags&flagWrite != 0 {
		s.perms |= platform.Write
	}
	if flags&flagExec != 0 {
		s.perms |= platform.Exec
	}
	if e.phdr == 0 && phoff >= s.off && phoff-s.off < s.filesz {
		e.phdr = s.vaddr + phoff - s.off
	}
	e.segments = append(e.segments, s)
	return nil
}

// mapSegments maps the file with its addresses shifted by base, and notes in info (if not nil) where code and data are.
func (e *elfFile) mapSegments(m *mm.MemoryManager, base uint64, info *mm.ProcInfo) error {
	mappable, file, err := e.file.Mapping()
	if err != nil {
		return err
	}
	if !m.CheckRange(base+e.start, e.end-e.start) {
		return unix.ENOMEM
	}
	for i := range e.segments {
		s := &e.segments[i]
		start := arch.PageDown(base + s.vaddr)
		fileEnd := base + s.vaddr + s.filesz
		end, _ := arch.PageUp(base + s.vaddr + s.memsz)
		filePages, _ := arch.PageUp(fileEnd)
		if s.filesz == 0 {
			filePages = start
		} else if _, err := m.MMap(mm.MMapOpts{Addr: start, Length: filePages - start, Perms: s.perms, Fixed: true, Mappable: mappable, File: file,
			Offset: arch.PageDown(s.off), Prefault: true}); err != nil {
			return err
		}
		if end > filePages {
			if _, err := m.MMap(mm.MMapOpts{Addr: filePages, Length: end - filePages, Perms: s.perms, Fixed: true, Prefault: true}); err != nil {
				return err
			}
		}
		if s.memsz > s.filesz && s.filesz != 0 && fileEnd&arch.PageMask != 0 && s.perms&platform.Write != 0 {
			// What the file has behind the segment in its last page must not show. A failure means that the file
			// ends before the page, which faults when it is used.
			m.ZeroOut(fileEnd, filePages-fileEnd)
		}
		if info != nil {
			note(info, s, base)
		}
	}
	return nil
}

// note records the bounds of code and data as Linux does.
func note(info *mm.ProcInfo, s *segment, base uint64) {
	start, end := base+s.vaddr, base+s.vaddr+s.filesz
	if s.perms&platform.Exec != 0 {
		if info.StartCode == 0 || start < info.StartCode {
			info.StartCode = start
		}
		info.EndCode = max(info.EndCode, end)
	}
	info.StartData = max(info.StartData, start)
	info.EndData = max(info.EndData, end)
}
