package systrap

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Three long times of four must not end the spinning, as they would by a mean, unless others need the processor; no short one must.
func TestOdds(t *testing.T) {
	p := &pace{ticks: 1000}
	var o odds
	if !o.short.pays() || !o.brief.usual() {
		t.Fatal("a new thread does not spin")
	}
	for i := range 400 {
		us := uint64(5)
		if i%4 != 0 {
			us = 100000
		}
		o.add(us*p.ticks, spinServiceMax, p)
		if i > 50 && i%4 == 0 && (!o.short.pays() || o.brief.usual()) {
			t.Fatalf("%d: %v", i, o)
		}
	}
	for range 50 {
		o.add((spinBusy+1)*p.ticks, spinServiceMax, p)
	}
	if !o.short.pays() || o.brief.usual() {
		t.Fatal("limits", o)
	}
	for range 50 {
		o.add(^uint64(0), spinServiceMax, p)
	}
	if o.short.pays() {
		t.Fatal("spins for what never came in time", o)
	}
	for range 4 {
		o.add(0, spinServiceMax, p)
	}
	if !o.short.pays() {
		t.Fatal("a few hits do not bring it back", o)
	}
	var s spinState
	s.run = average(4 * spinRunMax * p.ticks)
	if got := s.patience(p, false); got != spinRunOften {
		t.Fatal(got)
	}
	s.runs.short = 1024
	if got := s.patience(p, false); got != 0 {
		t.Fatal(got)
	}
}

// A thread is thought to be on a processor of the sandbox, however these are numbered.
func TestNextProcessor(t *testing.T) {
	var set unix.CPUSet
	for _, c := range []int{2, 3, 70, 1023} {
		set.Set(c)
	}
	for _, c := range [][2]uint32{{2, 3}, {3, 70}, {0, 2}, {70, 1023}, {1023, 2}, {noCPU, 2}, {1 << 31, 2}} {
		if got := next(&set, c[0]); got != c[1] {
			t.Errorf("%d behind %d", got, c[0])
		}
	}
}

// A thread yields before it sleeps as long as it soon runs again; one time slice of somebody else ends that, and a few hundred stretches
// bring it back.
func TestYieldsWhileThatPays(t *testing.T) {
	p := &pace{ticks: 1000}
	var s spinState
	pays := func() bool { return s.yielded < giveWayMax*p.ticks }
	for range 100 {
		s.addYielded(10*p.ticks, true, p)
	}
	if !pays() {
		t.Fatal("short stretches do not pay", s.yielded)
	}
	s.addYielded(5000*p.ticks, true, p)
	if pays() {
		t.Fatal("a time slice of somebody else pays", s.yielded)
	}
	n := 0
	for ; !pays(); n++ {
		s.addYielded(0, false, p)
	}
	if n < 100 || n > 1000 {
		t.Fatalf("%d stretches bring it back", n)
	}
	for range 1000 {
		s.addYielded(1<<62, true, p)
	}
	if s.yielded > giveWayCap*p.ticks {
		t.Fatal("not bounded", s.yielded)
	}
}
