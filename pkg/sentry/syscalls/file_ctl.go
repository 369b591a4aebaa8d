package syscalls

import (
	"math"

	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

func fileCtlEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_FCNTL, Name: "fcntl", Handler: sysFcntl, Support: Partial, Note: "no leases, no dnotify", Args: "fd int hex"},
		{Number: unix.SYS_FLOCK, Name: "flock", Handler: sysFlock, Args: "fd hex"},
		{Number: unix.SYS_IOCTL, Name: "ioctl", Handler: sysIoctl, Args: "fd hex hex"},
	}
}

// Commands of fcntl(2) that x/sys lacks, and the types of owners.
const (
	fSetSig      = 10
	fGetSig      = 11
	fSetOwnEx    = 15
	fGetOwnEx    = 16
	fDupfdQuery  = 1027
	fGetRWHint   = 1035
	fSetRWHint   = 1036
	fGetFileHint = 1037
	fSetFileHint = 1038

	ownerTID  = 0
	ownerPID  = 1
	ownerPGRP = 2
)

func sysFcntl(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	files := t.FDTable()
	cmd := a[1].Int()
	switch cmd {
	case unix.F_DUPFD, unix.F_DUPFD_CLOEXEC:
		n, err := files.Install(t, fd, a[2].Int(), cmd == unix.F_DUPFD_CLOEXEC)
		if err == unix.EINVAL && a[2].Int() == 0 {
			err = unix.EMFILE
		}
		return uintptr(n), err
	case unix.F_GETFD:
		on, err := files.Cloexec(a[0].Int())
		if on {
			return unix.FD_CLOEXEC, err
		}
		return 0, err
	case unix.F_SETFD:
		return 0, files.SetCloexec(a[0].Int(), a[2].Uint()&unix.FD_CLOEXEC != 0)
	case unix.F_GETFL:
		return uintptr(fd.Flags()), nil
	case fDupfdQuery:
		other, err := getFD(t, a[2])
		if err != nil {
			return 0, err
		}
		defer other.DecRef()
		if other == fd {
			return 1, nil
		}
		return 0, nil
	}
	if fd.IsPathOnly() {
		return 0, unix.EBADF
	}
	switch cmd {
	case unix.F_SETFL:
		return 0, fd.SetStatusFlags(t, a[2].Uint())
	case unix.F_GETLK, unix.F_OFD_GETLK, unix.F_SETLK, unix.F_SETLKW, unix.F_OFD_SETLK, unix.F_OFD_SETLKW:
		return 0, recordLock(t, fd, cmd, a[2])
	case unix.F_GETOWN, unix.F_SETOWN, fSetSig, fGetSig, fSetOwnEx, fGetOwnEx:
		return fileOwner(t, fd, cmd, a)
	case unix.F_SETPIPE_SZ, unix.F_GETPIPE_SZ:
		p, ok := fd.Impl().(vfs.Pipe)
		if !ok {
			return 0, unix.EBADF
		}
		if cmd == unix.F_GETPIPE_SZ {
			return uintptr(p.PipeSize()), nil
		}
		if a[2].Int() < 0 {
			return 0, unix.EINVAL
		}
		return counted(p.SetPipeSize(int64(a[2].Uint()), t.HasRootCap(unix.CAP_SYS_RESOURCE)))
	case unix.F_ADD_SEALS, unix.F_GET_SEALS:
		s, ok := fd.Impl().(vfs.Sealer)
		if !ok {
			return 0, unix.EINVAL
		}
		if cmd == unix.F_GET_SEALS {
			return uintptr(s.Seals()), nil
		}
		if !fd.Writable() {
			return 0, unix.EPERM
		}
		return 0, s.AddSeals(a[2].Uint())
	case unix.F_GETLEASE:
		return unix.F_UNLCK, nil
	case unix.F_SETLEASE:
		if a[2].Int() == unix.F_UNLCK {
			return 0, unix.EAGAIN
		}
		return 0, unix.EINVAL
	case fGetRWHint, fGetFileHint:
		return 0, t.MM().WriteUint64(a[2].Pointer(), 0)
	case fSetRWHint, fSetFileHint:
		n, err := t.MM().ReadUint64(a[2].Pointer())
		if err == nil && n > 5 {
			err = unix.EINVAL
		}
		return 0, err
	}
	return 0, unix.EINVAL
}

