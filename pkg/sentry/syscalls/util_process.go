package syscalls

import (
	"unsafe"

	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

// bytesOf is the memory of a structure of fixed layout.
func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

// timevalOf turns nanoseconds into struct timeval.
func timevalOf(ns int64) unix.Timeval { return unix.Timeval{Sec: ns / 1e9, Usec: ns % 1e9 / 1000} }

// timespecOf turns nanoseconds into struct timespec.
func timespecOf(ns int64) unix.Timespec { return unix.Timespec{Sec: ns / 1e9, Nsec: ns % 1e9} }

// writeRusage stores struct rusage at addr unless it is 0.
func writeRusage(t *kernel.Task, addr uint64, u *kernel.Rusage) error {
	if addr == 0 {
		return nil
	}
	r := unix.Rusage{
		Utime: timevalOf(u.UTime), Stime: timevalOf(u.STime), Maxrss: u.MaxRSS / 1024,
		Minflt: u.MinFlt, Majflt: u.MajFlt, Nvcsw: u.NVCSw, Nivcsw: u.NIvCSw,
	}
	return mm.Write(t.MM(), addr, &r)
}

// readTimespec reads struct timespec as nanoseconds, saturating. EFAULT, EINVAL.
func readTimespec(t *kernel.Task, addr uint64) (int64, error) {
	ts, err := mm.Read[unix.Timespec](t.MM(), addr)
	if err != nil {
		return 0, err
	}
	return nsOf(ts.Sec, ts.Nsec)
}

// nsOf is the duration or time of a valid timespec in nanoseconds, saturating. EINVAL.
func nsOf(sec, nsec int64) (int64, error) {
	if sec < 0 || nsec < 0 || nsec >= 1e9 {
		return 0, unix.EINVAL
	}
	const maxSec = (1<<63 - 3) / int64(1e9)
	if sec >= maxSec {
		return maxSec * 1e9, nil
	}
	return sec*1e9 + nsec, nil
}

// readTimeval reads struct timeval as nanoseconds. EFAULT, EINVAL.
func readTimeval(t *kernel.Task, addr uint64) (int64, error) {
	tv, err := mm.Read[unix.Timeval](t.MM(), addr)
	if err != nil {
		return 0, err
	}
	if tv.Usec < 0 || tv.Usec >= 1e6 {
		return 0, unix.EINVAL
	}
	return nsOf(tv.Sec, tv.Usec*1000)
}
