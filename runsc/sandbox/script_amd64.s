#include "go_asm.h"
#include "textflag.h"

#define SYS_exit_group 231
#define SYS_clone3 435

// func cloneScript(a *cloneArgs, size uintptr, s *script, first *step, n int) int
//
// The child has the parent's stack pointer and thread pointer, and uses neither. R15 is the error of the last call, 0 if
// it succeeded.
TEXT ·cloneScript(SB), NOSPLIT, $0-48
	MOVQ a+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ s+16(FP), R14
	MOVQ first+24(FP), R12
	MOVQ n+32(FP), R13
	MOVL $SYS_clone3, AX
	SYSCALL
	TESTQ AX, AX
	JEQ  child
	MOVQ AX, ret+40(FP)
	RET

child:
	XORL R15, R15

run:
	MOVQ  step_flags(R12), BX
	TESTQ $const_stepElse, BX
	JEQ   call
	TESTQ R15, R15
	JEQ   next

call:
	MOVQ step_nr(R12), AX
	MOVQ (step_args+0)(R12), DI
	MOVQ (step_args+8)(R12), SI
	MOVQ (step_args+16)(R12), DX
	MOVQ (step_args+24)(R12), R10
	MOVQ (step_args+32)(R12), R8
	MOVQ (step_args+40)(R12), R9
	SYSCALL
	CMPQ AX, $-4095
	JCC  error
	XORL R15, R15
	TESTQ $const_stepResult, BX
	JEQ  store
	TESTQ AX, AX
	JEQ  fail

store:
	MOVQ  step_to(R12), CX
	TESTQ CX, CX
	JEQ   next
	MOVQ  AX, (CX)

next:
	ADDQ $step__size, R12
	SUBQ $1, R13
	JNE  run

fail:
	MOVQ R15, script_errno(R14)
	MOVQ R12, script_failed(R14)
	MOVL $1, DI
	MOVL $SYS_exit_group, AX
	SYSCALL
	INT  $3

error:
	NEGQ  AX
	MOVQ  AX, R15
	TESTQ $const_stepTry, BX
	JNE   next
	JMP   fail
