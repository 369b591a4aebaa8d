package kernel

import (
	"testing"
	"time"

	"husk/pkg/sentry/clock"
)

// TestHeldProcess: timers of a process whose lock is held for long hold up no other's.
func TestHeldProcess(t *testing.T) {
	timers, err := clock.NewTimers()
	if err != nil {
		t.Fatal(err)
	}
	defer timers.Close()
	tg := &ThreadGroup{k: &Kernel{timers: timers}}
	p := &posixTimer{tg: tg}
	p.timer.F = p.fired
	done := make(chan struct{})
	other := clock.Timer{F: func() { close(done) }}
	tg.mu.Lock()
	defer tg.mu.Unlock()
	timers.Set(&p.timer, 1)
	timers.Set(&other, clock.Monotonic()+1e6)
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		t.Error("another process' timer does not fire")
	}
}
