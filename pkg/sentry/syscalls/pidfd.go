package syscalls

import (
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// pidfdEntries are pidfds and kcmp(2).
func pidfdEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_PIDFD_OPEN, Name: "pidfd_open", Handler: pidfdOpen, Args: "int hex"},
		{Number: unix.SYS_PIDFD_SEND_SIGNAL, Name: "pidfd_send_signal", Handler: pidfdSendSignal, Args: "fd signal siginfo hex"},
		{Number: unix.SYS_PIDFD_GETFD, Name: "pidfd_getfd", Handler: pidfdGetfd, Args: "fd int hex"},
		{Number: unix.SYS_KCMP, Name: "kcmp", Handler: kcmp, Support: Partial, Note: "KCMP_EPOLL_TFD gives EOPNOTSUPP", Args: "int int int hex hex"},
	}
}

// pidfdOf finds the pidfd n, with a reference on the file. EBADF, also for other files.
func pidfdOf(t *kernel.Task, n int32) (*kernel.PIDFD, *vfs.FileDescription, error) {
	fd := t.FDTable().Get(n)
	if fd == nil {
		return nil, nil, unix.EBADF
	}
	p, ok := fd.Impl().(*kernel.PIDFD)
	if !ok {
		fd.DecRef()
		return nil, nil, unix.EBADF
	}
	return p, fd, nil
}

func pidfdOpen(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	pid, flags := a[0].Int(), a[1].Uint()
	if flags&^(unix.O_NONBLOCK|unix.O_EXCL) != 0 || pid <= 0 {
		return 0, unix.EINVAL
	}
	p := t.PIDNS().PIDByNumber(pid)
	if p == nil || !p.Alive() {
		return 0, unix.ESRCH
	}
	thread := flags&unix.O_EXCL != 0
	if !thread && !p.IsLeader() {
		return 0, unix.ENOENT
	}
	fd := t.Kernel().NewPIDFD(p, thread, flags&unix.O_NONBLOCK)
	n, err := t.FDTable().Install(t, fd, 0, true)
	fd.DecRef()
	return result(n, err)
}

func pidfdSendSignal(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	sig, flags := a[1].Int(), a[3].Uint()
	if flags&^7 != 0 || flags&(flags-1) != 0 {
		return 0, unix.EINVAL
	}
	fd := t.FDTable().Get(a[0].Int())
	if fd == nil {
		return 0, unix.EBADF
	}
	defer fd.DecRef()
	pid, thread := pidOf(fd)
	if pid == nil {
		return 0, unix.EBADF
	}
	var info *linux.SignalInfo
	if at := a[2].Pointer(); at != 0 {
		tg, _ := pid.Process()
		v, err := readSiginfo(t, at, sig, tg == t.Group())
		if err != nil {
			return 0, err
		}
		info = &v
	}
	return 0, t.SendPIDFD(pid, thread, linux.Signal(sig), info, flags)
}

// pidOf is whom a file stands for in pidfd_send_signal(2), which takes a pidfd or a directory /proc/PID; nil for other files.
func pidOf(fd *vfs.FileDescription) (pid *kernel.PID, thread bool) {
	if p, ok := fd.Impl().(*kernel.PIDFD); ok {
		return p.PID(), p.Thread()
	}
	if d, ok := fd.Inode().Ops().(interface{ ProcessID() *kernel.PID }); ok && !fd.IsPathOnly() {
		return d.ProcessID(), false
	}
	return nil, false
}

func pidfdGetfd(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[2].Uint() != 0 {
		return 0, unix.EINVAL
	}
	p, fd, err := pidfdOf(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	o := p.Task()
	if o == nil {
		return 0, unix.ESRCH
	}
	if !t.MayPtrace(o) {
		return 0, unix.EPERM
	}
	files := o.FDTable()
	if files == nil {
		return 0, unix.ESRCH
	}
	f := files.Get(a[1].Int())
	if f == nil {
		return 0, unix.EBADF
	}
	n, err := t.FDTable().Install(t, f, 0, true)
	f.DecRef()
	return result(n, err)
}

// order tells how two comparable things relate: 0 for the same, else 1 or 2 (kcmp(2)).
func order[T comparable](k *kernel.Kernel, a, b T) uintptr {
	if a == b {
		return 0
	}
	return 3 // not equal, no ordering information
}

func kcmp(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	x, y := t.PIDNS().TaskByTID(a[0].Int()), t.PIDNS().TaskByTID(a[1].Int())
	if x == nil || y == nil {
		return 0, unix.ESRCH
	}
	if !t.MayPtrace(x) || !t.MayPtrace(y) {
		return 0, unix.EPERM
	}
	k := t.Kernel()
	switch a[2].Int() {
	case linux.KCMP_FILE:
		return kcmpFiles(k, x, y, a[3].Uint64(), a[4].Uint64())
	case linux.KCMP_VM:
		return order(k, x.MM(), y.MM()), nil
	case linux.KCMP_FILES:
		return order(k, x.FDTable(), y.FDTable()), nil
	case linux.KCMP_FS:
		return order(k, x.FS(), y.FS()), nil
	case linux.KCMP_SIGHAND:
		return order(k, x.Group().SignalHandlers(), y.Group().SignalHandlers()), nil
	case linux.KCMP_IO, linux.KCMP_SYSVSEM:
		return order(k, x.Group(), y.Group()), nil
	case linux.KCMP_EPOLL_TFD:
		return 0, unix.EOPNOTSUPP
	}
	return 0, unix.EINVAL
}

func kcmpFiles(k *kernel.Kernel, x, y *kernel.Task, i, j uint64) (uintptr, error) {
	fx, fy := x.FDTable(), y.FDTable()
	if fx == nil || fy == nil || i > 1<<31-1 || j > 1<<31-1 {
		return 0, unix.EBADF
	}
	f, g := fx.Get(int32(i)), fy.Get(int32(j))
	if f != nil {
		defer f.DecRef()
	}
	if g != nil {
		defer g.DecRef()
	}
	if f == nil || g == nil {
		return 0, unix.EBADF
	}
	return order(k, f, g), nil
}
