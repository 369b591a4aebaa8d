package timerfd

import (
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
		f := New(v, clk, 0)
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
