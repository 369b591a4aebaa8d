package memfile

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t testing.TB) *File {
	f, err := New(Options{Size: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func TestFreedRangesReadAsZeros(t *testing.T) {
	f := open(t)
	for range 50 {
		r, err := f.Allocate(64<<10, AllocOpts{})
		if err != nil {
			t.Fatal(err)
		}
		b := f.Slice(r.Off, r.Len)
		for i := range b {
			if b[i] != 0 {
				t.Fatalf("byte %d of a new range is %d", i, b[i])
			}
			b[i] = 0xff
		}
		f.IncRef(Range{Off: r.Off, Len: 4096})
		f.DecRef(r)
		if b[0] != 0xff {
			t.Fatal("punched in spite of a reference")
		}
		f.DecRef(Range{Off: r.Off, Len: 4096})
		f.Reclaim()
	}
	if n := f.Allocated(); n != 0 {
		t.Fatalf("%d bytes leaked", n)
	}
	if u, err := f.Usage(); err != nil || u != 0 {
		t.Fatalf("usage %d, %v", u, err)
	}
	r, err := f.Allocate(4096, AllocOpts{})
	if err != nil || r.Off != 0 {
		t.Fatalf("space is not reused: %v, %v", r, err)
	}
}

func TestAlignment(t *testing.T) {
	f := open(t)
	f.Allocate(4096, AllocOpts{})
	r, err := f.Allocate(4<<20, AllocOpts{Align: 2 << 20, Phase: 0x7f0000123000})
	if err != nil || r.Off%(2<<20) != 0x123000 {
		t.Fatalf("%#x, %v", r.Off, err)
	}
	if _, err := f.Allocate(2<<30, AllocOpts{}); err != unix.EINVAL {
		t.Fatalf("more than the file: %v", err)
	}
	if _, err := f.Allocate(1<<30, AllocOpts{}); err != unix.ENOMEM {
		t.Fatalf("more than is free: %v", err)
	}
}

func TestExclusive(t *testing.T) {
	f := open(t)
	r, _ := f.Allocate(16<<12, AllocOpts{})
	f.IncRef(Range{Off: r.Off + 4<<12, Len: 4 << 12})
	for _, c := range []struct{ off, n, want uint64 }{{0, 16 << 12, 4 << 12}, {4 << 12, 1 << 12, 0}, {8 << 12, 8 << 12, 8 << 12}, {1 << 12, 2 << 12, 2 << 12}} {
		if got := f.Exclusive(r.Off+c.off, c.n); got != c.want {
			t.Errorf("Exclusive(%#x, %#x) = %#x, want %#x", c.off, c.n, got, c.want)
		}
	}
}

func TestExecutableMapping(t *testing.T) {
	f := open(t)
	b, err := unix.Mmap(f.FD(), 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	unix.Munmap(b)
}

func TestOverwrite(t *testing.T) {
	f := open(t)
	r, _ := f.Allocate(64<<10, AllocOpts{})
	f.Slice(r.Off, r.Len)[100] = 1
	f.DecRef(r)
	c, err := f.Allocate(8192, AllocOpts{Overwrite: true})
	if err != nil || !c.Dirty || c.Off != r.Off {
		t.Fatal(c, err)
	}
	if z, _ := f.Allocate(4096, AllocOpts{}); f.Slice(z.Off, z.Len)[100] != 0 || z.Dirty {
		t.Fatal("old bytes without a promise")
	}
	if n := f.Exclusive(c.Off, 64<<10); n != 8192 {
		t.Fatal(n)
	}
	f.DecRef(c)
	time.Sleep(2*cacheIdle + cacheIdle/2)
	if u, _ := f.Usage(); u != 4096 { // z's page
		t.Fatalf("%d bytes used after the cache has expired", u)
	}
}

func TestRecycle(t *testing.T) {
	f := open(t)
	var old [3]Range
	for i := range old {
		old[i], _ = f.Allocate(uint64(4-i)*4096, AllocOpts{})
		for j := range f.Slice(old[i].Off, old[i].Len) {
			f.Slice(old[i].Off, old[i].Len)[j] = 1
		}
	}
	for _, r := range old {
		f.DecRef(r)
	}
	for i, pages := range []uint64{3, 4, 1} { // the last is a part of what is left, of two pages
		r, err := f.Allocate(pages*4096, AllocOpts{Recycle: true})
		if want := old[[]int{1, 0, 2}[i]].Off; err != nil || r.Dirty || r.Off != want {
			t.Fatalf("%+v %v instead of offset %#x", r, err, want)
		}
		for j, b := range f.Slice(r.Off, r.Len) {
			if b != 0 {
				t.Fatalf("byte %d is %d", j, b)
			}
		}
	}
	if r, err := f.Allocate(8<<20, AllocOpts{Recycle: true}); err != nil || r.Dirty {
		t.Fatal(r, err)
	}
}

func TestLimit(t *testing.T) {
	f, err := New(Options{Size: 1 << 30, Limit: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := f.Allocate(16<<20, AllocOpts{})
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(0); i < r.Len; i += 4096 {
		f.Slice(r.Off+i, 1)[0] = 1
	}
	if _, err := f.Allocate(16<<20, AllocOpts{}); err != unix.ENOMEM {
		t.Fatalf("over the limit: %v", err)
	}
}

func BenchmarkIncDecRef(b *testing.B) {
	f := open(b)
	r, _ := f.Allocate(8<<20, AllocOpts{})
	for range b.N {
		f.IncRef(Range{Off: r.Off + 1<<20, Len: 4096})
		f.DecRef(Range{Off: r.Off + 1<<20, Len: 4096})
	}
}
