package vfs

import (
	"math"

	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

// touchAtime updates the access time as the mount wants it.
func touchAtime(m *Mount, i *Inode, a AtimeToucher) {
	f := m.Flags()
	if f&(MountNoAtime|MountReadOnly) != 0 || i.sb.ReadOnly() || f&MountNoDirAtime != 0 && i.IsDir() {
		return
	}
	a.TouchAtime(f&MountRelatime != 0)
}

// accessed follows a successful read.
func (fd *FileDescription) accessed() {
	if fd.atime != nil && fd.flags.Load()&unix.O_NOATIME == 0 {
		touchAtime(fd.path.Mount, fd.Inode(), fd.atime)
	}
	fd.path.Dentry.Notify(unix.IN_ACCESS)
}

// Read is read(2): it checks the access mode, moves the offset, blocks if the file does. Like all functions here that transfer
// data it gives a nil error if it moved anything.
func (fd *FileDescription) Read(ctx Context, dst mm.IOSeq) (int64, error) {
	if !fd.Readable() {
		return 0, unix.EBADF
	}
	if fd.reader != nil {
		fd.offMu.Lock()
		n, err := fd.reader.Read(ctx, dst, fd.off)
		fd.off += n
		fd.offMu.Unlock()
		if n > 0 {
			fd.accessed()
			return n, nil
		}
		return 0, err
	}
	if fd.sreader == nil {
		return 0, fd.noIO()
	}
	n, err := fd.sreader.ReadStream(ctx, dst)
	if err == unix.EAGAIN && n == 0 && !fd.Nonblocking() {
		n, err = fd.readBlocking(ctx, dst)
	}
	if n > 0 {
		fd.path.Dentry.Notify(unix.IN_ACCESS)
		return n, nil
	}
	return 0, err
}

// ReadNonblock is Read as if the file had O_NONBLOCK (RWF_NOWAIT, MSG_DONTWAIT, splice).
func (fd *FileDescription) ReadNonblock(ctx Context, dst mm.IOSeq) (int64, error) {
	if fd.sreader == nil {
		return fd.Read(ctx, dst)
	}
	if !fd.Readable() {
		return 0, unix.EBADF
	}
	n, err := fd.sreader.ReadStream(ctx, dst)
	if n > 0 {
		fd.path.Dentry.Notify(unix.IN_ACCESS)
		return n, nil
	}
	return 0, err
}

// noIO is the error of reads and writes on files without the operation.
func (fd *FileDescription) noIO() error {
	if fd.Inode().IsDir() {
		return unix.EISDIR
	}
	return unix.EINVAL
}

// PRead is pread(2).
func (fd *FileDescription) PRead(ctx Context, dst mm.IOSeq, off int64) (int64, error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	if fd.reader == nil {
		if fd.IsPathOnly() {
			return 0, unix.EBADF
		}
		if fd.sreader != nil || fd.swriter != nil {
			return 0, unix.ESPIPE
		}
	}
	if !fd.Readable() {
		return 0, unix.EBADF
	}
	if fd.reader == nil {
		return 0, fd.noIO()
	}
	if n := dst.NumBytes(); off > math.MaxInt64-n {
		return 0, unix.EINVAL
	}
	n, err := fd.reader.Read(ctx, dst, off)
	if n > 0 {
		fd.accessed()
		return n, nil
	}
	return 0, err
}

// clipWrite applies RLIMIT_FSIZE and the largest offset to a write of src at off.
func (fd *FileDescription) clipWrite(ctx Context, src mm.IOSeq, off int64) (mm.IOSeq, error) {
	n := src.NumBytes()
	if n == 0 {
		return src, nil
	}
	if off > math.MaxInt64-n {
		if off == math.MaxInt64 {
			return src, unix.EFBIG
		}
		src = src.TakeFirst(math.MaxInt64 - off)
		n = src.NumBytes()
	}
	if fd.Inode().Type() != unix.S_IFREG {
		return src, nil
	}
	if lim := ctx.Limits().Get(unix.RLIMIT_FSIZE).Cur; uint64(off)+uint64(n) > lim {
		if uint64(off) >= lim {
			ctx.SendSignal(int32(unix.SIGXFSZ))
			return src, unix.EFBIG
		}
		src = src.TakeFirst(int64(lim) - off)
	}
	return src, nil
}

// modify precedes a write to a regular file.
func (fd *FileDescription) modify(ctx Context) error {
	i := fd.Inode()
	dropFileCaps(ctx, i)
	if !hasPrivs(i.Mode()) {
		return nil
	}
	var s SetStat
	if killPrivs(ctx, i, &s); s.Mask != 0 {
		return i.ops.SetStat(ctx, &s)
	}
	return nil
}

// modified follows a write of n bytes.
func (fd *FileDescription) modified(ctx Context) error {
	fd.path.Dentry.Notify(unix.IN_MODIFY)
	if fd.flags.Load()&unix.O_DSYNC != 0 {
		if s, ok := fd.impl.(Fsyncer); ok {
			return s.Fsync(ctx, true)
		}
	}
	return nil
}

// Write is write(2).
func (fd *FileDescription) Write(ctx Context, src mm.IOSeq) (int64, error) {
	if !fd.Writable() {
		return 0, unix.EBADF
	}
	if fd.writer != nil {
		fd.offMu.Lock()
		n, end, err := fd.writeAt(ctx, src, fd.off, fd.flags.Load()&unix.O_APPEND != 0)
		if n > 0 {
			fd.off = end
		}
		fd.offMu.Unlock()
		return n, err
	}
	if fd.swriter == nil {
		return 0, fd.noIO()
	}
	n, err := fd.swriter.WriteStream(ctx, src)
	if err == unix.EAGAIN && !fd.Nonblocking() {
		n, err = fd.writeBlocking(ctx, src, n)
	}
	if n > 0 {
		fd.path.Dentry.Notify(unix.IN_MODIFY)
		return n, nil
	}
	return n, err
}

// WriteNonblock is Write as if the file had O_NONBLOCK.
func (fd *FileDescription) WriteNonblock(ctx Context, src mm.IOSeq) (int64, error) {
	if fd.swriter == nil {
		return fd.Write(ctx, src)
	}
	if !fd.Writable() {
		return 0, unix.EBADF
	}
	n, err := fd.swriter.WriteStream(ctx, src)
	if n > 0 {
		fd.path.Dentry.Notify(unix.IN_MODIFY)
		return n, nil
	}
	return 0, err
}

// PWrite is pwrite(2); with O_APPEND it appends, as on Linux.
func (fd *FileDescription) PWrite(ctx Context, src mm.IOSeq, off int64) (int64, error) {
	return fd.PWriteAppend(ctx, src, off, fd.flags.Load()&unix.O_APPEND != 0)
}

// PWriteAppend is PWrite with O_APPEND decided by the caller (RWF_APPEND, RWF_NOAPPEND).
func (fd *FileDescription) PWriteAppend(ctx Context, src mm.IOSeq, off int64, appending bool) (int64, error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	if fd.writer == nil {
		if fd.IsPathOnly() {
			return 0, unix.EBADF
		}
		if fd.sreader != nil || fd.swriter != nil {
			return 0, unix.ESPIPE
		}
	}
	if !fd.Writable() {
		return 0, unix.EBADF
	}
	if fd.writer == nil {
		return 0, fd.noIO()
	}
	n, _, err := fd.writeAt(ctx, src, off, appending)
	return n, err
}

// writeAt writes at off or at the end, and returns where the write ended.
func (fd *FileDescription) writeAt(ctx Context, src mm.IOSeq, off int64, appending bool) (n, end int64, err error) {
	if appending {
		if off, err = fd.size(ctx); err != nil {
			return 0, 0, err
		}
	}
	if src, err = fd.clipWrite(ctx, src, off); err != nil {
		return 0, 0, err
	}
	if err = fd.modify(ctx); err != nil {
		return 0, 0, err
	}
	if a, ok := fd.impl.(Appender); ok && appending {
		n, end, err = a.Append(ctx, src)
	} else {
		n, err = fd.writer.Write(ctx, src, off)
		end = off + n
	}
	if n > 0 {
		if err = fd.modified(ctx); err != nil {
			return 0, 0, err
		}
		return n, end, nil
	}
	return 0, 0, err
}

// size is the file's size.
func (fd *FileDescription) size(ctx Context) (int64, error) {
	if s, ok := fd.impl.(Sizer); ok {
		return s.Size(ctx)
	}
	var st Stat
	err := fd.stat(ctx, unix.STATX_SIZE, &st)
	return st.Size, err
}

// Seek is lseek(2).
func (fd *FileDescription) Seek(ctx Context, off int64, whence int32) (int64, error) {
	if fd.IsPathOnly() {
		return 0, unix.EBADF
	}
	if !fd.Seekable() {
		if s, ok := fd.impl.(Seeker); ok {
			return s.Seek(ctx, off, whence, 0)
		}
		return 0, unix.ESPIPE
	}
	fd.offMu.Lock()
	defer fd.offMu.Unlock()
	pos, err := fd.seekTo(ctx, off, whence)
	if err == nil {
		fd.off = pos
	}
	return pos, err
}

func (fd *FileDescription) seekTo(ctx Context, off int64, whence int32) (int64, error) {
	if s, ok := fd.impl.(Seeker); ok {
		return s.Seek(ctx, off, whence, fd.off)
	}
	switch whence {
	case unix.SEEK_SET:
	case unix.SEEK_CUR:
		if off > 0 && fd.off > math.MaxInt64-off {
			return 0, unix.EOVERFLOW
		}
		off += fd.off
	case unix.SEEK_END:
		size, err := fd.size(ctx)
		if err != nil {
			return 0, err
		}
		if off > 0 && size > math.MaxInt64-off {
			return 0, unix.EOVERFLOW
		}
		off += size
	case unix.SEEK_DATA, unix.SEEK_HOLE:
		size, err := fd.size(ctx)
		if err != nil {
			return 0, err
		}
		if off < 0 || off >= size {
			return 0, unix.ENXIO
		}
		if h, ok := fd.impl.(HoleSeeker); ok {
			return h.SeekHole(ctx, off, whence)
		}
		if whence == unix.SEEK_HOLE {
			off = size
		}
	default:
		return 0, unix.EINVAL
	}
	if off < 0 {
		return 0, unix.EINVAL
	}
	return off, nil
}

// TryOffset is the file offset; false while an operation that moves it is under way, which may last.
func (fd *FileDescription) TryOffset() (int64, bool) {
	if !fd.offMu.TryLock() {
		return 0, false
	}
	defer fd.offMu.Unlock()
	return fd.off, true
}

// Offset is the file offset.
func (fd *FileDescription) Offset() int64 {
	fd.offMu.Lock()
	defer fd.offMu.Unlock()
	return fd.off
}

func (fd *FileDescription) stat(ctx Context, mask uint32, st *Stat) error {
	if s, ok := fd.impl.(FileStater); ok {
		return s.StatFile(ctx, mask, st)
	}
	return fd.Inode().ops.Stat(ctx, mask, st)
}

// Stat is fstat(2).
func (fd *FileDescription) Stat(ctx Context, mask uint32, st *Stat) error {
	*st = Stat{}
	return fd.stat(ctx, mask, st)
}

// SetStat changes attributes by an open file (fchmod(2), fchown(2), ftruncate(2), futimens(3)).
func (fd *FileDescription) SetStat(ctx Context, s *SetStat) error {
	if fd.IsPathOnly() {
		return unix.EBADF
	}
	return fd.vfs.setStat(ctx, fd.path, s, fd)
}

// dirSink counts what a listing emits, so that the offset follows.
type dirSink struct {
	sink DirSink
	next int64
	n    int
	full bool
}

// Emit implements DirSink.
func (d *dirSink) Emit(name string, ino uint64, typ uint8, next int64) bool {
	if !d.sink.Emit(name, ino, typ, next) {
		d.full = true
		return false
	}
	d.next = next
	d.n++
	return true
}

// ReadDir emits entries, "." and ".." included, from the offset on and moves it. ENOTDIR; ENOENT for a removed directory; EINVAL
// where not even one entry fits; an error after some entries is not reported.
func (fd *FileDescription) ReadDir(ctx Context, sink DirSink) error {
	if fd.IsPathOnly() {
		return unix.EBADF
	}
	r, ok := fd.impl.(DirReader)
	if !ok || !fd.Inode().IsDir() {
		return unix.ENOTDIR
	}
	i := fd.Inode()
	if i.Flags()&inodeDead != 0 {
		return unix.ENOENT
	}
	fd.offMu.Lock()
	defer fd.offMu.Unlock()
	d := dirSink{sink: sink, next: fd.off}
	if d.next == 0 {
		d.Emit(".", i.ino, unix.DT_DIR, 1)
	}
	if d.next == 1 && !d.full {
		d.Emit("..", fd.path.Dentry.Parent().inode.ino, unix.DT_DIR, 2)
	}
	var err error
	if d.next >= 2 && !d.full {
		err = r.ReadDir(ctx, d.next, &d)
	}
	fd.off = d.next
	if d.n > 0 {
		fd.accessed()
		return nil
	}
	if d.full {
		return unix.EINVAL
	}
	return err
}

// Ioctl is ioctl(2) but for what works on descriptors. ENOTTY.
func (fd *FileDescription) Ioctl(ctx Context, cmd uint32, arg uint64) (uintptr, error) {
	if fd.IsPathOnly() {
		return 0, unix.EBADF
	}
	i, ok := fd.impl.(Ioctler)
	if !ok {
		return 0, unix.ENOTTY
	}
	n, err := i.Ioctl(ctx, fd, cmd, arg)
	if err == enoioctlcmd {
		err = unix.ENOTTY
	}
	return n, err
}

// Fsync is fsync(2) and fdatasync(2).
func (fd *FileDescription) Fsync(ctx Context, dataOnly bool) error {
	if fd.IsPathOnly() {
		return unix.EBADF
	}
	if s, ok := fd.impl.(Fsyncer); ok {
		return s.Fsync(ctx, dataOnly)
	}
	if !fd.Seekable() {
		return unix.EINVAL
	}
	return nil
}

// Allocate is fallocate(2).
func (fd *FileDescription) Allocate(ctx Context, mode uint32, off, length int64) error {
	if off < 0 || length <= 0 {
		return unix.EINVAL
	}
	if !fd.Writable() {
		return unix.EBADF
	}
	switch fd.Inode().Type() {
	case unix.S_IFREG:
	case unix.S_IFIFO:
		return unix.ESPIPE
	case unix.S_IFDIR:
		return unix.EISDIR
	default:
		return unix.ENODEV
	}
	if off > math.MaxInt64-length {
		return unix.EFBIG
	}
	a, ok := fd.impl.(Allocator)
	if !ok {
		return unix.EOPNOTSUPP
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		if err := checkFileSize(ctx, off+length); err != nil {
			return err
		}
	}
	if err := fd.modify(ctx); err != nil {
		return err
	}
	if err := a.Allocate(ctx, mode, off, length); err != nil {
		return err
	}
	fd.path.Dentry.Notify(unix.IN_MODIFY)
	return nil
}

// Mappable is what mmap(2) maps. ENODEV; EACCES where the file is not readable is the caller's to check.
func (fd *FileDescription) Mappable(ctx Context) (mm.Mappable, error) {
	m, ok := fd.impl.(Mapper)
	if !ok {
		return nil, unix.ENODEV
	}
	return m.Mappable(ctx)
}

// SetStatusFlags is F_SETFL: flags of SetFlagMask replace the old ones.
func (fd *FileDescription) SetStatusFlags(ctx Context, flags uint32) error {
	if fd.IsPathOnly() {
		return unix.EBADF
	}
	old := fd.flags.Load()
	if old&unix.O_APPEND != 0 && flags&unix.O_APPEND == 0 && fd.Inode().Flags()&InodeAppendOnly != 0 {
		return unix.EPERM
	}
	if flags&^old&unix.O_NOATIME != 0 && !OwnerOrCapable(ctx.Credentials(), fd.Inode()) {
		return unix.EPERM
	}
	if c, ok := fd.impl.(FlagsChecker); ok {
		if err := c.SetStatusFlags(flags); err != nil {
			return err
		}
	}
	if (old^flags)&unix.O_ASYNC != 0 {
		fd.setAsync(flags&unix.O_ASYNC != 0)
	}
	for {
		old := fd.flags.Load()
		if fd.flags.CompareAndSwap(old, old&^SetFlagMask|flags&SetFlagMask) {
			return nil
		}
	}
}
