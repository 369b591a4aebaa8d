package boot

import (
	"golang.org/x/sys/unix"

	"husk/pkg/seccomp"
)

// sandboxFilter is the system calls of the sentry, once its platform and kernel are made. What it
// opens, maps or connects, others have opened for it: there is no call with a path, none that makes
// a process or executable memory, and no socket but for the host's network if that is configured.
//
// Everything else gets SIGSYS: the call does not happen, and the Go runtime ends the process with a
// trace of who made it, which becomes part of the launcher's error.
func sandboxFilter(network uint8, platform string) *seccomp.Filter {
	is := func(arg uint8, v uint32) []seccomp.Cond { return []seccomp.Cond{seccomp.Equal32(arg, v)} }
	rules := seccomp.GoRuntime()
	add := func(calls ...uint32) {
		for _, nr := range calls {
			rules = append(rules, seccomp.Rule{NR: nr})
		}
	}
	// Control connections and the gofer.
	add(unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_ACCEPT4, unix.SYS_SHUTDOWN)
	// Files that the gofer or the launcher donated, and the memory file.
	add(unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREADV, unix.SYS_PWRITEV,
		unix.SYS_PREADV2, unix.SYS_PWRITEV2, unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_FSYNC, unix.SYS_FDATASYNC,
		unix.SYS_SYNC_FILE_RANGE, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_MSYNC, unix.SYS_POLL, unix.SYS_PPOLL)
	rules = append(rules,
		// Attributes of an open file, data of a connected socket: no path and no address.
		seccomp.Rule{NR: unix.SYS_STATX, When: []seccomp.Cond{seccomp.MaskedEqual(2, unix.AT_EMPTY_PATH, unix.AT_EMPTY_PATH)}},
		seccomp.Rule{NR: unix.SYS_RECVFROM, When: []seccomp.Cond{seccomp.Equal(4, 0)}},
		seccomp.Rule{NR: unix.SYS_SENDTO, When: []seccomp.Cond{seccomp.Equal(4, 0)}},
	)
	for _, cmd := range []uint32{unix.TCGETS, unix.TCSETS, unix.TCSETSW, unix.TCSETSF, unix.TIOCGWINSZ, unix.TIOCSWINSZ, unix.TIOCINQ, unix.TIOCOUTQ} {
		rules = append(rules, seccomp.Rule{NR: unix.SYS_IOCTL, When: is(1, cmd)})
	}
	// The platform's stubs: processes of this PID namespace, where there are no others.
	add(unix.SYS_WAIT4, unix.SYS_KILL, unix.SYS_TGKILL, unix.SYS_SCHED_SETAFFINITY, unix.SYS_GETCPU, unix.SYS_MEMBARRIER)
	hot := []uint32{unix.SYS_FUTEX, unix.SYS_WAIT4, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_WRITE, unix.SYS_READ, unix.SYS_RECVMSG, unix.SYS_SENDMSG}
	if platform == "ptrace" {
		add(unix.SYS_PTRACE)
		hot = append(hot, unix.SYS_PTRACE)
	}
	// Clocks, memory and accounting.
	add(unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETRES, unix.SYS_TIMERFD_SETTIME, unix.SYS_GETRUSAGE, unix.SYS_SYSINFO, unix.SYS_MINCORE)
	switch network {
	case NetworkHost:
		for _, family := range []uint32{unix.AF_INET, unix.AF_INET6} {
			rules = append(rules, seccomp.Rule{NR: unix.SYS_SOCKET, When: is(0, family)})
		}
		add(unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_LISTEN, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT,
			unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_RECVFROM, unix.SYS_SENDTO)
	case NetworkSandbox:
		add(unix.SYS_RECVMMSG, unix.SYS_SENDMMSG, unix.SYS_RECVFROM, unix.SYS_SENDTO) // on the namespace's devices
	}
	return &seccomp.Filter{
		Rules:   rules,
		Hot:     hot,
		Default: seccomp.Trap(0),
		BadArch: seccomp.KillProcess,
	}
}
