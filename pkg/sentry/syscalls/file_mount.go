package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

func fileMountEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_MOUNT, Name: "mount", Handler: sysMount, Args: "path path path hex ptr"},
		{Number: unix.SYS_UMOUNT2, Name: "umount2", Handler: sysUmount2, Args: "path hex"},
		{Number: unix.SYS_PIVOT_ROOT, Name: "pivot_root", Handler: sysPivotRoot, Args: "path path"},
		{Number: unix.SYS_SWAPON, Name: "swapon", Handler: fail(unix.EPERM), Support: Stub, Note: "EPERM: no swap", Args: "path hex"},
		{Number: unix.SYS_SWAPOFF, Name: "swapoff", Handler: fail(unix.EPERM), Support: Stub, Note: "EPERM: no swap", Args: "path"},
		{Number: unix.SYS_QUOTACTL, Name: "quotactl", Handler: fail(unix.ENOSYS), Support: Stub, Note: "ENOSYS: no quotas", Args: "hex path int ptr"},
	}
}

// optionalString reads a string; "" if addr is 0.
func optionalString(t *kernel.Task, addr arch.SyscallArg) (string, error) {
	if addr == 0 {
		return "", nil
	}
	s, err := t.MM().CopyInString(addr.Pointer(), arch.PageSize)
	if err == unix.ENAMETOOLONG {
		err = unix.EINVAL
	}
	return s, err
}

func sysMount(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fstype, err := optionalString(t, a[2])
	if err != nil {
		return 0, err
	}
	source, err := optionalString(t, a[0])
	if err != nil {
		return 0, err
	}
	data, err := optionalString(t, a[4])
	if err != nil {
		return 0, err
	}
	flags := a[3].Uint64()
	target, err := walkAt(t, atCWD, a[1], 0)
	if err != nil {
		return 0, err
	}
	defer target.DecRef()
	const noType = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_MOVE | unix.MS_SHARED | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_UNBINDABLE
	if a[2] == 0 && flags&noType == 0 {
		return 0, unix.EINVAL
	}
	return 0, t.Kernel().VFS().Mount(t, source, target, fstype, flags, data)
}

func sysUmount2(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	at := uint32(0)
	if a[1].Uint()&unix.UMOUNT_NOFOLLOW != 0 {
		at = unix.AT_SYMLINK_NOFOLLOW
	}
	target, err := walkAt(t, atCWD, a[0], at)
	if err != nil {
		return 0, err
	}
	defer target.DecRef()
	return 0, t.Kernel().VFS().Umount(t, target, a[1].Uint())
}

func sysPivotRoot(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	dir := func(addr arch.SyscallArg) (vfs.Path, error) {
		p, err := copyPath(t, addr)
		if err != nil {
			return vfs.Path{}, err
		}
		defer p.put(t)
		return t.Kernel().VFS().Walk(t, vfs.Path{}, p.s, vfs.FollowLast|vfs.MustBeDir)
	}
	newRoot, err := dir(a[0])
	if err != nil {
		return 0, err
	}
	defer newRoot.DecRef()
	putOld, err := dir(a[1])
	if err != nil {
		return 0, err
	}
	defer putOld.DecRef()
	return 0, t.Kernel().VFS().PivotRoot(t, newRoot, putOld)
}
