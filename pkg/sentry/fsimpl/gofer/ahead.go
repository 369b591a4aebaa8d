package gofer

import (
	"golang.org/x/sys/unix"

	broker "husk/pkg/gofer"
)

// Programs that list a directory and then look at what is in it (ls -l, find, tar, du, rm -r, git) do so in the order of the listing.
// Once a second lookup follows the listing, one request asks for several entries ahead. Only exclusive attach points
// do that: there the sentry knows of every change.

const (
	// aheadMax is how many entries a request asks for at most. A request costs some 50 us, an entry of it 10 to 20 us.
	aheadMax = 16
	// aheadGap is how many entries a program may leave out and still be in order.
	aheadGap = 4
	// aheadScan bounds the search for a name in the listing.
	aheadScan = 64
	// aheadDirs is how many directories of an attach point keep entries: as deep as most trees are.
	aheadDirs = 8
)

// ahead is a directory's state of looking ahead; guarded by inode.mu.
type ahead struct {
	next    int // index in the listing behind the last lookup
	window  int // entries that the next request asks for
	entries []aheadEntry
}

// aheadEntry is an entry that has been asked for and not been looked up yet. Its handle belongs to the directory.
type aheadEntry struct {
	name  string
	index int // in the listing
	entry broker.Entry
}

// takeAhead returns an entry that was asked for before.
func (i *inode) takeAhead(name string) (e broker.Entry, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	a := i.ahead
	if a == nil {
		return e, false
	}
	for k := range a.entries {
		if a.entries[k].name == name {
			e, a.next = a.entries[k].entry, a.entries[k].index+1
			a.entries = append(a.entries[:k], a.entries[k+1:]...)
			return e, true
		}
	}
	return e, false
}

// plan returns the names to ask for when name is looked up: itself, and entries ahead of it whose indexes in the listing
// are those from index[1] on. gen is what listGen must still be when the reply is kept.
func (i *inode) plan(name string) (names []string, index []int, gen uint64) {
	names = []string{name}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.listing == nil {
		return names, nil, 0
	}
	a := i.ahead
	if a == nil {
		a = &ahead{}
		i.ahead = a
	}
	k := find(i.listing, a.next, name)
	if k < 0 {
		if k = find(i.listing, 0, name); k < 0 {
			return names, nil, 0
		}
	}
	// Programs that only enter directories leave out the rest.
	dirs := i.listing[k].Type == unix.DT_DIR && k >= a.next
	for j := a.next; dirs && j < k; j++ {
		dirs = i.listing[j].Type != unix.DT_DIR
	}
	near := k >= a.next && k <= a.next+aheadGap
	if a.window == 0 || !near && !dirs {
		a.next, a.window = k+1, 1
		return names, nil, 0
	}
	a.next, a.window = k+1, min(4*a.window, aheadMax)
	index = append(index, k)
	for j := k + 1; j < len(i.listing) && j < k+aheadScan && len(names) < a.window; j++ {
		if e := &i.listing[j]; near || e.Type == unix.DT_DIR {
			names, index = append(names, e.Name), append(index, j)
		}
	}
	return names, index, i.listGen
}

// find returns the index of a name in a listing, looking at some entries from one on; -1 if it is not there.
func find(l []broker.Dirent, from int, name string) int {
	for k := from; k < len(l) && k < from+aheadScan; k++ {
		if l[k].Name == name {
			return k
		}
	}
	return -1
}

// keepAhead keeps what a request found beyond the name that it was made for.
func (i *inode) keepAhead(found []broker.Entry, names []string, index []int, gen uint64) {
	var keep []aheadEntry
	for k := range found {
		e := &found[k]
		if i.fs.known(&e.Attr) {
			i.fs.client.Close(e.Handle)
			continue
		}
		keep = append(keep, aheadEntry{names[k], index[k], *e})
	}
	i.mu.Lock()
	if i.ahead != nil && i.listGen == gen {
		i.ahead.entries, keep = keep, i.ahead.entries
	}
	i.mu.Unlock()
	i.fs.closeAll(keep)
	i.fs.limitAhead(i)
}

// known says whether attributes asked for ahead could be outdated by the time they are used: somebody may change the file, because it has an
// inode or another name.
func (fs *filesystem) known(a *broker.Attr) bool {
	if a.Nlink > 1 && a.Type() != unix.S_IFDIR {
		return true
	}
	fs.tableMu.Lock()
	defer fs.tableMu.Unlock()
	return fs.table[fileKey{a.Dev, a.Ino}] != nil
}

func (fs *filesystem) closeAll(list []aheadEntry) {
	for k := range list {
		fs.client.Close(list[k].entry.Handle)
	}
}

// dropAhead forgets what was asked for ahead; i.mu is held. The caller closes what it returns.
func (i *inode) dropAhead() []aheadEntry {
	if i.ahead == nil {
		return nil
	}
	list := i.ahead.entries
	i.ahead = nil
	return list
}

// limitAhead notes that the directory keeps entries, and makes the one that did so longest ago drop its own.
func (fs *filesystem) limitAhead(i *inode) {
	fs.idleMu.Lock()
	victim := fs.ahead[fs.aheadNext]
	for _, other := range fs.ahead {
		if other == i {
			fs.idleMu.Unlock()
			return
		}
	}
	fs.ahead[fs.aheadNext] = i
	fs.aheadNext = (fs.aheadNext + 1) % aheadDirs
	fs.idleMu.Unlock()
	if victim != nil {
		victim.mu.Lock()
		list := victim.dropAhead()
		victim.mu.Unlock()
		fs.closeAll(list)
	}
}

// leaveAhead takes an inode that goes out of the list; idleMu is held.
func (fs *filesystem) leaveAhead(i *inode) {
	for k := range fs.ahead {
		if fs.ahead[k] == i {
			fs.ahead[k] = nil
		}
	}
}
