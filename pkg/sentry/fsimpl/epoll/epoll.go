package epoll

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Event is struct epoll_event: what is registered, and what a wait returns.
type Event struct {
	Events uint32
	Data   uint64
}

// The input flags of events.
const (
	flagET        = 1 << 31
	flagOneShot   = 1 << 30
	flagWakeup    = 1 << 29
	flagExclusive = 1 << 28
	flags         = flagET | flagOneShot | flagWakeup | flagExclusive
	// exclusiveOK are the bits that may come with EPOLLEXCLUSIVE.
	exclusiveOK = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLERR | unix.EPOLLHUP | flagWakeup | flagET | flagExclusive
)

// maxNesting is how deep instances may be registered in each other.
const maxNesting = 5

// Nesting serialises registrations of instances in instances; one per kernel.
type Nesting struct {
	mu sync.Mutex
}

// Instance is an epoll instance.
type Instance struct {
	queue   waiter.Queue
	nesting *Nesting // immutable

	mu      sync.Mutex
	items   map[key]*item                    // protected by mu
	files   map[*vfs.FileDescription][]*item // protected by mu: the items of each file
	parents map[*Instance]int                // protected by Nesting.mu: instances in which this one is registered
	free    []*waiter.Entry                  // protected by mu: entries for waits

	closed atomic.Bool

	readyMu    sync.Mutex
	head, tail *item // protected by readyMu
	nready     int   // protected by readyMu
}

// key identifies a registration: the same file may be registered under several descriptors.
type key struct {
	file *vfs.FileDescription
	fd   int32
}

// item is a registration. It holds no reference on the file: the file's release removes it.
type item struct {
	entry waiter.Entry
	ep    *Instance // immutable
	key   key       // immutable
	ev    Event     // protected by Instance.mu
	gone  bool      // protected by Instance.mu

	// Protected by Instance.readyMu.
	ready      bool
	off        bool // EPOLLONESHOT has fired
	next, prev *item
}

// New makes the open file of an instance with one reference.
func New(v *vfs.VFS, n *Nesting) *vfs.FileDescription {
	return v.NewAnonFile("anon_inode:[eventpoll]", NewInstance(n), unix.O_RDWR)
}

// NewInstance makes an instance.
func NewInstance(n *Nesting) *Instance {
	return &Instance{nesting: n, items: make(map[key]*item), files: make(map[*vfs.FileDescription][]*item)}
}

// NotifyEvent implements waiter.Listener.
func (it *item) NotifyEvent(waiter.EventMask) {
	ep := it.ep
	ep.readyMu.Lock()
	if it.off {
		ep.readyMu.Unlock()
		return
	}
	ep.push(it)
	ep.readyMu.Unlock()
	ep.queue.Notify(waiter.ReadableEvents)
}

// push appends it to the ready list unless it is there; readyMu is held.
func (ep *Instance) push(it *item) {
	if it.ready {
		return
	}
	it.ready = true
	it.prev, it.next = ep.tail, nil
	if ep.tail != nil {
		ep.tail.next = it
	} else {
		ep.head = it
	}
	ep.tail = it
	ep.nready++
}

// drop takes it out of the ready list; readyMu is held.
func (ep *Instance) drop(it *item) {
	if !it.ready {
		return
	}
	if it.prev != nil {
		it.prev.next = it.next
	} else {
		ep.head = it.next
	}
	if it.next != nil {
		it.next.prev = it.prev
	} else {
		ep.tail = it.prev
	}
	it.next, it.prev, it.ready = nil, nil, false
	ep.nready--
}

// mask is the set of poll events that ev asks for.
func (ev Event) mask() waiter.EventMask { return waiter.EventMask(ev.Events &^ flags) }

// start registers with the file and looks whether it is ready already; mu is held.
func (it *item) start() {
	it.entry.Init(it, it.ev.mask())
	it.key.file.EventRegister(&it.entry)
	if it.key.file.Readiness(it.entry.Mask()) != 0 {
		it.NotifyEvent(0)
	}
}

