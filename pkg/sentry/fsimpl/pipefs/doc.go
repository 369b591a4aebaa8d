// Package pipefs implements pipes and FIFOs: pipe(7), fifo(7). Data lies in a ring that grows up to the
// capacity of the pipe; each side copies it once, straight between the ring and user memory. What is written while a reader is blocked
// goes to its memory at once, and what is read while a writer is blocked comes from its memory (party.go): between two wake-ups a stream
// moves three times what the pipe holds, and not once.
//
// It must not import kernel or anything above it.
//
// Lock order:
//
//	Pipe.mu
//	  locks of mm (user copies; where they are those of two address spaces, see mm.CopyResident), waiter queues
package pipefs
