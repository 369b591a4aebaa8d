package vfs

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// FDTable maps descriptors to files. Tasks share it with CLONE_FILES. Lookups take no lock and allocate nothing.
type FDTable struct {
	vfs  *VFS // immutable
	refs atomic.Int32

	slots atomic.Pointer[[]atomic.Pointer[FileDescription]] // replaced, when it grows, under mu; slots change under mu

	mu      sync.Mutex
	used    []uint64 // protected by mu: bit n: descriptor n is in use or reserved
	cloexec []uint64 // protected by mu
	next    int32    // protected by mu: no descriptor below is free
}

// NewFDTable makes an empty table with one reference.
func (v *VFS) NewFDTable() *FDTable {
	t := &FDTable{vfs: v}
	t.refs.Store(1)
	t.growLocked(64)
	return t
}

// IncRef takes a reference, for a task that shares the table.
func (t *FDTable) IncRef() { t.refs.Add(1) }

// Shared tells whether more than one task has the table.
func (t *FDTable) Shared() bool { return t.refs.Load() > 1 }

// DecRef drops a reference; with the last one all descriptors are closed on behalf of ctx.
func (t *FDTable) DecRef(ctx Context) {
	if t.refs.Add(-1) == 0 {
		t.CloseRange(ctx, 0, ^uint32(0)>>1)
	}
}

// growLocked makes room for n descriptors; n is bounded by NrOpen.
func (t *FDTable) growLocked(n int) {
	n = (n + 63) &^ 63
	s := make([]atomic.Pointer[FileDescription], n)
	if old := t.slots.Load(); old != nil {
		for i := range *old {
			s[i].Store((*old)[i].Load())
		}
	}
	w := n / 64
	t.used = append(t.used, make([]uint64, w-len(t.used))...)
	t.cloexec = append(t.cloexec, make([]uint64, w-len(t.cloexec))...)
	t.slots.Store(&s)
}

// Get returns the file of descriptor n with a reference; nil if there is none.
func (t *FDTable) Get(n int32) *FileDescription {
	for {
		s := *t.slots.Load()
		if uint32(n) >= uint32(len(s)) {
			return nil
		}
		fd := s[n].Load()
		if fd == nil {
			return nil
		}
		if t.hold(n, fd) {
			return fd
		}
	}
}

// hold takes a reference on fd, which was the file of descriptor n a moment ago, if it still is: it may have been released, and its
// description used for another file.
func (t *FDTable) hold(n int32, fd *FileDescription) bool {
	if !fd.TryIncRef() {
		return false
	}
	if (*t.slots.Load())[n].Load() == fd {
		return true
	}
	fd.DecRef()
	return false
}

// limit is the first descriptor that may not be handed out.
func (t *FDTable) limit(ctx Context) int32 {
	l := ctx.Limits().Get(unix.RLIMIT_NOFILE).Cur
	if m := uint64(t.vfs.sysctl.NrOpen.Load()); l > m {
		l = m
	}
	return int32(l)
}

// allocLocked reserves the lowest free descriptor of at least min.
func (t *FDTable) allocLocked(ctx Context, min int32, cloexec bool) (int32, error) {
	limit := t.limit(ctx)
	n := min
	if n < t.next {
		n = t.next
	}
	for w := int(n / 64); w < len(t.used); w++ {
		free := ^t.used[w]
		if w == int(n/64) {
			free &= ^uint64(0) << (n % 64)
		}
		if free != 0 {
			n = int32(w*64 + bits.TrailingZeros64(free))
			goto found
		}
	}
	if m := int32(len(t.used) * 64); n < m {
		n = m
	}
found:
	if n >= limit {
		return -1, unix.EMFILE
	}
	if int(n) >= len(t.used)*64 {
		size := 2 * len(t.used) * 64
		if size <= int(n) {
			size = int(n) + 1
		}
		t.growLocked(size)
	}
	t.used[n/64] |= 1 << (n % 64)
	t.setCloexecLocked(n, cloexec)
	if min <= t.next {
		t.next = n + 1
	}
	return n, nil
}

