// Package pipefs implements pipes and FIFOs: pipe(7), fifo(7). Data lies in a ring that grows up to the
// capacity of the pipe; each side copies it once, straight between the ring and user memory.
//
// It must not import kernel or anything above it.
//
// Lock order:
//
//	Pipe.mu
//	  locks of mm (user copies), waiter queues
package pipefs
