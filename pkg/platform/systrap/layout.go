package systrap

import "unsafe"

// The stub region: the part of every stub process that the application can not map. It lies below
// the 16 GiB under the top of user space where Linux randomises the sentry's own stack, and above everything
// that an application asks for by address.
const (
	stubBase = 0x7ff000000000
	stubEnd  = 0x7fffffffffff &^ 0xfff // end of user space (4-level paging)
	maxUser  = stubBase
	minUser  = 0x10000 // vm.mmap_min_addr of common hosts

	textAddr  = stubBase // code, read-execute
	textSize  = 0x1000
	tableAddr = textAddr + textSize // struct table, read-only
	tableSize = 0x1000
	hintAddr  = stubBase + 0x8000 // struct hints, read-only, one page for all stub processes
	hintSize  = 0x8000
	hintWords = hintSize/4 - 16
	ringAddr  = stubBase + 0x10000 // struct ring, read-only
	doneAddr  = stubBase + 0x20000 // struct done, writable
	doneSize  = 0x1000
	trampAddr = stubBase + 0x40000  // trampolines of patched call sites, read-execute
	vdsoAddr  = stubBase + 0x100000 // vvar and vdso
	slotsAddr = stubBase + 0x10000000
	slotsEnd  = slotsAddr + maxThreads*slotSize

	slotSize     = 0x8000
	slotStack    = 0x1000 // offset of the signal stack in a slot
	slotFrame    = 0x3000 // offset of the frame a thread starts from: nested signal frames reach it from neither side
	slotFP       = slotFrame + 0x400
	slotSleep    = slotFP + slotFPSize // extended state of a sleeping thread; not in a frame, as the sentry may build one any time
	slotFPSize   = 0x1000
	slotsAtOnce  = 16   // slots in an additional chunk
	firstSlots   = 15   // slots in the first chunk of an address space
	maxThreads   = 4095 // per address space: firstSlots + 255*slotsAtOnce
	chunkSize    = slotsAtOnce * slotSize
	chunkDone    = ringSize // offsets in the first chunk of an address space
	chunkSlots   = slotSize
	ringSize     = 0x4000
	ringOps      = 200
	ringDataAddr = ringAddr + 64 + ringOps*64 // zygote's initial data
)

// asleep is a bit of slot.goSeq and slot.stopSeq: who waits for the word to change, the thread or the goroutine, sleeps. The goroutine does on
// the word itself, and must be woken; while it sleeps by other means (reactor.go) the bit is clear. The rest is a sequence
// number: the sentry says go by counting up goSeq, the thread stops by making stopSeq equal. Both words are only ever
// exchanged or compared and exchanged, but for the sentry's change of stopSeq when it killed the process.
const (
	asleep  = 1 << 31
	seqMask = asleep - 1
)

// Values of slot.mode: how to go back to the application.
const (
	modeSigreturn = 0 // rt_sigreturn from the frame
	modeFast      = 1 // registers from the frame, in user code; rcx == rip, r11 == rflags
	modePatched   = 2 // registers from the slot, in user code; the extended state is in the processor
	modeSave      = 3 // do not go back, but save the extended state at slotFP and stop again
)

// Values of slot.signal that are no signals.
const (
	sigPatched = 0   // a patched system call: the registers are in the slot, the extended state in the processor
	sigSaved   = 100 // modeSave is done, or the thread never ran
)

// Bits of slot.before: what to do before going back.
const (
	setFs      = 1 // load the segment base
	setGs      = 2
	awaitBatch = 4 // have the memory thread execute its batch
)

