package systrap

import (
	"testing"

	"husk/pkg/platform"
)

// counter is: l: inc %r12; mov $39,%eax; syscall; jmp l
var counter = []byte{0x49, 0xff, 0xc4, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf4}

// TestSequenceWraps: a thread that stopped two thousand million times goes on as before. No number of a stop is the one that says that the
// process was killed.
func TestSequenceWraps(t *testing.T) {
	g := newGuest(t, newPlatform(t), counter)
	within(t, g)
	th := g.ctx.(*context).current.Load()
	th.seq = seqMask - 4
	for want := g.regs.R12 + 1; want < 20; want++ {
		if ev := within(t, g); ev.Kind != platform.EventSyscall || g.regs.R12 != want {
			t.Fatalf("%+v, r12 %d instead of %d", ev, g.regs.R12, want)
		}
	}
}
