package tmpfs

import (
	"sync"
	"sync/atomic"

	"husk/pkg/platform"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/ranges"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// fileOffset is the value of an extent: where in the memory file it begins.
type fileOffset uint64

// Tail and Joins implement ranges.Value.
func (o fileOffset) Tail(off uint64) fileOffset           { return o + fileOffset(off) }
func (o fileOffset) Joins(n uint64, next fileOffset) bool { return o+fileOffset(n) == next }

// regular is what only regular files have. What mu protects is protected by the inode's mu.
type regular struct {
	rw       sync.RWMutex           // held for reading while data is read, for writing while it, or the size, changes
	size     atomic.Int64           // changed with rw and mu held
	extents  ranges.Map[fileOffset] // protected by mu: in bytes, page-aligned; each holds a reference in the memory file
	pages    int64                  // protected by mu: in extents
	cold     int64                  // protected by mu: reads that the host shall make yet, see write
	spare    memfile.Range          // protected by mu: allocated, to continue the last extent
	seals    uint32                 // protected by mu
	mappings mm.MappingSet
}

const (
	// maxSpare bounds what is allocated ahead of a growing file, minSpare is the size from which on it happens.
	maxSpare = 2 << 20
	minSpare = 16 << 10
	// faultAhead is how much of a hole one fault of a mapping fills.
	faultAhead = 256 << 10
)

// free lets go of all data; the inode's mu is held.
func (r *regular) free(f *fileSystem) {
	for p := r.extents.First(); r.extents.Valid(p); p = r.extents.Next(p) {
		s := r.extents.At(p)
		f.mf.DecRef(memfile.Range{Off: uint64(s.Val), Len: s.Len()})
	}
	r.extents.Clear()
	r.dropSpare(f)
	f.pages.Add(-r.pages)
	r.pages = 0
}

func (r *regular) dropSpare(f *fileSystem) {
	if r.spare.Len != 0 {
		f.mf.DecRef(r.spare)
		r.spare = memfile.Range{}
	}
}

// fill backs the hole [start, end) and returns the offset in the memory file of its start; mu is held. ENOSPC, ENOMEM.
func (r *regular) fill(f *fileSystem, start, end uint64) (uint64, error) {
	n := end - start
	if err := f.charge(int64(n >> pageShift)); err != nil {
		return 0, err
	}
	off, err := r.place(f, start, n)
	if err != nil {
		f.pages.Add(-int64(n >> pageShift))
		return 0, unix.ENOSPC
	}
	r.extents.Insert(start, end, fileOffset(off))
	r.extents.JoinRange(start, end)
	r.pages += int64(n >> pageShift)
	return off, nil
}

// place finds n bytes of the memory file for the hole at start, if possible behind the data in front of it.
func (r *regular) place(f *fileSystem, start, n uint64) (uint64, error) {
	var before uint64 // where the extent that ends at start ends in the memory file
	if start > 0 {
		if p, ok := r.extents.Find(start - 1); ok {
			s := r.extents.At(p)
			before = uint64(s.Val) + s.Len()
		}
	}
	if r.spare.Len >= n && r.spare.Off == before {
		off := r.spare.Off
		r.spare.Off += n
		r.spare.Len -= n
		return off, nil
	}
	ahead := uint64(0)
	if start >= minSpare && before != 0 || n >= minSpare {
		ahead = min(max(start, n), maxSpare)
	}
	o := memfile.AllocOpts{}
	if n+ahead >= maxSpare {
		o = memfile.AllocOpts{Align: maxSpare, Phase: start}
	}
	rg, err := f.mf.Allocate(n+ahead, o)
	if err != nil && ahead != 0 {
		ahead = 0
		rg, err = f.mf.Allocate(n, o)
	}
	if err != nil {
		return 0, err
	}
	r.dropSpare(f)
	if ahead != 0 {
		r.spare = memfile.Range{Off: rg.Off + n, Len: ahead}
	}
	return rg.Off, nil
}

// piece finds what backs offset at, up to end: the memory file's bytes if ok, else a hole of n bytes. mu is held.
func (r *regular) piece(at, end uint64) (off, n uint64, ok bool) {
	p := r.extents.Seek(at)
	if !r.extents.Valid(p) {
		return 0, end - at, false
	}
	s := r.extents.At(p)
	if s.Start > at {
		return 0, min(end, s.Start) - at, false
	}
	return uint64(s.Val) + (at - s.Start), min(end, s.End) - at, true
}

// regFile is an open regular file; all opens share the inode.
type regFile inode

// Release implements vfs.FileImpl.
func (*regFile) Release() {}

// Size implements vfs.Sizer.
func (f *regFile) Size(vfs.Context) (int64, error) { return f.reg.size.Load(), nil }

// Read implements vfs.Reader.
func (f *regFile) Read(_ vfs.Context, dst mm.IOSeq, off int64) (int64, error) {
	r := f.reg
	r.rw.RLock()
	defer r.rw.RUnlock()
	size := r.size.Load()
	if off >= size {
		return 0, nil
	}
	dst = dst.TakeFirst(size - off)
	var done int64
	for end := uint64(off + dst.NumBytes()); dst.NumBytes() > 0; {
		at := uint64(off + done)
		f.mu.Lock()
		mo, n, ok := r.piece(at, end)
		cold := ok && r.cold > 0
		if cold {
			r.cold -= 1 + int64(n>>pageShift)/4
		}
		f.mu.Unlock()
		var m int64
		var err error
		if ok {
			m, err = f.fs.copyOut(dst, mo, n, cold)
		} else {
			m, err = dst.ZeroOut(int64(n))
		}
		done += m
		if err != nil {
			return done, err
		}
		dst = dst.DropFirst(m)
	}
	return done, nil
}

// Write implements vfs.Writer.
func (f *regFile) Write(_ vfs.Context, src mm.IOSeq, off int64) (int64, error) {
	f.reg.rw.Lock()
	defer f.reg.rw.Unlock()
	return f.write(src, off)
}

// Append implements vfs.Appender.
func (f *regFile) Append(_ vfs.Context, src mm.IOSeq) (n, end int64, err error) {
	f.reg.rw.Lock()
	defer f.reg.rw.Unlock()
	off := f.reg.size.Load()
	n, err = f.write(src, off)
	return n, off + n, err
}

// write writes with rw held.
//
// New pages are written by the host: a page that the sentry uses for the first time costs it a fault, of 15 to 25 us in a virtual machine with
// shadow page tables, where pwrite(2) takes 1 to 3 us. Much is never read, or once, so the host makes the first reads, too, until what they
// cost more than those of memory in use, 1 us and a quarter for each page, comes to 1 us for each page of the file.
func (f *regFile) write(src mm.IOSeq, off int64) (done int64, err error) {
	r := f.reg
	total := src.NumBytes()
	if total == 0 {
		return 0, nil
	}
	f.mu.Lock()
	seals := r.seals
	f.mu.Unlock()
	if seals&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		return 0, unix.EPERM
	}
	size := r.size.Load()
	if off+total > size && seals&unix.F_SEAL_GROW != 0 {
		if off >= size {
			return 0, unix.EPERM
		}
		total = size - off
		src = src.TakeFirst(total)
	}
	if off > size {
		f.zeroTail(size)
	}
	for end := uint64(off + total); done < total && err == nil; {
		at := uint64(off + done)
		var mo, room uint64
		var fresh bool
		if mo, room, fresh, err = f.block(at, end); err != nil {
			break
		}
		var n int64
		n, err = f.fs.copyIn(src, mo, room, fresh)
		done += n
		src = src.DropFirst(n)
		if uint64(n) < room && err == nil {
			break
		}
	}
	if done > 0 {
		now := clock.Realtime()
		f.mu.Lock()
		if off+done > r.size.Load() {
			r.size.Store(off + done)
		}
		f.mtime, f.ctime = now, now
		f.mu.Unlock()
		return done, nil
	}
	return 0, err
}

