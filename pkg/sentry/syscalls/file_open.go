package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

func fileOpenEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_OPEN, Name: "open", Handler: sysOpen, Args: "path oflags mode"},
		{Number: unix.SYS_CREAT, Name: "creat", Handler: sysCreat, Args: "path mode"},
		{Number: unix.SYS_OPENAT, Name: "openat", Handler: sysOpenat, Args: "dirfd path oflags mode"},
		{Number: unix.SYS_OPENAT2, Name: "openat2", Handler: sysOpenat2, Args: "dirfd path ptr size"},
		{Number: unix.SYS_CLOSE, Name: "close", Handler: sysClose, Args: "fd"},
		{Number: unix.SYS_CLOSE_RANGE, Name: "close_range", Handler: sysCloseRange, Args: "uint uint hex"},
		{Number: unix.SYS_DUP, Name: "dup", Handler: sysDup, Args: "fd"},
		{Number: unix.SYS_DUP2, Name: "dup2", Handler: sysDup2, Args: "fd fd"},
		{Number: unix.SYS_DUP3, Name: "dup3", Handler: sysDup3, Args: "fd fd oflags"},
		{Number: unix.SYS_NAME_TO_HANDLE_AT, Name: "name_to_handle_at", Handler: fail(unix.EOPNOTSUPP), Support: Stub, Note: "EOPNOTSUPP: file systems have no handles", Args: "dirfd path ptr ptr hex"},
		{Number: unix.SYS_OPEN_BY_HANDLE_AT, Name: "open_by_handle_at", Handler: fail(unix.EPERM), Support: Stub, Note: "EPERM: file systems have no handles", Args: "fd ptr oflags"},
	}
}

// oLargefile is O_LARGEFILE as the kernel sees it; 64-bit programs always have it.
const oLargefile = 0x8000

// openFlags are those that open(2) knows; it ignores others.
const openFlags = unix.O_ACCMODE | unix.O_CREAT | unix.O_EXCL | unix.O_NOCTTY | unix.O_TRUNC | unix.O_APPEND | unix.O_NONBLOCK |
	unix.O_DSYNC | unix.O_SYNC | unix.O_ASYNC | unix.O_DIRECT | oLargefile | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NOATIME |
	unix.O_CLOEXEC | unix.O_PATH | unix.O_TMPFILE

// openAt is the body of all opens.
func openAt(t *kernel.Task, dirfd, addr arch.SyscallArg, o *vfs.OpenOptions) (uintptr, error) {
	p, err := copyPath(t, addr)
	if err != nil {
		return 0, err
	}
	defer p.put(t)
	var s place
	if n := dirfd.Int(); n != unix.AT_FDCWD && (p.s == "" || p.s[0] != '/' || o.Resolve != 0) {
		if s, err = startFD(t, n); err != nil {
			return 0, err
		}
		defer s.put()
	}
	files := t.FDTable()
	n, err := files.Reserve(t, o.Flags&unix.O_CLOEXEC != 0)
	if err != nil {
		return 0, err
	}
	fd, err := t.Kernel().VFS().Open(t, s.path, p.s, o)
	if err != nil {
		files.Unreserve(n)
		return 0, err
	}
	files.Fill(n, fd)
	return uintptr(n), nil
}

// options are the options of open(2), which ignores what it does not know.
func options(flags, mode uint32) vfs.OpenOptions {
	o := vfs.OpenOptions{Flags: flags&openFlags | oLargefile}
	if flags&unix.O_PATH != 0 {
		o.Flags = flags & (unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC)
	} else if flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		o.Mode = mode & 07777
	}
	return o
}

func sysOpen(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	o := options(a[1].Uint(), a[2].Uint())
	return openAt(t, atCWD, a[0], &o)
}

func sysCreat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	o := options(unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, a[1].Uint())
	return openAt(t, atCWD, a[0], &o)
}

func sysOpenat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	o := options(a[2].Uint(), a[3].Uint())
	return openAt(t, a[0], a[1], &o)
}

// resolveCached is RESOLVE_CACHED.
const resolveCached = 0x20

// atCWD is AT_FDCWD as an argument.
const atCWD = arch.SyscallArg(0xffffff9c)

