package ranges

import (
	"math/rand/v2"
	"testing"
)

// val is an offset that joins when contiguous, as pages of a file do.
type val uint64

func (v val) Tail(off uint64) val           { return v + val(off) }
func (v val) Joins(n uint64, next val) bool { return v+val(n) == next }

// check compares m to the model, an array with 0 for nothing, and checks the structure.
func check(t *testing.T, m *Map[val], model []val) {
	t.Helper()
	at, n := uint64(0), 0
	for p := m.First(); m.Valid(p); p = m.Next(p) {
		s := m.At(p)
		n++
		if s.Start < at || s.End <= s.Start {
			t.Fatalf("bad segment %+v behind %d", *s, at)
		}
		for ; at < s.Start; at++ {
			if model[at] != 0 {
				t.Fatalf("%d is missing", at)
			}
		}
		for ; at < s.End; at++ {
			if want := s.Val + val(at-s.Start); model[at] != want {
				t.Fatalf("%d is %d, want %d", at, want, model[at])
			}
		}
	}
	for ; at < uint64(len(model)); at++ {
		if model[at] != 0 {
			t.Fatalf("%d is missing", at)
		}
	}
	if n != m.Count() {
		t.Fatalf("count %d, want %d", m.Count(), n)
	}
}

// gaps lists the maximal gaps of at least size within [lo, hi).
func gaps(model []val, lo, hi, size uint64) (list [][2]uint64) {
	for a := lo; a < hi; a++ {
		if model[a] != 0 {
			continue
		}
		b := a
		for b < hi && model[b] == 0 {
			b++
		}
		if b-a >= size {
			list = append(list, [2]uint64{a, b})
		}
		a = b
	}
	return list
}

func TestRandom(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		const n = 4000
		model := make([]val, n)
		var m Map[val]
		for step := range 1500 {
			a := r.Uint64N(n)
			b := min(a+1+r.Uint64N(40), n)
			switch r.IntN(4) {
			case 0, 1:
				v := val(1 + r.Uint64N(1<<30))
				if a > 0 && model[a-1] != 0 && r.IntN(2) == 0 {
					v = model[a-1] + 1
				}
				m.RemoveRange(a, b)
				p := m.Join(m.Insert(a, b, v))
				if s := m.At(p); s.Start > a || s.End < b {
					t.Fatalf("joined segment is %+v, want [%d,%d)", *s, a, b)
				}
				for i := a; i < b; i++ {
					model[i] = v + val(i-a)
				}
			case 2:
				m.RemoveRange(a, b)
				clear(model[a:b])
			case 3:
				m.Isolate(a, b)
				if r.IntN(2) == 0 {
					m.JoinRange(a, b)
				}
			}
			if step%50 != 0 {
				continue
			}
			check(t, &m, model)
			c := m.Clone()
			check(t, &c, model)
			lo, hi, size := r.Uint64N(n), uint64(n), 1+r.Uint64N(60)
			hi = lo + r.Uint64N(n-lo)
			want := gaps(model, lo, hi, size)
			for _, down := range []bool{false, true} {
				i := 0
				m.Gaps(lo, hi, size, down, func(start, end uint64, next Pos) bool {
					k := i
					if down {
						k = len(want) - 1 - i
					}
					if i >= len(want) || want[k] != [2]uint64{start, end} {
						t.Fatalf("gap %d (down %v) in [%d,%d) of %d: [%d,%d), want %v", i, down, lo, hi, size, start, end, want)
					}
					if m.Valid(next) && m.At(next).Start < end {
						t.Fatalf("segment behind gap is %+v", *m.At(next))
					}
					i++
					return true
				})
				if i != len(want) {
					t.Fatalf("%d gaps (down %v), want %d", i, down, len(want))
				}
			}
		}
	}
}

func TestSeekAllocatesNothing(t *testing.T) {
	var m Map[val]
	for i := range uint64(1000) {
		m.Insert(i*10, i*10+5, val(i*100))
	}
	if n := testing.AllocsPerRun(100, func() { m.Find(5002) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkFind1000(b *testing.B) {
	var m Map[val]
	for i := range uint64(1000) {
		m.Insert(i*10, i*10+5, val(i*100))
	}
	for i := range b.N {
		m.Find(uint64(i*7) % 10000)
	}
}
