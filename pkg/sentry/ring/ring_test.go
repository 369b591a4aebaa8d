package ring

import (
	"bytes"
	"math/rand"
	"testing"
)

// A ring must behave as a plain byte slice does.
func TestBytesModel(t *testing.T) {
	const max = 70000
	rnd := rand.New(rand.NewSource(1))
	var b Bytes
	var model []byte
	next := byte(0)
	for i := 0; i < 20000; i++ {
		n := rnd.Intn(9000)
		if rnd.Intn(2) == 0 {
			if b.Len()+n > max {
				n = max - b.Len()
			}
			x, y := b.Reserve(n, max)
			if len(x)+len(y) != n {
				t.Fatalf("reserve %d gave %d+%d", n, len(x), len(y))
			}
			for _, s := range [][]byte{x, y} {
				for j := range s {
					s[j] = next
					model = append(model, next)
					next++
				}
			}
			b.Commit(n)
		} else {
			if n > b.Len() {
				n = b.Len()
			}
			skip := 0
			if n > 10 {
				skip = rnd.Intn(n)
			}
			x, y := b.Peek(skip, n-skip)
			if got := append(append([]byte{}, x...), y...); !bytes.Equal(got, model[skip:n]) {
				t.Fatalf("step %d: content differs", i)
			}
			b.Consume(n)
			model = model[n:]
		}
		if b.Len() != len(model) || b.Cap() > max {
			t.Fatalf("len %d, want %d; cap %d", b.Len(), len(model), b.Cap())
		}
	}
}

func TestListModel(t *testing.T) {
	rnd := rand.New(rand.NewSource(2))
	var l List[int]
	var model []int
	for i := 0; i < 10000; i++ {
		switch {
		case rnd.Intn(2) == 0:
			l.Push(i)
			model = append(model, i)
		case len(model) > 0 && rnd.Intn(3) == 0:
			if v := l.PopBack(); v != model[len(model)-1] {
				t.Fatalf("back %d", v)
			}
			model = model[:len(model)-1]
		case len(model) > 0:
			if v := l.Pop(); v != model[0] {
				t.Fatalf("front %d, want %d", v, model[0])
			}
			model = model[1:]
		}
		if l.Len() != len(model) {
			t.Fatal("length")
		}
	}
}

// A large ring that is emptied, shrinks and fills again uses memory that was used before, and never shows what lay there.
func TestSpareMemory(t *testing.T) {
	var b, other Bytes
	big := bytes.Repeat([]byte{1}, 200<<10)
	cycle := func() {
		for o := 0; o < len(big); o += 50 << 10 {
			b.Append(big[o:o+50<<10], 1<<31)
		}
		b.Consume(b.Len())
		b.Shrink(minSpare)
	}
	cycle()
	if n := testing.AllocsPerRun(20, cycle); n > 2 { // a collection of garbage takes the spares
		t.Errorf("%v allocations", n)
	}
	other.Append([]byte("abc"), 1<<31)
	other.Append(bytes.Repeat([]byte{2}, 100<<10), 1<<31)
	x, y := other.Peek(0, other.Len())
	if b.Cap() != 0 {
		t.Error("an empty ring keeps", b.Cap())
	}
	b.Append([]byte("abc"), 1<<31)
	if b.Cap() != 256<<10 {
		t.Error("does not take what it needed, but", b.Cap())
	}
	b.Consume(3)
	b.Shrink(minSpare)
	b.Append([]byte("abc"), 1<<31)
	if b.Cap() != minSize {
		t.Error("takes more than it needed:", b.Cap())
	}
	if got := append(append([]byte{}, x...), y...); string(got[:3]) != "abc" || !bytes.Equal(got[3:], bytes.Repeat([]byte{2}, 100<<10)) {
		t.Error("wrong content")
	}
	other.Reset()
	if spare(100<<10) != nil || spare(32<<10) != nil || spare(2<<20) != nil || spare(1<<20) == nil || spare(64<<10) == nil {
		t.Error("wrong sizes")
	}
}
