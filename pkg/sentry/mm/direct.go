package mm

import "husk/pkg/platform"

// CopyResident copies the first n bytes of src to dst, which may belong to another address space, if all of both is in the memory file
// and ready for the access: false if not, and then nothing was copied. It faults nothing in, and waits for nobody who changes one of the
// address spaces: it is not known what the owner of the other one does meanwhile, and how long a hostile one takes.
func CopyResident(dst, src IOSeq, n int64) bool {
	if n > dst.n || n > src.n {
		return false
	}
	if src.mm != nil {
		if !src.mm.pagesMu.TryRLock() {
			return false
		}
		defer src.mm.pagesMu.RUnlock()
	}
	if dst.mm != nil && dst.mm != src.mm {
		if !dst.mm.pagesMu.TryRLock() {
			return false
		}
		defer dst.mm.pagesMu.RUnlock()
	}
	if !dst.resident(n, platform.Write) || !src.resident(n, platform.Read) {
		return false
	}
	for n > 0 {
		from := src.piece(n, platform.Read)
		k := copy(dst.piece(int64(len(from)), platform.Write), from)
		src, dst = src.DropFirst(int64(k)), dst.DropFirst(int64(k))
		n -= int64(k)
	}
	return true
}

// resident tells whether the first n bytes of s are in the memory file, and ready. pagesMu is held, and s is not shorter.
func (s IOSeq) resident(n int64, access platform.Perms) bool {
	for n > 0 {
		k := int64(len(s.piece(n, access)))
		if k == 0 {
			return false
		}
		s = s.DropFirst(k)
		n -= k
	}
	return true
}

// piece is the beginning of s, at most n bytes; empty if that is not ready in the memory file. pagesMu is held, and n > 0.
func (s IOSeq) piece(n int64, access platform.Perms) []byte {
	if s.mm == nil {
		return s.bytes[:min(n, s.n)]
	}
	r := s.next()
	b, _, _, _ := s.mm.block(r.Addr, min(r.Len, uint64(n)), access, s.force)
	return b
}
