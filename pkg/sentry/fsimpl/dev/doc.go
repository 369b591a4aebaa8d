// Package dev serves the character devices that every container has: null(4), zero(4), full(4), random(4), tty(4), console(4)
// and ptmx(4). Their nodes may be anywhere; the device number decides.
//
// It must not import syscalls. It has no locks.
package dev
