package memfile

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/ranges"
)

const (
	pageSize = 4096
	pageMask = pageSize - 1

	// DefaultSize is the default length of the file: far more than a host has memory, since extents are
	// sparse, and little of the 128 TiB of addresses that the sentry has.
	DefaultSize = 1 << 40

	// reclaimDelay is how long freed ranges wait for others before they are punched together.
	reclaimDelay = time.Millisecond
	// reclaimNow is the number of freed bytes that are punched without delay.
	reclaimNow = 64 << 20
	// cachedRange is the largest range that is kept with its pages for Overwrite and Recycle, and cachedBytes what is kept in all: enough
	// for the copies that some processes make between fork and exec, and for the heaps and stacks of small programs. A page that is there
	// already costs a tenth of a new one.
	cachedRange = 256 << 10
	cachedBytes = 8 << 20
	// cacheIdle is how long the cache lives after the last range was put in.
	cacheIdle = time.Second
	// limitStep is the number of bytes that are handed out between two looks at the usage.
	limitStep = 4 << 20
)

// Range is a range of bytes of the file; both fields are multiples of the page size.
type Range struct {
	Off, Len uint64
	// Dirty is set by Allocate when the bytes are old ones; see AllocOpts.Overwrite.
	Dirty bool
}

// End is the offset behind r.
func (r Range) End() uint64 { return r.Off + r.Len }

// refs is a count of references. Zero stands for a freed range that has not been punched yet.
type refs uint32

// Tail and Joins make refs a ranges.Value.
func (r refs) Tail(uint64) refs               { return r }
func (r refs) Joins(_ uint64, next refs) bool { return r == next }

// Options configures New.
type Options struct {
	// Size is the length of the file in bytes; 0 is DefaultSize.
	Size uint64
	// Limit is the number of bytes of host memory beyond which Allocate gives ENOMEM, roughly
	// observed; 0 is no limit.
	Limit uint64
	// FD is an empty file to use, on a tmpfs that prefers huge pages; the File owns it then, and nobody may
	// change its length. 0 makes a memfd.
	FD int
	// Unmapped keeps FD, a file on a disk, from being mapped into the sentry, which a full disk would kill: Slice must not be used then, but
	// ReadAt and WriteAt.
	Unmapped bool
}

// File is a memory file. Its methods may be called from any goroutine.
type File struct {
	fd    int     // immutable
	base  uintptr // immutable: where the sentry has it mapped; 0: nowhere
	size  uint64  // immutable
	limit atomic.Uint64

	mu sync.Mutex
	// used maps the ranges that must not be handed out to their counts; protected by mu.
	used ranges.Map[refs]
	// low is an offset below which nothing is free; protected by mu.
	low uint64
	// freed lists the ranges whose count is zero; protected by mu.
	freed      []Range
	freedBytes uint64 // protected by mu
	// cache lists ranges whose count is zero and whose contents are old; protected by mu.
	cache      []Range
	cacheBytes uint64 // protected by mu
	cachePuts  uint64 // ranges that have ever been put in; protected by mu
	cacheSeen  uint64 // cachePuts when expire last looked; protected by mu
	expiring   bool   // expire is going to run; protected by mu
	unchecked  uint64 // bytes handed out since the limit was last checked; protected by mu
	closed     bool   // protected by mu

	allocated atomic.Uint64 // bytes in used
	kick      chan struct{} // wakes the reclaimer; closed by Close
	done      chan struct{} // closed by the reclaimer
}

// AllocOpts refines Allocate.
type AllocOpts struct {
	// Align is a power of two, at least the page size (0 is the page size). The range begins at an offset
	// that is Phase modulo Align, so that pages of the size Align can be used on both sides of a mapping.
	Align, Phase uint64
	// Overwrite promises to overwrite every byte at once, if the range comes Dirty.
	Overwrite bool
	// Recycle is for small ranges that are going to be written soon: the range may have pages of the host already.
	Recycle bool
}

