// Package syscalls holds the system call table and the handlers, one file per family of man pages.
//
// The table is data and the single source for dispatch, strace and documentation. A family's file has a function that
// returns its entries, listed in families. Handlers check their arguments as Linux does and leave the work to
// kernel, mm, vfs and socket; they keep no state and take no locks of their own.
package syscalls
