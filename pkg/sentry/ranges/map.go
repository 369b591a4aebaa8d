package ranges

import "slices"

// leafMax is the number of segments in a full leaf. With 32, a search touches few cache lines and an
// insertion moves at most a few kilobytes; 65530 mappings (Linux's default limit) make some 3000 leaves.
const leafMax = 32

// Value is what a segment carries.
type Value[V any] interface {
	// Tail is the value of the part that begins off units behind the start of the segment.
	Tail(off uint64) V
	// Joins tells whether a segment of n units with this value and one with value next right behind
	// it may become one segment with this value.
	Joins(n uint64, next V) bool
}

// Seg is the range [Start, End) and its value.
type Seg[V any] struct {
	Start, End uint64
	Val        V
}

// Len is the number of units in s.
func (s *Seg[V]) Len() uint64 { return s.End - s.Start }

type leaf[V any] struct {
	segs []Seg[V] // never empty
	// maxGap is the largest gap in front of one of segs, valid unless stale.
	maxGap uint64
	stale  bool
}

// Map is a set of disjoint, non-empty segments in ascending order; the zero value is empty. It is a tree of two
// levels: an array of leaves, each an array of segments.
type Map[V Value[V]] struct {
	starts []uint64 // starts[i] is the Start of leaves[i]'s first segment
	leaves []*leaf[V]
	count  int
}

// Pos designates a segment, or the end of the map. Changes of the map invalidate it.
type Pos struct{ leaf, idx int }

// Count is the number of segments.
func (m *Map[V]) Count() int { return m.count }

// First is the position of the lowest segment.
func (m *Map[V]) First() Pos { return Pos{} }

// Valid tells whether p designates a segment.
func (m *Map[V]) Valid(p Pos) bool { return p.leaf >= 0 && p.leaf < len(m.leaves) }

// At is the segment at p. The caller may change its value in place, but not its range.
func (m *Map[V]) At(p Pos) *Seg[V] { return &m.leaves[p.leaf].segs[p.idx] }

// Next is the position behind p.
func (m *Map[V]) Next(p Pos) Pos {
	if p.idx+1 < len(m.leaves[p.leaf].segs) {
		return Pos{p.leaf, p.idx + 1}
	}
	return Pos{p.leaf + 1, 0}
}

// Prev is the position before p, which may be the end; it is not valid where p is the first.
func (m *Map[V]) Prev(p Pos) Pos {
	if p.idx > 0 {
		return Pos{p.leaf, p.idx - 1}
	}
	if p.leaf == 0 {
		return Pos{-1, 0}
	}
	return Pos{p.leaf - 1, len(m.leaves[p.leaf-1].segs) - 1}
}

// Seek is the position of the first segment that ends behind k: the one that contains k, or else the
// next one.
func (m *Map[V]) Seek(k uint64) Pos {
	lo, hi := 0, len(m.starts) // the first leaf that starts behind k
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); m.starts[mid] <= k {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return Pos{}
	}
	segs := m.leaves[lo-1].segs
	a, b := 0, len(segs)
	for a < b {
		if mid := int(uint(a+b) >> 1); segs[mid].End <= k {
			a = mid + 1
		} else {
			b = mid
		}
	}
	if a == len(segs) {
		return Pos{lo, 0}
	}
	return Pos{lo - 1, a}
}

// Find is the position of the segment that contains k.
func (m *Map[V]) Find(k uint64) (p Pos, ok bool) {
	p = m.Seek(k)
	return p, m.Valid(p) && m.At(p).Start <= k
}

// Insert adds a segment, which must not be empty nor overlap another, without joining it to its neighbours.
func (m *Map[V]) Insert(start, end uint64, v V) Pos {
	p := m.Seek(start)
	if start >= end || m.Valid(p) && m.At(p).Start < end {
		panic("ranges: bad insertion")
	}
	return m.insertAt(p, Seg[V]{start, end, v})
}

// insertAt puts s in front of p.
func (m *Map[V]) insertAt(p Pos, s Seg[V]) Pos {
	if p.idx == 0 && p.leaf > 0 { // rather append to the leaf before
		p = Pos{p.leaf - 1, len(m.leaves[p.leaf-1].segs)}
	}
	m.count++
	if len(m.leaves) == 0 {
		m.leaves = append(m.leaves, &leaf[V]{segs: []Seg[V]{s}, stale: true})
		m.starts = append(m.starts, s.Start)
		return Pos{}
	}
	l := m.leaves[p.leaf]
	if len(l.segs) >= leafMax {
		half := leafMax / 2
		if p.idx == leafMax && p.leaf == len(m.leaves)-1 {
			half = leafMax - 1 // ascending insertions leave full leaves
		}
		r := &leaf[V]{segs: append(make([]Seg[V], 0, leafMax), l.segs[half:]...), stale: true}
		clear(l.segs[half:])
		l.segs = l.segs[:half]
		l.stale = true
		m.leaves = slices.Insert(m.leaves, p.leaf+1, r)
		m.starts = slices.Insert(m.starts, p.leaf+1, r.segs[0].Start)
		if p.idx > half {
			p = Pos{p.leaf + 1, p.idx - half}
			l = r
		}
	}
	l.segs = slices.Insert(l.segs, p.idx, s)
	m.touch(p.leaf)
	return p
}

// touch repairs what depends on the segments of leaf i, and the gap in front of leaf i+1.
func (m *Map[V]) touch(i int) {
	m.leaves[i].stale = true
	m.starts[i] = m.leaves[i].segs[0].Start
	if i+1 < len(m.leaves) {
		m.leaves[i+1].stale = true
	}
}