// Add registers file, known as descriptor fd (EPOLL_CTL_ADD). EEXIST, EPERM for files that cannot be polled, EINVAL, ELOOP.
func (ep *Instance) Add(file *vfs.FileDescription, fd int32, ev Event) error {
	if !file.Pollable() {
		return unix.EPERM
	}
	inner, nested := file.Impl().(*Instance)
	if inner == ep {
		return unix.EINVAL
	}
	if ev.Events&flagExclusive != 0 && (ev.Events&^exclusiveOK != 0 || nested) {
		return unix.EINVAL
	}
	if nested {
		ep.nesting.mu.Lock()
		defer ep.nesting.mu.Unlock()
		below, loop := inner.depthBelow(ep, 0)
		if loop || below+ep.depthAbove(0) > maxNesting {
			return unix.ELOOP
		}
	}
	ep.mu.Lock()
	k := key{file, fd}
	if ep.items[k] != nil {
		ep.mu.Unlock()
		return unix.EEXIST
	}
	it := &item{ep: ep, key: k, ev: ev}
	ep.items[k] = it
	ep.files[file] = append(ep.files[file], it)
	file.AddReleaseListener(ep)
	it.start()
	ep.mu.Unlock()
	if nested {
		if inner.parents == nil {
			inner.parents = make(map[*Instance]int)
		}
		inner.parents[ep]++
	}
	return nil
}

// depthBelow is the number of instances on the longest chain from ep downwards; loop if avoid is among them.
// Nesting.mu is held.
func (ep *Instance) depthBelow(avoid *Instance, level int) (depth int, loop bool) {
	if ep == avoid || level > maxNesting {
		return 0, true
	}
	ep.mu.Lock()
	var inner []*Instance
	for k := range ep.items {
		if i, ok := k.file.Impl().(*Instance); ok {
			inner = append(inner, i)
		}
	}
	ep.mu.Unlock()
	for _, i := range inner {
		d, l := i.depthBelow(avoid, level+1)
		if l {
			return 0, true
		}
		depth = max(depth, d)
	}
	return depth + 1, false
}

// depthAbove is the same upwards.
func (ep *Instance) depthAbove(level int) int {
	depth := 0
	if level <= maxNesting {
		for p := range ep.parents {
			if p.closed.Load() {
				delete(ep.parents, p)
				continue
			}
			depth = max(depth, p.depthAbove(level+1))
		}
	}
	return depth + 1
}

// Modify changes a registration (EPOLL_CTL_MOD). ENOENT, EINVAL.
func (ep *Instance) Modify(file *vfs.FileDescription, fd int32, ev Event) error {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	it := ep.items[key{file, fd}]
	if it == nil {
		return unix.ENOENT
	}
	if (ev.Events|it.ev.Events)&flagExclusive != 0 {
		return unix.EINVAL
	}
	file.EventUnregister(&it.entry)
	ep.readyMu.Lock()
	it.off = false
	ep.drop(it)
	ep.readyMu.Unlock()
	it.ev = ev
	it.start()
	return nil
}

// Remove ends a registration (EPOLL_CTL_DEL). ENOENT.
func (ep *Instance) Remove(file *vfs.FileDescription, fd int32) error {
	ep.mu.Lock()
	it := ep.items[key{file, fd}]
	ep.mu.Unlock()
	if it == nil || !ep.forget(it) {
		return unix.ENOENT
	}
	return nil
}

// FileReleased implements vfs.ReleaseListener: it removes the items of a file that goes away.
func (ep *Instance) FileReleased(file *vfs.FileDescription) {
	ep.mu.Lock()
	list := ep.files[file]
	delete(ep.files, file)
	ep.mu.Unlock()
	for _, it := range list {
		ep.forget(it)
	}
}

