package mm

import (
	"bytes"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

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

// block finds the memory behind [addr, addr+n): b is its beginning, not empty, if that is in the memory file. For a host
// file, fd is the file and off and n the place and length. n is 0 if the page at addr is not ready for the access. pagesMu is held.
func (m *MemoryManager) block(addr, n uint64, access platform.Perms, force bool) (b []byte, fd int, off, length uint64) {
	p, ok := m.pages.Find(addr)
	if !ok {
		return nil, MemoryFile, 0, 0
	}
	s := m.pages.At(p)
	if !s.Val.allows(access, force) {
		return nil, MemoryFile, 0, 0
	}
	n = min(n, s.End-addr)
	off = s.Val.off + addr - s.Start
	if s.Val.fd == MemoryFile {
		return m.file.Slice(off, n), MemoryFile, off, n
	}
	return nil, int(s.Val.fd), off, n
}

func (m *MemoryManager) copyIn(addr uint64, dst []byte, force bool) (done int, err error) {
	hot := uint64(0) // address of a page that is worth a copy
	for done < len(dst) {
		m.pagesMu.RLock()
		for done < len(dst) {
			b, fd, off, n := m.block(addr+uint64(done), uint64(len(dst)-done), platform.Read, force)
			if n == 0 {
				break
			}
			if fd == MemoryFile {
				done += copy(dst[done:], b)
				continue
			}
			if m.hot.read(addr + uint64(done)) {
				hot = addr + uint64(done)
			}
			k := copyHostIn(fd, dst[done:done+int(n)], off)
			done += k
			if uint64(k) < n {
				m.pagesMu.RUnlock()
				return done, errFault
			}
		}
		m.pagesMu.RUnlock()
		if hot != 0 {
			m.keepHot(hot)
			hot = 0
		}
		if done < len(dst) && m.fault(addr+uint64(done), platform.Read, force) != nil {
			b := m.vdsoText(addr + uint64(done))
			if len(b) == 0 {
				return done, errFault
			}
			done += copy(dst[done:], b)
		}
	}
	return done, nil
}

func (m *MemoryManager) copyOut(addr uint64, src []byte, force bool) (done int, err error) {
	for done < len(src) {
		m.pagesMu.RLock()
		for done < len(src) {
			b, fd, off, n := m.block(addr+uint64(done), uint64(len(src)-done), platform.Write, force)
			if n == 0 {
				break
			}
			if fd == MemoryFile {
				done += copy(b, src[done:])
				continue
			}
			k := copyHostOut(fd, src[done:done+int(n)], off)
			done += k
			if uint64(k) < n {
				m.pagesMu.RUnlock()
				return done, errFault
			}
		}
		m.pagesMu.RUnlock()
		if done < len(src) && m.fault(addr+uint64(done), platform.Write, force) != nil {
			return done, errFault
		}
	}
	return done, nil
}

// zeros is what zeroOut writes to host files.
var zeros [arch.PageSize]byte

func (m *MemoryManager) zeroOut(addr, count uint64) (done uint64, err error) {
	for done < count {
		m.pagesMu.RLock()
		for done < count {
			b, fd, off, n := m.block(addr+done, count-done, platform.Write, false)
			if n == 0 {
				break
			}
			if fd == MemoryFile {
				clear(b)
				done += uint64(len(b))
				continue
			}
			n = min(n, uint64(len(zeros)))
			k := copyHostOut(fd, zeros[:n], off)
			done += uint64(k)
			if uint64(k) < n {
				m.pagesMu.RUnlock()
				return done, errFault
			}
		}
		m.pagesMu.RUnlock()
		if done < count && m.fault(addr+done, platform.Write, false) != nil {
			return done, errFault
		}
	}
	return done, nil
}

// copyHostIn reads what a mapping of a host file shows at off: behind the end of the file, the rest of its last page reads
// as zeros, and pages behind that are not there.
func copyHostIn(fd int, dst []byte, off uint64) int {
	n := readHost(fd, dst, off)
	if n == uint64(len(dst)) {
		return len(dst)
	}
	end := off + n // the end of the file, unless that is before off
	if n == 0 && off&arch.PageMask != 0 {
		var b [1]byte
		if readHost(fd, b[:], arch.PageDown(off)) == 0 {
			return 0
		}
	}
	up, _ := arch.PageUp(end)
	rest := dst[n:]
	if uint64(len(rest)) > up-end {
		rest = rest[:up-end]
	}
	clear(rest)
	return int(n) + len(rest)
}

// copyHostOut writes to a host file as through a mapping, which never makes it longer: bytes for the last page
// behind the end are dropped.
func copyHostOut(fd int, src []byte, off uint64) (done int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Size < 0 {
		return 0
	}
	up, _ := arch.PageUp(uint64(st.Size))
	if off >= up {
		return 0
	}
	if uint64(len(src)) > up-off {
		src = src[:up-off]
	}
	inside := src
	if off >= uint64(st.Size) {
		inside = nil
	} else if uint64(len(src)) > uint64(st.Size)-off {
		inside = src[:uint64(st.Size)-off]
	}
	for done < len(inside) {
		n, err := unix.Pwrite(fd, inside[done:], int64(off)+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return done
		}
		done += n
	}
	return len(src)
}

// vdsoText is the vdso from addr on, which debuggers read; nothing elsewhere.
func (m *MemoryManager) vdsoText(addr uint64) []byte {
	_, _, ehdr := m.platform.VDSO()
	if r, ok := m.platform.(platform.VDSOReader); ok && ehdr != 0 && addr >= ehdr {
		if b := r.VDSOText(); addr-ehdr < uint64(len(b)) {
			return b[addr-ehdr:]
		}
	}
	return nil
}

// bounce holds buffers for blocks of host files.
var bounce = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// withBlock hands the beginning of r to f. more is false if f used fewer bytes than it got.
func (m *MemoryManager) withBlock(r AddrRange, write, force bool, f func([]byte) (int, error)) (n int, more bool, err error) {
	access := platform.Read
	if write {
		access = platform.Write
	}
	for {
		m.pagesMu.RLock()
		b, fd, off, length := m.block(r.Addr, r.Len, access, force)
		if length == 0 {
			m.pagesMu.RUnlock()
			if m.fault(r.Addr, access, force) != nil {
				b := m.vdsoText(r.Addr)
				if write || len(b) == 0 {
					return 0, false, errFault
				}
				b = b[:min(uint64(len(b)), r.Len)]
				n, err = f(b)
				return n, n == len(b), err
			}
			continue
		}
		if fd == MemoryFile {
			n, err = f(b)
			m.pagesMu.RUnlock()
			return n, n == len(b), err
		}
		buf := bounce.Get().(*[64 << 10]byte)
		part := buf[:min(length, uint64(len(buf)))]
		if write {
			n, err = f(part)
			if k := copyHostOut(fd, part[:n], off); k < n {
				n, err = k, errFault
			}
		} else if k := copyHostIn(fd, part, off); k == 0 {
			err = errFault
		} else {
			part = part[:k]
			n, err = f(part)
		}
		m.pagesMu.RUnlock()
		more = n == len(part)
		bounce.Put(buf)
		return n, more, err
	}
}

// CopyInString reads the string at addr that ends with a zero byte (not included). ENAMETOOLONG if there is none within
// maxlen bytes, EFAULT.
func (m *MemoryManager) CopyInString(addr uint64, maxlen int) (string, error) {
	var stack [256]byte
	b, err := m.AppendString(stack[:0], addr, maxlen)
	return string(b), err
}

// AppendString appends the string at addr to b, as CopyInString.
func (m *MemoryManager) AppendString(b []byte, addr uint64, maxlen int) ([]byte, error) {
	for maxlen > 0 {
		// Read within one page, so that nothing behind the string needs to be there.
		n := min(int(arch.PageSize-addr&arch.PageMask), maxlen)
		m.pagesMu.RLock()
		mem, fd, off, length := m.block(addr, uint64(n), platform.Read, false)
		if length == 0 {
			m.pagesMu.RUnlock()
			if m.fault(addr, platform.Read, false) != nil {
				return b, errFault
			}
			continue
		}
		old, hot := len(b), false
		if fd == MemoryFile {
			n = len(mem)
			if end := bytes.IndexByte(mem, 0); end >= 0 {
				mem = mem[:end]
			}
			b = append(b, mem...)
		} else {
			// Most strings are short; reading less is faster.
			n = min(n, 128)
			for range n {
				b = append(b, 0)
			}
			if copyHostIn(fd, b[old:], off) < n {
				m.pagesMu.RUnlock()
				return b[:old], errFault
			}
			hot = m.hot.read(addr)
		}
		m.pagesMu.RUnlock()
		if hot {
			m.keepHot(addr)
		}
		if end := bytes.IndexByte(b[old:], 0); end >= 0 {
			return b[:old+end], nil
		} else if len(b)-old < n {
			return b, nil
		}
		addr += uint64(n)
		maxlen -= n
	}
	return b, unix.ENAMETOOLONG
}

// ReadUint32 reads four bytes, in any alignment and without atomicity. EFAULT.
func (m *MemoryManager) ReadUint32(addr uint64) (uint32, error) { return Read[uint32](m, addr) }

// ReadUint64 reads eight bytes, as ReadUint32.
func (m *MemoryManager) ReadUint64(addr uint64) (uint64, error) { return Read[uint64](m, addr) }

// WriteUint32 writes four bytes, in any alignment and without atomicity. EFAULT.
func (m *MemoryManager) WriteUint32(addr uint64, v uint32) error { return Write(m, addr, &v) }

// WriteUint64 writes eight bytes, as WriteUint32.
func (m *MemoryManager) WriteUint64(addr uint64, v uint64) error { return Write(m, addr, &v) }

// Read copies an object of fixed layout in; T holds no pointers. EFAULT.
func Read[T any](m *MemoryManager, addr uint64) (v T, err error) {
	_, err = m.copyIn(addr, unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)), false)
	return v, err
}

// Write copies an object of fixed layout out; T holds no pointers, and no padding that could give away the sentry's memory. EFAULT.
func Write[T any](m *MemoryManager, addr uint64, v *T) error {
	_, err := m.copyOut(addr, unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)), false)
	return err
}
