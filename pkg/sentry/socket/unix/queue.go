package unix

import (
	"sync"
	"sync/atomic"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/ring"
	"husk/pkg/sentry/socket"
	"husk/pkg/sentry/vfs"
)

// message describes a piece of a queue's bytes. Streams join pieces that no reader could tell apart.
type message struct {
	n      int
	cred   socket.Ucred
	from   *string // sender's name; nil: unnamed
	rights []*vfs.FileDescription
}

// queue is what a socket has received and nobody has read.
type queue struct {
	// closed: nothing will be queued any more: readers find the end of file, writers EPIPE. Written under mu.
	closed atomic.Bool

	mu      sync.Mutex
	data    ring.Bytes         // protected by mu, as is what follows
	msgs    ring.List[message] // sum of n is data.Len()
	rights  int                // number of msgs with rights
	blocked []*Socket          // senders of datagrams that wait for room
	free    []*Socket          // memory of blocked for reuse
}

// keepMemory is how much ring memory an empty queue keeps.
const keepMemory = 64 << 10

// noLimit lets the ring grow in powers of two: what is queued has been checked.
const noLimit = 1 << 31

// room is how many more bytes a sender with the given SO_SNDBUF may queue; at most 0 if none.
func (q *queue) room(sendBuf int32) int { return int(sendBuf) - q.data.Len() }

// appendBytes copies n bytes of src to the end. The bytes are not part of a message yet.
func (q *queue) appendBytes(src mm.IOSeq, n int) (int, error) {
	x, y := q.data.Reserve(n, noLimit)
	done, err := src.CopyIn(x)
	if err == nil && len(y) > 0 {
		var k int
		k, err = src.DropFirst(int64(done)).CopyIn(y)
		done += k
	}
	q.data.Commit(done)
	return done, err
}

// copyOut copies n bytes, skip bytes behind the front, to dst.
func (q *queue) copyOut(skip, n int, dst mm.IOSeq) (int, error) {
	x, y := q.data.Peek(skip, n)
	done, err := dst.CopyOut(x)
	if err == nil && len(y) > 0 {
		var k int
		k, err = dst.DropFirst(int64(done)).CopyOut(y)
		done += k
	}
	return done, err
}

// push appends a message; with join it may become part of the last one.
func (q *queue) push(m message, join bool) {
	if k := q.msgs.Len(); join && k > 0 && m.rights == nil {
		if last := q.msgs.At(k - 1); last.rights == nil && last.cred == m.cred {
			last.n += m.n
			return
		}
	}
	if m.rights != nil {
		q.rights++
	}
	q.msgs.Push(m)
}

// take drops n bytes of the first message, and the message if that is all of it or whole is set.
func (q *queue) take(n int, whole bool) {
	m := q.msgs.At(0)
	if whole {
		n = m.n
	}
	q.data.Consume(n)
	if m.n -= n; m.n == 0 {
		q.msgs.Pop()
	}
	if q.data.Len() == 0 {
		q.data.Shrink(keepMemory)
	}
}

// takeRights removes the files of the first message.
func (q *queue) takeRights() []*vfs.FileDescription {
	m := q.msgs.At(0)
	r := m.rights
	if r != nil {
		m.rights = nil
		q.rights--
	}
	return r
}

// await notes that s waits for room; mu is held.
func (q *queue) await(s *Socket) {
	for _, x := range q.blocked {
		if x == s {
			return
		}
	}
	q.blocked = append(q.blocked, s)
}

// unblock returns the waiting senders and forgets them; mu is held. The result is given back by recycle.
func (q *queue) unblock() []*Socket {
	if len(q.blocked) == 0 {
		return nil
	}
	b := q.blocked
	q.blocked, q.free = q.free[:0], nil
	return b
}

// drain empties the queue and returns the files in it; mu is held.
func (q *queue) drain() (files []*vfs.FileDescription) {
	for q.msgs.Len() > 0 {
		m := q.msgs.Pop()
		files = append(files, m.rights...)
	}
	q.rights = 0
	q.data.Reset()
	q.msgs = ring.List[message]{}
	return files
}
