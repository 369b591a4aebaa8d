package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/arch"
)

// vsyscallPage is where old programs call three functions of the kernel: gettimeofday, time and getcpu, 1024 bytes apart.
const vsyscallPage = 0xffffffffff600000

// emulateVsyscall serves a call into the page; false if the address is no function's.
func (t *Task) emulateVsyscall() bool {
	var nr uint64
	switch t.regs.Rip {
	case vsyscallPage:
		nr = unix.SYS_GETTIMEOFDAY
	case vsyscallPage + 0x400:
		nr = unix.SYS_TIME
	case vsyscallPage + 0x800:
		nr = unix.SYS_GETCPU
	default:
		return false
	}
	ret, err := t.MM().ReadUint64(t.regs.Rsp)
	if err != nil {
		return false
	}
	a := t.regs.SyscallArgs()
	if nr == unix.SYS_GETCPU {
		a[2] = arch.SyscallArg(0)
	}
	f := t.k.table.Fn[nr]
	if f == nil {
		return false
	}
	v, e := f(t, a)
	if e == unix.EFAULT {
		return false
	}
	t.regs.Rip = ret
	t.regs.Rsp += 8
	t.regs.Rax = uint64(v)
	if en, ok := e.(unix.Errno); ok {
		t.regs.Rax = -uint64(en)
	}
	return true
}
