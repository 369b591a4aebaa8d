package mm

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/memfile"
)

// fakePlatform keeps page tables instead of running anything.
type fakePlatform struct {
	fork bool // address spaces are forkingAS
}

type fakePage struct {
	fd    int
	off   uint64
	perms platform.Perms
}

type fakeAS struct {
	mu      sync.Mutex
	pages   map[uint64]fakePage
	applies int
	dead    bool
	refuse  bool             // changes fail
	queue   []platform.MapOp // put off
	posts   uint64           // times that the queue was executed
}

// forkingAS implements platform.Forker and platform.Deferrer.
type forkingAS struct{ *fakeAS }

func (p *fakePlatform) NewAddressSpace() (platform.AddressSpace, error) {
	as := &fakeAS{pages: map[uint64]fakePage{}}
	if p.fork {
		return forkingAS{as}, nil
	}
	return as, nil
}

func (p *fakePlatform) NewContext() platform.Context { return nil }
func (p *fakePlatform) FPStateSize() int             { return 512 }
func (p *fakePlatform) UserRange() (uint64, uint64)  { return 4096, 1<<47 - 4096 }
func (p *fakePlatform) VDSO() (base, size, ehdr uint64) {
	return 0x7fff00000000, 0x6000, 0x7fff00004000
}
func (p *fakePlatform) Release() {}

func (a *fakeAS) Apply(ops []platform.MapOp) error {
	if a.refuse {
		return unix.ENOMEM
	}
	a.enter()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.apply(ops)
	return nil
}

// enter is what happens when a context enters the address space.
func (a *fakeAS) enter() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) > 0 {
		a.apply(a.queue)
		a.queue = a.queue[:0]
		a.posts++
	}
}

func (a forkingAS) Defer(ops []platform.MapOp) (uint64, error) {
	if a.refuse {
		return a.Done(), unix.ENOMEM
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = append(a.queue, ops...)
	return a.posts + 1, nil
}

func (a forkingAS) Done() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.posts
}

func (a forkingAS) Settle() error {
	a.enter()
	return nil
}

func (a *fakeAS) apply(ops []platform.MapOp) {
	a.applies++
	if a.dead {
		panic("used after release")
	}
	for _, op := range ops {
		if op.Addr&4095 != 0 || op.Length&4095 != 0 || op.Length == 0 || op.Offset&4095 != 0 || op.Addr+op.Length < op.Addr {
			panic(fmt.Sprintf("bad operation %+v", op))
		}
		if op.Length > 1<<30 { // an unmap of a sparse range
			for k := range a.pages {
				if k >= op.Addr && k < op.Addr+op.Length {
					delete(a.pages, k)
				}
			}
			continue
		}
		for i := uint64(0); i < op.Length; i += 4096 {
			switch op.Op {
			case platform.OpMap:
				a.pages[op.Addr+i] = fakePage{op.FD, op.Offset + i, op.Perms}
			case platform.OpUnmap:
				delete(a.pages, op.Addr+i)
			case platform.OpProtect:
				p, ok := a.pages[op.Addr+i]
				if !ok {
					panic(fmt.Sprintf("protection of what is not mapped: %+v", op))
				}
				p.perms = op.Perms
				a.pages[op.Addr+i] = p
			}
		}
	}
}

func (a *fakeAS) Release() { a.dead = true }

func (a forkingAS) Fork(own, changes []platform.MapOp) (platform.AddressSpace, error) {
	a.Apply(own)
	a.mu.Lock()
	defer a.mu.Unlock()
	c := &fakeAS{pages: make(map[uint64]fakePage, len(a.pages))}
	for k, v := range a.pages {
		c.pages[k] = v
	}
	c.Apply(changes)
	return forkingAS{c}, nil
}

// cpu makes accesses as the application would.
type cpu struct {
	t testing.TB
	m *MemoryManager
}

func (c cpu) as() *fakeAS {
	as, err := c.m.AddressSpace()
	if err != nil {
		c.t.Fatal(err)
	}
	f := c.unwrap(as)
	f.enter()
	return f
}

// page gives the page at addr for an access, after faults if needed.
func (c cpu) page(addr uint64, access platform.Perms) (fakePage, error) {
	as := c.as()
	for range 10 {
		as.mu.Lock()
		p, ok := as.pages[addr&^4095]
		as.mu.Unlock()
		if ok && p.perms&access == access {
			return p, nil
		}
		if err := c.m.HandleFault(addr, access); err != nil {
			return fakePage{}, err
		}
		as.enter()
	}
	c.t.Fatalf("faults at %#x (%v) without end", addr, access)
	return fakePage{}, nil
}

