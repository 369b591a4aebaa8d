package clock

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestMonotonicIsTheHosts(t *testing.T) {
	for range 100 {
		var a, b unix.Timespec
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &a)
		n := Monotonic()
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &b)
		if n < a.Nano() || n > b.Nano() {
			t.Fatalf("%d is not within [%d, %d]", n, a.Nano(), b.Nano())
		}
	}
}

func BenchmarkMonotonic(b *testing.B) {
	for b.Loop() {
		Monotonic()
	}
}

func TestTicks(t *testing.T) {
	a, n := Ticks(), Monotonic()
	for Monotonic()-n < 20e6 {
	}
	d, ns := TicksToNS(Ticks()-a), Monotonic()-n
	if d < ns-ns/50 || d > ns+ns/50 {
		t.Fatalf("%d ns by ticks, %d by the clock", d, ns)
	}
}

func BenchmarkTicks(b *testing.B) {
	for b.Loop() {
		Ticks()
	}
}
