package vfs

import (
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

func (v *VFS) initAnon()                                                             {}
func (v *VFS) newAnonFile(name string, impl FileImpl, flags uint32) *FileDescription { return nil }

type lockTable struct{}
type fileLocks struct{}
type asyncNotify struct{}

func (fd *FileDescription) release()                             {}
func (fd *FileDescription) closed(ctx Context, t *FDTable) error { fd.DecRef(); return nil }

// BlockGoroutine is the body of Context.Block for callers without signals; stop ends it with ErrInterrupted.
func BlockGoroutine(ch, stop <-chan struct{}, deadline int64) error { return unix.ENOSYS }

// MappedName and MappedInfo implement mm.MappedFile.
func (fd *FileDescription) MappedName() string            { return "" }
func (fd *FileDescription) MappedInfo() (dev, ino uint64) { return 0, 0 }

var _ mm.MappedFile = (*FileDescription)(nil)

// Read, Write and the like are the system calls on an open file: they check the access mode, move the offset, block
// if the file does, and send events. Counts come with a nil error if anything was moved.
func (fd *FileDescription) Read(ctx Context, dst mm.IOSeq) (int64, error)  { return 0, unix.ENOSYS }
func (fd *FileDescription) Write(ctx Context, src mm.IOSeq) (int64, error) { return 0, unix.ENOSYS }
func (fd *FileDescription) PRead(ctx Context, dst mm.IOSeq, off int64) (int64, error) {
	return 0, unix.ENOSYS
}
func (fd *FileDescription) PWrite(ctx Context, src mm.IOSeq, off int64) (int64, error) {
	return 0, unix.ENOSYS
}

// Seek is lseek(2).
func (fd *FileDescription) Seek(ctx Context, off int64, whence int32) (int64, error) {
	return 0, unix.ENOSYS
}

// Stat is fstat(2).
func (fd *FileDescription) Stat(ctx Context, mask uint32, st *Stat) error { return unix.ENOSYS }

// SetStat changes attributes by an open file (fchmod(2), fchown(2), ftruncate(2), futimens(3)).
func (fd *FileDescription) SetStat(ctx Context, s *SetStat) error { return unix.ENOSYS }

// ReadDir emits entries, "." and ".." included, from the offset on and moves it.
func (fd *FileDescription) ReadDir(ctx Context, sink DirSink) error { return unix.ENOSYS }

// Readiness, EventRegister and EventUnregister: a file that cannot be polled is always ready.
func (fd *FileDescription) Readiness(mask waiter.EventMask) waiter.EventMask { return 0 }
func (fd *FileDescription) EventRegister(e *waiter.Entry)                    {}
func (fd *FileDescription) EventUnregister(e *waiter.Entry)                  {}

// Pollable tells whether epoll_ctl(2) takes the file (EPERM).
func (fd *FileDescription) Pollable() bool { return fd.waitable != nil }

// OnRelease runs f before the file is released (epoll drops its interest).
func (fd *FileDescription) OnRelease(f func()) {}

// Ioctl is ioctl(2) but for what works on descriptors.
func (fd *FileDescription) Ioctl(ctx Context, cmd uint32, arg uint64) (uintptr, error) {
	return 0, unix.ENOTTY
}

// LookupFlags refine a walk.
type LookupFlags uint32

// The flags of walks.
const (
	// FollowLast follows a symlink as the last component.
	FollowLast LookupFlags = 1 << iota
	// EmptyPath makes "" mean the start (AT_EMPTY_PATH).
	EmptyPath
	// MustBeDir gives ENOTDIR for anything else.
	MustBeDir
	// NoAutomount is accepted and ignored.
	NoAutomount
	// RESOLVE_* of openat2(2).
	NoMagicLinks
	NoSymlinks
	Beneath
	InRoot
	NoXDev
	CachedOnly
)

// Walk finds the place of path, relative to start (the zero Path: the working directory). It returns a reference.
func (v *VFS) Walk(ctx Context, start Path, path string, flags LookupFlags) (Path, error) {
	return Path{}, unix.ENOSYS
}

// OpenOptions are the arguments of openat2(2).
type OpenOptions struct {
	Flags   uint32 // O_*
	Mode    uint32 // for O_CREAT and O_TMPFILE, before umask
	Resolve LookupFlags
	// Exec is an open for execve(2): execute permission instead of read, regular files only, noexec (EACCES).
	Exec bool
}

// The operations on names. start is where relative paths begin (the zero Path: the working directory). Errors are those of the system call.
func (v *VFS) Open(ctx Context, start Path, path string, o *OpenOptions) (*FileDescription, error) {
	return nil, unix.ENOSYS
}
func (v *VFS) OpenPath(ctx Context, p Path, o *OpenOptions) (*FileDescription, error) {
	return nil, unix.ENOSYS
}
func (v *VFS) Stat(ctx Context, start Path, path string, flags LookupFlags, mask uint32, st *Stat) error {
	return unix.ENOSYS
}
func (v *VFS) Access(ctx Context, start Path, path string, flags LookupFlags, mask uint32) error {
	return unix.ENOSYS
}
func (v *VFS) Mkdir(ctx Context, start Path, path string, mode uint32) error { return unix.ENOSYS }
func (v *VFS) Mknod(ctx Context, start Path, path string, mode uint32, rdev uint64) error {
	return unix.ENOSYS
}

// MknodAt is Mknod, and returns the place with a reference: bind(2) of unix sockets, whose EADDRINUSE is EEXIST here.
func (v *VFS) MknodPath(ctx Context, start Path, path string, mode uint32, rdev uint64) (Path, error) {
	return Path{}, unix.ENOSYS
}
func (v *VFS) Symlink(ctx Context, target string, start Path, path string) error { return unix.ENOSYS }
func (v *VFS) Link(ctx Context, oldStart Path, old string, newStart Path, new string, flags LookupFlags) error {
	return unix.ENOSYS
}
func (v *VFS) Unlink(ctx Context, start Path, path string) error { return unix.ENOSYS }
func (v *VFS) Rmdir(ctx Context, start Path, path string) error  { return unix.ENOSYS }
func (v *VFS) Rename(ctx Context, oldStart Path, old string, newStart Path, new string, flags uint32) error {
	return unix.ENOSYS
}
func (v *VFS) Readlink(ctx Context, start Path, path string) (string, error) { return "", unix.ENOSYS }
func (v *VFS) SetStat(ctx Context, start Path, path string, flags LookupFlags, s *SetStat) error {
	return unix.ENOSYS
}

// CheckPermission checks mask (MayRead...) on an inode by mode bits, capabilities and the file system's own rules.
func CheckPermission(ctx Context, i *Inode, mask uint32) error { return unix.ENOSYS }

// PathString is the path of p as seen from the root of ctx (getcwd(2), /proc/PID/fd); reachable is false if it lies outside.
// " (deleted)" is appended for removed names.
func (v *VFS) PathString(ctx Context, p Path) (s string, reachable bool) { return "", false }

// NewMountNamespace makes a namespace whose root is a new mount of sb, whose reference passes to it.
func (v *VFS) NewMountNamespace(sb *Superblock, userns *auth.UserNamespace, flags MountFlags) *MountNamespace {
	return nil
}

// Mount, Umount and the like are mount(2) and friends.
func (v *VFS) Mount(ctx Context, source string, target Path, fstype string, flags uint64, data string) error {
	return unix.ENOSYS
}

// MountSuperblock attaches sb, whose reference passes on, at target: mounts of the container's configuration.
func (v *VFS) MountSuperblock(ctx Context, sb *Superblock, target Path, flags MountFlags) error {
	return unix.ENOSYS
}
func (v *VFS) Umount(ctx Context, target Path, flags uint32) error { return unix.ENOSYS }
func (v *VFS) PivotRoot(ctx Context, newRoot, putOld Path) error   { return unix.ENOSYS }

// Root is the root of the namespace with a reference.
func (ns *MountNamespace) Root() Path { return Path{} }

// IncRef and DecRef count tasks and /proc/PID/ns/mnt files.
func (ns *MountNamespace) IncRef() { ns.refs.Add(1) }
func (ns *MountNamespace) DecRef() {}

// ID is the inode number of the namespace.
func (ns *MountNamespace) ID() uint64 { return ns.id }

// Clone copies the namespace (CLONE_NEWNS) and moves fs's root and cwd into the copy.
func (ns *MountNamespace) Clone(ctx Context, userns *auth.UserNamespace, fs *FSContext) (*MountNamespace, error) {
	return nil, unix.ENOSYS
}

// MountInfo writes /proc/PID/mountinfo, mounts and mountstats as seen from root.
func (ns *MountNamespace) MountInfo(root Path) []byte { return nil }
func (ns *MountNamespace) Mounts(root Path) []byte    { return nil }
