package systrap

import "golang.org/x/sys/unix"

// secret is what allows a call: the high halves of arguments that the kernel takes as 32-bit values or ignores.
// [0] in the fourth argument, [1] in the fifth, [2] in the third of mmap and the sixth of all others.
type secret [3]uint32

// Offsets in struct seccomp_data.
const (
	dataNr   = 0
	dataArch = 4
	dataIP   = 8
	dataArgs = 16
)

// rule is a filter instruction whose jumps name labels; 0 is the next instruction.
type rule struct {
	code   uint16
	k      uint32
	yes    uint8
	no     uint8
	target uint8 // label of this instruction
}

// Labels of the filter.
const (
	toNext = iota
	toTrap
	toAllow
	toFutex
	toPrctl
	toSixth
	toThird
	toWrite
	toClone
	toDeath
	ruleLabels
)

// filter is the program that all stub threads run under. Calls from anywhere but the stub's text trap.
// In the text (where a hostile application may jump with any registers) it allows what only
// harms the caller: futex waits and wakes, rt_sigreturn, segment bases, yielding, ringing the doorbell; and with the secret
// what the memory thread executes.
func filter(s secret, doorbell int) []unix.SockFilter {
	const (
		ld  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		jge = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		ret = unix.BPF_RET | unix.BPF_K
		hi  = 4
	)
	rules := []rule{
		{code: ld, k: dataIP + hi},
		{code: jeq, k: textAddr >> 32, no: toTrap},
		{code: ld, k: dataIP},
		{code: jge, k: textAddr&0xffffffff + textSize, yes: toTrap}, // textAddr's low half is 0
		{code: ld, k: dataArch},
		{code: jeq, k: unix.AUDIT_ARCH_X86_64, no: toTrap},
		{code: ld, k: dataNr},
		{code: jeq, k: unix.SYS_FUTEX, yes: toFutex},
		{code: jeq, k: unix.SYS_WRITE, yes: toWrite},
		{code: jeq, k: unix.SYS_RT_SIGRETURN, yes: toAllow},
		{code: jeq, k: unix.SYS_SCHED_YIELD, yes: toAllow},
		{code: jeq, k: unix.SYS_ARCH_PRCTL, yes: toPrctl},
		{code: ld, k: dataArgs + 8*3 + hi},
		{code: jeq, k: s[0], no: toTrap},
		{code: ld, k: dataArgs + 8*4 + hi},
		{code: jeq, k: s[1], no: toTrap},
		{code: ld, k: dataNr},
		{code: jeq, k: unix.SYS_MMAP, yes: toThird, no: toSixth},
		{target: toThird, code: ld, k: dataArgs + 8*2 + hi},
		{code: jeq, k: s[2], yes: toAllow, no: toTrap},
		{target: toSixth, code: ld, k: dataArgs + 8*5 + hi},
		{code: jeq, k: s[2], no: toTrap},
		{code: ld, k: dataNr},
		{code: jeq, k: unix.SYS_MUNMAP, yes: toAllow},
		{code: jeq, k: unix.SYS_MPROTECT, yes: toAllow},
		{code: jeq, k: unix.SYS_CLONE, yes: toClone},
		{code: jeq, k: unix.SYS_PRCTL, yes: toDeath},
		{code: jeq, k: unix.SYS_GETPPID, yes: toAllow},
		{code: jeq, k: unix.SYS_EXIT_GROUP, yes: toAllow, no: toTrap},
		{target: toFutex, code: ld, k: dataArgs + 8*1},
		{code: jeq, k: 0, yes: toAllow}, // FUTEX_WAIT
		{code: jeq, k: 1, yes: toAllow, no: toTrap},
		{target: toWrite, code: ld, k: dataArgs},
		{code: jeq, k: uint32(doorbell), yes: toAllow, no: toTrap},
		// Even who knows the secret, as a sentry that was taken over does, gets no namespace and no other use of prctl(2).
		{target: toClone, code: ld, k: dataArgs},
		{code: jeq, k: threadFlags, yes: toAllow},
		{code: jeq, k: forkFlags, yes: toAllow, no: toTrap},
		{target: toDeath, code: ld, k: dataArgs},
		{code: jeq, k: unix.PR_SET_PDEATHSIG, yes: toAllow, no: toTrap},
		{target: toPrctl, code: ld, k: dataArgs},
		{code: jeq, k: archSetGs, yes: toAllow},
		{code: jeq, k: archSetFs, yes: toAllow, no: toTrap},
		{target: toTrap, code: ret, k: unix.SECCOMP_RET_TRAP},
		{target: toAllow, code: ret, k: unix.SECCOMP_RET_ALLOW},
	}
	var at [ruleLabels]int
	for i, r := range rules {
		if r.target != 0 {
			at[r.target] = i
		}
	}
	jump := func(from int, label uint8) uint8 {
		if label == toNext {
			return 0
		}
		return uint8(at[label] - from - 1)
	}
	prog := make([]unix.SockFilter, len(rules))
	for i, r := range rules {
		prog[i] = unix.SockFilter{Code: r.code, K: r.k, Jt: jump(i, r.yes), Jf: jump(i, r.no)}
	}
	return prog
}

// Operations of arch_prctl(2).
const (
	archSetGs = 0x1001
	archSetFs = 0x1002
)
