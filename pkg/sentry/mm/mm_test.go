package mm

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
	"husk/pkg/sentry/limits"
)

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's hooks in x/sys make buffers escape")
	}
	m := newMM(t, true)
	a := mustMap(t, m, MMapOpts{Length: 64 << 20, Perms: platform.ReadWrite})
	cpu{t, m}.store(a, 1)
	var buf [4096]byte
	seq := m.Seq(a+100, 4096)
	vec := m.SeqOf([]AddrRange{{a, 100}, {a + 5000, 3000}})
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"CopyIn", func() { m.CopyIn(a+10, buf[:]) }},
		{"CopyOut", func() { m.CopyOut(a+10, buf[:]) }},
		{"ReadUint64", func() { m.ReadUint64(a + 8) }},
		{"WriteUint32", func() { m.WriteUint32(a+8, 1) }},
		{"LoadUint32", func() { m.LoadUint32(a + 8) }},
		{"CompareAndSwap", func() { m.CompareAndSwapUint32(a+8, 1, 2) }},
		{"FutexKey", func() {
			k, _ := m.FutexKey(a+8, false)
			k.Hash()
		}},
		{"IOSeq", func() {
			seq.DropFirst(10).CopyIn(buf[:])
			vec.CopyOut(buf[:])
			vec.CopyOutFrom(func(b []byte) (int, error) { return copy(b, buf[:]), nil })
		}},
		{"BytesSeq", func() { BytesSeq(buf[:]).CopyOut(buf[:10]) }},
		{"spurious fault", func() { m.HandleFault(a, platform.Read) }},
	} {
		if n := testing.AllocsPerRun(100, c.f); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
	// Faults in fresh memory and copy-on-write.
	i := uint64(0)
	if n := testing.AllocsPerRun(100, func() {
		i++
		m.HandleFault(a+i<<12, platform.Write)
	}); n != 0 {
		t.Errorf("fault: %v allocations", n)
	}
}

