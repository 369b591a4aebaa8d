// Package ring holds the byte queues of pipes, sockets and terminals: a growing ring of bytes, and a
// queue of records over it that keeps message boundaries and what travels with a message.
//
// It is a leaf: it imports nothing of the module. Nothing in it locks; the owner does.
package ring