// block gives the place in the memory file for a write at at, and its length of at most end-at bytes; holes are filled, and fresh then.
func (f *regFile) block(at, end uint64) (mo, n uint64, fresh bool, err error) {
	r := f.reg
	f.mu.Lock()
	defer f.mu.Unlock()
	mo, n, ok := r.piece(at, end)
	if ok {
		return mo, n, false, nil
	}
	start := at &^ pageMask
	stop := (at + n + pageMask) &^ pageMask
	mo, err = r.fill(f.fs, start, stop)
	if err != nil && stop-start > pageSize {
		// The last pages of a full file system.
		stop = start + pageSize
		mo, err = r.fill(f.fs, start, stop)
	}
	if err != nil {
		return 0, 0, false, err
	}
	r.cold = min(r.cold+int64((stop-start)>>pageShift), r.pages)
	return mo + (at - start), min(n, stop-at), true, nil
}

// zeroTail clears what mappings may have left behind the end of the file in its last page. rw is held.
func (f *regFile) zeroTail(size int64) {
	if size&pageMask == 0 {
		return
	}
	f.mu.Lock()
	mo, n, ok := f.reg.piece(uint64(size), uint64(size+pageMask)&^pageMask)
	f.mu.Unlock()
	if ok {
		f.fs.clear(mo, n)
	}
}

