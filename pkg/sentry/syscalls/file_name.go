package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

func fileNameEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_MKDIR, Name: "mkdir", Handler: sysMkdir, Args: "path oct"},
		{Number: unix.SYS_MKDIRAT, Name: "mkdirat", Handler: sysMkdirat, Args: "dirfd path oct"},
		{Number: unix.SYS_MKNOD, Name: "mknod", Handler: sysMknod, Args: "path oct hex"},
		{Number: unix.SYS_MKNODAT, Name: "mknodat", Handler: sysMknodat, Args: "dirfd path oct hex"},
		{Number: unix.SYS_SYMLINK, Name: "symlink", Handler: sysSymlink, Args: "path path"},
		{Number: unix.SYS_SYMLINKAT, Name: "symlinkat", Handler: sysSymlinkat, Args: "path dirfd path"},
		{Number: unix.SYS_LINK, Name: "link", Handler: sysLink, Args: "path path"},
		{Number: unix.SYS_LINKAT, Name: "linkat", Handler: sysLinkat, Args: "dirfd path dirfd path atflags"},
		{Number: unix.SYS_UNLINK, Name: "unlink", Handler: sysUnlink, Args: "path"},
		{Number: unix.SYS_UNLINKAT, Name: "unlinkat", Handler: sysUnlinkat, Args: "dirfd path atflags"},
		{Number: unix.SYS_RMDIR, Name: "rmdir", Handler: sysRmdir, Args: "path"},
		{Number: unix.SYS_RENAME, Name: "rename", Handler: sysRename, Args: "path path"},
		{Number: unix.SYS_RENAMEAT, Name: "renameat", Handler: sysRenameat, Args: "dirfd path dirfd path"},
		{Number: unix.SYS_RENAMEAT2, Name: "renameat2", Handler: sysRenameat2, Args: "dirfd path dirfd path hex"},
		{Number: unix.SYS_GETCWD, Name: "getcwd", Handler: sysGetcwd, Args: "ptr size"},
		{Number: unix.SYS_CHDIR, Name: "chdir", Handler: sysChdir, Args: "path"},
		{Number: unix.SYS_FCHDIR, Name: "fchdir", Handler: sysFchdir, Args: "fd"},
		{Number: unix.SYS_CHROOT, Name: "chroot", Handler: sysChroot, Args: "path"},
		{Number: unix.SYS_UMASK, Name: "umask", Handler: sysUmask, Args: "oct"},
	}
}

func sysMkdir(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return sysMkdirat(t, arch.SyscallArgs{atCWD, a[0], a[1]})
}

func sysMkdirat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := copyPathAt(t, a[0], a[1])
	if err != nil {
		return 0, err
	}
	defer p.done(t)
	return 0, t.Kernel().VFS().Mkdir(t, p.place.path, p.s, a[2].Uint())
}

func sysMknod(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return sysMknodat(t, arch.SyscallArgs{atCWD, a[0], a[1], a[2]})
}

// decodeDev turns the dev_t of mknod(2) into that of struct stat: they agree for the numbers that the former can hold.
func decodeDev(dev uint32) uint64 {
	return unix.Mkdev(dev>>8&0xfff, dev&0xff|dev>>12&0xfff00)
}

func sysMknodat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := copyPathAt(t, a[0], a[1])
	if err != nil {
		return 0, err
	}
	defer p.done(t)
	return 0, t.Kernel().VFS().Mknod(t, p.place.path, p.s, a[2].Uint()&0xffff, decodeDev(a[3].Uint()))
}

func sysSymlink(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return sysSymlinkat(t, arch.SyscallArgs{a[0], atCWD, a[1]})
}

func sysSymlinkat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	target, err := copyPath(t, a[0])
	if err != nil {
		return 0, err
	}
	defer target.put(t)
	p, err := copyPathAt(t, a[1], a[2])
	if err != nil {
		return 0, err
	}
	defer p.done(t)
	return 0, t.Kernel().VFS().Symlink(t, target.s, p.place.path, p.s)
}

func sysLink(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return sysLinkat(t, arch.SyscallArgs{atCWD, a[0], atCWD, a[1]})
}

