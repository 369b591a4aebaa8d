package inotify

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/ring"
	"husk/pkg/sentry/uio"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Limits of /proc/sys/fs/inotify, as Linux starts with.
const (
	MaxQueuedEvents = 16384
	MaxUserWatches  = 65536
	MaxInstances    = 128
)

// Users counts instances and watches by user; one per kernel.
type Users struct {
	mu sync.Mutex
	m  map[auth.KUID]*usage // protected by mu
}

type usage struct{ instances, watches int }

// change adds to the counts of user id; EMFILE or ENOSPC beyond the limits.
func (u *Users) change(id auth.KUID, instances, watches int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.m[id]
	if c == nil {
		if u.m == nil {
			u.m = make(map[auth.KUID]*usage)
		}
		c = &usage{}
		u.m[id] = c
	}
	if instances > 0 && c.instances >= MaxInstances {
		return unix.EMFILE
	}
	if watches > 0 && c.watches >= MaxUserWatches {
		return unix.ENOSPC
	}
	c.instances += instances
	c.watches += watches
	if c.instances == 0 && c.watches == 0 {
		delete(u.m, id)
	}
	return nil
}

// Instance is an inotify instance.
type Instance struct {
	queue waiter.Queue
	users *Users    // immutable
	owner auth.KUID // immutable

	mu      sync.Mutex
	watches map[int32]*vfs.Watch // protected by mu
	last    int32                // protected by mu: the latest watch descriptor

	eventMu sync.Mutex
	events  ring.List[event]    // protected by eventMu
	bytes   int                 // protected by eventMu: size of events as read
	gone    map[int32]bool      // protected by eventMu: watches that vfs ended, not yet taken out of watches
	dead    map[*vfs.Watch]bool // protected by eventMu: watches whose events are no longer wanted
}

// event is a queued struct inotify_event.
type event struct {
	wd           int32
	mask, cookie uint32
	name         string
}

const header = 16

// size is the number of bytes of the event as read: names are padded to multiples of the header's size.
func (e *event) size() int {
	if e.name == "" {
		return header
	}
	return header + (len(e.name)+header)/header*header
}

// New makes the open file of an instance with one reference. flags may have IN_NONBLOCK. EMFILE.
func New(ctx vfs.Context, v *vfs.VFS, u *Users, flags int) (*vfs.FileDescription, error) {
	owner := ctx.Credentials().EUID
	if err := u.change(owner, 1, 0); err != nil {
		return nil, err
	}
	i := &Instance{users: u, owner: owner, watches: make(map[int32]*vfs.Watch)}
	return v.NewAnonFile("anon_inode:inotify", i, unix.O_RDONLY|uint32(flags)&unix.O_NONBLOCK), nil
}

// Release implements vfs.FileImpl.
func (i *Instance) Release() {
	i.mu.Lock()
	n := len(i.watches)
	for _, w := range i.watches {
		w.Inode().RemoveWatch(w)
	}
	i.watches = nil
	i.mu.Unlock()
	i.users.change(i.owner, -1, -n)
}

// allEvents are the events that may be watched; options are flags of inotify_add_watch(2).
const (
	allEvents = unix.IN_ALL_EVENTS
	options   = unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW | unix.IN_EXCL_UNLINK | unix.IN_MASK_CREATE | unix.IN_MASK_ADD | unix.IN_ONESHOT
	oneshot   = uint32(unix.IN_ONESHOT & 0xffffffff)
)

// AddWatch is inotify_add_watch(2) for an inode that has been looked up and may be read. EINVAL, EEXIST, ENOSPC.
func (i *Instance) AddWatch(node *vfs.Inode, mask uint32) (int32, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sweep()
	keep := mask & (allEvents | oneshot | unix.IN_EXCL_UNLINK)
	if w := node.FindWatch(i); w != nil && i.watches[w.ID] == w {
		if mask&unix.IN_MASK_CREATE != 0 {
			return 0, unix.EEXIST
		}
		if mask&unix.IN_MASK_ADD != 0 {
			keep |= w.Mask.Load()
		}
		w.Mask.Store(keep)
		return w.ID, nil
	}
	if err := i.users.change(i.owner, 0, 1); err != nil {
		return 0, err
	}
	for i.last++; i.last <= 0 || i.watches[i.last] != nil; i.last++ {
		if i.last < 0 {
			i.last = 0
		}
	}
	w := &vfs.Watch{Handler: i, ID: i.last}
	w.Mask.Store(keep)
	i.watches[w.ID] = w
	node.AddWatch(w)
	return w.ID, nil
}

// RemoveWatch is inotify_rm_watch(2). EINVAL.
func (i *Instance) RemoveWatch(wd int32) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sweep()
	w := i.watches[wd]
	if w == nil {
		return unix.EINVAL
	}
	i.forget(w)
	if w.Inode().RemoveWatch(w) {
		i.put(event{wd: wd, mask: unix.IN_IGNORED})
	}
	return nil
}

// forget takes w out of the instance; mu is held.
func (i *Instance) forget(w *vfs.Watch) {
	if i.watches[w.ID] == w {
		delete(i.watches, w.ID)
		i.users.change(i.owner, 0, -1)
	}
}

// sweep takes out the watches that vfs has ended, or that IN_ONESHOT has; mu is held.
func (i *Instance) sweep() {
	i.eventMu.Lock()
	gone, dead := i.gone, i.dead
	i.gone, i.dead = nil, nil
	i.eventMu.Unlock()
	for wd := range gone {
		if w := i.watches[wd]; w != nil {
			i.forget(w)
		}
	}
	for w := range dead {
		i.forget(w)
		w.Inode().RemoveWatch(w)
	}
}

