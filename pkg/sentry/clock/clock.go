package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now reads clock id (CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, ...) in nanoseconds; an
// unknown clock reads 0.
func Now(id int32) int64 {
	var ts unix.Timespec
	if unix.ClockGettime(id, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// Realtime is CLOCK_REALTIME in nanoseconds since the epoch, read through the vdso: file times need it often.
func Realtime() int64 { return time.Now().UnixNano() }

// Monotonic is CLOCK_MONOTONIC in nanoseconds.
func Monotonic() int64 { return Now(unix.CLOCK_MONOTONIC) }

// base is what Fast counts from.
var base = time.Now()

// Fast is a monotonic clock in nanoseconds from an arbitrary start, read without a system call. It is for
// measuring durations only.
func Fast() int64 { return int64(time.Since(base)) + 1 }
