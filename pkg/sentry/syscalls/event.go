package syscalls

import (
	"encoding/binary"

	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/fsimpl/epoll"
	"husk/pkg/sentry/fsimpl/eventfd"
	"husk/pkg/sentry/fsimpl/inotify"
	"husk/pkg/sentry/fsimpl/signalfd"
	"husk/pkg/sentry/fsimpl/timerfd"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// eventEntries are epoll(7), eventfd(2), timerfd_create(2), signalfd(2) and inotify(7).
func eventEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_EPOLL_CREATE, Name: "epoll_create", Handler: epollCreate, Args: "int"},
		{Number: unix.SYS_EPOLL_CREATE1, Name: "epoll_create1", Handler: epollCreate1, Args: "hex"},
		{Number: unix.SYS_EPOLL_CTL, Name: "epoll_ctl", Handler: epollCtl, Args: "fd int fd hex"},
		{Number: unix.SYS_EPOLL_WAIT, Name: "epoll_wait", Handler: epollWait, Args: "fd hex int int"},
		{Number: unix.SYS_EPOLL_PWAIT, Name: "epoll_pwait", Handler: epollPwait, Args: "fd hex int int hex int"},
		{Number: unix.SYS_EPOLL_PWAIT2, Name: "epoll_pwait2", Handler: epollPwait2, Args: "fd hex int hex hex int"},
		{Number: unix.SYS_EVENTFD, Name: "eventfd", Handler: eventfdCall, Args: "int"},
		{Number: unix.SYS_EVENTFD2, Name: "eventfd2", Handler: eventfd2, Args: "int hex"},
		{Number: unix.SYS_TIMERFD_CREATE, Name: "timerfd_create", Handler: timerfdCreate, Args: "int hex"},
		{Number: unix.SYS_TIMERFD_SETTIME, Name: "timerfd_settime", Handler: timerfdSettime, Args: "fd hex hex hex"},
		{Number: unix.SYS_TIMERFD_GETTIME, Name: "timerfd_gettime", Handler: timerfdGettime, Args: "fd hex"},
		{Number: unix.SYS_SIGNALFD, Name: "signalfd", Handler: signalfdCall, Args: "fd hex int"},
		{Number: unix.SYS_SIGNALFD4, Name: "signalfd4", Handler: signalfd4, Args: "fd hex int hex"},
		{Number: unix.SYS_INOTIFY_INIT, Name: "inotify_init", Handler: inotifyInit},
		{Number: unix.SYS_INOTIFY_INIT1, Name: "inotify_init1", Handler: inotifyInit1, Args: "hex"},
		{Number: unix.SYS_INOTIFY_ADD_WATCH, Name: "inotify_add_watch", Handler: inotifyAddWatch, Args: "fd path hex"},
		{Number: unix.SYS_INOTIFY_RM_WATCH, Name: "inotify_rm_watch", Handler: inotifyRmWatch, Args: "fd int"},
	}
}

func epollCreate(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[0].Int() <= 0 {
		return 0, unix.EINVAL
	}
	return installFile(t, epoll.New(t.Kernel().VFS(), &sharedOf(t).nesting), false)
}

func epollCreate1(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := a[0].Uint()
	if flags&^unix.EPOLL_CLOEXEC != 0 {
		return 0, unix.EINVAL
	}
	return installFile(t, epoll.New(t.Kernel().VFS(), &sharedOf(t).nesting), flags != 0)
}

// epollSize is sizeof(struct epoll_event), which is packed on x86-64.
const epollSize = 12

