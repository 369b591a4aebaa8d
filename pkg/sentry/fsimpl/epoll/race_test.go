package epoll

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/fsimpl/eventfd"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/socket"
	usock "husk/pkg/sentry/socket/unix"
	"husk/pkg/sentry/vfs"
)

// Registration, events, waits and closes at once: nothing is lost and nothing deadlocks.
func TestConcurrent(t *testing.T) {
	v, ctx := setup()
	var n Nesting
	outer := New(v, &n)
	inner := New(v, &n)
	op, ip := outer.Impl().(*Instance), inner.Impl().(*Instance)
	if err := op.Add(inner, 1, Event{unix.EPOLLIN, 1}); err != nil {
		t.Fatal(err)
	}
	fam := usock.NewFamily()
	stop := time.Now().Add(500 * time.Millisecond)
	if testing.Short() {
		stop = time.Now().Add(150 * time.Millisecond)
	}
	var wg sync.WaitGroup
	worker := func(f func(ctx vfs.Context, i int32)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := vfs.NewKernelContext(auth.NewRootCredentials(ctx.Credentials().UserNS), nil, nil)
			for i := int32(0); time.Now().Before(stop); i++ {
				f(c, i)
			}
		}()
	}
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	for w := range 3 {
		worker(func(c vfs.Context, i int32) {
			e := eventfd.New(v, 0, unix.EFD_NONBLOCK)
			fd := i*8 + int32(w)
			ip.Add(e, fd, Event{unix.EPOLLIN | flagET, uint64(fd)})
			op.Add(e, fd, Event{unix.EPOLLIN, uint64(fd)})
			e.Write(c, mm.BytesSeq(one))
			ip.Modify(e, fd, Event{unix.EPOLLIN | flagOneShot, 0})
			if i&1 == 0 {
				op.Remove(e, fd)
			}
			e.DecRef()
		})
	}
	worker(func(c vfs.Context, i int32) {
		a, b, _ := fam.Pair(nil, unix.SOCK_STREAM, 0)
		fa, fb := socket.NewFile(c, v, a, 0), socket.NewFile(c, v, b, 0)
		ip.Add(fa, -2, Event{unix.EPOLLIN | unix.EPOLLOUT, 0})
		fb.Write(c, mm.BytesSeq(one))
		fb.DecRef()
		fa.DecRef()
	})
	for range 2 {
		worker(func(c vfs.Context, i int32) {
			out := make([]Event, 4)
			op.Wait(c, out, clock.Monotonic()+2e6)
			ip.Wait(c, out, clock.Monotonic()+2e6)
		})
	}
	wg.Wait()
	if len(ip.items) != 0 || len(ip.files) != 0 || len(op.items) != 1 {
		t.Fatal("left over:", len(ip.items), len(ip.files), len(op.items))
	}
	inner.DecRef()
	if len(op.items) != 0 {
		t.Fatal("the closed inner instance is still registered")
	}
}
