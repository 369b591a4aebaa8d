package gofer

import (
	"sync"

	"golang.org/x/sys/unix"

	broker "husk/pkg/gofer"
)

// Programs that walk through a tree that has been walked through before (builds, backups, git) find the inodes known, and their host
// descriptors closed, as there are more files than descriptors kept. They mostly open the files in the order of the last time. So each inode
// remembers which one was opened after it, and once two opens at the broker follow that order, a request asks for the descriptors of those
// that come next, too. These are as good as if the files had been closed a moment ago: only exclusive attach points do that.

const (
	// againMax is how many descriptors a request brings beside its own.
	againMax = broker.MaxDonated - 1
	// againFirst is how many the first one does.
	againFirst = 4
	// againScan is how many files that have descriptors may lie between.
	againScan = 4 * broker.MaxDonated
)

// again is the state of opening ahead.
type again struct {
	mu     sync.Mutex // guards what follows
	last   *inode     // opened last; only compared, and followed with a reference
	expect *inode     // which the broker is going to be asked for next, if the order is that of the last time
	window int        // descriptors to ask for beside the one that is needed
}

// opened notes that i was opened for reading.
func (fs *filesystem) opened(i *inode) {
	if fs.shared {
		return
	}
	g := &fs.again
	g.mu.Lock()
	last := g.last
	g.last = i
	g.mu.Unlock()
	// One that is released must not lead to others: all that was ever opened would hang on a chain of them.
	if last != nil && last != i && last.after.Load() != i && last.TryIncRef() {
		last.after.Store(i)
		last.DecRef()
	}
}

// next returns the files whose descriptors are going to be needed when the broker is asked for that of i, with references.
func (fs *filesystem) next(i *inode, buf []*inode) []*inode {
	if fs.shared || fs.maxIdle < fdsAhead {
		return buf
	}
	g := &fs.again
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.expect != i {
		g.window = 0
	} else {
		g.window = min(max(4*g.window, againFirst), againMax)
	}
	g.expect = nil
	n := i.after.Load()
	for steps := 0; n != nil && n != i && steps < againScan; steps++ {
		if n.fd() < 0 && n.Type() == unix.S_IFREG {
			if len(buf) == g.window {
				g.expect = n
				break
			}
			if !n.TryIncRef() {
				break
			}
			buf = append(buf, n)
		}
		n = n.after.Load()
	}
	return buf
}

// openNext gives the files the descriptors that came for them, -1 for none, and drops the references.
func openNext(files []*inode, fds []int) {
	for k, n := range files {
		if k < len(fds) && fds[k] >= 0 {
			n.adopt(fds[k])
		}
		n.DecRef()
	}
}
