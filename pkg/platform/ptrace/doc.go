// Package ptrace runs application code under ptrace(2): the platform that works everywhere, and the
// measure of correctness for the others.
//
// An address space is a stub process (package stub), cloned from the zygote. Each OS thread of the sentry
// that runs contexts in it has a thread of its own there, which it traces: ptrace(2) binds a
// traced thread to one tracer thread. So Switch needs no hand-over between threads of the sentry: the goroutine
// stays on the OS thread that it happens to be on, loads the context into that thread's tracee, and waits for
// the stop. A context is only data (registers come with Switch, the extended state is fetched at each stop),
// so one that is blocked in the sentry costs no host thread, and may go on under any thread and in any
// address space. How many contexts execute at a time is bounded (gate); more than that take turns.
//
// PTRACE_SYSEMU makes system calls of the application stop before the host's kernel sees them. Calls that the
// sentry wants made, to map memory and to make threads, are injected: the thread runs a few instructions of the
// code block under PTRACE_CONT, with a list of calls in a page that the application can read but not write.
// A seccomp filter, installed once in the zygote, allows those few calls only.
//
// One goroutine, the keeper, is locked to the OS thread that is the parent of all stubs and traces two threads
// of each, which never run application code: the first one and the servant. It makes address spaces and threads, and changes the
// memory of those spaces in which the calling thread has no thread yet.
//
// Goroutines that call this package must not exit while locked to their OS thread: the end of an OS thread kills
// what it traces.
//
// The package must not import anything of the sentry. Lock order:
//
//	addressSpace.mu
//	  keeper (a request waits for it)
//	  addressSpace.threadsMu
//	    tracer.mu
//	gate.mu
//	context.mu
package ptrace
