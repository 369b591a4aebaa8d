package systrap

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
)

// Changes of an address space in which no context runs are put off until one enters it. Its stub thread then hands the batch to
// the memory thread and waits for it, on its own processor. That takes two switches between threads of one process, and no other processor
// has anything of that process cached. When the sentry waits for the memory thread instead, on its own processor, it pays for
// two changes of address spaces and, as the stub thread may still be spinning, for an interrupt of the other processor: in a virtual machine
// 40 to 200 us in all, against 10.
//
// A hostile thread may skip the wait, or have said that it stopped when it did not. It then uses what it should have
// lost. So nobody else may get that before the memory thread has confirmed the batch: see platform.Deferrer.

// queueMax is how many changes are put off at most. More than that come at the start of a program only.
const queueMax = ringOps / 2

// deferred is the state of an address space's changes that were put off. Changed under addressSpace.mu.
type deferred struct {
	queue  []op   // its ticket is posts+1
	posts  uint64 // batches so far
	done   uint64 // the number of those that are done
	posted bool   // nobody waits for the last one

	// some is set before the queue is filled, and cleared when all is done. Who enters looks at it after he was counted in active, who
	// fills the queue looks at active after he has set it: one of them sees the other.
	some   atomic.Bool
	active atomic.Int32 // contexts that are in application code or about to be
}

// Defer implements platform.Deferrer.
func (a *addressSpace) Defer(ops []platform.MapOp) (ticket uint64, err error) {
	if !validOps(ops) {
		return 0, unix.EINVAL
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.start() != nil || a.dead.Load() {
		return 0, unix.ESRCH
	}
	d := &a.deferred
	d.some.Store(true)
	if d.active.Load() != 0 || len(d.queue)+len(ops) > queueMax {
		err := a.apply(ops)
		return d.done, err
	}
	for i := range ops {
		d.queue = append(d.queue, mapCall(&ops[i]))
	}
	return d.posts + 1, nil
}

// Done implements platform.Deferrer.
func (a *addressSpace) Done() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.collect()
	return a.deferred.done
}

// Settle implements platform.Deferrer.
func (a *addressSpace) Settle() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.settle() != nil {
		return unix.ESRCH
	}
	return nil
}

// settle makes the changes that have been put off. The caller holds mu.
func (a *addressSpace) settle() error {
	d := &a.deferred
	if d.posted {
		a.wakeMemory() // perhaps no thread got that far
		if err := a.confirm(); err != nil {
			return err
		}
	}
	if len(d.queue) != 0 {
		a.bringMemory()
		a.hand()
		a.wakeMemory()
		if err := a.confirm(); err != nil {
			return err
		}
	}
	d.some.Store(false)
	return nil
}

// hand makes the queue the memory thread's batch. The caller holds mu.
func (a *addressSpace) hand() {
	d := &a.deferred
	a.prepare(a.p.seq.Add(1), d.queue)
	d.queue = d.queue[:0]
	d.posts++
	d.posted = true
}

// collect notes that the batch that nobody waits for is done, if it is. The caller holds mu.
func (a *addressSpace) collect() {
	if a.deferred.posted && atomic.LoadUint32(&a.done.state) == doneReady {
		a.confirm()
	}
}

// confirm waits for the end of the batch that hand started. Nobody who wanted a change can be told any more that it failed: the
// process ends. The caller holds mu.
func (a *addressSpace) confirm() error {
	d := &a.deferred
	r, err := a.await()
	if err == nil && r < 0 && r > -4096 {
		err = fmt.Errorf("systrap: the host refuses a change of memory: %w", unix.Errno(-r))
		a.failure.Store(&err)
		a.kill()
	}
	if err != nil {
		return errDead
	}
	d.posted, d.done = false, d.posts
	return nil
}

// death is why the process died.
func (a *addressSpace) death() error {
	if err := a.failure.Load(); err != nil {
		return *err
	}
	return errDead
}

// bring hands what has been put off to the memory thread, and tells the thread, which is about to run, to wait for it. running is how many
// contexts do, all in all.
func (t *thread) bring(running int32) {
	a := t.as
	a.mu.Lock()
	defer a.mu.Unlock()
	d := &a.deferred
	a.collect()
	if d.posted && len(d.queue) != 0 {
		a.settle()
	}
	if len(d.queue) != 0 {
		if atomic.LoadUint32(&t.slot.goSeq)&asleep != 0 {
			t.keepAway(cpuNumber(), running) // as resume is going to: it says where the thread will run
		}
		if a.p.pace.affinity.IsSet(int(t.cpu)) { // it comes from the slot, which may be hostile
			a.placeMemory(t.cpu)
		}
		a.hand()
	}
	if !d.posted {
		d.some.Store(false)
		return
	}
	s := t.slot
	atomic.StoreUint32(&s.before, atomic.LoadUint32(&s.before)|awaitBatch)
}
