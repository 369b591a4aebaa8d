package vfs

import (
	"math"
	"sync"

	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

// FileLock is a lock of a range of bytes (fcntl(2), "Advisory record locking").
type FileLock struct {
	Type       int16 // F_RDLCK, F_WRLCK, F_UNLCK
	Start, End int64 // End is the last byte; math.MaxInt64: to the end of the file
	PID        int32 // of the owner, as F_GETLK tells; -1 for open file description locks
}

// rangeLock is a FileLock that is held.
type rangeLock struct {
	FileLock
	owner any // *FDTable of traditional locks, *FileDescription of open file description locks
}

type flockLock struct {
	fd        *FileDescription
	exclusive bool
}

// fileLocks are the locks on an inode. They are protected by VFS.locks.mu.
type fileLocks struct {
	ranges []rangeLock
	flocks []flockLock
	queue  waiter.Queue // told when locks go away
}

// lockTable protects all file locks: they are rare, and deadlock detection looks at several files.
type lockTable struct {
	mu    sync.Mutex
	waits []lockWait // protected by mu: who waits for whom
}

type lockWait struct{ who, for_ any }

// fileLocks returns the locks of the inode; v.locks.mu is held.
func (i *Inode) fileLocks() *fileLocks {
	e := i.extra()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.locks == nil {
		e.locks = &fileLocks{}
	}
	return e.locks
}

// conflict finds a lock of somebody else that keeps l from being set.
func (f *fileLocks) conflict(l *FileLock, owner any) *rangeLock {
	for i := range f.ranges {
		x := &f.ranges[i]
		if x.owner != owner && x.Start <= l.End && l.Start <= x.End && (x.Type == unix.F_WRLCK || l.Type == unix.F_WRLCK) {
			return x
		}
	}
	return nil
}

// set replaces what owner holds in the range of l by l, and tells whether something got free.
func (f *fileLocks) set(l FileLock, owner any) (freed bool) {
	var out []rangeLock
	for _, x := range f.ranges {
		if x.owner != owner || x.End < l.Start || l.End < x.Start {
			out = append(out, x)
			continue
		}
		if x.Type == unix.F_WRLCK && l.Type != unix.F_WRLCK || l.Type == unix.F_UNLCK {
			freed = true
		}
		if x.Start < l.Start {
			y := x
			y.End = l.Start - 1
			out = append(out, y)
		}
		if x.End > l.End {
			y := x
			y.Start = l.End + 1
			out = append(out, y)
		}
	}
	if l.Type != unix.F_UNLCK {
		// Join with neighbours of the same kind.
		for i := 0; i < len(out); {
			x := out[i]
			if x.owner == owner && x.Type == l.Type && (x.End != math.MaxInt64 && x.End+1 == l.Start || l.End != math.MaxInt64 && l.End+1 == x.Start) {
				l.Start, l.End = min(l.Start, x.Start), max(l.End, x.End)
				out = append(out[:i], out[i+1:]...)
				continue
			}
			i++
		}
		out = append(out, rangeLock{l, owner})
	}
	f.ranges = out
	return freed
}

// maxLocks bounds the locks on one file.
const maxLocks = 1 << 16

// TestLock is F_GETLK: l becomes the lock that is in the way, or gets type F_UNLCK. owner is an *FDTable, or for F_OFD_GETLK
// the file itself.
func (fd *FileDescription) TestLock(l *FileLock, owner any) {
	v := fd.vfs
	v.locks.mu.Lock()
	defer v.locks.mu.Unlock()
	if x := fd.Inode().fileLocks().conflict(l, owner); x != nil {
		*l = x.FileLock
	} else {
		l.Type = unix.F_UNLCK
	}
}

// SetLock is F_SETLK, and F_SETLKW if wait. EAGAIN, EDEADLK, ENOLCK, and the errors of Context.Block.
func (fd *FileDescription) SetLock(ctx Context, l FileLock, owner any, wait bool) error {
	v := fd.vfs
	var e *waiter.Entry
	var locks *fileLocks
	defer func() {
		if e != nil {
			locks.queue.EventUnregister(e)
			v.entries.Put(e)
		}
	}()
	for {
		v.locks.mu.Lock()
		locks = fd.Inode().fileLocks()
		x := locks.conflict(&l, owner)
		if x == nil || l.Type == unix.F_UNLCK {
			if len(locks.ranges) >= maxLocks && l.Type != unix.F_UNLCK {
				v.locks.mu.Unlock()
				return unix.ENOLCK
			}
			freed := locks.set(l, owner)
			v.locks.mu.Unlock()
			if freed {
				locks.queue.Notify(waiter.EventIn)
			}
			return nil
		}
		if !wait {
			v.locks.mu.Unlock()
			return unix.EAGAIN
		}
		if _, ofd := owner.(*FileDescription); !ofd && v.locks.deadlock(owner, x.owner) {
			v.locks.mu.Unlock()
			return unix.EDEADLK
		}
		w := lockWait{owner, x.owner}
		v.locks.waits = append(v.locks.waits, w)
		if e == nil {
			e = v.entry(ctx.Waker(), waiter.EventIn)
			locks.queue.EventRegister(e)
		}
		v.locks.mu.Unlock()
		err := ctx.Block(ctx.Waker().C, NoDeadline)
		v.locks.mu.Lock()
		for i := range v.locks.waits {
			if v.locks.waits[i] == w {
				v.locks.waits = append(v.locks.waits[:i], v.locks.waits[i+1:]...)
				break
			}
		}
		v.locks.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// deadlock tells whether other waits, maybe through others, for who.
func (t *lockTable) deadlock(who, other any) bool {
	for hops := 0; hops < 64; hops++ {
		if other == who {
			return true
		}
		next := any(nil)
		for _, w := range t.waits {
			if w.who == other {
				next = w.for_
				break
			}
		}
		if next == nil {
			return false
		}
		other = next
	}
	return false
}

// Flock is flock(2); op is LOCK_SH, LOCK_EX or LOCK_UN, with LOCK_NB.
func (fd *FileDescription) Flock(ctx Context, op int32) error {
	if fd.IsPathOnly() {
		return unix.EBADF
	}
	nonblock := op&unix.LOCK_NB != 0
	op &^= unix.LOCK_NB
	if op != unix.LOCK_SH && op != unix.LOCK_EX && op != unix.LOCK_UN {
		return unix.EINVAL
	}
	v := fd.vfs
	if op == unix.LOCK_UN {
		v.dropFlock(fd)
		return nil
	}
	exclusive := op == unix.LOCK_EX
	var e *waiter.Entry
	var locks *fileLocks
	defer func() {
		if e != nil {
			locks.queue.EventUnregister(e)
			v.entries.Put(e)
		}
	}()
	for {
		v.locks.mu.Lock()
		locks = fd.Inode().fileLocks()
		own, clash := -1, false
		for i, x := range locks.flocks {
			if x.fd == fd {
				own = i
			} else if exclusive || x.exclusive {
				clash = true
			}
		}
		if own >= 0 && locks.flocks[own].exclusive == exclusive {
			v.locks.mu.Unlock()
			return nil
		}
		freed := false
		if own >= 0 { // a conversion first lets go of the old lock
			locks.flocks = append(locks.flocks[:own:own], locks.flocks[own+1:]...)
			freed = true
		}
		if !clash {
			locks.flocks = append(locks.flocks, flockLock{fd, exclusive})
		} else if !nonblock && e == nil {
			e = v.entry(ctx.Waker(), waiter.EventIn)
			locks.queue.EventRegister(e)
		}
		v.locks.mu.Unlock()
		if freed {
			locks.queue.Notify(waiter.EventIn)
		}
		if !clash {
			return nil
		}
		if nonblock {
			return unix.EWOULDBLOCK
		}
		if err := ctx.Block(ctx.Waker().C, NoDeadline); err != nil {
			return err
		}
	}
}

func (v *VFS) dropFlock(fd *FileDescription) {
	v.locks.mu.Lock()
	locks := fd.Inode().fileLocks()
	freed := false
	for i, x := range locks.flocks {
		if x.fd == fd {
			locks.flocks = append(locks.flocks[:i:i], locks.flocks[i+1:]...)
			freed = true
			break
		}
	}
	v.locks.mu.Unlock()
	if freed {
		locks.queue.Notify(waiter.EventIn)
	}
}

// dropRanges drops all of owner's locks on the inode.
func (v *VFS) dropRanges(i *Inode, owner any) {
	e := i.ext.Load()
	if e == nil {
		return
	}
	v.locks.mu.Lock()
	e.mu.Lock()
	locks := e.locks
	e.mu.Unlock()
	freed := false
	if locks != nil {
		freed = locks.set(FileLock{Type: unix.F_UNLCK, Start: 0, End: math.MaxInt64}, owner)
	}
	v.locks.mu.Unlock()
	if freed {
		locks.queue.Notify(waiter.EventIn)
	}
}

// releaseFileLocks drops what belongs to the open file description.
func (v *VFS) releaseFileLocks(fd *FileDescription) {
	v.dropRanges(fd.Inode(), fd)
	v.dropFlock(fd)
}

// releasePosixLocks drops what the process that owns t has on the file: any close does that.
func (v *VFS) releasePosixLocks(fd *FileDescription, t *FDTable) { v.dropRanges(fd.Inode(), t) }
