// Package unix implements AF_UNIX sockets (unix(7)): streams, datagrams and sequenced packets; names in the file system
// and abstract ones; files and credentials as ancillary data.
//
// Every socket owns the queue of what it receives; a sender copies straight into the receiver's queue.
// It must not import fsimpl or syscalls.
//
// Lock order:
//
//	rights.mu (only for messages that carry files, and for the collector)
//	  Socket.mu of a connecting socket
//	    Socket.mu of a listener
//	      names.mu
//	      queue.mu
//	        locks of mm (user copies), waiter queues
package unix
