package gofer

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	broker "husk/pkg/gofer"
)

// A handle costs the broker a descriptor, and the host may allow few of them. In a frozen attach point, where a name means the same file for ever, files
// are named to the broker by directory and name, and have a handle while something needs one; directories that were not used for long give theirs back until
// they are needed again. So a tree stays known, however large it is. Elsewhere each inode has a handle, and where there are too many names leave the cache.

// Handles counts the handles that the attach points of a broker keep.
type Handles struct {
	max  int64 // immutable
	kept atomic.Int64
}

// NewHandles makes a count with a limit.
func NewHandles(max int) *Handles { return &Handles{max: int64(max)} }

// handlesShrink is how many names make room for a handle: more than a directory has on average.
const handlesShrink = 32

// hold counts the handle that i has got, and makes room for it.
func (fs *filesystem) hold(i *inode) {
	count := fs.handles
	if count == nil {
		return
	}
	full := count.kept.Add(1) > count.max
	if i.parks() {
		fs.idleMu.Lock()
		if i.IsDir() {
			fs.dirs.add(i)
		}
		parked := !full || fs.park(i)
		fs.idleMu.Unlock()
		if parked {
			return
		}
	}
	if full {
		fs.sb.VFS().ShrinkCache(handlesShrink)
	}
}

// park takes the handle of the directory that was used longest ago, other than i; idleMu is held.
func (fs *filesystem) park(i *inode) bool {
	for d := fs.dirs.first; d != nil && d != i; d = d.idle.next {
		if d.pins > 0 {
			continue
		}
		fs.dirs.drop(d)
		fs.lose(broker.Handle(d.held.Swap(0)))
		return true
	}
	return false
}

// relieve makes room at a broker that has answered that it has none, which is worth another try.
func (fs *filesystem) relieve(err error) bool {
	if err != unix.EMFILE {
		return false
	}
	fs.idleMu.Lock()
	for range handlesShrink {
		if !fs.park(nil) {
			break
		}
	}
	ahead := fs.ahead
	fs.idleMu.Unlock()
	for _, d := range ahead {
		if d != nil && d.mu.TryLock() { // the caller may hold the lock of another
			d.dropAhead()
			d.mu.Unlock()
		}
	}
	fs.sb.VFS().ShrinkCache(handlesShrink)
	fs.client.Flush()
	return true
}

// walk is Walk of the broker. Where that has no room, some is made.
func (fs *filesystem) walk(h broker.Handle, names []string, with broker.With, buf []broker.Entry) ([]broker.Entry, error) {
	e, err := fs.client.Walk(h, names, with, buf)
	if len(e) == 0 && fs.relieve(err) {
		e, err = fs.client.Walk(h, names, with, buf)
	}
	return e, err
}

// lose gives a handle back; zero is none.
func (fs *filesystem) lose(h broker.Handle) {
	if h == 0 {
		return
	}
	fs.client.Close(h)
	if fs.handles != nil {
		fs.handles.kept.Add(-1)
	}
}

// handle is the handle of a file outside of frozen attach points.
func (i *inode) handle() broker.Handle { return broker.Handle(i.held.Load()) }

// parks tells whether the handle may go while nobody uses it.
func (i *inode) parks() bool { return i.parent != nil }

// use returns the handle, which stays until done is called.
func (i *inode) use() (broker.Handle, error) {
	fs := i.fs
	if !i.parks() {
		return i.need()
	}
	fs.idleMu.Lock()
	i.pins++
	h := i.handle()
	if h != 0 && fs.handles != nil && i.IsDir() {
		fs.dirs.add(i)
	}
	fs.idleMu.Unlock()
	if h != 0 {
		return h, nil
	}
	h, err := i.need()
	if err != nil {
		i.done()
	}
	return h, err
}

// done ends a use.
func (i *inode) done() {
	if i.parks() {
		i.fs.idleMu.Lock()
		if i.pins--; i.pins == 0 && !i.IsDir() {
			i.fs.lose(broker.Handle(i.held.Swap(0)))
		}
		i.fs.idleMu.Unlock()
	}
}

// need returns the handle, which it asks for if there is none.
func (i *inode) need() (broker.Handle, error) {
	if h := i.handle(); h != 0 {
		return h, nil
	}
	if i.parent == nil {
		return 0, unix.EIO // the broker gave none when it had to
	}
	dir, err := i.parent.use()
	if err != nil {
		return 0, err
	}
	var buf [1]broker.Entry
	e, err := i.fs.walk(dir, []string{i.name}, 0, buf[:0])
	i.parent.done()
	if err != nil {
		return 0, hostError(err)
	}
	h := e[0].Handle
	if h == 0 {
		return 0, unix.EIO
	}
	if i.key != i.fs.keyOf(&e[0].Attr) {
		i.fs.client.Close(h)
		return 0, unix.ESTALE
	}
	if !i.held.CompareAndSwap(0, uint64(h)) {
		i.fs.client.Close(h)
		return i.handle(), nil
	}
	i.fs.hold(i)
	return h, nil
}

// place names a file to the broker until unplace is called.
func (i *inode) place() (broker.Place, error) {
	if i.parent == nil {
		return broker.Place{Handle: i.handle()}, nil
	}
	h, err := i.parent.use()
	return broker.Place{Handle: h, Name: i.name}, err
}

// unplace ends what place began.
func (i *inode) unplace(p broker.Place) {
	if p.Name != "" {
		i.parent.done()
	}
}
