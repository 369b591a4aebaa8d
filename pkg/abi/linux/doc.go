// Package linux holds constants and fixed-layout structures of the Linux interface that golang.org/x/sys/unix lacks. It
// has no behaviour and imports nothing of the module.
package linux
