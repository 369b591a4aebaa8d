package ptrace

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// cpuSet is an affinity mask; the kernel knows up to 8192 processors.
type cpuSet [128]uint64

// currentCPU is the processor that the calling thread is on.
func currentCPU() int32

// bind restricts a thread to one processor. It may fail where the thread died, which others will notice.
//
// Threads that run application code are not bound: the host's scheduler keeps a thread that is woken by
// ptrace(2) on the processor of its waker, and a round trip was as fast as with both bound to one.
func bind(tid int, cpu int32) {
	var set cpuSet
	set[cpu>>6] = 1 << (cpu & 63)
	unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, uintptr(tid), unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set)))
}

// unbind lets a thread run on all processors that its cpuset allows.
func unbind(tid int) {
	var set cpuSet
	for i := range set {
		set[i] = ^uint64(0)
	}
	unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, uintptr(tid), unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set)))
}
