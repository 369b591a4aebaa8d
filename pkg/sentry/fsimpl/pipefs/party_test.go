package pipefs

import (
	"bytes"
	"encoding/binary"
	"math/rand"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/waiter"
)

// task is a goroutine that blocks as vfs does.
type task struct {
	sig     waiter.Signal
	entry   waiter.Entry
	retired chan struct{} // closed: blocks no more
}

func newTask(linger bool) *task {
	t := &task{retired: make(chan struct{})}
	t.sig.Init()
	if linger {
		t.sig.Linger()
	}
	return t
}

// park blocks; false if the task is interrupted.
func (t *task) park(p *Pipe, seq mm.IOSeq, write bool) (int64, bool) {
	p.park(&t.sig, seq, write)
	t.sig.Flush()
	ok := true
	select {
	case <-t.sig.C:
	case <-t.retired:
		ok = false
	}
	return p.unpark(&t.sig, write), ok
}

func (t *task) read(p *Pipe, b []byte) int64 {
	t.entry.Init(&t.sig, waiter.ReadableEvents)
	p.queue.EventRegister(&t.entry)
	defer p.queue.EventUnregister(&t.entry)
	for {
		if n, err := p.Read(mm.BytesSeq(b), &t.sig); err != unix.EAGAIN {
			return n
		}
		if n, ok := t.park(p, mm.BytesSeq(b), false); n > 0 || !ok {
			return n
		}
	}
}

func (t *task) write(p *Pipe, b []byte) (done int64) {
	t.entry.Init(&t.sig, waiter.WritableEvents)
	p.queue.EventRegister(&t.entry)
	defer p.queue.EventUnregister(&t.entry)
	for {
		n, err := p.Write(mm.BytesSeq(b[done:]), &t.sig, false)
		if done += n; err != unix.EAGAIN {
			return done
		}
		n, ok := t.park(p, mm.BytesSeq(b[done:]), true)
		if done += n; done == int64(len(b)) || !ok {
			return done
		}
	}
}

// What is handed over is as much as the pipe could hold, and small writes are not split.
func TestHand(t *testing.T) {
	p := pair()
	r := newTask(false)
	buf := make([]byte, 2*DefaultSize)
	p.park(&r.sig, mm.BytesSeq(buf), false)
	if n, err := write(p, 3, false); n != 3 || err != nil || p.Len() != 0 || len(r.sig.C) != 1 {
		t.Fatal(n, err, p.Len())
	}
	if n, err := write(p, DefaultSize-100, false); n != DefaultSize-100 || err != nil || p.Len() != 0 {
		t.Fatal(n, err, p.Len())
	}
	if n, err := write(p, 98, false); n != 98 || err != nil || p.Len() != 98 {
		t.Fatal(n, err, p.Len())
	}
	if n := p.unpark(&r.sig, false); n != DefaultSize-97 || !bytes.Equal(buf[:n], bytes.Repeat([]byte{'x'}, int(n))) {
		t.Fatal(n)
	}
	if n := p.unpark(&r.sig, false); n != 0 {
		t.Fatal(n)
	}
	read(p, 98)
	p.park(&r.sig, mm.BytesSeq(buf[:8192]), false)
	if n, err := write(p, 10000, false); n != 10000 || err != nil || p.Len() != 10000-8192 {
		t.Fatal(n, err, p.Len())
	}
	if n := p.unpark(&r.sig, false); n != 8192 {
		t.Fatal(n)
	}
	read(p, 10000)
	p.park(&r.sig, mm.BytesSeq(buf), false)
	if n, err := write(p, 5, true); n != 5 || err != nil || p.Len() != 5 || p.unpark(&r.sig, false) != 0 {
		t.Fatal("a packet did not go through the pipe:", n, err)
	}
}

// The rest of a blocked write is read after what is in the pipe, and not with it.
func TestFetch(t *testing.T) {
	p := pair()
	w := newTask(false)
	write(p, DefaultSize, false)
	p.park(&w.sig, mm.BytesSeq(bytes.Repeat([]byte{'y'}, 100000)), true)
	if n, err := read(p, 2*DefaultSize); n != DefaultSize || err != nil {
		t.Fatal(n, err)
	}
	if n, err := read(p, 2*DefaultSize); n != DefaultSize || err != nil {
		t.Fatal(n, err)
	}
	if n, err := read(p, 10); n != 10 || err != nil {
		t.Fatal(n, err)
	}
	if n := p.unpark(&w.sig, true); n != DefaultSize+10 {
		t.Fatal(n)
	}
	if _, err := read(p, 10); err != unix.EAGAIN {
		t.Fatal(err)
	}
}

// A stream arrives as it was written, whatever the sizes, and with tasks that are interrupted.
func TestStream(t *testing.T) {
	for seed := range int64(20) {
		p := pair()
		rnd := rand.New(rand.NewSource(seed))
		if seed%3 == 0 {
			p.SetSize(4096<<rnd.Intn(8), 1<<20)
		}
		data := make([]byte, 4<<20)
		rnd.Read(data)
		go func() {
			rnd := rand.New(rand.NewSource(seed + 100))
			for rest := data; len(rest) > 0; {
				w := newTask(seed&1 != 0)
				n := min(1+rnd.Intn(1<<(4+rnd.Intn(15))), len(rest))
				if rnd.Intn(50) == 0 {
					close(w.retired)
				}
				rest = rest[w.write(p, rest[:n]):]
				w.sig.Hurry()
			}
			p.close(false, true)
		}()
		buf := make([]byte, 1<<18)
		for rest := data; len(rest) > 0; {
			r := newTask(seed&2 != 0)
			if rnd.Intn(50) == 0 {
				close(r.retired)
			}
			n := r.read(p, buf[:1+rnd.Intn(1<<(4+rnd.Intn(15)))])
			r.sig.Hurry()
			if !bytes.Equal(buf[:n], rest[:n]) {
				t.Fatal("wrong data")
			}
			rest = rest[n:]
		}
	}
}

// Several writers' small writes stay whole, whoever reads.
func TestWholeWrites(t *testing.T) {
	p := pair()
	const writers, each, size = 4, 3000, 64
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			w := newTask(true)
			var b [size]byte
			for k := range each {
				for j := 0; j < size; j += 4 {
					binary.LittleEndian.PutUint32(b[j:], uint32(i<<24|k))
				}
				if w.write(p, b[:]) != size {
					t.Error("short write")
				}
			}
			w.sig.Hurry()
		})
	}
	var mu sync.Mutex
	got := map[uint32]bool{}
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			r := newTask(true)
			defer r.sig.Hurry()
			b := make([]byte, 100*size)
			for {
				n := r.read(p, b)
				if n == 0 {
					return
				}
				if n%size != 0 {
					t.Errorf("read of %d bytes", n)
					return
				}
				mu.Lock()
				for o := 0; o < int(n); o += size {
					v := binary.LittleEndian.Uint32(b[o:])
					for j := 4; j < size; j += 4 {
						if binary.LittleEndian.Uint32(b[o+j:]) != v {
							t.Error("a write was split")
						}
					}
					if got[v] {
						t.Error("read twice")
					}
					got[v] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	p.close(false, true)
	readers.Wait()
	if len(got) != writers*each {
		t.Fatalf("%d of %d writes arrived", len(got), writers*each)
	}
}
