package kernel

import "husk/pkg/arch"

// MaxSyscall bounds system call numbers: numbers from here on are unknown.
const MaxSyscall = 512

// SyscallFn serves a system call. The error is a unix.Errno value (linux.ERESTART* included); the result is
// ignored when it is not nil. Arguments are hostile.
type SyscallFn func(t *Task, a arch.SyscallArgs) (uintptr, error)

// SyscallTable maps numbers to handlers; nil entries are unknown calls (ENOSYS).
type SyscallTable struct {
	Fn [MaxSyscall]SyscallFn
	// Name is for messages only.
	Name func(nr uint64) string
}

// UnknownSyscalls calls fn for every number that was called without a handler.
func (k *Kernel) UnknownSyscalls(fn func(nr int, calls uint32)) {
	for nr := range k.unknown {
		if n := k.unknown[nr].Load(); n != 0 {
			fn(nr, n)
		}
	}
}

// unknownSyscall counts a call of an unknown number and logs the first.
func (k *Kernel) unknownSyscall(nr uint64) {
	i := nr
	if i > MaxSyscall {
		i = MaxSyscall
	}
	if k.unknown[i].Add(1) == 1 {
		name := ""
		if k.table.Name != nil {
			name = k.table.Name(nr)
		}
		k.Logf("unsupported system call %d %s", nr, name)
	}
}
