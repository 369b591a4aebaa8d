package socket

import (
	"golang.org/x/sys/unix"

	"husk/pkg/sentry/vfs"
)

// NewFile makes the open file of a socket with one reference. flags may have SOCK_NONBLOCK.
func NewFile(ctx vfs.Context, v *vfs.VFS, s Socket, flags int) *vfs.FileDescription {
	at := v.NewAnonPath(ctx, "socket", unix.S_IFSOCK|0777)
	f := v.NewFile(at, s, unix.O_RDWR|uint32(flags&unix.SOCK_NONBLOCK))
	at.DecRef()
	return f
}
