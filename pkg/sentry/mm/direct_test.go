package mm

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"husk/pkg/platform"
	"husk/pkg/sentry/limits"
)

func TestCopyResident(t *testing.T) {
	m, o := newMM(t, true), newMM(t, true)
	a := mustMap(t, m, MMapOpts{Length: 64 << 12, Perms: platform.ReadWrite})
	b := mustMap(t, o, MMapOpts{Length: 64 << 12, Perms: platform.ReadWrite})
	want := make([]byte, 20000)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	m.CopyOut(a+100, want)
	src := m.SeqOf([]AddrRange{{a + 100, 5}, {a, 0}, {a + 105, 15000}, {a + 15105, 4995}})
	if CopyResident(o.Seq(b+10, 20000), src, 20000) {
		t.Fatal("copied to pages that are not there")
	}
	cpu{t, o}.store(b, 1)
	dst := o.SeqOf([]AddrRange{{b + 10, 4097}, {b + 5000, 30000}})
	if !CopyResident(dst, src, 20000) {
		t.Fatal("not copied")
	}
	got := make([]byte, 20000)
	dst.CopyIn(got)
	if !bytes.Equal(got, want) {
		t.Fatal("wrong data")
	}
	if !CopyResident(m.Seq(a+20100, 20000), src, 20000) { // within an address space
		t.Fatal("not copied")
	}
	if CopyResident(dst, src, 20001) || CopyResident(o.Seq(^uint64(0)-5, 10), src, 10) || CopyResident(dst, m.Seq(1<<46, 10), 10) {
		t.Fatal("copied what is not there")
	}
	if n := testing.AllocsPerRun(100, func() { CopyResident(dst, src, 20000) }); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
	// What a child shares is not written to.
	child, err := o.Fork(limits.New())
	if err != nil {
		t.Fatal(err)
	}
	old := o.Seq(b+10, 10)
	if CopyResident(child.Seq(b+10, 10), m.Seq(a, 10), 10) {
		var x [10]byte
		if old.CopyIn(x[:]); !bytes.Equal(x[:], want[:10]) {
			t.Fatal("the parent's memory was changed")
		}
	}
	o.Mprotect(b, 4096, platform.Read, 0)
	if CopyResident(old, src, 10) {
		t.Fatal("copied to memory that is read-only")
	}
	o.Munmap(b, 4096)
	if CopyResident(old, src, 10) {
		t.Fatal("copied to memory that is gone")
	}
}

// Copies both ways beside changes of both address spaces end.
func TestCopyResidentBothWays(t *testing.T) {
	m, o := newMM(t, false), newMM(t, false)
	a := mustMap(t, m, MMapOpts{Length: 64 << 12, Perms: platform.ReadWrite})
	b := mustMap(t, o, MMapOpts{Length: 64 << 12, Perms: platform.ReadWrite})
	m.CopyOut(a, make([]byte, 64<<12))
	o.CopyOut(b, make([]byte, 64<<12))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			x, y := m.Seq(a, 10000), o.Seq(b, 10000)
			if i&1 != 0 {
				x, y = y, x
			}
			for range 3000 {
				CopyResident(x, y, 10000)
			}
		})
	}
	for _, x := range []*MemoryManager{m, o} {
		wg.Go(func() {
			for range 1000 {
				p := mustMap(t, x, MMapOpts{Length: 4096, Perms: platform.ReadWrite})
				x.CopyOut(p, []byte{1})
				x.Munmap(p, 4096)
			}
		})
	}
	wg.Wait()
}

// What keeps an address space busy does not keep who copies from it or to it.
func TestCopyResidentBusy(t *testing.T) {
	m, o := newMM(t, false), newMM(t, false)
	a := mustMap(t, m, MMapOpts{Length: 4096, Perms: platform.ReadWrite})
	b := mustMap(t, o, MMapOpts{Length: 4096, Perms: platform.ReadWrite})
	m.CopyOut(a, make([]byte, 4096))
	o.CopyOut(b, make([]byte, 4096))
	m.pagesMu.Lock()
	defer m.pagesMu.Unlock()
	if CopyResident(o.Seq(b, 10), m.Seq(a, 10), 10) || CopyResident(m.Seq(a, 10), o.Seq(b, 10), 10) || CopyResident(m.Seq(a, 10), m.Seq(a+100, 10), 10) {
		t.Error("copied though the address space changes")
	}
}
