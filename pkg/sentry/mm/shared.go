package mm

import (
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/ranges"
)

// Shared is memory without a file system: what MAP_SHARED|MAP_ANONYMOUS, /dev/zero and System V segments map. It allocates as it
// is used, and is freed by Release.
type Shared struct {
	file     *memfile.File // immutable
	mappings MappingSet
	size     uint64 // immutable, a multiple of the page size

	mu   sync.Mutex
	data ranges.Map[extent] // the parts that have memory; protected by mu
	// keep is set while somebody beside mappings holds the memory; protected by mu.
	keep bool
}

// extent is an offset in the memory file.
type extent uint64

// Tail and Joins make extent a ranges.Value.
func (e extent) Tail(off uint64) extent           { return e + extent(off) }
func (e extent) Joins(n uint64, next extent) bool { return e+extent(n) == next }

// NewShared makes shared memory of size bytes, a multiple of the page size, which is freed with the last mapping of it.
func NewShared(f *memfile.File, size uint64) *Shared {
	s := &Shared{file: f, size: size}
	s.mappings.onUnused = s.unused
	return s
}

// NewSegment makes shared memory that lives until Release, or until its last mapping goes after that.
func NewSegment(f *memfile.File, size uint64) *Shared {
	s := NewShared(f, size)
	s.keep = true
	return s
}

// Size is the length in bytes.
func (s *Shared) Size() uint64 { return s.size }

// MappingSet implements Mappable.
func (s *Shared) MappingSet() *MappingSet { return &s.mappings }

// Release ends the life of a segment: what maps it keeps it.
func (s *Shared) Release() {
	s.mu.Lock()
	s.keep = false
	s.mu.Unlock()
	if !s.mappings.Mapped() {
		s.unused()
	}
}

// unused frees the memory if nobody holds it.
func (s *Shared) unused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keep {
		return
	}
	for p := s.data.First(); s.data.Valid(p); p = s.data.Next(p) {
		e := s.data.At(p)
		s.file.DecRef(memfile.Range{Off: uint64(e.Val), Len: e.Len()})
	}
	s.data.Clear()
}

// Resident is the number of bytes that take memory.
func (s *Shared) Resident() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := s.data.First(); s.data.Valid(p); p = s.data.Next(p) {
		e := s.data.At(p)
		n += s.file.Resident(memfile.Range{Off: uint64(e.Val), Len: e.Len()})
	}
	return n
}

// Translate implements Mappable.
func (s *Shared) Translate(start, end, at uint64, write bool) (Translation, error) {
	if at >= s.size {
		return Translation{}, ErrBus
	}
	end = min(end, s.size)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.data.Find(at)
	if !ok {
		from, to := max(start, at&^(anonChunk-1)), min(end, at&^(anonChunk-1)+anonChunk)
		if s.data.Valid(p) {
			to = min(to, s.data.At(p).Start)
		}
		if q := s.data.Prev(p); s.data.Valid(q) {
			from = max(from, s.data.At(q).End)
		}
		r, err := s.file.Allocate(to-from, memfile.AllocOpts{})
		if err != nil {
			from, to = at, at+arch.PageSize
			if r, err = s.file.Allocate(arch.PageSize, memfile.AllocOpts{}); err != nil {
				return Translation{}, err
			}
		}
		p = s.data.Join(s.data.Insert(from, to, extent(r.Off)))
	}
	e := s.data.At(p)
	t := Translation{Start: max(start, e.Start), End: min(end, e.End), HostFD: MemoryFile, Perms: allPerms}
	t.Offset = uint64(e.Val) + t.Start - e.Start
	s.file.IncRef(memfile.Range{Off: t.Offset, Len: t.End - t.Start})
	return t, nil
}

// PunchHole implements HolePuncher.
func (s *Shared) PunchHole(off, length uint64) error {
	if off&arch.PageMask != 0 || off > s.size || length > s.size-off {
		return unix.EINVAL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := s.data.Isolate(off, off+length); s.data.Valid(p) && s.data.At(p).Start < off+length; p = s.data.Next(p) {
		e := s.data.At(p)
		s.file.Punch(memfile.Range{Off: uint64(e.Val), Len: e.Len()})
	}
	s.data.JoinRange(off, off+length)
	return nil
}

// rangeOf is the part [from, to) of the run s in the memory file.
func rangeOf(s *pageSeg, from, to uint64) memfile.Range {
	return memfile.Range{Off: s.Val.off + from - s.Start, Len: to - from}
}

var _ Mappable = (*Shared)(nil)