func epollCtl(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	op, fd := a[1].Int(), a[2].Int()
	var ev epoll.Event
	if op != unix.EPOLL_CTL_DEL {
		var b [epollSize]byte
		if _, err := t.MM().CopyIn(a[3].Pointer(), b[:]); err != nil {
			return 0, err
		}
		ev = epoll.Event{Events: binary.LittleEndian.Uint32(b[:]), Data: binary.LittleEndian.Uint64(b[4:])}
	}
	ef, err := getFile(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer ef.DecRef()
	f, err := getFile(t, fd)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if f.IsPathOnly() || ef.IsPathOnly() {
		return 0, unix.EBADF
	}
	if !f.Pollable() {
		return 0, unix.EPERM
	}
	ep, ok := ef.Impl().(*epoll.Instance)
	if !ok || f == ef {
		return 0, unix.EINVAL
	}
	if s, ok := f.Impl().(pollerSetter); ok {
		s.SetPoller(t)
	}
	switch op {
	case unix.EPOLL_CTL_ADD:
		return 0, ep.Add(f, fd, ev)
	case unix.EPOLL_CTL_MOD:
		return 0, ep.Modify(f, fd, ev)
	case unix.EPOLL_CTL_DEL:
		return 0, ep.Remove(f, fd)
	}
	return 0, unix.EINVAL
}

// epollBatch is how many events one wait returns at most: more come with the next.
const epollBatch = 1024

// epollBuffer is the memory of one wait.
type epollBuffer struct {
	events [epollBatch]epoll.Event
	raw    [epollBatch * epollSize]byte
}

// epollAt is the common part of the waits.
func epollAt(t *kernel.Task, fd int32, addr uint64, most int32, deadline int64) (uintptr, error) {
	if most <= 0 || most > 1<<31/epollSize {
		return 0, unix.EINVAL
	}
	f, err := getFile(t, fd)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	ep, ok := f.Impl().(*epoll.Instance)
	if !ok {
		if f.IsPathOnly() {
			return 0, unix.EBADF
		}
		return 0, unix.EINVAL
	}
	sh := sharedOf(t)
	b, _ := sh.events.Get().(*epollBuffer)
	if b == nil {
		b = new(epollBuffer)
	}
	defer sh.events.Put(b)
	n, err := ep.Wait(t, b.events[:min(int(most), epollBatch)], deadline)
	if err != nil {
		return 0, err
	}
	for i := range n {
		raw := b.raw[i*epollSize:]
		binary.LittleEndian.PutUint32(raw, b.events[i].Events)
		binary.LittleEndian.PutUint64(raw[4:], b.events[i].Data)
	}
	if _, err := t.MM().CopyOut(addr, b.raw[:n*epollSize]); err != nil {
		return 0, err
	}
	return uintptr(n), nil
}

func millis(ms int32) int64 {
	if ms < 0 {
		return vfs.NoDeadline
	}
	return deadlineAfter(int64(ms) * 1e6)
}

func epollWait(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return epollAt(t, a[0].Int(), a[1].Pointer(), a[2].Int(), millis(a[3].Int()))
}

func epollPwait(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if err := setTempMask(t, a[4].Pointer(), a[5].Uint64()); err != nil {
		return 0, err
	}
	return epollAt(t, a[0].Int(), a[1].Pointer(), a[2].Int(), millis(a[3].Int()))
}

func epollPwait2(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	deadline, err := readTimeout(t, a[3].Pointer())
	if err != nil {
		return 0, err
	}
	if err := setTempMask(t, a[4].Pointer(), a[5].Uint64()); err != nil {
		return 0, err
	}
	return epollAt(t, a[0].Int(), a[1].Pointer(), a[2].Int(), deadline)
}

func eventfdCall(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return installFile(t, eventfd.New(t.Kernel().VFS(), a[0].Uint(), 0), false)
}

func eventfd2(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := a[1].Int()
	if flags&^(unix.EFD_CLOEXEC|unix.EFD_NONBLOCK|unix.EFD_SEMAPHORE) != 0 {
		return 0, unix.EINVAL
	}
	return installFile(t, eventfd.New(t.Kernel().VFS(), a[0].Uint(), int(flags)), flags&unix.EFD_CLOEXEC != 0)
}

func timerfdCreate(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	clk, flags := a[0].Int(), a[1].Int()
	if flags&^(unix.TFD_CLOEXEC|unix.TFD_NONBLOCK) != 0 {
		return 0, unix.EINVAL
	}
	switch clk {
	case unix.CLOCK_REALTIME, unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME:
	case unix.CLOCK_REALTIME_ALARM, unix.CLOCK_BOOTTIME_ALARM:
		if !t.HasRootCap(unix.CAP_WAKE_ALARM) {
			return 0, unix.EPERM
		}
		clk = map[int32]int32{unix.CLOCK_REALTIME_ALARM: unix.CLOCK_REALTIME, unix.CLOCK_BOOTTIME_ALARM: unix.CLOCK_BOOTTIME}[clk]
	default:
		return 0, unix.EINVAL
	}
	return installFile(t, timerfd.New(t.Kernel().VFS(), t.Kernel().Timers(), clk, int(flags)), flags&unix.TFD_CLOEXEC != 0)
}

// getTimer is the timer of descriptor fd; the caller drops the reference of f.
func getTimer(t *kernel.Task, fd int32) (tf *timerfd.File, f *vfs.FileDescription, err error) {
	if f, err = getFile(t, fd); err != nil {
		return nil, nil, err
	}
	tf, ok := f.Impl().(*timerfd.File)
	if !ok {
		err = unix.EINVAL
		if f.IsPathOnly() {
			err = unix.EBADF
		}
		f.DecRef()
		return nil, nil, err
	}
	return tf, f, nil
}

func writeTimerSetting(t *kernel.Task, addr uint64, s timerfd.Setting) error {
	if err := storeTimespec(t, addr, s.Interval); err != nil {
		return err
	}
	return storeTimespec(t, addr+16, s.Value)
}

func timerfdSettime(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := a[1].Int()
	if flags&^(unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET) != 0 {
		return 0, unix.EINVAL
	}
	interval, err := readTimespec(t, a[2].Pointer())
	if err != nil {
		return 0, err
	}
	value, err := readTimespec(t, a[2].Pointer()+16)
	if err != nil {
		return 0, err
	}
	tf, f, err := getTimer(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	old := tf.Set(timerfd.Setting{Interval: interval, Value: value}, int(flags))
	if a[3].Pointer() != 0 {
		return 0, writeTimerSetting(t, a[3].Pointer(), old)
	}
	return 0, nil
}

func timerfdGettime(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	tf, f, err := getTimer(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return 0, writeTimerSetting(t, a[1].Pointer(), tf.Get())
}

func signalfdCall(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return makeSignalfd(t, a[0].Int(), a[1].Pointer(), a[2].Uint64(), 0)
}

func signalfd4(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return makeSignalfd(t, a[0].Int(), a[1].Pointer(), a[2].Uint64(), a[3].Int())
}

func makeSignalfd(t *kernel.Task, fd int32, addr, size uint64, flags int32) (uintptr, error) {
	if size != linux.SignalSetSize || flags&^(unix.SFD_CLOEXEC|unix.SFD_NONBLOCK) != 0 {
		return 0, unix.EINVAL
	}
	m, err := t.MM().ReadUint64(addr)
	if err != nil {
		return 0, err
	}
	if fd == -1 {
		return installFile(t, signalfd.New(t, linux.SignalSet(m), int(flags)), flags&unix.SFD_CLOEXEC != 0)
	}
	f, err := getFile(t, fd)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	s, ok := f.Impl().(*signalfd.File)
	if !ok {
		return 0, unix.EINVAL
	}
	s.SetMask(linux.SignalSet(m))
	return uintptr(fd), nil
}

func inotifyInit(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) { return makeInotify(t, 0) }

func inotifyInit1(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return makeInotify(t, a[0].Int())
}

func makeInotify(t *kernel.Task, flags int32) (uintptr, error) {
	if flags&^(unix.IN_CLOEXEC|unix.IN_NONBLOCK) != 0 {
		return 0, unix.EINVAL
	}
	f, err := inotify.New(t, t.Kernel().VFS(), &sharedOf(t).inotify, int(flags))
	if err != nil {
		return 0, err
	}
	return installFile(t, f, flags&unix.IN_CLOEXEC != 0)
}

func inotifyAddWatch(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	mask := a[2].Uint()
	if mask&inotify.Known == 0 || mask&unix.IN_MASK_ADD != 0 && mask&unix.IN_MASK_CREATE != 0 {
		return 0, unix.EINVAL
	}
	f, err := getFile(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	i, ok := f.Impl().(*inotify.Instance)
	if !ok {
		return 0, unix.EINVAL
	}
	path, err := t.MM().CopyInString(a[1].Pointer(), unix.PathMax)
	if err != nil {
		return 0, err
	}
	var flags vfs.LookupFlags
	if mask&unix.IN_DONT_FOLLOW == 0 {
		flags |= vfs.FollowLast
	}
	if mask&unix.IN_ONLYDIR != 0 {
		flags |= vfs.MustBeDir
	}
	p, err := t.Kernel().VFS().Walk(t, vfs.Path{}, path, flags)
	if err != nil {
		return 0, err
	}
	defer p.DecRef()
	if err := vfs.CheckPermission(t, p.Inode(), vfs.MayRead); err != nil {
		return 0, err
	}
	wd, err := i.AddWatch(p.Inode(), mask)
	return uintptr(wd), err
}

func inotifyRmWatch(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	f, err := getFile(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	i, ok := f.Impl().(*inotify.Instance)
	if !ok {
		return 0, unix.EINVAL
	}
	return 0, i.RemoveWatch(a[1].Int())
}