func TestCopyAcrossMappings(t *testing.T) {
	m := newMM(t, false)
	f := newHostFile(t, 3*4096+100)
	a := mustMap(t, m, MMapOpts{Length: 20 << 12, Perms: platform.ReadWrite})
	mustMap(t, m, MMapOpts{Addr: a + 4<<12, Length: 4 << 12, Fixed: true, Perms: platform.ReadWrite, Shared: true, Mappable: f, File: f})
	want := make([]byte, 20<<12)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	if n, err := m.CopyOut(a, want); n != len(want) || err != nil {
		// All pages of the file exist, the last partially.
		t.Fatal(n, err)
	}
	clear(want[4<<12+3*4096+100 : 8<<12]) // bytes behind the end of the file are lost
	got := make([]byte, len(want))
	if n, err := m.CopyIn(a, got); n != len(got) || err != nil {
		t.Fatal(n, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("differs")
	}
	var st unix.Stat_t
	unix.Fstat(f.fd, &st)
	if st.Size != 3*4096+100 {
		t.Fatalf("the file has grown to %d", st.Size)
	}
	// The host truncates the file: an error, not a crash.
	unix.Ftruncate(f.fd, 4096)
	if n, err := m.CopyIn(a, got); n != 5<<12 || err != unix.EFAULT {
		t.Fatal(n, err)
	}
	if _, err := m.LoadUint32(a + 6<<12); err != unix.EFAULT {
		t.Fatal(err)
	}
	if v, err := m.CompareAndSwapUint32(a+4<<12, 0, 1); err != nil {
		t.Fatal(v, err)
	}
	checkInvariants(t, m)
}

func TestFaultCodes(t *testing.T) {
	m := newMM(t, false)
	f := newHostFile(t, 4096)
	a := mustMap(t, m, MMapOpts{Length: 4 << 12, Perms: platform.Read})
	mustMap(t, m, MMapOpts{Addr: a + 1<<12, Length: 1 << 12, Fixed: true})
	mustMap(t, m, MMapOpts{Addr: a + 2<<12, Length: 2 << 12, Fixed: true, Perms: platform.ReadWrite, Mappable: f, File: f})
	for _, c := range []struct {
		addr   uint64
		access platform.Perms
		want   error
	}{
		{a, platform.Read, nil}, {a, platform.Write, ErrAccess}, {a, platform.Exec, ErrAccess}, {a + 1<<12, platform.Read, ErrAccess},
		{a - 1, platform.Read, ErrMap}, {0, platform.Read, ErrMap}, {1 << 63, platform.Read, ErrMap}, {^uint64(0), platform.Write, ErrMap},
		{a + 2<<12, platform.Write, nil}, {a + 3<<12, platform.Read, ErrBus}, {a + 3<<12, platform.Write, ErrBus},
	} {
		if err := m.HandleFault(c.addr, c.access); err != c.want {
			t.Errorf("fault at %#x (%v): %v, want %v", c.addr, c.access, err, c.want)
		}
	}
	if _, err := m.CopyIn(^uint64(0)-10, make([]byte, 100)); err != unix.EFAULT {
		t.Error(err)
	}
}

func TestUnknownAccess(t *testing.T) {
	m := newMM(t, true)
	a := mustMap(t, m, MMapOpts{Length: 4096, Perms: platform.ReadWrite})
	c := cpu{t, m}
	c.store(a, 1)
	child, _ := m.Fork(limits.New())
	cc := cpu{t, child}
	for range 2 {
		if err := child.HandleFault(a, platform.None); err != nil {
			t.Fatal(err)
		}
	}
	if cc.as().pages[a].perms&platform.Write == 0 {
		t.Fatal("still not writable")
	}
}

func TestForkCopiesOnce(t *testing.T) {
	m := newMM(t, true)
	a := mustMap(t, m, MMapOpts{Length: 1 << 20, Perms: platform.ReadWrite})
	c := cpu{t, m}
	for i := range uint64(256) {
		c.store(a+i<<12, i)
	}
	child, err := m.Fork(limits.New())
	if err != nil {
		t.Fatal(err)
	}
	cc := cpu{t, child}
	before := child.MinorFaults()
	for i := range uint64(256) {
		cc.store(a+i<<12, i+1000)
	}
	if n := child.MinorFaults() - before; n > 17 {
		t.Errorf("%d faults for 1 MiB, want one for 64 KiB", n)
	}
	for i := range uint64(256) {
		if v, _ := c.load(a + i<<12); v != i {
			t.Fatalf("the parent sees %d", v)
		}
	}
	child.DecUsers()
	before = m.MinorFaults()
	for i := range uint64(256) {
		c.store(a+i<<12, i+2000)
	}
	if n := m.MinorFaults() - before; n != 1 {
		t.Errorf("%d faults to get all pages back, want 1", n)
	}
	checkInvariants(t, m)
}

func TestStackGrowth(t *testing.T) {
	m := newMM(t, false)
	l := limits.New()
	l.Replace(unix.RLIMIT_STACK, limits.Limit{Cur: 1 << 20, Max: 1 << 20}, true)
	m.SetLimits(l)
	top := uint64(0x7ffffffff000) - 1<<20
	mustMap(t, m, MMapOpts{Addr: top - 8192, Length: 8192, Fixed: true, Perms: platform.ReadWrite, Stack: true})
	c := cpu{t, m}
	if err := c.store(top-100000, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.store(top-1<<20+64, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.store(top-1<<20-64, 1); err != ErrMap {
		t.Fatalf("behind the limit: %v", err)
	}
	n := 0
	m.ForEachVMA(0, func(v *VMAInfo) bool {
		if v.Name == "[stack]" {
			n++
		}
		return true
	})
	if n != 1 {
		t.Fatalf("%d stacks", n)
	}
	checkInvariants(t, m)
}

func TestInvalidate(t *testing.T) {
	m := newMM(t, true)
	f := newHostFile(t, 8<<12)
	a := mustMap(t, m, MMapOpts{Length: 8 << 12, Perms: platform.ReadWrite, Mappable: f, File: f})
	c := cpu{t, m}
	c.store(a+6<<12, 1)
	c.load(a)
	f.size = 4 << 12
	f.set.Invalidate(f, 4<<12, 0, true)
	if err := c.store(a+6<<12, 1); err != ErrBus {
		t.Fatal(err)
	}
	if _, err := c.load(a + 3<<12); err != nil {
		t.Fatal(err)
	}
	checkInvariants(t, m)
}

func TestSharedMemory(t *testing.T) {
	m := newMM(t, true)
	a := mustMap(t, m, MMapOpts{Length: 8 << 12, Perms: platform.ReadWrite, Shared: true})
	b, _ := m.Fork(limits.New())
	cpu{t, m}.store(a+4096, 42)
	if v, err := (cpu{t, b}).load(a + 4096); v != 42 || err != nil {
		t.Fatal(v, err)
	}
	k1, _ := m.FutexKey(a+4096, false)
	k2, _ := b.FutexKey(a+4096, false)
	if k1 != k2 || k1.Hash() != k2.Hash() {
		t.Fatal("keys differ")
	}
	p1, _ := m.FutexKey(a+4096, true)
	p2, _ := b.FutexKey(a+4096, true)
	if p1 == p2 {
		t.Fatal("private keys are the same")
	}
	if err := m.Madvise(a, 8<<12, unix.MADV_REMOVE); err != nil {
		t.Fatal(err)
	}
	if v, err := (cpu{t, b}).load(a + 4096); v != 0 || err != nil {
		t.Fatal(v, err)
	}
	f := m.File()
	m.DecUsers()
	b.DecUsers()
	if n := f.Allocated(); n != 0 {
		t.Fatalf("%d bytes leaked", n)
	}
}

func TestBrkAndStrings(t *testing.T) {
	m := newMM(t, false)
	m.SetBrk(0x555555000123)
	if b := m.Brk(0); b != 0x555555000123 {
		t.Fatalf("%#x", b)
	}
	if b := m.Brk(0x555555100000); b != 0x555555100000 {
		t.Fatalf("%#x", b)
	}
	s := bytes.Repeat([]byte("x"), 5000)
	m.CopyOut(0x555555001ff0, append(s, 0))
	if got, err := m.CopyInString(0x555555001ff0, 10000); err != nil || got != string(s) {
		t.Fatal(len(got), err)
	}
	if _, err := m.CopyInString(0x555555001ff0, 5000); err != unix.ENAMETOOLONG {
		t.Fatal(err)
	}
	m.CopyOut(0x5555550ffffe, []byte("ab"))
	if _, err := m.CopyInString(0x5555550ffffe, 100); err != unix.EFAULT {
		t.Fatal(err)
	}
	m.CopyOut(0x5555550ffffd, []byte("ab\x00"))
	if got, err := m.CopyInString(0x5555550ffffd, 100); err != nil || got != "ab" {
		t.Fatal(got, err)
	}
	if b := m.Brk(0x555555000123); b != 0x555555000123 {
		t.Fatalf("%#x", b)
	}
	if _, err := m.ReadUint32(0x555555002000); err != unix.EFAULT {
		t.Fatal(err)
	}
}

func TestLimits(t *testing.T) {
	m := newMM(t, false)
	l := limits.New()
	l.Replace(unix.RLIMIT_AS, limits.Limit{Cur: 1 << 20, Max: 1 << 20}, true)
	m.SetLimits(l)
	if _, err := m.MMap(MMapOpts{Length: 2 << 20}); err != unix.ENOMEM {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    MMapOpts
		want error
	}{
		{MMapOpts{}, unix.EINVAL}, {MMapOpts{Length: ^uint64(0)}, unix.ENOMEM}, {MMapOpts{Length: 1 << 47}, unix.ENOMEM},
		{MMapOpts{Addr: 1, Fixed: true, Length: 4096}, unix.EINVAL}, {MMapOpts{Addr: 4096, Fixed: true, Length: 4096}, unix.EPERM},
		{MMapOpts{Addr: 1<<47 - 4096, Fixed: true, Length: 8192}, unix.ENOMEM}, {MMapOpts{Length: 4096, Offset: 1}, unix.EINVAL},
		{MMapOpts{Length: 8192, Offset: ^uint64(4095)}, unix.EOVERFLOW}, {MMapOpts{Addr: 0x7fff00000000, Fixed: true, Length: 4096}, unix.EPERM},
		{MMapOpts{Addr: 0x7fff00000000, Fixed: true, NoReplace: true, Length: 4096}, unix.EEXIST},
	} {
		if _, err := m.MMap(c.o); err != c.want {
			t.Errorf("MMap(%+v): %v, want %v", c.o, err, c.want)
		}
	}
	a := mustMap(t, m, MMapOpts{Length: 4096, Low32: true})
	if a >= 1<<31 {
		t.Errorf("MAP_32BIT at %#x", a)
	}
}

func TestMaxMaps(t *testing.T) {
	m := newMM(t, false)
	m.maxMaps = 100
	a := mustMap(t, m, MMapOpts{Length: 1000 << 12, Perms: platform.Read})
	var err error
	for i := uint64(0); i < 1000 && err == nil; i += 2 {
		err = m.Mprotect(a+i<<12, 4096, platform.ReadWrite, 0)
	}
	if err != unix.ENOMEM || m.vmas.Count() > 100 {
		t.Fatal(err, m.vmas.Count())
	}
}

// TestConcurrent has threads of two processes work on the same memory, for the race detector and the checks of the fake platform.
func TestConcurrent(t *testing.T) {
	m := newMM(t, true)
	const base, n = uint64(0x20000000), 64
	f := newHostFile(t, n<<12)
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(g), 3))
			var buf [9000]byte
			for range 600 {
				a, k := base+r.Uint64N(n)<<12, 1+r.Uint64N(16)
				switch r.IntN(10) {
				case 0:
					o := MMapOpts{Addr: a, Length: k << 12, Fixed: true, Perms: platform.ReadWrite, Shared: r.IntN(2) == 0}
					if r.IntN(2) == 0 {
						o.Mappable = f
					}
					m.MMap(o)
				case 1:
					m.Munmap(a, k<<12)
				case 2:
					m.Mprotect(a, k<<12, platform.Perms(r.IntN(4)), 0)
				case 3:
					if c, err := m.Fork(limits.New()); err == nil {
						c.CopyOut(a, buf[:])
						c.DecUsers()
					} else {
						t.Error(err)
					}
				case 4:
					m.Madvise(a, k<<12, unix.MADV_DONTNEED)
				case 5:
					m.Mremap(a, k<<12, k<<12, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, base+r.Uint64N(n)<<12)
				case 6:
					f.set.Invalidate(f, 0, 0, false)
				case 7:
					m.HandleFault(a, platform.Write)
				case 8:
					m.CopyIn(a, buf[:])
				case 9:
					m.Seq(a, k<<12).CopyOutFrom(func(b []byte) (int, error) { return len(b), nil })
				}
			}
		}()
	}
	wg.Wait()
	checkInvariants(t, m)
	file := m.File()
	m.DecUsers()
	if a := file.Allocated(); a != 0 {
		t.Fatalf("%d bytes leaked", a)
	}
}

