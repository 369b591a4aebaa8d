package eventfd

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// File is an eventfd.
type File struct {
	queue     waiter.Queue
	semaphore bool // immutable

	mu    sync.Mutex
	value uint64 // protected by mu
}

// New makes the open file of an eventfd with one reference. flags are EFD_SEMAPHORE and EFD_NONBLOCK.
func New(v *vfs.VFS, initial uint32, flags int) *vfs.FileDescription {
	f := &File{value: uint64(initial), semaphore: flags&unix.EFD_SEMAPHORE != 0}
	return v.NewAnonFile("anon_inode:[eventfd]", f, unix.O_RDWR|uint32(flags)&unix.O_NONBLOCK)
}

// Release implements vfs.FileImpl.
func (f *File) Release() {}

// ReadStream implements vfs.StreamReader.
func (f *File) ReadStream(_ vfs.Context, dst mm.IOSeq) (int64, error) {
	if dst.NumBytes() < 8 {
		return 0, unix.EINVAL
	}
	f.mu.Lock()
	v := f.value
	if v == 0 {
		f.mu.Unlock()
		return 0, unix.EAGAIN
	}
	if f.semaphore {
		v = 1
	}
	f.value -= v
	f.mu.Unlock()
	f.queue.Notify(waiter.WritableEvents)
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	n, err := dst.CopyOut(b[:])
	return int64(n), err
}

// WriteStream implements vfs.StreamWriter.
func (f *File) WriteStream(_ vfs.Context, src mm.IOSeq) (int64, error) {
	var b [8]byte
	if src.NumBytes() < 8 {
		return 0, unix.EINVAL
	}
	if _, err := src.CopyIn(b[:]); err != nil {
		return 0, err
	}
	v := binary.LittleEndian.Uint64(b[:])
	if v == math.MaxUint64 {
		return 0, unix.EINVAL
	}
	f.mu.Lock()
	if math.MaxUint64-1-f.value < v {
		f.mu.Unlock()
		return 0, unix.EAGAIN
	}
	f.value += v
	f.mu.Unlock()
	if v != 0 {
		f.queue.Notify(waiter.ReadableEvents)
	}
	return 8, nil
}

// Add adds v to the counter without blocking, as events of the kernel do (aio, cgroup notifications).
func (f *File) Add(v uint64) {
	f.mu.Lock()
	f.value += min(v, math.MaxUint64-f.value)
	f.mu.Unlock()
	f.queue.Notify(waiter.ReadableEvents)
}

// Seek implements vfs.Seeker: it succeeds without effect, as on Linux.
func (f *File) Seek(vfs.Context, int64, int32, int64) (int64, error) { return 0, nil }

// Readiness implements waiter.Waitable.
func (f *File) Readiness(mask waiter.EventMask) waiter.EventMask {
	f.mu.Lock()
	v := f.value
	f.mu.Unlock()
	var m waiter.EventMask
	if v > 0 {
		m |= waiter.ReadableEvents
	}
	if v == math.MaxUint64 {
		m |= waiter.EventErr
	}
	if v < math.MaxUint64-1 {
		m |= waiter.WritableEvents
	}
	return m & mask
}

// EventRegister implements waiter.Waitable.
func (f *File) EventRegister(e *waiter.Entry) { f.queue.EventRegister(e) }

// EventUnregister implements waiter.Waitable.
func (f *File) EventUnregister(e *waiter.Entry) { f.queue.EventUnregister(e) }

// FDInfo implements vfs.FDInfoWriter.
func (f *File) FDInfo() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	sem := 0
	if f.semaphore {
		sem = 1
	}
	return fmt.Sprintf("eventfd-count: %16x\neventfd-id: 0\neventfd-semaphore: %d\n", f.value, sem)
}
