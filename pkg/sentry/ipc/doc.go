// Package ipc holds System V interprocess communication (sysvipc(7)): the identifiers of an IPC namespace, and shared memory
// segments, semaphore sets and message queues behind them.
//
// It imports vfs (for its Context), mm, memfile and leaves; the kernel keeps a Namespace for each of its IPC namespaces as an
// opaque value.
//
// Locks: table.mu, below it those of mm. Segments' counts are protected by their table's mu.
package ipc
