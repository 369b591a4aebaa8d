package mm

import (
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
	"husk/pkg/sentry/limits"
)

func TestReplaceText(t *testing.T) {
	m := newMM(t, true)
	f := newHostFile(t, 2<<12)
	rx := platform.Read | platform.Exec
	text := mustMap(t, m, MMapOpts{Length: 2 << 12, Perms: rx, Mappable: f, File: f})
	same := mustMap(t, m, MMapOpts{Length: 2 << 12, Perms: rx, Mappable: f, File: f})
	shared := mustMap(t, m, MMapOpts{Length: 2 << 12, Perms: rx, Mappable: f, File: f, Shared: true})
	data := mustMap(t, m, MMapOpts{Length: 2 << 12, Perms: platform.ReadWrite | platform.Exec, Mappable: f, File: f})
	read := func(m *MemoryManager, addr uint64) string {
		b := make([]byte, 4)
		if _, err := m.CopyIn(addr, b); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	at := uint64(0x123)
	old := read(m, text+at)
	if err := m.ReplaceText(text+at, []byte(old), []byte("jump")); err != nil {
		t.Fatal(err)
	}
	if got := read(m, text+at); got != "jump" {
		t.Errorf("text is %q", got)
	}
	for _, a := range []uint64{same, shared, data} {
		if got := read(m, a+at); got != old {
			t.Errorf("another mapping sees %q", got)
		}
	}
	c := cpu{t, m}
	if p := c.as().pages[text]; p.perms != rx || p.fd != m.file.FD() {
		t.Errorf("mapped as %+v", p)
	}
	child, err := m.Fork(limits.New())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ReplaceText(text+at, []byte("jump"), []byte("back")); err != nil {
		t.Fatal(err)
	}
	if p, c := read(m, text+at), read(child, text+at); p != "back" || c != "jump" {
		t.Errorf("parent %q, child %q", p, c)
	}
	b := make([]byte, 4)
	for _, bad := range []struct {
		addr uint64
		old  string
	}{{text + at, "jump"}, {shared + at, old}, {data + at, old}, {text + 4094, "\x00\x00\x00\x00"}, {text + 2<<12, old}, {0, old}, {^uint64(0), old}} {
		if err := m.ReplaceText(bad.addr, []byte(bad.old), []byte("fail")); err != unix.EFAULT {
			t.Errorf("%#x: %v", bad.addr, err)
		}
	}
	for _, bad := range []uint64{data, text + 2<<12, text + 2<<12 - 2, 0, ^uint64(0)} {
		if err := m.ReadText(bad, b); err != unix.EFAULT {
			t.Errorf("read at %#x: %v", bad, err)
		}
	}
	if err := m.ReadText(text+at, b); err != nil || string(b) != "back" {
		t.Errorf("%v %q", err, b)
	}
	child.DecUsers()
	checkInvariants(t, m)
}

func TestReserveText(t *testing.T) {
	m := newMM(t, false)
	const at = 0x5000000
	for range 2 {
		if err := m.ReserveText(at, 4096); err != nil {
			t.Fatal(err)
		}
	}
	m.ForEachVMA(0, func(v *VMAInfo) bool {
		if v.Start == at {
			t.Error("the reservation shows")
		}
		return true
	})
	if err := m.Munmap(at, 4096); err == nil {
		t.Error("unmapped")
	}
	if _, err := m.MMap(MMapOpts{Addr: at, Length: 4096, Fixed: true}); err == nil {
		t.Error("mapped over")
	}
	mustMap(t, m, MMapOpts{Addr: at + 4096, Length: 4096, Fixed: true})
	if err := m.ReserveText(at+4096, 4096); err != unix.ENOMEM {
		t.Error(err)
	}
}

// TestReserveTextOverSpare: what the application gave up at a place that is reserved does not unmap later what the platform puts there.
func TestReserveTextOverSpare(t *testing.T) {
	m := newMM(t, true)
	m.spares.credit = maxCredit
	c := cpu{t, m}
	const at, n = 0x5000000, 8 << 12
	a := mustMap(t, m, MMapOpts{Addr: at, Fixed: true, Length: n, Perms: platform.ReadWrite})
	c.store(a, 1)
	if m.Munmap(a, n); len(m.spares.list) != 1 {
		t.Fatalf("spares %+v", m.spares.list)
	}
	if err := m.ReserveText(at+4096, 4096); err != nil {
		t.Fatal(err)
	}
	c.as().apply([]platform.MapOp{{Op: platform.OpMap, Perms: platform.Read, FD: 3, Addr: at + 4096, Length: 4096}})
	mustMap(t, m, MMapOpts{Addr: at, Fixed: true, Length: 4096, Perms: platform.ReadWrite, Populate: true})
	mustMap(t, m, MMapOpts{Addr: at + 8192, Fixed: true, Length: 4096, Perms: platform.Read, Populate: true})
	m.Fork(m.limits.Load())
	if p := c.as().pages[at+4096]; p.fd != 3 {
		t.Errorf("the platform has %+v at the reserved place", p)
	}
}
