// Package tty is the terminal line discipline of termios(3) and ioctl_tty(2): editing of input lines,
// echo, output processing, flow control and the characters that raise signals. Pseudo-terminals
// (fsimpl/devpts) and the terminal that the container was started with (fsimpl/hosttty) are two ends around it.
//
// It imports leaves only: job control is reached through the Signaler interface.
//
// Lock order:
//
//	Line.mu
//	  waiter queues
//
// Signals are raised after Line.mu is released.
package tty
