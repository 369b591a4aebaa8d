package kernel

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// futexBuckets is the number of hash buckets; a power of two, plenty for the number of threads that block at once.
const futexBuckets = 256

// futexManager holds all futex waiters of the sandbox.
type futexManager struct {
	buckets [futexBuckets]futexBucket
	// piMu protects the piOwner fields of waiters, for deadlock detection.
	piMu sync.Mutex
}

// futexBucket is a queue of waiters whose keys share a hash.
type futexBucket struct {
	mu    sync.Mutex
	head  *futexWaiter // protected by mu
	tail  *futexWaiter // protected by mu
	count atomic.Int32 // waiters and those about to become some
	_     [32]byte     // buckets have cache lines of their own
}

// futexWaiter is a thread in a queue. Its bucket is nil once it has been woken. Fields are protected by the lock of the bucket.
type futexWaiter struct {
	task       *Task // immutable
	key        mm.Key
	bitset     uint32
	bucket     atomic.Pointer[futexBucket]
	next, prev *futexWaiter

	// Priority inheritance.
	pi      bool   // waits for a lock, which is handed over by a wake
	addr    uint64 // of the lock, in the task's memory
	piOwner *Task  // protected by futexManager.piMu: who holds it
	// requeuePI: waits in FUTEX_WAIT_REQUEUE_PI for a requeue onto piKey.
	requeuePI bool
	piKey     mm.Key
	piAddr    uint64
}

func (w *futexWaiter) init(t *Task) { w.task = t }

func (f *futexManager) bucket(k *mm.Key) *futexBucket {
	return &f.buckets[k.Hash()%futexBuckets]
}

// add queues w. The caller holds mu and has counted w.
func (b *futexBucket) add(w *futexWaiter) {
	w.prev, w.next = b.tail, nil
	if b.tail != nil {
		b.tail.next = w
	} else {
		b.head = w
	}
	b.tail = w
	w.bucket.Store(b)
}

// remove unlinks w. The caller holds mu.
func (b *futexBucket) remove(w *futexWaiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		b.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		b.tail = w.prev
	}
	w.prev, w.next = nil, nil
	b.count.Add(-1)
}

// wake removes w and wakes its thread, on the goroutine of by, which may do that a little later: the thread of another process
// cannot have by's stub thread, and should come when by is about to wait for it. The caller holds mu.
func (b *futexBucket) wake(w *futexWaiter, by *Task) {
	b.remove(w)
	t := w.task
	w.bucket.Store(nil)
	if t.group != by.group {
		by.wake.WakeLater(&t.wake)
	} else {
		t.wake.NotifyEvent(0)
	}
}

// cancel takes w out of whatever queue it is in; false if it has been woken already.
func (w *futexWaiter) cancel() bool {
	for {
		b := w.bucket.Load()
		if b == nil {
			return false
		}
		b.mu.Lock()
		if w.bucket.Load() == b {
			b.remove(w)
			w.bucket.Store(nil)
			b.mu.Unlock()
			return true
		}
		b.mu.Unlock()
	}
}

// lockTwo locks two buckets in order of address.
func lockTwo(a, b *futexBucket) {
	if a == b {
		a.mu.Lock()
		return
	}
	if uintptr(unsafe.Pointer(a)) > uintptr(unsafe.Pointer(b)) {
		a, b = b, a
	}
	a.mu.Lock()
	b.mu.Lock()
}

func unlockTwo(a, b *futexBucket) {
	a.mu.Unlock()
	if a != b {
		b.mu.Unlock()
	}
}

// FutexWait is FUTEX_WAIT_BITSET: it waits for a wake of the word at addr, which must hold val (EAGAIN). deadline is in nanoseconds
// of CLOCK_MONOTONIC. ETIMEDOUT, vfs.ErrInterrupted.
func (t *Task) FutexWait(addr uint64, private bool, val, bitset uint32, deadline int64) error {
	if bitset == 0 {
		return unix.EINVAL
	}
	m := t.MM()
	key, err := m.FutexKey(addr, private)
	if err != nil {
		return err
	}
	w := &t.futex
	if err := t.futexQueue(w, &key, addr, val, bitset); err != nil {
		return err
	}
	return t.futexBlock(w, deadline)
}

// futexQueue queues w if the word still holds val.
func (t *Task) futexQueue(w *futexWaiter, key *mm.Key, addr uint64, val, bitset uint32) error {
	b := t.k.futexes.bucket(key)
	b.count.Add(1) // before the word is read: a waker writes it, then looks at count
	b.mu.Lock()
	v, err := t.MM().LoadUint32(addr)
	if err == nil && v != val {
		err = unix.EAGAIN
	}
	if err != nil {
		b.count.Add(-1)
		b.mu.Unlock()
		return err
	}
	w.key, w.bitset = *key, bitset
	b.add(w)
	b.mu.Unlock()
	return nil
}

