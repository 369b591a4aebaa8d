package mm

import (
	"sync"

	"husk/pkg/platform"
)

// Mappable is the contents of a file as mappings see it: one object per inode (or per shared memory
// segment), comparable by identity, since it keys futexes in shared mappings. Its pages lie in the
// sandbox's memory file, or in a host file.
type Mappable interface {
	// MappingSet is where address spaces register as long as they map the file. The owner calls its
	// Invalidate when pages go away or move. Usually &inode.mappings, a field.
	MappingSet() *MappingSet

	// Translate finds what backs the page at offset at. It may answer for more than that page: any
	// contiguous piece that contains it and lies within [start, end), for all of which the answer holds. With write,
	// the pages are going to be changed through a shared mapping: holes must be filled (they may be otherwise, too).
	// All offsets are multiples of the page size; the last page of the file may be partial, and what lies behind the
	// end in it reads as zeros. Errors: ErrBus for a page wholly behind the end of the file, unix.EIO,
	// unix.ENOMEM, unix.ENOSPC; all make the application's access fail with SIGBUS.
	//
	// A range of the memory file comes with a reference (memfile.File.IncRef) which the caller drops some time.
	// It is called with locks of mm held (see the package's lock order) and must not block for long.
	Translate(start, end, at uint64, write bool) (Translation, error)
}

// Translation says what backs a range of a Mappable.
type Translation struct {
	// Start and End are offsets in the file, multiples of the page size.
	Start, End uint64
	// HostFD is the host file that holds the data, or MemoryFile. It stays open, and the range readable with pread(2)
	// (and pwrite(2) if Perms has Write), as long as the mapping's MappedFile is referenced.
	HostFD int
	// Offset is the place of Start's data in the host file or the memory file.
	Offset uint64
	// Perms are the rights with which it may be mapped MAP_SHARED; without Write, a write through a shared
	// mapping makes mm call Translate again with write set.
	Perms platform.Perms
}

// MemoryFile as Translation.HostFD stands for the sandbox's memory file.
const MemoryFile = -1

// MappedFile is the open file behind a mapping, which keeps it alive. File systems and vfs implement it
// with their file description.
type MappedFile interface {
	// IncRef and DecRef count the references of mappings. DecRef is called without locks of mm held and may
	// close the file.
	IncRef()
	DecRef()
	// MappedName is the path for /proc/PID/maps; MappedInfo the device number (as in struct stat) and inode number there.
	MappedName() string
	MappedInfo() (dev, ino uint64)
}

// MappingSet is the address spaces that map a file; the zero value is empty. It is a field of whatever implements
// Mappable.
type MappingSet struct {
	mu    sync.Mutex
	users map[*MemoryManager]int // bytes that are mapped, by address space; protected by mu
	// writable counts bytes that are mapped shared and may become writable; protected by mu.
	writable int
	// onUnused, if not nil, is called when the last mapping goes, with mm's lock held; immutable.
	onUnused func()
}

func (s *MappingSet) add(m *MemoryManager, n int, writable bool) {
	s.mu.Lock()
	if writable {
		s.writable += n
	}
	if s.users == nil {
		s.users = make(map[*MemoryManager]int)
	}
	if s.users[m] += n; s.users[m] == 0 {
		delete(s.users, m)
	}
	unused := len(s.users) == 0
	s.mu.Unlock()
	if unused && s.onUnused != nil {
		s.onUnused()
	}
}

// unwritable takes n from the bytes that are mapped shared and may become writable.
func (s *MappingSet) unwritable(n int) {
	s.mu.Lock()
	s.writable -= n
	s.mu.Unlock()
}

// Mapped tells whether any address space maps the file.
func (s *MappingSet) Mapped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.users) != 0
}

// MappedWritable tells whether a shared mapping exists through which the file could be written (F_ADD_SEALS, ETXTBSY).
func (s *MappingSet) MappedWritable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writable != 0
}

// Invalidate makes all address spaces forget what backs [off, off+length) of file f, whose mapping set s is, so that
// the next access translates anew; length 0 is to the end. With private set, copies of the pages that private
// mappings made are dropped too, as truncation does (hole punching does not). The caller has changed what Translate
// answers already, and holds no lock that Translate takes.
func (s *MappingSet) Invalidate(f Mappable, off, length uint64, private bool) {
	s.mu.Lock()
	if len(s.users) == 0 {
		s.mu.Unlock()
		return
	}
	list := make([]*MemoryManager, 0, len(s.users))
	for m := range s.users {
		list = append(list, m)
	}
	s.mu.Unlock()
	for _, m := range list {
		m.invalidate(f, off, length, private)
	}
}
