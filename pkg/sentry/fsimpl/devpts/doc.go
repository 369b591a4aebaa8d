// Package devpts implements terminals: pseudo-terminals in instances of the devpts file system (pts(4)), and the
// terminal of the host that a container was started with, which stands in the instance as another slave.
//
// Both are a Terminal: the line discipline of package tty with job control of package kernel. It must not
// import syscalls.
//
// Lock order:
//
//	Instance.mu
//	Terminal.mu
//	  locks of vfs, the line discipline
//	The kernel's tree lock is taken without any of these.
package devpts
