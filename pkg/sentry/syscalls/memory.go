package syscalls

import (
	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// memoryEntries are mmap(2) and what changes mappings.
func memoryEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_MMAP, Name: "mmap", Handler: mmap, Support: Partial, Note: "no huge pages (MAP_HUGETLB gives ENOMEM)", Args: "ptr size prot mmap fd hex"},
		{Number: unix.SYS_MUNMAP, Name: "munmap", Handler: munmap, Args: "ptr size"},
		{Number: unix.SYS_MPROTECT, Name: "mprotect", Handler: mprotect, Args: "ptr size prot"},
		{Number: unix.SYS_PKEY_MPROTECT, Name: "pkey_mprotect", Handler: pkeyMprotect, Support: Partial, Note: "only key -1, as on processors without protection keys", Args: "ptr size prot int"},
		{Number: unix.SYS_PKEY_ALLOC, Name: "pkey_alloc", Handler: pkeyAlloc, Support: Stub, Note: "ENOSPC, as on processors without protection keys", Args: "hex hex"},
		{Number: unix.SYS_PKEY_FREE, Name: "pkey_free", Handler: fail(unix.EINVAL), Support: Stub, Note: "EINVAL, as no key is ever allocated", Args: "int"},
		{Number: unix.SYS_MREMAP, Name: "mremap", Handler: mremap, Args: "ptr size size hex ptr"},
		{Number: unix.SYS_REMAP_FILE_PAGES, Name: "remap_file_pages", Handler: remapFilePages, Args: "ptr size hex int hex"},
		{Number: unix.SYS_BRK, Name: "brk", Handler: brk, Args: "ptr"},
		{Number: unix.SYS_MADVISE, Name: "madvise", Handler: madvise, Support: Partial, Note: "advice that only concerns speed is checked and otherwise ignored; MADV_FREE frees at once", Args: "ptr size int"},
		{Number: unix.SYS_PROCESS_MADVISE, Name: "process_madvise", Handler: processMadvise, Support: Partial, Note: "of the calling process only", Args: "fd ptr size int hex"},
		{Number: unix.SYS_MSYNC, Name: "msync", Handler: msync, Args: "ptr size hex"},
		{Number: unix.SYS_MINCORE, Name: "mincore", Handler: mincore, Args: "ptr size ptr"},
		{Number: unix.SYS_MLOCK, Name: "mlock", Handler: mlock, Support: Partial, Note: "memory is accounted as locked, but the host may swap it", Args: "ptr size"},
		{Number: unix.SYS_MLOCK2, Name: "mlock2", Handler: mlock2, Support: Partial, Note: "as mlock", Args: "ptr size hex"},
		{Number: unix.SYS_MUNLOCK, Name: "munlock", Handler: munlock, Args: "ptr size"},
		{Number: unix.SYS_MLOCKALL, Name: "mlockall", Handler: mlockall, Support: Partial, Note: "as mlock", Args: "hex"},
		{Number: unix.SYS_MUNLOCKALL, Name: "munlockall", Handler: munlockall},
		{Number: sysMseal, Name: "mseal", Handler: mseal, Args: "ptr size hex"},
		{Number: unix.SYS_MEMBARRIER, Name: "membarrier", Handler: fail(unix.ENOSYS), Support: Stub, Note: "ENOSYS, as kernels without CONFIG_MEMBARRIER", Args: "int hex int"},
		{Number: unix.SYS_USERFAULTFD, Name: "userfaultfd", Handler: fail(unix.ENOSYS), Support: Stub, Note: "ENOSYS, as kernels without CONFIG_USERFAULTFD", Args: "hex"},
		{Number: unix.SYS_MEMFD_SECRET, Name: "memfd_secret", Handler: fail(unix.ENOSYS), Support: Stub, Note: "ENOSYS, as kernels booted without secretmem.enable", Args: "hex"},
		{Number: sysMapShadowStack, Name: "map_shadow_stack", Handler: fail(unix.EOPNOTSUPP), Support: Stub, Note: "EOPNOTSUPP, as processors without shadow stacks", Args: "ptr size hex"},
	}
}

// Numbers that x/sys may lack.
const (
	sysMapShadowStack = 453
	sysMseal          = 462
)

// protPerms are the rights that PROT_* give; ok is false for unknown bits.
func protPerms(prot uint64) (p platform.Perms, ok bool) {
	if prot&unix.PROT_READ != 0 {
		p |= platform.Read
	}
	if prot&unix.PROT_WRITE != 0 {
		p |= platform.Write
	}
	if prot&unix.PROT_EXEC != 0 {
		p |= platform.Exec
	}
	return p, prot&^(unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC|protSem) == 0
}

// protSem is PROT_SEM, which has no effect.
const protSem = 8

// impliedExec adds PROT_EXEC to readable mappings of programs with that personality.
func impliedExec(t *kernel.Task, p platform.Perms) platform.Perms {
	const readImpliesExec = 0x0400000
	if p&platform.Read != 0 && t.Personality()&readImpliesExec != 0 {
		p |= platform.Exec
	}
	return p
}