// New makes a memory file. Errors are those of memfd_create(2) and mmap(2).
func New(o Options) (*File, error) {
	if o.Size == 0 {
		o.Size = DefaultSize
	}
	fd := o.FD
	if fd == 0 {
		var err error
		flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
		if fd, err = unix.MemfdCreate("memory", flags|unix.MFD_NOEXEC_SEAL); err == unix.EINVAL {
			fd, err = unix.MemfdCreate("memory", flags)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := unix.Ftruncate(fd, int64(o.Size)); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if o.Unmapped {
		f := &File{fd: fd, size: o.Size, kick: make(chan struct{}, 1), done: make(chan struct{})}
		f.SetLimit(o.Limit)
		go f.reclaimer()
		return f, nil
	}
	if o.FD == 0 {
		// Nobody can make the sentry's mapping point behind the end of the file.
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	base, err := unix.MmapPtr(fd, 0, nil, uintptr(o.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	if o.FD != 0 {
		// Applications get huge pages where their mappings have room for them. What the sentry touches first would always have
		// room, as all of the file is mapped: a small allocation must not cost 2 MiB.
		advise(base, o.Size, unix.MADV_NOHUGEPAGE)
	}
	advise(base, o.Size, unix.MADV_DONTFORK)
	advise(base, o.Size, unix.MADV_DONTDUMP)
	f := &File{fd: fd, base: uintptr(base), size: o.Size, kick: make(chan struct{}, 1), done: make(chan struct{})}
	f.SetLimit(o.Limit)
	go f.reclaimer()
	return f, nil
}

// SetLimit changes Options.Limit, in bytes; what is in use stays.
func (f *File) SetLimit(n uint64) { f.limit.Store(n) }

// advise is madvise(2); the advice is an optimisation, so errors do not matter.
func advise(p unsafe.Pointer, n uint64, how int) {
	unix.Syscall(unix.SYS_MADVISE, uintptr(p), uintptr(n), uintptr(how))
}

// Close unmaps and closes the file. No slice of it may be used any more.
func (f *File) Close() {
	f.mu.Lock()
	f.closed = true
	close(f.kick)
	f.mu.Unlock()
	<-f.done
	if f.base != 0 {
		unix.MunmapPtr(unsafe.Pointer(f.base), uintptr(f.size))
	}
	unix.Close(f.fd)
}

// FD is the host file descriptor.
func (f *File) FD() int { return f.fd }

// Size is the length of the file in bytes.
func (f *File) Size() uint64 { return f.size }

// Allocated is the number of bytes that have owners. Most may never have been touched; see Usage.
func (f *File) Allocated() uint64 { return f.allocated.Load() }

// Usage is the number of bytes of host memory that the file takes.
func (f *File) Usage() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, err
	}
	return uint64(st.Blocks) * 512, nil
}

// Slice is the range [off, off+n) of the file, which need not be aligned. The caller holds a reference on it, or
// knows that somebody does for as long as it uses the slice. Other threads and the application change
// its bytes at any time.
func (f *File) Slice(off, n uint64) []byte {
	if off > f.size || n > f.size-off || f.base == 0 {
		panic("memfile: slice out of range")
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(f.base+uintptr(off))), n)
}

// Allocate gives a range of n bytes (a multiple of the page size) that reads as zeros, with one
// reference. ENOMEM where the file or its limit is exhausted.
func (f *File) Allocate(n uint64, o AllocOpts) (Range, error) {
	r, err := f.allocate(n, o)
	if r.Dirty && !o.Overwrite {
		if f.Clear(r) != nil {
			f.DecRef(r)
			return Range{}, unix.ENOMEM
		}
		r.Dirty = false
	}
	return r, err
}

// zeros is what clears a cached range; immutable.
var zeros [cachedRange]byte

// Clear makes a range of at most 256 KiB read as zeros: what is in memory by writing, as the sentry's page tables may lack it, and a fault for each
// page costs more than a system call; the rest, which may be in the host's swap, by punching. Errors: ENOMEM and the like.
func (f *File) Clear(r Range) error {
	var vec [cachedRange / pageSize]byte
	n := r.Len / pageSize
	if !f.ResidentPages(r.Off, vec[:n]) {
		return f.WriteAt(zeros[:r.Len], r.Off)
	}
	for i := uint64(0); i < n; {
		j := i + 1
		for j < n && vec[j]&1 == vec[i]&1 {
			j++
		}
		part := Range{Off: r.Off + i*pageSize, Len: (j - i) * pageSize}
		if vec[i]&1 == 0 {
			f.Punch(part)
		} else if err := f.WriteAt(zeros[:part.Len], part.Off); err != nil {
			return err
		}
		i = j
	}
	return nil
}

// allocate is Allocate, but for the zeroing.
func (f *File) allocate(n uint64, o AllocOpts) (Range, error) {
	if n == 0 || n&pageMask != 0 || n > f.size {
		return Range{}, unix.EINVAL
	}
	align := max(o.Align, pageSize)
	phase := o.Phase & (align - 1) &^ pageMask
	f.mu.Lock()
	defer f.mu.Unlock()
	if (o.Overwrite || o.Recycle) && len(f.cache) > 0 {
		if r, ok := f.takeCached(n); ok {
			return r, nil
		}
	}
	if limit := f.limit.Load(); limit != 0 {
		if f.unchecked += n; f.unchecked >= limitStep || n >= limitStep {
			if u, err := f.Usage(); err == nil && u >= limit {
				return Range{}, unix.ENOMEM
			}
			f.unchecked = 0
		}
	}
	off := f.size
	first := f.size
	f.used.Gaps(f.low, f.size, pageSize, false, func(start, end uint64, _ ranges.Pos) bool {
		first = start
		return false
	})
	f.low = first
	f.used.Gaps(first, f.size, n, false, func(start, end uint64, _ ranges.Pos) bool {
		at := start + (phase-start)&(align-1)
		if at < start || at >= end || end-at < n {
			return true
		}
		off = at
		return false
	})
	if off == f.size {
		return Range{}, unix.ENOMEM
	}
	f.used.Insert(off, off+n, 1)
	f.used.JoinRange(off, off+n)
	f.allocated.Add(n)
	return Range{Off: off, Len: n}, nil
}

// takeCached takes n bytes out of the cache, of a range of that size if there is one; mu is held.
func (f *File) takeCached(n uint64) (Range, bool) {
	best := -1
	for i := len(f.cache) - 1; i >= 0; i-- {
		if have := f.cache[i].Len; have == n {
			best = i
			break
		} else if have > n && best < 0 {
			best = i
		}
	}
	if best < 0 {
		return Range{}, false
	}
	c := &f.cache[best]
	r := Range{Off: c.Off, Len: n, Dirty: true}
	if c.Off, c.Len = c.Off+n, c.Len-n; c.Len == 0 {
		f.cache = append(f.cache[:best], f.cache[best+1:]...)
	}
	f.cacheBytes -= n
	f.allocated.Add(n)
	f.setRefs(r, 1)
	return r, true
}

// setRefs changes the count of a range whose count is zero; mu is held.
func (f *File) setRefs(r Range, n refs) {
	for p := f.used.Isolate(r.Off, r.End()); f.used.Valid(p) && f.used.At(p).Start < r.End(); p = f.used.Next(p) {
		f.used.At(p).Val = n
	}
	f.used.JoinRange(r.Off, r.End())
}

// IncRef adds a reference on every page of r, all of which have one.
func (f *File) IncRef(r Range) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := r.Off
	for p := f.used.Isolate(r.Off, r.End()); f.used.Valid(p) && f.used.At(p).Start < r.End(); p = f.used.Next(p) {
		s := f.used.At(p)
		if s.Start != at || s.Val == 0 {
			panic("memfile: reference on a free range")
		}
		s.Val++
		at = s.End
	}
	if at != r.End() {
		panic("memfile: reference on a free range")
	}
	f.used.JoinRange(r.Off, r.End())
}

// DecRef drops a reference on every page of r. Those that have none left go back to the host.
func (f *File) DecRef(r Range) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := r.Off
	before := f.freedBytes
	for p := f.used.Isolate(r.Off, r.End()); f.used.Valid(p) && f.used.At(p).Start < r.End(); p = f.used.Next(p) {
		s := f.used.At(p)
		if s.Start != at || s.Val == 0 {
			panic("memfile: dropped a reference on a free range")
		}
		s.Val--
		at = s.End
		if s.Val == 0 {
			f.free(Range{Off: s.Start, Len: s.Len()})
		}
	}
	if at != r.End() {
		panic("memfile: dropped a reference on a free range")
	}
	f.used.JoinRange(r.Off, r.End())
	if f.freedBytes != before && (before == 0 || f.freedBytes >= reclaimNow) && !f.closed {
		select {
		case f.kick <- struct{}{}:
		default:
		}
	}
}

