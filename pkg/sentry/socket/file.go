package socket

import (
	"golang.org/x/sys/unix"

	"husk/pkg/sentry/vfs"
)

// NewFile makes the open file of a socket with one reference. flags may have SOCK_NONBLOCK.
func NewFile(v *vfs.VFS, s Socket, flags int) *vfs.FileDescription {
	return v.NewAnonFile("socket:", s, unix.O_RDWR|uint32(flags&unix.SOCK_NONBLOCK))
}

// Stat is what fstat(2) shows of a socket.
func Stat(fd *vfs.FileDescription, st *vfs.Stat) error {
	st.Mode, st.Nlink, st.Blksize = unix.S_IFSOCK|0777, 1, 4096
	if fd != nil && fd.Inode() != nil {
		st.Ino = fd.Inode().Ino()
	}
	return nil
}
