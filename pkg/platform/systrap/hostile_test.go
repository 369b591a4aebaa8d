package systrap

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// attack lets hostile code run from regs for a short time, and answers its system calls. It must always come back.
func attack(t *testing.T, g *guest, regs arch.Registers) {
	t.Helper()
	done := make(chan struct{})
	c := g.p.NewContext()
	stop := time.AfterFunc(3*time.Millisecond, func() { c.Interrupt() })
	defer stop.Stop()
	go func() {
		defer close(done)
		defer c.Release()
		for range 20 {
			ev, err := c.Switch(g.as, &regs)
			if err != nil || ev.Kind != platform.EventSyscall {
				return
			}
			regs.Rax = 7
		}
		fp := make([]byte, g.p.FPStateSize())
		if c.ReadFP(fp) == nil {
			c.WriteFP(fp)
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("hangs: %+v", regs)
	}
}

// hasten makes the platform lose patience with hostile threads soon.
func hasten(p platform.Platform) {
	p.(*systrap).pace.poll, p.(*systrap).pace.patience = unix.Timespec{Nsec: 5e6}, 20
}

// bystander is another application, whose memory and results nobody may change.
type bystander struct {
	*guest
	want []byte
}

func newBystander(t *testing.T, p platform.Platform) *bystander {
	g := newGuest(t, p, loop)
	for i := range g.mem[arch.PageSize : 2*arch.PageSize] {
		g.mem[arch.PageSize+i] = byte(i * 7)
	}
	return &bystander{g, bytes.Clone(g.mem)}
}

func (b *bystander) check(t *testing.T) {
	t.Helper()
	for range 5 {
		if ev := b.run(t); ev.Kind != platform.EventSyscall || b.regs.OrigRax != 39 || b.regs.Rip != codeAddr+7 {
			t.Fatalf("bystander: %+v %+v", ev, b.regs)
		}
		b.regs.Rax = 1
	}
	if !bytes.Equal(b.mem, b.want) {
		t.Fatal("bystander's memory changed")
	}
}

// renew replaces the guest's address space if it did not survive.
func (g *guest) renew(t *testing.T) {
	t.Helper()
	if g.as.Apply([]platform.MapOp{{Op: platform.OpUnmap, Addr: 0x20000000, Length: arch.PageSize}}) == nil {
		return
	}
	g.as.Release()
	as, err := g.p.NewAddressSpace()
	if err != nil {
		t.Fatal(err)
	}
	g.as = as
	g.mapAll(t)
}

// TestHostileJumps enters the stub's code everywhere with all kinds of registers.
func TestHostileJumps(t *testing.T) {
	p := newPlatform(t)
	hasten(p)
	b, g := newBystander(t, p), newGuest(t, p, loop)
	size := p.(*systrap).text.label[labelEnd] - textAddr
	step := uint64(5)
	if testing.Short() {
		step = 37
	}
	rng := rand.New(rand.NewPCG(1, 2))
	interesting := []uint64{0, 1, slotsAddr, slotsAddr + slotStack, slotsAddr + slotSize, doneAddr, ringAddr, textAddr, tableAddr, dataAddr, codeAddr,
		^uint64(0), stubBase - 1, 1 << 47, unix.SYS_MMAP, unix.SYS_CLONE, unix.SYS_RT_SIGRETURN, unix.SYS_FUTEX, 10}
	pick := func() uint64 {
		if rng.IntN(8) == 0 {
			return rng.Uint64()
		}
		return interesting[rng.IntN(len(interesting))]
	}
	for off := uint64(0); off < size; off += step {
		r := arch.Registers{R15: pick(), R14: pick(), R13: pick(), R12: pick(), Rbp: pick(), Rbx: pick(), R11: pick(), R10: pick(), R9: pick(), R8: pick(),
			Rax: pick(), Rcx: pick(), Rdx: pick(), Rsi: pick(), Rdi: pick(), Rip: textAddr + off, Rsp: pick(), Eflags: 0x202}
		attack(t, g, r)
		g.renew(t)
		if off%(16*step) == 0 {
			b.check(t)
		}
	}
	b.check(t)
}

// fill is: rep stosq; mov $39,%eax; syscall; jmp to the mov
var fill = []byte{0xf3, 0x48, 0xab, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}

// TestHostileWrites overwrites what the application can write of the stub's memory.
func TestHostileWrites(t *testing.T) {
	p := newPlatform(t)
	hasten(p)
	b, g := newBystander(t, p), newGuest(t, p, fill)
	values := []uint64{0, 1, ^uint64(0), slotsAddr + slotStack, slotsAddr + slotSize - 8, 1 << 63, 0x8000000180000001, 0x7fffffff7fffffff}
	for _, v := range values {
		for _, area := range []span{{doneAddr, doneAddr + doneSize}, {slotsAddr, slotsAddr + 128}, {slotsAddr, slotsAddr + slotStack},
			{slotsAddr + slotStack, slotsAddr + slotSize}, {slotsAddr, slotsAddr + firstSlots*slotSize}} {
			r := g.regs
			r.Rip, r.Rdi, r.Rcx, r.Rax = codeAddr, area.start, (area.end-area.start)/8, v
			attack(t, g, r)
			g.renew(t)
			b.check(t)
		}
	}
	// What is not the application's to write faults.
	g = newGuest(t, p, fill)
	for _, addr := range []uint64{textAddr, tableAddr, hintAddr, ringAddr, vdsoAddr} {
		r := g.regs
		r.Rip, r.Rdi, r.Rcx = codeAddr, addr, 1
		if ev, err := g.ctx.Switch(g.as, &r); err != nil || ev.Kind != platform.EventFault || ev.Addr != addr {
			t.Fatalf("write to %#x: %+v %v %+v", addr, ev, err, r)
		}
	}
}

// TestHostileDone forges the memory thread's answers while it works.
func TestHostileDone(t *testing.T) {
	p := newPlatform(t)
	hasten(p)
	// 1: mov %rax,(%rdi); mov %rbx,8(%rdi); mov %rcx,16(%rdi); jmp 1b
	forge := []byte{0x48, 0x89, 0x07, 0x48, 0x89, 0x5f, 0x08, 0x48, 0x89, 0x4f, 0x10, 0xeb, 0xf3}
	b := newBystander(t, p)
	for _, state := range []uint64{doneReady, donePending, doneWaiter, 1<<32 | doneReady, 1<<32 | donePending, 77} {
		g := newGuest(t, p, forge)
		c := p.NewContext()
		r := g.regs
		r.Rdi, r.Rax = doneAddr, state
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Switch(g.as, &r)
		}()
		for range 5 {
			start := time.Now()
			err := g.as.Apply([]platform.MapOp{{Op: platform.OpMap, Addr: 0x20000000, Length: arch.PageSize, FD: g.fd, Perms: platform.Read}})
			if time.Since(start) > 15*time.Second {
				t.Fatalf("state %d: Apply took %v", state, time.Since(start))
			}
			if err != nil {
				break
			}
		}
		g.as.Release()
		<-done
		c.Release()
		b.check(t)
	}
}