// recordLock is the part of fcntl(2) with struct flock.
func recordLock(t *kernel.Task, fd *vfs.FileDescription, cmd int32, addr arch.SyscallArg) error {
	f, err := mm.Read[unix.Flock_t](t.MM(), addr.Pointer())
	if err != nil {
		return err
	}
	owner := any(t.FDTable())
	pid := t.Group().IDIn(t.PIDNS())
	ofd := cmd == unix.F_OFD_GETLK || cmd == unix.F_OFD_SETLK || cmd == unix.F_OFD_SETLKW
	if ofd {
		if f.Pid != 0 {
			return unix.EINVAL
		}
		owner, pid = fd, -1
	}
	l, err := lockRange(t, fd, &f)
	if err != nil {
		return err
	}
	l.PID = pid
	if cmd == unix.F_GETLK || cmd == unix.F_OFD_GETLK {
		if f.Type != unix.F_RDLCK && f.Type != unix.F_WRLCK {
			return unix.EINVAL
		}
		fd.TestLock(&l, owner)
		f.Type = l.Type
		if l.Type != unix.F_UNLCK {
			f.Whence, f.Start, f.Len, f.Pid = unix.SEEK_SET, l.Start, 0, l.PID
			if l.End != math.MaxInt64 {
				f.Len = l.End - l.Start + 1
			}
		}
		return mm.Write(t.MM(), addr.Pointer(), &f)
	}
	switch f.Type {
	case unix.F_RDLCK:
		if !fd.Readable() {
			return unix.EBADF
		}
	case unix.F_WRLCK:
		if !fd.Writable() {
			return unix.EBADF
		}
	case unix.F_UNLCK:
	default:
		return unix.EINVAL
	}
	return fd.SetLock(t, l, owner, cmd == unix.F_SETLKW || cmd == unix.F_OFD_SETLKW)
}

// lockRange turns whence, start and length into a range. EINVAL, EOVERFLOW.
func lockRange(t *kernel.Task, fd *vfs.FileDescription, f *unix.Flock_t) (l vfs.FileLock, err error) {
	start := int64(0)
	switch f.Whence {
	case unix.SEEK_SET:
	case unix.SEEK_CUR:
		start = fd.Offset()
	case unix.SEEK_END:
		var st vfs.Stat
		if err := fd.Stat(t, unix.STATX_SIZE, &st); err != nil {
			return l, err
		}
		start = st.Size
	default:
		return l, unix.EINVAL
	}
	if f.Start > 0 && start > math.MaxInt64-f.Start {
		return l, unix.EOVERFLOW
	}
	start += f.Start
	end := int64(math.MaxInt64)
	switch {
	case f.Len > 0:
		if start > math.MaxInt64-(f.Len-1) {
			return l, unix.EOVERFLOW
		}
		end = start + f.Len - 1
	case f.Len < 0:
		end = start - 1
		if f.Len == math.MinInt64 {
			return l, unix.EINVAL
		}
		start += f.Len
	}
	if start < 0 || end < 0 {
		return l, unix.EINVAL
	}
	return vfs.FileLock{Type: f.Type, Start: start, End: end}, nil
}

func sysFlock(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	return 0, fd.Flock(t, a[1].Int())
}

// fileOwner is the part of fcntl(2) about SIGIO.
func fileOwner(t *kernel.Task, fd *vfs.FileDescription, cmd int32, a arch.SyscallArgs) (uintptr, error) {
	o := fd.Owner()
	switch cmd {
	case unix.F_GETOWN:
		if o.Type == ownerPGRP {
			return uintptr(-o.ID), nil
		}
		return uintptr(o.ID), nil
	case unix.F_SETOWN:
		id := a[2].Int()
		if id == math.MinInt32 {
			return 0, unix.EINVAL
		}
		if id < 0 {
			return 0, setOwner(t, fd, ownerPGRP, -id)
		}
		return 0, setOwner(t, fd, ownerPID, id)
	case fGetOwnEx:
		x := [2]int32{o.Type, o.ID}
		return 0, mm.Write(t.MM(), a[2].Pointer(), &x)
	case fSetOwnEx:
		x, err := mm.Read[[2]int32](t.MM(), a[2].Pointer())
		if err != nil {
			return 0, err
		}
		if x[0] < ownerTID || x[0] > ownerPGRP || x[1] < 0 {
			return 0, unix.EINVAL
		}
		return 0, setOwner(t, fd, x[0], x[1])
	case fGetSig:
		return uintptr(o.Sig), nil
	}
	sig := a[2].Int()
	if sig < 0 || sig > linux.NumSignals {
		return 0, unix.EINVAL
	}
	o.Sig = sig
	o.FD = a[0].Int()
	fd.SetOwner(o)
	return 0, nil
}

