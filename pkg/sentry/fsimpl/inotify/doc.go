// Package inotify implements inotify(7) over the watches of vfs. It imports vfs, mm and leaves.
//
// Lock order:
//
//	Instance.mu
//	  inode locks of vfs (adding and removing watches)
//	locks of vfs
//	  Instance.eventMu (events are queued with locks of vfs held)
//	    waiter queues
package inotify
