package epoll

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/fsimpl/eventfd"
	"husk/pkg/sentry/fsimpl/pipefs"
	"husk/pkg/sentry/fsimpl/timerfd"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

func setup() (*vfs.VFS, vfs.Context) {
	return vfs.New(0), vfs.NewKernelContext(auth.NewRootCredentials(auth.NewRootUserNamespace()), nil, nil)
}

func collect(ep *Instance) []Event {
	out := make([]Event, 10)
	return out[:ep.Collect(out)]
}

func TestModes(t *testing.T) {
	v, ctx := setup()
	r, w := pipefs.NewPipe(ctx, v, 0)
	defer w.DecRef()
	var n Nesting
	level, edge, once := NewInstance(&n), NewInstance(&n), NewInstance(&n)
	for ep, flag := range map[*Instance]uint32{level: 0, edge: flagET, once: flagOneShot} {
		if err := ep.Add(r, 3, Event{unix.EPOLLIN | flag, 42}); err != nil {
			t.Fatal(err)
		}
		if ep.Add(r, 3, Event{}) != unix.EEXIST {
			t.Fatal("added twice")
		}
		if got := collect(ep); len(got) != 0 {
			t.Fatal(got)
		}
	}
	write := func() { w.Write(ctx, mm.BytesSeq([]byte("x"))) }
	check := func(what string, l, e, o int) {
		t.Helper()
		if a, b, c := len(collect(level)), len(collect(edge)), len(collect(once)); a != l || b != e || c != o {
			t.Fatalf("%s: level %d edge %d oneshot %d", what, a, b, c)
		}
	}
	write()
	check("first", 1, 1, 1)
	check("again", 1, 0, 0)
	write()
	check("second write", 1, 1, 0)
	if err := once.Modify(r, 3, Event{unix.EPOLLIN | flagOneShot, 1}); err != nil {
		t.Fatal(err)
	}
	check("rearmed", 1, 0, 1)
	r.Read(ctx, mm.BytesSeq(make([]byte, 10)))
	check("drained", 0, 0, 0)
	if err := level.Remove(r, 3); err != nil {
		t.Fatal(err)
	}
	if level.Remove(r, 3) != unix.ENOENT {
		t.Fatal("removed twice")
	}
	r.DecRef()
	if len(edge.items) != 0 || len(edge.files) != 0 {
		t.Fatal("a closed file stays registered")
	}
}

func TestNesting(t *testing.T) {
	v, ctx := setup()
	var n Nesting
	ep := make([]*vfs.FileDescription, 7)
	for i := range ep {
		ep[i] = New(v, &n)
	}
	inst := func(i int) *Instance { return ep[i].Impl().(*Instance) }
	if err := inst(0).Add(ep[0], 0, Event{}); err != unix.EINVAL {
		t.Fatal(err)
	}
	for i := 0; i < 4; i++ {
		if err := inst(i).Add(ep[i+1], int32(i), Event{Events: unix.EPOLLIN}); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := inst(4).Add(ep[0], 0, Event{}); err != unix.ELOOP {
		t.Fatal("loop:", err)
	}
	if err := inst(4).Add(ep[5], 5, Event{}); err != unix.ELOOP {
		t.Fatal("depth:", err)
	}
	e := eventfd.New(v, 0, 0)
	if err := inst(4).Add(e, 9, Event{unix.EPOLLIN, 7}); err != nil {
		t.Fatal(err)
	}
	if len(collect(inst(0))) != 0 {
		t.Fatal("ready too early")
	}
	e.Write(ctx, mm.BytesSeq([]byte{1, 0, 0, 0, 0, 0, 0, 0}))
	if got := collect(inst(0)); len(got) != 1 || got[0].Events != unix.EPOLLIN {
		t.Fatal(got)
	}
	e.Read(ctx, mm.BytesSeq(make([]byte, 8)))
	if len(collect(inst(0))) != 0 {
		t.Fatal("still ready")
	}
}

func TestWaitAndTimer(t *testing.T) {
	v, ctx := setup()
	var n Nesting
	ep := NewInstance(&n)
	timers, err := clock.NewTimers()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(timers.Close)
	f := timerfd.New(v, timers, unix.CLOCK_MONOTONIC, 0)
	ep.Add(f, 1, Event{unix.EPOLLIN, 5})
	out := make([]Event, 4)
	if k, err := ep.Wait(ctx, out, clock.Monotonic()+5e6); k != 0 || err != nil {
		t.Fatal(k, err)
	}
	tf := f.Impl().(*timerfd.File)
	start := time.Now()
	tf.Set(timerfd.Setting{Value: 3e6, Interval: 3e6}, 0)
	if k, err := ep.Wait(ctx, out, vfs.NoDeadline); k != 1 || err != nil || out[0].Data != 5 {
		t.Fatal(k, err)
	}
	if d := time.Since(start); d < 2*time.Millisecond {
		t.Fatal(d)
	}
	time.Sleep(10 * time.Millisecond)
	b := make([]byte, 8)
	if k, err := f.Read(ctx, mm.BytesSeq(b)); k != 8 || err != nil || b[0] < 3 {
		t.Fatal(k, err, b)
	}
}

func TestAllocs(t *testing.T) {
	v, ctx := setup()
	var n Nesting
	ep := NewInstance(&n)
	e := eventfd.New(v, 0, 0)
	ep.Add(e, 1, Event{unix.EPOLLIN, 5})
	out := make([]Event, 4)
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	buf := make([]byte, 8)
	if k := testing.AllocsPerRun(100, func() {
		ep.Wait(ctx, out, 0)
		e.Write(ctx, mm.BytesSeq(one))
		if k, _ := ep.Wait(ctx, out, vfs.NoDeadline); k != 1 {
			t.Fatal(k)
		}
		e.Read(ctx, mm.BytesSeq(buf))
	}); k != 0 {
		t.Fatalf("%v allocations", k)
	}
}