func setOwner(t *kernel.Task, fd *vfs.FileDescription, kind, id int32) error {
	ns := t.PIDNS()
	o := fd.Owner()
	o.Type, o.ID, o.Creds, o.Send = kind, id, t.Credentials(), nil
	if id != 0 {
		switch kind {
		case ownerTID:
			if ns.TaskByTID(id) == nil {
				return unix.ESRCH
			}
		case ownerPID:
			if ns.GroupByTGID(id) == nil {
				return unix.ESRCH
			}
		case ownerPGRP:
			if ns.ProcessGroupByID(id) == nil {
				return unix.ESRCH
			}
		}
		o.Send = sigioSender(t)
	}
	fd.SetOwner(o)
	return nil
}

// sigioSender sends SIGIO to owners whose IDs are those of t's PID namespace.
func sigioSender(t *kernel.Task) func(o *vfs.Owner, code int32, band waiter.EventMask) {
	k := t.Kernel()
	ns := t.PIDNS()
	return func(o *vfs.Owner, code int32, band waiter.EventMask) {
		info := &linux.SignalInfo{Signo: int32(unix.SIGIO), Code: 0x80} // SI_KERNEL
		if o.Sig != 0 {
			info.Signo, info.Code = o.Sig, code
			info.Union[0] = uint64(band)         // si_band
			info.Union[1] = uint64(uint32(o.FD)) // si_fd
		}
		switch o.Type {
		case ownerTID:
			if x := ns.TaskByTID(o.ID); x != nil {
				_ = x.SendTaskSignal(info)
			}
		case ownerPID:
			if g := ns.GroupByTGID(o.ID); g != nil {
				_ = g.SendSignal(info)
			}
		case ownerPGRP:
			if g := ns.ProcessGroupByID(o.ID); g != nil {
				for _, m := range g.Members(k, nil) {
					_ = m.SendSignal(info)
				}
			}
		}
	}
}

// Generic ioctl commands that x/sys lacks.
const (
	fioNCLEX = 0x5450
	fioCLEX  = 0x5451
	fioNBIO  = 0x5421
	fioASYNC = 0x5452
	fioQSIZE = 0x5460
	fioNREAD = 0x541b
	fiGetBSZ = 2
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
	fiClone  = 0x40049409
)

func sysIoctl(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getIOFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	cmd := a[1].Uint()
	switch cmd {
	case fioCLEX, fioNCLEX:
		return 0, t.FDTable().SetCloexec(a[0].Int(), cmd == fioCLEX)
	case fioNBIO, fioASYNC:
		on, err := t.MM().ReadUint32(a[2].Pointer())
		if err != nil {
			return 0, err
		}
		bit := uint32(unix.O_NONBLOCK)
		if cmd == fioASYNC {
			bit = unix.O_ASYNC
		}
		f := fd.Flags() &^ bit
		if on != 0 {
			f |= bit
		}
		return 0, fd.SetStatusFlags(t, f)
	case fioNREAD:
		if fd.Inode().Type() == unix.S_IFREG {
			var st vfs.Stat
			if err := fd.Stat(t, unix.STATX_SIZE, &st); err != nil {
				return 0, err
			}
			return 0, t.MM().WriteUint32(a[2].Pointer(), uint32(st.Size-fd.Offset()))
		}
	case fioQSIZE:
		switch fd.Inode().Type() {
		case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK:
			var st vfs.Stat
			if err := fd.Stat(t, unix.STATX_SIZE, &st); err != nil {
				return 0, err
			}
			return 0, t.MM().WriteUint64(a[2].Pointer(), uint64(st.Size))
		}
		return 0, unix.ENOTTY
	case fiGetBSZ:
		if fd.Inode().Type() == unix.S_IFREG {
			return 0, t.MM().WriteUint32(a[2].Pointer(), arch.PageSize)
		}
	case fiFreeze, fiThaw, fiClone:
		return 0, unix.EOPNOTSUPP
	}
	return fd.Ioctl(t, cmd, a[2].Uint64())
}
