package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

func fileIOEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_READ, Name: "read", Handler: sysRead, Args: "fd outbuf size"},
		{Number: unix.SYS_WRITE, Name: "write", Handler: sysWrite, Args: "fd inbuf size"},
		{Number: unix.SYS_PREAD64, Name: "pread64", Handler: sysPread, Args: "fd outbuf size int64"},
		{Number: unix.SYS_PWRITE64, Name: "pwrite64", Handler: sysPwrite, Args: "fd inbuf size int64"},
		{Number: unix.SYS_READV, Name: "readv", Handler: sysReadv, Args: "fd ptr int"},
		{Number: unix.SYS_WRITEV, Name: "writev", Handler: sysWritev, Args: "fd ptr int"},
		{Number: unix.SYS_PREADV, Name: "preadv", Handler: sysPreadv, Args: "fd ptr int int64"},
		{Number: unix.SYS_PWRITEV, Name: "pwritev", Handler: sysPwritev, Args: "fd ptr int int64"},
		{Number: unix.SYS_PREADV2, Name: "preadv2", Handler: sysPreadv2, Args: "fd ptr int int64 int hex"},
		{Number: unix.SYS_PWRITEV2, Name: "pwritev2", Handler: sysPwritev2, Args: "fd ptr int int64 int hex"},
		{Number: unix.SYS_LSEEK, Name: "lseek", Handler: sysLseek, Args: "fd int64 int"},
		{Number: unix.SYS_FSYNC, Name: "fsync", Handler: sysFsync, Args: "fd"},
		{Number: unix.SYS_FDATASYNC, Name: "fdatasync", Handler: sysFdatasync, Args: "fd"},
		{Number: unix.SYS_SYNC, Name: "sync", Handler: sysSync},
		{Number: unix.SYS_SYNCFS, Name: "syncfs", Handler: sysSyncfs, Args: "fd"},
		{Number: unix.SYS_SYNC_FILE_RANGE, Name: "sync_file_range", Handler: sysSyncFileRange, Args: "fd int64 int64 hex"},
		{Number: unix.SYS_FALLOCATE, Name: "fallocate", Handler: sysFallocate, Args: "fd hex int64 int64"},
		{Number: unix.SYS_FADVISE64, Name: "fadvise64", Handler: sysFadvise, Note: "advice is ignored", Args: "fd int64 int64 int"},
		{Number: unix.SYS_READAHEAD, Name: "readahead", Handler: sysReadahead, Note: "does nothing", Args: "fd int64 size"},
		{Number: unix.SYS_SENDFILE, Name: "sendfile", Handler: sysSendfile, Args: "fd fd ptr size"},
		{Number: unix.SYS_COPY_FILE_RANGE, Name: "copy_file_range", Handler: sysCopyFileRange, Args: "fd ptr fd ptr size hex"},
		{Number: unix.SYS_SPLICE, Name: "splice", Handler: sysSplice, Args: "fd ptr fd ptr size hex"},
		{Number: unix.SYS_TEE, Name: "tee", Handler: sysTee, Args: "fd fd size hex"},
		{Number: unix.SYS_VMSPLICE, Name: "vmsplice", Handler: sysVmsplice, Args: "fd ptr int hex"},
	}
}

func sysRead(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	if !fd.Readable() {
		return 0, unix.EBADF
	}
	s, err := userSeq(t, a[1], a[2])
	if err != nil {
		return 0, err
	}
	return counted(fd.Read(t, s))
}

func sysWrite(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	if !fd.Writable() {
		return 0, unix.EBADF
	}
	s, err := userSeq(t, a[1], a[2])
	if err != nil {
		return 0, err
	}
	return counted(fd.Write(t, s))
}

// counted turns a count into a result.
func counted(n int64, err error) (uintptr, error) { return uintptr(n), err }

func sysPread(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	s, err := userSeq(t, a[1], a[2])
	if err != nil {
		return 0, err
	}
	return counted(fd.PRead(t, s, a[3].Int64()))
}

func sysPwrite(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	s, err := userSeq(t, a[1], a[2])
	if err != nil {
		return 0, err
	}
	return counted(fd.PWrite(t, s, a[3].Int64()))
}

