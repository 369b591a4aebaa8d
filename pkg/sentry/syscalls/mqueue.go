package syscalls

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/fsimpl/mqueue"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// mqueueEntries are mq_overview(7).
func mqueueEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_MQ_OPEN, Name: "mq_open", Handler: mqOpen, Args: "path openflags mode hex"},
		{Number: unix.SYS_MQ_UNLINK, Name: "mq_unlink", Handler: mqUnlink, Args: "path"},
		{Number: unix.SYS_MQ_TIMEDSEND, Name: "mq_timedsend", Handler: mqTimedsend, Args: "fd buf size int timespec"},
		{Number: unix.SYS_MQ_TIMEDRECEIVE, Name: "mq_timedreceive", Handler: mqTimedreceive, Args: "fd outbuf size hex timespec"},
		{Number: unix.SYS_MQ_NOTIFY, Name: "mq_notify", Handler: mqNotify, Support: Partial, Note: "no SIGEV_THREAD, which needs netlink", Args: "fd hex"},
		{Number: unix.SYS_MQ_GETSETATTR, Name: "mq_getsetattr", Handler: mqGetsetattr, Args: "fd hex hex"},
	}
}

// queueName reads the name of a queue, which the C library has freed of its leading slash.
func queueName(t *kernel.Task, addr uint64) (string, error) {
	name, err := t.MM().CopyInString(addr, pathMax)
	switch {
	case err != nil:
		return "", err
	case name == "":
		return "", unix.ENOENT
	case strings.IndexByte(name, '/') >= 0:
		return "", unix.EACCES
	case name == "." || name == "..":
		return "", unix.EACCES
	case len(name) > 255:
		return "", unix.ENAMETOOLONG
	}
	return name, nil
}

// mqAttr is struct mq_attr.
type mqAttr struct {
	Flags, MaxMsg, MsgSize, CurMsgs int64
	_                               [4]int64
}

func mqOpen(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	name, err := queueName(t, a[0].Pointer())
	if err != nil {
		return 0, err
	}
	flags := a[1].Uint()
	if flags&unix.O_ACCMODE == unix.O_ACCMODE {
		return 0, unix.EINVAL
	}
	var attr *mqueue.Attr
	if p := a[3].Pointer(); p != 0 && flags&unix.O_CREAT != 0 {
		m, err := mm.Read[mqAttr](t.MM(), p)
		if err != nil {
			return 0, err
		}
		attr = &mqueue.Attr{MaxMsg: m.MaxMsg, MsgSize: m.MsgSize}
	}
	f, err := mqueue.Of(t.IPCNamespace(), t.Kernel().VFS()).Open(t, name, flags, a[2].Uint(), attr)
	if err != nil {
		return 0, err
	}
	return installFile(t, f, flags&unix.O_CLOEXEC != 0)
}

func mqUnlink(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	name, err := queueName(t, a[0].Pointer())
	if err != nil {
		return 0, err
	}
	return 0, mqueue.Of(t.IPCNamespace(), t.Kernel().VFS()).Unlink(t, name)
}

// getQueue is the queue of descriptor fd and its file, with a reference. EBADF.
func getQueue(t *kernel.Task, fd int32) (*mqueue.Queue, *vfs.FileDescription, error) {
	f, err := getFile(t, fd)
	if err != nil {
		return nil, nil, err
	}
	q := mqueue.QueueOf(f)
	if q == nil {
		f.DecRef()
		return nil, nil, unix.EBADF
	}
	return q, f, nil
}

// realDeadline turns the CLOCK_REALTIME time at addr into a deadline of CLOCK_MONOTONIC; addr 0 is none.
func realDeadline(t *kernel.Task, addr uint64) (int64, error) {
	if addr == 0 {
		return vfs.NoDeadline, nil
	}
	at, err := readTimespec(t, addr)
	if err != nil {
		return 0, err
	}
	left := at - clock.Realtime()
	now := clock.Monotonic()
	if left > vfs.NoDeadline-now {
		return vfs.NoDeadline, nil
	}
	return now + left, nil
}

func mqTimedsend(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	deadline, err := realDeadline(t, a[4].Pointer())
	if err != nil {
		return 0, err
	}
	q, f, err := getQueue(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if !f.Writable() {
		return 0, unix.EBADF
	}
	if n := a[2].Uint64(); n > uint64(q.Attr().MsgSize) {
		return 0, unix.EMSGSIZE
	}
	text := make([]byte, a[2].Uint64())
	if _, err := t.MM().CopyIn(a[1].Pointer(), text); err != nil {
		return 0, err
	}
	return 0, q.Send(t, text, a[3].Uint(), f.Nonblocking(), deadline)
}

func mqTimedreceive(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	deadline, err := realDeadline(t, a[4].Pointer())
	if err != nil {
		return 0, err
	}
	q, f, err := getQueue(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if !f.Readable() {
		return 0, unix.EBADF
	}
	text, prio, err := q.Receive(t, a[2].Uint64(), f.Nonblocking(), deadline)
	if err != nil {
		return 0, err
	}
	if p := a[3].Pointer(); p != 0 {
		if err := t.MM().WriteUint32(p, prio); err != nil {
			return 0, err
		}
	}
	n, err := t.MM().CopyOut(a[1].Pointer(), text)
	return uintptr(n), err
}

func mqNotify(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	var b [16]byte // sigev_value, sigev_signo, sigev_notify
	if p := a[1].Pointer(); p != 0 {
		if _, err := t.MM().CopyIn(p, b[:]); err != nil {
			return 0, err
		}
	}
	value, sig := binary.LittleEndian.Uint64(b[:]), linux.Signal(binary.LittleEndian.Uint32(b[8:]))
	const sigevSignal, sigevNone = 0, 1
	if a[1].Pointer() != 0 {
		switch binary.LittleEndian.Uint32(b[12:]) {
		case sigevSignal:
			if !sig.Valid() {
				return 0, unix.EINVAL
			}
		case sigevNone:
			sig = 0
		default:
			return 0, unix.EINVAL
		}
	}
	q, f, err := getQueue(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if a[1].Pointer() == 0 {
		q.CancelNotify(t)
		return 0, nil
	}
	return 0, q.Notify(t, sig, value)
}

func mqGetsetattr(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	q, f, err := getQueue(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	old := q.Attr()
	m := mqAttr{Flags: int64(f.Flags() & unix.O_NONBLOCK), MaxMsg: old.MaxMsg, MsgSize: old.MsgSize, CurMsgs: old.CurMsgs}
	if p := a[1].Pointer(); p != 0 {
		set, err := mm.Read[mqAttr](t.MM(), p)
		if err != nil {
			return 0, err
		}
		if set.Flags&^unix.O_NONBLOCK != 0 {
			return 0, unix.EINVAL
		}
		if err := f.SetStatusFlags(t, f.Flags()&vfs.SetFlagMask&^unix.O_NONBLOCK|uint32(set.Flags)); err != nil {
			return 0, err
		}
	}
	if p := a[2].Pointer(); p != 0 {
		return 0, mm.Write(t.MM(), p, &m)
	}
	return 0, nil
}
