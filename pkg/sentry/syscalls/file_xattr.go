package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// The calls of Linux 6.13 that x/sys lacks.
const (
	sysNrSetxattrat    = 463
	sysNrGetxattrat    = 464
	sysNrListxattrat   = 465
	sysNrRemovexattrat = 466
)

func fileXattrEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_SETXATTR, Name: "setxattr", Handler: sysSetxattr, Args: "path path ptr size hex"},
		{Number: unix.SYS_LSETXATTR, Name: "lsetxattr", Handler: sysLsetxattr, Args: "path path ptr size hex"},
		{Number: unix.SYS_FSETXATTR, Name: "fsetxattr", Handler: sysFsetxattr, Args: "fd path ptr size hex"},
		{Number: unix.SYS_GETXATTR, Name: "getxattr", Handler: sysGetxattr, Args: "path path ptr size"},
		{Number: unix.SYS_LGETXATTR, Name: "lgetxattr", Handler: sysLgetxattr, Args: "path path ptr size"},
		{Number: unix.SYS_FGETXATTR, Name: "fgetxattr", Handler: sysFgetxattr, Args: "fd path ptr size"},
		{Number: unix.SYS_LISTXATTR, Name: "listxattr", Handler: sysListxattr, Args: "path ptr size"},
		{Number: unix.SYS_LLISTXATTR, Name: "llistxattr", Handler: sysLlistxattr, Args: "path ptr size"},
		{Number: unix.SYS_FLISTXATTR, Name: "flistxattr", Handler: sysFlistxattr, Args: "fd ptr size"},
		{Number: unix.SYS_REMOVEXATTR, Name: "removexattr", Handler: sysRemovexattr, Args: "path path"},
		{Number: unix.SYS_LREMOVEXATTR, Name: "lremovexattr", Handler: sysLremovexattr, Args: "path path"},
		{Number: unix.SYS_FREMOVEXATTR, Name: "fremovexattr", Handler: sysFremovexattr, Args: "fd path"},
		{Number: sysNrSetxattrat, Name: "setxattrat", Handler: sysSetxattrat, Args: "dirfd path atflags path ptr size"},
		{Number: sysNrGetxattrat, Name: "getxattrat", Handler: sysGetxattrat, Args: "dirfd path atflags path ptr size"},
		{Number: sysNrListxattrat, Name: "listxattrat", Handler: sysListxattrat, Args: "dirfd path atflags ptr size"},
		{Number: sysNrRemovexattrat, Name: "removexattrat", Handler: sysRemovexattrat, Args: "dirfd path atflags path"},
	}
}

// walkAt finds the place of path, relative to dirfd, with a reference.
func walkAt(t *kernel.Task, dirfd, path arch.SyscallArg, at uint32) (vfs.Path, error) {
	p, err := copyPathAt(t, dirfd, path)
	if err != nil {
		return vfs.Path{}, err
	}
	defer p.done(t)
	return t.Kernel().VFS().Walk(t, p.place.path, p.s, followFlags(at))
}

// walkFD is the place of an open file, with a reference.
func walkFD(t *kernel.Task, n arch.SyscallArg) (vfs.Path, error) {
	fd, err := getIOFD(t, n)
	if err != nil {
		return vfs.Path{}, err
	}
	p := fd.Path()
	p.IncRef()
	fd.DecRef()
	return p, nil
}

// xattrName reads the name of an attribute. ERANGE.
func xattrName(t *kernel.Task, addr arch.SyscallArg) (string, error) {
	s, err := t.MM().CopyInString(addr.Pointer(), vfs.XattrNameMax+1)
	if err == unix.ENAMETOOLONG || err == nil && s == "" {
		err = unix.ERANGE
	}
	return s, err
}

func setxattr(t *kernel.Task, p vfs.Path, err error, name, value, size arch.SyscallArg, flags uint32) (uintptr, error) {
	if err != nil {
		return 0, err
	}
	defer p.DecRef()
	if flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0 {
		return 0, unix.EINVAL
	}
	n, err := xattrName(t, name)
	if err != nil {
		return 0, err
	}
	if size.Uint64() > vfs.XattrSizeMax {
		return 0, unix.E2BIG
	}
	b := make([]byte, size.Uint64())
	if _, err := t.MM().CopyIn(value.Pointer(), b); err != nil {
		return 0, err
	}
	return 0, t.Kernel().VFS().SetXattr(t, p, n, b, flags)
}

func getxattr(t *kernel.Task, p vfs.Path, err error, name, value, size arch.SyscallArg) (uintptr, error) {
	if err != nil {
		return 0, err
	}
	defer p.DecRef()
	n, err := xattrName(t, name)
	if err != nil {
		return 0, err
	}
	b, err := t.Kernel().VFS().GetXattr(t, p, n)
	if err != nil {
		return 0, err
	}
	return xattrOut(t, b, value, size)
}

