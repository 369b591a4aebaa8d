// Package waiter is how blocked tasks and pollers learn that a file, socket or other object may have
// become ready. It is a leaf: it imports nothing of the module.
//
// Lock order:
//
//	locks of the object that owns the Queue
//	  Queue.mu
//	    locks of a Listener (must not call back into the Queue)
package waiter
