package platform

import "husk/pkg/arch"

// Perms are the access rights of a mapping.
type Perms uint8

// The rights; they combine.
const (
	Read Perms = 1 << iota
	Write
	Exec

	None      Perms = 0
	ReadWrite       = Read | Write
)

// Op is the kind of a MapOp.
type Op uint8

// The operations on an address space.
const (
	OpMap Op = iota
	OpUnmap
	OpProtect
)

// MapOp is one change of an address space. Addr, Length and Offset are multiples of the page size.
type MapOp struct {
	Op     Op
	Perms  Perms  // OpMap, OpProtect
	FD     int    // OpMap: host file descriptor of the sentry, mapped MAP_SHARED|MAP_FIXED
	Addr   uint64 // user address
	Length uint64
	Offset uint64 // OpMap: offset in the file
	// Populate asks for the pages to be entered into the page table at once (MAP_POPULATE); OpMap.
	Populate bool
}

// AddressSpace is the memory of one application process as the processor sees it. It is a cache of
// what mm knows: an access to an address that is not mapped gives an EventFault and mm maps it then.
type AddressSpace interface {
	// Apply makes the changes, in order. Maps may be deferred until a context next enters the
	// address space; when Apply returns, no thread can use a right that an OpUnmap or OpProtect of
	// the list took away, nor see what an OpMap of the list replaced. FDs stay open until Apply has unmapped or replaced their mappings. Operations on valid ranges can fail where the host
	// has no memory or no mappings left (ENOMEM and the like); then those behind may not have been made either, and what they take away is still in use.
	Apply(ops []MapOp) error
	// Release frees it. No context may run in it any more, nor be switched into it later.
	Release()
}

// Deferrer is implemented by address spaces that can put changes off until a context enters, which costs less than Apply. Calls of Apply
// and Forker.Fork make them first.
type Deferrer interface {
	// Defer is Apply, but for this: if no context runs in the address space, the changes may be made as late as when one is
	// about to. What they take away may be in use until Done says that their ticket is done, and must not be given to anybody else:
	// neither pages nor FDs. A change that turns out to be impossible then ends the process: Switch gives the reason.
	Defer(ops []MapOp) (ticket uint64, err error)
	// Done gives the last ticket that is done, with all before it.
	Done() uint64
	// Settle makes all changes. ESRCH if the process is dead.
	Settle() error
}

// Forker is implemented by address spaces that can copy themselves faster than mm can rebuild them
// fault by fault. The copy has the same mappings of the same files (all shared mappings).
type Forker interface {
	// Fork first makes the changes own, as Apply, such as write-protecting what is copy-on-write from now on, so that it holds
	// for both. The copy gets the changes of it before a context can run in it. Errors are those of Apply; that a change of the
	// copy is not possible may also show as the copy's death.
	Fork(own, copy []MapOp) (AddressSpace, error)
}

// EventKind says why Context.Switch returned.
type EventKind uint8

// The kinds.
const (
	// EventSyscall: the application executed a syscall instruction: Registers.OrigRax holds the
	// number, Rip points behind the instruction, Rcx and R11 hold what the processor would leave.
	EventSyscall EventKind = iota
	// EventFault: a processor exception, described by Event's other fields as siginfo_t would.
	EventFault
	// EventInterrupt: Interrupt was called; the registers are those of an arbitrary instruction boundary.
	EventInterrupt
)

// Event describes a return of Context.Switch.
type Event struct {
	Kind   EventKind
	Signal int32 // EventFault: SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGTRAP
	Code   int32 // EventFault: si_code of sigaction(2)
	Addr   uint64
	// Access is what the faulting instruction tried (page faults only); None when the platform
	// cannot tell, and the sentry then tries read, and write if the page is mapped readable already.
	Access Perms
	// Hot, of an EventSyscall, says that the address space is a Patcher and wants to be asked.
	Hot bool
}

// Patcher is implemented by address spaces that can make system calls from one place in the code cheaper by
// replacing the instruction there.
type Patcher interface {
	// Patch is called by the goroutine whose context stopped at a system call with Event.Hot, with the
	// context's registers. Whether it did anything cannot be seen.
	Patch(t Text, regs *arch.Registers)
}

// Text is the application's code as a Patcher needs it; mm implements it.
type Text interface {
	// ReadText copies from executable memory that the application cannot write; EFAULT elsewhere.
	ReadText(addr uint64, b []byte) error
	// ReplaceText replaces old by new of the same length, within a page of a private mapping that is executable and not
	// writable, if old is what is there. The page becomes private to the address space, and running threads see all of
	// the change or nothing. EFAULT otherwise.
	ReplaceText(addr uint64, old, new []byte) error
	// ReserveText makes sure that the application maps nothing in [addr, addr+length) from now on; ENOMEM if it did
	// already.
	ReserveText(addr, length uint64) error
}

// Context executes one application thread. It is used by one goroutine at a time, but for Interrupt.
type Context interface {
	// Switch runs the thread in as, with the general registers in regs, until an event; regs then
	// holds the new values. Hostile register values (segments, non-canonical bases, reserved flag
	// bits) are sanitised as Linux's rt_sigreturn does. An error means that the thread cannot go on
	// (its stub died): the caller kills the application process.
	Switch(as AddressSpace, regs *arch.Registers) (Event, error)
	// Interrupt makes the current or the next Switch return EventInterrupt soon (at once if the
	// thread waits to run). Callable from any goroutine; calls coalesce.
	Interrupt()
	// Blocked says that the sentry blocks the thread, so that the next Switch may be far. It is a hint, of the goroutine
	// that calls Switch.
	Blocked()
	// ReadFP copies the thread's extended state into buf in the standard (non-compacted) XSAVE
	// format; WriteFP replaces it. len(buf) is Platform.FPStateSize. A hostile header is sanitised by WriteFP
	// (EINVAL where XRSTOR would fault). A new context has the processor's initial state.
	ReadFP(buf []byte) error
	WriteFP(buf []byte) error
	// Release frees the context.
	Release()
}

// Lingerer is a Context whose Switch may keep the goroutine waiting for the thread at once, instead of others having the
// processor.
type Lingerer interface {
	// OnIdle makes Switch call f, on its goroutine, some microseconds after the thread began to run on, and before it lets
	// the goroutine sleep, unless the thread stops before.
	OnIdle(f func())
	// Crowded tells whether another context that began to run now would need the processor of this one, or of the sentry.
	Crowded() bool
}

// VDSOReader is implemented by platforms that can read the vdso of applications. The bytes are those from the ELF header on, and must not be changed.
type VDSOReader interface {
	VDSOText() []byte
}

// Platform makes address spaces and contexts.
type Platform interface {
	NewAddressSpace() (AddressSpace, error)
	NewContext() Context
	// FPStateSize is the size of an XSAVE area in bytes.
	FPStateSize() int
	// UserRange is the range of addresses that Apply accepts: [min, max).
	UserRange() (min, max uint64)
	// VDSO is where the host's vvar and vdso pages are in every address space, so that the clock
	// functions need no system call: [base, base+size) is reserved, and ehdr is the address of the
	// vdso's ELF header (for AT_SYSINFO_EHDR). ehdr is 0 where there is none.
	VDSO() (base, size, ehdr uint64)
	// Release kills everything that the platform still runs.
	Release()
}