// truncate changes the size.
func (i *inode) truncate(size int64) error {
	r := i.reg
	r.rw.Lock()
	defer r.rw.Unlock()
	i.mu.Lock()
	old := r.size.Load()
	if size < old && r.seals&unix.F_SEAL_SHRINK != 0 || size > old && r.seals&unix.F_SEAL_GROW != 0 {
		i.mu.Unlock()
		return unix.EPERM
	}
	if size == old {
		i.mu.Unlock()
		return nil
	}
	r.size.Store(size)
	if size > old {
		i.mu.Unlock()
		(*regFile)(i).zeroTail(old)
		return nil
	}
	end := (uint64(size) + pageMask) &^ pageMask
	gone := r.cut(i.fs, end, ^uint64(0)&^pageMask)
	r.dropSpare(i.fs)
	i.mu.Unlock()
	(*regFile)(i).zeroTail(size)
	r.mappings.Invalidate(i, end, 0, true)
	for _, g := range gone {
		i.fs.mf.DecRef(g)
	}
	return nil
}

// cut takes [start, end) out of the extents and returns what backed it, for the caller to release; mu is held.
func (r *regular) cut(f *fileSystem, start, end uint64) (gone []memfile.Range) {
	for p := r.extents.Isolate(start, end); r.extents.Valid(p) && r.extents.At(p).Start < end; p = r.extents.Remove(p) {
		s := r.extents.At(p)
		gone = append(gone, memfile.Range{Off: uint64(s.Val), Len: s.Len()})
		r.pages -= int64(s.Len() >> pageShift)
		f.pages.Add(-int64(s.Len() >> pageShift))
	}
	return gone
}

// Allocate implements vfs.Allocator.
func (f *regFile) Allocate(_ vfs.Context, mode uint32, off, length int64) error {
	r := f.reg
	i := (*inode)(f)
	r.rw.Lock()
	defer r.rw.Unlock()
	f.mu.Lock()
	seals := r.seals
	f.mu.Unlock()
	end := off + length
	switch mode {
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
		if seals&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
			return unix.EPERM
		}
		f.zero(off, end)
	case unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE:
		return unix.EOPNOTSUPP // as Linux' tmpfs
	case 0, unix.FALLOC_FL_KEEP_SIZE:
		size := r.size.Load()
		if mode == 0 && end > size && seals&unix.F_SEAL_GROW != 0 {
			return unix.EPERM
		}
		if end > 1<<50 {
			return unix.EFBIG
		}
		for at := uint64(off) &^ pageMask; at < uint64(end); {
			f.mu.Lock()
			_, n, ok := r.piece(at, (uint64(end)+pageMask)&^pageMask)
			var err error
			if !ok {
				_, err = r.fill(f.fs, at, at+n)
			}
			f.mu.Unlock()
			if err != nil {
				return err
			}
			at += n
		}
		if mode == 0 && end > size {
			f.zeroTail(size)
			f.mu.Lock()
			r.size.Store(end)
			f.mu.Unlock()
		}
	default:
		return unix.EOPNOTSUPP
	}
	i.touch(true, 0)
	return nil
}

// zero punches [off, end): whole pages are freed, parts cleared. rw is held.
func (f *regFile) zero(off, end int64) {
	r := f.reg
	first, last := (uint64(off)+pageMask)&^pageMask, uint64(end)&^pageMask
	clearPart := func(a, b uint64) {
		f.mu.Lock()
		mo, n, ok := r.piece(a, b)
		f.mu.Unlock()
		if ok {
			f.fs.clear(mo, n)
		}
	}
	if first > last { // within one page
		clearPart(uint64(off), uint64(end))
		return
	}
	if uint64(off) < first {
		clearPart(uint64(off), first)
	}
	if last < uint64(end) {
		clearPart(last, uint64(end))
	}
	if first == last {
		return
	}
	f.mu.Lock()
	gone := r.cut(f.fs, first, last)
	f.mu.Unlock()
	r.mappings.Invalidate((*inode)(f), first, last-first, false)
	for _, g := range gone {
		f.fs.mf.DecRef(g)
	}
}

