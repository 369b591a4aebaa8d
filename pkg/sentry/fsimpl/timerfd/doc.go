// Package timerfd implements timerfd_create(2). It imports vfs, mm and leaves.
//
// Lock order: File.mu, then waiter queues.
package timerfd
