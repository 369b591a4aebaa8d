package systrap

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// guest is an address space with a page of code and one of data, and a context.
type guest struct {
	p    platform.Platform
	as   platform.AddressSpace
	ctx  platform.Context
	fd   int
	mem  []byte // code page, data pages
	regs arch.Registers

	code    uint64 // offset of the code page in mem
	patches int
}

const (
	codePage = 0x400000
	codeAddr = codePage + 0x20
	dataAddr = 0x500000
	guestLen = 64 * arch.PageSize
	dataLen  = 15 * arch.PageSize
)

func newPlatform(t testing.TB) platform.Platform {
	t.Helper()
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Release)
	return p
}

func newGuest(t testing.TB, p platform.Platform, code []byte) *guest {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, guestLen); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, guestLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	const first = 16 * arch.PageSize
	copy(mem[first+codeAddr-codePage:], code)
	as, err := p.NewAddressSpace()
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{p: p, as: as, ctx: p.NewContext(), fd: fd, mem: mem, code: first}
	t.Cleanup(func() {
		g.ctx.Release()
		g.as.Release()
		unix.Munmap(mem)
		unix.Close(fd)
	})
	g.mapAll(t)
	g.regs.Rip = codeAddr
	g.regs.Rsp = dataAddr + dataLen
	return g
}

// mapAll maps code and data.
func (g *guest) mapAll(t testing.TB) {
	t.Helper()
	if err := g.as.Apply([]platform.MapOp{
		{Op: platform.OpMap, Addr: codePage, Length: arch.PageSize, Offset: g.code, FD: g.fd, Perms: platform.Read | platform.Exec},
		{Op: platform.OpMap, Addr: dataAddr, Length: dataLen, Offset: arch.PageSize, FD: g.fd, Perms: platform.ReadWrite},
	}); err != nil {
		t.Fatal(err)
	}
}

func (g *guest) run(t testing.TB) platform.Event {
	t.Helper()
	ev, err := g.ctx.Switch(g.as, &g.regs)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// loop is: mov $39,%eax; syscall; jmp loop
var loop = []byte{0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}

func TestSyscall(t *testing.T) {
	g := newGuest(t, newPlatform(t), loop)
	for range 3 {
		g.regs.R12 = 0x1234
		ev := g.run(t)
		if ev.Kind != platform.EventSyscall || g.regs.OrigRax != 39 || g.regs.Rip != codeAddr+7 || g.regs.R12 != 0x1234 {
			t.Fatalf("%+v %+v", ev, g.regs)
		}
		g.regs.Rax = 7
	}
}

func BenchmarkGetpid(b *testing.B) {
	g := newGuest(b, newPlatform(b), loop)
	g.run(b)
	b.ReportAllocs()
	for b.Loop() {
		g.ctx.Switch(g.as, &g.regs)
		g.regs.Rax = 7
	}
}

func BenchmarkMapUnmap(b *testing.B) {
	g := newGuest(b, newPlatform(b), loop)
	op := []platform.MapOp{{Op: platform.OpMap, Addr: 0x10000000, Length: 1 << 16, FD: g.fd, Perms: platform.ReadWrite}}
	un := []platform.MapOp{{Op: platform.OpUnmap, Addr: 0x10000000, Length: 1 << 16}}
	b.ReportAllocs()
	for b.Loop() {
		if err := g.as.Apply(op); err != nil {
			b.Fatal(err)
		}
		g.as.Apply(un)
	}
}

func BenchmarkNewAddressSpace(b *testing.B) {
	p := newPlatform(b)
	for b.Loop() {
		as, err := p.NewAddressSpace()
		if err != nil {
			b.Fatal(err)
		}
		as.Release()
	}
}

func BenchmarkFork(b *testing.B) {
	g := newGuest(b, newPlatform(b), loop)
	g.run(b)
	for b.Loop() {
		as, err := g.as.(platform.Forker).Fork(nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		as.Release()
	}
}

// TestSlowHost: what never ran application code may be silent for as long as the host is slow, be it the zygote or a new process.
func TestSlowHost(t *testing.T) {
	p := newPlatform(t)
	hasten(p)
	stop := func(a *addressSpace) (slow time.Duration) {
		unix.Kill(a.pid, unix.SIGSTOP)
		pace := &p.(*systrap).pace
		slow = 2 * awaitPatience * time.Duration(pace.patience) * time.Duration(pace.poll.Nano())
		time.AfterFunc(slow, func() { unix.Kill(a.pid, unix.SIGCONT) })
		return slow
	}
	zygote := p.(*systrap).zygote
	start, slow := time.Now(), stop(zygote)
	for time.Since(start) < slow {
		as, err := p.NewAddressSpace()
		if err != nil {
			t.Fatal(err)
		}
		defer as.Release()
	}
	as, err := p.NewAddressSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer as.Release()
	stop(as.(*addressSpace))
	if err := as.Apply([]platform.MapOp{{Op: platform.OpUnmap, Addr: 0x20000000, Length: arch.PageSize}}); err != nil {
		t.Fatal(err)
	}
}
