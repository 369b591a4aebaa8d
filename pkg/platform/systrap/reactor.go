package systrap

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reactor waits for the stops of all threads whose contexts' goroutines do not spin for them: one goroutine looks at
// their slots and wakes the goroutines, which are parked as any that waits for a channel, so that a running
// application thread costs no thread of the sentry. When nothing stops it sleeps in the runtime's poller, on an
// eventfd that stub threads write to while hints.sleeping says so.
type reactor struct {
	pace  *pace
	hints *hints // sentry's mapping
	fd    int    // the eventfd; in the stubs' filter
	file  *os.File
	conn  syscall.RawConn
	work  chan struct{} // waiting is not empty any more
	quit  atomic.Bool
	done  chan struct{}

	count    atomic.Int32  // len(waiting)
	spinners atomic.Int32  // goroutines that scan while they spin
	asleep   atomic.Bool   // the goroutine sleeps, or is about to
	dozer    atomic.Bool   // a goroutine is in doze
	scanned  atomic.Uint64 // time stamp of the last scan
	yielded  atomic.Uint64 // time stamp of the last time that a spinning goroutine let others run

	gap average // of the time between stops; of the goroutine

	mu      sync.Mutex
	waiting []*thread // mu
	checked uint64    // time stamp of the last look for dead and stubborn threads; mu
}

// Intervals of goroutines that find their threads stopped again and again, so that others get their turn, in
// microseconds: how often they scan for others' threads, and let other goroutines run. The costs are about 0.1 and
// 0.3 us. Who gets a turn has threads to wake, so that turns are long: 64 threads make 2 to 3 times the calls that they make with
// turns of 100.
const (
	scanEvery  = 5
	yieldEvery = 500
	// yieldAlone is the same where there is nobody else: see spinAlone.
	yieldAlone = 2000
)

func (r *reactor) init(p *pace, h *hints) error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return err
	}
	r.pace, r.hints, r.fd = p, h, fd
	r.file = os.NewFile(uintptr(fd), "doorbell")
	r.work, r.done = make(chan struct{}, 1), make(chan struct{})
	r.conn, err = r.file.SyscallConn()
	return err
}

// run is the goroutine.
func (r *reactor) run() {
	defer close(r.done)
	for !r.quit.Load() {
		if r.count.Load() == 0 {
			<-r.work
			continue
		}
		start := rdtsc()
		if !r.scan() && !r.spin() {
			r.sleep()
		}
		r.gap.add(rdtsc()-start, spinBusy*r.pace.ticks)
		runtime.Gosched()
	}
}

// spin scans for a while if threads have been stopping often; true if one did.
func (r *reactor) spin() bool {
	if fixedPace && fixedSentry == 0 || uint64(r.gap) >= spinBusy*r.pace.ticks || 2*r.spinners.Load() >= r.pace.cpus {
		return false
	}
	r.spinning()
	defer r.spun()
	var zero uint32
	for range spinBusy {
		spinEvent(&zero, 1, 1, r.pace.pauses)
		if r.scan() {
			return true
		}
		runtime.Gosched()
	}
	return false
}

// stop ends the goroutine. All processes have been killed, so that nobody waits any more after the last scan.
func (r *reactor) stop() {
	r.quit.Store(true)
	r.tell()
	r.ring()
	<-r.done
	r.scan()
	r.file.Close()
}

// ring ends the goroutine's sleep. The descriptor is only used as long as the file is open.
func (r *reactor) ring() {
	r.conn.Control(func(fd uintptr) {
		one := [8]byte{1}
		unix.Write(int(fd), one[:])
	})
}

// sleep sleeps until the doorbell rings, for at most the time of a poll.
func (r *reactor) sleep() {
	r.file.SetReadDeadline(time.Now().Add(time.Duration(r.pace.poll.Nano())))
	armed := false
	r.conn.Read(func(fd uintptr) bool {
		if armed {
			return true
		}
		// Whatever was written so far is forgotten; what comes from here on ends the sleep, as does a thread that
		// stopped before it could see the hint.
		var b [8]byte
		syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&b)), uintptr(len(b)))
		armed = true
		r.asleep.Store(true)
		atomic.StoreUint32(&r.hints.sleeping, 1)
		if r.scan() || r.quit.Load() {
			return true
		}
		r.free()
		return false
	})
	r.asleep.Store(false)
	atomic.StoreUint32(&r.hints.sleeping, 0)
}

