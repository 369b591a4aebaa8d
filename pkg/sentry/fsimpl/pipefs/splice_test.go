package pipefs

import (
	"encoding/binary"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/waiter"
)

// What is claimed is in the pipe, but nobody else's until it is settled.
func TestClaim(t *testing.T) {
	p := pair()
	b := make([]byte, 10)
	if _, err := p.claim(b); err != unix.EAGAIN {
		t.Fatal(err)
	}
	p.Write(mm.BytesSeq([]byte("abcdef")), &nobody, false)
	if n, err := p.claim(b[:4]); n != 4 || err != nil || string(b[:4]) != "abcd" {
		t.Fatal(n, err, b)
	}
	got := make(chan string)
	go func() {
		b := make([]byte, 10)
		n, _ := p.Read(mm.BytesSeq(b), &nobody)
		got <- string(b[:n])
	}()
	for range 100 {
		runtime.Gosched()
	}
	if n, err := write(p, DefaultSize, false); n != DefaultSize-6 || err != unix.EAGAIN || p.Len() != DefaultSize {
		t.Fatal(n, err)
	}
	var w waiter.Signal
	var e waiter.Entry
	w.Init()
	e.Init(&w, waiter.WritableEvents)
	p.queue.EventRegister(&e)
	select {
	case s := <-got:
		t.Fatal("read", s)
	default:
	}
	p.settle(3, &nobody)
	if s := <-got; s != "defxxxxxxx" {
		t.Fatal(s)
	}
	if len(w.C) != 0 {
		t.Fatal("writer woken for 13 bytes")
	}
	p.claim(make([]byte, 5000))
	p.settle(5000, &nobody)
	if len(w.C) != 1 {
		t.Fatal("writer not woken")
	}
	q := New()
	q.open(true, true)
	q.close(false, true)
	if n, err := q.claim(b); n != 0 || err != nil || q.claimed {
		t.Fatal(n, err)
	}
}

// Of all that is written, whoever takes it in whatever way, each record comes out once, and those of a writer in order.
func TestMoversAndReaders(t *testing.T) {
	const records, size = 20000, 8
	p, q := pair(), pair()
	p.SetSize(4096, 1<<20)
	var takers, movers sync.WaitGroup
	var mu sync.Mutex
	seen := make([]int, records)
	take := func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		for ; len(b) > 0; b = b[size:] {
			seen[binary.LittleEndian.Uint64(b)]++
		}
	}
	reader := func(p *Pipe) {
		defer takers.Done()
		b := make([]byte, 3*size)
		for {
			n, err := p.Read(mm.BytesSeq(b), &nobody)
			if n == 0 && err == nil {
				return
			}
			take(b[:n])
			runtime.Gosched()
		}
	}
	claimer := func() {
		defer takers.Done()
		b := make([]byte, 5*size)
		for {
			n, err := p.claim(b)
			if n == 0 && err == nil {
				return
			}
			if n > 0 {
				n -= n / size / 2 * size // not all of it
				take(b[:n])
				p.settle(n, &nobody)
			}
			runtime.Gosched()
		}
	}
	mover := func() {
		defer movers.Done()
		for {
			if n, err := p.move(q, 7*size, false, &nobody); n == 0 && err == nil {
				return
			}
			runtime.Gosched()
		}
	}
	takers.Add(4)
	movers.Add(2)
	go reader(p)
	go reader(q)
	go claimer()
	go claimer()
	go mover()
	go mover()
	b := make([]byte, size)
	for i := range records {
		binary.LittleEndian.PutUint64(b, uint64(i))
		for {
			if n, _ := p.Write(mm.BytesSeq(b), &nobody, false); n > 0 {
				break
			}
			runtime.Gosched()
		}
	}
	p.close(false, true)
	movers.Wait()
	q.close(false, true)
	takers.Wait()
	for i, n := range seen {
		if n != 1 {
			t.Fatalf("record %d came %d times", i, n)
		}
	}
}

// Moves between two pipes in both directions do not wait for each other.
func TestMoveBothWays(t *testing.T) {
	p, q := pair(), pair()
	write(p, 30000, false)
	write(q, 5000, true)
	var g sync.WaitGroup
	for i := range 4 {
		g.Go(func() {
			for range 5000 {
				if i&1 == 0 {
					p.move(q, 1000, false, &nobody)
				} else {
					q.move(p, 1000, false, &nobody)
				}
			}
		})
	}
	g.Wait()
	if n := p.Len() + q.Len(); n != 35000 {
		t.Fatal(n, "bytes left")
	}
	if n, err := p.move(p, 1, true, &nobody); n != 0 || err != unix.EINVAL {
		t.Fatal(n, err)
	}
}

// What has been read elsewhere finds a place whatever others did to the room for it.
func TestPutBeyond(t *testing.T) {
	p := pair()
	write(p, DefaultSize, false)
	if n, err := p.put(mm.BytesSeq(make([]byte, 10)), false, &nobody); n != 0 || err != unix.EAGAIN {
		t.Fatal(n, err)
	}
	if n, err := p.put(mm.BytesSeq(make([]byte, 70000)), true, &nobody); n != 70000 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := write(p, 1, false); n != 0 || err != unix.EAGAIN {
		t.Fatal(n, err)
	}
	if _, err := p.SetSize(4096, 1<<20); err != unix.EBUSY {
		t.Fatal(err)
	}
	q := pair()
	if n, err := p.move(q, 1<<30, false, &nobody); n != DefaultSize || err != nil {
		t.Fatal(n, err)
	}
	if n, err := read(p, 100000); n != 70000 || err != nil {
		t.Fatal(n, err)
	}
	p.close(true, false)
	if _, err := p.put(mm.BytesSeq(make([]byte, 10)), true, &nobody); err != unix.EPIPE {
		t.Fatal(err)
	}
}
