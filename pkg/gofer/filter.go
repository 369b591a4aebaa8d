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
	rules := runtimeRules()
	for _, nr := range [...]uint32{
		unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_SHUTDOWN,
		unix.SYS_OPENAT2, unix.SYS_OPENAT, unix.SYS_STATX, unix.SYS_FSTATFS, unix.SYS_READLINKAT, unix.SYS_GETDENTS64,
		unix.SYS_FCHOWNAT, unix.SYS_FCHMODAT, unix.SYS_UTIMENSAT, unix.SYS_FTRUNCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC,
		unix.SYS_MKDIRAT, unix.SYS_SYMLINKAT, unix.SYS_LINKAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT,
		unix.SYS_GETXATTRAT, unix.SYS_SETXATTRAT, unix.SYS_LISTXATTRAT, unix.SYS_REMOVEXATTRAT,
		unix.SYS_FGETXATTR, unix.SYS_FSETXATTR, unix.SYS_FLISTXATTR, unix.SYS_FREMOVEXATTR,
		unix.SYS_GETEUID, unix.SYS_GETEGID,
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

// runtimeRules are the calls of the Go runtime: memory, threads, scheduling, timers, its network poller.
func runtimeRules() []seccomp.Rule {
	is := func(arg uint8, v uint32) []seccomp.Cond { return []seccomp.Cond{seccomp.Equal32(arg, v)} }
	without := func(arg uint8, bits uint64) []seccomp.Cond { return []seccomp.Cond{seccomp.MaskedEqual(arg, bits, 0)} }
	// What newosproc of the runtime asks for; no process and no namespace.
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD
	pid := uint32(unix.Getpid())
	rules := []seccomp.Rule{
		{NR: unix.SYS_CLONE, When: []seccomp.Cond{seccomp.MaskedEqual(0, 0xffffffff, thread)}},
		{NR: unix.SYS_MMAP, When: without(2, unix.PROT_EXEC)},
		{NR: unix.SYS_MPROTECT, When: without(2, unix.PROT_EXEC)},
		{NR: unix.SYS_TGKILL, When: is(0, pid)},
		{NR: unix.SYS_FCNTL, When: is(1, unix.F_DUPFD_CLOEXEC)},
		{NR: unix.SYS_FCNTL, When: is(1, unix.F_GETFL)},
		{NR: unix.SYS_FCNTL, When: is(1, unix.F_SETFL)},
		{NR: unix.SYS_PRCTL, When: is(0, unix.PR_SET_VMA)}, // names of the runtime's memory
		{NR: unix.SYS_PRLIMIT64, When: []seccomp.Cond{seccomp.Equal(2, 0)}},
	}
	for _, nr := range [...]uint32{
		unix.SYS_FUTEX, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_BRK,
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_PIPE2, unix.SYS_EVENTFD2,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT,
		unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_GETTIME,
		unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_SIGALTSTACK, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN,
		unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE, unix.SYS_SETITIMER,
		unix.SYS_RESTART_SYSCALL, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_GETRANDOM, unix.SYS_MINCORE,
	} {
		rules = append(rules, seccomp.Rule{NR: nr})
	}
	return rules
}
