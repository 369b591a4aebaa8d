package gofer

import (
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	broker "husk/pkg/gofer"
)

// Programs that walk through trees list a directory, look at what is in it, open the files and go on in the directories. A request that asks for one
// name at a time costs two wake-ups, so one request asks for several entries ahead, and for what the program will want of them next: descriptors of
// files, lists of directories. While the program uses what came, the next request is under way.
//
// What to ask for follows from what programs did so far. In a directory, that is the order in which they look at the entries; for the file system as
// a whole, the habit: whether they look at what they list, open what they look up, list the directories that they find.
//
// Only exclusive attach points do that: there the sentry knows of every change. What is asked for ahead belongs to the directory until it is looked
// up. It cannot be outdated by then: nobody but the sentry changes the file, the sentry needs an inode for that, and gets one only by a look-up that
// takes what was asked for (a file that has other names is not kept). A change of the directory drops it all.

const (
	// aheadMax is how many entries a request asks for at most. A request costs some 50 us, an entry of it some 6 us.
	aheadMax = 32
	// aheadFirst is how many the first request of a directory asks for.
	aheadFirst = 4
	// aheadSmall is up to how many entries a directory is asked for as a whole, whatever the order.
	aheadSmall = 8
	// aheadGap is how many entries a program may leave out and still be in order.
	aheadGap = 4
	// aheadScan bounds the search for the next directory.
	aheadScan = 256
	// aheadDirs is how many directories of an attach point keep entries: as deep as most trees are. Each has two requests' entries at most.
	aheadDirs = 8
	// fdsAhead is how many descriptors they have then.
	fdsAhead = aheadDirs * 2 * aheadMax
)

// ahead is a directory's state of looking ahead; guarded by inode.mu. A change of the directory ends it.
type ahead struct {
	order   order
	dirs    bool // only directories are looked at
	last    int  // entry of the listing that was looked up last; -1: none
	asked   int  // place in the order behind what was asked for
	window  int  // entries that a request asks for
	asks    int  // counts names that were asked for when they were looked up
	entries []aheadEntry

	started *broker.Started // the request that is under way, or nil
	starts  []int32         // entries of the listing that it asks for
}

// aheadEntry is an entry that has been asked for and not been looked up yet. Its handle and descriptor belong to the directory.
type aheadEntry struct {
	index int // in the listing
	*broker.Sibling
}

// habit is what programs do with an attach point. The counts are between 0 and habitMax; races between updates do no harm.
type habit struct {
	looks atomic.Int32 // entries that were asked for ahead are looked up
	opens atomic.Int32 // files that are looked up are opened
	lists atomic.Int32 // directories that are looked up are listed
	order atomic.Int32 // in which they look at entries
	dirs  atomic.Bool  // only at directories
}

const (
	habitMax = 16
	// habitual is the count from which on something counts as what programs do: it takes three files of four that are opened to get there.
	habitual = 4
)

// scarce tells whether the broker can have so few handles that none may wait for being asked for.
func (fs *filesystem) scarce() bool { return fs.handles != nil && fs.handles.max < 2*fdsAhead }

// bump changes a count of a habit.
func bump(count *atomic.Int32, by int32) {
	if old := count.Load(); true {
		if v := max(0, min(old+by, habitMax)); v != old {
			count.Store(v)
		}
	}
}

// with is what to ask for beside attributes.
func (fs *filesystem) with() broker.With {
	w := fs.bare()
	if fs.scarce() {
		return w
	}
	// Descriptors that wait for their files are not more than those that wait for the next open.
	if fs.habit.opens.Load() >= habitual && fs.maxIdle >= fdsAhead {
		w |= broker.WithFD
	}
	if fs.habit.lists.Load() >= habitual {
		w |= broker.WithList
		if fs.habit.looks.Load() >= habitual && !fs.habit.dirs.Load() {
			w |= broker.WithTree
		}
	}
	return w
}

// takeAhead returns an entry that was asked for before. Without one, the caller asks the broker.
func (i *inode) takeAhead(name string) (s broker.Sibling, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if s, ok = i.takeLocked(name); !ok && i.ahead != nil {
		i.ahead.asks++
	}
	return s, ok
}

