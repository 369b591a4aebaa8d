// Package epoll implements epoll(7) over waiter queues: every registered file notifies its item, which then stands in the
// ready list of its instance until a wait finds out whether it is (still) ready.
//
// It imports vfs and leaves.
//
// Lock order:
//
//	Nesting.mu (only for registering an instance in another)
//	  Instance.mu, outer instance before the registered one
//	    locks of files (their Readiness)
//	      waiter queues
//	        Instance.readyMu
//	          (released) waiter queue of the instance itself
package epoll
