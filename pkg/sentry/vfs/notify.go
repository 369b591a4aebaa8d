package vfs

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// inodeExt is state that few inodes have.
type inodeExt struct {
	mu      sync.Mutex
	watches []*Watch   // protected by mu
	slots   [2]any     // protected by mu: Slot
	locks   *fileLocks // protected by mu
}

// extra returns the inode's ext, made if need be.
func (i *Inode) extra() *inodeExt {
	if e := i.ext.Load(); e != nil {
		return e
	}
	e := &inodeExt{}
	if i.ext.CompareAndSwap(nil, e) {
		return e
	}
	return i.ext.Load()
}

// SlotKind says what is kept at an inode.
type SlotKind int

// The kinds of slots.
const (
	SlotFIFO   SlotKind = iota // the pipe of a FIFO
	SlotSocket                 // the bound endpoint of a socket node
)

// Slot calls f with the inode's value of the kind (nil at first) under a lock, and stores what f returns.
func (i *Inode) Slot(k SlotKind, f func(old any) any) any {
	e := i.extra()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.slots[k] = f(e.slots[k])
	if e.slots == [2]any{} {
		i.ClearFlags(inodeSlots)
	} else {
		i.SetFlags(inodeSlots)
	}
	return e.slots[k]
}

// WatchHandler receives events of inotify(7). It is called with locks held: it must only queue the event.
type WatchHandler interface {
	// Notify tells of an event. mask has one IN_* event, and IN_ISDIR; name is empty for events of the watched inode itself;
	// cookie joins IN_MOVED_FROM and IN_MOVED_TO. unlinked tells that the child is no longer reachable (IN_EXCL_UNLINK).
	Notify(w *Watch, mask uint32, cookie uint32, name string, unlinked bool)
	// Gone tells that the inode was released or its file system unmounted (IN_IGNORED): the watch is removed already.
	Gone(w *Watch, unmounted bool)
}

// Watch is a watch on an inode.
type Watch struct {
	Handler WatchHandler  // immutable
	Mask    atomic.Uint32 // IN_* events that are wanted
	ID      int32         // for the handler's use
	inode   *Inode        // immutable after AddWatch
}

// Inode is what is watched.
func (w *Watch) Inode() *Inode { return w.inode }

// FindWatch returns the watch of the handler on the inode; nil if there is none.
func (i *Inode) FindWatch(h WatchHandler) *Watch {
	e := i.ext.Load()
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.watches {
		if w.Handler == h {
			return w
		}
	}
	return nil
}

// AddWatch starts watching; the watch holds a reference on the inode until it is removed or gone.
func (i *Inode) AddWatch(w *Watch) {
	e := i.extra()
	i.IncRef()
	w.inode = i
	e.mu.Lock()
	e.watches = append(append([]*Watch(nil), e.watches...), w)
	i.SetFlags(inodeWatched)
	e.mu.Unlock()
}

// RemoveWatch ends watching; false if it was not there any more.
func (i *Inode) RemoveWatch(w *Watch) bool {
	e := i.ext.Load()
	if e == nil {
		return false
	}
	e.mu.Lock()
	found := false
	for k, x := range e.watches {
		if x == w {
			e.watches = append(append([]*Watch(nil), e.watches[:k]...), e.watches[k+1:]...)
			found = true
			break
		}
	}
	if len(e.watches) == 0 {
		i.ClearFlags(inodeWatched)
	}
	e.mu.Unlock()
	if found {
		i.DecRef()
	}
	return found
}

// notify tells the inode's watchers.
func (i *Inode) notify(mask, cookie uint32, name string, unlinked bool) {
	if i.Flags()&inodeWatched == 0 {
		return
	}
	e := i.ext.Load()
	e.mu.Lock()
	list := e.watches // never changed in place
	e.mu.Unlock()
	for _, w := range list {
		if w.Mask.Load()&mask&inAllEvents != 0 {
			w.Handler.Notify(w, mask, cookie, name, unlinked)
		}
	}
}

// removed ends the watches of an inode that nobody uses by the name that was removed, if it was the last one.
func (i *Inode) removed() {
	var st Stat
	if !i.IsDir() && (i.ops.Stat(&kernelContext{}, unix.STATX_NLINK, &st) != nil || st.Nlink != 0) {
		return
	}
	e := i.ext.Load()
	e.mu.Lock()
	list := e.watches
	e.watches = nil
	i.ClearFlags(inodeWatched)
	e.mu.Unlock()
	for _, w := range list {
		if w.Mask.Load()&unix.IN_DELETE_SELF != 0 {
			w.Handler.Notify(w, unix.IN_DELETE_SELF, 0, "", false)
		}
		w.Handler.Gone(w, false)
		i.DecRef()
	}
}

// inAllEvents are the events of inotify(7) that are asked for.
const inAllEvents = 0xfff

// Notify tells watchers of the dentry's inode, and of its directory by name, of an event (IN_ACCESS, IN_MODIFY, IN_ATTRIB, IN_OPEN,
// IN_CLOSE_*). It costs two loads when nobody watches.
func (d *Dentry) Notify(mask uint32) {
	l := d.loc.Load()
	p := l.parent
	self := d.inode.Flags()&inodeWatched != 0
	if !self && (p == nil || p.inode.Flags()&inodeWatched == 0) {
		return
	}
	if d.inode.IsDir() {
		mask |= inIsDir
	}
	if p != nil {
		p.inode.notify(mask, 0, l.name, d.Removed())
	}
	if self {
		d.inode.notify(mask, 0, "", d.Removed())
	}
}

const inIsDir = 0x40000000