// xattrOut gives b to the caller, or only its length if size is 0. ERANGE.
func xattrOut(t *kernel.Task, b []byte, addr, size arch.SyscallArg) (uintptr, error) {
	if size == 0 {
		return uintptr(len(b)), nil
	}
	if size.Uint64() < uint64(len(b)) {
		return 0, unix.ERANGE
	}
	n, err := t.MM().CopyOut(addr.Pointer(), b)
	return uintptr(n), err
}

func listxattr(t *kernel.Task, p vfs.Path, err error, addr, size arch.SyscallArg) (uintptr, error) {
	if err != nil {
		return 0, err
	}
	defer p.DecRef()
	l, err := t.Kernel().VFS().ListXattr(t, p)
	if err != nil {
		return 0, err
	}
	var b []byte
	for _, s := range l {
		b = append(append(b, s...), 0)
	}
	if len(b) > vfs.XattrListMax {
		return 0, unix.E2BIG
	}
	return xattrOut(t, b, addr, size)
}

func removexattr(t *kernel.Task, p vfs.Path, err error, name arch.SyscallArg) (uintptr, error) {
	if err != nil {
		return 0, err
	}
	defer p.DecRef()
	n, err := xattrName(t, name)
	if err != nil {
		return 0, err
	}
	return 0, t.Kernel().VFS().RemoveXattr(t, p, n)
}

const nofollow = unix.AT_SYMLINK_NOFOLLOW

func sysSetxattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkAt(t, atCWD, a[0], 0)
	return setxattr(t, p, err, a[1], a[2], a[3], a[4].Uint())
}

func sysLsetxattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkAt(t, atCWD, a[0], nofollow)
	return setxattr(t, p, err, a[1], a[2], a[3], a[4].Uint())
}

func sysFsetxattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkFD(t, a[0])
	return setxattr(t, p, err, a[1], a[2], a[3], a[4].Uint())
}

func sysGetxattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkAt(t, atCWD, a[0], 0)
	return getxattr(t, p, err, a[1], a[2], a[3])
}

func sysLgetxattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkAt(t, atCWD, a[0], nofollow)
	return getxattr(t, p, err, a[1], a[2], a[3])
}

func sysFgetxattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkFD(t, a[0])
	return getxattr(t, p, err, a[1], a[2], a[3])
}

func sysListxattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkAt(t, atCWD, a[0], 0)
	return listxattr(t, p, err, a[1], a[2])
}

func sysLlistxattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkAt(t, atCWD, a[0], nofollow)
	return listxattr(t, p, err, a[1], a[2])
}

func sysFlistxattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkFD(t, a[0])
	return listxattr(t, p, err, a[1], a[2])
}

func sysRemovexattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkAt(t, atCWD, a[0], 0)
	return removexattr(t, p, err, a[1])
}

func sysLremovexattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkAt(t, atCWD, a[0], nofollow)
	return removexattr(t, p, err, a[1])
}

func sysFremovexattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkFD(t, a[0])
	return removexattr(t, p, err, a[1])
}

// walkXattrAt is walkAt for the at variants.
func walkXattrAt(t *kernel.Task, a arch.SyscallArgs) (vfs.Path, error) {
	if a[2].Uint()&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return vfs.Path{}, unix.EINVAL
	}
	return walkAt(t, a[0], a[1], a[2].Uint())
}

// xattrArgs is struct xattr_args.
type xattrArgs struct {
	Value uint64
	Size  uint32
	Flags uint32
}

func readXattrArgs(t *kernel.Task, addr, size arch.SyscallArg) (x xattrArgs, err error) {
	if size.Uint64() < 16 {
		return x, unix.EINVAL
	}
	if size.Uint64() > arch.PageSize {
		return x, unix.E2BIG
	}
	return mm.Read[xattrArgs](t.MM(), addr.Pointer())
}

func sysSetxattrat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	x, err := readXattrArgs(t, a[4], a[5])
	if err != nil {
		return 0, err
	}
	p, err := walkXattrAt(t, a)
	return setxattr(t, p, err, a[3], arch.SyscallArg(x.Value), arch.SyscallArg(x.Size), x.Flags)
}

func sysGetxattrat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	x, err := readXattrArgs(t, a[4], a[5])
	if err != nil {
		return 0, err
	}
	if x.Flags != 0 {
		return 0, unix.EINVAL
	}
	p, err := walkXattrAt(t, a)
	return getxattr(t, p, err, a[3], arch.SyscallArg(x.Value), arch.SyscallArg(x.Size))
}

func sysListxattrat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkXattrAt(t, a)
	return listxattr(t, p, err, a[3], a[4])
}

func sysRemovexattrat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkXattrAt(t, a)
	return removexattr(t, p, err, a[3])
}