func (i *inode) takeLocked(name string) (s broker.Sibling, ok bool) {
	a := i.ahead
	if a == nil {
		return s, false
	}
	k := a.find(i.listing, name)
	if k < 0 && a.started != nil {
		i.collect(a)
		k = a.find(i.listing, name)
	}
	if k < 0 {
		return s, false
	}
	s, a.last = *a.entries[k].Sibling, a.entries[k].index
	a.entries = append(a.entries[:k], a.entries[k+1:]...)
	if k > aheadGap && a.window == aheadMax {
		// What the program has left out.
		i.fs.give(a.entries[:k-aheadGap])
		a.entries = append(a.entries[:0], a.entries[k-aheadGap:]...)
	}
	bump(&i.fs.habit.looks, 1)
	i.more(a)
	if len(a.entries) == 0 && a.started == nil {
		i.fs.idleMu.Lock()
		i.fs.leaveAhead(i)
		i.fs.idleMu.Unlock()
	}
	return s, true
}

func (a *ahead) find(l *listing, name string) int {
	for k := range a.entries {
		if l.ents[a.entries[k].index].Name == name {
			return k
		}
	}
	return -1
}

// more starts the next request when none is under way and what the last one brought is being used; i.mu is held.
func (i *inode) more(a *ahead) {
	if i.listing == nil || a.started != nil || a.window < aheadMax || len(a.entries) >= aheadMax {
		return
	}
	names, index := a.next(i.listing, nil, nil)
	if len(names) == 0 {
		return
	}
	if h, err := i.use(); err == nil {
		// The handle must stay until the broker has read the request, and does: it is the one that was used last.
		a.started, a.starts = i.fs.client.Start(h, names, i.fs.with()), index
		i.done()
	}
	if a.started == nil {
		a.asked = i.listing.place(a.order, int(index[0]))
	}
}

// next appends the names to ask for and their indexes in the listing, up to the window.
func (a *ahead) next(l *listing, names []string, index []int32) ([]string, []int32) {
	end := min(len(l.ents), a.asked+aheadScan)
	for ; a.asked < end && len(names) < a.window; a.asked++ {
		k := l.at(a.order, a.asked)
		if !a.dirs || l.isDir(k) {
			names, index = append(names, l.ents[k].Name), append(index, int32(k))
		}
	}
	return names, index
}

// collect takes the reply to the request that is under way; i.mu is held.
func (i *inode) collect(a *ahead) {
	found, _ := a.started.Collect(nil)
	a.started = nil
	i.keep(a, found, a.starts)
}

// keep keeps what a request found ahead; i.mu is held.
func (i *inode) keep(a *ahead, found []broker.Sibling, index []int32) {
	a.entries = slices.Grow(a.entries, len(found))
	for k := range found {
		s := &found[k]
		if k >= len(index) || i.fs.known(&s.Attr) {
			i.fs.giveOne(s)
			continue
		}
		a.entries = append(a.entries, aheadEntry{int(index[k]), s})
	}
	if n := len(a.entries) - 2*aheadMax; n > 0 {
		i.fs.give(a.entries[:n])
		a.entries = append(a.entries[:0], a.entries[n:]...)
	}
}

// find looks name up, in what was asked for ahead or at the broker, with what may be looked up next.
func (i *inode) find(name string) (s broker.Sibling, ahead bool, err error) {
	var names [aheadMax]string
	i.mu.Lock()
	if s, ahead = i.takeLocked(name); ahead {
		i.mu.Unlock()
		return s, true, nil
	}
	list, index := i.plan(name, names[:0])
	a, asks := i.ahead, 0
	if a != nil {
		a.asks++
		asks = a.asks
	}
	i.mu.Unlock()
	var buf [1]broker.Sibling // more go to the heap, where some of them stay
	h, err := i.use()
	if err != nil {
		return s, false, err
	}
	found, err := i.fs.client.Siblings(h, list, i.fs.with(), buf[:0])
	if len(found) == 0 && i.fs.relieve(err) {
		found, err = i.fs.client.Siblings(h, list[:1], i.fs.bare(), buf[:0])
	}
	i.done()
	if len(found) == 0 {
		return s, false, hostError(err)
	}
	if len(found) > 1 {
		i.mu.Lock()
		kept := a != nil && i.ahead == a && a.asks == asks // else one of the names may be known, or have changed
		if kept {
			i.keep(a, found[1:], index[1:])
		}
		i.mu.Unlock()
		if kept {
			i.fs.limitAhead(i)
		} else {
			for k := range found[1:] {
				i.fs.giveOne(&found[1+k])
			}
		}
	}
	return found[0], false, nil
}

