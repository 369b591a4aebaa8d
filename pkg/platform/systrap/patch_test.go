package systrap

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// The guest is its own Text: its code page is at codeAddr, copies of it follow the data pages.
func (g *guest) ReadText(addr uint64, b []byte) error {
	if addr < codePage || addr+uint64(len(b)) > codePage+arch.PageSize {
		return unix.EFAULT
	}
	copy(b, g.mem[g.code+addr-codePage:])
	return nil
}

func (g *guest) ReplaceText(addr uint64, old, new []byte) error {
	at := addr - codePage
	if !bytes.Equal(g.mem[g.code+at:][:len(old)], old) {
		return unix.EFAULT
	}
	next := g.code + arch.PageSize
	copy(g.mem[next:next+arch.PageSize], g.mem[g.code:])
	copy(g.mem[next+at:], new)
	g.code = next
	g.patches++
	return g.as.Apply([]platform.MapOp{{Op: platform.OpMap, Addr: codePage, Length: arch.PageSize, Offset: next, FD: g.fd, Perms: platform.Read | platform.Exec}})
}

func (g *guest) ReserveText(addr, length uint64) error { return nil }

// hot runs until the call site at the context's place has been replaced.
func (g *guest) hot(t testing.TB) {
	t.Helper()
	for range 2 * hotCount {
		ev := g.run(t)
		if ev.Kind != platform.EventSyscall {
			t.Fatalf("%+v %+v", ev, g.regs)
		}
		if ev.Hot {
			n := g.patches
			g.as.(platform.Patcher).Patch(g, &g.regs)
			if g.patches == n {
				t.Fatal("not patched")
			}
			return
		}
	}
	t.Fatal("never hot")
}

// sites are programs that loop over a system call; nr is its number, behind the offset of what follows the
// system call instruction. r15 counts the rounds.
var sites = []struct {
	name   string
	code   []byte
	nr     uint64
	behind uint64
}{
	{"moved", []byte{0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0x49, 0xff, 0xc7, 0xeb, 0xf4}, 39, 7},
	{"long", []byte{0x48, 0xc7, 0xc0, 39, 0, 0, 0, 0x0f, 0x05, 0x49, 0xff, 0xc7, 0xeb, 0xf2}, 39, 9},
	{"load", []byte{0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05, 0x49, 0xff, 0xc7, 0xeb, 0xf4}, 7, 7},
	// syscall; cmp $-4095,%rax; setae %bl; inc %r15; jmp
	{"tail", []byte{0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, 0x0f, 0x93, 0xc3, 0x49, 0xff, 0xc7, 0xeb, 0xf0}, 7, 2},
}

func TestPatch(t *testing.T) {
	p := newPlatform(t)
	for _, s := range sites {
		t.Run(s.name, func(t *testing.T) { testPatch(t, newGuest(t, p, s.code), s.nr, s.behind, s.name == "tail") })
	}
}

func testPatch(t *testing.T, g *guest, nr, behind uint64, tail bool) {
	r := &g.regs
	r.Rsp -= 64
	fp := make([]byte, g.p.FPStateSize())
	if err := g.ctx.ReadFP(fp); err != nil {
		t.Fatal(err)
	}
	copy(fp[160:], "state of xmm0...")
	if err := g.ctx.WriteFP(fp); err != nil {
		t.Fatal(err)
	}
	r.Rax = 7
	g.hot(t)
	for i := range 3000 {
		*r = arch.Registers{R15: 1, R14: 2, R13: 3, R12: 4, Rbp: 5, Rbx: 6, R10: 8, R9: 9, R8: 10, Rdx: 13, Rsi: 14, Rdi: 15,
			Rax: 7, Rcx: r.Rip, R11: 0x246, Rip: r.Rip, Eflags: 0x246 | uint64(i&1), Rsp: r.Rsp}
		if i%3 == 1 {
			r.Rax = ^uint64(0) - 10
		}
		result := r.Rax
		before := *r
		ev := g.run(t)
		if ev.Kind != platform.EventSyscall || r.Rip != codeAddr+behind || r.Rcx != r.Rip || r.R11 != r.Eflags {
			t.Fatalf("round %d: %+v %+v", i, ev, r)
		}
		if !tail {
			if r.OrigRax != nr && nr == 39 {
				t.Fatalf("number %d", r.OrigRax)
			}
		} else if want := uint64(0); r.Rbx&0xff != func() uint64 {
			if int64(result) < 0 && int64(result) >= -4095 {
				want = 1
			}
			return want
		}() {
			t.Fatalf("round %d: rbx %#x after %#x", i, r.Rbx, result)
		}
		if r.R15 != 2 || r.R14 != before.R14 || r.R13 != before.R13 || r.R12 != before.R12 || r.Rbp != before.Rbp || r.Rsp != before.Rsp ||
			r.R10 != before.R10 || r.R8 != before.R8 || r.Rdx != before.Rdx || r.Rsi != before.Rsi || r.Rdi != before.Rdi {
			t.Fatalf("round %d: %+v", i, r)
		}
		switch i % 100 {
		case 50:
			clear(fp)
			if err := g.ctx.ReadFP(fp); err != nil || string(fp[160:176]) != "state of xmm0..." {
				t.Fatalf("%v %q", err, fp[160:176])
			}
		case 60:
			if err := g.ctx.WriteFP(fp); err != nil {
				t.Fatal(err)
			}
		case 70: // a restarted system call
			r.RestartSyscall(nr)
			r.R15--
			g.run(t)
			if r.OrigRax != nr || r.Rip != codeAddr+behind {
				t.Fatalf("restarted: %+v", r)
			}
		case 80: // as after a signal handler: all registers arbitrary
			r.Rcx, r.R11 = 1, 2
		case 90:
			g.ctx.Interrupt()
			before := *r
			if ev := g.run(t); ev.Kind != platform.EventInterrupt || *r != before {
				t.Fatalf("%+v", ev)
			}
		}
	}
}

