#include "textflag.h"
#include "go_asm.h"

// The code of the stub processes. It is never run here but copied to textAddr, so it is position
// independent, uses no symbol, and calls nothing. LABEL marks a place with a no-op that makeText finds.

#define LABEL1 BYTE $0x0f; BYTE $0x1f; BYTE $0x80; LONG $0x6b737501 // signal handler
#define LABEL2 BYTE $0x0f; BYTE $0x1f; BYTE $0x80; LONG $0x6b737502 // publish
#define LABEL3 BYTE $0x0f; BYTE $0x1f; BYTE $0x80; LONG $0x6b737503 // final
#define LABEL4 BYTE $0x0f; BYTE $0x1f; BYTE $0x80; LONG $0x6b737504 // end of waiting and resuming
#define LABEL5 BYTE $0x0f; BYTE $0x1f; BYTE $0x80; LONG $0x6b737505 // memory thread
#define LABEL6 BYTE $0x0f; BYTE $0x1f; BYTE $0x80; LONG $0x6b737506 // end of text
#define LABEL7 BYTE $0x0f; BYTE $0x1f; BYTE $0x80; LONG $0x6b737507 // patched system calls

#define SYS_WRITE 1
#define SYS_MMAP 9
#define SYS_RT_SIGRETURN 15
#define SYS_GETPPID 110
#define SYS_PRCTL 157
#define PR_SET_PDEATHSIG 1
#define SIGKILL 9
#define PROT_READ 1
#define MAP_SHARED 1
#define MAP_FIXED 16
#define SYS_SCHED_YIELD 24
#define SYS_ARCH_PRCTL 158
#define SYS_FUTEX 202
#define SYS_EXIT_GROUP 231
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define FUTEX_ALL 0x7fffffff // hostile threads may sleep on the same word
#define ARCH_SET_GS 0x1001
#define ARCH_SET_FS 0x1002
#define CPUNODE_SELECTOR 0x7b
#define SIGUSR1 10

// SipHash round on v0..v3 in AX, CX, DX, SI.
#define SIPROUND \
	ADDQ CX, AX; ROLQ $13, CX; XORQ AX, CX; ROLQ $32, AX; \
	ADDQ SI, DX; ROLQ $16, SI; XORQ DX, SI; \
	ADDQ SI, AX; ROLQ $21, SI; XORQ AX, SI; \
	ADDQ CX, DX; ROLQ $17, CX; XORQ DX, CX; ROLQ $32, DX

TEXT ·stubText(SB), NOSPLIT|NOFRAME, $0
	// Signal handler: DI signal, SI siginfo, DX ucontext, SP on the signal stack inside the slot.
	// Entered from application code, or (interrupt signal, or a hostile application) from the stub's own code.
	LABEL1
	MOVQ SP, BX
	ANDQ $~(const_slotSize-1), BX
	MOVQ ucontext_rip(DX), AX
	MOVQ $const_textAddr, R8
	MOVQ AX, R9
	SUBQ R8, R9
	CMPQ R9, $const_textSize
	JCS  instub

event:
	MOVL DI, slot_signal(BX)
	MOVQ SI, slot_info(BX)
	MOVQ DX, slot_uctx(BX)

	// What the handler knows so far is published below; an interrupt signal up to and including the
	// address of the exchange is ignored, as the event makes the sentry look anyway.
publish:
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, slot_tsc(BX)
	MOVQ $const_tableAddr, SI
	CMPQ table_fsgsbase(SI), $0
	JEQ  based0
	RDFSBASEQ AX
	MOVQ AX, slot_fsNow(BX)
	RDGSBASEQ AX
	MOVQ AX, slot_gsNow(BX)

based0:
	MOVL slot_goSeq(BX), R13
	ANDL $const_seqMask, R13
	MOVL R13, AX
	LABEL2
	XCHGL AX, slot_stopSeq(BX)
	TESTL AX, AX
	JPL   doorbell
	LEAQ slot_stopSeq(BX), DI
	MOVL $FUTEX_WAKE, SI
	MOVL $FUTEX_ALL, DX
	MOVL $SYS_FUTEX, AX
	SYSCALL
	JMP  awake

