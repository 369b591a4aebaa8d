package pipefs

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Claim implements vfs.Pipe.
func (e *end) Claim(dst []byte) (int, error) { return e.p.claim(dst) }

// Settle implements vfs.Pipe.
func (e *end) Settle(ctx vfs.Context, n int) { e.p.settle(n, ctx.Waker()) }

// Move implements vfs.Pipe.
func (e *end) Move(ctx vfs.Context, to vfs.Pipe, n int64, keep bool) (int64, error) {
	done, err := e.p.move(to.(*end).p, n, keep, ctx.Waker())
	return done, signal(ctx, err)
}

// Put implements vfs.Pipe.
func (e *end) Put(ctx vfs.Context, src mm.IOSeq, beyond bool) (int64, error) {
	n, err := e.p.put(src, beyond, ctx.Waker())
	return n, signal(ctx, err)
}

// lock locks the content, which nobody claims then.
func (p *Pipe) lock() {
	p.mu.Lock()
	for p.claimed {
		p.settled.Wait()
	}
}

// claim copies what the content begins with to dst, and leaves it in the pipe, where nobody takes it until settle: the caller may do
// with it what takes time, but must not wait for anybody. EAGAIN if there is nothing; 0 if there is nothing and no writer; no claim then.
func (p *Pipe) claim(dst []byte) (int, error) {
	p.lock()
	defer p.mu.Unlock()
	n := min(p.data.Len(), len(dst))
	if n == 0 {
		if p.writers > 0 {
			return 0, unix.EAGAIN
		}
		return 0, nil
	}
	x, y := p.data.Peek(0, n)
	copy(dst[copy(dst, x):], y)
	p.claimed = true
	return n, nil
}

// settle ends a claim: n bytes of it were taken.
func (p *Pipe) settle(n int, by *waiter.Signal) {
	p.mu.Lock()
	full := !p.writable()
	p.consume(n)
	full = full && p.writable()
	p.claimed = false
	p.mu.Unlock()
	p.settled.Broadcast()
	if full {
		p.queue.NotifyLater(by, waiter.WritableEvents)
	}
}

// lockBoth locks the content of p, and q, another pipe.
func (p *Pipe) lockBoth(q *Pipe) {
	for {
		if uintptr(unsafe.Pointer(p)) < uintptr(unsafe.Pointer(q)) {
			p.mu.Lock()
			q.mu.Lock()
		} else {
			q.mu.Lock()
			p.mu.Lock()
		}
		if !p.claimed {
			return
		}
		q.mu.Unlock()
		p.settled.Wait()
		p.mu.Unlock()
	}
}

// move appends up to n bytes of the content of p to q, packets as packets, and leaves them in p, too, with keep. EAGAIN if p is
// empty or q full; 0 if p is empty and has no writer.
func (p *Pipe) move(q *Pipe, n int64, keep bool, by *waiter.Signal) (int64, error) {
	if p == q {
		return 0, unix.EINVAL
	}
	p.lockBoth(q)
	full := !p.writable()
	done, err := p.moveLocked(q, n)
	if !keep {
		p.consume(done)
	}
	full = full && p.writable()
	q.mu.Unlock()
	p.mu.Unlock()
	q.wrote(int64(done), 0, nil, by)
	if full {
		p.queue.NotifyLater(by, waiter.WritableEvents)
	}
	return int64(done), err
}

// moveLocked is move under both locks without taking anything from p.
func (p *Pipe) moveLocked(q *Pipe, n int64) (done int, err error) {
	left := int(min(n, int64(p.data.Len())))
	switch {
	case left == 0 && p.writers == 0:
		return 0, nil
	case q.readers == 0:
		return 0, unix.EPIPE
	}
	for i := 0; left > 0; i++ {
		k, packet := left, false
		if p.segs.Len() > 0 {
			s := p.segs.At(i)
			k, packet = min(left, s.n), s.packet
		}
		room := q.size - q.data.Len()
		if room <= 0 || packet && room < k {
			break
		}
		k = min(k, room)
		x, y := p.data.Peek(done, k)
		q.data.Append(x, q.size)
		q.data.Append(y, q.size)
		q.appended(k, packet)
		done += k
		left -= k
	}
	if done == 0 {
		return 0, unix.EAGAIN
	}
	return done, nil
}

// put appends src, not as packets, or with beyond all of it whatever the capacity: else EAGAIN, if there is room for nothing. EPIPE
// without readers.
func (p *Pipe) put(src mm.IOSeq, beyond bool, by *waiter.Signal) (n int64, err error) {
	if beyond {
		p.mu.Lock()
		if p.readers == 0 {
			err = unix.EPIPE
		} else {
			var k int
			k, err = p.append(src, int(src.NumBytes()), false)
			n = int64(k)
		}
		p.mu.Unlock()
		p.wrote(n, 0, nil, by)
		return n, err
	}
	if n, err = p.Write(src, by, false); n > 0 {
		err = nil
	}
	return n, err
}
