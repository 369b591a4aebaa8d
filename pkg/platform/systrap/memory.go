package systrap

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stubMemory is the file behind everything of the stub region, mapped into the sentry as a whole: chunk 0 holds
// the text, the table and the hints; the others belong to address spaces. It is sparse.
type stubMemory struct {
	fd   int
	base uintptr

	mu    sync.Mutex
	next  uint32               // first chunk never used; mu
	free  [chunkKinds][]uint32 // cleared chunks, by what they were used for; mu
	word  []uint32             // numbers of free words of hints; mu
	words uint32               // first never used; mu
}

// chunkKind is what a chunk is used for. A freed chunk is only used for the same again: somebody may still hold a thread for
// one that spins on some processor (cpuState), and write slot.spin or slot.wake when its process is gone. In another
// thread's slot that costs a spurious wake-up at most.
type chunkKind uint8

const (
	chunkSpace   chunkKind = iota // ring, done, and the first slots
	chunkThreads                  // more slots
	chunkPatch                    // table and trampolines
	chunkKinds
)

const (
	memorySize = 4 << 30
	numChunks  = memorySize / chunkSize
	// keepFree is how many freed chunks keep their pages. 16 cost about 0.5 MB and save about 15 us
	// of page faults per address space.
	keepFree = 16

	offText  = 0
	offTable = offText + textSize
	offHints = offTable + tableSize
)

func newStubMemory() (*stubMemory, error) {
	fd, err := unix.MemfdCreate("stubs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.Ftruncate(fd, memorySize); err != nil {
		unix.Close(fd)
		return nil, err
	}
	base, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_NORESERVE, uintptr(fd), 0)
	if errno != 0 {
		unix.Close(fd)
		return nil, errno
	}
	return &stubMemory{fd: fd, base: base, next: 1}, nil
}

// at is the sentry's address of an offset in the file.
func (m *stubMemory) at(off uint64) unsafe.Pointer {
	p := m.base + uintptr(off)
	return *(*unsafe.Pointer)(unsafe.Pointer(&p))
}

func (m *stubMemory) bytes(off, n uint64) []byte { return unsafe.Slice((*byte)(m.at(off)), n) }

// alloc takes a zeroed chunk; ok is false if all are in use.
func (m *stubMemory) alloc(kind chunkKind) (chunk uint32, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	free := &m.free[kind]
	if n := len(*free); n > 0 {
		chunk = (*free)[n-1]
		*free = (*free)[:n-1]
		return chunk, true
	}
	if m.next == numChunks {
		return 0, false
	}
	m.next++
	return m.next - 1, true
}

// release returns a chunk that no process maps any more. What an application left there must not reach another: of an honest
// one that is in the first used slots, whose pages stay if they are few.
func (m *stubMemory) release(chunk uint32, used int, kind chunkKind) {
	off, n := uint64(chunk)*chunkSize, uint64(0)
	m.mu.Lock()
	keep := len(m.free[kind]) < keepFree
	m.mu.Unlock()
	if keep && used <= 2 {
		n = uint64(used) * slotSize
		if kind == chunkSpace {
			n += chunkSlots
		}
		clear(m.bytes(off, n))
	}
	const how = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	if unix.Fallocate(m.fd, how, int64(off+n), int64(chunkSize-n)) != nil {
		return // never reused
	}
	m.mu.Lock()
	m.free[kind] = append(m.free[kind], chunk)
	m.mu.Unlock()
}

// allocWord takes a word of hints; ok is false if all are in use.
func (m *stubMemory) allocWord() (word uint32, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.word); n > 0 {
		word = m.word[n-1]
		m.word = m.word[:n-1]
		return word, true
	}
	if m.words == hintWords {
		return 0, false
	}
	m.words++
	return m.words - 1, true
}

// freeWord returns a word that no thread sleeps on.
func (m *stubMemory) freeWord(word uint32) {
	m.mu.Lock()
	m.word = append(m.word, word)
	m.mu.Unlock()
}

func (m *stubMemory) close() {
	unix.Syscall(unix.SYS_MUNMAP, m.base, memorySize, 0)
	unix.Close(m.fd)
}
