// Package hostfile makes files of the sentry from descriptors that the sandbox was started with: pipes, sockets, regular
// files, devices. Streams never block in the host: they are read and written without waiting, and one goroutine with an
// epoll instance passes the host's events on to waiters.
//
// The host's file description may be shared with processes outside, so its flags are left alone.
//
// It imports vfs, mm and leaves.
//
// Lock order: Host.mu is a leaf but for waiter queues.
package hostfile