// resolveFlags maps RESOLVE_* bits.
var resolveFlags = [...]struct {
	bit uint64
	f   vfs.LookupFlags
}{
	{unix.RESOLVE_NO_XDEV, vfs.NoXDev}, {unix.RESOLVE_NO_MAGICLINKS, vfs.NoMagicLinks}, {unix.RESOLVE_NO_SYMLINKS, vfs.NoSymlinks},
	{unix.RESOLVE_BENEATH, vfs.Beneath}, {unix.RESOLVE_IN_ROOT, vfs.InRoot}, {resolveCached, vfs.CachedOnly},
}

func sysOpenat2(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	const howSize = 24
	size := a[3].Uint64()
	if size < howSize {
		return 0, unix.EINVAL
	}
	if size > arch.PageSize {
		return 0, unix.E2BIG
	}
	how, err := mm.Read[unix.OpenHow](t.MM(), a[2].Pointer())
	if err != nil {
		return 0, err
	}
	if size > howSize {
		rest := make([]byte, size-howSize)
		if _, err := t.MM().CopyIn(a[2].Pointer()+howSize, rest); err != nil {
			return 0, err
		}
		for _, b := range rest {
			if b != 0 {
				return 0, unix.E2BIG
			}
		}
	}
	var o vfs.OpenOptions
	resolve := how.Resolve
	for _, x := range resolveFlags {
		if resolve&x.bit != 0 {
			o.Resolve |= x.f
			resolve &^= x.bit
		}
	}
	const both = unix.RESOLVE_BENEATH | unix.RESOLVE_IN_ROOT
	if resolve != 0 || how.Resolve&both == both || how.Flags&^openFlags != 0 || how.Mode&^07777 != 0 {
		return 0, unix.EINVAL
	}
	f := uint32(how.Flags)
	if f&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) == 0 && how.Mode != 0 {
		return 0, unix.EINVAL
	}
	if f&unix.O_PATH != 0 && f&^(unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC) != 0 {
		return 0, unix.EINVAL
	}
	if f&(unix.O_DIRECTORY|unix.O_CREAT) == unix.O_DIRECTORY|unix.O_CREAT && f&unix.O_TMPFILE != unix.O_TMPFILE {
		return 0, unix.EINVAL
	}
	if how.Resolve&resolveCached != 0 && f&(unix.O_TRUNC|unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		return 0, unix.EAGAIN
	}
	p := options(f, uint32(how.Mode))
	p.Resolve = o.Resolve
	return openAt(t, a[0], a[1], &p)
}

func sysClose(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return 0, t.FDTable().Close(t, a[0].Int())
}

func sysCloseRange(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	first, last, flags := a[0].Uint(), a[1].Uint(), a[2].Uint()
	if flags&^(unix.CLOSE_RANGE_UNSHARE|unix.CLOSE_RANGE_CLOEXEC) != 0 || first > last {
		return 0, unix.EINVAL
	}
	if flags&unix.CLOSE_RANGE_UNSHARE != 0 && t.FDTable().Shared() {
		t.UnshareFiles()
	}
	if first > 1<<31-1 {
		return 0, nil
	}
	last = min(last, 1<<31-1)
	if flags&unix.CLOSE_RANGE_CLOEXEC != 0 {
		t.FDTable().SetCloexecRange(first, last)
	} else {
		t.FDTable().CloseRange(t, first, last)
	}
	return 0, nil
}

func sysDup(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	n, err := t.FDTable().Install(t, fd, 0, false)
	return uintptr(n), err
}

func sysDup2(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[0].Int() == a[1].Int() {
		fd, err := getFD(t, a[0])
		if err == nil {
			fd.DecRef()
		}
		return uintptr(a[0].Uint()), err
	}
	return dupTo(t, a[0], a[1], false)
}

func sysDup3(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[2].Uint()&^unix.O_CLOEXEC != 0 || a[0].Int() == a[1].Int() {
		return 0, unix.EINVAL
	}
	return dupTo(t, a[0], a[1], a[2].Uint()&unix.O_CLOEXEC != 0)
}

func dupTo(t *kernel.Task, from, to arch.SyscallArg, cloexec bool) (uintptr, error) {
	fd, err := getFD(t, from)
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	if err := t.FDTable().InstallAt(t, fd, to.Int(), cloexec); err != nil {
		return 0, err
	}
	return uintptr(to.Uint()), nil
}
