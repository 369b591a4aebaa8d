package ptrace

import "golang.org/x/sys/unix"

// Flags of the kinds of clone(2) that stubs make. CLONE_PTRACE makes the keeper trace the new one from its
// birth; ordinary threads are left to the thread of the sentry that asked for them. Processes are siblings of
// the zygote, that is, children of the keeper.
const (
	threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD |
		unix.CLONE_SYSVSEM
	servantFlags = threadFlags | unix.CLONE_PTRACE
	spaceFlags   = unix.CLONE_FILES | unix.CLONE_PARENT | unix.CLONE_PTRACE

	mapFlags         = unix.MAP_SHARED | unix.MAP_FIXED
	mapPopulateFlags = mapFlags | unix.MAP_POPULATE
)

// Offsets in struct seccomp_data of the number, the architecture, and the low words of arguments.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

const (
	retKill  = 0x80000000 // SECCOMP_RET_KILL_PROCESS
	retTrap  = 0x00030000
	retAllow = 0x7fff0000
)

// stubFilter allows what injected code calls. The application's own calls end in PTRACE_SYSEMU before any
// filter, except those of the legacy vsyscall page, which the kernel emulates in its page fault handler: the
// trap lets Switch turn them into faults.
func stubFilter() []unix.SockFilter {
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	jeq := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	ret := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}
	const auditArchX8664 = 0xc000003e
	f := []unix.SockFilter{load(dataArch), jeq(auditArchX8664, 1, 0), ret(retKill), load(dataNr)}
	for _, nr := range []uint32{unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_PAUSE, unix.SYS_EXIT} {
		f = append(f, jeq(nr, 0, 1), ret(retAllow))
	}
	for _, nr := range []uint32{unix.SYS_GETTIMEOFDAY, unix.SYS_TIME, unix.SYS_GETCPU} {
		f = append(f, jeq(nr, 0, 1), ret(retTrap))
	}
	// Calls of which one argument (its low word) must have one of some values.
	for _, c := range []struct {
		nr, arg uint32
		values  []uint32
	}{
		{unix.SYS_MMAP, 3, []uint32{mapFlags, mapPopulateFlags}},
		{unix.SYS_CLONE, 0, []uint32{threadFlags, servantFlags, spaceFlags}},
		{unix.SYS_PRCTL, 0, []uint32{unix.PR_SET_PDEATHSIG}},
	} {
		f = append(f, jeq(c.nr, 0, uint8(2+2*len(c.values))), load(dataArgs+8*c.arg))
		for _, v := range c.values {
			f = append(f, jeq(v, 0, 1), ret(retAllow))
		}
		f = append(f, ret(retKill))
	}
	return append(f, ret(retKill))
}
