// Package pipefs implements pipes and FIFOs: pipe(7), fifo(7). Data lies in a ring that grows up to the
// capacity of the pipe; each side copies it once, straight between the ring and user memory. What is written while a reader is blocked
// goes to its memory at once, and what is read while a writer is blocked comes from its memory (party.go): between two wake-ups a stream
// moves three times what the pipe holds, and not once.
//
// What splice(2) takes from a pipe to another kind of file stays in the pipe, claimed, until it is written there (splice.go): who else
// wants content waits for that as for a lock, but who writes, polls or closes does not.
//
// It must not import kernel or anything above it.
//
// Lock order:
//
//	Pipe.mu, of two by address; who has a claim has no lock
//	  locks of mm (user copies; where they are those of two address spaces, see mm.CopyResident), waiter queues
package pipefs