func (t *FDTable) setCloexecLocked(n int32, on bool) {
	if on {
		t.cloexec[n/64] |= 1 << (n % 64)
	} else {
		t.cloexec[n/64] &^= 1 << (n % 64)
	}
}

func (t *FDTable) freeLocked(n int32) {
	t.used[n/64] &^= 1 << (n % 64)
	t.cloexec[n/64] &^= 1 << (n % 64)
	if n < t.next {
		t.next = n
	}
}

// Install enters fd at the lowest free descriptor of at least min, and takes a reference of its own. EMFILE; EINVAL where min is
// not below RLIMIT_NOFILE (F_DUPFD).
func (t *FDTable) Install(ctx Context, fd *FileDescription, min int32, cloexec bool) (int32, error) {
	if min != 0 && (min < 0 || min >= t.limit(ctx)) {
		return -1, unix.EINVAL
	}
	t.mu.Lock()
	n, err := t.allocLocked(ctx, min, cloexec)
	if err == nil {
		fd.IncRef()
		(*t.slots.Load())[n].Store(fd)
	}
	t.mu.Unlock()
	return n, err
}

// Install2 enters two files at the two lowest descriptors, or none (pipe(2), socketpair(2)).
func (t *FDTable) Install2(ctx Context, a, b *FileDescription, cloexec bool) (x, y int32, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x, err = t.allocLocked(ctx, 0, cloexec); err != nil {
		return -1, -1, err
	}
	if y, err = t.allocLocked(ctx, 0, cloexec); err != nil {
		t.freeLocked(x)
		return -1, -1, err
	}
	a.IncRef()
	b.IncRef()
	s := *t.slots.Load()
	s[x].Store(a)
	s[y].Store(b)
	return x, y, nil
}

// Reserve takes the lowest free descriptor without a file yet: an open(2) that would fail for want of one must have no
// effect. Fill or Unreserve must follow.
func (t *FDTable) Reserve(ctx Context, cloexec bool) (int32, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.allocLocked(ctx, 0, cloexec)
}

// Fill puts a file into a reserved descriptor; the caller's reference passes to the table.
func (t *FDTable) Fill(n int32, fd *FileDescription) {
	t.mu.Lock()
	(*t.slots.Load())[n].Store(fd)
	t.mu.Unlock()
}

// Unreserve gives a reserved descriptor back.
func (t *FDTable) Unreserve(n int32) {
	t.mu.Lock()
	t.freeLocked(n)
	t.mu.Unlock()
}

// InstallAt enters fd at n, which is closed first if it is open (dup2(2)). The table takes a reference of its own. EBADF
// where n is out of range; EBUSY where n is reserved by an open under way.
func (t *FDTable) InstallAt(ctx Context, fd *FileDescription, n int32, cloexec bool) error {
	if n < 0 || n >= t.limit(ctx) {
		return unix.EBADF
	}
	t.mu.Lock()
	if int(n) >= len(t.used)*64 {
		t.growLocked(max(int(n)+1, 2*len(t.used)*64))
	}
	slot := &(*t.slots.Load())[n]
	old := slot.Load()
	if old == nil && t.used[n/64]>>(n%64)&1 != 0 {
		t.mu.Unlock()
		return unix.EBUSY
	}
	t.used[n/64] |= 1 << (n % 64)
	t.setCloexecLocked(n, cloexec)
	fd.IncRef()
	slot.Store(fd)
	t.mu.Unlock()
	if old != nil {
		_ = old.closed(ctx, t)
	}
	return nil
}

// Remove takes descriptor n out and returns its file with the table's reference; nil if there is none.
// The caller calls Close of the result, or use FDTable.Close.
func (t *FDTable) remove(n int32) *FileDescription {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := *t.slots.Load()
	if uint32(n) >= uint32(len(s)) {
		return nil
	}
	fd := s[n].Load()
	if fd != nil {
		s[n].Store(nil)
		t.freeLocked(n)
	}
	return fd
}

// Close closes descriptor n. EBADF, or the error of the file's Flush.
func (t *FDTable) Close(ctx Context, n int32) error {
	fd := t.remove(n)
	if fd == nil {
		return unix.EBADF
	}
	return fd.closed(ctx, t)
}

