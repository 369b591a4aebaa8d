package systrap

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
)

// slowLoop is: mov $20000000,%ecx; l: dec %ecx; jnz l; mov $39,%eax; syscall; jmp slowLoop
var slowLoop = []byte{0xb9, 0x00, 0x2d, 0x31, 0x01, 0xff, 0xc9, 0x75, 0xfc, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xee}

// endless is: mov $39,%eax; syscall; cmp $0,%r12; je endless; l: jmp l
var endless = []byte{0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0x49, 0x83, 0xfc, 0x00, 0x74, 0xf3, 0xeb, 0xfe}

// TestDoze has the goroutine of a thread that is alone sleep on the thread's word: until the thread stops, is interrupted, or dies. Nothing
// else would end the sleep, as the next look for silent threads is far away.
func TestDoze(t *testing.T) {
	never := unix.Timespec{Sec: 3600}
	t.Run("stop", func(t *testing.T) {
		g := newGuest(t, dozePlatform(t, never), slowLoop)
		dozed := make(chan bool)
		seen := watchDoze(g, dozed)
		for range 2 * soloStreak {
			if ev := within(t, g); ev.Kind != platform.EventSyscall {
				t.Fatalf("%+v", ev)
			}
		}
		close(seen)
		if !<-dozed {
			t.Error("the goroutine never slept on the word")
		}
	})
	for name, end := range map[string]func(g *guest){
		"interrupt": func(g *guest) { g.ctx.Interrupt() },
		"kill":      func(g *guest) { g.as.(*addressSpace).kill() },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, dozePlatform(t, never), endless)
			dozeThen(t, g, end)
			ev, err := g.ctx.Switch(g.as, &g.regs)
			if name == "interrupt" && (err != nil || ev.Kind != platform.EventInterrupt) || name == "kill" && err == nil {
				t.Errorf("%+v, %v", ev, err)
			}
		})
	}
	t.Run("host's kill", func(t *testing.T) {
		g := newGuest(t, dozePlatform(t, unix.Timespec{Nsec: 50e6}), endless)
		dozeThen(t, g, func(g *guest) { unix.Kill(g.as.(*addressSpace).pid, unix.SIGKILL) })
		if _, err := g.ctx.Switch(g.as, &g.regs); err == nil {
			t.Error("no error")
		}
	})
}

func dozePlatform(t *testing.T, poll unix.Timespec) platform.Platform {
	p := newPlatform(t)
	p.(*systrap).pace.poll = poll
	return p
}

// within is run that fails instead of waiting for ever.
func within(t *testing.T, g *guest) platform.Event {
	t.Helper()
	late := time.AfterFunc(20*time.Second, func() { panic("Switch did not return") })
	defer late.Stop()
	return g.run(t)
}

// watchDoze looks at the guest's thread until the channel is closed, and then tells whether its goroutine has ever been asleep.
func watchDoze(g *guest, dozed chan<- bool) (stop chan struct{}) {
	stop = make(chan struct{})
	c := g.ctx.(*context)
	go func() {
		saw := false
		for {
			select {
			case <-stop:
				dozed <- saw
				return
			case <-time.After(time.Millisecond):
				if th := c.current.Load(); th != nil && th.dozing.Load() {
					saw = true
				}
			}
		}
	}()
	return stop
}

// dozeThen makes the guest's thread count as alone and sets r12, so that the next Switch does not end by itself; it calls end when the
// goroutine is asleep in that.
func dozeThen(t *testing.T, g *guest, end func(g *guest)) {
	t.Helper()
	for range 2 * soloStreak {
		within(t, g)
	}
	g.regs.R12 = 1
	th := g.ctx.(*context).current.Load()
	late := time.AfterFunc(20*time.Second, func() { panic("Switch did not return") })
	t.Cleanup(func() { late.Stop() })
	go func() {
		for !th.dozing.Load() {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
		end(g)
	}()
}
