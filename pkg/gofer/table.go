package gofer

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// object is what a handle stands for. All fields but refs are immutable.
type object struct {
	fd   int // O_PATH; for a stream an open directory; -1: none, which an object without a handle may have
	at   *AttachPoint
	typ  uint32       // S_IFMT part of the mode, which never changes
	dev  uint64       // of a device node
	refs atomic.Int32 // the table's, and one for each request under way

	stream *stream // of a directory being read, else nil
}

// put drops a reference. The last one closes the descriptor, so a descriptor number is never in use
// for one handle while a request for an older one still holds it.
func (o *object) put() {
	if o.refs.Add(-1) == 0 && o.fd >= 0 {
		unix.Close(o.fd)
	}
}

// table maps handles to objects.
type table struct {
	max int

	mu    sync.Mutex // guards what follows
	slots []slot
	free  []uint32 // vacant slots
	live  int
}

type slot struct {
	obj *object // nil: vacant
	gen uint32  // of the current or next occupant
}

// add enters o, which then belongs to the table. On failure it remains the caller's.
func (t *table) add(o *object) (Handle, error) {
	o.refs.Store(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live >= t.max {
		return 0, unix.EMFILE
	}
	var i uint32
	if n := len(t.free); n > 0 {
		i = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		i = uint32(len(t.slots))
		t.slots = append(t.slots, slot{gen: 1})
	}
	t.slots[i].obj = o
	t.live++
	return Handle(t.slots[i].gen)<<32 | Handle(i), nil
}

// get returns the object of h with a reference for the caller to put.
func (t *table) get(h Handle) (*object, error) {
	i, gen := uint32(h), uint32(h>>32)
	t.mu.Lock()
	defer t.mu.Unlock()
	if uint64(i) >= uint64(len(t.slots)) || t.slots[i].gen != gen || t.slots[i].obj == nil {
		return nil, unix.EBADF
	}
	o := t.slots[i].obj
	o.refs.Add(1)
	return o, nil
}

// remove closes h; a handle that is not open is ignored. A slot whose generations are used up stays
// vacant for good.
func (t *table) remove(h Handle) {
	i, gen := uint32(h), uint32(h>>32)
	t.mu.Lock()
	if uint64(i) >= uint64(len(t.slots)) || t.slots[i].gen != gen || t.slots[i].obj == nil {
		t.mu.Unlock()
		return
	}
	s := &t.slots[i]
	o := s.obj
	s.obj = nil
	t.live--
	if s.gen != ^uint32(0) {
		s.gen++
		t.free = append(t.free, i)
	}
	t.mu.Unlock()
	o.put()
}

// clear closes all handles.
func (t *table) clear() {
	t.mu.Lock()
	slots := t.slots
	t.slots, t.free, t.live = nil, nil, 0
	t.mu.Unlock()
	for _, s := range slots {
		if s.obj != nil {
			s.obj.put()
		}
	}
}
