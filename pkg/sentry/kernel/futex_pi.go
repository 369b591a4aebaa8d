package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/mm"
)

// FutexLockPI is FUTEX_LOCK_PI and, with try, FUTEX_TRYLOCK_PI. Waiters get the lock in the order of their arrival; real
// priorities are not inherited, as every thread of the sandbox has the same. EDEADLK, ESRCH (the owner is gone), EAGAIN, ETIMEDOUT,
// linux.ERESTARTNOINTR.
func (t *Task) FutexLockPI(addr uint64, private bool, deadline int64, try bool) error {
	m := t.MM()
	key, err := m.FutexKey(addr, private)
	if err != nil {
		return err
	}
	f := &t.k.futexes
	b := f.bucket(&key)
	w := &t.futex
	b.count.Add(1)
	b.mu.Lock()
	owner, got, err := t.tryLockPI(b, addr, &key, t, try)
	if got || err != nil || try {
		b.count.Add(-1)
		b.mu.Unlock()
		if err == nil && !got {
			err = unix.EAGAIN
		}
		return err
	}
	if f.closesCycle(t, owner) {
		b.count.Add(-1)
		b.mu.Unlock()
		return unix.EDEADLK
	}
	w.key, w.bitset, w.pi, w.addr = key, ^uint32(0), true, addr
	f.setOwner(w, owner)
	b.add(w)
	b.mu.Unlock()
	return t.waitPI(w, deadline)
}

// waitPI waits until the lock has been handed to w.
func (t *Task) waitPI(w *futexWaiter, deadline int64) error {
	err := t.futexBlock(w, deadline)
	t.k.futexes.setOwner(w, nil)
	w.pi = false
	if err == linux.ERESTARTSYS {
		err = linux.ERESTARTNOINTR
	}
	return err
}

// tryLockPI takes the lock at addr for task forT, or marks it as waited for and finds its owner. The caller holds b.mu.
func (t *Task) tryLockPI(b *futexBucket, addr uint64, key *mm.Key, forT *Task, try bool) (owner *Task, got bool, err error) {
	m := t.MM()
	tid := uint32(forT.TID())
	v, err := m.LoadUint32(addr)
	for err == nil {
		holder := v & linux.FUTEX_TID_MASK
		if holder == tid {
			return nil, false, unix.EDEADLK
		}
		want := v | linux.FUTEX_WAITERS
		if holder == 0 {
			if want = tid | v&linux.FUTEX_OWNER_DIED; b.hasPI(key) {
				want |= linux.FUTEX_WAITERS
			}
		} else if try {
			return nil, false, nil
		} else if owner = t.PIDNS().TaskByTID(int32(holder)); owner == nil || owner.exit.done.Load() {
			if v&linux.FUTEX_OWNER_DIED == 0 {
				return nil, false, unix.ESRCH
			}
		}
		var prev uint32
		if prev, err = m.CompareAndSwapUint32(addr, v, want); err == nil && prev == v {
			return owner, holder == 0, nil
		}
		v = prev
	}
	return nil, false, err
}

// hasPI tells whether somebody waits for the lock key. The caller holds mu.
func (b *futexBucket) hasPI(key *mm.Key) bool { return b.firstPI(key) != nil }

func (b *futexBucket) firstPI(key *mm.Key) *futexWaiter {
	for w := b.head; w != nil; w = w.next {
		if w.pi && w.key == *key {
			return w
		}
	}
	return nil
}

// FutexUnlockPI is FUTEX_UNLOCK_PI: it hands the lock to the first waiter. EPERM if t does not hold it.
func (t *Task) FutexUnlockPI(addr uint64, private bool) error {
	m := t.MM()
	key, err := m.FutexKey(addr, private)
	if err != nil {
		return err
	}
	b := t.k.futexes.bucket(&key)
	b.mu.Lock()
	defer b.mu.Unlock()
	v, err := m.LoadUint32(addr)
	if err != nil {
		return err
	}
	if v&linux.FUTEX_TID_MASK != uint32(t.TID()) {
		return unix.EPERM
	}
	return t.handOver(m, b, &key, addr, v, 0)
}

// handOver gives the lock, whose word is v, to the next waiter or frees it; flags are added to the new word. The caller holds b.mu.
func (t *Task) handOver(m *mm.MemoryManager, b *futexBucket, key *mm.Key, addr uint64, v, flags uint32) error {
	w := b.firstPI(key)
	for {
		next := flags
		if w != nil {
			next |= uint32(w.task.TID())
			if b.morePI(w) {
				next |= linux.FUTEX_WAITERS
			}
		}
		prev, err := m.CompareAndSwapUint32(addr, v, next)
		if err != nil {
			return err
		}
		if prev == v {
			break
		}
		v = prev
	}
	if w != nil {
		t.k.futexes.setOwner(w, nil) // at once, lest somebody who waits for w's thread sees a cycle
		b.wake(w, t)
		t.k.futexes.newOwner(b, key, w.task)
	}
	return nil
}

