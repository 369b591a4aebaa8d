package mm

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// AddrRange is a range of user addresses, in bytes. It may be hostile: the end may overflow, or lie outside of user space.
type AddrRange struct {
	Addr, Len uint64
}

// IOSeq is the memory that a read or write works on: a sequence of ranges of an address space, or bytes of the sentry. It
// is passed by value and its methods do not change it; making one and using it allocates nothing.
//
// The methods that copy give the number of bytes that were copied, and an error if these are not all that was asked for
// (and in the sequence): unix.EFAULT, or what a callback gave. A system call that moved n > 0 bytes reports n and
// ignores the error.
type IOSeq struct {
	mm    *MemoryManager
	bytes []byte // if mm is nil
	first AddrRange
	rest  []AddrRange
	n     int64
	force bool
	// stop, if not nil, ends long copies when it is set.
	stop *atomic.Bool
}

// LongCopy is how many bytes are always copied, whatever Until says.
const LongCopy = 4 << 20

// BytesSeq is a sequence of the sentry's own bytes.
func BytesSeq(b []byte) IOSeq { return IOSeq{bytes: b, n: int64(len(b))} }

// Seq is the sequence of the one range [addr, addr+n) of m; n is at most the largest int64.
func (m *MemoryManager) Seq(addr, n uint64) IOSeq {
	return IOSeq{mm: m, first: AddrRange{addr, n}, n: int64(n)}
}

// SeqOf is the sequence of ranges r, which the caller no longer changes. The lengths have been checked not to overflow
// an int64 in sum.
func (m *MemoryManager) SeqOf(r []AddrRange) IOSeq {
	s := IOSeq{mm: m}
	for _, x := range r {
		s.n += int64(x.Len)
	}
	if len(r) > 0 {
		s.first, s.rest = r[0], r[1:]
	}
	return s
}

// Forced makes copies ignore the protection of mappings as far as ptrace(2) may (PTRACE_POKEDATA, /proc/PID/mem): reads of
// what is not readable, and writes to private mappings, which copy the page first.
func (s IOSeq) Forced() IOSeq {
	s.force = true
	return s
}

// Until makes CopyOutFrom, CopyInTo and ZeroOut end with EFAULT once stop is set and LongCopy bytes have been copied: the task that waits for them
// is to exit, and gigabytes can take minutes. For sequences that are longer than that.
func (s IOSeq) Until(stop *atomic.Bool) IOSeq {
	s.stop = stop
	return s
}

// NumBytes is the number of bytes in the sequence.
func (s IOSeq) NumBytes() int64 { return s.n }

// DropFirst is s without its first n bytes.
func (s IOSeq) DropFirst(n int64) IOSeq {
	if n >= s.n {
		return IOSeq{mm: s.mm}
	}
	if n <= 0 {
		return s
	}
	s.n -= n
	if s.mm == nil {
		s.bytes = s.bytes[n:]
		return s
	}
	for uint64(n) >= s.first.Len {
		n -= int64(s.first.Len)
		s.first, s.rest = s.rest[0], s.rest[1:]
	}
	s.first.Addr += uint64(n)
	s.first.Len -= uint64(n)
	return s
}

// TakeFirst is the first n bytes of s, or all if there are fewer.
func (s IOSeq) TakeFirst(n int64) IOSeq {
	if n < s.n {
		s.n = max(n, 0)
		if s.mm == nil {
			s.bytes = s.bytes[:s.n]
		}
	}
	return s
}

// next is the first range of what is left, cut to the length of the sequence. s is not empty.
func (s *IOSeq) next() AddrRange {
	for s.first.Len == 0 {
		s.first, s.rest = s.rest[0], s.rest[1:]
	}
	r := s.first
	if r.Len > uint64(s.n) {
		r.Len = uint64(s.n)
	}
	return r
}

// advance drops n bytes, which are within the first range.
func (s *IOSeq) advance(n int) {
	s.first.Addr += uint64(n)
	s.first.Len -= uint64(n)
	s.n -= int64(n)
}

// CopyIn copies from the sequence to dst, until one of them ends.
func (s IOSeq) CopyIn(dst []byte) (int, error) {
	if s.mm == nil {
		return copy(dst, s.bytes), nil
	}
	done := 0
	for done < len(dst) && s.n > 0 {
		r := s.next()
		part := dst[done:]
		if uint64(len(part)) > r.Len {
			part = part[:r.Len]
		}
		n, err := s.mm.copyIn(r.Addr, part, s.force)
		done += n
		if err != nil {
			return done, err
		}
		s.advance(n)
	}
	return done, nil
}