doorbell:
	MOVQ $const_hintAddr, AX
	CMPL hints_sleeping(AX), $0
	JEQ  awake
	MOVQ $const_tableAddr, SI
	MOVL table_doorbell(SI), DI
	LEAQ table_one(SI), SI
	MOVL $8, DX
	MOVL $SYS_WRITE, AX
	SYSCALL

awake:
	MOVL $CPUNODE_SELECTOR, R12
	LSLL R12, R12
	ANDL $0xfff, R12
	CMPL R12, slot_cpu(BX)
	JEQ  wait
	MOVL R12, slot_cpu(BX)

	// BX is the slot, R12 the processor that this thread is on, R13 the number of the stop.
wait:
	MOVL slot_spin(BX), CX
	CMPL R12, slot_peer(BX)
	JEQ  sleep

spin:
	CMPL R13, slot_goSeq(BX)
	JNE  resume
	SUBL $1, CX
	JLE  sleep
	CMPL slot_spin(BX), $0
	JLE  sleep
	PAUSE
	JMP  spin

sleep:
	XORL AX, AX
	XCHGQ AX, slot_wake(BX)
	TESTQ AX, AX
	JEQ  giveway
	MOVQ AX, DI
	MOVL $FUTEX_WAKE, SI
	MOVL $FUTEX_ALL, DX
	MOVL $SYS_FUTEX, AX
	SYSCALL

giveway:
	MOVL slot_spin(BX), R14

yield:
	TESTL R14, R14
	JPL  tosleep
	MOVL $SYS_SCHED_YIELD, AX
	SYSCALL
	ADDL $1, R14
	CMPL R13, slot_goSeq(BX)
	JEQ  yield
	JMP  resume

	// The sentry changes goSeq first and then, if it finds asleep there, the word.
	// Another context may get this thread while it sleeps, so the extended state goes to the slot, if it is not in a frame.
tosleep:
	CMPL slot_signal(BX), $const_sigPatched
	JNE  saved
	MOVL $-1, AX
	MOVL $-1, DX
	XSAVE64 const_slotSleep(BX)

saved:
	MOVL $1, slot_sleeping(BX)
	MOVQ slot_futex(BX), DI
	MOVL (DI), R14
	MOVL R13, AX
	MOVL R13, DX
	ORL  $const_asleep, DX
	LOCK
	CMPXCHGL DX, slot_goSeq(BX)

asleep:
	MOVL slot_goSeq(BX), AX
	ANDL $const_seqMask, AX
	CMPL AX, R13
	JNE  awoken
	MOVL $FUTEX_WAIT, SI
	MOVL R14, DX
	XORL R10, R10
	MOVL $SYS_FUTEX, AX
	SYSCALL
	MOVL (DI), R14
	JMP  asleep

awoken:
	MOVL $0, slot_sleeping(BX)

resume:
	MOVL slot_before(BX), R12
	TESTL R12, R12
	JNE  bases

	// slot.uctx is valid in the first two modes only; as a stack it must not be used in the others, where an
	// interrupt's frame below it would become the next one.
based:
	MOVL slot_mode(BX), AX
	CMPL AX, $const_modePatched
	JEQ  patched
	CMPL AX, $const_modeSave
	JEQ  save
	MOVQ slot_uctx(BX), SP
	CMPL AX, $const_modeFast
	JEQ  fast
	MOVL $SYS_RT_SIGRETURN, AX
	SYSCALL
	INT $3

	// The extended state goes to the slot; the sentry cleared the header.
save:
	MOVL $-1, AX
	MOVL $-1, DX
	XSAVE64 const_slotFP(BX)
	MOVL $const_sigSaved, slot_signal(BX)
	JMP  publish

bases:
	TESTL $const_awaitBatch, R12
	JEQ  fsbase
	MOVQ $const_doneAddr, R14
	CMPL done_sleeping(R14), $0
	JEQ  awaitbatch
	MOVQ $const_ringAddr, DI
	MOVL $FUTEX_WAKE, SI
	MOVL $FUTEX_ALL, DX
	MOVL $SYS_FUTEX, AX
	SYSCALL

	// The memory thread runs on this processor, so that spinning would only keep it from running.
