// Package host reads and writes small files of the host by system calls. A file of package os registers with the poller of
// the Go runtime and starts a goroutine for finalizers, hence a thread: more than a command needs that ends in milliseconds.
//
// It is a leaf: it must not import any other package of the module.
package host