// futexBlock waits until w is woken.
func (t *Task) futexBlock(w *futexWaiter, deadline int64) error {
	for w.bucket.Load() != nil {
		if err := t.Block(t.wake.C, deadline); err != nil {
			if !w.cancel() {
				return nil
			}
			return err
		}
	}
	return nil
}

// FutexWake is FUTEX_WAKE_BITSET: it wakes at most n waiters of the word at addr whose bits meet bitset, and counts them.
func (t *Task) FutexWake(addr uint64, private bool, n int32, bitset uint32) (int, error) {
	if bitset == 0 {
		return 0, unix.EINVAL
	}
	key, err := t.MM().FutexKey(addr, private)
	if err != nil {
		return 0, err
	}
	return t.futexWake(&key, n, bitset)
}

func (t *Task) futexWake(key *mm.Key, n int32, bitset uint32) (int, error) {
	b := t.k.futexes.bucket(key)
	if b.count.Load() == 0 {
		return 0, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wakeLocked(t, key, n, bitset)
}

// wakeLocked wakes up to n waiters (at least one if n is not positive, as Linux). EINVAL for waiters of a PI lock. The caller holds mu.
func (b *futexBucket) wakeLocked(by *Task, key *mm.Key, n int32, bitset uint32) (int, error) {
	done := 0
	for w := b.head; w != nil; {
		next := w.next
		if w.key == *key {
			if w.pi || w.requeuePI {
				return done, unix.EINVAL
			}
			if w.bitset&bitset != 0 {
				b.wake(w, by)
				if done++; done >= int(n) {
					break
				}
			}
		}
		w = next
	}
	return done, nil
}

// FutexRequeue is FUTEX_REQUEUE and, with cmp, FUTEX_CMP_REQUEUE: it wakes nWake waiters of addr and moves up to nMove others to addr2.
func (t *Task) FutexRequeue(addr uint64, private bool, addr2 uint64, private2 bool, nWake, nMove int32, cmp bool, val uint32) (int, error) {
	if nWake < 0 || nMove < 0 {
		return 0, unix.EINVAL
	}
	m := t.MM()
	k1, err := m.FutexKey(addr, private)
	if err != nil {
		return 0, err
	}
	k2, err := m.FutexKey(addr2, private2)
	if err != nil {
		return 0, err
	}
	b1, b2 := t.k.futexes.bucket(&k1), t.k.futexes.bucket(&k2)
	lockTwo(b1, b2)
	defer unlockTwo(b1, b2)
	if cmp {
		v, err := m.LoadUint32(addr)
		if err != nil {
			return 0, err
		}
		if v != val {
			return 0, unix.EAGAIN
		}
	}
	woken, moved := int32(0), int32(0)
	for w := b1.head; w != nil && (woken < nWake || moved < nMove); {
		next := w.next
		switch {
		case w.key != k1:
		case w.pi || w.requeuePI:
			return int(woken + moved), unix.EINVAL
		case woken < nWake:
			b1.wake(w, t)
			woken++
		default:
			moved++
			if k1 != k2 {
				b1.moveTo(b2, w, &k2)
			}
		}
		w = next
	}
	return int(woken + moved), nil
}

// moveTo requeues w under a new key. The caller holds both locks.
func (b *futexBucket) moveTo(to *futexBucket, w *futexWaiter, key *mm.Key) {
	b.remove(w)
	to.count.Add(1)
	w.key = *key
	to.add(w)
}

// FutexWakeOp is FUTEX_WAKE_OP: it changes the word at addr2 by op, wakes nWake waiters of addr and, if the old word passes op's comparison, nWake2 of
// addr2.
func (t *Task) FutexWakeOp(addr uint64, private bool, addr2 uint64, nWake, nWake2 int32, op uint32) (int, error) {
	m := t.MM()
	k1, err := m.FutexKey(addr, private)
	if err != nil {
		return 0, err
	}
	k2, err := m.FutexKey(addr2, private)
	if err != nil {
		return 0, err
	}
	fn, arg := op>>28&7, int32(op<<8)>>20
	cmp, cmpArg := op>>24&15, int32(op<<20)>>20
	if op>>28&linux.FUTEX_OP_ARG_SHIFT != 0 {
		arg = 1 << (uint32(arg) & 31)
	}
	if fn > linux.FUTEX_OP_XOR || cmp > linux.FUTEX_OP_CMP_GE {
		return 0, unix.ENOSYS
	}
	b1, b2 := t.k.futexes.bucket(&k1), t.k.futexes.bucket(&k2)
	lockTwo(b1, b2)
	defer unlockTwo(b1, b2)
	old, err := m.UpdateUint32(addr2, func(v uint32) uint32 {
		switch fn {
		case linux.FUTEX_OP_SET:
			return uint32(arg)
		case linux.FUTEX_OP_ADD:
			return v + uint32(arg)
		case linux.FUTEX_OP_OR:
			return v | uint32(arg)
		case linux.FUTEX_OP_ANDN:
			return v &^ uint32(arg)
		}
		return v ^ uint32(arg)
	})
	if err != nil {
		return 0, err
	}
	n, err := b1.wakeLocked(t, &k1, nWake, ^uint32(0))
	if err == nil && futexCompare(cmp, int32(old), cmpArg) {
		var n2 int
		n2, err = b2.wakeLocked(t, &k2, nWake2, ^uint32(0))
		n += n2
	}
	return n, err
}

func futexCompare(cmp uint32, old, arg int32) bool {
	switch cmp {
	case linux.FUTEX_OP_CMP_EQ:
		return old == arg
	case linux.FUTEX_OP_CMP_NE:
		return old != arg
	case linux.FUTEX_OP_CMP_LT:
		return old < arg
	case linux.FUTEX_OP_CMP_LE:
		return old <= arg
	case linux.FUTEX_OP_CMP_GT:
		return old > arg
	}
	return old >= arg
}

// FutexWaitv is futex_waitv(2): it waits for a wake of any of the words and returns the index of one that was woken.
func (t *Task) FutexWaitv(list []linux.FutexWaitv, deadline int64) (int, error) {
	ws := make([]futexWaiter, len(list))
	queued := 0
	cancelAll := func() (woken int) {
		woken = -1
		for i := queued - 1; i >= 0; i-- {
			if !ws[i].cancel() {
				woken = i
			}
		}
		return woken
	}
	for i := range list {
		ws[i].task = t
		addr := list[i].UAddr
		key, err := t.MM().FutexKey(addr, list[i].Flags&linux.FUTEX2_PRIVATE != 0)
		if err == nil {
			err = t.futexQueue(&ws[i], &key, addr, uint32(list[i].Val), ^uint32(0))
		}
		if err != nil {
			if w := cancelAll(); w >= 0 {
				return w, nil
			}
			return 0, err
		}
		queued++
	}
	for {
		for i := range ws {
			if ws[i].bucket.Load() == nil {
				cancelAll()
				return i, nil
			}
		}
		if err := t.Block(t.wake.C, deadline); err != nil {
			if w := cancelAll(); w >= 0 {
				return w, nil
			}
			return 0, err
		}
	}
}

// SetRobustList is set_robust_list(2); RobustList gives what it stored.
func (t *Task) SetRobustList(head uint64) { t.robust = head }

// RobustList is get_robust_list(2).
func (t *Task) RobustList() uint64 { return t.robust }

// SetClearTID is set_tid_address(2).
func (t *Task) SetClearTID(addr uint64) { t.clearTID = addr }

// exitRobust marks the robust futexes that the thread holds as abandoned and wakes a waiter of each (set_robust_list(2)).
func (t *Task) exitRobust() {
	t.exitPI()
	head := t.robust
	if head == 0 {
		return
	}
	t.robust = 0
	m := t.MM()
	h, err := mm.Read[linux.RobustListHead](m, head)
	if err != nil {
		return
	}
	pending := h.ListOpPending
	for e, n := h.List, 0; e&^1 != head && n < linux.ROBUST_LIST_LIMIT; n++ {
		at := e &^ 1
		next, err := m.ReadUint64(at)
		if at != pending&^1 && !t.abandon(at+uint64(h.FutexOffset), e&1 != 0, false) {
			return
		}
		if err != nil {
			break
		}
		e = next
	}
	if pending != 0 {
		t.abandon(pending&^1+uint64(h.FutexOffset), pending&1 != 0, true)
	}
}

// abandon marks one futex; false if it cannot be accessed.
func (t *Task) abandon(addr uint64, pi, pending bool) bool {
	if addr&3 != 0 {
		return false
	}
	m := t.MM()
	v, err := m.LoadUint32(addr)
	if err != nil {
		return false
	}
	for {
		if pending && !pi && v == 0 {
			t.FutexWake(addr, false, 1, ^uint32(0))
			return true
		}
		if v&linux.FUTEX_TID_MASK != uint32(t.TID()) {
			return true
		}
		prev, err := m.CompareAndSwapUint32(addr, v, v&linux.FUTEX_WAITERS|linux.FUTEX_OWNER_DIED)
		if err != nil {
			return false
		}
		if prev == v {
			break
		}
		v = prev
	}
	if v&linux.FUTEX_WAITERS != 0 && !pi {
		t.FutexWake(addr, false, 1, ^uint32(0))
	}
	return true
}

var _ = vfs.NoDeadline
