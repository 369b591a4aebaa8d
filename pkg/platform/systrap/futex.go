package systrap

import (
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

// futexWake wakes one sleeper. It does not sleep itself, so the scheduler need not know.
func futexWake(addr *uint32) {
	unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), futexWakeOp, 1, 0, 0, 0)
}

// schedYield lets another thread of this processor run.
func schedYield() { unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