awaitbatch:
	MOVL $const_donePending, AX
	MOVL $const_doneWaiter, DX
	LOCK
	CMPXCHGL DX, done_state(R14)
	CMPL done_state(R14), $const_doneReady
	JEQ  fsbase
	LEAQ done_state(R14), DI
	MOVL $FUTEX_WAIT, SI
	XORL R10, R10
	MOVL $SYS_FUTEX, AX
	SYSCALL
	JMP  awaitbatch

fsbase:
	TESTL $const_setFs, R12
	JEQ  gsbase
	MOVL $ARCH_SET_FS, DI
	MOVQ slot_fsBase(BX), SI
	MOVL $SYS_ARCH_PRCTL, AX
	SYSCALL

gsbase:
	TESTL $const_setGs, R12
	JEQ  basesdone
	MOVL $ARCH_SET_GS, DI
	MOVQ slot_gsBase(BX), SI
	MOVL $SYS_ARCH_PRCTL, AX
	SYSCALL

basesdone:
	MOVL $0, slot_before(BX)
	JMP  based

	// Without the kernel: extended state, flags and registers from the frame at SP, then jump to rip,
	// which is rcx. The frame stays intact until the application stops again.
fast:
	MOVQ ucontext_fpstate(SP), R9
	MOVL $-1, AX
	MOVL $-1, DX
	XRSTOR64 (R9)
	PUSHQ ucontext_eflags(SP)
	POPFQ
	MOVQ ucontext_r8(SP), R8
	MOVQ ucontext_r9(SP), R9
	MOVQ ucontext_r10(SP), R10
	MOVQ ucontext_r11(SP), R11
	MOVQ ucontext_r12(SP), R12
	MOVQ ucontext_r13(SP), R13
	MOVQ ucontext_r14(SP), R14
	MOVQ ucontext_r15(SP), R15
	MOVQ ucontext_rdi(SP), DI
	MOVQ ucontext_rsi(SP), SI
	MOVQ ucontext_rbp(SP), BP
	MOVQ ucontext_rbx(SP), BX
	MOVQ ucontext_rdx(SP), DX
	MOVQ ucontext_rax(SP), AX
	MOVQ ucontext_rcx(SP), CX
	LABEL3
	MOVQ ucontext_rsp(SP), SP
	JMP  CX

	// After a patched system call: all from the slot, which stays intact; gs leads to it to the last.
patched:
	LEAQ const_slotFrame(BX), SP
	PUSHQ slot_flags(BX)
	POPFQ
	MOVQ slot_result(BX), AX
	MOVQ slot_rdi(BX), DI
	MOVQ slot_rsi(BX), SI
	MOVQ slot_rdx(BX), DX
	MOVQ slot_r10(BX), R10
	MOVQ slot_r8(BX), R8
	MOVQ slot_r9(BX), R9
	MOVQ slot_rcx(BX), CX
	MOVQ slot_rbp(BX), BP
	MOVQ slot_r11(BX), R11
	MOVQ slot_r12(BX), R12
	MOVQ slot_r13(BX), R13
	MOVQ slot_r14(BX), R14
	MOVQ slot_r15(BX), R15
	MOVQ slot_rsp(BX), SP
	MOVQ slot_rbx(BX), BX
	JMP  slot_target(GS)
	LABEL4

	// A patched call site jumped to its trampoline, and that here: all registers are the application's, but for rcx, which
	// is the return address as after a real system call, and r11, which is the site's number. gs leads to the slot; where
	// it does not, the first store faults, and the sentry understands that.
	LABEL7
	MOVQ AX, slot_rax(GS)
	MOVQ CX, slot_rcx(GS)
	MOVQ R11, slot_site(GS)
	MOVQ DI, slot_rdi(GS)
	MOVQ SI, slot_rsi(GS)
	MOVQ DX, slot_rdx(GS)
	MOVQ R10, slot_r10(GS)
	MOVQ R8, slot_r8(GS)
	MOVQ R9, slot_r9(GS)
	MOVQ SP, slot_rsp(GS)
	MOVQ BP, slot_rbp(GS)
	MOVQ BX, slot_rbx(GS)
	MOVQ R12, slot_r12(GS)
	MOVQ R13, slot_r13(GS)
	MOVQ R14, slot_r14(GS)
	MOVQ R15, slot_r15(GS)
	MOVQ slot_self(GS), BX
	LEAQ const_slotFrame(BX), SP
	PUSHFQ
	POPQ slot_flags(BX)
	CLD
	MOVL $const_sigPatched, slot_signal(BX)
	JMP  publish

	// The signal hit the stub's own code, at AX.
