package pipefs

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/waiter"
)

// nobody puts nothing off.
var nobody waiter.Signal

// A writer that lingers fills the pipe before the reader hears of it; who polls sees the content at once.
func TestLinger(t *testing.T) {
	p := pair()
	var writer, reader waiter.Signal
	writer.Init()
	reader.Init()
	writer.Linger()
	var e waiter.Entry
	e.Init(&reader, waiter.ReadableEvents)
	p.queue.EventRegister(&e)
	for range 3 {
		p.Write(mm.BytesSeq([]byte("x")), &writer, false)
	}
	if len(reader.C) != 0 || !writer.Late() || p.readiness(true, false)&waiter.EventIn == 0 {
		t.Fatal("woken at once, or not readable")
	}
	writer.Flush()
	if len(reader.C) != 1 || writer.Late() {
		t.Fatal("not woken")
	}
}

func pair() *Pipe {
	p := New()
	p.open(true, true)
	return p
}

func write(p *Pipe, n int, packet bool) (int64, error) {
	return p.Write(mm.BytesSeq(bytes.Repeat([]byte{'x'}, n)), &nobody, packet)
}

func read(p *Pipe, n int) (int64, error) { return p.Read(mm.BytesSeq(make([]byte, n)), &nobody) }

func TestBasics(t *testing.T) {
	p := pair()
	if _, err := read(p, 10); err != unix.EAGAIN {
		t.Fatal(err)
	}
	if n, err := p.Write(mm.BytesSeq([]byte("hello")), &nobody, false); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	b := make([]byte, 3)
	if n, err := p.Read(mm.BytesSeq(b), &nobody); n != 3 || err != nil || string(b) != "hel" {
		t.Fatal(n, err, string(b))
	}
	p.close(false, true)
	if n, err := read(p, 10); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := read(p, 10); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	if m := p.readiness(true, false); m&waiter.EventHUp == 0 {
		t.Fatal("no hangup")
	}
	p.open(false, true)
	p.close(true, false)
	if _, err := write(p, 1, false); err != unix.EPIPE {
		t.Fatal(err)
	}
}

func TestAtomicity(t *testing.T) {
	p := pair()
	if n, err := write(p, DefaultSize-100, false); n != DefaultSize-100 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := write(p, 4096, false); n != 0 || err != unix.EAGAIN {
		t.Fatal("PIPE_BUF bytes were split:", n, err)
	}
	if n, err := write(p, 4097, false); n != 100 || err != unix.EAGAIN {
		t.Fatal(n, err)
	}
	if m := p.readiness(true, true); m&waiter.EventOut != 0 {
		t.Fatal("full pipe is writable")
	}
}

func TestPackets(t *testing.T) {
	p := pair()
	write(p, 3, false)
	write(p, 5000, true)
	write(p, 2, false)
	for _, want := range []int64{3, 10, 904, 2} {
		size := 4096
		if want == 10 {
			size = 10 // the rest of the first packet is lost
		}
		if n, err := read(p, size); n != want || err != nil {
			t.Fatalf("read %d %v, want %d", n, err, want)
		}
	}
	if p.Len() != 0 || p.segs.Len() != 0 {
		t.Fatal("left over")
	}
}

func TestSize(t *testing.T) {
	p := pair()
	if n, err := p.SetSize(100000, 1<<20); n != 131072 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := p.SetSize(2<<20, 1<<20); err != unix.EPERM {
		t.Fatal(err)
	}
	write(p, 100000, false)
	if _, err := p.SetSize(4096, 1<<20); err != unix.EBUSY {
		t.Fatal(err)
	}
	read(p, 99999)
	if n, err := p.SetSize(0, 1<<20); n != 4096 || err != nil {
		t.Fatal(n, err)
	}
}

func TestAllocs(t *testing.T) {
	p := pair()
	buf := make([]byte, 65536)
	write(p, 65536, false)
	p.Read(mm.BytesSeq(buf), &nobody)
	for _, size := range []int{1, 4096, 65536} {
		if n := testing.AllocsPerRun(100, func() {
			p.Write(mm.BytesSeq(buf[:size]), &nobody, false)
			p.Read(mm.BytesSeq(buf), &nobody)
		}); n != 0 {
			t.Errorf("%v allocations for a write and read of %d bytes", n, size)
		}
	}
}

func BenchmarkPipe64K(b *testing.B) {
	p := pair()
	buf := make([]byte, 65536)
	b.SetBytes(65536)
	for b.Loop() {
		p.Write(mm.BytesSeq(buf), &nobody, false)
		p.Read(mm.BytesSeq(buf), &nobody)
	}
}
