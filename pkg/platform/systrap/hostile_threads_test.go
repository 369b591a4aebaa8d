package systrap

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// sleepCall is where the stub waits for a futex word; it goes on waiting as long as slot.goSeq is as in r13.
func sleepCall(t *testing.T, p platform.Platform) uint64 {
	t.Helper()
	// mov $FUTEX_WAIT,%esi; mov %r14d,%edx; xor %r10d,%r10d; mov $SYS_FUTEX,%eax; syscall
	want := []byte{0xbe, 0, 0, 0, 0, 0x44, 0x89, 0xf2, 0x45, 0x31, 0xd2, 0xb8, 202, 0, 0, 0, 0x0f, 0x05}
	i := bytes.Index(p.(*systrap).text.code, want)
	if i < 0 {
		t.Fatal("the stub's code changed")
	}
	return textAddr + uint64(i)
}

// TestHostileSleepers: a thread sleeps on the word of another application's thread, before that one does, and takes its
// wake-ups.
func TestHostileSleepers(t *testing.T) {
	p := newPlatform(t)
	hasten(p)
	b, g := newBystander(t, p), newGuest(t, p, loop)
	b.check(t)
	word := b.ctx.(*context).thread.wordAddr()
	const thieves = 3
	done := make(chan error, thieves)
	for range thieves {
		c := p.NewContext()
		r := arch.Registers{Rip: sleepCall(t, p), Rdi: word, Rbx: dataAddr, Rsp: dataAddr + 0x800, Eflags: 0x202}
		go func() {
			_, err := c.Switch(g.as, &r)
			c.Release()
			done <- err
		}()
	}
	for i := range 20 {
		time.Sleep(3 * time.Millisecond) // the bystander's thread falls asleep, the thieves sleep longer than it
		checked := make(chan struct{})
		go func() {
			defer close(checked)
			b.check(t)
		}()
		select {
		case <-checked:
		case <-time.After(10 * time.Second):
			t.Fatalf("round %d: the wake-up was stolen", i)
		}
	}
	g.as.Release()
	for range thieves {
		<-done
	}
}

// TestStepPatched steps through patched places, as a debugger does or an application that sets the trap flag itself: each
// round of the loop ends in a bounded number of steps, and what the application sees are its own instructions.
func TestStepPatched(t *testing.T) {
	p := newPlatform(t)
	for _, s := range sites {
		t.Run(s.name, func(t *testing.T) {
			g := newGuest(t, p, s.code)
			r := &g.regs
			r.Rsp -= 64
			r.Rax = s.nr
			g.hot(t)
			r.Rax, r.R15 = s.nr, 0
			calls := 0
			for range 200 {
				r.Eflags |= flagTF
				ev := g.run(t)
				switch {
				case ev.Kind == platform.EventSyscall:
					if r.Rip != codeAddr+s.behind || r.OrigRax != s.nr {
						t.Fatalf("%+v %+v", ev, r)
					}
					calls++
					r.Rax = s.nr
				case ev.Kind == platform.EventFault && ev.Signal != int32(unix.SIGTRAP), r.Rip < codeAddr, r.Rip >= codeAddr+uint64(len(s.code)):
					t.Fatalf("%+v at %#x", ev, r.Rip)
				}
			}
			if calls < 20 || r.R15 < 20 {
				t.Errorf("%d system calls and %d rounds in 200 steps", calls, r.R15)
			}
		})
	}
}

// TestChunkKinds: what late writes to the slots of dead threads may hit is slots.
func TestChunkKinds(t *testing.T) {
	m, err := newStubMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	var got [chunkKinds]uint32
	for kind := range chunkKinds {
		got[kind], _ = m.alloc(kind)
		m.release(got[kind], 1, kind)
	}
	for kind := range chunkKinds {
		if c, ok := m.alloc(kind); !ok || c != got[kind] {
			t.Errorf("kind %d: chunk %d, want %d", kind, c, got[kind])
		}
		if c, ok := m.alloc(kind); !ok || c < uint32(chunkKinds) {
			t.Errorf("kind %d: chunk %d of another kind", kind, c)
		}
	}
}

// TestHostileLeftovers: what an application writes into slots that it does not use does not reach the next application.
func TestHostileLeftovers(t *testing.T) {
	p := newPlatform(t)
	g := newGuest(t, p, fill)
	r := g.regs
	r.Rdi, r.Rcx, r.Rax = slotsAddr+slotSize, (firstSlots-1)*slotSize/8, 0x4141414141414141
	if ev, err := g.ctx.Switch(g.as, &r); err != nil || ev.Kind != platform.EventSyscall {
		t.Fatalf("%+v %v", ev, err)
	}
	m, chunk := p.(*systrap).mem, g.as.(*addressSpace).first
	at := m.bytes(uint64(chunk)*chunkSize, chunkSize)
	if at[chunkSize-1] != 0x41 {
		t.Fatal("nothing written")
	}
	g.ctx.Release()
	g.as.Release()
	freed := func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return slices.Contains(m.free[chunkSpace], chunk)
	}
	for end := time.Now().Add(10 * time.Second); !freed(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not freed")
		}
	}
	for i, b := range at {
		if b != 0 {
			t.Fatalf("%#x at %#x of the chunk", b, i)
		}
	}
}

// children counts the child processes of the test.
func children(t *testing.T) int {
	t.Helper()
	files, _ := filepath.Glob("/proc/self/task/*/children")
	if len(files) == 0 {
		t.Skip("the host does not list children")
	}
	n := 0
	for _, f := range files {
		text, _ := os.ReadFile(f)
		n += len(strings.Fields(string(text)))
	}
	return n
}

// TestHostileFork forges the memory thread's answers while it forks: no process may be left behind, as its threads would
// go on in the slots of whoever gets the chunk next.
func TestHostileFork(t *testing.T) {
	p := newPlatform(t)
	hasten(p)
	forge := []byte{0x48, 0x89, 0x07, 0x48, 0x89, 0x5f, 0x08, 0x48, 0x89, 0x4f, 0x10, 0xeb, 0xf3}
	b := newBystander(t, p)
	b.check(t)
	before := children(t)
	died := 0
	rounds := 60
	if testing.Short() {
		rounds = 20
	}
	for i := range rounds {
		g := newGuest(t, p, forge)
		c := p.NewContext()
		r := g.regs
		r.Rdi, r.Rax = doneAddr, doneReady
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Switch(g.as, &r)
		}()
		time.Sleep(time.Duration(i%10) * 100 * time.Microsecond)
		for range 20 {
			as, err := g.as.(platform.Forker).Fork(nil, nil)
			if err != nil {
				died++
				break
			}
			as.Release()
		}
		g.as.Release()
		<-done
		c.Release()
		b.check(t)
	}
	for end := time.Now().Add(5 * time.Second); children(t) > before+readySpaces; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d children before, %d after %d of %d forks failed", before, children(t), died, rounds)
		}
	}
	t.Logf("%d of %d forks failed", died, rounds)
}