// free lists r for the reclaimer, joined with the last one where they touch; mu is held.
func (f *File) free(r Range) {
	f.allocated.Add(-r.Len)
	if r.Len <= cachedRange && f.cacheBytes+r.Len <= cachedBytes && !f.closed {
		f.cache = append(f.cache, r)
		f.cacheBytes += r.Len
		if f.cachePuts++; !f.expiring {
			f.expiring = true
			time.AfterFunc(cacheIdle, f.expire)
		}
		return
	}
	f.freedBytes += r.Len
	if n := len(f.freed); n > 0 {
		if last := &f.freed[n-1]; last.End() == r.Off {
			last.Len += r.Len
			return
		} else if r.End() == last.Off {
			last.Off = r.Off
			last.Len += r.Len
			return
		}
	}
	f.freed = append(f.freed, r)
}

// Exclusive is the length of the longest range at off, at most n bytes, that has exactly one reference. The
// answer holds while the caller owns that reference.
func (f *File) Exclusive(off, n uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := off + n
	at := off
	for p, ok := f.used.Find(off); ok && at < end; ok = f.used.Valid(p) {
		s := f.used.At(p)
		if s.Start > at || s.Val != 1 {
			break
		}
		at = min(s.End, end)
		p = f.used.Next(p)
	}
	return at - off
}

