package hostfile

import (
	"strconv"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// node is the inode of a host file; it owns the descriptor.
type node struct {
	vfs.Inode
	vfs.NoOps
	host   *Host
	fd     int    // immutable
	access uint32 // immutable: O_ACCMODE and O_APPEND of the descriptor
	kind   uint32 // immutable: S_IFMT of the host's file
	polled bool   // immutable: registered with the host
	queue  waiter.Queue
}

// New makes an open file, with one reference, of host descriptor fd, which belongs to it from now on, also on error. The
// caller of ctx owns the file.
func (h *Host) New(ctx vfs.Context, fd int) (*vfs.FileDescription, error) {
	var st unix.Stat_t
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	n := &node{host: h, fd: fd, access: uint32(flags) & (unix.O_ACCMODE | unix.O_APPEND), kind: st.Mode & unix.S_IFMT}
	h.mu.Lock()
	h.ino++
	ino := h.ino
	h.mu.Unlock()
	c := ctx.Credentials()
	n.Init(n, h.sb, ino, st.Mode, c.FSUID, c.FSGID, vfs.InodeNoExec)
	if n.kind != unix.S_IFREG && n.kind != unix.S_IFDIR {
		n.polled = h.watch(n)
	}
	at := h.v.NewInodePath(h.mnt, &n.Inode, n.name(&st))
	defer at.DecRef()
	impl, err := n.OpenSelf(ctx, uint32(flags))
	if err != nil {
		return nil, err
	}
	f := h.v.NewFile(at, impl, uint32(flags)&(unix.O_ACCMODE|unix.O_APPEND|unix.O_NONBLOCK))
	if r, ok := impl.(*regular); ok {
		r.next = 0
		if off, err := unix.Seek(fd, 0, unix.SEEK_CUR); err == nil {
			f.Seek(ctx, off, unix.SEEK_SET)
		}
	}
	return f, nil
}

// name is what /proc/PID/fd/N shows.
func (n *node) name(st *unix.Stat_t) string {
	kind := "host"
	switch n.kind {
	case unix.S_IFIFO:
		kind = "pipe"
	case unix.S_IFSOCK:
		kind = "socket"
	case unix.S_IFCHR:
		if unix.Major(st.Rdev) == 1 && unix.Minor(st.Rdev) == 3 {
			return "/dev/null"
		}
	}
	return kind + ":[" + strconv.FormatUint(n.Ino(), 10) + "]"
}

// OpenSelf implements vfs.SelfOpener: the file again, as through /proc/PID/fd. EACCES for more than the descriptor allows; ENXIO for
// sockets, but for the first open.
func (n *node) OpenSelf(ctx vfs.Context, flags uint32) (vfs.FileImpl, error) {
	want, have := flags&unix.O_ACCMODE, n.access&unix.O_ACCMODE
	if have != unix.O_RDWR && want != have {
		return nil, unix.EACCES
	}
	if n.kind == unix.S_IFREG {
		return &regular{node: n, next: -1}, nil
	}
	if n.kind == unix.S_IFDIR {
		return nil, unix.EACCES
	}
	s := stream{n}
	if !n.polled {
		return s, nil
	}
	return polledStream{s}, nil
}

// Open implements vfs.InodeOps.
func (n *node) Open(ctx vfs.Context, flags uint32) (vfs.FileImpl, error) {
	return n.OpenSelf(ctx, flags)
}

// Stat implements vfs.InodeOps: the host's attributes that say something inside.
func (n *node) Stat(_ vfs.Context, _ uint32, st *vfs.Stat) error {
	st.Mode, st.UID, st.GID, st.Ino, st.Nlink = n.Mode(), n.UID(), n.GID(), n.Ino(), 1
	st.Dev, st.Blksize = n.Superblock().Dev(), 4096
	var h unix.Stat_t
	if n.fd < 0 || unix.Fstat(n.fd, &h) != nil {
		return nil
	}
	st.Size, st.Blocks, st.Blksize, st.Rdev = h.Size, uint64(h.Blocks), uint32(h.Blksize), h.Rdev
	st.Atime, st.Mtime, st.Ctime = h.Atim.Nano(), h.Mtim.Nano(), h.Ctim.Nano()
	return nil
}

// SetStat implements vfs.InodeOps. Owner and mode change in the sandbox only.
func (n *node) SetStat(_ vfs.Context, s *vfs.SetStat) error {
	if s.Mask&vfs.SetSize != 0 {
		if n.kind != unix.S_IFREG {
			if s.Mask&vfs.SetFromOpen != 0 {
				return nil
			}
			return unix.EINVAL
		}
		if n.access&unix.O_ACCMODE == unix.O_RDONLY {
			return unix.EACCES
		}
		if err := unix.Ftruncate(n.fd, s.Size); err != nil {
			return err
		}
	}
	if s.Mask&vfs.SetMode != 0 {
		n.SetMode(n.kind | s.Mode&07777)
	}
	if s.Mask&vfs.SetUID != 0 {
		n.SetUID(s.UID)
	}
	if s.Mask&vfs.SetGID != 0 {
		n.SetGID(s.GID)
	}
	return nil
}

// Release implements vfs.InodeOps.
func (n *node) Release() {
	if n.polled {
		n.host.unwatch(n)
	}
	if n.fd >= 0 {
		unix.Close(n.fd)
	}
}
