// Package uio copies the arguments of ioctl(2) between the sentry and the memory of the caller. It
// imports vfs, mm and leaves.
package uio
