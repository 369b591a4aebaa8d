package systrap

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// TestLend has many contexts of one address space, most of them blocked, share few threads. Each keeps its registers and its
// extended state, at a patched call site and at one that traps.
func TestLend(t *testing.T) {
	p := newPlatform(t)
	for _, patched := range []bool{false, true} {
		t.Run(fmt.Sprintf("patched=%v", patched), func(t *testing.T) {
			g := newGuest(t, p, sites[0].code)
			if patched {
				g.hot(t)
			}
			testLend(t, g)
		})
	}
}

func testLend(t *testing.T, g *guest) {
	const contexts, atOnce, rounds = 60, 3, 60
	running := make(chan struct{}, atOnce)
	var done sync.WaitGroup
	for i := range uint64(contexts) {
		done.Go(func() {
			c := g.p.NewContext()
			defer c.Release()
			fp := make([]byte, g.p.FPStateSize())
			if err := c.ReadFP(fp); err != nil {
				t.Error(err)
				return
			}
			mark := fmt.Appendf(nil, "context %08d", i)
			copy(fp[160:], mark)
			if err := c.WriteFP(fp); err != nil {
				t.Error(err)
				return
			}
			rng := rand.New(rand.NewPCG(1, i))
			r := arch.Registers{Rip: codeAddr, Rsp: dataAddr + dataLen, Eflags: 0x202, R12: i, FsBase: dataAddr + i*64}
			for round := range uint64(rounds) {
				running <- struct{}{}
				// As after a system call; some from elsewhere, as after a signal.
				r.Rcx, r.R11 = r.Rip, r.Eflags
				if rng.IntN(4) == 0 {
					r.Rcx++
				}
				ev, err := c.Switch(g.as, &r)
				if err != nil || ev.Kind != platform.EventSyscall || r.R12 != i || r.R15 != round || r.FsBase != dataAddr+i*64 {
					t.Errorf("context %d round %d: %+v %v %+v", i, round, ev, err, r)
					<-running
					return
				}
				r.Rax = 7
				if rng.IntN(8) != 0 {
					c.Blocked()
				}
				<-running
				if rng.IntN(2) == 0 {
					time.Sleep(time.Duration(rng.IntN(300)) * time.Microsecond)
				}
				if rng.IntN(4) == 0 {
					clear(fp)
					if err := c.ReadFP(fp); err != nil || !bytes.Equal(fp[160:160+len(mark)], mark) {
						t.Errorf("context %d round %d: %v, state %q", i, round, err, fp[160:176])
						return
					}
				}
			}
		})
	}
	done.Wait()
	a := g.as.(*addressSpace)
	a.mu.Lock()
	defer a.mu.Unlock()
	// One in eight stops is not followed by Blocked, and ReadFP claims the thread.
	if n := len(a.threads); n > contexts*2/3 {
		t.Errorf("%d threads for %d contexts, of which %d run at once", n, contexts, atOnce)
	}
}

// TestLendFew holds how many threads an address space has whose contexts are all blocked but one.
func TestLendFew(t *testing.T) {
	g := newGuest(t, newPlatform(t), loop)
	a := g.as.(*addressSpace)
	const contexts = 100
	var all [contexts]platform.Context
	var regs [contexts]arch.Registers
	for i := range all {
		all[i] = g.p.NewContext()
		defer all[i].Release()
		regs[i] = g.regs
		regs[i].R12 = uint64(i)
	}
	for range 3 {
		for i, c := range all {
			if ev, err := c.Switch(g.as, &regs[i]); err != nil || ev.Kind != platform.EventSyscall || regs[i].R12 != uint64(i) {
				t.Fatalf("%d: %+v %v", i, ev, err)
			}
			c.Blocked()
			if i%10 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	if n := len(a.threads); n > 2*lendThreads*int(a.p.pace.cpus) {
		t.Errorf("%d threads", n)
	}
}

// TestWriteFPBeforeSleep replaces the extended state of a thread that stopped at a patched call site and spins: that it goes
// to sleep later must not bring the old state back.
func TestWriteFPBeforeSleep(t *testing.T) {
	g := newGuest(t, newPlatform(t), sites[0].code)
	g.hot(t)
	fp := make([]byte, g.p.FPStateSize())
	for i := range 50 {
		if ev := g.run(t); ev.Kind != platform.EventSyscall {
			t.Fatalf("%+v", ev)
		}
		if err := g.ctx.ReadFP(fp); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			g.run(t) // so that the state is in the processor
		}
		mark := fmt.Appendf(nil, "state %010d", i)
		copy(fp[160:], mark)
		fp[fpHeader] |= 2 // SSE
		if err := g.ctx.WriteFP(fp); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
		g.run(t)
		if err := g.ctx.ReadFP(fp); err != nil || !bytes.Equal(fp[160:176], mark) {
			t.Fatalf("round %d: %v %q", i, err, fp[160:176])
		}
	}
}
