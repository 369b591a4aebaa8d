package mm

import (
	"golang.org/x/sys/unix"

	"husk/pkg/platform"
	"husk/pkg/sentry/limits"
)

type vma struct{}
type page struct{}
type accounts struct{}

func (v vma) Tail(uint64) vma          { return v }
func (v vma) Joins(uint64, vma) bool   { return false }
func (v page) Tail(uint64) page        { return v }
func (v page) Joins(uint64, page) bool { return false }

func (m *MemoryManager) mapVDSO()                                                {}
func (m *MemoryManager) destroy()                                                {}
func (m *MemoryManager) invalidate(f Mappable, off, length uint64, private bool) {}
func (m *MemoryManager) copyIn(addr uint64, dst []byte, force bool) (int, error) {
	return 0, errFault
}
func (m *MemoryManager) copyOut(addr uint64, src []byte, force bool) (int, error) {
	return 0, errFault
}
func (m *MemoryManager) zeroOut(addr, n uint64) (uint64, error) { return 0, errFault }
func (m *MemoryManager) withBlock(r AddrRange, write, force bool, f func([]byte) (int, error)) (int, bool, error) {
	return 0, false, errFault
}

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
	// Name is what /proc/PID/maps shows if File is nil, such as "[heap]".
	Name string
}

// MMap makes a mapping, as mmap(2).
func (m *MemoryManager) MMap(o MMapOpts) (uint64, error) { return 0, unix.ENOSYS }

// Munmap is munmap(2).
func (m *MemoryManager) Munmap(addr, length uint64) error { return unix.ENOSYS }

// Mremap is mremap(2); flags are unix.MREMAP_*.
func (m *MemoryManager) Mremap(old, oldLen, newLen uint64, flags int, newAddr uint64) (uint64, error) {
	return 0, unix.ENOSYS
}

// Mprotect is mprotect(2); flags are PROT_GROWSDOWN and PROT_GROWSUP.
func (m *MemoryManager) Mprotect(addr, length uint64, perms platform.Perms, flags int) error {
	return unix.ENOSYS
}

// Brk is brk(2) as the kernel has it: it gives the new break, or the old one if it cannot be addr.
func (m *MemoryManager) Brk(addr uint64) uint64 { return 0 }

// Madvise is madvise(2).
func (m *MemoryManager) Madvise(addr, length uint64, advice int) error { return unix.ENOSYS }

// FaultError is why an access to memory cannot go on; it says which signal the application gets.
type FaultError uint8

// The faults: SIGSEGV with SEGV_MAPERR and SEGV_ACCERR, SIGBUS with BUS_ADRERR.
const (
	ErrMap FaultError = iota + 1
	ErrAccess
	ErrBus
)

// Error implements error.
func (e FaultError) Error() string { return "fault" }

// Signal and Code are si_signo and si_code of the signal, see sigaction(2).
func (e FaultError) Signal() int32 { return 0 }

// Code is si_code.
func (e FaultError) Code() int32 { return 0 }

// HandleFault makes the page at addr accessible, as the application's page fault wants it: nil, or a FaultError.
// access None stands for an unknown access.
func (m *MemoryManager) HandleFault(addr uint64, access platform.Perms) error { return ErrMap }

// CopyIn copies from user memory at addr: the number of bytes copied, and unix.EFAULT if these are not all.
func (m *MemoryManager) CopyIn(addr uint64, dst []byte) (int, error) {
	return m.copyIn(addr, dst, false)
}

// CopyOut copies to user memory at addr, as CopyIn.
func (m *MemoryManager) CopyOut(addr uint64, src []byte) (int, error) {
	return m.copyOut(addr, src, false)
}

// ZeroOut stores n zero bytes at addr.
func (m *MemoryManager) ZeroOut(addr, n uint64) (uint64, error) { return m.zeroOut(addr, n) }

// CopyInString reads the string at addr that ends with a zero byte (not included). ENAMETOOLONG if there is none within
// maxlen bytes, EFAULT.
func (m *MemoryManager) CopyInString(addr uint64, maxlen int) (string, error) {
	return "", errFault
}

// AppendString appends the string at addr to b, as CopyInString.
func (m *MemoryManager) AppendString(b []byte, addr uint64, maxlen int) ([]byte, error) {
	return b, errFault
}

// ReadUint32 and so on read and write integers, in any alignment and without atomicity. EFAULT.
func (m *MemoryManager) ReadUint32(addr uint64) (uint32, error) { return 0, errFault }

// ReadUint64 reads eight bytes.
func (m *MemoryManager) ReadUint64(addr uint64) (uint64, error) { return 0, errFault }

// WriteUint32 writes four bytes.
func (m *MemoryManager) WriteUint32(addr uint64, v uint32) error { return errFault }

// WriteUint64 writes eight bytes.
func (m *MemoryManager) WriteUint64(addr uint64, v uint64) error { return errFault }

// Read copies an object of fixed layout in; T holds no pointers.
func Read[T any](m *MemoryManager, addr uint64) (v T, err error) { return v, errFault }

// Write copies an object of fixed layout out; T holds no pointers and no padding.
func Write[T any](m *MemoryManager, addr uint64, v *T) error { return errFault }

// LoadUint32 reads atomically the word at addr, a multiple of 4 (EINVAL). EFAULT.
func (m *MemoryManager) LoadUint32(addr uint64) (uint32, error) { return 0, errFault }

// CompareAndSwapUint32 replaces atomically the word at addr (a multiple of 4, EINVAL) if it is old, and gives what it was.
func (m *MemoryManager) CompareAndSwapUint32(addr uint64, old, new uint32) (prev uint32, err error) {
	return 0, errFault
}

// Key identifies a futex word, the same one in all address spaces that share it. It is comparable.
type Key struct {
	mm   *MemoryManager // private memory
	file Mappable       // shared memory
	off  uint64         // address, or offset in the file
}

// Hash spreads keys over buckets.
func (k Key) Hash() uint64 { return 0 }

// FutexKey is the key of the word at addr, a multiple of 4 (EINVAL). private is FUTEX_PRIVATE_FLAG. EFAULT.
func (m *MemoryManager) FutexKey(addr uint64, private bool) (Key, error) { return Key{}, errFault }

// Fork makes a copy, for a process with limits l, with copy-on-write. ENOMEM.
func (m *MemoryManager) Fork(l *limits.Set) (*MemoryManager, error) { return nil, unix.ENOSYS }

// VMAInfo describes a mapping for /proc/PID/maps and smaps.
type VMAInfo struct {
	Start, End      uint64
	Perms, MaxPerms platform.Perms
	Shared          bool
	Offset          uint64
	Name            string // path or [heap] and such
	Dev, Ino        uint64
	// Flags of smaps.
	GrowsDown, Locked, DontFork, WipeOnFork, DontDump, NoReserve, HugePage, NoHugePage bool
}

// ForEachVMA calls f for the mappings in ascending order that end behind addr from, until it returns false. f runs with
// locks of mm held and must not touch user memory.
func (m *MemoryManager) ForEachVMA(from uint64, f func(*VMAInfo) bool) {}

// MemStats is figures for /proc/PID/status and statm, in bytes.
type MemStats struct {
	Virtual, PeakVirtual     uint64
	RSS, PeakRSS             uint64
	RSSAnon, RSSFile, RSSShm uint64
	Data, Stack, Exec, Lib   uint64
	Locked                   uint64
	PageTables               uint64
	MinorFaults              uint64
	Maps                     int
}

// Stats counts. It is exact for what is resident, and costs a look at every page.
func (m *MemoryManager) Stats() MemStats { return MemStats{} }
