package seccomp

import "golang.org/x/sys/unix"

// GoRuntime are the calls of the Go runtime: memory, threads, scheduling, timers, signals, its network
// poller. Every filter of a Go program starts from them. It allows no process, no executable memory, and
// signals only to the calling process.
func GoRuntime() []Rule {
	is := func(arg uint8, v uint32) []Cond { return []Cond{Equal32(arg, v)} }
	without := func(arg uint8, bits uint64) []Cond { return []Cond{MaskedEqual(arg, bits, 0)} }
	// What the runtime asks for when it starts a thread; no process and no namespace.
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD
	pid := uint32(unix.Getpid())
	rules := append(make([]Rule, 0, 128), []Rule{ // with room for the caller's
		{NR: unix.SYS_CLONE, When: []Cond{MaskedEqual(0, 0xffffffff&^unix.CLONE_SETTLS, thread)}},
		{NR: unix.SYS_MMAP, When: without(2, unix.PROT_EXEC)},
		{NR: unix.SYS_MPROTECT, When: without(2, unix.PROT_EXEC)},
		{NR: unix.SYS_TGKILL, When: is(0, pid)},
		{NR: unix.SYS_FCNTL, When: is(1, unix.F_DUPFD_CLOEXEC)},
		{NR: unix.SYS_FCNTL, When: is(1, unix.F_GETFL)},
		{NR: unix.SYS_FCNTL, When: is(1, unix.F_SETFL)},
		{NR: unix.SYS_PRCTL, When: is(0, unix.PR_SET_VMA)}, // names of the runtime's memory
		{NR: unix.SYS_PRLIMIT64, When: []Cond{Equal(2, 0)}},
	}...)
	for _, nr := range [...]uint32{
		unix.SYS_FUTEX, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_BRK,
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_PIPE2, unix.SYS_EVENTFD2,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT,
		unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_GETTIME,
		unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_SIGALTSTACK, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN,
		unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE, unix.SYS_SETITIMER,
		unix.SYS_RESTART_SYSCALL, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_GETRANDOM, unix.SYS_MINCORE,
	} {
		rules = append(rules, Rule{NR: nr})
	}
	return rules
}