// fdIov is the start of all vectored calls.
func fdIov(t *kernel.Task, a arch.SyscallArgs, write bool) (*vfs.FileDescription, mm.IOSeq, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return nil, mm.IOSeq{}, err
	}
	if write && !fd.Writable() || !write && !fd.Readable() {
		fd.DecRef()
		return nil, mm.IOSeq{}, unix.EBADF
	}
	s, err := userIov(t, a[1], a[2])
	if err != nil {
		fd.DecRef()
		return nil, mm.IOSeq{}, err
	}
	return fd, s, nil
}

func sysReadv(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, s, err := fdIov(t, a, false)
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	return counted(fd.Read(t, s))
}

func sysWritev(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, s, err := fdIov(t, a, true)
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	return counted(fd.Write(t, s))
}

func sysPreadv(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, s, err := fdIov(t, a, false)
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	return counted(fd.PRead(t, s, a[3].Int64()))
}

func sysPwritev(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, s, err := fdIov(t, a, true)
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	return counted(fd.PWrite(t, s, a[3].Int64()))
}

// Flags of preadv2(2) that newer kernels have.
const (
	rwfNoAppend = 0x20
	rwfAtomic   = 0x40
)

func sysPreadv2(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := a[5].Uint()
	if flags&^(unix.RWF_HIPRI|unix.RWF_DSYNC|unix.RWF_SYNC|unix.RWF_NOWAIT|unix.RWF_APPEND) != 0 {
		return 0, unix.EOPNOTSUPP
	}
	if flags&unix.RWF_APPEND != 0 {
		return 0, unix.EOPNOTSUPP
	}
	off := a[3].Int64()
	fd, s, err := fdIov(t, a, false)
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	if off != -1 {
		return counted(fd.PRead(t, s, off))
	}
	if flags&unix.RWF_NOWAIT != 0 {
		return counted(fd.ReadNonblock(t, s))
	}
	return counted(fd.Read(t, s))
}

func sysPwritev2(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := a[5].Uint()
	if flags&^(unix.RWF_HIPRI|unix.RWF_DSYNC|unix.RWF_SYNC|unix.RWF_NOWAIT|unix.RWF_APPEND|rwfNoAppend) != 0 {
		return 0, unix.EOPNOTSUPP
	}
	if flags&(unix.RWF_APPEND|rwfNoAppend) == unix.RWF_APPEND|rwfNoAppend {
		return 0, unix.EINVAL
	}
	off := a[3].Int64()
	fd, s, err := fdIov(t, a, true)
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	var n int64
	appending := (fd.Flags()&unix.O_APPEND != 0 || flags&unix.RWF_APPEND != 0) && flags&rwfNoAppend == 0
	switch {
	case off != -1:
		n, err = fd.PWriteAppend(t, s, off, appending)
	case flags&unix.RWF_NOWAIT != 0:
		n, err = fd.WriteNonblock(t, s)
	case flags&unix.RWF_APPEND != 0:
		n, err = fd.PWriteAppend(t, s, 0, true)
		if err == unix.ESPIPE {
			n, err = fd.Write(t, s)
		}
	default:
		n, err = fd.Write(t, s)
	}
	if err == nil && n > 0 && flags&(unix.RWF_DSYNC|unix.RWF_SYNC) != 0 {
		err = fd.Fsync(t, flags&unix.RWF_SYNC == 0)
	}
	return uintptr(n), err
}

func sysLseek(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	return counted(fd.Seek(t, a[1].Int64(), a[2].Int()))
}

func fsync(t *kernel.Task, a arch.SyscallArg, dataOnly bool) (uintptr, error) {
	fd, err := getFD(t, a)
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	return 0, fd.Fsync(t, dataOnly)
}

func sysFsync(t *kernel.Task, a arch.SyscallArgs) (uintptr, error)     { return fsync(t, a[0], false) }
func sysFdatasync(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) { return fsync(t, a[0], true) }

func sysSync(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) {
	t.MountNS().SyncAll(t)
	return 0, nil
}

func sysSyncfs(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getIOFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	return 0, fd.Inode().Superblock().Ops().Sync(t)
}