// slot is the shared page of one stub thread, followed by its signal stack. Hostile memory. What one side
// writes lies in the cache line of the word that the other side polls, so that it comes along, or in lines that
// the other side only reads.
type slot struct {
	// Written by the sentry; the thread clears before.
	goSeq   uint32
	mode    uint32
	before  uint32
	spin    int32  // how often to look at goSeq before sleeping; 0 also ends a spin, and less as well, but after that many calls of sched_yield
	peer    uint32 // where the sentry's thread was; never spin there
	ownWord uint32 // what the thread sleeps on if hints has no word for it
	target  uint64 // modePatched: where to go
	rip     uint64 // modePatched: what the application takes that for
	result  uint64 // modePatched: rax
	r11     uint64 // modePatched
	wake    uint64 // a futex word to wake before sleeping; the thread clears it

	// Written by the thread.
	stopSeq uint32
	signal  uint32 // what stopped it
	tsc     uint64 // time stamp of the stop
	uctx    uint64 // stub address of the signal frame's ucontext
	info    uint64 // stub address of its siginfo
	site    uint64 // sigPatched: number of the place
	flags   uint64 // sigPatched, with the registers that follow; the sentry writes what changes
	rax     uint64
	rcx     uint64

	rdi, rsi, rdx, r10, r8, r9, rsp, rbp uint64

	rbx, r12, r13, r14, r15 uint64
	self                    uint64 // the slot's stub address; written once by the sentry
	cpu                     uint32 // where the thread stopped
	sleeping                uint32 // the thread sleeps, or is about to
	futex                   uint64 // stub address of the word that it sleeps on; written once by the sentry

	// Written by the sentry.
	fsBase uint64
	gsBase uint64

	// Written by the thread if table.fsgsbase says so: the bases that it stopped with.
	fsNow uint64
	gsNow uint64
	_     [32]byte
}

// Values of op.kind.
const (
	opSyscall = 0 // call with the secret
	opRaw     = 1 // call without it, before the filter is there
	opThread  = 2 // clone that starts an application thread
	opFork    = 3 // clone that forks the process: the parent's batch ends, the child goes on
)

// op is a system call that the memory thread executes.
type op struct {
	nr   uint64
	args [6]uint64
	kind uint64
}

// ring is what the sentry asks of a memory thread; read-only in the stub process.
type ring struct {
	seq  uint64 // number of the batch, unique per platform; its low half is the futex word
	n    uint32 // operations in it
	spin uint32 // how often to look at seq before sleeping
	_    [48]byte
	ops  [ringOps]op
	data [ringSize - 64 - ringOps*64]byte
}

// Values of done.state.
const (
	donePending = 0
	doneReady   = 1
	doneWaiter  = 2 // pending, and the sentry sleeps
)

// done is the memory thread's answer; writable by the application, hence the tag.
type done struct {
	state    uint32
	sleeping uint32 // the memory thread sleeps, or is about to
	result   uint64 // of the last call
	tag      uint64 // siphash(key, ring.seq, result)
	child    uint32 // process that a fork made; set by the kernel
	_        uint32
}

// hints are words the sentry publishes to all stub threads.
type hints struct {
	sleeping uint32 // a thread that stops writes to the doorbell
	_        [60]byte
	// words are what threads sleep on: each stub process can wake the threads of all others, which costs these
	// a look at goSeq, but nothing else.
	words [hintWords]uint32
}

// table holds addresses that the stub's code needs; filled in once by makeText.
type table struct {
	publish   uint64 // the exchange that publishes an event
	waitEnd   uint64 // end of the code that waits and resumes
	finalJump uint64 // the jump that ends a fast resume
	sentryPid uint64
	one       uint64 // what to write to the doorbell
	doorbell  uint64 // its descriptor
	fsgsbase  uint64 // not 0: applications can write the segment bases
}

// ucontext is the head of the kernel's struct ucontext of x86-64.
type ucontext struct {
	flags, link                uint64
	stackSP, stackFlags, ssLen uint64
	r8, r9, r10, r11, r12      uint64
	r13, r14, r15, rdi, rsi    uint64
	rbp, rbx, rdx, rax, rcx    uint64
	rsp, rip, eflags           uint64
	cs, gs, fs, ss             uint16
	err, trapno, oldmask, cr2  uint64
	fpstate                    uint64
	_                          [8]uint64
	sigmask                    uint64
}

// siginfo is the part of siginfo_t in use.
type siginfo struct {
	signo, errno, code, _ int32
	addr                  uint64 // si_addr, si_call_addr
	nr                    int32  // SIGSYS: si_syscall
	arch                  uint32 // SIGSYS: si_arch
}

const (
	ringHead     = unsafe.Offsetof(ring{}.ops)
	ucontextSize = unsafe.Sizeof(ucontext{})
	siginfoSize  = unsafe.Sizeof(siginfo{})
)

// Compile-time checks of sizes that the assembly and the maps depend on.
var (
	_ [ringSize - unsafe.Sizeof(ring{})]byte
	_ [unsafe.Sizeof(ring{}) - ringSize]byte
	_ [320 - unsafe.Sizeof(slot{})]byte
	_ [unsafe.Sizeof(slot{}) - 320]byte
	_ [304 - ucontextSize]byte
	_ [hintSize - unsafe.Sizeof(hints{})]byte
)
