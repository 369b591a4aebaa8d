package kernel

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// interrupted tells whether a blocked system call must end.
func (t *Task) interrupted() bool { return t.work.Load()&interrupting != 0 }

// Interrupted tells whether something waits that ends an interruptible system call.
func (t *Task) Interrupted() bool { return t.interrupted() }

// Killed tells whether the task is to exit. Any goroutine.
func (t *Task) Killed() bool { return t.work.Load()&workExit != 0 || t.group.exiting.Load() }

// Exiting is set once the task is to exit, for what takes long and cannot ask Killed.
func (t *Task) Exiting() *atomic.Bool { return &t.dying }

// setWork sets bits and makes the task notice them, wherever it is. Any goroutine, any lock.
func (t *Task) setWork(bits uint32) {
	if bits&workExit != 0 {
		t.dying.Store(true)
	}
	if t.work.Or(bits)&bits == bits && t.where.Load() == inKernel {
		return
	}
	switch t.where.Load() {
	case inUser:
		t.ctx.Interrupt()
	case inBlock:
		t.wake.NotifyEvent(0)
	}
}

// Block implements vfs.Context: it waits for a token in ch, which is taken (nil); unix.ETIMEDOUT when deadline,
// in nanoseconds of CLOCK_MONOTONIC, has passed; vfs.ErrInterrupted when a signal or the like must be handled. Where ch is
// the task's Waker, it may also return nil without a token of the caller's: callers check their condition again.
func (t *Task) Block(ch <-chan struct{}, deadline int64) error {
	return t.block(ch, deadline, interrupting)
}

// BlockKillable is Block that only a fatal signal interrupts.
func (t *Task) BlockKillable(ch <-chan struct{}, deadline int64) error {
	return t.block(ch, deadline, workExit)
}

func (t *Task) block(ch <-chan struct{}, deadline int64, stop uint32) error {
	if deadline != vfs.NoDeadline {
		if clock.Monotonic() >= deadline {
			select {
			case <-ch:
				return nil
			default:
			}
			return unix.ETIMEDOUT
		}
		t.k.timers.Set(&t.timer, deadline)
		defer t.k.timers.Stop(&t.timer)
	}
	// The order matters: setWork looks at where after it has set its bit.
	t.where.Store(inBlock)
	defer t.leaveBlock()
	t.acct.beginBlock()
	t.ctx.Blocked()
	t.wake.Flush() // when there is a processor and a stub thread for who is woken
	if m := t.mm.Load(); m != nil {
		m.Rest()
	}
	own := (<-chan struct{})(t.wake.C)
	if ch == own {
		if t.work.Load()&stop != 0 {
			return vfs.ErrInterrupted
		}
		<-own
		if t.work.Load()&stop != 0 {
			return vfs.ErrInterrupted
		}
		if deadline != vfs.NoDeadline && clock.Monotonic() >= deadline {
			return unix.ETIMEDOUT
		}
		return nil
	}
	for {
		if t.work.Load()&stop != 0 {
			return vfs.ErrInterrupted
		}
		select {
		case <-ch:
			return nil
		case <-own:
		}
		if deadline != vfs.NoDeadline && clock.Monotonic() >= deadline {
			return unix.ETIMEDOUT
		}
	}
}

func (t *Task) leaveBlock() {
	t.where.Store(inKernel)
	t.acct.endBlock()
}

// keptVecs is the length up to which a task keeps its vector; longer ones are rare.
const keptVecs = 64

// IOVecs is memory for a vector of n ranges. It is the task's, until the next call.
func (t *Task) IOVecs(n int) []mm.AddrRange {
	if n > keptVecs {
		return make([]mm.AddrRange, n)
	}
	if n > cap(t.iovecs) {
		t.iovecs = make([]mm.AddrRange, min(max(2*n, 8), keptVecs))
	}
	return t.iovecs[:n]
}
