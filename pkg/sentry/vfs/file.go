package vfs

import (
	"sync"
	"sync/atomic"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

// FileImpl is what stands behind an open file. What it can do, it says by implementing the small interfaces below; vfs
// gives Linux's error for the rest. No method but those that take a Context may block.
//
// An operation that cannot go on returns unix.EAGAIN (with the count done so far); vfs then waits for the file
// (waiter.Waitable) if the file is in blocking mode, and calls again. Implementations need no blocking code.
type FileImpl interface {
	// Release is called once, when the last descriptor and user is gone.
	Release()
}

// Reader reads at an offset (regular files, block devices). At the end it returns 0, nil.
type Reader interface {
	Read(ctx Context, dst mm.IOSeq, off int64) (int64, error)
}

// Writer writes at an offset. vfs has applied RLIMIT_FSIZE.
type Writer interface {
	Write(ctx Context, src mm.IOSeq, off int64) (int64, error)
}

// Appender writes at the end of the file, atomically; end is the offset behind what was written.
type Appender interface {
	Append(ctx Context, src mm.IOSeq) (n, end int64, err error)
}

// StreamReader reads from what has no offset (pipes, sockets, terminals): lseek gives ESPIPE. 0, nil is end of file.
type StreamReader interface {
	ReadStream(ctx Context, dst mm.IOSeq) (int64, error)
}

// StreamWriter writes to a stream.
type StreamWriter interface {
	WriteStream(ctx Context, src mm.IOSeq) (int64, error)
}

// StreamParker is a stream whose other side may do the transfer of a task that is blocked: what arrives is copied once, and mostly
// more than one transfer is done before the task runs on.
type StreamParker interface {
	// Park offers seq, the memory of a read or of the rest of a write, to the other side until Unpark, which gives the number of bytes that
	// it has used. by is the caller's Waker; it gets a token when something was read. One task at a time has an offer, the others none.
	Park(by *waiter.Signal, seq mm.IOSeq, write bool)
	Unpark(by *waiter.Signal, write bool) int64
}

// Sizer tells the size of the file: for SEEK_END and O_APPEND without Appender. Default: Stat of the inode.
type Sizer interface {
	Size(ctx Context) (int64, error)
}

// HoleSeeker implements SEEK_DATA and SEEK_HOLE (whence); ENXIO behind the end. Default: all is data.
type HoleSeeker interface {
	SeekHole(ctx Context, off int64, whence int32) (int64, error)
}

// Seeker replaces lseek(2) altogether (device files, seq files with odd rules).
type Seeker interface {
	Seek(ctx Context, off int64, whence int32, old int64) (int64, error)
}

// DirSink takes directory entries.
type DirSink interface {
	// Emit adds an entry; next is the cookie of the entry behind it (d_off). False: no more room, the entry was not taken.
	Emit(name string, ino uint64, typ uint8, next int64) bool
}

// DirReader lists a directory, without "." and ".." (vfs adds them). Cookies of its entries are 2 and up.
type DirReader interface {
	// ReadDir emits the entries from cookie on (2: the first) until Emit says false.
	ReadDir(ctx Context, cookie int64, sink DirSink) error
}

// Mapper gives what mmap(2) maps; ENODEV is given for files without it.
type Mapper interface {
	Mappable(ctx Context) (mm.Mappable, error)
}

// Ioctler handles ioctl(2); linux.ENOIOCTLCMD for an unknown cmd. The memory that arg points to is ctx's: see mm.IO.
type Ioctler interface {
	Ioctl(ctx Context, fd *FileDescription, cmd uint32, arg uint64) (uintptr, error)
}

// Fsyncer writes data back (fsync(2), fdatasync(2)); without it both succeed... if the file has an offset, else EINVAL.
type Fsyncer interface {
	Fsync(ctx Context, dataOnly bool) error
}

// Allocator implements fallocate(2); mode is FALLOC_FL_*. EOPNOTSUPP.
type Allocator interface {
	Allocate(ctx Context, mode uint32, off, length int64) error
}

// Truncater changes the size through an open file; default: SetStat of the inode.
type Truncater interface {
	Truncate(ctx Context, size int64) error
}

// FlagsChecker vets F_SETFL: flags are the new status flags (EPERM for O_DIRECT, ...).
type FlagsChecker interface {
	SetStatusFlags(flags uint32) error
}

// Flusher is called at each close of a descriptor (the flush of Linux); its error is close(2)'s.
type Flusher interface {
	Flush(ctx Context) error
}

// FileBinder is told the description of the file when it is opened, before anybody uses it.
type FileBinder interface {
	Bind(fd *FileDescription)
}

// IOTimeouter limits how long a blocking read or write waits, in nanoseconds (SO_RCVTIMEO); 0: no limit.
type IOTimeouter interface {
	IOTimeout(write bool) int64
}

// FileStater replaces Stat of the inode for fstat(2) (a remote file system asks by the open file).
type FileStater interface {
	StatFile(ctx Context, mask uint32, st *Stat) error
}

// PathNamer gives what /proc/PID/fd/N shows for files without a path ("socket:[1]").
type PathNamer interface {
	PathName() string
}

// FDInfoWriter adds lines to /proc/PID/fdinfo/N.
type FDInfoWriter interface {
	FDInfo() string
}

// Pipe is implemented by both ends of pipes and FIFOs, for splice(2) and F_GETPIPE_SZ.
type Pipe interface {
	PipeSize() int64
	// SetPipeSize changes the capacity; privileged: CAP_SYS_RESOURCE. EPERM, EBUSY, EINVAL.
	SetPipeSize(size int64, privileged bool) (int64, error)
	// PipeReadable is the number of bytes to read.
	PipeReadable() int64
	// Claim copies up to dst of the content without consuming it. Who else wants content waits, whether it may or not, until the caller
	// says by Settle how much of that is consumed; it must not wait for anybody before that. 0, nil: no writers; EAGAIN: empty; no claim then.
	Claim(dst []byte) (int, error)
	Settle(ctx Context, n int)
	// Move moves up to n bytes to another pipe, or copies them with keep. 0, nil: no writers; EAGAIN: empty, or the other is full; EPIPE;
	// EINVAL if it is the same pipe.
	Move(ctx Context, to Pipe, n int64, keep bool) (int64, error)
	// Put writes src without blocking and never as packets; with beyond all of it, whatever the capacity. EAGAIN, EPIPE.
	Put(ctx Context, src mm.IOSeq, beyond bool) (int64, error)
}

// Sealer implements F_ADD_SEALS and F_GET_SEALS.
type Sealer interface {
	AddSeals(seals uint32) error
	Seals() uint32
}

// FileDescription is an open file description (open(2)): what descriptors refer to.
type FileDescription struct {
	// refs goes on counting when the description is used for another file, as a look-up in a descriptor table may be late: FDTable.Get.
	refs atomic.Int64
	fileState
}

// fileState is all of a description that ends with the file.
type fileState struct {
	flags atomic.Uint32 // O_* without creation flags
	path  Path          // immutable; a reference. Its inode is what locks and events belong to
	impl  FileImpl      // immutable; nil for O_PATH
	vfs   *VFS          // immutable

	// Parts of impl that are used often; immutable.
	reader   Reader
	writer   Writer
	sreader  StreamReader
	swriter  StreamWriter
	parker   StreamParker
	waitable waiter.Waitable
	atime    AtimeToucher

	offMu   sync.Mutex  // held while an operation uses and moves off
	off     int64       // protected by offMu
	writer1 bool        // immutable: counted as a writer of the inode and the mount
	denies  atomic.Bool // opened for execve(2), which denies writing to the inode

	mu    sync.Mutex
	owner Owner        // protected by mu
	async *asyncNotify // protected by mu
	extra *fileExtra   // protected by mu: epoll registrations and the like
}

// fileExtra holds what few files need.
type fileExtra struct {
	listeners []ReleaseListener // told before Release of the implementation
}

// OpenFlagMask are the flags that an open file keeps.
const OpenFlagMask = unix.O_ACCMODE | unix.O_APPEND | unix.O_NONBLOCK | unix.O_DSYNC | unix.O_SYNC | unix.O_ASYNC |
	unix.O_DIRECT | unix.O_LARGEFILE | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NOATIME | unix.O_PATH | 0x8000

// SetFlagMask are the flags that F_SETFL changes.
const SetFlagMask = unix.O_APPEND | unix.O_NONBLOCK | unix.O_ASYNC | unix.O_DIRECT | unix.O_NOATIME

// NewFile makes a description with one reference. It takes a reference of its own on p. flags are open(2)'s.
func (v *VFS) NewFile(p Path, impl FileImpl, flags uint32) *FileDescription {
	return v.newFile(p, impl, flags, false)
}

// newFile is NewFile; writer tells that the file is counted as a writer of its inode and mount.
func (v *VFS) newFile(p Path, impl FileImpl, flags uint32, writer bool) *FileDescription {
	p.IncRef()
	fd, _ := v.files.Get().(*FileDescription)
	if fd == nil {
		fd = new(FileDescription)
	}
	fd.path, fd.impl, fd.vfs, fd.writer1 = p, impl, v, writer
	fd.flags.Store(flags & OpenFlagMask)
	fd.refs.Store(1)
	if impl == nil {
		return fd
	}
	fd.reader, _ = impl.(Reader)
	fd.writer, _ = impl.(Writer)
	fd.sreader, _ = impl.(StreamReader)
	fd.swriter, _ = impl.(StreamWriter)
	fd.parker, _ = impl.(StreamParker)
	fd.waitable, _ = impl.(waiter.Waitable)
	fd.atime, _ = p.Dentry.inode.ops.(AtimeToucher)
	if b, ok := impl.(FileBinder); ok {
		b.Bind(fd)
	}
	return fd
}

// Impl is the implementation; nil for O_PATH.
func (fd *FileDescription) Impl() FileImpl { return fd.impl }

// VFS is the owner of the file.
func (fd *FileDescription) VFS() *VFS { return fd.vfs }

// Path is where the file was opened, without a reference of its own.
func (fd *FileDescription) Path() Path { return fd.path }

// Inode is the file's inode.
func (fd *FileDescription) Inode() *Inode { return fd.path.Dentry.inode }

// Flags are the O_* flags as F_GETFL gives them.
func (fd *FileDescription) Flags() uint32 { return fd.flags.Load() }

// Nonblocking tells whether O_NONBLOCK is set.
func (fd *FileDescription) Nonblocking() bool { return fd.flags.Load()&unix.O_NONBLOCK != 0 }

// Readable and Writable tell how the file was opened.
func (fd *FileDescription) Readable() bool {
	f := fd.flags.Load()
	return f&unix.O_PATH == 0 && f&unix.O_ACCMODE != unix.O_WRONLY && f&unix.O_ACCMODE != 3
}

// Writable tells whether the file was opened for writing.
func (fd *FileDescription) Writable() bool {
	f := fd.flags.Load()
	return f&unix.O_PATH == 0 && (f&unix.O_ACCMODE == unix.O_WRONLY || f&unix.O_ACCMODE == unix.O_RDWR)
}

// IsPathOnly tells whether the file was opened with O_PATH.
func (fd *FileDescription) IsPathOnly() bool { return fd.flags.Load()&unix.O_PATH != 0 }

// IncRef takes a reference; the caller already holds one.
func (fd *FileDescription) IncRef() { fd.refs.Add(1) }

// TryIncRef takes a reference unless the file is already released.
func (fd *FileDescription) TryIncRef() bool {
	for {
		n := fd.refs.Load()
		if n <= 0 {
			return false
		}
		if fd.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// DecRef drops a reference; the last one releases the file.
func (fd *FileDescription) DecRef() {
	if fd.refs.Add(-1) == 0 {
		fd.release()
	}
}