func BenchmarkCopyIn4K(b *testing.B) {
	m := newMM(b, true)
	a := mustMap(b, m, MMapOpts{Length: 1 << 20, Perms: platform.ReadWrite})
	var buf [4096]byte
	m.CopyOut(a, buf[:])
	for range b.N {
		m.CopyIn(a, buf[:])
	}
}

func BenchmarkReadUint32(b *testing.B) {
	m := newMM(b, true)
	a := mustMap(b, m, MMapOpts{Length: 1 << 20, Perms: platform.ReadWrite})
	m.WriteUint32(a, 1)
	for range b.N {
		m.ReadUint32(a)
	}
}

func BenchmarkMmapMunmap(b *testing.B) {
	m := newMM(b, true)
	for range b.N {
		a, _ := m.MMap(MMapOpts{Length: 64 << 10, Perms: platform.ReadWrite})
		m.Munmap(a, 64<<10)
	}
}

func BenchmarkForkExit(b *testing.B) {
	m := newMM(b, true)
	for range 50 {
		a := mustMap(b, m, MMapOpts{Length: 64 << 10, Perms: platform.ReadWrite})
		m.WriteUint32(a, 1)
		mustMap(b, m, MMapOpts{Addr: a - 4096, Length: 4096, Fixed: true})
	}
	for range b.N {
		c, _ := m.Fork(limits.New())
		c.DecUsers()
	}
}