// SeekHole implements vfs.HoleSeeker.
func (f *regFile) SeekHole(_ vfs.Context, off int64, whence int32) (int64, error) {
	r := f.reg
	f.mu.Lock()
	defer f.mu.Unlock()
	size := uint64(r.size.Load())
	at := uint64(off)
	for at < size {
		_, n, data := r.piece(at, size)
		if data == (whence == unix.SEEK_DATA) {
			return int64(at), nil
		}
		at += n
	}
	if whence == unix.SEEK_DATA {
		return 0, unix.ENXIO
	}
	return int64(size), nil
}

// Fsync implements vfs.Fsyncer: there is nothing below.
func (f *regFile) Fsync(vfs.Context, bool) error { return nil }

// Mappable implements vfs.Mapper.
func (f *regFile) Mappable(vfs.Context) (mm.Mappable, error) { return (*inode)(f), nil }

// MappingSet implements mm.Mappable.
func (i *inode) MappingSet() *mm.MappingSet { return &i.reg.mappings }

// Translate implements mm.Mappable.
func (i *inode) Translate(start, end, at uint64, write bool) (mm.Translation, error) {
	r := i.reg
	i.mu.Lock()
	defer i.mu.Unlock()
	limit := (uint64(r.size.Load()) + pageMask) &^ pageMask
	if at >= limit {
		return mm.Translation{}, mm.ErrBus
	}
	end = min(end, limit)
	p := r.extents.Seek(at)
	if !r.extents.Valid(p) || r.extents.At(p).Start > at {
		lo, hi := max(start, at&^(faultAhead-1)), min(end, at&^(faultAhead-1)+faultAhead)
		if q := r.extents.Prev(p); r.extents.Valid(q) {
			lo = max(lo, r.extents.At(q).End)
		}
		if r.extents.Valid(p) {
			hi = min(hi, r.extents.At(p).Start)
		}
		if _, err := r.fill(i.fs, lo, hi); err != nil {
			if _, err = r.fill(i.fs, at, at+pageSize); err != nil {
				return mm.Translation{}, err
			}
		}
		p = r.extents.Seek(at)
	}
	s := r.extents.At(p)
	a, b := max(start, s.Start), min(end, s.End)
	t := mm.Translation{Start: a, End: b, HostFD: mm.MemoryFile, Offset: uint64(s.Val) + (a - s.Start), Perms: platform.Read | platform.Write | platform.Exec}
	if r := (memfile.Range{Off: t.Offset, Len: b - a}); i.fs.onDisk() {
		t.HostFD = i.fs.mf.FD()
		if write {
			// What is mapped writable must have room on the disk, so it is not more than need be.
			t.Start = max(a, at&^(faultAhead-1))
			t.End = min(b, at&^(faultAhead-1)+faultAhead)
			t.Offset += t.Start - a
			if err := i.fs.mf.Reserve(memfile.Range{Off: t.Offset, Len: t.End - t.Start}); err != nil {
				return mm.Translation{}, err
			}
		} else {
			t.Perms &^= platform.Write
		}
	} else {
		i.fs.mf.IncRef(r)
	}
	return t, nil
}

// onDisk tells whether the data is in a file of the host that is not the sandbox's memory.
func (f *fileSystem) onDisk() bool { return !f.mf.Mapped() }

// copyOut copies n bytes at mo of the memory file to dst; the host does it for what is cold.
func (f *fileSystem) copyOut(dst mm.IOSeq, mo, n uint64, cold bool) (int64, error) {
	if !f.onDisk() && !cold {
		k, err := dst.CopyOut(f.mf.Slice(mo, n))
		return int64(k), err
	}
	return dst.TakeFirst(int64(n)).CopyOutFrom(func(b []byte) (int, error) {
		if err := f.mf.ReadAt(b, mo); err != nil {
			return 0, err
		}
		mo += uint64(len(b))
		return len(b), nil
	})
}

// copyIn copies up to n bytes from src to mo of the memory file; the host does it for what is fresh.
func (f *fileSystem) copyIn(src mm.IOSeq, mo, n uint64, fresh bool) (int64, error) {
	if !f.onDisk() && !fresh {
		k, err := src.CopyIn(f.mf.Slice(mo, n))
		return int64(k), err
	}
	return src.TakeFirst(int64(n)).CopyInTo(func(b []byte) (int, error) {
		if err := f.mf.WriteAt(b, mo); err != nil {
			return 0, err
		}
		mo += uint64(len(b))
		return len(b), nil
	})
}

// clear zeroes n bytes, less than a page, at mo of the memory file.
func (f *fileSystem) clear(mo, n uint64) {
	if !f.onDisk() {
		clear(f.mf.Slice(mo, n))
		return
	}
	var zeros [pageSize]byte
	_ = f.mf.WriteAt(zeros[:min(n, pageSize)], mo)
}
