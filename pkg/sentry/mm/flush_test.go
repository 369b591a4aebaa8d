package mm

import (
	"testing"

	"husk/pkg/platform"
)

// TestHeld: what a change takes away that the platform has put off is not free before the change is made.
func TestHeld(t *testing.T) {
	m := newMM(t, true)
	c := cpu{t, m}
	used := func() uint64 { return m.file.Allocated() }
	anon := func(n uint64) uint64 {
		a := mustMap(t, m, MMapOpts{Length: n, Perms: platform.ReadWrite, Populate: true})
		if err := c.store(a, 1); err != nil {
			t.Fatal(err)
		}
		return a
	}
	unmap := func(a, n uint64) {
		if err := m.Munmap(a, n); err != nil {
			t.Fatal(err)
		}
	}
	m.spares.none = true // unmap what is given up
	before := used()
	a := anon(8 << 12)
	with := used()
	unmap(a, 8<<12)
	if used() != with || m.heldBytes.Load() != 8<<12 {
		t.Fatalf("the unmapped pages are free before the platform unmapped them: %d of %d, %d held", used(), with, m.heldBytes.Load())
	}
	c.as() // the application runs on
	a = anon(1 << 12)
	unmap(a, 1<<12)
	if m.heldBytes.Load() != 1<<12 {
		t.Fatalf("%d bytes held, want a page", m.heldBytes.Load())
	}

	m.Rest() // not yet
	if m.heldBytes.Load() != 1<<12 {
		t.Fatal("dropped before the change was made")
	}
	c.as()
	m.Rest()
	if used() != before || m.heldBytes.Load() != 0 {
		t.Fatalf("%d bytes held by a process that rests, %d in use, want %d", m.heldBytes.Load(), used(), before)
	}

	// Much is not held, and nothing that others wait for.
	a = anon(heldMax + 4096)
	unmap(a, heldMax+4096)
	if used() != before || m.heldBytes.Load() != 0 {
		t.Fatalf("%d bytes held, %d in use, want %d", m.heldBytes.Load(), used(), before)
	}
	a = anon(4 << 12)
	unmap(a, 4<<12)
	m.pagesMu.Lock()
	m.flushNow()
	m.pagesMu.Unlock()
	if used() != before {
		t.Fatalf("%d in use, want %d", used(), before)
	}
	checkInvariants(t, m)
}

// orderedFile notes what the platform had put off when the last mapping let go of the file.
type orderedFile struct {
	*hostFile
	as     *fakeAS
	queued int
}

func (f *orderedFile) DecRef() {
	f.hostFile.DecRef()
	f.queued = len(f.as.queue)
}

// TestHeldFile: a file is not closed while a change names its descriptor.
func TestHeldFile(t *testing.T) {
	m := newMM(t, true)
	c := cpu{t, m}
	f := &orderedFile{hostFile: newHostFile(t, 4<<12), as: c.as(), queued: -1}
	a := mustMap(t, m, MMapOpts{Length: 4 << 12, Perms: platform.Read, Mappable: f, File: f, Shared: true})
	if err := m.HandleFault(a, platform.Read); err != nil {
		t.Fatal(err)
	}
	if len(f.as.queue) == 0 {
		t.Fatal("the map was not put off")
	}
	if err := m.Munmap(a, 4<<12); err != nil {
		t.Fatal(err)
	}
	if f.refs != 0 || f.queued != 0 {
		t.Fatalf("%d references, %d changes put off when the file was let go", f.refs, f.queued)
	}

	// A truncation takes pages from all processes at once.
	a = mustMap(t, m, MMapOpts{Length: 4 << 12, Perms: platform.Read, Mappable: f, File: f, Shared: true})
	if _, err := c.load(a); err != nil {
		t.Fatal(err)
	}
	f.set.Invalidate(f, 0, 0, true)
	f.as.mu.Lock()
	defer f.as.mu.Unlock()
	if len(f.as.queue) != 0 || len(f.as.pages) != 0 {
		t.Fatalf("%d changes put off, %d pages left", len(f.as.queue), len(f.as.pages))
	}
}

// TestHeldWrite: a file that seems not to be writable by a mapping any more is not, though the platform puts changes off.
func TestHeldWrite(t *testing.T) {
	m := newMM(t, true)
	c := cpu{t, m}
	f := newHostFile(t, 4<<12)
	o := MMapOpts{Length: 4 << 12, Perms: platform.ReadWrite, Mappable: f, File: f, Shared: true}
	for _, give := range []func(a uint64){
		func(a uint64) { m.Munmap(a, o.Length) },
		func(a uint64) { mustMap(t, m, MMapOpts{Addr: a, Fixed: true, Length: o.Length, Perms: platform.Read}) },
		func(a uint64) { m.Mremap(a, o.Length, 4096, 0, 0); m.Munmap(a, 4096) },
	} {
		o.Shared = false
		keep := mustMap(t, m, o) // so that the file stays in use
		o.Shared = true
		a := mustMap(t, m, o)
		if err := c.store(a, 1); err != nil {
			t.Fatal(err)
		}
		if !f.set.MappedWritable() {
			t.Fatal("not writable")
		}
		give(a)
		as := c.unwrap(m.as)
		if p, ok := as.pages[a]; f.set.MappedWritable() || ok && p.fd == f.fd {
			t.Errorf("writable %v, the platform has %+v", f.set.MappedWritable(), p)
		}
		m.Munmap(keep, o.Length)
	}
	if f.refs != 0 || f.set.writable != 0 {
		t.Errorf("%d references, %d bytes writable", f.refs, f.set.writable)
	}
}

// TestRefused: pages that the host would not unmap are nobody else's before the process has ended.
func TestRefused(t *testing.T) {
	for _, fork := range []bool{true, false} {
		m := newMM(t, fork)
		c := cpu{t, m}
		a := mustMap(t, m, MMapOpts{Length: 8 << 12, Perms: platform.ReadWrite, Populate: true})
		if err := c.store(a, 1); err != nil {
			t.Fatal(err)
		}
		used := m.file.Allocated()
		c.as().refuse = true
		m.Munmap(a, 8<<12)
		c.as().refuse = false
		b := mustMap(t, m, MMapOpts{Length: 8 << 12, Perms: platform.ReadWrite, Populate: true})
		if err := c.store(b, 1); err != nil {
			t.Fatal(err)
		}
		m.Rest()
		if n := m.file.Allocated(); n != 2*used {
			t.Errorf("%d bytes in use, want %d: what is still mapped was given away", n, 2*used)
		}
		f := m.file
		m.DecUsers()
		if n := f.Allocated(); n != 0 {
			t.Errorf("%d bytes leaked", n)
		}
	}
}
