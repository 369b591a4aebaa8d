package pipefs

import (
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/ring"
	"husk/pkg/sentry/waiter"
)

const (
	// DefaultSize is the capacity of a new pipe in bytes (pipe(7)).
	DefaultSize = 16 * arch.PageSize
	// atomicBuf is PIPE_BUF: writes of up to so many bytes are not interleaved.
	atomicBuf = 4096
	// keepMemory is how much ring memory an empty pipe keeps.
	keepMemory = DefaultSize
)

// Pipe is a pipe or the state of a FIFO.
type Pipe struct {
	queue waiter.Queue
	anon  bool // made by pipe(2), not a FIFO; immutable

	mu        sync.Mutex
	data      ring.Bytes         // protected by mu, as is what follows
	segs      ring.List[segment] // the content as segments while it has packets; else empty
	size      int                // capacity in bytes
	readers   int                // open ends
	writers   int
	rOpens    uint64 // opens ever, so that a blocked open sees one that is closed again already
	wOpens    uint64
	hadWriter bool // a writer was there since the pipe was last wholly closed: then its absence is a hangup

	taker party // a blocked reader; what it has got was never in the pipe for others
	giver party // a blocked writer

	claimed bool      // content is being moved elsewhere (claim): who takes content waits for settled
	settled sync.Cond // on mu
}

// segment is n bytes of content; a packet (O_DIRECT) is read by itself.
type segment struct {
	n      int
	packet bool
}

// New makes a pipe without open ends.
func New() *Pipe {
	p := &Pipe{size: DefaultSize}
	p.settled.L = &p.mu
	return p
}

// Read takes content into dst, on the goroutine of by. EAGAIN if there is none; 0 if there is none and no writer.
func (p *Pipe) Read(dst mm.IOSeq, by *waiter.Signal) (int64, error) {
	want := dst.NumBytes()
	if want == 0 {
		return 0, nil
	}
	p.lock()
	full := !p.writable()
	n, err := p.read(dst, want)
	full = full && p.writable()
	p.mu.Unlock()
	if full { // without the lock, which who wakes up takes
		p.queue.NotifyLater(by, waiter.WritableEvents)
	}
	return n, err
}

// read is Read with mu held.
func (p *Pipe) read(dst mm.IOSeq, want int64) (int64, error) {
	n := p.data.Len()
	if n == 0 {
		if n := p.fetch(dst, int64(p.size)); n > 0 {
			return n, nil
		}
		if p.writers == 0 {
			return 0, nil
		}
		return 0, unix.EAGAIN
	}
	drop := 0 // rest of a packet that did not fit
	if p.segs.Len() > 0 {
		if s := p.segs.At(0); s.packet {
			n = s.n
			drop = max(n-int(min(want, int64(n))), 0)
		} else {
			n = s.n
		}
	}
	if want < int64(n) {
		n = int(want)
	}
	done, err := copyOut(&p.data, 0, n, dst)
	if err == nil {
		done += drop
	} else {
		drop = 0
	}
	p.consume(done)
	done -= drop
	if done > 0 {
		return int64(done), nil
	}
	return 0, err
}

// copyOut copies n bytes of content, skip bytes behind the front, to dst.
func copyOut(b *ring.Bytes, skip, n int, dst mm.IOSeq) (int, error) {
	x, y := b.Peek(skip, n)
	done, err := dst.CopyOut(x)
	if err == nil && len(y) > 0 {
		var k int
		k, err = dst.DropFirst(int64(done)).CopyOut(y)
		done += k
	}
	return done, err
}

// consume drops n bytes of content.
func (p *Pipe) consume(n int) {
	p.data.Consume(n)
	for n > 0 && p.segs.Len() > 0 {
		s := p.segs.At(0)
		k := min(s.n, n)
		s.n -= k
		n -= k
		if s.n == 0 {
			p.segs.Pop()
		}
	}
	if p.data.Len() == 0 {
		p.data.Shrink(keepMemory)
	}
}

// writable is when poll(2) says so: a write of PIPE_BUF bytes would not block.
func (p *Pipe) writable() bool { return p.size-p.data.Len() >= atomicBuf }

// Write appends src; packet makes each PIPE_BUF bytes of it a packet (O_DIRECT). EPIPE without readers (the caller raises
// SIGPIPE), EAGAIN with the number of bytes written so far when the pipe is full.
func (p *Pipe) Write(src mm.IOSeq, by *waiter.Signal, packet bool) (int64, error) {
	p.mu.Lock()
	done, handed, err := p.write(src, packet)
	reader := p.taker.sig
	p.mu.Unlock()
	p.wrote(done, handed, reader, by)
	if done > 0 && err != unix.EAGAIN {
		err = nil
	}
	return done, err
}