// CloseRange closes all descriptors of [first, last].
func (t *FDTable) CloseRange(ctx Context, first, last uint32) {
	for n := first; ; n++ {
		t.mu.Lock()
		n = t.nextUsedLocked(n)
		t.mu.Unlock()
		if n > last {
			return
		}
		if fd := t.remove(int32(n)); fd != nil {
			_ = fd.closed(ctx, t)
		}
	}
}

// nextUsedLocked is the first used descriptor of at least n; ^0 if there is none.
func (t *FDTable) nextUsedLocked(n uint32) uint32 {
	for w := int(n / 64); w < len(t.used); w++ {
		u := t.used[w]
		if w == int(n/64) {
			u &= ^uint64(0) << (n % 64)
		}
		if u != 0 {
			return uint32(w*64 + bits.TrailingZeros64(u))
		}
	}
	return ^uint32(0)
}

// SetCloexecRange sets the flag on all descriptors of [first, last] (CLOSE_RANGE_CLOEXEC).
func (t *FDTable) SetCloexecRange(first, last uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := t.nextUsedLocked(first); n <= last && n != ^uint32(0); n = t.nextUsedLocked(n + 1) {
		t.setCloexecLocked(int32(n), true)
	}
}

// CloseOnExec closes what has the flag (execve(2)).
func (t *FDTable) CloseOnExec(ctx Context) {
	for w := 0; ; w++ {
		t.mu.Lock()
		if w >= len(t.used) {
			t.mu.Unlock()
			return
		}
		set := t.cloexec[w] & t.used[w]
		t.mu.Unlock()
		for ; set != 0; set &= set - 1 {
			if fd := t.remove(int32(w*64 + bits.TrailingZeros64(set))); fd != nil {
				_ = fd.closed(ctx, t)
			}
		}
	}
}

// Cloexec returns FD_CLOEXEC of n; EBADF.
func (t *FDTable) Cloexec(n int32) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := *t.slots.Load(); uint32(n) >= uint32(len(s)) || s[n].Load() == nil {
		return false, unix.EBADF
	}
	return t.cloexec[n/64]>>(n%64)&1 != 0, nil
}

// SetCloexec changes FD_CLOEXEC of n; EBADF.
func (t *FDTable) SetCloexec(n int32, on bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := *t.slots.Load(); uint32(n) >= uint32(len(s)) || s[n].Load() == nil {
		return unix.EBADF
	}
	t.setCloexecLocked(n, on)
	return nil
}

// Fork copies the table (fork(2), unshare(2)). Descriptors above last are left out (CLOSE_RANGE_UNSHARE); ^0 copies all.
func (t *FDTable) Fork(last uint32) *FDTable {
	c := t.vfs.NewFDTable()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.used) > len(c.used) {
		c.growLocked(len(t.used) * 64)
	}
	from, to := *t.slots.Load(), *c.slots.Load()
	for n := t.nextUsedLocked(0); n <= last && n != ^uint32(0); n = t.nextUsedLocked(n + 1) {
		fd := from[n].Load()
		if fd == nil {
			continue // reserved by another task
		}
		fd.IncRef()
		to[n].Store(fd)
		c.used[n/64] |= 1 << (n % 64)
		c.cloexec[n/64] |= t.cloexec[n/64] & (1 << (n % 64))
	}
	return c
}

// Next returns the first open descriptor of at least n with its file, referenced; -1 if there is none. It is how
// /proc/PID/fd is listed.
func (t *FDTable) Next(n int32) (int32, *FileDescription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for u := t.nextUsedLocked(uint32(n)); u != ^uint32(0); u = t.nextUsedLocked(u + 1) {
		if fd := (*t.slots.Load())[u].Load(); fd != nil {
			fd.IncRef()
			return int32(u), fd
		}
	}
	return -1, nil
}

// Count is the number of open descriptors, and Size the number there is room for (FDSize of /proc/PID/status).
func (t *FDTable) Count() (open, size int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range t.used {
		open += bits.OnesCount64(w)
	}
	return open, len(t.used) * 64
}