instub:
	MOVQ $const_tableAddr, R8
	CMPQ AX, table_finalJump(R8)
	JNE  infinal
	// All but rip is the application's already.
	MOVQ ucontext_rcx(DX), CX
	MOVQ CX, ucontext_rip(DX)
	JMP  event

infinal:
	CMPL DI, $SIGUSR1
	JNE  event // a hostile application's fault
	// An event was about to be published, or is and still stands: the sentry looks by itself.
	CMPQ AX, table_publish(R8)
	JLS  ignore
	CMPQ AX, table_waitEnd(R8)
	JCC  ignore
	MOVL slot_goSeq(BX), CX
	XORL slot_stopSeq(BX), CX
	TESTL $const_seqMask, CX
	JEQ  ignore
	// The sentry said go: drop what the handler was doing, and stop again with the same registers.
	MOVL slot_mode(BX), AX
	CMPL AX, $const_modeSave
	JEQ  ignore
	CMPL AX, $const_modePatched
	JEQ  unpatch
	MOVQ slot_uctx(BX), SP
	SUBQ $512, SP
	MOVL DI, slot_signal(BX)
	JMP  publish

	// This signal's frame has the extended state; it gets the registers, too.
unpatch:
	MOVQ slot_result(BX), AX
	MOVQ AX, ucontext_rax(DX)
	MOVQ slot_rdi(BX), AX
	MOVQ AX, ucontext_rdi(DX)
	MOVQ slot_rsi(BX), AX
	MOVQ AX, ucontext_rsi(DX)
	MOVQ slot_rdx(BX), AX
	MOVQ AX, ucontext_rdx(DX)
	MOVQ slot_r10(BX), AX
	MOVQ AX, ucontext_r10(DX)
	MOVQ slot_r8(BX), AX
	MOVQ AX, ucontext_r8(DX)
	MOVQ slot_r9(BX), AX
	MOVQ AX, ucontext_r9(DX)
	MOVQ slot_rcx(BX), AX
	MOVQ AX, ucontext_rcx(DX)
	MOVQ slot_rsp(BX), AX
	MOVQ AX, ucontext_rsp(DX)
	MOVQ slot_rbp(BX), AX
	MOVQ AX, ucontext_rbp(DX)
	MOVQ slot_rbx(BX), AX
	MOVQ AX, ucontext_rbx(DX)
	MOVQ slot_r11(BX), AX
	MOVQ AX, ucontext_r11(DX)
	MOVQ slot_r12(BX), AX
	MOVQ AX, ucontext_r12(DX)
	MOVQ slot_r13(BX), AX
	MOVQ AX, ucontext_r13(DX)
	MOVQ slot_r14(BX), AX
	MOVQ AX, ucontext_r14(DX)
	MOVQ slot_r15(BX), AX
	MOVQ AX, ucontext_r15(DX)
	MOVQ slot_flags(BX), AX
	MOVQ AX, ucontext_eflags(DX)
	MOVQ slot_rip(BX), AX
	MOVQ AX, ucontext_rip(DX)
	JMP  event

ignore:
	MOVQ DX, SP
	MOVL $SYS_RT_SIGRETURN, AX
	SYSCALL
	INT $3

	// Memory thread. R12-R14 hold the secret in their high halves, R15 and BP the key, BX the number of the last
	// batch. SP is a general register here.
	LABEL5
memory:
	MOVQ $const_ringAddr, R9
	MOVL ring_spin(R9), CX

memspin:
	MOVQ ring_seq(R9), AX
	CMPQ AX, BX
	JNE  batch
	SUBL $1, CX
	JLE  memsleep
	PAUSE
	JMP  memspin

memsleep:
	MOVQ $const_doneAddr, R8
	MOVL $1, AX
	XCHGL AX, done_sleeping(R8)

memwait:
	MOVQ $const_ringAddr, DI
	MOVL $FUTEX_WAIT, SI
	MOVL BX, DX
	XORL R10, R10
	MOVL $SYS_FUTEX, AX
	SYSCALL
	MOVQ $const_ringAddr, R9
	MOVQ ring_seq(R9), AX
	CMPQ AX, BX
	JEQ  memwait
	MOVQ $const_doneAddr, R8
	MOVL $0, done_sleeping(R8)

