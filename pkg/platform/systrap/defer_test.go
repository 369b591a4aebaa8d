package systrap

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// reading is: 1: mov $39,%eax; syscall; mov (%rdi),%rbx; jmp 1b
var reading = []byte{0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0x48, 0x8b, 0x1f, 0xeb, 0xf4}

const deferAddr = 0x600000

// page makes a change that maps a page at deferAddr with the given word in it.
func (g *guest) page(n int, word uint64) platform.MapOp {
	off := uint64(40+n) * arch.PageSize
	binary.LittleEndian.PutUint64(g.mem[off:], word)
	return platform.MapOp{Op: platform.OpMap, Addr: deferAddr, Length: arch.PageSize, Offset: off, FD: g.fd, Perms: platform.Read}
}

var unmapPage = platform.MapOp{Op: platform.OpUnmap, Addr: deferAddr, Length: arch.PageSize}

// put defers changes and returns their ticket.
func (g *guest) put(t testing.TB, ops ...platform.MapOp) uint64 {
	t.Helper()
	ticket, err := g.as.(platform.Deferrer).Defer(ops)
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

func (g *guest) done(ticket uint64) bool { return g.as.(platform.Deferrer).Done() >= ticket }

// reads runs the program once round and checks what it read.
func (g *guest) reads(t testing.TB, want uint64) {
	t.Helper()
	if ev := g.run(t); ev.Kind != platform.EventSyscall || g.regs.Rbx != want {
		t.Fatalf("read %#x, want %#x: %+v", g.regs.Rbx, want, ev)
	}
}

// TestDefer: changes that are put off are there when the program runs on, whatever ends the wait for them.
func TestDefer(t *testing.T) {
	g := newGuest(t, newPlatform(t), reading)
	g.regs.Rdi = deferAddr
	g.run(t)
	for round := range 200 {
		if round%3 == 0 { // so that the thread sleeps
			time.Sleep(200 * time.Microsecond)
		}
		first := g.put(t, g.page(0, uint64(round)))
		if g.done(first) {
			t.Fatal("made at once, though nothing runs")
		}
		g.reads(t, uint64(round))
		if !g.done(first) {
			t.Fatal("not done though the program saw it")
		}
		g.put(t, unmapPage)
		last := g.put(t, g.page(1, 1000+uint64(round)))
		switch round % 4 {
		case 1:
			if err := g.as.(platform.Deferrer).Settle(); err != nil || !g.done(last) {
				t.Fatal(err, "or not done")
			}
		case 2:
			if err := g.as.Apply(nil); err != nil || !g.done(last) {
				t.Fatal(err, "or not done")
			}
		}
		g.reads(t, 1000+uint64(round))
		last = g.put(t, unmapPage)
		if ev := g.run(t); ev.Kind != platform.EventFault || ev.Addr != deferAddr || !g.done(last) {
			t.Fatalf("%+v", ev)
		}
	}
	if g.as.(*addressSpace).deferred.some.Load() {
		if g.put(t); g.as.Apply(nil) != nil || g.as.(*addressSpace).deferred.some.Load() {
			t.Error("something is left")
		}
	}
}

// TestDeferRunning: while a context runs nothing is put off.
func TestDeferRunning(t *testing.T) {
	g := newGuest(t, newPlatform(t), append(reading, 0xeb, 0xfe))
	other, r := g.p.NewContext(), g.regs
	defer other.Release()
	r.Rip += uint64(len(reading)) // jmp to itself
	stopped := make(chan error)
	go func() {
		_, err := other.Switch(g.as, &r)
		stopped <- err
	}()
	for g.as.(*addressSpace).deferred.active.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	g.regs.Rdi = deferAddr
	g.run(t)
	for i := range uint64(20) {
		if ticket := g.put(t, g.page(int(i&1), i)); !g.done(ticket) {
			t.Fatal("put off")
		}
		g.reads(t, i)
	}
	other.Interrupt()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

// TestDeferFork: a copy has what had been put off.
func TestDeferFork(t *testing.T) {
	g := newGuest(t, newPlatform(t), reading)
	g.regs.Rdi = deferAddr
	g.run(t)
	for i := range uint64(20) {
		ticket := g.put(t, g.page(int(i&1), i))
		as, err := g.as.(platform.Forker).Fork(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !g.done(ticket) {
			t.Fatal("forked without the change")
		}
		c, r := g.p.NewContext(), g.regs
		if ev, err := c.Switch(as, &r); err != nil || ev.Kind != platform.EventSyscall || r.Rbx != i {
			t.Fatalf("copy read %#x, want %#x: %+v %v", r.Rbx, i, ev, err)
		}
		c.Release()
		as.Release()
		g.reads(t, i)
	}
}

// TestDeferFails: a change that the host refuses ends the process with the reason.
func TestDeferFails(t *testing.T) {
	g := newGuest(t, newPlatform(t), reading)
	g.regs.Rdi = deferAddr
	g.run(t)
	op := g.page(0, 1)
	op.FD = 1 << 20 // no descriptor
	g.put(t, op)
	for range 3 {
		ev, err := g.ctx.Switch(g.as, &g.regs)
		if err == nil && ev.Kind == platform.EventFault {
			continue // the program ran on, and faulted, before anybody looked
		}
		if err == nil || !strings.Contains(err.Error(), unix.EBADF.Error()) {
			t.Fatalf("%+v %v", ev, err)
		}
		if err := g.as.(platform.Deferrer).Settle(); err != unix.ESRCH {
			t.Errorf("Settle: %v", err)
		}
		return
	}
	t.Fatal("the process lives on")
}

// mapped tells whether the stub process has something at deferAddr.
func (g *guest) mapped(t testing.TB) bool {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", g.as.(*addressSpace).pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), fmt.Sprintf("\n%08x-", deferAddr)) || strings.HasPrefix(string(b), fmt.Sprintf("%08x-", deferAddr))
}

// TestHostileDefer: a thread that only said that it stopped, and runs on and forges the memory thread's answers, cannot make the
// sentry believe that it has lost a page which it has.
func TestHostileDefer(t *testing.T) {
	p := newPlatform(t)
	hasten(p)
	b := newBystander(t, p)
	// mov (%r8),%eax; mov (%rsi),%eax; and $0x7fffffff,%eax; xchg %eax,(%rdx); 1: mov %rbx,(%rdi); mov %rbp,8(%rdi); mov %rbp,16(%rdi); jmp 1b
	code := []byte{0x41, 0x8b, 0x00, 0x8b, 0x06, 0x25, 0xff, 0xff, 0xff, 0x7f, 0x87, 0x02, 0x48, 0x89, 0x1f, 0x48, 0x89, 0x6f, 0x08, 0x48, 0x89, 0x6f, 0x10, 0xeb, 0xf3}
	for _, state := range []uint64{doneReady, donePending, doneWaiter, 1<<32 | doneReady, 1<<32 | donePending, 77} {
		g := newGuest(t, p, code)
		if err := g.as.Apply([]platform.MapOp{g.page(0, 1)}); err != nil {
			t.Fatal(err)
		}
		g.regs.Rdi, g.regs.Rbx = doneAddr, state
		g.regs.Rsi, g.regs.Rdx = slotsAddr, slotsAddr+uint64(unsafe.Offsetof(slot{}.stopSeq))
		g.run(t) // a fault, which it says happened again
		g.regs.Rip += 3
		if ev := g.run(t); ev.Kind != platform.EventFault {
			t.Fatalf("%+v", ev)
		}
		var ops []platform.MapOp // that take a while
		for range queueMax - 1 {
			ops = append(ops, platform.MapOp{Op: platform.OpMap, Addr: 0x10000000, Length: guestLen, FD: g.fd, Perms: platform.ReadWrite, Populate: true})
		}
		ticket, err := g.as.(platform.Deferrer).Defer(append(ops, unmapPage))
		for i := 0; i < 50 && err == nil; i++ {
			if i%10 == 5 {
				g.as.(platform.Deferrer).Settle()
			}
			if done := g.done(ticket); done && g.mapped(t) {
				t.Fatalf("state %#x: done, but the page is there", state)
			}
			if g.as.(*addressSpace).dead.Load() {
				break
			}
			time.Sleep(time.Millisecond)
		}
		g.as.Release()
		b.check(t)
	}
}
