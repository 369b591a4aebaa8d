// Package signalfd implements signalfd(2). It imports kernel, vfs, mm and leaves.
//
// Lock order: File.mu is a leaf; the kernel's locks are taken without it.
package signalfd
