package mm

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// Key identifies a futex word, the same one in all address spaces that share it. It is comparable.
type Key struct {
	mm   *MemoryManager // private memory
	file Mappable       // shared memory
	off  uint64         // address, or offset in the file
}

// Hash spreads keys over buckets.
func (k Key) Hash() uint64 {
	h := k.off>>2 ^ uint64(uintptr(unsafe.Pointer(k.mm)))<<12
	h *= 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	return h ^ h>>32
}

// FutexKey is the key of the word at addr, a multiple of 4 (EINVAL). private is FUTEX_PRIVATE_FLAG. EFAULT.
func (m *MemoryManager) FutexKey(addr uint64, private bool) (Key, error) {
	if addr&3 != 0 {
		return Key{}, unix.EINVAL
	}
	if !m.CheckRange(addr, 4) {
		return Key{}, errFault
	}
	if private {
		return Key{mm: m, off: addr}, nil
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	p, ok := m.vmas.Find(addr)
	if !ok {
		return Key{}, errFault
	}
	s := m.vmas.At(p)
	if s.Val.perms == platform.None {
		return Key{}, errFault
	}
	if s.Val.private() {
		return Key{mm: m, off: addr}, nil
	}
	return Key{file: s.Val.mappable, off: s.Val.off + addr - s.Start}, nil
}

// LoadUint32 reads atomically the word at addr, a multiple of 4 (EINVAL). EFAULT.
func (m *MemoryManager) LoadUint32(addr uint64) (uint32, error) {
	return m.word(addr, platform.Read, func(p *uint32) uint32 { return atomic.LoadUint32(p) })
}

// CompareAndSwapUint32 replaces atomically the word at addr (a multiple of 4, EINVAL) if it is old, and gives what it was. EFAULT.
func (m *MemoryManager) CompareAndSwapUint32(addr uint64, old, new uint32) (prev uint32, err error) {
	return m.word(addr, platform.Write, func(p *uint32) uint32 {
		for {
			v := atomic.LoadUint32(p)
			if v != old || atomic.CompareAndSwapUint32(p, old, new) {
				return v
			}
		}
	})
}

// UpdateUint32 replaces atomically the word at addr (a multiple of 4, EINVAL) by f of it, and gives what it was. EFAULT. f may be
// called more than once.
func (m *MemoryManager) UpdateUint32(addr uint64, f func(uint32) uint32) (prev uint32, err error) {
	return m.word(addr, platform.Write, func(p *uint32) uint32 {
		for {
			v := atomic.LoadUint32(p)
			if atomic.CompareAndSwapUint32(p, v, f(v)) {
				return v
			}
		}
	})
}

// word calls f with the word at addr.
func (m *MemoryManager) word(addr uint64, access platform.Perms, f func(*uint32) uint32) (uint32, error) {
	if addr&3 != 0 {
		return 0, unix.EINVAL
	}
	for {
		m.pagesMu.RLock()
		b, fd, off, n := m.block(addr, 4, access, false)
		if n == 4 {
			var v uint32
			ok := true
			if fd == MemoryFile {
				v = f((*uint32)(unsafe.Pointer(&b[0])))
			} else {
				v, ok = hostWord(fd, off, access, f)
			}
			m.pagesMu.RUnlock()
			if !ok {
				return 0, errFault
			}
			return v, nil
		}
		m.pagesMu.RUnlock()
		if m.fault(addr, access, false) != nil {
			return 0, errFault
		}
	}
}

// hostWord calls f with a word of a host file, through a mapping for the purpose; ok is false if it is not there.
func hostWord(fd int, off uint64, access platform.Perms, f func(*uint32) uint32) (v uint32, ok bool) {
	prot := unix.PROT_READ
	if access&platform.Write != 0 {
		prot |= unix.PROT_WRITE
	}
	p, err := unix.MmapPtr(fd, int64(arch.PageDown(off)), nil, arch.PageSize, prot, unix.MAP_SHARED)
	if err != nil {
		return 0, false
	}
	defer unix.MunmapPtr(p, arch.PageSize)
	guard(func() {
		v = f((*uint32)(unsafe.Add(p, off&arch.PageMask)))
		ok = true
	})
	return v, ok
}
