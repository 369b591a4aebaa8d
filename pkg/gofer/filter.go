package gofer

import (
	"husk/pkg/seccomp"

	"golang.org/x/sys/unix"
)

// Filter is the system calls that a process needs which does nothing but Serve on conn, and those
// that the Go runtime makes for it. Everything else kills the process. Arguments are confined where
// that takes something away from an attacker who has taken the process over: it cannot make sockets
// other than AF_UNIX ones, map code, signal others or become another user.
func Filter() *seccomp.Filter {
	is := func(arg uint8, v uint32) []seccomp.Cond { return []seccomp.Cond{seccomp.Equal32(arg, v)} }
	rules := seccomp.GoRuntime()
	for _, nr := range [...]uint32{
		unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_SHUTDOWN,
		unix.SYS_OPENAT2, unix.SYS_OPENAT, unix.SYS_STATX, unix.SYS_FSTATFS, unix.SYS_READLINKAT, unix.SYS_GETDENTS64,
		unix.SYS_FCHOWNAT, unix.SYS_FCHMODAT, unix.SYS_UTIMENSAT, unix.SYS_FTRUNCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC,
		unix.SYS_MKDIRAT, unix.SYS_SYMLINKAT, unix.SYS_LINKAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT,
		unix.SYS_GETXATTRAT, unix.SYS_SETXATTRAT, unix.SYS_LISTXATTRAT, unix.SYS_REMOVEXATTRAT,
		unix.SYS_FGETXATTR, unix.SYS_FSETXATTR, unix.SYS_FLISTXATTR, unix.SYS_FREMOVEXATTR,
		unix.SYS_GETEUID, unix.SYS_GETEGID, unix.SYS_GETRLIMIT,
	} {
		rules = append(rules, seccomp.Rule{NR: nr})
	}
	rules = append(rules,
		// No device but a whiteout: type FIFO, socket or regular, or device number 0.
		seccomp.Rule{NR: unix.SYS_MKNODAT, When: is(3, 0)},
		seccomp.Rule{NR: unix.SYS_SOCKET, When: is(0, unix.AF_UNIX)},
		seccomp.Rule{NR: unix.SYS_CONNECT},
		seccomp.Rule{NR: unix.SYS_UNSHARE, When: is(0, unix.CLONE_FS)},
		seccomp.Rule{NR: unix.SYS_FCHDIR},
	)
	return &seccomp.Filter{
		Rules:   rules,
		Hot:     []uint32{unix.SYS_FUTEX, unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_OPENAT2, unix.SYS_STATX, unix.SYS_CLOSE},
		Default: seccomp.KillProcess,
		BadArch: seccomp.KillProcess,
	}
}
