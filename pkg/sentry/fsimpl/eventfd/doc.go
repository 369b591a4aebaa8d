// Package eventfd implements eventfd(2). It imports vfs, mm and leaves.
//
// Lock order: File.mu, then waiter queues.
package eventfd
