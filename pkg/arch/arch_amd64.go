package arch

// PageSize is the size of a page in bytes; PageMask selects the offset inside one.
const (
	PageSize  = 4096
	PageShift = 12
	PageMask  = PageSize - 1
)

// PageDown rounds addr down to a page boundary.
func PageDown(addr uint64) uint64 { return addr &^ PageMask }

// PageUp rounds addr up to a page boundary; ok is false where that overflows.
func PageUp(addr uint64) (up uint64, ok bool) {
	up = (addr + PageMask) &^ PageMask
	return up, up >= addr
}

// Registers is the general register file of an application thread, laid out as struct
// user_regs_struct of <sys/user.h>, so that ptrace(2) can read and write it in place.
type Registers struct {
	R15, R14, R13, R12, Rbp, Rbx, R11, R10, R9, R8, Rax, Rcx, Rdx, Rsi, Rdi uint64
	// OrigRax is the system call number at a syscall stop (then Rax is undefined).
	OrigRax                                                  uint64
	Rip, Cs, Eflags, Rsp, Ss, FsBase, GsBase, Ds, Es, Fs, Gs uint64
}

// SyscallArg is one argument register of a system call.
type SyscallArg uint64

// SyscallArgs are the six arguments of a system call, in the order of syscall(2).
type SyscallArgs [6]SyscallArg

func (a SyscallArg) Pointer() uint64 { return uint64(a) }
func (a SyscallArg) Uint64() uint64  { return uint64(a) }
func (a SyscallArg) Int64() int64    { return int64(a) }
func (a SyscallArg) Int() int32      { return int32(a) }
func (a SyscallArg) Uint() uint32    { return uint32(a) }

// SyscallNo is the number of the system call that the thread stopped at.
func (r *Registers) SyscallNo() uint64 { return r.OrigRax }

// SyscallArgs reads the arguments by the x86-64 convention.
func (r *Registers) SyscallArgs() SyscallArgs {
	return SyscallArgs{SyscallArg(r.Rdi), SyscallArg(r.Rsi), SyscallArg(r.Rdx), SyscallArg(r.R10), SyscallArg(r.R8), SyscallArg(r.R9)}
}

// SetReturn stores the result of a system call.
func (r *Registers) SetReturn(v uint64) { r.Rax = v }

// RestartSyscall moves the thread back onto the two-byte syscall instruction, with the call's
// number in rax again.
func (r *Registers) RestartSyscall(nr uint64) {
	r.Rip -= 2
	r.Rax = nr
}

// User segment selectors of 64-bit Linux processes.
const (
	UserCS = 0x33
	UserSS = 0x2b
)