batch:
	MOVQ AX, BX
	XORL SP, SP // index of the operation
	XORL AX, AX

next:
	MOVQ $const_ringAddr, CX
	CMPL SP, ring_n(CX)
	JCC  complete
	MOVQ SP, DX
	SHLQ $6, DX
	LEAQ 64(CX)(DX*1), CX // the operation
	MOVQ op_nr(CX), AX
	MOVQ (op_args+0)(CX), DI
	MOVQ (op_args+8)(CX), SI
	MOVQ (op_args+16)(CX), DX
	MOVQ (op_args+24)(CX), R10
	MOVQ (op_args+32)(CX), R8
	MOVQ (op_args+40)(CX), R9
	CMPQ op_kind(CX), $const_opThread
	JEQ  thread
	ADDL $1, SP
	CMPQ op_kind(CX), $const_opRaw
	JEQ  call
	ORQ  R12, R10
	ORQ  R13, R8
	CMPQ AX, $SYS_MMAP
	JEQ  ismap
	ORQ  R14, R9
	CMPQ op_kind(CX), $const_opFork
	JEQ  fork

call:
	SYSCALL
	CMPQ AX, $-4095
	JCS  next

	// The batch is over with AX.
complete:
	MOVQ $const_doneAddr, R9
	MOVQ AX, done_result(R9)
	MOVQ AX, R8
	// SipHash of (BX, R8) with the key (R15, BP), without the length block.
	MOVQ $0x736f6d6570736575, AX
	MOVQ $0x646f72616e646f6d, CX
	MOVQ $0x6c7967656e657261, DX
	MOVQ $0x7465646279746573, SI
	XORQ R15, AX
	XORQ BP, CX
	XORQ R15, DX
	XORQ BP, SI
	XORQ BX, SI
	SIPROUND
	SIPROUND
	XORQ BX, AX
	XORQ R8, SI
	SIPROUND
	SIPROUND
	XORQ R8, AX
	XORQ $0xff, DX
	SIPROUND
	SIPROUND
	SIPROUND
	SIPROUND
	XORQ CX, AX
	XORQ DX, AX
	XORQ SI, AX
	MOVQ AX, done_tag(R9)
	MOVL $const_doneReady, AX
	XCHGL AX, done_state(R9)
	CMPL AX, $const_doneWaiter
	JNE  memory
	LEAQ done_state(R9), DI
	MOVL $FUTEX_WAKE, SI
	MOVL $FUTEX_ALL, DX // of the sentry, and those that enter
	MOVL $SYS_FUTEX, AX
	SYSCALL
	JMP  memory

ismap:
	ORQ R14, DX
	JMP call

	// Fork: the parent is done with its batch. The child maps its own ring before it looks at any ring again, since
	// the parent's may change: the descriptor is in the fifth argument of clone, the page of the file in the
	// sixth. Then it asks to be killed when the sentry dies, and goes on with the batch, unless the
	// sentry died before.
fork:
	SYSCALL
	TESTQ AX, AX
	JNE  complete
	MOVL R9, R9
	SHLQ $12, R9
	MOVQ $const_ringAddr, DI
	MOVL $const_ringSize, SI
	MOVL $PROT_READ, DX
	ORQ  R14, DX
	MOVL $(MAP_SHARED|MAP_FIXED), R10
	ORQ  R12, R10
	MOVL $SYS_MMAP, AX
	SYSCALL
	CMPQ AX, DI
	JNE  die
	MOVL $PR_SET_PDEATHSIG, DI
	MOVL $SIGKILL, SI
	MOVQ R12, R10
	MOVQ R13, R8
	MOVQ R14, R9
	MOVL $SYS_PRCTL, AX
	SYSCALL
	MOVL $SYS_GETPPID, AX
	SYSCALL
	MOVQ $const_tableAddr, CX
	CMPQ AX, table_sentryPid(CX)
	JEQ  next

die:
	MOVQ R12, R10
	MOVQ R13, R8
	MOVQ R14, R9
	MOVL $SYS_EXIT_GROUP, AX
	SYSCALL
	INT $3

	// A new application thread: SI is its stack, inside its slot. The index waits in the slot's place of
	// the child's registers, since the kernel gives the child SI as SP.
