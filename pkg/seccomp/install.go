package seccomp

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Install loads prog into the host kernel with no_new_privs set, which no later exec undoes. flags
// are SECCOMP_FILTER_FLAG_*; a Go program wants TSYNC, so that every thread of the runtime has the
// filter. Later threads and children inherit it. Errors are those of prctl(2) and seccomp(2); a
// thread that TSYNC cannot reach is ESRCH.
//
// Filters are for life: install one per process. The kernel keeps a JIT image of each, and creating
// and freeing them by the thousand has been seen to wedge hosts.
func Install(prog []Insn, flags uintptr) error {
	if err := Check(prog); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	r, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return errno
	}
	if r != 0 && flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
		return unix.ESRCH // the thread that would not synchronise
	}
	return nil
}