// twoPaths copies the paths of link and rename.
func twoPaths(t *kernel.Task, a arch.SyscallArgs) (x, y pathAt, err error) {
	if x, err = copyPathAt(t, a[0], a[1]); err != nil {
		return x, y, err
	}
	if y, err = copyPathAt(t, a[2], a[3]); err != nil {
		x.done(t)
	}
	return x, y, err
}

func sysLinkat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	at := a[4].Uint()
	if at&^(unix.AT_SYMLINK_FOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	x, y, err := twoPaths(t, a)
	if err != nil {
		return 0, err
	}
	defer x.done(t)
	defer y.done(t)
	var f vfs.LookupFlags
	if at&unix.AT_SYMLINK_FOLLOW != 0 {
		f |= vfs.FollowLast
	}
	if at&unix.AT_EMPTY_PATH != 0 {
		f |= vfs.EmptyPath
	}
	return 0, t.Kernel().VFS().Link(t, x.place.path, x.s, y.place.path, y.s, f)
}

func sysUnlink(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return sysUnlinkat(t, arch.SyscallArgs{atCWD, a[0]})
}

func sysRmdir(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return sysUnlinkat(t, arch.SyscallArgs{atCWD, a[0], unix.AT_REMOVEDIR})
}

func sysUnlinkat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[2].Uint()&^unix.AT_REMOVEDIR != 0 {
		return 0, unix.EINVAL
	}
	p, err := copyPathAt(t, a[0], a[1])
	if err != nil {
		return 0, err
	}
	defer p.done(t)
	if a[2].Uint()&unix.AT_REMOVEDIR != 0 {
		return 0, t.Kernel().VFS().Rmdir(t, p.place.path, p.s)
	}
	return 0, t.Kernel().VFS().Unlink(t, p.place.path, p.s)
}

func sysRename(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return sysRenameat2(t, arch.SyscallArgs{atCWD, a[0], atCWD, a[1]})
}

func sysRenameat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	a[4] = 0
	return sysRenameat2(t, a)
}

func sysRenameat2(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	x, y, err := twoPaths(t, a)
	if err != nil {
		return 0, err
	}
	defer x.done(t)
	defer y.done(t)
	return 0, t.Kernel().VFS().Rename(t, x.place.path, x.s, y.place.path, y.s, a[4].Uint())
}

func sysGetcwd(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	cwd := t.FS().CWDRef()
	defer cwd.DecRef()
	if cwd.Dentry.Removed() {
		return 0, unix.ENOENT
	}
	s, ok := t.Kernel().VFS().PathString(t, cwd)
	if !ok {
		s = "(unreachable)" + s
	}
	if uint64(len(s)+1) > a[1].Uint64() {
		return 0, unix.ERANGE
	}
	n, err := t.MM().CopyOut(a[0].Pointer(), append([]byte(s), 0))
	if err != nil {
		return 0, err
	}
	return uintptr(n), nil
}

// walkDir finds a directory that may be entered.
func walkDir(t *kernel.Task, addr arch.SyscallArg) (vfs.Path, error) {
	p, err := copyPath(t, addr)
	if err != nil {
		return vfs.Path{}, err
	}
	defer p.put(t)
	at, err := t.Kernel().VFS().Walk(t, vfs.Path{}, p.s, vfs.FollowLast|vfs.MustBeDir)
	if err != nil {
		return vfs.Path{}, err
	}
	if err := vfs.CheckPermission(t, at.Inode(), vfs.MayExec); err != nil {
		at.DecRef()
		return vfs.Path{}, err
	}
	return at, nil
}

func sysChdir(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkDir(t, a[0])
	if err != nil {
		return 0, err
	}
	t.FS().SetCWD(p)
	p.DecRef()
	return 0, nil
}

func sysFchdir(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	if !fd.Inode().IsDir() {
		return 0, unix.ENOTDIR
	}
	if err := vfs.CheckPermission(t, fd.Inode(), vfs.MayExec); err != nil {
		return 0, err
	}
	t.FS().SetCWD(fd.Path())
	return 0, nil
}

func sysChroot(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := walkDir(t, a[0])
	if err != nil {
		return 0, err
	}
	defer p.DecRef()
	if !t.HasCap(unix.CAP_SYS_CHROOT) {
		return 0, unix.EPERM
	}
	t.FS().SetRoot(p)
	return 0, nil
}

func sysUmask(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return uintptr(t.FS().SetUmask(a[0].Uint())), nil
}
