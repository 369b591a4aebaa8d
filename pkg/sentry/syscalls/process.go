package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"

	"golang.org/x/sys/unix"
)

// processEntries are the identities and lives of processes: getpid(2), clone(2), wait(2), exit(2), setpgid(2) and their like.
func processEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_GETPID, Name: "getpid", Handler: getpid},
		{Number: unix.SYS_GETTID, Name: "gettid", Handler: gettid},
		{Number: unix.SYS_GETPPID, Name: "getppid", Handler: getppid},
	}
}

func getpid(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) { return uintptr(t.Group().ID()), nil }

func gettid(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) { return uintptr(t.TID()), nil }

func getppid(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) {
	return uintptr(t.Group().ParentIDIn(t.PIDNS())), nil
}