// TestHostileHide: who hides the memory thread's answer does not keep those waiting for long who change its address space: that may be another
// process, which truncates a file.
func TestHostileHide(t *testing.T) {
	p := newPlatform(t)
	p.(*systrap).pace.poll, p.(*systrap).pace.patience = unix.Timespec{Nsec: 50e6}, 1000
	// 1: mov %eax,(%rdi); jmp 1b
	hide := []byte{0x89, 0x07, 0xeb, 0xfc}
	for _, state := range []uint64{donePending, doneWaiter, 77} {
		g := newGuest(t, p, hide)
		c := p.NewContext()
		r := g.regs
		r.Rdi, r.Rax = doneAddr, state
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Switch(g.as, &r)
		}()
		end := time.Now().Add(30 * time.Second)
		for n := 0; ; n++ {
			err := g.as.Apply([]platform.MapOp{{Op: platform.OpMap, Addr: 0x20000000, Length: arch.PageSize, FD: g.fd, Perms: platform.Read}})
			if err != nil {
				break
			}
			if n == 1e5 || time.Now().After(end) {
				t.Fatalf("state %d: %d changes were made", state, n)
			}
		}
		if time.Now().After(end) {
			t.Fatalf("state %d: those who wait for the memory thread wait for long", state)
		}
		g.as.Release()
		<-done
		c.Release()
	}
}

// TestHostileMask blocks the interrupt signal with rt_sigreturn.
func TestHostileMask(t *testing.T) {
	p := newPlatform(t)
	hasten(p)
	g := newGuest(t, p, []byte{0x48, 0xff, 0x07, 0xeb, 0xfb}) // 1: incq (%rdi); jmp 1b
	u := ucontext{rip: codeAddr, rdi: dataAddr + 0x7000, rsp: dataAddr + 0x8000, cs: arch.UserCS, ss: arch.UserSS, eflags: 0x202, sigmask: ^uint64(0)}
	copy(g.mem[arch.PageSize:], bytesOf(&u))
	// The system call instruction of the stub, with the frame on the stack.
	i := bytes.Index(p.(*systrap).text.code, []byte{0x0f, 0x05})
	r := arch.Registers{Rip: textAddr + uint64(i), Rsp: dataAddr, Rax: unix.SYS_RT_SIGRETURN, Eflags: 0x202}
	done := make(chan error)
	go func() {
		_, err := g.ctx.Switch(g.as, &r)
		done <- err
	}()
	count := (*atomic.Uint32)(unsafe.Pointer(&g.mem[arch.PageSize+0x7000]))
	for end := time.Now().Add(10 * time.Second); count.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("does not run")
		}
	}
	g.ctx.Interrupt()
	select {
	case err := <-done:
		if err != errDead {
			t.Fatalf("%v %+v", err, r)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("cannot be stopped")
	}
	if binary.LittleEndian.Uint64(g.mem[arch.PageSize:]) != 0 {
		t.Error("frame changed")
	}
}
