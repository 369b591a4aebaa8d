package mm

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
)

const (
	// viewAfter is the number of reads of a host file's mapped pages after which the sentry maps the file itself: a read
	// costs 0.4 us, and a program's string constants are read at every open(2).
	viewAfter = 8
	// maxView is the size of the largest file that the sentry maps.
	maxView = 64 << 20
)

// hostView is a mapping of the beginning of a host file in the sentry, for reading.
type hostView struct {
	base unsafe.Pointer
	size uint64
}

// read copies bytes at off of the file. ok is false where the view does not have them, or the file is shorter by now.
func (v *hostView) read(dst []byte, off uint64) (ok bool) {
	if off > v.size || uint64(len(dst)) > v.size-off {
		return false
	}
	guard(func() {
		copy(dst, unsafe.Slice((*byte)(unsafe.Add(v.base, off)), len(dst)))
		ok = true
	})
	return ok
}

// readHostPages is copyHostIn by way of the view of the file whose pages r are, if it has one. pagesMu is held: the view lives as
// long as pages of the file are mapped.
func (r *page) readHostPages(dst []byte, off uint64) int {
	if r.set == nil || r.set.noView.Load() {
		return copyHostIn(int(r.fd), dst, off)
	}
	v := r.set.view.Load()
	if v == nil {
		if r.set.reads.Add(1) < viewAfter {
			return copyHostIn(int(r.fd), dst, off)
		}
		if v = r.set.makeView(int(r.fd)); v == nil {
			return copyHostIn(int(r.fd), dst, off)
		}
	}
	if !v.read(dst, off) {
		return copyHostIn(int(r.fd), dst, off)
	}
	return len(dst)
}

// makeView maps the file; nil if that is not possible.
func (s *MappingSet) makeView(fd int) *hostView {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.view.Load(); v != nil {
		return v
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size <= 0 || st.Size > maxView {
		s.noView.Store(true)
		return nil
	}
	size, _ := arch.PageUp(uint64(st.Size))
	p, err := unix.MmapPtr(fd, 0, nil, uintptr(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		s.noView.Store(true)
		return nil
	}
	v := &hostView{p, size}
	s.view.Store(v)
	return v
}

// dropView unmaps the view, when nobody maps the file any more; mu is held.
func (s *MappingSet) dropView() {
	if v := s.view.Swap(nil); v != nil {
		unix.MunmapPtr(v.base, uintptr(v.size))
	}
	s.reads.Store(0)
	s.noView.Store(false)
}