func (c cpu) load(addr uint64) (uint64, error) {
	p, err := c.page(addr, platform.Read)
	if err != nil {
		return 0, err
	}
	var b [8]byte
	if p.fd == c.m.file.FD() {
		copy(b[:], c.m.file.Slice(p.off+addr&4095, 8))
	} else if n, _ := unix.Pread(p.fd, b[:], int64(p.off+addr&4095)); n < 8 {
		return 0, ErrBus
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

func (c cpu) store(addr, v uint64) error {
	p, err := c.page(addr, platform.Write)
	if err != nil {
		return err
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	if p.fd == c.m.file.FD() {
		copy(c.m.file.Slice(p.off+addr&4095, 8), b[:])
	} else if n, _ := unix.Pwrite(p.fd, b[:], int64(p.off+addr&4095)); n < 8 {
		return ErrBus
	}
	return nil
}

// hostFile is a Mappable and MappedFile over a host file.
type hostFile struct {
	fd   int
	size uint64
	refs int
	set  MappingSet
}

func (f *hostFile) MappingSet() *MappingSet       { return &f.set }
func (f *hostFile) IncRef()                       { f.refs++ }
func (f *hostFile) DecRef()                       { f.refs-- }
func (f *hostFile) MappedName() string            { return "/file" }
func (f *hostFile) MappedInfo() (dev, ino uint64) { return 1, 2 }
func (f *hostFile) Translate(start, end, at uint64, write bool) (Translation, error) {
	if at >= f.size {
		return Translation{}, ErrBus
	}
	return Translation{Start: start, End: min(end, (f.size+4095)&^4095), HostFD: f.fd, Offset: start, Perms: allPerms}, nil
}

func newHostFile(t testing.TB, size int) *hostFile {
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	unix.Ftruncate(fd, int64(size))
	return &hostFile{fd: fd, size: uint64(size)}
}

func newFile(t testing.TB) *memfile.File {
	f, err := memfile.New(memfile.Options{Size: 1 << 36})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func newMM(t testing.TB, fork bool) *MemoryManager {
	f := newFile(t)
	m := New(&fakePlatform{fork: fork}, f, limits.New())
	t.Cleanup(func() { // before f is closed
		m.pagesMu.Lock()
		defer m.pagesMu.Unlock()
		m.stopExpiry()
	})
	return m
}

func mustMap(t testing.TB, m *MemoryManager, o MMapOpts) uint64 {
	t.Helper()
	a, err := m.MMap(o)
	if err != nil {
		t.Fatalf("MMap(%+v): %v", o, err)
	}
	return a
}

// checkInvariants checks what must hold between mappings, pages and the platform.
func checkInvariants(t testing.TB, m *MemoryManager) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pagesMu.Lock()
	defer m.pagesMu.Unlock()
	if len(m.ops) != 0 || len(m.drops) != 0 {
		t.Fatal("operations left over")
	}
	var sum accounts
	old := m.stats
	m.stats = accounts{}
	for p := m.vmas.First(); m.vmas.Valid(p); p = m.vmas.Next(p) {
		s := m.vmas.At(p)
		m.account(&s.Val, s.Len())
	}
	sum, m.stats = m.stats, old
	sum.peak = old.peak
	if sum != old {
		t.Fatalf("accounts are %+v, want %+v", old, sum)
	}
	for p := m.pages.First(); m.pages.Valid(p); p = m.pages.Next(p) {
		s := m.pages.At(p)
		for a := s.Start; a < s.End; {
			q, ok := m.vmas.Find(a)
			if !ok {
				t.Fatalf("page at %#x without mapping", a)
			}
			v := m.vmas.At(q)
			if s.Val.perms != v.Val.perms {
				t.Fatalf("page at %#x has protection %v, its mapping %v", a, s.Val.perms, v.Val.perms)
			}
			a = v.End
		}
	}
	var spared uint64
	for _, s := range m.spares.list {
		spared += s.end - s.start
		if q := m.pages.Seek(s.start); m.pages.Valid(q) && m.pages.At(q).Start < s.end && m.pages.At(q).Val.has(pageMapped) {
			t.Fatalf("the spare %+v has pages %+v", s, *m.pages.At(q))
		}
		if m.file.Exclusive(s.off, s.end-s.start) != s.end-s.start {
			t.Fatalf("the spare %+v is not the process's own", s)
		}
	}
	if spared != m.spares.bytes || spared > spareMax || len(m.spares.list) > spareCount+2 {
		t.Fatalf("%d bytes spared, said %d, in %d parts", spared, m.spares.bytes, len(m.spares.list))
	}
	if m.as == nil {
		return
	}
	as := cpu{t, nil}.unwrap(m.as)
	as.enter()
	as.mu.Lock()
	defer as.mu.Unlock()
	for a, pg := range as.pages {
		q, ok := m.pages.Find(a)
		if i := m.spareAt(a); i >= 0 && (!ok || !m.pages.At(q).Val.has(pageMapped)) {
			s := &m.spares.list[i]
			if pg.fd != m.file.FD() || s.off+a-s.start != pg.off || pg.perms != platform.None {
				t.Fatalf("the platform has %#x as %+v, the spare is %+v", a, pg, *s)
			}
			continue
		}
		if !ok {
			t.Fatalf("the platform has %#x, mm not", a)
		}
		s := m.pages.At(q)
		fd := int(s.Val.fd)
		if fd == MemoryFile {
			fd = m.file.FD()
		}
		if !s.Val.has(pageMapped) || fd != pg.fd || s.Val.off+a-s.Start != pg.off || pg.perms&^s.Val.effective() != 0 {
			t.Fatalf("the platform has %#x as %+v, mm as %+v", a, pg, *s)
		}
	}
}

func (cpu) unwrap(as platform.AddressSpace) *fakeAS {
	if f, ok := as.(forkingAS); ok {
		return f.fakeAS
	}
	return as.(*fakeAS)
}
