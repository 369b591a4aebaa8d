package syscalls

import (
	"encoding/binary"
	"sync"

	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/fsimpl/epoll"
	"husk/pkg/sentry/fsimpl/inotify"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

// shared is what the handlers of one kernel share: memory for reuse, so that calls allocate nothing, and the
// registries of files that have no other home.
type shared struct {
	polls    sync.Pool // *pollState
	events   sync.Pool // *epollBuffer
	messages sync.Pool // *messageState
	nesting  epoll.Nesting
	inotify  inotify.Users
}

type sharedKey struct{}

func sharedOf(t *kernel.Task) *shared {
	return t.Kernel().ValueOr(sharedKey{}, func() any { return &shared{} }).(*shared)
}

// getFile is the file of descriptor fd, with a reference; EBADF.
func getFile(t *kernel.Task, fd int32) (*vfs.FileDescription, error) {
	f := t.FDTable().Get(fd)
	if f == nil {
		return nil, unix.EBADF
	}
	return f, nil
}

// installFile enters f, whose reference passes on, at the lowest free descriptor.
func installFile(t *kernel.Task, f *vfs.FileDescription, cloexec bool) (uintptr, error) {
	fd, err := t.FDTable().Install(t, f, 0, cloexec)
	f.DecRef()
	if err != nil {
		return 0, err
	}
	return uintptr(fd), nil
}

// storeTimespec stores ns as a struct timespec.
func storeTimespec(t *kernel.Task, addr uint64, ns int64) error {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(ns/1e9))
	binary.LittleEndian.PutUint64(b[8:], uint64(ns%1e9))
	_, err := t.MM().CopyOut(addr, b[:])
	return err
}

// deadlineAfter is the CLOCK_MONOTONIC deadline ns from now; 0 if ns is 0 (do not wait).
func deadlineAfter(ns int64) int64 {
	if ns == 0 {
		return 0
	}
	now := clock.Monotonic()
	if ns >= vfs.NoDeadline-now {
		return vfs.NoDeadline
	}
	return now + ns
}

// remaining is the time left until a deadline of deadlineAfter.
func remaining(deadline int64) int64 {
	if deadline == 0 || deadline == vfs.NoDeadline {
		return 0
	}
	return max(deadline-clock.Monotonic(), 0)
}

// retryBlocked registers the task with w and calls op until it gives something else than unix.EAGAIN. An interruption gives what
// vfs.BlockError makes of it.
func retryBlocked(t *kernel.Task, w waiter.Waitable, mask waiter.EventMask, deadline int64, op func() error) error {
	s := t.Waker()
	sh := sharedOf(t)
	p := sh.pollState()
	defer sh.putPollState(p)
	e := &p.one
	e.Init(s, mask)
	w.EventRegister(e)
	defer w.EventUnregister(e)
	for {
		if err := op(); err != unix.EAGAIN {
			return err
		}
		if err := t.Block(s.C, deadline); err != nil {
			return vfs.BlockError(err, deadline)
		}
	}
}
