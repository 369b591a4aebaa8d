package linux

import "golang.org/x/sys/unix"

// Errors that the kernel uses inside and that no application sees: how a system call interrupted by a
// signal goes on (signal(7), "Interruption of system calls"). Values as in Linux.
const (
	// ERESTARTSYS: restart if the handler has SA_RESTART, else EINTR.
	ERESTARTSYS = unix.Errno(512)
	// ERESTARTNOINTR: always restart.
	ERESTARTNOINTR = unix.Errno(513)
	// ERESTARTNOHAND: restart only if no handler ran, else EINTR.
	ERESTARTNOHAND = unix.Errno(514)
	// ENOIOCTLCMD: the object does not know this ioctl; becomes ENOTTY.
	ENOIOCTLCMD = unix.Errno(515)
	// ERESTART_RESTARTBLOCK: restart through restart_syscall(2), else EINTR.
	ERESTART_RESTARTBLOCK = unix.Errno(516)
)
