package systrap

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReactor has threads stop while goroutines begin to wait for them, and others scan: whoever waits is woken. There are no
// processes behind the threads; only their slots count.
func TestReactor(t *testing.T) {
	p := &systrap{}
	p.pace.calibrate()
	r := &p.reactor
	if err := r.init(&p.pace, new(hints)); err != nil {
		t.Fatal(err)
	}
	// No poll may find what was missed.
	p.pace.poll, r.checked = unix.Timespec{Sec: 3600}, rdtsc()
	go r.run()
	defer r.stop()
	const threads, rounds = 4, 100000
	var done sync.WaitGroup
	for range threads {
		th := &thread{as: &addressSpace{p: p}, slot: new(slot), wake: make(chan struct{}, 1), index: -1, away: noCPU}
		goes := make(chan uint32, 1)
		go func() { // what the stub does
			for seq := range goes {
				atomic.StoreUint32(&th.slot.stopSeq, seq)
				if atomic.LoadUint32(&r.hints.sleeping) != 0 {
					r.ring()
				}
			}
		}()
		done.Go(func() {
			defer close(goes)
			for seq := range uint32(rounds) {
				th.seq = seq + 1
				goes <- seq + 1
				if seq%5 != 0 {
					r.scan() // as share does
				}
				r.await(th)
			}
		})
	}
	all := make(chan struct{})
	go func() { done.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(20 * time.Second):
		t.Fatal("a goroutine waits for a thread that has stopped")
	}
}

// TestReactorTold holds that whoever finds the list empty tells the reactor's goroutine, even if a scan takes that thread off
// before the goroutine looks.
func TestReactorTold(t *testing.T) {
	p := &systrap{}
	p.pace.calibrate()
	r := &reactor{pace: &p.pace, work: make(chan struct{}, 1), checked: rdtsc()}
	var th [2]*thread
	for i := range th {
		th[i] = &thread{as: &addressSpace{p: p}, slot: new(slot), wake: make(chan struct{}, 1), index: -1, seq: 1}
		r.enlist(th[i])
	}
	th[0].slot.stopSeq = 1
	if !r.scan() || r.count.Load() != 1 || th[1].index != 0 || len(r.work) != 1 {
		t.Fatalf("%d on the list, the second at %d, %d told", r.count.Load(), th[1].index, len(r.work))
	}
}
