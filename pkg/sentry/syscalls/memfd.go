package syscalls

import (
	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/sentry/fsimpl/tmpfs"
	"husk/pkg/sentry/kernel"
)

// memfdEntries is memfd_create(2).
func memfdEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_MEMFD_CREATE, Name: "memfd_create", Handler: memfdCreate, Support: Partial, Note: "no huge pages (MFD_HUGETLB gives ENODEV)", Args: "path hex"},
	}
}

// shmKey keys the file system of files without names in the kernel.
type shmKey struct{}

// namelessFiles is where memory files live.
func namelessFiles(k *kernel.Kernel) *tmpfs.Shm {
	return k.ValueOr(shmKey{}, func() any { return tmpfs.NewShm(k.VFS(), k.MemFile()) }).(*tmpfs.Shm)
}

func memfdCreate(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	const (
		known    = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING | unix.MFD_HUGETLB | unix.MFD_NOEXEC_SEAL | unix.MFD_EXEC
		hugeSize = 0x3f << unix.MFD_HUGE_SHIFT
		maxName  = 249 // NAME_MAX without "memfd:"
		sealExec = 0x20
	)
	flags := a[1].Uint()
	if flags&unix.MFD_HUGETLB == 0 && flags&^known != 0 || flags&^(known|hugeSize) != 0 ||
		flags&(unix.MFD_EXEC|unix.MFD_NOEXEC_SEAL) == unix.MFD_EXEC|unix.MFD_NOEXEC_SEAL {
		return 0, unix.EINVAL
	}
	name, err := t.MM().CopyInString(a[0].Pointer(), maxName+1)
	if err == unix.ENAMETOOLONG {
		err = unix.EINVAL
	}
	if err != nil {
		return 0, err
	}
	if flags&unix.MFD_HUGETLB != 0 {
		return 0, unix.ENODEV
	}
	mode, seals := uint32(0o777), uint32(unix.F_SEAL_SEAL)
	if flags&unix.MFD_ALLOW_SEALING != 0 {
		seals = 0
	}
	if flags&unix.MFD_NOEXEC_SEAL != 0 {
		mode, seals = 0o666, sealExec
	}
	fd, err := namelessFiles(t.Kernel()).NewFile(t, "/memfd:"+name, mode, seals, unix.O_LARGEFILE)
	if err != nil {
		return 0, err
	}
	n, err := t.FDTable().Install(t, fd, 0, flags&unix.MFD_CLOEXEC != 0)
	fd.DecRef()
	return uintptr(n), err
}
