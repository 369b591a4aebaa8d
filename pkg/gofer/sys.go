package gofer

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// packet is the state of one message's transfer. It lives on the heap with its owner, so that the
// system calls below allocate nothing.
type packet struct {
	msg  unix.Msghdr
	iov  unix.Iovec
	ctrl [ctrlSize]byte
}

// ctrlSize is CMSG_SPACE of donateMax descriptors.
const ctrlSize = unix.SizeofCmsghdr + 4*donateMax

// descriptors are those that go with a message; unused places are -1.
type descriptors struct {
	fd [donateMax]int32
	n  int
}

// add appends a descriptor, which then belongs to d; there is room for donateMax.
func (d *descriptors) add(fd int) {
	d.fd[d.n] = int32(fd)
	d.n++
}

// take hands out the descriptor in place k, once; -1 if there is none.
func (d *descriptors) take(k int) int {
	if k >= d.n {
		return -1
	}
	fd := d.fd[k]
	d.fd[k] = -1
	return int(fd)
}

// close closes what has not been taken.
func (d *descriptors) close() {
	for _, fd := range d.fd[:d.n] {
		if fd >= 0 {
			unix.Close(int(fd))
		}
	}
	d.n = 0
}

// send transmits b, and fds unless it is nil or empty.
func (p *packet) send(conn int, b []byte, fds *descriptors) error {
	p.iov.Base = &b[0]
	p.iov.SetLen(len(b))
	p.msg = unix.Msghdr{Iov: &p.iov, Iovlen: 1}
	if fds != nil && fds.n > 0 {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&p.ctrl))
		h.Level = unix.SOL_SOCKET
		h.Type = unix.SCM_RIGHTS
		h.SetLen(unix.SizeofCmsghdr + 4*fds.n)
		copy(p.donated(), fds.fd[:fds.n])
		p.msg.Control = &p.ctrl[0]
		p.msg.SetControllen(unix.SizeofCmsghdr + (4*fds.n+7)&^7)
	}
	for {
		_, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(conn), uintptr(unsafe.Pointer(&p.msg)), unix.MSG_NOSIGNAL)
		switch e {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return e
		}
	}
}

// recv receives a packet into b: its length, 0 when the peer is gone. A packet longer than b is cut,
// which its length field reveals. Descriptors that come along are put into fds, which is empty; what is more than fits, or all
// with fds nil, the kernel drops.
func (p *packet) recv(conn int, b []byte, fds *descriptors) (n int, err error) {
	p.iov.Base = &b[0]
	p.iov.SetLen(len(b))
	for {
		p.msg = unix.Msghdr{Iov: &p.iov, Iovlen: 1}
		if fds != nil {
			p.msg.Control = &p.ctrl[0]
			p.msg.SetControllen(ctrlSize)
		}
		r, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(conn), uintptr(unsafe.Pointer(&p.msg)), unix.MSG_CMSG_CLOEXEC)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return 0, e
		}
		h := (*unix.Cmsghdr)(unsafe.Pointer(&p.ctrl))
		if fds != nil && p.msg.Controllen >= unix.SizeofCmsghdr && h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_RIGHTS {
			fds.n = copy(fds.fd[:], p.donated()[:min(int(h.Len)-unix.SizeofCmsghdr, 4*donateMax)/4])
		}
		return int(r), nil
	}
}

// donated is where the descriptors are in the control message.
func (p *packet) donated() []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(&p.ctrl[unix.SizeofCmsghdr])), donateMax)
}

var emptyName = [1]byte{} // the name of the descriptor itself, with AT_EMPTY_PATH

// beneath confines a lookup to what lies below the directory, through no link of any kind.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS

// openBeneath opens a component of dir.
func openBeneath(dir int, name cstr, flags, mode uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_NOFOLLOW | unix.O_CLOEXEC, Mode: mode, Resolve: beneath}
	for try := 0; ; try++ {
		fd, _, e := unix.Syscall6(unix.SYS_OPENAT2, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&how)), unix.SizeofOpenHow, 0, 0)
		switch {
		case e == 0:
			return int(fd), nil
		case e == unix.EINTR, e == unix.EAGAIN && try < 100: // EAGAIN: a rename or mount raced
			continue
		}
		return -1, e
	}
}

// statFD reads the attributes of the object that fd is open on, symbolic link or not.
func statFD(fd int, st *unix.Statx_t) error {
	_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&emptyName)), unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT,
		unix.STATX_BASIC_STATS|unix.STATX_BTIME, uintptr(unsafe.Pointer(st)), 0)
	if e != 0 {
		return e
	}
	return nil
}

// statAt reads the attributes of a component of dir, symbolic link or not.
func statAt(dir int, name cstr, st *unix.Statx_t) error {
	_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT,
		unix.STATX_BASIC_STATS|unix.STATX_BTIME, uintptr(unsafe.Pointer(st)), 0)
	if e != 0 {
		return e
	}
	return nil
}

// decimal is the name of fd in /proc/self/fd.
type decimal [12]byte

func (d *decimal) set(fd int) cstr {
	i := len(d) - 1
	d[i] = 0
	for v := uint32(fd); ; v /= 10 {
		i--
		d[i] = byte('0' + v%10)
		if v < 10 {
			return d[i:]
		}
	}
}

// StatFD reads the attributes of what the host descriptor fd is open on.
func StatFD(fd int, a *Attr) error {
	var st unix.Statx_t
	if err := statFD(fd, &st); err != nil {
		return err
	}
	a.fill(&st)
	return nil
}