// Notify implements vfs.WatchHandler.
func (i *Instance) Notify(w *vfs.Watch, mask, cookie uint32, name string, unlinked bool) {
	want := w.Mask.Load()
	if want == 0 { // IN_ONESHOT has fired
		return
	}
	if unlinked && name != "" && want&unix.IN_EXCL_UNLINK != 0 {
		return
	}
	if want&oneshot != 0 {
		// The watch cannot be removed here, with locks of vfs held: it only stops to want anything.
		if !w.Mask.CompareAndSwap(want, 0) {
			return
		}
		i.put(event{w.ID, mask, cookie, name})
		i.put(event{wd: w.ID, mask: unix.IN_IGNORED})
		i.eventMu.Lock()
		if i.dead == nil {
			i.dead = make(map[*vfs.Watch]bool)
		}
		i.dead[w] = true
		i.eventMu.Unlock()
		return
	}
	i.put(event{w.ID, mask, cookie, name})
}

// Gone implements vfs.WatchHandler.
func (i *Instance) Gone(w *vfs.Watch, unmounted bool) {
	if w.Mask.Load() != 0 { // else IN_ONESHOT has ended it already
		if unmounted {
			i.put(event{wd: w.ID, mask: unix.IN_UNMOUNT})
		}
		i.put(event{wd: w.ID, mask: unix.IN_IGNORED})
	}
	i.eventMu.Lock()
	if i.gone == nil {
		i.gone = make(map[int32]bool)
	}
	i.gone[w.ID] = true
	i.eventMu.Unlock()
}

// put queues an event, unless it equals the last one.
func (i *Instance) put(e event) {
	i.eventMu.Lock()
	n := i.events.Len()
	switch {
	case n > 0 && *i.events.At(n - 1) == e:
		i.eventMu.Unlock()
		return
	case n == MaxQueuedEvents:
		e = event{wd: -1, mask: unix.IN_Q_OVERFLOW}
	case n > MaxQueuedEvents:
		i.eventMu.Unlock()
		return
	}
	i.events.Push(e)
	i.bytes += e.size()
	i.eventMu.Unlock()
	i.queue.Notify(waiter.ReadableEvents)
}

// ReadStream implements vfs.StreamReader.
func (i *Instance) ReadStream(_ vfs.Context, dst mm.IOSeq) (int64, error) {
	room := dst.NumBytes()
	var buf []byte
	i.eventMu.Lock()
	for i.events.Len() > 0 {
		e := i.events.At(0)
		n := e.size()
		if int64(len(buf)+n) > room {
			if len(buf) == 0 {
				i.eventMu.Unlock()
				return 0, unix.EINVAL
			}
			break
		}
		buf = e.encode(buf)
		i.bytes -= n
		i.events.Pop()
	}
	i.eventMu.Unlock()
	if len(buf) == 0 {
		return 0, unix.EAGAIN
	}
	n, err := dst.CopyOut(buf)
	return int64(n), err
}

// encode appends the event as struct inotify_event.
func (e *event) encode(b []byte) []byte {
	size := e.size()
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(e.wd))
	b = le.AppendUint32(b, e.mask)
	b = le.AppendUint32(b, e.cookie)
	b = le.AppendUint32(b, uint32(size-header))
	b = append(b, e.name...)
	if e.name != "" {
		b = append(b, make([]byte, size-header-len(e.name))...)
	}
	return b
}

// Seek implements vfs.Seeker: it succeeds without effect, as on Linux.
func (i *Instance) Seek(vfs.Context, int64, int32, int64) (int64, error) { return 0, nil }

// Readiness implements waiter.Waitable.
func (i *Instance) Readiness(mask waiter.EventMask) waiter.EventMask {
	i.eventMu.Lock()
	defer i.eventMu.Unlock()
	if i.events.Len() == 0 {
		return 0
	}
	return waiter.ReadableEvents & mask
}

// EventRegister implements waiter.Waitable.
func (i *Instance) EventRegister(e *waiter.Entry) { i.queue.EventRegister(e) }

// EventUnregister implements waiter.Waitable.
func (i *Instance) EventUnregister(e *waiter.Entry) { i.queue.EventUnregister(e) }

// Ioctl implements vfs.Ioctler.
func (i *Instance) Ioctl(ctx vfs.Context, _ *vfs.FileDescription, cmd uint32, arg uint64) (uintptr, error) {
	if cmd != unix.TIOCINQ {
		return 0, linux.ENOIOCTLCMD
	}
	i.eventMu.Lock()
	n := i.bytes
	i.eventMu.Unlock()
	return 0, uio.PutInt32(ctx, arg, int32(n))
}

// FDInfo implements vfs.FDInfoWriter.
func (i *Instance) FDInfo() string {
	var b strings.Builder
	i.mu.Lock()
	defer i.mu.Unlock()
	for wd, w := range i.watches {
		fmt.Fprintf(&b, "inotify wd:%x ino:%x sdev:%x mask:%x ignored_mask:0\n", wd, w.Inode().Ino(), w.Inode().Superblock().Dev(), w.Mask.Load())
	}
	return b.String()
}

// Flags that a caller of AddWatch checks: unknown bits are EINVAL.
const Known = allEvents | options