// wrote wakes who waits for content when done bytes were written, of which handed went to the blocked reader. mu is not held: who
// wakes up takes it.
func (p *Pipe) wrote(done, handed int64, reader, by *waiter.Signal) {
	if handed > 0 {
		by.WakeLater(reader)
	}
	if done > handed {
		p.queue.NotifyLater(by, waiter.ReadableEvents)
	}
}

// write is Write with mu held; handed is what of it went to a blocked reader.
func (p *Pipe) write(src mm.IOSeq, packet bool) (done, handed int64, err error) {
	total := src.NumBytes()
	if p.readers == 0 {
		return 0, 0, unix.EPIPE
	}
	if !packet {
		handed = p.hand(src, total <= atomicBuf)
		done = handed
	}
	for done < total {
		left := total - done
		if packet {
			left = min(left, atomicBuf)
		}
		room := int64(p.size - p.data.Len())
		if room < left && (left <= atomicBuf && done == 0 || packet || room <= 0) {
			err = unix.EAGAIN
			break
		}
		var n int
		n, err = p.append(src.DropFirst(done), int(min(left, room)), packet)
		done += int64(n)
		if err != nil {
			break
		}
	}
	return done, handed, err
}

// append copies n bytes of src to the end of the content.
func (p *Pipe) append(src mm.IOSeq, n int, packet bool) (int, error) {
	x, y := p.data.Reserve(n, p.size)
	done, err := src.CopyIn(x)
	if err == nil && len(y) > 0 {
		var k int
		k, err = src.DropFirst(int64(done)).CopyIn(y)
		done += k
	}
	if done == 0 {
		return 0, err
	}
	p.data.Commit(done)
	p.appended(done, packet)
	return done, err
}

// appended notes that the last n bytes of the content are new.
func (p *Pipe) appended(n int, packet bool) {
	switch count := p.segs.Len(); {
	case !packet && count == 0:
	case !packet && !p.segs.At(count-1).packet:
		p.segs.At(count - 1).n += n
	default:
		if old := p.data.Len() - n; count == 0 && old > 0 {
			p.segs.Push(segment{old, false})
		}
		p.segs.Push(segment{n, packet})
	}
}

// Readiness is what poll(2) says of an end.
func (p *Pipe) readiness(read, write bool) waiter.EventMask {
	p.mu.Lock()
	defer p.mu.Unlock()
	var m waiter.EventMask
	if read {
		if p.data.Len() > 0 {
			m |= waiter.ReadableEvents
		}
		if p.writers == 0 && p.hadWriter {
			m |= waiter.EventHUp
		}
	}
	if write {
		if p.writable() {
			m |= waiter.WritableEvents
		}
		if p.readers == 0 {
			m |= waiter.EventErr
		}
	}
	return m
}

// Len is the number of unread bytes (FIONREAD).
func (p *Pipe) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.data.Len()
}

// Size is the capacity in bytes (F_GETPIPE_SZ).
func (p *Pipe) Size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size
}

// SetSize changes the capacity to want, rounded up to a power of two pages (F_SETPIPE_SZ), and returns it. limit is
// /proc/sys/fs/pipe-max-size for unprivileged callers: EPERM beyond it. EBUSY if the content would not fit, EINVAL for sizes
// that cannot be.
func (p *Pipe) SetSize(want uint64, limit int) (int, error) {
	if want > 1<<31 {
		return 0, unix.EINVAL
	}
	size := arch.PageSize
	for uint64(size) < want {
		size *= 2
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if size > p.size && size > limit {
		return 0, unix.EPERM
	}
	if size < p.data.Len() {
		return 0, unix.EBUSY
	}
	was := p.writable()
	p.size = size
	p.data.Shrink(size)
	if !was && p.writable() {
		p.queue.Notify(waiter.WritableEvents)
	}
	return size, nil
}

// open counts an end in.
func (p *Pipe) open(read, write bool) {
	p.mu.Lock()
	if read {
		p.readers++
		p.rOpens++
	}
	if write {
		p.writers++
		p.wOpens++
		p.hadWriter = true
	}
	p.mu.Unlock()
	// Blocked opens of the other end wait for any event.
	p.queue.Notify(waiter.ReadableEvents | waiter.WritableEvents)
}

// close counts an end out; the content goes with the last.
func (p *Pipe) close(read, write bool) {
	p.mu.Lock()
	var m waiter.EventMask
	if read {
		if p.readers--; p.readers == 0 {
			m |= waiter.WritableEvents | waiter.EventErr
		}
	}
	if write {
		if p.writers--; p.writers == 0 {
			m |= waiter.ReadableEvents | waiter.EventHUp
		}
	}
	if p.readers == 0 && p.writers == 0 {
		p.data.Reset()
		p.segs = ring.List[segment]{}
		p.hadWriter = false
	}
	p.mu.Unlock()
	if m != 0 {
		p.queue.Notify(m)
	}
}