// mapDroppable is MAP_DROPPABLE.
const mapDroppable = 8

func mmap(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags, off := a[3].Uint64(), a[5].Uint64()
	if off&arch.PageMask != 0 {
		return 0, unix.EINVAL
	}
	perms, _ := protPerms(a[2].Uint64()) // mmap ignores unknown bits
	o := mm.MMapOpts{Addr: a[0].Pointer(), Length: a[1].Uint64(), Perms: impliedExec(t, perms), Offset: off}
	switch flags & unix.MAP_TYPE {
	case unix.MAP_SHARED, unix.MAP_SHARED_VALIDATE:
		o.Shared = true
	case unix.MAP_PRIVATE:
	case mapDroppable:
		if flags&unix.MAP_ANONYMOUS == 0 {
			return 0, unix.EINVAL
		}
	default:
		return 0, unix.EINVAL
	}
	o.Fixed = flags&(unix.MAP_FIXED|unix.MAP_FIXED_NOREPLACE) != 0
	o.NoReplace = flags&unix.MAP_FIXED_NOREPLACE != 0
	o.Low32 = flags&unix.MAP_32BIT != 0
	o.Populate = flags&(unix.MAP_POPULATE|unix.MAP_NONBLOCK) == unix.MAP_POPULATE
	o.NoReserve = flags&unix.MAP_NORESERVE != 0
	o.NoHugePage = flags&unix.MAP_STACK != 0 // as Linux does since 6.7
	if flags&unix.MAP_GROWSDOWN != 0 {
		if o.Shared || flags&unix.MAP_ANONYMOUS == 0 {
			return 0, unix.EINVAL
		}
		o.GrowsDown = true
	}
	if flags&unix.MAP_LOCKED != 0 {
		o.Locked, o.LockPrivileged = true, t.HasRootCap(unix.CAP_IPC_LOCK)
		if l := t.Limits().Get(unix.RLIMIT_MEMLOCK).Cur; l == 0 && !o.LockPrivileged {
			return 0, unix.EPERM
		}
	}
	if flags&unix.MAP_ANONYMOUS != 0 {
		if flags&unix.MAP_HUGETLB != 0 {
			return 0, unix.ENOMEM
		}
		o.Offset = 0
		addr, err := t.MM().MMap(o)
		return uintptr(addr), err
	}
	fd := t.FDTable().Get(a[4].Int())
	if fd == nil {
		return 0, unix.EBADF
	}
	defer fd.DecRef()
	if err := mapFile(t, &o, fd, flags); err != nil {
		return 0, err
	}
	addr, err := t.MM().MMap(o)
	return uintptr(addr), err
}

// mapFile fills in o what concerns the file, after the checks of mmap(2).
func mapFile(t *kernel.Task, o *mm.MMapOpts, fd *vfs.FileDescription, flags uint64) error {
	if fd.IsPathOnly() {
		return unix.EBADF
	}
	if o.Length == 0 {
		return unix.EINVAL
	}
	const known = unix.MAP_TYPE | unix.MAP_FIXED | unix.MAP_ANONYMOUS | unix.MAP_32BIT | unix.MAP_GROWSDOWN | unix.MAP_DENYWRITE |
		unix.MAP_EXECUTABLE | unix.MAP_LOCKED | unix.MAP_NORESERVE | unix.MAP_POPULATE | unix.MAP_NONBLOCK | unix.MAP_STACK |
		unix.MAP_HUGETLB | unix.MAP_FIXED_NOREPLACE
	if flags&unix.MAP_TYPE == unix.MAP_SHARED_VALIDATE && flags&^known != 0 {
		return unix.EOPNOTSUPP
	}
	if flags&unix.MAP_HUGETLB != 0 {
		return unix.EINVAL
	}
	o.MaxPerms = platform.Read | platform.Write | platform.Exec
	if o.Shared {
		if o.Perms&platform.Write != 0 && (!fd.Writable() || fd.Flags()&unix.O_APPEND != 0 && fd.Inode().Flags()&vfs.InodeAppendOnly != 0) {
			return unix.EACCES
		}
		if !fd.Writable() {
			o.MaxPerms &^= platform.Write
		}
	}
	if !fd.Readable() {
		return unix.EACCES
	}
	if m := fd.Path().Mount; m != nil && m.Flags()&vfs.MountNoExec != 0 {
		if o.Perms&platform.Exec != 0 {
			return unix.EPERM
		}
		o.MaxPerms &^= platform.Exec
	}
	if s, ok := fd.Impl().(vfs.Sealer); ok && o.Shared && s.Seals()&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		if o.Perms&platform.Write != 0 {
			return unix.EPERM
		}
		o.MaxPerms &^= platform.Write
	}
	m, err := fd.Mappable(t)
	if err != nil {
		return err
	}
	if m == nil {
		// A device whose mappings are anonymous memory (/dev/zero).
		o.Offset = 0
		return nil
	}
	o.Mappable, o.File = m, fd
	o.Prefault = true
	o.Image = flags&unix.MAP_DENYWRITE != 0 && !o.Shared // by glibc's dynamic linker
	return nil
}

