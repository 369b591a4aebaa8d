// Package systrap runs application code in stub processes whose system calls the host kernel turns
// into SIGSYS, and talks to them through shared memory.
//
// # Processes
//
// There is one stub process per address space. Its memory holds the application's mappings and,
// above maxUser, the stub region (layout.go). It is a fork of the zygote, which is a stub process with an
// empty address space that the sentry forks once and that never runs application code; an application's
// fork is a fork of its stub process. All stub processes are children of the sentry, get SIGKILL
// when it dies (PR_SET_PDEATHSIG), and share its descriptor table, so that the numbers in MapOps are valid in them.
//
// # Threads and trust
//
// All threads of all stub processes run under one seccomp filter, installed once by the zygote (filter.go). It
// turns every system call into SIGSYS but for what the signal handler needs (futex waits and wakes, rt_sigreturn,
// arch_prctl of the segment bases), none of which harms anyone but the caller, and calls made with
// a secret of 96 bits in argument bits that the kernel ignores.
//
// The secret lives in registers of the memory thread only, the first thread of each stub process. That thread
// executes batches of system calls (mmap, munmap, mprotect, clone) from a ring that the sentry writes and the
// stub process can only read. It has no stack and no writable state; all its signals are blocked, so that no signal frame
// can spill its registers (a forced signal kills the process). It reports completion with a keyed hash
// over the batch's number and result, which the application cannot forge. Threads and processes that it clones
// either are memory threads again or lose all registers before they run anything else.
//
// Every other thread runs application code and the handler (stub_amd64.s). Application code may jump to any
// instruction of the stub and write all of its writable pages: the handler therefore protects nothing but the
// application from itself, and the sentry treats everything it reads from the slots as hostile.
//
// # Hand-off
//
// A slot has one state word (layout.go) that both sides exchange atomically; each spins for a while and then sleeps in
// futex(2) after announcing so in the word.
//
// # Locks
//
//	addressSpace.mu      the ring, the thread lists
//	  platform.mu        chunk allocation, list of address spaces
//
// The package must not import anything of the sentry.
package systrap
