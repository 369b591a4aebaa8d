// Package ring holds the byte queues of pipes, sockets and terminals: a growing ring of bytes, and a
// queue of records over it that keeps message boundaries and what travels with a message.
//
// A ring that is emptied and filled again takes at once what it needed before. Memory of 64 KiB to 1 MiB that a ring gives up goes to the
// next that grows, as long as the runtime keeps it (sync.Pool).
//
// It is a leaf: it imports nothing of the module. Nothing in it locks; the owner does.
package ring