// TestUntil: long copies end when whoever waits for them is to exit, short ones do not.
func TestUntil(t *testing.T) {
	m := newMM(t, false)
	const n = 16 << 20
	a := mustMap(t, m, MMapOpts{Length: n, Perms: platform.ReadWrite})
	var stop atomic.Bool
	stop.Store(true)
	s := m.Seq(a, n).Until(&stop)
	all := func(b []byte) (int, error) { return len(b), nil }
	early := func(k int64) bool { return k >= LongCopy && k < 2*LongCopy }
	if k, err := s.CopyOutFrom(all); !early(k) || err != unix.EFAULT {
		t.Errorf("%d bytes, %v", k, err)
	}
	if k, err := s.CopyInTo(all); !early(k) || err != unix.EFAULT {
		t.Errorf("%d bytes, %v", k, err)
	}
	if k, err := s.ZeroOut(n); !early(k) || err != unix.EFAULT {
		t.Errorf("%d bytes, %v", k, err)
	}
	if k, err := s.TakeFirst(LongCopy).CopyOutFrom(all); k != LongCopy || err != nil {
		t.Errorf("%d bytes, %v", k, err)
	}
	stop.Store(false)
	if k, err := s.CopyOutFrom(all); k != n || err != nil {
		t.Errorf("%d bytes, %v", k, err)
	}
}
