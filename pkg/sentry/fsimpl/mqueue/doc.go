// Package mqueue implements POSIX message queues (mq_overview(7)): the file system mqueue of an IPC namespace, whose files are
// the queues.
//
// It must not import syscalls.
//
// Lock order:
//
//	FS.mu
//	Queue.mu
//	  waiter queues
//	Signals of mq_notify(3) are sent without any of these.
package mqueue