func munmap(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return 0, t.MM().Munmap(a[0].Pointer(), a[1].Uint64())
}

func mprotect(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	const grows = mm.ProtGrowsDown | mm.ProtGrowsUp
	prot := a[2].Uint64()
	perms, ok := protPerms(prot &^ grows)
	if !ok {
		return 0, unix.EINVAL
	}
	return 0, t.MM().Mprotect(a[0].Pointer(), a[1].Uint64(), impliedExec(t, perms), int(prot&grows))
}

func pkeyMprotect(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[3].Int() != -1 {
		return 0, unix.EINVAL
	}
	return mprotect(t, a)
}

func pkeyAlloc(_ *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[0].Uint64() != 0 || a[1].Uint64()&^3 != 0 {
		return 0, unix.EINVAL
	}
	return 0, unix.ENOSPC
}

func mremap(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := a[3].Uint64()
	if flags > 0xff {
		return 0, unix.EINVAL
	}
	addr, err := t.MM().Mremap(a[0].Pointer(), a[1].Uint64(), a[2].Uint64(), int(flags), a[4].Pointer())
	return uintptr(addr), err
}

// remapFilePages maps another part of a file in the place of a part of its shared mapping.
func remapFilePages(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	start, size, pgoff := arch.PageDown(a[0].Pointer()), a[1].Uint64()&^arch.PageMask, a[3].Uint64()
	if a[2].Uint64() != 0 || size == 0 || start+size < start || pgoff+size>>arch.PageShift < pgoff || pgoff > 1<<50 {
		return 0, unix.EINVAL
	}
	return 0, t.MM().RemapFilePages(start, size, pgoff<<arch.PageShift)
}

func brk(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return uintptr(t.MM().Brk(a[0].Pointer())), nil
}

func madvise(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return 0, t.MM().Madvise(a[0].Pointer(), a[1].Uint64(), int(a[2].Int()))
}

func processMadvise(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[4].Uint64() != 0 {
		return 0, unix.EINVAL
	}
	fd := t.FDTable().Get(a[0].Int())
	if fd == nil {
		return 0, unix.EBADF
	}
	defer fd.DecRef()
	p, ok := fd.Impl().(*kernel.PIDFD)
	if !ok {
		return 0, unix.EBADF
	}
	g := p.Group()
	if g == nil {
		return 0, unix.ESRCH
	}
	if g != t.Group() {
		return 0, unix.EPERM
	}
	vec, err := t.MM().IOVecs(a[1].Pointer(), a[2].Uint64())
	if err != nil {
		return 0, err
	}
	var done uintptr
	for vec.NumBytes() > 0 {
		r := vec.FirstRange()
		if err := t.MM().Madvise(r.Addr, r.Len, int(a[3].Int())); err != nil {
			if done > 0 {
				return done, nil
			}
			return 0, err
		}
		done += uintptr(r.Len)
		vec = vec.DropFirst(int64(r.Len))
	}
	return done, nil
}

func msync(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return 0, t.MM().Msync(a[0].Pointer(), a[1].Uint64(), int(a[2].Int()))
}

func mincore(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	m := t.MM()
	addr, out := a[0].Pointer(), a[2].Pointer()
	n, ok := arch.PageUp(a[1].Uint64())
	if addr&arch.PageMask != 0 {
		return 0, unix.EINVAL
	}
	if !ok || !m.CheckRange(addr, n) {
		return 0, unix.ENOMEM
	}
	pages := n >> arch.PageShift
	if !m.CheckRange(out, pages) {
		return 0, unix.EFAULT
	}
	var vec [1024]byte
	for pages > 0 {
		if t.Killed() {
			return 0, unix.EINTR
		}
		k := min(pages, uint64(len(vec)))
		if err := m.Mincore(addr, vec[:k]); err != nil {
			return 0, err
		}
		if _, err := m.CopyOut(out, vec[:k]); err != nil {
			return 0, err
		}
		addr += k << arch.PageShift
		out += k
		pages -= k
	}
	return 0, nil
}

func mlock(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return 0, t.MM().Mlock(a[0].Pointer(), a[1].Uint64(), false, t.HasRootCap(unix.CAP_IPC_LOCK))
}

func mlock2(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	const onFault = 1 // MLOCK_ONFAULT
	if a[2].Uint64()&^onFault != 0 {
		return 0, unix.EINVAL
	}
	return 0, t.MM().Mlock(a[0].Pointer(), a[1].Uint64(), a[2].Uint64() != 0, t.HasRootCap(unix.CAP_IPC_LOCK))
}

func munlock(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return 0, t.MM().Munlock(a[0].Pointer(), a[1].Uint64())
}

func mlockall(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return 0, t.MM().MlockAll(int(a[0].Int()), t.HasRootCap(unix.CAP_IPC_LOCK))
}

func munlockall(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) {
	t.MM().MunlockAll()
	return 0, nil
}

func mseal(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[2].Uint64() != 0 {
		return 0, unix.EINVAL
	}
	return 0, t.MM().Mseal(a[0].Pointer(), a[1].Uint64())
}