func sysSyncFileRange(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	off, n, flags := a[1].Int64(), a[2].Int64(), a[3].Uint()
	const known = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	if flags&^known != 0 || off < 0 || n < 0 || off+n < off {
		return 0, unix.EINVAL
	}
	fd, err := getIOFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	switch fd.Inode().Type() {
	case unix.S_IFREG, unix.S_IFBLK, unix.S_IFDIR, unix.S_IFLNK:
	default:
		return 0, unix.ESPIPE
	}
	if flags&(unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WAIT_AFTER) != 0 {
		return 0, fd.Fsync(t, true)
	}
	return 0, nil
}

func sysFallocate(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getIOFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	mode := a[1].Uint()
	const known = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_COLLAPSE_RANGE | unix.FALLOC_FL_ZERO_RANGE |
		unix.FALLOC_FL_INSERT_RANGE | unix.FALLOC_FL_UNSHARE_RANGE
	if mode&^known != 0 || mode&unix.FALLOC_FL_PUNCH_HOLE != 0 && mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		return 0, unix.EOPNOTSUPP
	}
	return 0, fd.Allocate(t, mode, a[2].Int64(), a[3].Int64())
}

func sysFadvise(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getIOFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	if fd.Inode().Type() == unix.S_IFIFO {
		return 0, unix.ESPIPE
	}
	if a[2].Int64() < 0 || a[3].Uint() > unix.FADV_NOREUSE {
		return 0, unix.EINVAL
	}
	return 0, nil
}

func sysReadahead(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	if !fd.Readable() {
		return 0, unix.EBADF
	}
	if ty := fd.Inode().Type(); ty != unix.S_IFREG && ty != unix.S_IFBLK {
		return 0, unix.EINVAL
	}
	return 0, nil
}

// twoFDs returns the files of two descriptors.
func twoFDs(t *kernel.Task, x, y arch.SyscallArg) (a, b *vfs.FileDescription, err error) {
	if a, err = getIOFD(t, x); err != nil {
		return nil, nil, err
	}
	if b, err = getIOFD(t, y); err != nil {
		a.DecRef()
		return nil, nil, err
	}
	return a, b, nil
}

// readOff reads the offset at addr into *off; nil if addr is 0. EINVAL for a negative one.
func readOff(t *kernel.Task, addr arch.SyscallArg, off *int64) (*int64, error) {
	if addr == 0 {
		return nil, nil
	}
	v, err := t.MM().ReadUint64(addr.Pointer())
	if err != nil {
		return nil, err
	}
	if *off = int64(v); *off < 0 {
		return nil, unix.EINVAL
	}
	return off, nil
}

// writeOff stores the offset again.
func writeOff(t *kernel.Task, addr arch.SyscallArg, off int64) error {
	if addr == 0 {
		return nil
	}
	return t.MM().WriteUint64(addr.Pointer(), uint64(off))
}

func sysSendfile(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	out, in, err := twoFDs(t, a[0], a[1])
	if err != nil {
		return 0, err
	}
	defer out.DecRef()
	defer in.DecRef()
	if !out.Writable() || !in.Readable() {
		return 0, unix.EBADF
	}
	if a[3].Int64() < 0 {
		return 0, unix.EINVAL
	}
	var off int64
	ptr, err := readOff(t, a[2], &off)
	if err != nil {
		return 0, err
	}
	_, fromPipe := in.Impl().(vfs.Pipe)
	_, toPipe := out.Impl().(vfs.Pipe)
	switch {
	case !in.Seekable() && ptr != nil:
		return 0, unix.ESPIPE
	case fromPipe, !in.Seekable() && !toPipe, in.Inode().IsDir(), out.Flags()&unix.O_APPEND != 0:
		return 0, unix.EINVAL
	}
	move := t.Kernel().VFS().CopyFile
	if toPipe {
		move = t.Kernel().VFS().Splice
	}
	n, err := move(t, vfs.CopyEnd{FD: out}, vfs.CopyEnd{FD: in, Off: ptr}, min(a[3].Int64(), maxRW), out.Nonblocking())
	if werr := writeOff(t, a[2], off); werr != nil {
		return 0, werr
	}
	return uintptr(n), err
}

