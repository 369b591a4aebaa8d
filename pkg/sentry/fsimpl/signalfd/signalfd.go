package signalfd

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// infoSize is sizeof(struct signalfd_siginfo).
const infoSize = 128

// File is a signalfd. A read takes the signals of the reading task; for poll(2) and epoll(7), which do not say who asks,
// it is the task that last created, read, polled or registered the file.
type File struct {
	mask atomic.Uint64 // linux.SignalSet
	who  atomic.Pointer[kernel.Task]

	mu      sync.Mutex
	entries map[*waiter.Entry]*kernel.ThreadGroup // protected by mu: where entries are registered
}

// New makes the open file with one reference. flags may have SFD_NONBLOCK.
func New(t *kernel.Task, mask linux.SignalSet, flags int) *vfs.FileDescription {
	f := &File{}
	f.SetMask(mask)
	f.who.Store(t)
	return t.Kernel().VFS().NewAnonFile("anon_inode:[signalfd]", f, unix.O_RDWR|uint32(flags)&unix.O_NONBLOCK)
}

// SetMask changes the set of signals.
func (f *File) SetMask(m linux.SignalSet) { f.mask.Store(uint64(m &^ linux.UnblockableSignals)) }

// Release implements vfs.FileImpl.
func (f *File) Release() {}

// SetPoller tells who is about to poll or register the file.
func (f *File) SetPoller(t *kernel.Task) {
	if f.who.Load() != t {
		f.who.Store(t)
	}
}

// ReadStream implements vfs.StreamReader.
func (f *File) ReadStream(ctx vfs.Context, dst mm.IOSeq) (int64, error) {
	if dst.NumBytes() < infoSize {
		return 0, unix.EINVAL
	}
	t, ok := ctx.(*kernel.Task)
	if !ok {
		return 0, unix.EINVAL
	}
	f.SetPoller(t)
	var done int64
	var info linux.SignalInfo
	for dst.NumBytes()-done >= infoSize {
		info = linux.SignalInfo{}
		if !t.DequeueSignal(linux.SignalSet(f.mask.Load()), &info) {
			break
		}
		var b [infoSize]byte
		encode(&info, b[:])
		n, err := dst.DropFirst(done).CopyOut(b[:])
		if err != nil {
			if done == 0 {
				return int64(n), err
			}
			break
		}
		done += infoSize
	}
	if done == 0 {
		return 0, unix.EAGAIN
	}
	return done, nil
}

// encode writes i as struct signalfd_siginfo.
func encode(i *linux.SignalInfo, b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b, uint32(i.Signo))
	le.PutUint32(b[4:], uint32(i.Errno))
	le.PutUint32(b[8:], uint32(i.Code))
	u := func(w int) (lo, hi uint32) { return uint32(i.Union[w]), uint32(i.Union[w] >> 32) }
	first, second := u(0)
	switch {
	case i.Code == linux.SI_TIMER:
		le.PutUint32(b[24:], first)              // ssi_tid
		le.PutUint32(b[32:], second)             // ssi_overrun
		le.PutUint32(b[44:], uint32(i.Union[1])) // ssi_int
		le.PutUint64(b[48:], i.Union[1])         // ssi_ptr
	case i.Code <= 0: // kill, sigqueue, tgkill
		le.PutUint32(b[12:], first)
		le.PutUint32(b[16:], second)
		le.PutUint32(b[44:], uint32(i.Union[1]))
		le.PutUint64(b[48:], i.Union[1])
	case i.Signo == int32(unix.SIGCHLD):
		le.PutUint32(b[12:], first)
		le.PutUint32(b[16:], second)
		status, _ := u(1)
		le.PutUint32(b[40:], status)
		le.PutUint64(b[56:], i.Union[2]) // ssi_utime
		le.PutUint64(b[64:], i.Union[3]) // ssi_stime
	case i.Signo == int32(unix.SIGIO):
		le.PutUint32(b[28:], first) // ssi_band
		fd, _ := u(1)
		le.PutUint32(b[20:], fd)
	case i.Signo == int32(unix.SIGSEGV), i.Signo == int32(unix.SIGBUS), i.Signo == int32(unix.SIGILL),
		i.Signo == int32(unix.SIGFPE), i.Signo == int32(unix.SIGTRAP):
		le.PutUint64(b[72:], i.Union[0]) // ssi_addr
	default:
		le.PutUint32(b[12:], first)
		le.PutUint32(b[16:], second)
	}
}

// Seek implements vfs.Seeker: it succeeds without effect, as on Linux.
func (f *File) Seek(vfs.Context, int64, int32, int64) (int64, error) { return 0, nil }

// Readiness implements waiter.Waitable.
func (f *File) Readiness(mask waiter.EventMask) waiter.EventMask {
	t := f.who.Load()
	if t == nil {
		return 0
	}
	own, shared := t.PendingSets()
	if uint64(own|shared)&f.mask.Load() == 0 {
		return 0
	}
	return waiter.ReadableEvents & mask
}

// EventRegister implements waiter.Waitable.
func (f *File) EventRegister(e *waiter.Entry) {
	t := f.who.Load()
	f.mu.Lock()
	if f.entries == nil {
		f.entries = make(map[*waiter.Entry]*kernel.ThreadGroup)
	}
	f.entries[e] = t.Group()
	f.mu.Unlock()
	t.Group().RegisterSignalfd(e)
}

// EventUnregister implements waiter.Waitable.
func (f *File) EventUnregister(e *waiter.Entry) {
	f.mu.Lock()
	tg := f.entries[e]
	delete(f.entries, e)
	f.mu.Unlock()
	if tg != nil {
		tg.UnregisterSignalfd(e)
	}
}

// FDInfo implements vfs.FDInfoWriter.
func (f *File) FDInfo() string { return fmt.Sprintf("sigmask:\t%016x\n", f.mask.Load()) }