// Punch makes r, on which the caller holds references, read as zeros, and gives its pages back to the host.
// Mappings of it stay.
func (f *File) Punch(r Range) {
	for {
		err := unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(r.Off), int64(r.Len))
		if err == unix.EINTR {
			continue
		}
		switch {
		case err == nil:
		case f.base != 0: // zeroing is as good, but for the host's memory
			clear(f.Slice(r.Off, r.Len))
		default:
			for b := make([]byte, min(r.Len, 1<<20)); r.Len > 0; r.Len -= uint64(len(b)) {
				b = b[:min(r.Len, uint64(len(b)))]
				if f.WriteAt(b, r.Off) != nil {
					break
				}
				r.Off += uint64(len(b))
			}
		}
		return
	}
}

// Mapped tells whether Slice may be used.
func (f *File) Mapped() bool { return f.base != 0 }

// ReadAt reads all of b at off. EIO.
func (f *File) ReadAt(b []byte, off uint64) error {
	for len(b) > 0 {
		n, err := unix.Pread(f.fd, b, int64(off))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = unix.EIO
		}
		if err != nil {
			return err
		}
		b = b[n:]
		off += uint64(n)
	}
	return nil
}

// WriteAt writes all of b at off. ENOSPC, EIO and the like.
func (f *File) WriteAt(b []byte, off uint64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(f.fd, b, int64(off))
		if err != nil && err != unix.EINTR {
			return err
		}
		b = b[max(n, 0):]
		off += uint64(max(n, 0))
	}
	return nil
}

// Reserve makes sure that the disk has room for the range, which an application is going to write through a mapping. ENOSPC.
func (f *File) Reserve(r Range) error {
	if f.base != 0 {
		return nil
	}
	err := unix.Fallocate(f.fd, unix.FALLOC_FL_KEEP_SIZE, int64(r.Off), int64(r.Len))
	if err == unix.EOPNOTSUPP || err == unix.EINTR {
		return nil
	}
	return err
}

// Resident counts the bytes of r that take host memory.
func (f *File) Resident(r Range) (n uint64) {
	var vec [4096]byte
	for r.Len > 0 {
		step := min(r.Len, uint64(len(vec))*pageSize)
		if !f.ResidentPages(r.Off, vec[:step/pageSize]) {
			return n
		}
		for _, b := range vec[:step/pageSize] {
			n += uint64(b&1) * pageSize
		}
		r.Off += step
		r.Len -= step
	}
	return n
}

// ResidentPages stores in bit 0 of each element of vec whether the corresponding page from off on takes host memory.
func (f *File) ResidentPages(off uint64, vec []byte) bool {
	if len(vec) == 0 {
		return true
	}
	_, _, e := unix.Syscall(unix.SYS_MINCORE, f.base+uintptr(off), uintptr(len(vec))*pageSize, uintptr(unsafe.Pointer(&vec[0])))
	return e == 0
}

// expire empties the cache when nothing has been put in for a while.
func (f *File) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	if f.cachePuts != f.cacheSeen {
		f.cacheSeen = f.cachePuts
		time.AfterFunc(cacheIdle, f.expire)
		return
	}
	f.expiring = false
	f.dropCache()
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// dropCache leaves what is cached to the reclaimer; mu is held.
func (f *File) dropCache() {
	f.freed = append(f.freed, f.cache...)
	f.freedBytes += f.cacheBytes
	f.cache, f.cacheBytes = f.cache[:0], 0
}

// reclaimer punches freed ranges and then makes them available.
func (f *File) reclaimer() {
	defer close(f.done)
	var list []Range
	for range f.kick {
		f.mu.Lock()
		wait := f.freedBytes < reclaimNow
		f.mu.Unlock()
		if wait {
			time.Sleep(reclaimDelay)
		}
		list = f.reclaim(list)
	}
}

// Reclaim punches what has been freed now.
func (f *File) Reclaim() {
	f.mu.Lock()
	f.dropCache()
	f.mu.Unlock()
	f.reclaim(nil)
}

// reclaim does the work of Reclaim with list as scratch space.
func (f *File) reclaim(list []Range) []Range {
	f.mu.Lock()
	list, f.freed = f.freed, list[:0]
	f.freedBytes = 0
	f.mu.Unlock()
	for _, r := range list {
		f.Punch(r)
	}
	f.mu.Lock()
	for _, r := range list {
		f.used.RemoveRange(r.Off, r.End())
		f.low = min(f.low, r.Off)
	}
	f.mu.Unlock()
	return list
}
