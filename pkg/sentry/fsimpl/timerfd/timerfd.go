package timerfd

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/uio"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Setting is struct itimerspec in nanoseconds.
type Setting struct {
	Interval, Value int64
}

// File is a timer with a file descriptor.
type File struct {
	queue  waiter.Queue
	timers *clock.Timers // immutable
	clock  int32         // immutable: CLOCK_REALTIME, CLOCK_MONOTONIC or CLOCK_BOOTTIME

	mu       sync.Mutex
	next     int64  // protected by mu, as is what follows: next expiry in ns of clock; 0: disarmed
	interval int64  // ns; 0: one expiry
	ticks    uint64 // expiries that nobody has read
	flags    int    // of the last Set
	armed    bool   // timer will fire
	timer    clock.Timer
}

// New makes the open file of a timer with one reference. The clock has been checked; alarm clocks are the clocks behind them.
func New(v *vfs.VFS, timers *clock.Timers, clk int32, flags int) *vfs.FileDescription {
	f := &File{timers: timers, clock: clk}
	f.timer.F = f.fired
	return v.NewAnonFile("anon_inode:[timerfd]", f, unix.O_RDWR|uint32(flags)&unix.O_NONBLOCK)
}

// Release implements vfs.FileImpl.
func (f *File) Release() {
	f.mu.Lock()
	f.next = 0
	f.timers.Stop(&f.timer)
	f.mu.Unlock()
}

// Set arms or (Value 0) disarms the timer and returns the old setting (timerfd_settime(2)). flags may have TFD_TIMER_ABSTIME.
func (f *File) Set(s Setting, flags int) Setting {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := clock.Now(f.clock)
	f.advance(now)
	old := f.left(now)
	f.ticks, f.flags, f.interval, f.next, f.armed = 0, flags, s.Interval, 0, false
	f.timers.Stop(&f.timer)
	if s.Value != 0 {
		f.next = s.Value
		if flags&unix.TFD_TIMER_ABSTIME == 0 {
			if f.next += now; f.next < 0 {
				f.next = 1<<63 - 1
			}
		}
		f.advance(now)
		f.arm(now)
	}
	return old
}

// Get is timerfd_gettime(2).
func (f *File) Get() Setting {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := clock.Now(f.clock)
	f.advance(now)
	return f.left(now)
}

func (f *File) left(now int64) Setting {
	s := Setting{Interval: f.interval}
	if f.next != 0 {
		s.Value = max(f.next-now, 1)
	}
	return s
}

// advance counts the expiries up to now; mu is held.
func (f *File) advance(now int64) {
	if f.next == 0 || now < f.next {
		return
	}
	n := int64(1)
	if f.interval > 0 {
		past := (now - f.next) / f.interval
		n += past
		if f.next += past * f.interval; f.next > math.MaxInt64-f.interval {
			f.next = math.MaxInt64
		} else {
			f.next += f.interval
		}
	} else {
		f.next = 0
	}
	f.ticks += uint64(n)
	f.queue.Notify(waiter.ReadableEvents)
}

// longest is the most that a timer waits at once: CLOCK_REALTIME may be set meanwhile.
const longest = int64(time.Hour)

// arm starts the timer for the next expiry; mu is held.
func (f *File) arm(now int64) {
	if f.next == 0 || f.ticks != 0 || f.armed {
		return
	}
	f.armed = true
	f.timers.Set(&f.timer, clock.Monotonic()+min(f.next-now, longest))
}

// fired runs on the goroutine of timers, perhaps late, when there is another setting.
func (f *File) fired() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = false
	now := clock.Now(f.clock)
	f.advance(now)
	f.arm(now)
}

// ReadStream implements vfs.StreamReader.
func (f *File) ReadStream(_ vfs.Context, dst mm.IOSeq) (int64, error) {
	if dst.NumBytes() < 8 {
		return 0, unix.EINVAL
	}
	f.mu.Lock()
	now := clock.Now(f.clock)
	f.advance(now)
	v := f.ticks
	f.ticks = 0
	f.arm(now)
	f.mu.Unlock()
	if v == 0 {
		return 0, unix.EAGAIN
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	n, err := dst.CopyOut(b[:])
	return int64(n), err
}

// Seek implements vfs.Seeker: it succeeds without effect, as on Linux.
func (f *File) Seek(vfs.Context, int64, int32, int64) (int64, error) { return 0, nil }

// Readiness implements waiter.Waitable.
func (f *File) Readiness(mask waiter.EventMask) waiter.EventMask {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ticks == 0 {
		return 0
	}
	return waiter.ReadableEvents & mask
}

// EventRegister implements waiter.Waitable.
func (f *File) EventRegister(e *waiter.Entry) { f.queue.EventRegister(e) }

// EventUnregister implements waiter.Waitable.
func (f *File) EventUnregister(e *waiter.Entry) { f.queue.EventUnregister(e) }

// setTicks is TFD_IOC_SET_TICKS.
const setTicks = 0x40085400

// Ioctl implements vfs.Ioctler.
func (f *File) Ioctl(ctx vfs.Context, _ *vfs.FileDescription, cmd uint32, arg uint64) (uintptr, error) {
	if cmd != setTicks {
		return 0, linux.ENOIOCTLCMD
	}
	v, err := uio.GetUint64(ctx, arg)
	if err != nil {
		return 0, err
	}
	if v == 0 {
		return 0, unix.EINVAL
	}
	f.mu.Lock()
	f.ticks = v
	f.queue.Notify(waiter.ReadableEvents)
	f.mu.Unlock()
	return 0, nil
}

// FDInfo implements vfs.FDInfoWriter.
func (f *File) FDInfo() string {
	s := f.Get()
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprintf("clockid: %d\nticks: %d\nsettime flags: 0%o\nit_value: (%d, %d)\nit_interval: (%d, %d)\n",
		f.clock, f.ticks, f.flags, s.Value/1e9, s.Value%1e9, s.Interval/1e9, s.Interval%1e9)
}
