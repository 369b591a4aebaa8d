package waiter

import (
	"sync"

	"golang.org/x/sys/unix"
)

// EventMask is a set of poll(2) events.
type EventMask uint32

// The events of poll(2); EventErr and EventHUp are always reported.
const (
	EventIn     EventMask = unix.POLLIN
	EventPri    EventMask = unix.POLLPRI
	EventOut    EventMask = unix.POLLOUT
	EventErr    EventMask = unix.POLLERR
	EventHUp    EventMask = unix.POLLHUP
	EventRdNorm EventMask = 0x40 // POLLRDNORM on x86-64
	EventRdBand EventMask = 0x80
	EventWrNorm EventMask = 0x100
	EventRdHUp  EventMask = unix.POLLRDHUP

	ReadableEvents = EventIn | EventRdNorm
	WritableEvents = EventOut | EventWrNorm
	AllEvents      = ReadableEvents | WritableEvents | EventPri | EventErr | EventHUp | EventRdBand | EventRdHUp
)

// Listener is told about events. NotifyEvent runs with the queue locked and with whatever locks the
// notifier holds: it must be short, must not block and must not touch the queue.
type Listener interface {
	NotifyEvent(mask EventMask)
}

// Entry registers one Listener in one Queue at a time.
type Entry struct {
	listener   Listener
	mask       EventMask
	queue      *Queue // protected by queue.mu; nil when not registered
	next, prev *Entry
}

// Init prepares e to notify l of the events in mask (and of EventErr and EventHUp, always).
func (e *Entry) Init(l Listener, mask EventMask) {
	e.listener, e.mask = l, mask|EventErr|EventHUp
}

// Mask is the set of events that e wants.
func (e *Entry) Mask() EventMask { return e.mask }

// Waitable is an object whose readiness can be asked and awaited.
type Waitable interface {
	// Readiness returns the subset of mask that holds now.
	Readiness(mask EventMask) EventMask
	// EventRegister makes e hear of changes from now on; the caller checks Readiness after it.
	EventRegister(e *Entry)
	// EventUnregister undoes EventRegister; unregistering twice is allowed.
	EventUnregister(e *Entry)
}

// Queue is a set of entries. The zero value is ready for use.
type Queue struct {
	mu         sync.Mutex
	head, tail *Entry
}

// EventRegister adds e, which must be in no queue.
func (q *Queue) EventRegister(e *Entry) {
	q.mu.Lock()
	e.queue, e.prev, e.next = q, q.tail, nil
	if q.tail != nil {
		q.tail.next = e
	} else {
		q.head = e
	}
	q.tail = e
	q.mu.Unlock()
}

// EventUnregister removes e if it is in q.
func (q *Queue) EventUnregister(e *Entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e.queue != q {
		return
	}
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		q.head = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		q.tail = e.prev
	}
	e.queue, e.prev, e.next = nil, nil, nil
}

// Notify tells every entry that wants an event of mask.
func (q *Queue) Notify(mask EventMask) {
	q.mu.Lock()
	for e := q.head; e != nil; e = e.next {
		if m := mask & e.mask; m != 0 {
			e.listener.NotifyEvent(m)
		}
	}
	q.mu.Unlock()
}

// NotifyLater is Notify by the goroutine that owns by, which may put off what wakes other Signals: see Signal.Linger.
func (q *Queue) NotifyLater(by *Signal, mask EventMask) {
	if !by.linger {
		q.Notify(mask)
		return
	}
	q.mu.Lock()
	for e := q.head; e != nil; e = e.next {
		m := mask & e.mask
		if m == 0 {
			continue
		}
		if s, ok := e.listener.(*Signal); ok && s != by {
			by.putOff(s)
		} else {
			e.listener.NotifyEvent(m)
		}
	}
	q.mu.Unlock()
}

// Empty tells whether nobody listens.
func (q *Queue) Empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.head == nil
}

// Signal is a Listener that puts a token into a channel of capacity one. The zero value is not
// usable: see Init. One Signal may serve many entries of one waiting goroutine.
type Signal struct {
	C chan struct{}

	// Of the goroutine that owns the Signal.
	linger bool
	late   int
	later  [4]*Signal // the first late ones shall get a token from Flush
}

// Linger says that the goroutine that owns s calls Flush soon after whatever it did, and before it waits for anything: until then
// NotifyLater may put off the tokens of others. A wake-up that comes when the owner makes room is cheaper, and finds more to do.
// Who waits for a token that may be put off must hold no lock that the owner of s may want.
func (s *Signal) Linger() { s.linger = true }

// Hurry ends that: nothing is put off any more.
func (s *Signal) Hurry() {
	s.linger = false
	s.Flush()
}

// Late tells whether tokens have been put off.
func (s *Signal) Late() bool { return s.late != 0 }

// Flush sends the tokens that were put off.
func (s *Signal) Flush() {
	for i, o := range s.later[:s.late] {
		s.later[i] = nil
		o.NotifyEvent(0)
	}
	s.late = 0
}

// WakeLater gives o a token, or puts that off. It is for the goroutine that owns s.
func (s *Signal) WakeLater(o *Signal) {
	if s.linger && o != s {
		s.putOff(o)
	} else {
		o.NotifyEvent(0)
	}
}

func (s *Signal) putOff(o *Signal) {
	for _, x := range s.later[:s.late] {
		if x == o {
			return
		}
	}
	if s.late == len(s.later) {
		s.Flush()
	}
	s.later[s.late] = o
	s.late++
}

// Init makes the channel; calling it again keeps it.
func (s *Signal) Init() {
	if s.C == nil {
		s.C = make(chan struct{}, 1)
	}
}

// NotifyEvent implements Listener.
func (s *Signal) NotifyEvent(EventMask) {
	select {
	case s.C <- struct{}{}:
	default:
	}
}

// Drain removes a stale token.
func (s *Signal) Drain() {
	select {
	case <-s.C:
	default:
	}
}
