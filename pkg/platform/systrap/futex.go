package systrap

import (
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	futexWaitOp = 0 // FUTEX_WAIT, between processes
	futexWakeOp = 1
)

// futexWait sleeps while *addr is val, at most for d; ok is false if the time is over.
func futexWait(addr *uint32, val uint32, d *unix.Timespec) (ok bool) {
	_, _, e := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), futexWaitOp, uintptr(val), uintptr(unsafe.Pointer(d)), 0, 0)
	return e != unix.ETIMEDOUT
}

// futexWake wakes all sleepers: hostile threads may sleep on the word, too, and would take the wake-up of the one that is
// meant. It does not sleep itself, so the scheduler need not know. It tells how many there were.
func futexWake(addr *uint32) (woken int) {
	n, _, _ := unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), futexWakeOp, math.MaxInt32, 0, 0, 0)
	return int(n)
}

// schedYield lets another thread of this processor run.
func schedYield() { unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
