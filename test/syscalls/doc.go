// Package syscalls holds the system call tests: C programs (directory c, one file per family) that
// must pass on the host kernel first and then, unchanged, in the sandbox.
package syscalls
