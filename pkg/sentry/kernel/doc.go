// Package kernel is the process side of the sentry: tasks, thread groups, process groups and sessions,
// PID/UTS/IPC namespaces, signals, futexes, timers, and the loop that runs application threads.
//
// One goroutine runs each Task (a thread of the application). State that other goroutines change is
// protected by locks; everything marked "own goroutine" is touched by the task's goroutine alone.
// A blocked system call keeps no state beyond the Task: it can always be interrupted and restarted.
//
// It must not import fsimpl, socket, syscalls or runsc.
//
// Lock order:
//
//	Kernel.tree (the process tree, PIDs, groups, sessions, ptrace relations)
//	  ThreadGroup.mu (signals of the group and of its threads, job control, timers)
//	    SignalHandlers.mu
//	  TTY.mu
//	  Task.mu (pointers to resources)
//	futex bucket locks (two at a time in order of index)
//	  mm locks are never taken under a bucket lock except for atomic accesses to resident words
package kernel
