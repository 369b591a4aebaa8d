package mm

import (
	"testing"
	"time"

	"husk/pkg/platform"
)

// TestSpare: what is unmapped and mapped again reads as zeros, keeps its memory, and faults in between.
func TestSpare(t *testing.T) {
	for _, fork := range []bool{true, false} {
		m := newMM(t, fork)
		m.spares.credit = maxCredit
		c := cpu{t, m}
		const n = 16 << 12
		o := MMapOpts{Length: n, Perms: platform.ReadWrite}
		a := mustMap(t, m, o)
		for i := uint64(0); i < n; i += 4096 {
			if err := c.store(a+i, 1+i); err != nil {
				t.Fatal(err)
			}
		}
		off := c.as().pages[a].off
		if err := m.Munmap(a, n); err != nil {
			t.Fatal(err)
		}
		checkInvariants(t, m)
		if !fork { // the platform makes changes at once
			if len(m.spares.list) != 0 {
				t.Fatalf("spares %+v", m.spares.list)
			}
			continue
		}
		if len(m.spares.list) != 1 {
			t.Fatalf("spares %+v", m.spares.list)
		}
		if _, err := c.load(a); err != ErrMap {
			t.Fatalf("access to what was unmapped: %v", err)
		}
		faults := m.minFlt.Load()
		if b := mustMap(t, m, o); b != a {
			t.Fatalf("mapped at %#x, not %#x", b, a)
		}
		for i := uint64(0); i < n; i += 4096 {
			if v, err := c.load(a + i); v != 0 || err != nil {
				t.Fatalf("read %d, %v at %#x", v, err, i)
			}
			c.store(a+i, 1)
		}
		if p := c.as().pages[a]; p.off != off || m.minFlt.Load() != faults {
			t.Fatalf("other memory, or faults: %+v, %d", p, m.minFlt.Load()-faults)
		}
		checkInvariants(t, m)

		// A part of it, with something else in the middle.
		m.Munmap(a, n)
		b := mustMap(t, m, MMapOpts{Addr: a + 4<<12, Fixed: true, Length: 2 << 12, Perms: platform.Read})
		checkInvariants(t, m)
		if v, err := c.load(b); v != 0 || err != nil {
			t.Fatalf("read %d, %v", v, err)
		}
		if len(m.spares.list) != 2 {
			t.Fatalf("spares %+v", m.spares.list)
		}
		checkInvariants(t, m)
		mustMap(t, m, MMapOpts{Addr: a, Fixed: true, Length: n, Perms: platform.ReadWrite, Populate: true})
		checkInvariants(t, m)
		if v, err := c.load(a + 15<<12); v != 0 || err != nil {
			t.Fatalf("read %d, %v", v, err)
		}

		// What nobody used is not kept.
		m.Munmap(a, n)
		if len(m.spares.list) != 0 {
			t.Fatalf("spares of untouched memory: %+v", m.spares.list)
		}
		f := m.file
		m.DecUsers()
		if f.Allocated() != 0 {
			t.Fatalf("%d bytes leaked", f.Allocated())
		}
	}
}

// TestSpareCredit: memory is kept when it has been asked for again twice, and no more when it was not.
func TestSpareCredit(t *testing.T) {
	m := newMM(t, true)
	c := cpu{t, m}
	o := MMapOpts{Length: 8 << 12, Perms: platform.ReadWrite}
	for i := range 5 {
		a := mustMap(t, m, o)
		c.store(a, 1)
		m.Munmap(a, o.Length)
		if got, want := len(m.spares.list), i/2; got != min(want, 1) {
			t.Fatalf("%d spares after %d times", got, i+1)
		}
	}
	for i := range uint64(4) {
		a := mustMap(t, m, MMapOpts{Addr: arena + i<<20, Length: 16 << 12, Perms: platform.ReadWrite, Populate: true})
		c.store(a, 1)
		m.Munmap(a, 16<<12)
	}
	n := len(m.spares.list)
	for i := range uint64(8) {
		a := mustMap(t, m, MMapOpts{Addr: arena + (8+i)<<20, Length: 16 << 12, Perms: platform.ReadWrite, Populate: true})
		c.store(a, 1)
		m.Munmap(a, 16<<12)
		checkInvariants(t, m)
	}
	if m.spares.credit >= spareCredit {
		t.Errorf("credit %d after spares of no use, %d then %d spares", m.spares.credit, n, len(m.spares.list))
	}
	m.DecUsers()
}

// TestSpareFork: a child has no spares, nor anything where its parent's were.
func TestSpareFork(t *testing.T) {
	m := newMM(t, true)
	m.spares.credit = maxCredit
	c := cpu{t, m}
	a := mustMap(t, m, MMapOpts{Length: 4 << 12, Perms: platform.ReadWrite})
	c.store(a, 1)
	m.Munmap(a, 4<<12)
	if len(m.spares.list) != 1 {
		t.Fatal("no spare")
	}
	child, err := m.Fork(m.limits.Load())
	if err != nil {
		t.Fatal(err)
	}
	checkInvariants(t, m)
	checkInvariants(t, child)
	if n := m.file.Allocated(); n != 0 {
		t.Errorf("%d bytes in use", n)
	}
	child.DecUsers()
	m.DecUsers()
}

// TestSpareHeap: the heap grows again where it shrank; TestSpareExpires: the memory of a process that does nothing goes.
func TestSpareHeap(t *testing.T) {
	m := newMM(t, true)
	m.spares.credit = maxCredit
	c := cpu{t, m}
	m.SetBrk(arena)
	for i := uint64(1); i < 40; i++ {
		end := arena + (i*7%40+1)<<12
		if m.Brk(end) != end {
			t.Fatal("brk")
		}
		if v, err := c.load(end - 4096); i > 1 && end-4096 > arena+40<<12 && v != 0 || err != nil {
			t.Fatal(v, err)
		}
		c.store(end-4096, i)
		checkInvariants(t, m)
		m.Brk(arena + 4096)
		if _, err := c.load(arena + 4096); err == nil {
			t.Fatal("access behind the heap")
		}
		checkInvariants(t, m)
		if m.Brk(end); end > arena+4096 {
			if v, err := c.load(end - 4096); v != 0 || err != nil {
				t.Fatalf("the heap has old contents: %d, %v", v, err)
			}
		}
		checkInvariants(t, m)
	}
}

func TestSpareExpires(t *testing.T) {
	m := newMM(t, true)
	m.spares.credit = maxCredit
	c := cpu{t, m}
	a := mustMap(t, m, MMapOpts{Length: 4 << 12, Perms: platform.ReadWrite})
	c.store(a, 1)
	m.Munmap(a, 4<<12)
	clean := func() bool {
		m.pagesMu.Lock()
		defer m.pagesMu.Unlock()
		return m.spares.list[0].clean
	}
	for i := 0; !clean(); i++ {
		if i > 100 {
			t.Fatal("the memory stays")
		}
		time.Sleep(100 * time.Millisecond)
	}
	if u, _ := m.file.Usage(); u != 0 {
		t.Errorf("%d bytes of host memory", u)
	}
	mustMap(t, m, MMapOpts{Addr: a, Fixed: true, Length: 4 << 12, Perms: platform.ReadWrite})
	if v, err := c.load(a); v != 0 || err != nil {
		t.Fatal(v, err)
	}
	checkInvariants(t, m)
}
