package systrap

import (
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/seccomp"
)

// TestFilter holds what the filter lets a hostile application do in the stub's text, and what only the secret opens.
func TestFilter(t *testing.T) {
	s := secret{0x11111111, 0x22222222, 0x33333333}
	prog := filter(s, 9)
	if err := seccomp.Check(prog); err != nil {
		t.Fatal(err)
	}
	const in, out = textAddr + 0x100, codeAddr
	key := func(nr int32) [6]uint64 {
		a := [6]uint64{3: uint64(s[0]) << 32, 4: uint64(s[1]) << 32, 5: uint64(s[2]) << 32}
		switch nr {
		case unix.SYS_MMAP:
			a[2], a[5] = a[5], 0
		case unix.SYS_CLONE:
			a[0] = threadFlags
		case unix.SYS_PRCTL:
			a[0] = unix.PR_SET_PDEATHSIG
		}
		return a
	}
	allowed := map[int32]bool{unix.SYS_MMAP: true, unix.SYS_MUNMAP: true, unix.SYS_MPROTECT: true,
		unix.SYS_CLONE: true, unix.SYS_PRCTL: true, unix.SYS_GETPPID: true, unix.SYS_EXIT_GROUP: true}
	harmless := map[int32]bool{unix.SYS_RT_SIGRETURN: true, unix.SYS_SCHED_YIELD: true}
	run := func(nr int32, ip uint64, arch uint32, args [6]uint64) bool {
		return seccomp.Run(prog, &seccomp.Data{NR: nr, Arch: arch, IP: ip, Args: args}) == unix.SECCOMP_RET_ALLOW
	}
	for nr := int32(-1); nr < 600; nr++ {
		if nr == unix.SYS_FUTEX || nr == unix.SYS_ARCH_PRCTL {
			continue
		}
		if got := run(nr, in, unix.AUDIT_ARCH_X86_64, [6]uint64{}); got != harmless[nr] {
			t.Errorf("%d without the secret: %v", nr, got)
		}
		if got := run(nr, in, unix.AUDIT_ARCH_X86_64, key(nr)); got != (harmless[nr] || allowed[nr]) {
			t.Errorf("%d with the secret: %v", nr, got)
		}
		for _, ip := range []uint64{out, textAddr - 1, textAddr + textSize, textAddr & 0xffffffff, 1<<63 | in, tableAddr} {
			if run(nr, ip, unix.AUDIT_ARCH_X86_64, key(nr)) {
				t.Errorf("%d at %#x", nr, ip)
			}
		}
		if run(nr, in, unix.AUDIT_ARCH_I386, key(nr)) {
			t.Errorf("%d of 32-bit code", nr)
		}
		for i := range 6 {
			a := key(nr)
			if a[i]>>32 == 0 || !allowed[nr] {
				continue
			}
			a[i] ^= 1 << 40
			if run(nr, in, unix.AUDIT_ARCH_X86_64, a) {
				t.Errorf("%d with a wrong argument %d", nr, i)
			}
		}
	}
	for bit := range 32 {
		for _, flags := range []uint64{threadFlags, forkFlags, 0} {
			a := key(unix.SYS_CLONE)
			if a[0] = flags; flags != 0 && !run(unix.SYS_CLONE, in, unix.AUDIT_ARCH_X86_64, a) {
				t.Errorf("clone %#x", flags)
			}
			if a[0] ^= 1 << bit; run(unix.SYS_CLONE, in, unix.AUDIT_ARCH_X86_64, a) {
				t.Errorf("clone %#x", a[0])
			}
		}
	}
	for option := range uint64(200) {
		a := key(unix.SYS_PRCTL)
		a[0] = option
		if got := run(unix.SYS_PRCTL, in, unix.AUDIT_ARCH_X86_64, a); got != (option == unix.PR_SET_PDEATHSIG) {
			t.Errorf("prctl %d: %v", option, got)
		}
	}
	for op := range uint64(512) {
		if got := run(unix.SYS_FUTEX, in, unix.AUDIT_ARCH_X86_64, [6]uint64{1: op}); got != (op < 2) {
			t.Errorf("futex operation %d: %v", op, got)
		}
	}
	for fd := range uint64(512) {
		if got := run(unix.SYS_WRITE, in, unix.AUDIT_ARCH_X86_64, [6]uint64{0: fd}); got != (fd == 9) {
			t.Errorf("write to %d: %v", fd, got)
		}
	}
	for code := uint64(0x1000); code < 0x6000; code++ {
		if got := run(unix.SYS_ARCH_PRCTL, in, unix.AUDIT_ARCH_X86_64, [6]uint64{code}); got != (code == archSetFs || code == archSetGs) {
			t.Errorf("arch_prctl %#x: %v", code, got)
		}
	}
}