thread:
	ADDL $1, SP
	ORQ  R12, R10
	ORQ  R13, R8
	ORQ  R14, R9
	SYSCALL
	TESTQ AX, AX
	JEQ  newthread
	CMPQ AX, $-4095
	JCS  next
	JMP  complete

newthread:
	XORL R8, R8
	XORL R9, R9
	XORL R10, R10
	XORL R11, R11
	MOVL $-1, R12
	XORL R13, R13
	XORL R14, R14
	XORL R15, R15
	XORL BP, BP
	MOVQ SP, BX
	ANDQ $~(const_slotSize-1), BX
	JMP  wait
	LABEL6
	RET

// func stubTextAddr() uintptr
TEXT ·stubTextAddr(SB), NOSPLIT, $0-8
	LEAQ ·stubText(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func forkZygote(a *zygoteArgs) int64
// The child never returns: it maps the stub's pages and becomes the zygote's memory thread.
TEXT ·forkZygote(SB), NOSPLIT, $0-16
	MOVQ a+0(FP), R15
	MOVQ zygoteArgs_flags(R15), DI
	XORL SI, SI
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	MOVL $56, AX // clone
	SYSCALL
	TESTQ AX, AX
	JEQ  child
	MOVQ AX, ret+8(FP)
	RET

child:
	LEAQ zygoteArgs_maps(R15), R14
	MOVQ $const_zygoteMaps, R13

map:
	MOVQ 0(R14), DI
	MOVQ 8(R14), SI
	MOVQ 16(R14), DX
	MOVQ 24(R14), R10
	MOVQ 32(R14), R8
	MOVQ 40(R14), R9
	MOVL $SYS_MMAP, AX
	SYSCALL
	CMPQ AX, DI
	JNE  fail
	ADDQ $48, R14
	SUBQ $1, R13
	JNE  map
	MOVQ (zygoteArgs_secret+0)(R15), R12
	MOVQ (zygoteArgs_secret+8)(R15), R13
	MOVQ (zygoteArgs_secret+16)(R15), R14
	MOVQ (zygoteArgs_key+8)(R15), BP
	MOVQ zygoteArgs_entry(R15), CX
	MOVQ (zygoteArgs_key+0)(R15), R15
	XORL BX, BX
	JMP  CX

fail:
	MOVL $1, DI
	MOVL $SYS_EXIT_GROUP, AX
	SYSCALL
	INT $3

// func spinEvent(state *uint32, mask uint32, want uint32, n uint32) bool
TEXT ·spinEvent(SB), NOSPLIT, $0-25
	MOVQ state+0(FP), DI
	MOVL mask+8(FP), SI
	MOVL want+12(FP), DX
	MOVL n+16(FP), CX

again:
	MOVL (DI), AX
	ANDL SI, AX
	CMPL AX, DX
	JEQ  hit
	SUBL $1, CX
	JLE  miss
	PAUSE
	JMP  again

hit:
	MOVB $1, ret+24(FP)
	RET

miss:
	MOVB $0, ret+24(FP)
	RET

// func rdtsc() uint64
TEXT ·rdtsc(SB), NOSPLIT, $0-8
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, ret+0(FP)
	RET

// func store(p *uint32, v uint32)
TEXT ·store(SB), NOSPLIT, $0-12
	MOVQ p+0(FP), DI
	MOVL v+8(FP), AX
	MOVL AX, (DI)
	RET

// func cpuNumber() uint32
TEXT ·cpuNumber(SB), NOSPLIT, $0-4
	MOVL $CPUNODE_SELECTOR, AX
	LSLL AX, AX
	ANDL $0xfff, AX
	MOVL AX, ret+0(FP)
	RET

// func cpuid(leaf, sub uint32) (a, b, c, d uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, a+8(FP)
	MOVL BX, b+12(FP)
	MOVL CX, c+16(FP)
	MOVL DX, d+20(FP)
	RET

// func xgetbv() (lo, hi uint32)
TEXT ·xgetbv(SB), NOSPLIT, $0-8
	XORL CX, CX
	XGETBV
	MOVL AX, lo+0(FP)
	MOVL DX, hi+4(FP)
	RET
