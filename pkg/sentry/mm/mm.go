package mm

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/ranges"
)

// MaxMapCount is the default of /proc/sys/vm/max_map_count.
const MaxMapCount = 65530

// platformMaps is how many mappings of the host a process may have beside its own: the platform's, fewer than 20, and what one of its own
// has more, as large ones are backed in chunks and copies are by themselves.
const platformMaps = 1024

// MemoryManager is the address space of one or more processes (more after clone(CLONE_VM)). Its methods may be called
// from any goroutine, unless they say otherwise.
type MemoryManager struct {
	platform platform.Platform // immutable
	file     *memfile.File     // immutable
	min, max uint64            // immutable: user addresses are in [min, max)
	reach    uint64            // immutable: the end of what belongs to applications, the vdso with it

	limits atomic.Pointer[limits.Set]
	users  atomic.Int32

	// mu protects the mappings and what describes them as a whole.
	mu       sync.RWMutex
	vmas     ranges.Map[vma]
	layout   Layout
	brk      AddrRange // Len is not rounded to pages
	info     ProcInfo
	stats    accounts
	files    map[MappedFile]uint64 // bytes mapped of each; see fileBytes
	dead     []MappedFile          // files to drop when mu is released
	unshared []unshared            // likewise: what can no longer be written
	// lockFuture is the MCL_* flags of mlockall(2) that hold for later mappings.
	lockFuture int
	maxMaps    int

	// pagesMu protects the pages and the platform's address space. Bytes of user memory are
	// copied with it held, so that they do not go away meanwhile.
	pagesMu sync.RWMutex
	pages   ranges.Map[page]
	as      platform.AddressSpace // nil until needed
	ops     []platform.MapOp      // changes of as that are being collected; empty when pagesMu is free
	drops   []memfile.Range       // references to drop after ops have been applied; empty when pagesMu is free
	ticket  uint64                // of the last changes that as may have put off
	held    []held                // by ascending tickets
	spares  spares
	stuck   []memfile.Range // references that are dropped at the end only; see keep
	// heldBytes is the length of held; changed with pagesMu held.
	heldBytes atomic.Uint64

	forks   uint64        // calls of Fork; mu
	broken  *brokenRanges // nil before the first fork; mu
	report  *brokenRanges // the parent's; immutable
	hot     hotPages
	peakRSS atomic.Uint64
	minFlt  atomic.Uint64
}

// Layout says where things go that have no address of their own.
type Layout struct {
	// MmapBase is where the search for free addresses starts, downwards, or upwards if BottomUp is set.
	MmapBase uint64
	BottomUp bool
	// StackTop is the end of the initial stack.
	StackTop uint64
}

// ProcInfo is the positions that prctl(PR_SET_MM) can change and /proc/PID shows.
type ProcInfo struct {
	StartCode, EndCode, StartData, EndData, StartStack uint64
	ArgStart, ArgEnd, EnvStart, EnvEnd                 uint64
	Auxv                                               []byte // immutable once set
}

// New makes an empty address space with one user, whose size is subject to limits l.
func New(p platform.Platform, f *memfile.File, l *limits.Set) *MemoryManager {
	m := &MemoryManager{platform: p, file: f, maxMaps: MaxMapCount - platformMaps}
	m.min, m.max = p.UserRange()
	base, size, _ := p.VDSO()
	m.reach = max(m.max, base+size)
	m.min = max(m.min, minAddr)
	m.limits.Store(l)
	m.users.Store(1)
	m.layout = Layout{MmapBase: m.max - defaultStackGap, StackTop: m.max}
	m.mapVDSO()
	return m
}

// minAddr is /proc/sys/vm/mmap_min_addr.
const minAddr = 64 << 10

// defaultStackGap is the room for the stack above the other mappings before SetLayout.
const defaultStackGap = 128 << 20

// SetLimits replaces the limits, for instance when another process becomes the owner.
func (m *MemoryManager) SetLimits(l *limits.Set) { m.limits.Store(l) }

// File is the memory file.
func (m *MemoryManager) File() *memfile.File { return m.file }

// Platform is the platform that the address space belongs to.
func (m *MemoryManager) Platform() platform.Platform { return m.platform }

// SetLayout is called once, before anything is mapped without an address.
func (m *MemoryManager) SetLayout(l Layout) {
	m.mu.Lock()
	m.layout = l
	m.mu.Unlock()
}

// Layout gives what SetLayout stored.
func (m *MemoryManager) Layout() Layout {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.layout
}

// SetProcInfo and ProcInfo store and give the positions of arguments, environment and so on.
func (m *MemoryManager) SetProcInfo(i ProcInfo) {
	m.mu.Lock()
	m.info = i
	m.mu.Unlock()
}

// ProcInfo gives what SetProcInfo stored.
func (m *MemoryManager) ProcInfo() ProcInfo {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.info
}

// IncUsers adds a user (a process or a reader of /proc); it is false when the address space is gone already.
func (m *MemoryManager) IncUsers() bool {
	for {
		n := m.users.Load()
		if n == 0 {
			return false
		}
		if m.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// DecUsers drops a user. The last one frees everything: no thread may run in the address space any more. Later calls of
// other methods find an empty address space.
func (m *MemoryManager) DecUsers() {
	if m.users.Add(-1) == 0 {
		m.destroy()
	}
}

// AddressSpace is the platform's address space for Context.Switch, made at the first call. Errors: unix.ENOMEM and what the
// platform gives.
func (m *MemoryManager) AddressSpace() (platform.AddressSpace, error) {
	m.pagesMu.RLock()
	as := m.as
	m.pagesMu.RUnlock()
	if as != nil {
		return as, nil
	}
	m.pagesMu.Lock()
	defer m.pagesMu.Unlock()
	if m.as == nil {
		if m.users.Load() == 0 {
			return nil, unix.ESRCH
		}
		as, err := m.platform.NewAddressSpace()
		if err != nil {
			return nil, err
		}
		m.as = as
		if err := m.mapKnown(); err != nil {
			return nil, err
		}
	}
	return m.as, nil
}

// mapKnown has a new address space map the pages that are known, in one batch: faults cost more. pagesMu is held.
func (m *MemoryManager) mapKnown() error {
	for p := m.pages.First(); m.pages.Valid(p) && len(m.ops) < maxKnown; p = m.pages.Next(p) {
		s := m.pages.At(p)
		s.Val.flags |= pageMapped
		start, populate := s.Start, s.Len() <= populateFile
		if s.Val.fd == MemoryFile && s.Len() > cowUnit {
			// The end is what a new stack uses first.
			start, populate = s.End-stackUsed, true
			m.mapRun(s, s.Start, start, false)
		}
		m.mapRun(s, start, s.End, populate)
	}
	return m.flush()
}

// stackUsed is how much of the stack programs use at once.
const stackUsed = 16 << 10

// maxKnown bounds the operations of mapKnown.
const maxKnown = 200

// CheckRange tells whether [addr, addr+n) lies in user space, as access_ok does.
func (m *MemoryManager) CheckRange(addr, n uint64) bool { return addr <= m.reach && n <= m.reach-addr }

// pageRange rounds [addr, addr+n) out to pages; ok is false if it overflows or n is 0.
func pageRange(addr, n uint64) (start, end uint64, ok bool) {
	last := addr + n
	if n == 0 || last < addr {
		return 0, 0, false
	}
	end, ok = arch.PageUp(last)
	return arch.PageDown(addr), end, ok
}
