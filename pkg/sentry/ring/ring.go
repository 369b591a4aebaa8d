package ring

import (
	"math/bits"
	"sync"
	"unsafe"
)

// minSize is the first allocation of a Bytes: most pipes and sockets only ever carry small messages.
const minSize = 4096

// Bytes is a ring of bytes. The zero value is an empty ring that holds nothing until Reserve
// grows it. Data is moved by the owner straight into and out of the spans, so that there is one copy per side.
type Bytes struct {
	data []byte
	off  int // index of the first byte
	n    int // bytes held
	peak int // most bytes that Reserve made room for since Shrink gave up all memory
	next int // how much memory Reserve takes when there is none
}

// Len is the number of bytes held.
func (b *Bytes) Len() int { return b.n }

// Cap is the number of bytes for which memory is allocated.
func (b *Bytes) Cap() int { return len(b.data) }

// Reserve returns the free space for the next n bytes, as two spans of which the second is empty
// unless the space wraps around. Memory grows (doubling) up to max bytes in all; the caller must have checked
// that Len()+n <= max. The bytes count only after Commit.
func (b *Bytes) Reserve(n, max int) (first, second []byte) {
	need := b.n + n
	if need > b.peak {
		b.peak = need
	}
	if need > len(b.data) {
		b.grow(need, max)
	}
	if b.n == 0 {
		b.off = 0
	}
	w := b.off + b.n
	if w >= len(b.data) {
		w -= len(b.data)
	}
	if tail := len(b.data) - w; n > tail && w >= b.off {
		return b.data[w:], b.data[:n-tail]
	}
	return b.data[w : w+n], nil
}

// grow makes room for need bytes in all.
func (b *Bytes) grow(need, max int) {
	size := maxInt(len(b.data), maxInt(b.next, minSize))
	for size < need {
		size *= 2
	}
	if size > max && max >= need {
		size = max
	}
	b.resize(size)
}

// resize moves the content to new memory of size bytes, size >= Len().
func (b *Bytes) resize(size int) {
	data := alloc(size)
	x, y := b.Peek(0, b.n)
	copy(data[copy(data, x):], y)
	release(b.data)
	b.data, b.off = data, 0
}

// Large memory goes from ring to ring: what carries a stream is emptied again and again, gives up its memory, and needs it at
// once. Smaller memory is cheap to get and clear; larger is rare.
const (
	minSpare = 64 << 10
	maxSpare = 1 << 20
)

// spares holds memory that no ring uses, by size: powers of two from minSpare to maxSpare. Elements are pointers to the first byte.
var spares [5]sync.Pool

// spare is the pool for memory of size bytes; nil if there is none.
func spare(size int) *sync.Pool {
	if size < minSpare || size > maxSpare || size&(size-1) != 0 {
		return nil
	}
	return &spares[bits.TrailingZeros(uint(size/minSpare))]
}

// alloc gives memory, with any content.
func alloc(size int) []byte {
	if s := spare(size); s != nil {
		if p, _ := s.Get().(*byte); p != nil {
			return unsafe.Slice(p, size)
		}
	}
	return make([]byte, size)
}

// release is for memory from alloc that nobody uses any more.
func release(data []byte) {
	if s := spare(len(data)); s != nil {
		s.Put(unsafe.SliceData(data))
	}
}

// Shrink gives back memory beyond max bytes, as far as the content allows. An empty ring gives up all, and later takes at once as much
// as it needed before: to grow by and by is to copy the content each time.
func (b *Bytes) Shrink(max int) {
	switch {
	case len(b.data) <= max:
	case b.n == 0:
		release(b.data)
		b.data, b.next, b.peak = nil, ceil(b.peak), 0
	default:
		b.resize(maxInt(b.n, max))
	}
}

// ceil is the power of two that is not less than n, and at most 1 MiB.
func ceil(n int) int {
	size := minSize
	for size < n && size < maxSpare {
		size *= 2
	}
	return size
}

func maxInt(a, b int) int {
	if a > b {
		return a
	}
	return b
}

// Commit appends the first n bytes of what Reserve returned.
func (b *Bytes) Commit(n int) { b.n += n }

// Peek returns n bytes of content that begin skip bytes after the front; skip+n <= Len().
func (b *Bytes) Peek(skip, n int) (first, second []byte) {
	r := b.off + skip
	if r >= len(b.data) {
		r -= len(b.data)
	}
	if tail := len(b.data) - r; n > tail {
		return b.data[r:], b.data[:n-tail]
	}
	return b.data[r : r+n], nil
}

// Consume drops the first n bytes.
func (b *Bytes) Consume(n int) {
	b.off += n
	if b.off >= len(b.data) {
		b.off -= len(b.data)
	}
	b.n -= n
	if b.n == 0 {
		b.off = 0
	}
}

// Unwrite drops the last n bytes.
func (b *Bytes) Unwrite(n int) { b.n -= n }

// Append copies p to the end; the caller must have checked that Len()+len(p) <= max.
func (b *Bytes) Append(p []byte, max int) {
	x, y := b.Reserve(len(p), max)
	copy(y, p[copy(x, p):])
	b.Commit(len(p))
}

// Reset drops the content and the memory.
func (b *Bytes) Reset() {
	release(b.data)
	*b = Bytes{}
}

// List is a queue of small values that reuses its memory. The zero value is an empty queue.
type List[T any] struct {
	data   []T
	off, n int
}

// Len is the number of values.
func (l *List[T]) Len() int { return l.n }

// At is the i-th value from the front, 0 <= i < Len(). The pointer holds until the next Push.
func (l *List[T]) At(i int) *T { return &l.data[(l.off+i)%len(l.data)] }

// Push appends v.
func (l *List[T]) Push(v T) {
	if l.n == len(l.data) {
		size := 2 * l.n
		if size < 8 {
			size = 8
		}
		data := make([]T, size)
		for i := 0; i < l.n; i++ {
			data[i] = *l.At(i)
		}
		l.data, l.off = data, 0
	}
	l.n++
	*l.At(l.n - 1) = v
}

// Pop removes the first value.
func (l *List[T]) Pop() T {
	var zero T
	p := l.At(0)
	v := *p
	*p = zero
	l.n--
	if l.off++; l.off == len(l.data) {
		l.off = 0
	}
	return v
}

// PopBack removes the last value.
func (l *List[T]) PopBack() T {
	var zero T
	p := l.At(l.n - 1)
	v := *p
	*p = zero
	l.n--
	return v
}
