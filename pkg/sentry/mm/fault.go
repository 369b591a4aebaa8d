package mm

import (
	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// FaultError is why an access to memory cannot go on; it says which signal the application gets.
type FaultError uint8

// The faults: SIGSEGV with SEGV_MAPERR and SEGV_ACCERR, SIGBUS with BUS_ADRERR.
const (
	ErrMap FaultError = iota + 1
	ErrAccess
	ErrBus
)

// Error implements error.
func (e FaultError) Error() string {
	switch e {
	case ErrMap:
		return "address not mapped"
	case ErrAccess:
		return "access not permitted by the mapping"
	}
	return "no memory behind the mapping"
}

// Signal is si_signo of the signal, see sigaction(2).
func (e FaultError) Signal() int32 {
	if e == ErrBus {
		return int32(unix.SIGBUS)
	}
	return int32(unix.SIGSEGV)
}

// Code is si_code of the signal.
func (e FaultError) Code() int32 {
	if e == ErrMap {
		return 1 // SEGV_MAPERR
	}
	return 2 // SEGV_ACCERR, BUS_ADRERR
}

// HandleFault makes the page at addr accessible, as the application's page fault wants it: nil, or a FaultError.
// access None stands for an unknown access.
func (m *MemoryManager) HandleFault(addr uint64, access platform.Perms) error {
	m.minFlt.Add(1)
	return m.fault(addr, access, false)
}

// fault makes the page at addr ready for access by the application, or by the sentry on its behalf.
func (m *MemoryManager) fault(addr uint64, access platform.Perms, force bool) error {
	for {
		m.mu.RLock()
		p := m.vmas.Seek(addr)
		if !m.vmas.Valid(p) {
			m.mu.RUnlock()
			return ErrMap
		}
		s := m.vmas.At(p)
		if addr >= s.Start {
			err := m.faultIn(s, addr, access, force)
			m.mu.RUnlock()
			return err
		}
		grows := s.Val.has(vmaGrowsDown)
		m.mu.RUnlock()
		if !grows {
			return ErrMap
		}
		if err := m.growStack(addr); err != nil {
			return err
		}
	}
}

// faultIn checks the access against mapping s and fills the page. mu is held for reading.
func (m *MemoryManager) faultIn(s *vmaSeg, addr uint64, access platform.Perms, force bool) error {
	can := rights(s.Val.perms)
	if force {
		can |= platform.Read
		if s.Val.private() && s.Val.maxPerms&platform.Write != 0 {
			can |= platform.Write
		}
	}
	if can == platform.None || access&^can != 0 {
		return ErrAccess
	}
	m.pagesMu.Lock()
	defer m.pagesMu.Unlock()
	write := access&platform.Write != 0
	if access == platform.None {
		// It was a write if a read cannot have faulted.
		if p, ok := m.pages.Find(addr); ok && m.pages.At(p).Val.has(pageMapped) && can&platform.Write != 0 {
			write = true
		}
	}
	image := s.Val.has(vmaImage) && m.untouched(s)
	err := m.fill(s, addr, write, image && s.Len() <= populateFile)
	if err == nil && image {
		m.fillImage(s)
	}
	if ferr := m.flush(); err == nil && ferr != nil {
		err = ErrBus
	}
	return err
}

// untouched tells whether no page of mapping s is known. pagesMu is held.
func (m *MemoryManager) untouched(s *vmaSeg) bool {
	p := m.pages.Seek(s.Start)
	return !m.pages.Valid(p) || m.pages.At(p).Start >= s.End
}

// imageParts is how many mappings to each side of the first one that is used fillImage makes ready.
const imageParts = 6

// fillImage makes the other parts of the file that s is a part of ready, and the anonymous memory behind its data, without errors.
// mu is held for reading, and pagesMu.
func (m *MemoryManager) fillImage(s *vmaSeg) {
	here, _ := m.vmas.Find(s.Start)
	at := s.Start
	for p, i := m.vmas.Prev(here), 0; m.vmas.Valid(p) && i < imageParts; p, i = m.vmas.Prev(p), i+1 {
		n := m.vmas.At(p)
		if n.End != at || n.Val.mappable != s.Val.mappable || !n.Val.has(vmaImage) {
			break
		}
		m.fillPart(n)
		at = n.Start
	}
	at = s.End
	for p, i := m.vmas.Next(here), 0; m.vmas.Valid(p) && i < imageParts; p, i = m.vmas.Next(p), i+1 {
		n := m.vmas.At(p)
		bss := n.Val.mappable == nil && n.Val.private() && n.Val.perms&platform.Write != 0
		if n.Start != at || !bss && (n.Val.mappable != s.Val.mappable || !n.Val.has(vmaImage)) {
			break
		}
		m.fillPart(n)
		if bss {
			break
		}
		at = n.End
	}
}

// fillPart makes a part of an image ready.
func (m *MemoryManager) fillPart(s *vmaSeg) {
	if s.Val.perms != platform.None && s.Len() <= fileChunk && m.untouched(s) {
		m.fillFirst(s, s.Start)
	}
}

// stackStep is how much a stack grows at least, if it can: a fault for every page would be slow.
const stackStep = 128 << 10

// growStack extends the mapping above addr down to it.
func (m *MemoryManager) growStack(addr uint64) error {
	m.lock()
	defer m.unlock()
	p := m.vmas.Seek(addr)
	if !m.vmas.Valid(p) {
		return ErrMap
	}
	s := m.vmas.At(p)
	if s.Start <= addr {
		return nil // another thread has done it
	}
	if !s.Val.has(vmaGrowsDown) {
		return ErrMap
	}
	lowest := m.min
	if q := m.vmas.Prev(p); m.vmas.Valid(q) {
		below := m.vmas.At(q)
		lowest = max(lowest, below.End)
		if below.Val.perms != platform.None && !below.Val.has(vmaGrowsDown) {
			lowest += stackGuard
		}
	}
	l := m.limits.Load()
	if room := l.Get(unix.RLIMIT_STACK).Cur &^ arch.PageMask; room < s.End {
		lowest = max(lowest, s.End-room)
	}
	if as := l.Get(unix.RLIMIT_AS).Cur; as < m.stats.virtual {
		return ErrMap
	} else if room := (as - m.stats.virtual) &^ arch.PageMask; room < s.Start {
		lowest = max(lowest, s.Start-room)
	}
	start := arch.PageDown(addr)
	if start < lowest || start >= s.Start {
		return ErrMap
	}
	start = min(start, max(lowest, s.Start-min(s.Start, stackStep)))
	m.insertVMA(start, s.Start, s.Val)
	return nil
}