// CopyOut copies src into the sequence, until one of them ends.
func (s IOSeq) CopyOut(src []byte) (int, error) {
	if s.mm == nil {
		return copy(s.bytes, src), nil
	}
	done := 0
	for done < len(src) && s.n > 0 {
		r := s.next()
		part := src[done:]
		if uint64(len(part)) > r.Len {
			part = part[:r.Len]
		}
		n, err := s.mm.copyOut(r.Addr, part, s.force)
		done += n
		if err != nil {
			return done, err
		}
		s.advance(n)
	}
	return done, nil
}

// ZeroOut stores zeros in the first n bytes of the sequence.
func (s IOSeq) ZeroOut(n int64) (int64, error) {
	s = s.TakeFirst(n)
	if s.mm == nil {
		clear(s.bytes)
		return s.n, nil
	}
	var done int64
	for s.n > 0 {
		r := s.next()
		if s.stop != nil {
			if done > 0 && s.stop.Load() {
				return done, errFault
			}
			r.Len = min(r.Len, LongCopy)
		}
		k, err := s.mm.zeroOut(r.Addr, r.Len)
		done += int64(k)
		if err != nil {
			return done, err
		}
		s.advance(int(k))
	}
	return done, nil
}

// CopyOutFrom fills the sequence by handing blocks of it, in order, to f, which stores bytes at the start of b and says how
// many (such as a pread(2)). It ends when f stores fewer than len(b), or gives an error. See the package's lock order
// for what f may do.
func (s IOSeq) CopyOutFrom(f func(b []byte) (int, error)) (int64, error) {
	return s.blocks(f, true)
}

// CopyInTo consumes the sequence by handing blocks of it, in order, to f, which reads from b and says how many bytes it
// took (such as a pwrite(2)). It ends as CopyOutFrom does. f must not change b. The application may change it at any
// time: f reads each byte once, or copies before it validates.
func (s IOSeq) CopyInTo(f func(b []byte) (int, error)) (int64, error) {
	return s.blocks(f, false)
}

func (s IOSeq) blocks(f func(b []byte) (int, error), write bool) (int64, error) {
	if s.mm == nil {
		if len(s.bytes) == 0 {
			return 0, nil
		}
		n, err := f(s.bytes)
		return int64(n), err
	}
	var done int64
	for s.n > 0 {
		r := s.next()
		if s.stop != nil {
			if done >= LongCopy && s.stop.Load() {
				return done, errFault
			}
			r.Len = min(r.Len, LongCopy)
		}
		n, more, err := s.mm.withBlock(r, write, s.force, f)
		done += int64(n)
		if err != nil || !more {
			return done, err
		}
		s.advance(n)
	}
	return done, nil
}

// errFault is the error of all accesses to user memory that is not there.
var errFault error = unix.EFAULT

// Limits of readv(2): UIO_MAXIOV, and MAX_RW_COUNT, to which a longer sum is cut.
const (
	maxIOVecs  = 1024
	maxIOBytes = 0x7ffff000
)

// IOVecs reads n struct iovec at addr, of which the memory is memory of m (itself, as a rule). One vector allocates nothing.
// Errors: EINVAL for more than 1024 or a negative length, EFAULT.
func (m *MemoryManager) IOVecs(addr, n uint64) (IOSeq, error) { return m.IOVecsOf(m, addr, n) }

// IOVecsOf is IOVecs with memory of another address space; of may be nil, and then only the check and NumBytes make sense.
func (m *MemoryManager) IOVecsOf(of *MemoryManager, addr, n uint64) (IOSeq, error) {
	if n > maxIOVecs {
		return IOSeq{}, unix.EINVAL
	}
	s := IOSeq{mm: of}
	if n > 1 {
		s.rest = make([]AddrRange, 0, n-1)
	}
	for i := range n {
		r, err := Read[AddrRange](m, addr+i*16)
		if err != nil {
			return IOSeq{}, err
		}
		if int64(r.Len) < 0 {
			return IOSeq{}, unix.EINVAL
		}
		if of == m && !m.CheckRange(r.Addr, r.Len) {
			return IOSeq{}, errFault
		}
		if r.Len > uint64(maxIOBytes-s.n) {
			r.Len = uint64(maxIOBytes - s.n)
		}
		s.n += int64(r.Len)
		if i == 0 {
			s.first = r
		} else {
			s.rest = append(s.rest, r)
		}
	}
	return s, nil
}

// FirstRange is the first range of a sequence of user memory that is not empty.
func (s IOSeq) FirstRange() AddrRange { return s.next() }