// plan returns the names to ask for when name is looked up: itself, and those that follow in the order in which the directory is looked at; and their indexes
// in the listing. i.mu is held.
func (i *inode) plan(name string, names []string) ([]string, []int32) {
	names = append(names, name)
	l := i.listing
	if l == nil || i.fs.scarce() {
		return names, nil
	}
	k := l.find(name)
	if k < 0 {
		return names, nil
	}
	a := i.ahead
	if a == nil {
		a = &ahead{last: -1}
		i.ahead = a
	}
	if len(l.ents) <= aheadSmall {
		return a.all(l, names, k)
	}
	was, dirs := a.order, a.dirs
	ordered := a.follows(l, k, &i.fs.habit)
	a.last = k
	if !ordered {
		a.window = 0
		return names, nil
	}
	if len(a.entries) > 0 {
		if a.order == was && a.dirs == dirs && l.place(was, k) < a.asked {
			return names, nil // it was asked for and not kept: a file with several names
		}
		i.fs.give(a.entries)
		a.entries = nil
	}
	i.fs.habit.order.Store(int32(a.order))
	i.fs.habit.dirs.Store(a.dirs)
	a.window = min(max(4*a.window, aheadFirst), aheadMax)
	a.asked = l.place(a.order, k) + 1
	return a.next(l, names, []int32{int32(k)})
}

// all is the plan for a small directory: all that has not been asked for.
func (a *ahead) all(l *listing, names []string, k int) ([]string, []int32) {
	a.last = k
	if a.window > 0 {
		return names, nil
	}
	a.window = 1
	index := []int32{int32(k)}
	for other := range l.ents {
		if other != k {
			names, index = append(names, l.ents[other].Name), append(index, int32(other))
		}
	}
	a.asked = len(l.ents)
	return names, index
}

// follows reports whether entry k is the next, or nearly so, in an order that begins at the entry looked up last, and notes which. h is what
// happened elsewhere.
func (a *ahead) follows(l *listing, k int, h *habit) bool {
	guess, dirs := a.order, a.dirs
	if a.last < 0 || a.window == 0 {
		guess, dirs = order(h.order.Load()), h.dirs.Load()
	}
	for n := range orders + 1 {
		o := guess
		if n > 0 {
			if o = n - 1; o == guess {
				continue
			}
		}
		if ok, only := a.followsIn(l, o, k, dirs); ok {
			a.order, a.dirs = o, only
			return true
		}
	}
	return false
}

// followsIn is follows for one order. only tells that the program goes into directories and leaves out the rest; dirs that it did so.
func (a *ahead) followsIn(l *listing, o order, k int, dirs bool) (ok, only bool) {
	dir := l.isDir(k)
	before := -1
	if a.last >= 0 {
		before = l.place(o, a.last)
	} else if l.first(o, k) {
		return true, dirs && dir
	} else if o != listed || !dir {
		return false, false // not worth sorting
	}
	p := l.place(o, k)
	if p <= before {
		return false, false
	}
	if dir && (dirs || a.last < 0 || l.isDir(a.last)) && (dirs || p > before+1) {
		only = true
		for q := before + 1; only && q < p; q++ {
			only = !l.isDir(l.at(o, q))
		}
		if only {
			return true, true
		}
	}
	return a.last >= 0 && p <= before+1+aheadGap, false
}

// listedNow starts to ask for what a program looks at next when it has listed the directory.
func (i *inode) listedNow() {
	h := &i.fs.habit
	if i.fs.shared || h.looks.Load() < habitual || i.fs.scarce() {
		return
	}
	i.mu.Lock()
	started := false
	if i.ahead == nil && i.listing != nil && len(i.listing.ents) > 0 {
		i.ahead = &ahead{last: -1, order: order(h.order.Load()), dirs: h.dirs.Load(), window: aheadMax}
		i.more(i.ahead)
		started = i.ahead.started != nil
		if !started {
			i.ahead = nil
		}
	}
	i.mu.Unlock()
	if started {
		i.fs.limitAhead(i)
	}
}

