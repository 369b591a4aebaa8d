package unix

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"
)

// rights keeps account of files that are in flight: in the queue of a socket. A socket all of whose
// references are in flight, in queues of sockets of which the same holds, can never be received; collect finds and
// closes those.
type rights struct {
	mu       sync.Mutex
	sockets  map[*Socket]int // protected by mu: sockets in flight, and how many references
	files    atomic.Int64    // files in flight
	released atomic.Int64    // sockets released since the last collection
	dropping bool            // protected by dropMu: somebody closes files already
	dropMu   sync.Mutex
	drop     []*vfs.FileDescription // protected by dropMu: files to close
}

// charge checks the limit of files in flight: RLIMIT_NOFILE, which CAP_SYS_RESOURCE and CAP_SYS_ADMIN override; ETOOMANYREFS.
func (r *rights) charge(t *kernel.Task, n int) error {
	if t == nil || uint64(r.files.Load())+uint64(n) <= t.Limits().Get(unix.RLIMIT_NOFILE).Cur {
		return nil
	}
	if t.HasCap(unix.CAP_SYS_RESOURCE) || t.HasCap(unix.CAP_SYS_ADMIN) {
		return nil
	}
	return unix.ETOOMANYREFS
}

// add counts files that have been queued; mu is held.
func (r *rights) add(files []*vfs.FileDescription) {
	r.files.Add(int64(len(files)))
	for _, f := range files {
		if s, ok := f.Impl().(*Socket); ok {
			if r.sockets == nil {
				r.sockets = make(map[*Socket]int)
			}
			r.sockets[s]++
		}
	}
}

// remove counts files that have left a queue; mu is held.
func (r *rights) remove(files []*vfs.FileDescription) {
	r.files.Add(-int64(len(files)))
	for _, f := range files {
		if s, ok := f.Impl().(*Socket); ok {
			if r.sockets[s]--; r.sockets[s] == 0 {
				delete(r.sockets, s)
			}
		}
	}
}

// purge empties a queue and closes the files in it.
func (r *rights) purge(q *queue) {
	q.mu.Lock()
	some := q.rights > 0
	if !some {
		q.drain()
	}
	q.mu.Unlock()
	if !some {
		return
	}
	r.mu.Lock()
	q.mu.Lock()
	files := q.drain()
	q.mu.Unlock()
	r.remove(files)
	r.mu.Unlock()
	r.close(files)
}

// close drops references. Closing a socket drops those in its queue and so on: a list takes the place of recursion,
// whose depth the application could choose.
func (r *rights) close(files []*vfs.FileDescription) {
	r.dropMu.Lock()
	r.drop = append(r.drop, files...)
	if r.dropping {
		r.dropMu.Unlock()
		return
	}
	r.dropping = true
	for len(r.drop) > 0 {
		f := r.drop[len(r.drop)-1]
		r.drop = r.drop[:len(r.drop)-1]
		r.dropMu.Unlock()
		f.DecRef()
		r.dropMu.Lock()
	}
	r.drop, r.dropping = nil, false
	r.dropMu.Unlock()
}

// collectEvery is how many files may be in flight for each release of a socket since the last collection, which looks at all of them: so
// the releases of many pay for few, and what can no longer be reached stays at most for as long as an eighth of them.
const collectEvery = 8

// collectAll closes sockets that can no longer be reached, now and then. While somebody closes a list of files, whatever is released
// leaves this to him: it is done once behind the list and not for each member.
func (r *rights) collectAll() {
	n := r.files.Load()
	if n == 0 || r.released.Add(1)*collectEvery < n {
		return
	}
	for r.files.Load() > 0 {
		r.dropMu.Lock()
		busy := r.dropping
		r.dropMu.Unlock()
		if busy {
			return
		}
		r.released.Store(0)
		if !r.collect() {
			return
		}
	}
}

// collect is one round of collectAll; it tells whether it found any.
func (r *rights) collect() bool {
	r.mu.Lock()
	if len(r.sockets) == 0 {
		r.mu.Unlock()
		return false
	}
	// Candidates have no reference but from queues. inner counts the references from queues of candidates.
	inner := make(map[*Socket]int)
	for s, n := range r.sockets {
		if s.fd != nil && s.fd.Refs() == int64(n) {
			inner[s] = 0
		}
	}
	for s := range inner {
		s.eachInFlight(func(o *Socket) {
			if _, ok := inner[o]; ok {
				inner[o]++
			}
		})
	}
	// What is referenced from elsewhere lives, and all that can be received through it.
	var live []*Socket
	for s, n := range inner {
		if n < r.sockets[s] {
			live = append(live, s)
		}
	}
	for _, s := range live {
		delete(inner, s)
	}
	for len(live) > 0 {
		s := live[len(live)-1]
		live = live[:len(live)-1]
		s.eachInFlight(func(o *Socket) {
			if _, ok := inner[o]; ok {
				delete(inner, o)
				live = append(live, o)
			}
		})
	}
	var files []*vfs.FileDescription
	for s := range inner {
		for _, q := range s.queues() {
			q.mu.Lock()
			f := q.drain()
			q.mu.Unlock()
			r.remove(f)
			files = append(files, f...)
		}
	}
	r.mu.Unlock()
	r.close(files)
	return len(files) > 0
}

// queues are the socket's own queue and those of connections that wait to be accepted.
func (s *Socket) queues() []*queue {
	list := []*queue{&s.recv}
	s.mu.Lock()
	for i := range s.pending.Len() {
		list = append(list, &(*s.pending.At(i)).recv)
	}
	s.mu.Unlock()
	return list
}

// eachInFlight calls f for every socket in the queues of s.
func (s *Socket) eachInFlight(f func(*Socket)) {
	for _, q := range s.queues() {
		q.mu.Lock()
		if q.rights > 0 {
			for i := range q.msgs.Len() {
				for _, file := range q.msgs.At(i).rights {
					if o, ok := file.Impl().(*Socket); ok {
						f(o)
					}
				}
			}
		}
		q.mu.Unlock()
	}
}
