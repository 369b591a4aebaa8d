package mm

import (
	"testing"

	"husk/pkg/platform"
)

// TestHotPages has pages of host files read often: those of private mappings move to the memory file, where reading takes no
// system call, and the application sees the same.
func TestHotPages(t *testing.T) {
	m := newMM(t, true)
	f := newHostFile(t, 3<<12)
	private := mustMap(t, m, MMapOpts{Length: 3 << 12, Perms: platform.Read, Mappable: f, File: f})
	shared := mustMap(t, m, MMapOpts{Length: 3 << 12, Perms: platform.Read, Mappable: f, File: f, Shared: true})
	c := cpu{t, m}
	var b [8]byte
	read := func(addr uint64) string {
		if _, err := m.CopyIn(addr, b[:]); err != nil {
			t.Fatal(err)
		}
		return string(b[:])
	}
	page := func(addr uint64) fakePage {
		p, err := c.page(addr, platform.Read)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	at := uint64(1<<12 + 100)
	want := read(private + at)
	for range 3 * hotReads {
		if got := read(private + at); got != want {
			t.Fatalf("%q instead of %q", got, want)
		}
		m.AppendString(b[:0], private, 4)
		read(shared + at)
	}
	for _, x := range []struct {
		addr   uint64
		moved  bool
		reason string
	}{{private + at, true, "read often"}, {private, true, "often read as a string"}, {private + 2<<12, false, "not read"}, {shared + at, false, "shared"}} {
		if p := page(x.addr); (p.fd == m.file.FD()) != x.moved || p.perms != platform.Read {
			t.Errorf("page %#x (%s) is %+v", x.addr, x.reason, p)
		}
	}
	if n := testing.AllocsPerRun(100, func() { m.AppendString(b[:0], private, 4) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