// free lets threads use this processor, which the sentry leaves.
func (r *reactor) free() {
	r.mu.Lock()
	for _, t := range r.waiting {
		t.avoid(noCPU)
	}
	r.mu.Unlock()
}

// scan wakes the goroutines of threads that stopped; true if there were any.
func (r *reactor) scan() (found bool) {
	now := rdtsc()
	r.scanned.Store(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	if now-r.checked > uint64(r.pace.poll.Nano())/1000*r.pace.ticks {
		r.checked = now
		r.check()
	}
	for i := 0; i < len(r.waiting); {
		t := r.waiting[i]
		if t.stopped() {
			r.drop(t)
			t.wake <- struct{}{}
			found = true
			continue
		}
		i++
	}
	return found
}

// check looks for threads that died or do not stop though they should: such a thread is hostile, as it blocked the signal,
// or hangs in the stub's code. The caller holds mu.
func (r *reactor) check() {
	for _, t := range r.waiting {
		switch {
		case t.as.isDead():
		case t.interrupt.Load() == 0:
		case t.asked.over(r.pace, 1):
			t.as.kill()
		default:
			t.kick()
		}
	}
}

// drop takes t off the list. The caller holds mu.
func (r *reactor) drop(t *thread) {
	last := len(r.waiting) - 1
	r.waiting[last].index = t.index
	r.waiting[t.index] = r.waiting[last]
	r.waiting[last] = nil
	r.waiting = r.waiting[:last]
	t.index = -1
	r.count.Store(int32(last))
}

// enlist puts t on the list. The goroutine is told under the lock: a scan may take t off at once, and what was put behind it
// would be the first of a list that nobody looks at.
func (r *reactor) enlist(t *thread) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.index = len(r.waiting)
	r.waiting = append(r.waiting, t)
	r.count.Store(int32(len(r.waiting)))
	if t.index == 0 {
		r.tell()
	}
}

// tell ends the goroutine's wait for work.
func (r *reactor) tell() {
	select {
	case r.work <- struct{}{}:
	default:
	}
}

// doze has the goroutine sleep on the slot's own word until t stopped or its process died; false if it did not for the time of a poll, or
// shall not sleep there. It saves the reactor's goroutine and its descriptor, but holds a thread of the sentry and, until the runtime notices,
// the right to run other goroutines there. So only one does, whose thread is alone.
func (r *reactor) doze(t *thread) bool {
	if !t.solo() || r.spinners.Load() != 0 || !r.dozer.CompareAndSwap(false, true) {
		return false
	}
	defer r.dozer.Store(false)
	word := &t.slot.stopSeq
	old := atomic.LoadUint32(word) & seqMask
	t.dozing.Store(true)
	if !t.stopped() && atomic.CompareAndSwapUint32(word, old, old|asleep) {
		futexWait(word, old|asleep, &r.pace.poll)
		atomic.CompareAndSwapUint32(word, old|asleep, old)
	}
	t.dozing.Store(false)
	return t.stopped()
}

// await parks the goroutine until t stopped, or its process died.
func (r *reactor) await(t *thread) {
	r.enlist(t)
	// The thread may have stopped while nobody looked and nobody said that it should ring.
	if t.stopped() {
		r.mu.Lock()
		listed := t.index >= 0
		if listed {
			r.drop(t)
		}
		r.mu.Unlock()
		if listed {
			return
		}
	}
	<-t.wake
}

// spinning says that the caller scans, so that stops need not ring.
func (r *reactor) spinning() {
	if r.spinners.Add(1) == 1 && r.asleep.Load() {
		atomic.StoreUint32(&r.hints.sleeping, 0)
	}
}

// spun is the end of spinning.
func (r *reactor) spun() {
	if r.spinners.Add(-1) == 0 && r.asleep.Load() {
		atomic.StoreUint32(&r.hints.sleeping, 1)
		r.scan()
	}
}

// share gives other threads and goroutines their turn, if it is time for that.
func (r *reactor) share(t *thread, now uint64) {
	if r.count.Load() != 0 && now-r.scanned.Load() > scanEvery*r.pace.ticks {
		r.scan()
	}
	every := uint64(yieldEvery)
	if t.solo() {
		every = yieldAlone
	}
	if now-r.yielded.Load() > every*r.pace.ticks {
		r.yielded.Store(now)
		runtime.Gosched()
	}
}