// known says whether attributes asked for ahead could be outdated by the time they are used: somebody may change the file, because it has an
// inode or another name.
func (fs *filesystem) known(a *broker.Attr) bool {
	if fs.frozen {
		return false
	}
	if a.Nlink > 1 && a.Type() != unix.S_IFDIR {
		return true
	}
	fs.tableMu.Lock()
	defer fs.tableMu.Unlock()
	return fs.table[fs.keyOf(a)] != nil
}

// found makes the inode of an entry of dir, with a reference, and counts what programs do with it. ahead: the entry was asked for earlier.
func (fs *filesystem) found(dir *inode, name string, s *broker.Sibling, ahead bool) *inode {
	c, made := fs.inodeOf(dir, name, &s.Entry, ahead)
	if s.FD >= 0 {
		c.adopt(s.FD)
	}
	if !made {
		for k := range s.Tree {
			fs.giveOne(&s.Tree[k])
		}
		return c
	}
	switch c.Type() {
	case unix.S_IFREG:
		bump(&fs.habit.opens, -1)
		c.expected.Store(true)
	case unix.S_IFDIR:
		bump(&fs.habit.lists, -1)
		c.expected.Store(true)
		if s.List != nil {
			c.listedAhead(s)
		}
	}
	return c
}

// listedAhead takes over the entries of a directory that came with its look-up, and what came with them or what programs will want of them.
func (i *inode) listedAhead(s *broker.Sibling) {
	i.mu.Lock()
	fresh := i.listing == nil && i.listGen == 0 && i.ahead == nil
	if fresh {
		i.listing = &listing{ents: s.List}
		if len(s.Tree) > 0 {
			h := &i.fs.habit
			i.ahead = &ahead{last: -1, order: order(h.order.Load()), dirs: h.dirs.Load(), window: 1, asked: len(s.List)}
			index := make([]int32, len(s.Tree))
			for k := range index {
				index[k] = int32(k)
			}
			i.keep(i.ahead, s.Tree, index)
		}
	}
	i.mu.Unlock()
	switch {
	case !fresh:
		for k := range s.Tree {
			i.fs.giveOne(&s.Tree[k])
		}
	case len(s.Tree) > 0:
		i.fs.limitAhead(i)
	default:
		i.listedNow()
	}
}

// used counts that the inode, which a look-up found, is opened or listed.
func (i *inode) used(count *atomic.Int32) {
	if i.expected.Load() && i.expected.CompareAndSwap(true, false) {
		bump(count, 2)
	}
}

// give gives up entries that were not used.
func (fs *filesystem) give(list []aheadEntry) {
	for k := range list {
		fs.giveOne(list[k].Sibling)
	}
	bump(&fs.habit.looks, -int32(len(list)))
}

func (fs *filesystem) giveOne(s *broker.Sibling) { fs.client.Drop(s) }

// dropAhead forgets what was asked for ahead; i.mu is held. The order in which the directory is looked at stays known unless it changed.
func (i *inode) dropAhead() {
	if a := i.ahead; a != nil {
		if a.started != nil {
			a.started.Drop()
			a.started = nil
		}
		i.fs.give(a.entries)
		a.entries = nil
	}
}

// limitAhead notes that the directory keeps entries, and makes the one that did so longest ago drop its own.
func (fs *filesystem) limitAhead(i *inode) {
	fs.idleMu.Lock()
	victim := fs.ahead[fs.aheadNext]
	free := -1
	for k, other := range fs.ahead {
		if other == i {
			fs.idleMu.Unlock()
			return
		}
		if other == nil {
			free = k
		}
	}
	if free >= 0 {
		fs.ahead[free], victim = i, nil
	} else {
		fs.ahead[fs.aheadNext] = i
		fs.aheadNext = (fs.aheadNext + 1) % aheadDirs
	}
	fs.idleMu.Unlock()
	if victim != nil {
		victim.mu.Lock()
		victim.dropAhead()
		victim.mu.Unlock()
	}
}

// leaveAhead takes an inode that keeps nothing any more out of the list; idleMu is held.
func (fs *filesystem) leaveAhead(i *inode) {
	for k := range fs.ahead {
		if fs.ahead[k] == i {
			fs.ahead[k] = nil
		}
	}
}