// TestPatchInterrupts sends interrupts at all places of a patched loop, which must never show a trampoline.
func TestPatchInterrupts(t *testing.T) {
	p := newPlatform(t)
	for _, s := range sites {
		t.Run(s.name, func(t *testing.T) {
			g := newGuest(t, p, s.code)
			r := &g.regs
			r.Rsp -= 64
			r.Rax = 7
			g.hot(t)
			r.R15 = 0
			stop := make(chan struct{})
			go func() {
				for {
					select {
					case <-stop:
						return
					default:
						g.ctx.Interrupt()
						time.Sleep(time.Microsecond)
					}
				}
			}()
			interrupts, rounds := 0, uint64(1)
			end := time.Now().Add(500 * time.Millisecond)
			for time.Now().Before(end) {
				switch ev := g.run(t); ev.Kind {
				case platform.EventInterrupt:
					interrupts++
					if r.Rip < codeAddr || r.Rip >= codeAddr+uint64(len(s.code)) {
						t.Fatalf("interrupted at %#x", r.Rip)
					}
				case platform.EventSyscall:
					if r.Rip != codeAddr+s.behind || r.R15 != rounds {
						t.Fatalf("round %d of %d: %+v", r.R15, rounds, r)
					}
					rounds++
					r.Rax = 7
				default:
					t.Fatalf("%+v %+v", ev, r)
				}
			}
			close(stop)
			t.Logf("%d rounds, %d interrupts", rounds, interrupts)
		})
	}
}

// TestPatchSlow: threads that use gs, or are single-stepped, get along with patched places.
func TestPatchSlow(t *testing.T) {
	p := newPlatform(t)
	for _, s := range sites {
		t.Run(s.name, func(t *testing.T) {
			g := newGuest(t, p, s.code)
			r := &g.regs
			r.Rsp -= 64
			r.Rax = 7
			g.hot(t)
			g.run(t)
			as, err := g.as.(platform.Forker).Fork(nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer as.Release()
			r.Eflags |= flagTF
			for range 20 {
				r.Rax = s.nr
				ev := g.run(t)
				if r.Rip < codeAddr || r.Rip >= codeAddr+uint64(len(s.code)) {
					t.Fatalf("%+v at %#x", ev, r.Rip)
				}
				if ev.Kind == platform.EventFault && ev.Signal != int32(unix.SIGTRAP) {
					t.Fatalf("%+v at %#x", ev, r.Rip)
				}
			}
			r.Eflags &^= flagTF
			child := g.p.NewContext()
			defer child.Release()
			r.GsBase = dataAddr
			g.as, as = as, g.as
			for range 20 {
				r.Rax = 7
				if ev, err := child.Switch(g.as, r); err != nil || ev.Kind != platform.EventSyscall || r.Rip != codeAddr+s.behind || r.GsBase != dataAddr {
					t.Fatalf("%+v %v %+v", ev, err, r)
				}
			}
		})
	}
}

func BenchmarkPatched(b *testing.B) {
	p := newPlatform(b)
	for _, s := range sites {
		b.Run(s.name, func(b *testing.B) {
			g := newGuest(b, p, s.code)
			g.regs.Rax = 7
			g.hot(b)
			b.ReportAllocs()
			for b.Loop() {
				g.ctx.Switch(g.as, &g.regs)
				g.regs.Rax = 7
			}
		})
	}
}

// TestPatchThreads replaces a place while other threads run through it.
func TestPatchThreads(t *testing.T) {
	p := newPlatform(t)
	for _, s := range sites {
		t.Run(s.name, func(t *testing.T) {
			for range 4 {
				testPatchThreads(t, newGuest(t, p, s.code), s.behind)
			}
		})
	}
}

func testPatchThreads(t *testing.T, g *guest, behind uint64) {
	done := make(chan error)
	var mu sync.Mutex
	for i := range 4 {
		go func() {
			c, r := g.p.NewContext(), g.regs
			defer c.Release()
			r.Rsp -= uint64(i+1) * 1024
			for n := range uint64(2000) {
				r.Rax = 7
				ev, err := c.Switch(g.as, &r)
				if err != nil || ev.Kind != platform.EventSyscall || r.Rip != codeAddr+behind || r.R15 != n {
					done <- fmt.Errorf("round %d: %+v %v %+v", n, ev, err, r)
					return
				}
				if ev.Hot {
					mu.Lock() // for the test's Text
					g.as.(platform.Patcher).Patch(g, &r)
					mu.Unlock()
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if g.patches == 0 {
		t.Error("not patched")
	}
}
