package clock

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

func newTimers(t testing.TB) *Timers {
	s, err := NewTimers()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestTimersOrder: timers fire in the order of their times, however they were set, moved and stopped, and never early.
func TestTimersOrder(t *testing.T) {
	s := newTimers(t)
	const n = 1000
	var mu sync.Mutex
	var fired []int64
	early := 0
	done := make(chan struct{})
	timers := make([]Timer, n)
	from := Monotonic() + 50e6
	at := make([]int64, n)
	stopped := 0
	for i := range timers {
		timers[i].F = func() {
			mu.Lock()
			defer mu.Unlock()
			if Monotonic() < at[i] {
				early++
			}
			fired = append(fired, at[i])
		}
		at[i] = from + rand.Int64N(20e6)
		s.Set(&timers[i], at[i])
	}
	for i := range timers {
		switch rand.IntN(3) {
		case 0:
			s.Stop(&timers[i])
			s.Stop(&timers[i])
			stopped++
		case 1:
			mu.Lock()
			at[i] = from + rand.Int64N(20e6)
			mu.Unlock()
			s.Set(&timers[i], at[i])
		}
	}
	s.Set(&Timer{F: func() { close(done) }}, from+21e6)
	<-done
	mu.Lock()
	defer mu.Unlock()
	if len(fired) != n-stopped || early != 0 {
		t.Fatalf("%d fired of %d, %d early", len(fired), n-stopped, early)
	}
	for i := 1; i < len(fired); i++ {
		if fired[i] < fired[i-1] {
			t.Fatal("not in order")
		}
	}
}

// TestTimersAgain: a function may set its own timer and stop others; what is due always comes before what is set while it fires.
func TestTimersAgain(t *testing.T) {
	s := newTimers(t)
	done := make(chan struct{})
	busy, other := new(Timer), new(Timer)
	busy.F = func() { s.Set(busy, Monotonic()) }
	other.F = func() { s.Stop(busy); close(done) }
	s.Set(busy, Monotonic())
	s.Set(other, Monotonic()+5e6)
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a timer that is set again and again holds up the others")
	}
	last := make(chan struct{})
	s.Set(&Timer{F: func() { close(last) }}, 0) // long past
	<-last
}

// TestTimersAllocate: bounding a wait allocates nothing.
func TestTimersAllocate(t *testing.T) {
	s := newTimers(t)
	x := &Timer{F: func() {}}
	s.Set(x, Monotonic()+1e9)
	s.Stop(x)
	if n := testing.AllocsPerRun(1000, func() { s.Set(x, Monotonic()+2e9); s.Stop(x) }); n != 0 {
		t.Fatal(n)
	}
}

func BenchmarkTimers(b *testing.B) {
	s := newTimers(b)
	x := &Timer{F: func() {}}
	for b.Loop() {
		s.Set(x, Monotonic()+1e9)
		s.Stop(x)
	}
}

func BenchmarkTimersSleep(b *testing.B) {
	s := newTimers(b)
	c := make(chan struct{})
	x := &Timer{F: func() { c <- struct{}{} }}
	for b.Loop() {
		s.Set(x, Monotonic()+100e3)
		<-c
	}
}