func sysCopyFileRange(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	in, out, err := twoFDs(t, a[0], a[2])
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	defer out.DecRef()
	if a[5] != 0 {
		return 0, unix.EINVAL
	}
	return withOffsets(t, a[1], a[3], func(ip, op *int64) (int64, error) {
		for _, f := range [...]*vfs.FileDescription{in, out} {
			if f.Inode().IsDir() {
				return 0, unix.EISDIR
			}
			if f.Inode().Type() != unix.S_IFREG {
				return 0, unix.EINVAL
			}
		}
		if !in.Readable() || !out.Writable() || out.Flags()&unix.O_APPEND != 0 {
			return 0, unix.EBADF
		}
		n := int64(min(a[4].Uint64(), maxRW))
		if in.Inode() == out.Inode() {
			x, y := in.Offset(), out.Offset()
			if ip != nil {
				x = *ip
			}
			if op != nil {
				y = *op
			}
			if x < y+n && y < x+n {
				return 0, unix.EINVAL
			}
		}
		return t.Kernel().VFS().CopyFile(t, vfs.CopyEnd{FD: out, Off: op}, vfs.CopyEnd{FD: in, Off: ip}, n, false)
	})
}

// withOffsets calls f with the offsets at two user addresses, nil for null addresses, and writes back what it made of them.
func withOffsets(t *kernel.Task, in, out arch.SyscallArg, f func(ip, op *int64) (int64, error)) (uintptr, error) {
	var io, oo int64
	ip, err := readOff(t, in, &io)
	if err != nil {
		return 0, err
	}
	op, err := readOff(t, out, &oo)
	if err != nil {
		return 0, err
	}
	n, err := f(ip, op)
	if err != nil {
		return 0, err
	}
	if err := writeOff(t, in, io); err != nil {
		return 0, err
	}
	return uintptr(n), writeOff(t, out, oo)
}

const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK | unix.SPLICE_F_MORE | unix.SPLICE_F_GIFT

func sysSplice(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := a[5].Uint()
	if flags&^spliceFlags != 0 {
		return 0, unix.EINVAL
	}
	if a[4] == 0 {
		return 0, nil
	}
	in, out, err := twoFDs(t, a[0], a[2])
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	defer out.DecRef()
	if !in.Readable() || !out.Writable() {
		return 0, unix.EBADF
	}
	if err := offsetAllowed(in, a[1]); err != nil {
		return 0, err
	}
	if err := offsetAllowed(out, a[3]); err != nil {
		return 0, err
	}
	if out.Seekable() && out.Flags()&unix.O_APPEND != 0 {
		return 0, unix.EINVAL
	}
	return withOffsets(t, a[1], a[3], func(ip, op *int64) (int64, error) {
		for _, e := range [...]vfs.CopyEnd{{FD: in, Off: ip}, {FD: out, Off: op}} {
			if !e.Spans(a[4].Int64()) {
				return 0, unix.EINVAL
			}
		}
		return t.Kernel().VFS().Splice(t, vfs.CopyEnd{FD: out, Off: op}, vfs.CopyEnd{FD: in, Off: ip}, int64(min(a[4].Uint64(), maxRW)), flags&unix.SPLICE_F_NONBLOCK != 0)
	})
}

// offsetAllowed checks that an offset may be given for a file: not for a pipe (ESPIPE), nor for what else has none (EINVAL).
func offsetAllowed(fd *vfs.FileDescription, addr arch.SyscallArg) error {
	if addr == 0 || fd.Seekable() {
		return nil
	}
	if _, pipe := fd.Impl().(vfs.Pipe); pipe {
		return unix.ESPIPE
	}
	return unix.EINVAL
}

func sysTee(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := a[3].Uint()
	if flags&^spliceFlags != 0 {
		return 0, unix.EINVAL
	}
	if a[2] == 0 {
		return 0, nil
	}
	in, out, err := twoFDs(t, a[0], a[1])
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	defer out.DecRef()
	return counted(t.Kernel().VFS().Tee(t, out, in, int64(min(a[2].Uint64(), maxRW)), flags&unix.SPLICE_F_NONBLOCK != 0))
}

func sysVmsplice(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := a[3].Uint()
	if flags&^spliceFlags != 0 {
		return 0, unix.EINVAL
	}
	fd, err := getIOFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	s, err := userIov(t, a[1], a[2])
	if err != nil || s.NumBytes() == 0 {
		return 0, err
	}
	return counted(t.Kernel().VFS().Vmsplice(t, fd, s, flags&unix.SPLICE_F_NONBLOCK != 0))
}
