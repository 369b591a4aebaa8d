package vfs

import (
	"time"

	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

// BlockGoroutine is the body of Context.Block for callers without signals; stop, if not nil, ends it with ErrInterrupted.
func BlockGoroutine(ch, stop <-chan struct{}, deadline int64) error {
	if deadline == NoDeadline {
		select {
		case <-ch:
			return nil
		case <-stop:
			return ErrInterrupted
		}
	}
	t := time.NewTimer(time.Duration(deadline - clock.Monotonic()))
	defer t.Stop()
	select {
	case <-ch:
		return nil
	case <-stop:
		return ErrInterrupted
	case <-t.C:
		return unix.ETIMEDOUT
	}
}

// entry takes a wait entry from the pool, so that blocking allocates nothing.
func (v *VFS) entry(l waiter.Listener, mask waiter.EventMask) *waiter.Entry {
	e, _ := v.entries.Get().(*waiter.Entry)
	if e == nil {
		e = new(waiter.Entry)
	}
	e.Init(l, mask)
	return e
}

// deadline is when a blocking transfer gives up.
func (fd *FileDescription) deadline(write bool) int64 {
	if t, ok := fd.impl.(IOTimeouter); ok {
		if d := t.IOTimeout(write); d > 0 {
			return clock.Monotonic() + d
		}
	}
	return NoDeadline
}

// BlockError turns the error of Context.Block in a transfer with the deadline into that of the system call: EAGAIN when time is up, EINTR
// where a timeout forbids to restart.
func BlockError(err error, deadline int64) error {
	switch {
	case err == unix.ETIMEDOUT:
		return unix.EAGAIN
	case err == ErrInterrupted && deadline != NoDeadline:
		return unix.EINTR
	}
	return err
}

func (fd *FileDescription) readBlocking(ctx Context, dst mm.IOSeq) (n int64, err error) {
	if fd.waitable == nil {
		return 0, unix.EAGAIN
	}
	w := ctx.Waker()
	deadline := fd.deadline(false)
	e := fd.vfs.entry(w, waiter.ReadableEvents)
	fd.waitable.EventRegister(e)
	for {
		if n, err = fd.sreader.ReadStream(ctx, dst); n > 0 || err != unix.EAGAIN {
			break
		}
		if n, err = fd.park(ctx, dst, false, deadline); n > 0 || err != nil {
			break
		}
	}
	fd.waitable.EventUnregister(e)
	fd.vfs.entries.Put(e)
	return n, err
}

// park blocks until there may be something to transfer, or the other side has transferred n bytes of seq, whatever the error.
func (fd *FileDescription) park(ctx Context, seq mm.IOSeq, write bool, deadline int64) (n int64, err error) {
	w := ctx.Waker()
	if fd.parker != nil {
		fd.parker.Park(w, seq, write)
	}
	err = BlockError(ctx.Block(w.C, deadline), deadline)
	if fd.parker != nil {
		n = fd.parker.Unpark(w, write)
	}
	return n, err
}

func (fd *FileDescription) writeBlocking(ctx Context, src mm.IOSeq, done int64) (int64, error) {
	if fd.waitable == nil {
		return done, unix.EAGAIN
	}
	w := ctx.Waker()
	deadline := fd.deadline(true)
	e := fd.vfs.entry(w, waiter.WritableEvents)
	fd.waitable.EventRegister(e)
	var err error
	for {
		var n int64
		n, err = fd.swriter.WriteStream(ctx, src.DropFirst(done))
		done += n
		if err != unix.EAGAIN {
			break
		}
		n, err = fd.park(ctx, src.DropFirst(done), true, deadline)
		done += n
		if err != nil || done == src.NumBytes() {
			break
		}
	}
	fd.waitable.EventUnregister(e)
	fd.vfs.entries.Put(e)
	return done, err
}

// WaitFor blocks until one of the events holds, or gives the error of Context.Block. For operations of sockets and terminals that do their
// own retries.
func (fd *FileDescription) WaitFor(ctx Context, mask waiter.EventMask, deadline int64) error {
	if fd.waitable == nil {
		return nil
	}
	w := ctx.Waker()
	e := fd.vfs.entry(w, mask)
	fd.waitable.EventRegister(e)
	var err error
	for err == nil && fd.waitable.Readiness(e.Mask()) == 0 {
		err = ctx.Block(w.C, deadline)
	}
	fd.waitable.EventUnregister(e)
	fd.vfs.entries.Put(e)
	return err
}