// forget removes an item.
func (ep *Instance) forget(it *item) bool {
	inner, nested := it.key.file.Impl().(*Instance)
	if nested {
		ep.nesting.mu.Lock()
		defer ep.nesting.mu.Unlock()
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if it.gone {
		return false
	}
	ep.end(it)
	delete(ep.items, it.key)
	ep.dropFile(it)
	if nested {
		if inner.parents[ep]--; inner.parents[ep] <= 0 {
			delete(inner.parents, ep)
		}
	}
	return true
}

// dropFile takes it out of the list of its file's items; mu is held.
func (ep *Instance) dropFile(it *item) {
	list, ok := ep.files[it.key.file]
	if !ok {
		return
	}
	for i, x := range list {
		if x == it {
			list[i] = list[len(list)-1]
			list[len(list)-1] = nil
			list = list[:len(list)-1]
			break
		}
	}
	if len(list) > 0 {
		ep.files[it.key.file] = list
		return
	}
	delete(ep.files, it.key.file)
	it.key.file.RemoveReleaseListener(ep)
}

// end unregisters it; mu is held.
func (ep *Instance) end(it *item) {
	it.gone = true
	it.key.file.EventUnregister(&it.entry)
	ep.readyMu.Lock()
	it.off = true
	ep.drop(it)
	ep.readyMu.Unlock()
}

// Release implements vfs.FileImpl.
func (ep *Instance) Release() {
	ep.closed.Store(true)
	ep.mu.Lock()
	for _, it := range ep.items {
		ep.end(it)
	}
	clear(ep.items)
	for file := range ep.files {
		file.RemoveReleaseListener(ep)
	}
	clear(ep.files)
	ep.mu.Unlock()
}

// Collect stores events that are ready in out and returns how many.
func (ep *Instance) Collect(out []Event) int {
	ep.readyMu.Lock()
	left := ep.nready
	ep.readyMu.Unlock()
	if left == 0 {
		return 0
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	n := 0
	for ; left > 0 && n < len(out); left-- {
		ep.readyMu.Lock()
		it := ep.head
		if it == nil {
			ep.readyMu.Unlock()
			break
		}
		ep.drop(it)
		ep.readyMu.Unlock()
		got := it.key.file.Readiness(it.entry.Mask())
		if got == 0 {
			continue
		}
		out[n] = Event{uint32(got), it.ev.Data}
		n++
		ep.readyMu.Lock()
		switch {
		case it.ev.Events&flagOneShot != 0:
			it.off = true
			ep.drop(it)
		case it.ev.Events&flagET == 0:
			ep.push(it)
		}
		ep.readyMu.Unlock()
	}
	return n
}

// Wait is epoll_wait(2): it stores ready events in out, and waits for the first until deadline (ns of CLOCK_MONOTONIC, or
// vfs.NoDeadline; 0 does not wait). EINTR.
func (ep *Instance) Wait(ctx vfs.Context, out []Event, deadline int64) (int, error) {
	n := ep.Collect(out)
	if n > 0 || deadline == 0 {
		return n, nil
	}
	s := ctx.Waker()
	e := ep.takeEntry()
	e.Init(s, waiter.ReadableEvents)
	ep.queue.EventRegister(e)
	defer ep.giveEntry(e)
	for {
		if n := ep.Collect(out); n > 0 {
			return n, nil
		}
		switch err := ctx.Block(s.C, deadline); err {
		case nil:
		case unix.ETIMEDOUT:
			return ep.Collect(out), nil
		default:
			return 0, unix.EINTR
		}
	}
}

// takeEntry and giveEntry keep entries of waits for reuse.
func (ep *Instance) takeEntry() *waiter.Entry {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if k := len(ep.free); k > 0 {
		e := ep.free[k-1]
		ep.free = ep.free[:k-1]
		return e
	}
	return &waiter.Entry{}
}

func (ep *Instance) giveEntry(e *waiter.Entry) {
	ep.queue.EventUnregister(e)
	ep.mu.Lock()
	if len(ep.free) < 16 {
		ep.free = append(ep.free, e)
	}
	ep.mu.Unlock()
}

// Readiness implements waiter.Waitable: readable if a wait would find something.
func (ep *Instance) Readiness(mask waiter.EventMask) waiter.EventMask {
	if mask&waiter.ReadableEvents == 0 {
		return 0
	}
	ep.readyMu.Lock()
	left := ep.nready
	ep.readyMu.Unlock()
	if left == 0 {
		return 0
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	for ; left > 0; left-- {
		ep.readyMu.Lock()
		it := ep.head
		if it == nil {
			ep.readyMu.Unlock()
			break
		}
		ep.drop(it)
		ep.readyMu.Unlock()
		if it.key.file.Readiness(it.entry.Mask()) != 0 {
			ep.readyMu.Lock()
			ep.push(it)
			ep.readyMu.Unlock()
			return waiter.ReadableEvents & mask
		}
	}
	return 0
}

// EventRegister implements waiter.Waitable.
func (ep *Instance) EventRegister(e *waiter.Entry) { ep.queue.EventRegister(e) }

// EventUnregister implements waiter.Waitable.
func (ep *Instance) EventUnregister(e *waiter.Entry) { ep.queue.EventUnregister(e) }

// FDInfo implements vfs.FDInfoWriter.
func (ep *Instance) FDInfo() string {
	var b strings.Builder
	ep.mu.Lock()
	defer ep.mu.Unlock()
	for k, it := range ep.items {
		fmt.Fprintf(&b, "tfd: %8d events: %8x data: %16x\n", k.fd, it.ev.Events, it.ev.Data)
	}
	return b.String()
}
