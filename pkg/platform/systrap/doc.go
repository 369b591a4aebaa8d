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
// arch_prctl of the segment bases, ringing the reactor), none of which harms anyone but the caller, and calls made with
// a secret of 96 bits in argument bits that the kernel ignores.
//
// The secret lives in registers of the memory thread only, the first thread of each stub process. That thread
// executes batches of system calls (mmap, munmap, mprotect, clone) from a ring that the sentry writes and the
// stub process can only read. It has no stack and no writable state; all its signals are blocked, so that no signal frame
// can spill its registers (a forced signal kills the process). It reports completion with a keyed hash
// over the batch's number and result, which the application cannot forge. Threads and processes that it clones
// either are memory threads again or lose all registers before they run anything else.
//
// Changes of an address space in which nothing runs wait until a context enters (defer.go): its thread has the memory thread execute them
// and waits for that, on its own processor. As it may be hostile and not wait, what the changes take away is in use
// until the answer is there.
//
// Every other thread runs application code and the handler (stub_amd64.s). Application code may jump to any
// instruction of the stub and write all of its writable pages: the handler therefore protects nothing but the
// application from itself, and the sentry treats everything it reads from the slots as hostile.
//
// # Hand-off
//
// A slot has two words (layout.go): the sentry says go in one, the thread says stop in the other; each side spins on the other's
// word for a while and then sleeps. handoff.go decides who spins when. The goroutine of a context that does not spin
// parks, and the reactor wakes it (reactor.go); a running application thread costs no thread of the sentry. But one that has been alone
// for a while, as in a program with one thread: its goroutine sleeps on the word itself, which saves half of the system calls.
//
// What costs most is to make another processor do something: an interrupt takes 30 us in a virtual machine. So stub threads stay
// away from the sentry's processor while there are enough, a thread whose context is blocked spins until its
// processor is needed, and then it wakes the thread that needs it, which is cheap there. For that the word a
// thread sleeps on lies in a page that all stub processes can read: they can wake each other's threads without need, and no more.
// Threads that take turns on a processor yield it to each other before they sleep, where nobody else wants it.
//
// The thread of a context stays with it, with the extended state in its signal frame or, after a patched call,
// in the processor, until the context runs in another address space, or is blocked and another context of
// the address space takes the thread (lend.go).
//
// # Patching
//
// System call instructions that trap often are replaced by jumps to trampolines (patch.go).
//
// # Limits
//
// Where the host lets applications write the segment bases (FSGSBASE) ours are not told so (AT_HWCAP2). One that writes the gs
// base all the same, and then comes to a patched place before it stopped otherwise, destroys its own memory. Readers of the code see patched instructions. A quota of processor time is only noticed by its effect on
// the hand-off.
//
// # Locks
//
//	patchSet.mu             held around calls of platform.Text
//	  addressSpace.frozen   keeps contexts out of application code; likewise
//	    (locks of mm)
//	      addressSpace.mu   the ring, the thread lists
//	        addressSpace.lend
//	        reactor.mu
//	          addressSpace.life
//	        systrap.mu, stubMemory.mu
//
// The package must not import anything of the sentry.
package systrap