// morePI tells whether others wait for the same lock behind w. The caller holds mu.
func (b *futexBucket) morePI(w *futexWaiter) bool {
	for o := w.next; o != nil; o = o.next {
		if o.pi && o.key == w.key {
			return true
		}
	}
	return false
}

// setOwner records whom w waits for.
func (f *futexManager) setOwner(w *futexWaiter, owner *Task) {
	f.piMu.Lock()
	if w.piOwner != nil {
		w.piOwner.piWaiters--
	}
	if w.piOwner = owner; owner != nil {
		owner.piWaiters++
	}
	f.piMu.Unlock()
}

// newOwner records that the remaining waiters of key wait for t. The caller holds b.mu.
func (f *futexManager) newOwner(b *futexBucket, key *mm.Key, t *Task) {
	for w := b.head; w != nil; w = w.next {
		if w.pi && w.key == *key {
			f.setOwner(w, t)
		}
	}
}

// closesCycle tells whether t waiting for owner would be a deadlock.
func (f *futexManager) closesCycle(t, owner *Task) bool {
	f.piMu.Lock()
	defer f.piMu.Unlock()
	for n := 0; owner != nil && n < 1024; n++ {
		if owner == t {
			return true
		}
		owner = owner.futex.piOwner
	}
	return false
}

// exitPI hands over the locks that the exiting thread holds and others wait for.
func (t *Task) exitPI() {
	f := &t.k.futexes
	f.piMu.Lock()
	n := t.piWaiters
	f.piMu.Unlock()
	if n == 0 {
		return
	}
	m := t.MM()
	for i := range f.buckets {
		b := &f.buckets[i]
		if b.count.Load() == 0 {
			continue
		}
		b.mu.Lock()
		for w := b.head; w != nil; {
			if w.pi && w.piOwner == t {
				f.setOwner(w, nil)
				wm := w.task.MM()
				if wm == nil {
					wm = m
				}
				if v, err := wm.LoadUint32(w.addr); err == nil && v&linux.FUTEX_TID_MASK == uint32(t.TID()) {
					key := w.key
					t.handOver(wm, b, &key, w.addr, v, linux.FUTEX_OWNER_DIED)
					w = b.head
					continue
				}
			}
			w = w.next
		}
		b.mu.Unlock()
	}
}

// FutexWaitRequeuePI is FUTEX_WAIT_REQUEUE_PI: it waits at addr until FUTEX_CMP_REQUEUE_PI moves it to the lock at addr2, and then for the lock.
func (t *Task) FutexWaitRequeuePI(addr uint64, private bool, val, bitset uint32, deadline int64, addr2 uint64) error {
	if addr == addr2 || bitset == 0 {
		return unix.EINVAL
	}
	m := t.MM()
	key, err := m.FutexKey(addr, private)
	if err != nil {
		return err
	}
	key2, err := m.FutexKey(addr2, private)
	if err != nil {
		return err
	}
	if key == key2 {
		return unix.EINVAL
	}
	w := &t.futex
	w.requeuePI, w.piKey, w.piAddr = true, key2, addr2
	if err := t.futexQueue(w, &key, addr, val, bitset); err != nil {
		w.requeuePI = false
		return err
	}
	err = t.futexBlock(w, deadline)
	moved := !w.requeuePI
	w.requeuePI = false
	t.k.futexes.setOwner(w, nil)
	w.pi = false
	if err == linux.ERESTARTSYS {
		if moved {
			return unix.EAGAIN
		}
		return linux.ERESTARTNOINTR
	}
	return err
}

// FutexRequeuePI is FUTEX_CMP_REQUEUE_PI: waiters of addr move to the lock at addr2; the first gets it if it is free.
func (t *Task) FutexRequeuePI(addr uint64, private bool, addr2 uint64, nWake, nMove int32, val uint32) (int, error) {
	if nWake != 1 || nMove < 0 {
		return 0, unix.EINVAL
	}
	m := t.MM()
	k1, err := m.FutexKey(addr, private)
	if err != nil {
		return 0, err
	}
	k2, err := m.FutexKey(addr2, private)
	if err != nil {
		return 0, err
	}
	if k1 == k2 {
		return 0, unix.EINVAL
	}
	f := &t.k.futexes
	b1, b2 := f.bucket(&k1), f.bucket(&k2)
	lockTwo(b1, b2)
	defer unlockTwo(b1, b2)
	v, err := m.LoadUint32(addr)
	if err != nil {
		return 0, err
	}
	if v != val {
		return 0, unix.EAGAIN
	}
	n := 0
	for w := b1.head; w != nil && n < int(nWake+nMove); {
		next := w.next
		if w.key != k1 {
			w = next
			continue
		}
		if !w.requeuePI || w.piKey != k2 {
			return n, unix.EINVAL
		}
		owner, got, err := t.tryLockPI(b2, addr2, &k2, w.task, false)
		if err != nil {
			return n, err
		}
		w.requeuePI = false
		if got {
			b1.wake(w, t)
			f.newOwner(b2, &k2, w.task)
		} else {
			w.pi, w.addr = true, w.piAddr
			f.setOwner(w, owner)
			b1.moveTo(b2, w, &k2)
		}
		n++
		w = next
	}
	return n, nil
}