// Remove deletes the segment at p and gives the position of the one behind it.
func (m *Map[V]) Remove(p Pos) Pos {
	l := m.leaves[p.leaf]
	l.segs = slices.Delete(l.segs, p.idx, p.idx+1)
	m.count--
	if len(l.segs) == 0 {
		m.leaves = slices.Delete(m.leaves, p.leaf, p.leaf+1)
		m.starts = slices.Delete(m.starts, p.leaf, p.leaf+1)
		if p.leaf < len(m.leaves) {
			m.leaves[p.leaf].stale = true
		}
		return Pos{p.leaf, 0}
	}
	m.touch(p.leaf)
	if p.idx == len(l.segs) {
		return Pos{p.leaf + 1, 0}
	}
	return p
}

// Split cuts the segment that contains k, so that one starts at k if any contains it. It gives the
// position of the first segment at or behind k.
func (m *Map[V]) Split(k uint64) Pos {
	p := m.Seek(k)
	if !m.Valid(p) {
		return p
	}
	s := m.At(p)
	if s.Start >= k {
		return p
	}
	tail := Seg[V]{k, s.End, s.Val.Tail(k - s.Start)}
	s.End = k
	return m.insertAt(m.Next(p), tail)
}

// Isolate cuts segments at start and end, so that each lies either within the range or outside, and
// gives the position of the first within or behind.
func (m *Map[V]) Isolate(start, end uint64) Pos {
	m.Split(end)
	return m.Split(start)
}

// Join makes the segment at p one with the segment before it where their values allow, and gives
// the position of the segment that now holds what was at p.
func (m *Map[V]) Join(p Pos) Pos {
	q := m.Prev(p)
	if !m.Valid(q) || !m.Valid(p) {
		return p
	}
	a, b := m.At(q), m.At(p)
	if a.End != b.Start || !a.Val.Joins(a.Len(), b.Val) {
		return p
	}
	end := b.End
	m.Remove(p)
	a = m.At(q)
	a.End = end
	m.touch(q.leaf)
	return q
}

// JoinRange joins what can be joined at the borders in [start, end], both included.
func (m *Map[V]) JoinRange(start, end uint64) {
	for p := m.Seek(start); m.Valid(p) && m.At(p).Start <= end; {
		p = m.Next(m.Join(p))
	}
}

// RemoveRange deletes [start, end), cutting segments at its borders.
func (m *Map[V]) RemoveRange(start, end uint64) {
	for p := m.Isolate(start, end); m.Valid(p) && m.At(p).Start < end; {
		p = m.Remove(p)
	}
}

// Clear removes everything.
func (m *Map[V]) Clear() { *m = Map[V]{} }

// Clone copies the map; values are copied as they are.
func (m *Map[V]) Clone() Map[V] {
	c := Map[V]{starts: slices.Clone(m.starts), leaves: make([]*leaf[V], len(m.leaves)), count: m.count}
	for i, l := range m.leaves {
		c.leaves[i] = &leaf[V]{segs: slices.Clone(l.segs), maxGap: l.maxGap, stale: l.stale}
	}
	return c
}

// leafGap is the largest gap in front of a segment of leaf i.
func (m *Map[V]) leafGap(i int) uint64 {
	l := m.leaves[i]
	if !l.stale {
		return l.maxGap
	}
	prev := uint64(0)
	if i > 0 {
		before := m.leaves[i-1].segs
		prev = before[len(before)-1].End
	}
	l.maxGap = 0
	for j := range l.segs {
		l.maxGap = max(l.maxGap, l.segs[j].Start-prev)
		prev = l.segs[j].End
	}
	l.stale = false
	return l.maxGap
}

// Gaps calls f for the gaps of at least size units within [lo, hi), cut to it, from the highest down if topDown is set,
// else upwards, until f returns false. next is the position of the segment behind the gap. f must not change the map.
func (m *Map[V]) Gaps(lo, hi, size uint64, topDown bool, f func(start, end uint64, next Pos) bool) {
	if topDown {
		m.gapsDown(lo, hi, size, f)
	} else {
		m.gapsUp(lo, hi, size, f)
	}
}

func (m *Map[V]) gapsUp(lo, hi, size uint64, f func(start, end uint64, next Pos) bool) {
	p := m.Seek(lo)
	start := lo
	for start < hi {
		for p.idx == 0 && p.leaf < len(m.leaves) && m.leafGap(p.leaf) < size && m.starts[p.leaf] < hi {
			segs := m.leaves[p.leaf].segs
			start = max(start, segs[len(segs)-1].End)
			p = Pos{p.leaf + 1, 0}
		}
		end := hi
		if m.Valid(p) {
			end = min(end, m.At(p).Start)
		}
		if end > start && end-start >= size && !f(start, end, p) {
			return
		}
		if !m.Valid(p) {
			return
		}
		start = max(start, m.At(p).End)
		p = m.Next(p)
	}
}

func (m *Map[V]) gapsDown(lo, hi, size uint64, f func(start, end uint64, next Pos) bool) {
	p := m.Seek(hi) // the segment behind the gap; it may contain hi
	if m.Valid(p) && m.At(p).Start < hi {
		hi = m.At(p).Start
	}
	for hi > lo {
		q := m.Prev(p)
		start := lo
		if m.Valid(q) {
			start = max(start, m.At(q).End)
		}
		if hi > start && hi-start >= size && !f(start, hi, p) {
			return
		}
		if !m.Valid(q) {
			return
		}
		p, hi = q, m.At(q).Start
		for p.idx == len(m.leaves[p.leaf].segs)-1 && p.leaf > 0 && hi > lo && m.leafGap(p.leaf) < size {
			hi = m.starts[p.leaf]
			p = Pos{p.leaf, 0}
			if q = m.Prev(p); m.Valid(q) { // the gap in front of the leaf is too small as well
				p, hi = q, m.At(q).Start
			}
		}
	}
}
