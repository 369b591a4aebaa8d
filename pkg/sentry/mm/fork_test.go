package mm

import (
	"testing"

	"husk/pkg/platform"
	"husk/pkg/sentry/limits"
)

// writable tells whether the platform lets the application write the page at addr.
func (c cpu) writable(addr uint64) bool {
	p, ok := c.as().pages[addr]
	return ok && p.perms&platform.Write != 0
}

// TestForkHot checks that what was written after a fork is copied by the next, and not protected, as long as one thread only can write.
func TestForkHot(t *testing.T) {
	m := newMM(t, true)
	c := cpu{t, m}
	a := mustMap(t, m, MMapOpts{Length: 64 << 12, Perms: platform.ReadWrite})
	hot, cold := a, a+40<<12
	fork := func() *MemoryManager {
		t.Helper()
		n, err := m.Fork(limits.New())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.DecUsers)
		return n
	}
	store := func(m *MemoryManager, addr, v uint64) {
		t.Helper()
		if err := (cpu{t, m}).store(addr, v); err != nil {
			t.Fatal(err)
		}
	}
	load := func(m *MemoryManager, addr, want uint64) {
		t.Helper()
		if v, err := (cpu{t, m}).load(addr); err != nil || v != want {
			t.Fatalf("%d, %v, want %d", v, err, want)
		}
	}
	store(m, hot, 1)
	store(m, cold, 1)
	fork()
	if c.writable(hot) || c.writable(cold) {
		t.Fatal("writable after the first fork")
	}
	store(m, hot, 2)
	child := fork()
	if !c.writable(hot) || c.writable(cold) {
		t.Fatal("hot page protected, or cold one not")
	}
	store(m, hot, 3)
	load(child, hot, 2)
	load(child, cold, 1)
	store(child, hot, 4)
	load(m, hot, 3)
	checkInvariants(t, m)
	checkInvariants(t, child)
	m.IncUsers()
	child = fork()
	if c.writable(hot) {
		t.Fatal("copied while another thread could write")
	}
	m.DecUsers()
	store(m, hot, 5)
	load(child, hot, 3)
	// Once in a while all is copied on write again.
	for range eagerForks {
		fork()
	}
	if c.writable(hot) {
		t.Fatal("still hot")
	}
	load(m, hot, 5)
	m.DecUsers()
}

// TestImage checks that the first access to one part of a library makes the others and the memory behind its data ready.
func TestImage(t *testing.T) {
	m := newMM(t, false)
	c := cpu{t, m}
	f := newHostFile(t, 64<<12)
	part := func(addr, pages, off uint64, perms platform.Perms, fixed bool) uint64 {
		return mustMap(t, m, MMapOpts{Addr: addr, Length: pages << 12, Perms: perms, Fixed: fixed, Mappable: f, File: f, Offset: off << 12,
			Prefault: true, Image: true})
	}
	a := part(0, 30, 0, platform.Read, false)
	part(a+4<<12, 8, 4, platform.Read|platform.Exec, true)
	part(a+20<<12, 4, 20, platform.ReadWrite, true)
	mustMap(t, m, MMapOpts{Addr: a + 24<<12, Length: 6 << 12, Perms: platform.ReadWrite, Fixed: true})
	other := mustMap(t, m, MMapOpts{Addr: a + 30<<12, Length: 6 << 12, Perms: platform.ReadWrite, Fixed: true, Mappable: f, File: f})
	as := c.as()
	if n := len(as.pages); n != 0 {
		t.Fatalf("%d pages mapped before the first access", n)
	}
	before := as.applies
	if _, err := c.load(a + 5<<12); err != nil {
		t.Fatal(err)
	}
	if as.applies != before+1 {
		t.Fatalf("%d batches", as.applies-before)
	}
	for i := range uint64(30) {
		want := platform.Read
		switch {
		case i >= 20:
			want = platform.ReadWrite
		case i >= 4 && i < 12:
			want |= platform.Exec
		}
		if p := as.pages[a+i<<12]; p.perms&want != want {
			t.Fatalf("page %d has %v, want %v", i, p.perms, want)
		}
	}
	if _, ok := as.pages[other]; ok {
		t.Fatal("what is no part was mapped")
	}
	checkInvariants(t, m)
	m.DecUsers()
	if f.refs != 0 {
		t.Fatal(f.refs)
	}
}
