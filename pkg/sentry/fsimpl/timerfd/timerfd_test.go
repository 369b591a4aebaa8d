package timerfd

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

func TestTimer(t *testing.T) {
	v := vfs.New(0)
	ctx := vfs.NewKernelContext(auth.NewRootCredentials(auth.NewRootUserNamespace()), nil, nil)
	for _, clk := range []int32{unix.CLOCK_MONOTONIC, unix.CLOCK_REALTIME, unix.CLOCK_BOOTTIME} {
		f := New(v, newTimers(t), clk, 0)
		x := f.Impl().(*File)
		b := make([]byte, 8)
		x.Set(Setting{Value: clock.Now(clk) + 10e6}, unix.TFD_TIMER_ABSTIME)
		start := time.Now()
		if n, err := f.Read(ctx, mm.BytesSeq(b)); n != 8 || err != nil || b[0] != 1 {
			t.Fatal(n, err, b)
		}
		if d := time.Since(start); d < 5*time.Millisecond {
			t.Fatal(clk, d)
		}
		if s := x.Get(); s != (Setting{}) {
			t.Fatal(s)
		}
		// A time in the past has expired already, each interval counted.
		x.Set(Setting{Value: clock.Now(clk) - 100e6, Interval: 10e6}, unix.TFD_TIMER_ABSTIME)
		if n, err := f.Read(ctx, mm.BytesSeq(b)); n != 8 || err != nil || b[0] < 10 {
			t.Fatal(n, err, b)
		}
		old := x.Set(Setting{}, 0)
		if old.Interval != 10e6 || old.Value <= 0 || old.Value > 10e6 {
			t.Fatal(old)
		}
		x.Set(Setting{Value: 1<<63 - 1}, 0)
		if s := x.Get(); s.Value <= 0 {
			t.Fatal(s)
		}
		f.DecRef()
	}
}

// TestUnread: a timer that has expired costs nothing until somebody reads it, however short its interval is.
func TestUnread(t *testing.T) {
	v := vfs.New(0)
	ctx := vfs.NewKernelContext(auth.NewRootCredentials(auth.NewRootUserNamespace()), nil, nil)
	f := New(v, newTimers(t), unix.CLOCK_MONOTONIC, 0)
	defer f.DecRef()
	x := f.Impl().(*File)
	x.Set(Setting{Value: 1e6, Interval: 1}, 0)
	b := make([]byte, 8)
	for range 3 {
		ticks := func() uint64 {
			x.mu.Lock()
			defer x.mu.Unlock()
			return x.ticks
		}
		for ticks() == 0 {
			time.Sleep(time.Millisecond)
		}
		n := ticks()
		time.Sleep(2 * time.Millisecond)
		if ticks() != n {
			t.Fatalf("%d ticks, then %d without a read", n, ticks())
		}
		if k, err := f.Read(ctx, mm.BytesSeq(b)); k != 8 || err != nil {
			t.Fatal(k, err)
		}
		if got := binary.LittleEndian.Uint64(b); got < n+2e6 {
			t.Fatalf("%d ticks read after %d and 2 ms", got, n)
		}
	}
}

// TestLongInterval: behind the end of time there is no further expiry.
func TestLongInterval(t *testing.T) {
	f := New(vfs.New(0), newTimers(t), unix.CLOCK_MONOTONIC, 0)
	defer f.DecRef()
	x := f.Impl().(*File)
	x.Set(Setting{Value: 1e6, Interval: 9223372036e9}, 0)
	time.Sleep(10 * time.Millisecond)
	for range 3 {
		x.Get()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ticks != 1 {
		t.Errorf("%d expiries", x.ticks)
	}
}

func newTimers(t *testing.T) *clock.Timers {
	s, err := clock.NewTimers()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
