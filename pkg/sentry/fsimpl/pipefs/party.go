package pipefs

import (
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/waiter"
)

// party is a task that is blocked in a read or a write and lets the other side do the transfer.
type party struct {
	sig  *waiter.Signal // its Waker; nil if there is no such task
	seq  mm.IOSeq       // what is left to transfer
	done int64          // what was transferred
}

// use counts n bytes that were transferred.
func (y *party) use(n int64) {
	y.seq = y.seq.DropFirst(n)
	y.done += n
}

// party of a side.
func (p *Pipe) party(write bool) *party {
	if write {
		return &p.giver
	}
	return &p.taker
}

// park is vfs.StreamParker's Park. The pipe is empty where a reader is blocked, or the writer that filled it in between has sent a
// token; and likewise full for a writer.
func (p *Pipe) park(by *waiter.Signal, seq mm.IOSeq, write bool) {
	p.mu.Lock()
	if y := p.party(write); y.sig == nil {
		*y = party{sig: by, seq: seq}
	}
	p.mu.Unlock()
}

func (p *Pipe) unpark(by *waiter.Signal, write bool) (n int64) {
	p.mu.Lock()
	if y := p.party(write); y.sig == by {
		n = y.done
		*y = party{}
	}
	p.mu.Unlock()
	return n
}

// hand copies what src begins with to the blocked reader, as if it were in the pipe already when the reader wakes up: as much as the
// pipe could hold, and what is to be written in one piece either wholly or not at all. 0 if it must go into the pipe. mu is held.
func (p *Pipe) hand(src mm.IOSeq, whole bool) int64 {
	y := &p.taker
	if y.sig == nil || p.data.Len() > 0 {
		return 0
	}
	left := src.NumBytes()
	n := min(left, y.seq.NumBytes(), int64(p.size)-y.done)
	if n <= 0 || whole && n < left || !mm.CopyResident(y.seq, src, n) {
		return 0
	}
	y.use(n)
	return n
}

// fetch copies up to n bytes of what the blocked writer has left to dst, as if the writer had come before to fill the empty pipe: 0
// if it must do that itself, for which it has got a token. mu is held.
func (p *Pipe) fetch(dst mm.IOSeq, n int64) int64 {
	y := &p.giver
	if y.sig == nil || p.data.Len() > 0 {
		return 0
	}
	n = min(n, y.seq.NumBytes(), dst.NumBytes())
	if n <= 0 || !mm.CopyResident(dst, y.seq, n) {
		return 0
	}
	y.use(n)
	return n
}
