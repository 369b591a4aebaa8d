#include "textflag.h"

// func rawClone(flags, entry, ppid uint64) (pid int64)
//
// The child runs on its private copy of this stack, but does not touch it: it asks to be killed with its
// parent thread, makes sure that the parent did not die before that, makes itself traceable, and
// jumps to entry.
TEXT ·rawClone(SB),NOSPLIT,$0-32
	MOVQ flags+0(FP), DI
	MOVQ entry+8(FP), R12
	MOVQ ppid+16(FP), R13
	XORL SI, SI
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	MOVL $56, AX // clone
	SYSCALL
	TESTQ AX, AX
	JZ   child
	MOVQ AX, pid+24(FP)
	RET

child:
	MOVL $157, AX // prctl(PR_SET_PDEATHSIG, SIGKILL)
	MOVL $1, DI
	MOVL $9, SI
	XORL DX, DX
	SYSCALL
	MOVL $110, AX // getppid
	SYSCALL
	CMPQ AX, R13
	JNE  die
	MOVL $157, AX // prctl(PR_SET_DUMPABLE, 1): tracing needs no capability then
	MOVL $4, DI
	MOVL $1, SI
	SYSCALL
	JMP  R12

die:
	MOVL $231, AX // exit_group
	XORL DI, DI
	SYSCALL
	JMP  die
