package syscalls

import (
	"encoding/binary"

	"husk/pkg/arch"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/socket"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

// socketEntries are socket(2) and the calls on sockets but for the transfer of data.
func socketEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_SOCKET, Name: "socket", Handler: socketCall, Args: "int hex int"},
		{Number: unix.SYS_SOCKETPAIR, Name: "socketpair", Handler: socketpair, Args: "int hex int pipefds"},
		{Number: unix.SYS_BIND, Name: "bind", Handler: bind, Args: "fd hex int"},
		{Number: unix.SYS_LISTEN, Name: "listen", Handler: listen, Args: "fd int"},
		{Number: unix.SYS_ACCEPT, Name: "accept", Handler: accept, Args: "fd hex hex"},
		{Number: unix.SYS_ACCEPT4, Name: "accept4", Handler: accept4, Args: "fd hex hex hex"},
		{Number: unix.SYS_CONNECT, Name: "connect", Handler: connect, Args: "fd hex int"},
		{Number: unix.SYS_GETSOCKNAME, Name: "getsockname", Handler: getsockname, Args: "fd hex hex"},
		{Number: unix.SYS_GETPEERNAME, Name: "getpeername", Handler: getpeername, Args: "fd hex hex"},
		{Number: unix.SYS_SHUTDOWN, Name: "shutdown", Handler: shutdown, Args: "fd int"},
		{Number: unix.SYS_SETSOCKOPT, Name: "setsockopt", Handler: setsockopt, Args: "fd int int hex int"},
		{Number: unix.SYS_GETSOCKOPT, Name: "getsockopt", Handler: getsockopt, Args: "fd int int hex hex"},
		{Number: unix.SYS_SENDTO, Name: "sendto", Handler: sendto, Args: "fd buf size hex hex int"},
		{Number: unix.SYS_RECVFROM, Name: "recvfrom", Handler: recvfrom, Args: "fd outbuf size hex hex hex"},
		{Number: unix.SYS_SENDMSG, Name: "sendmsg", Handler: sendmsg, Args: "fd hex hex"},
		{Number: unix.SYS_RECVMSG, Name: "recvmsg", Handler: recvmsg, Args: "fd hex hex"},
		{Number: unix.SYS_SENDMMSG, Name: "sendmmsg", Handler: sendmmsg, Args: "fd hex int hex"},
		{Number: unix.SYS_RECVMMSG, Name: "recvmmsg", Handler: recvmmsg, Args: "fd hex int hex hex"},
	}
}

// getSocket is the socket of descriptor fd and its file, with a reference. EBADF, ENOTSOCK.
func getSocket(t *kernel.Task, fd int32) (socket.Socket, *vfs.FileDescription, error) {
	f, err := getFile(t, fd)
	if err != nil {
		return nil, nil, err
	}
	s, ok := f.Impl().(socket.Socket)
	if !ok {
		err = unix.ENOTSOCK
		if f.IsPathOnly() {
			err = unix.EBADF
		}
		f.DecRef()
		return nil, nil, err
	}
	return s, f, nil
}

// splitType takes SOCK_NONBLOCK and SOCK_CLOEXEC off the type of socket(2).
func splitType(v int32) (typ, flags int, err error) {
	flags = int(v) & (unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC)
	typ = int(v) &^ flags
	if typ&^0xf != 0 || typ == 0 || typ > unix.SOCK_PACKET {
		return 0, 0, unix.EINVAL
	}
	return typ, flags, nil
}

func socketCall(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	typ, flags, err := splitType(a[1].Int())
	if err != nil {
		return 0, err
	}
	fam, err := socket.RegistryOf(t.Kernel()).Family(int(a[0].Int()))
	if err != nil {
		return 0, err
	}
	s, err := fam.Socket(t, typ, int(a[2].Int()))
	if err != nil {
		return 0, err
	}
	return installFile(t, socket.NewFile(t, t.Kernel().VFS(), s, flags), flags&unix.SOCK_CLOEXEC != 0)
}

func socketpair(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	typ, flags, err := splitType(a[1].Int())
	if err != nil {
		return 0, err
	}
	fam, err := socket.RegistryOf(t.Kernel()).Family(int(a[0].Int()))
	if err != nil {
		return 0, err
	}
	x, y, err := fam.Pair(t, typ, int(a[2].Int()))
	if err != nil {
		return 0, err
	}
	v := t.Kernel().VFS()
	return 0, installPair(t, socket.NewFile(t, v, x, flags), socket.NewFile(t, v, y, flags), a[3].Pointer(), flags&unix.SOCK_CLOEXEC != 0)
}

// readAddr loads a socket address; EINVAL for impossible lengths.
func readAddr(t *kernel.Task, to *socket.Addr, addr uint64, length int32) error {
	if length < 0 || length > socket.MaxAddr {
		return unix.EINVAL
	}
	to.Len = int(length)
	if length == 0 {
		return nil
	}
	_, err := t.MM().CopyIn(addr, to.Data[:length])
	return err
}

// writeAddr stores a for the application as accept(2) and the like do: cut to *lenAddr, which then gets the whole length.
// addr 0 asks for nothing.
func writeAddr(t *kernel.Task, a *socket.Addr, addr, lenAddr uint64) error {
	if addr == 0 {
		return nil
	}
	room, err := t.MM().ReadUint32(lenAddr)
	if err != nil {
		return err
	}
	if int32(room) < 0 {
		return unix.EINVAL
	}
	if n := min(int(room), a.Len); n > 0 {
		if _, err := t.MM().CopyOut(addr, a.Data[:n]); err != nil {
			return err
		}
	}
	return t.MM().WriteUint32(lenAddr, uint32(a.Len))
}

func bind(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	var sa socket.Addr
	if err := readAddr(t, &sa, a[1].Pointer(), a[2].Int()); err != nil {
		return 0, err
	}
	return 0, s.BindAddr(t, &sa)
}

func listen(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return 0, s.Listen(t, int(a[1].Int()))
}

// ioDeadline is when a call on s gives up, by SO_RCVTIMEO or SO_SNDTIMEO.
func ioDeadline(s socket.Socket, write bool) int64 {
	if d := s.Common().IOTimeout(write); d > 0 {
		return clock.Monotonic() + d
	}
	return vfs.NoDeadline
}

func accept(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return doAccept(t, a[0].Int(), a[1].Pointer(), a[2].Pointer(), 0)
}

func accept4(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return doAccept(t, a[0].Int(), a[1].Pointer(), a[2].Pointer(), int(a[3].Int()))
}

func doAccept(t *kernel.Task, fd int32, addr, lenAddr uint64, flags int) (uintptr, error) {
	if flags&^(unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) != 0 {
		return 0, unix.EINVAL
	}
	s, f, err := getSocket(t, fd)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	// The descriptor comes first: a connection must not be lost for want of one.
	n, err := t.FDTable().Reserve(t, flags&unix.SOCK_CLOEXEC != 0)
	if err != nil {
		return 0, err
	}
	var peer socket.Addr
	c, err := s.Accept(t, &peer)
	if err == unix.EAGAIN && !f.Nonblocking() {
		err = retryBlocked(t, s, waiter.ReadableEvents, ioDeadline(s, false), func() (err error) {
			c, err = s.Accept(t, &peer)
			return err
		})
	}
	if err != nil {
		t.FDTable().Unreserve(n)
		return 0, err
	}
	file := socket.NewFile(t, t.Kernel().VFS(), c, flags)
	if err := writeAddr(t, &peer, addr, lenAddr); err != nil {
		t.FDTable().Unreserve(n)
		file.DecRef()
		return 0, err
	}
	t.FDTable().Fill(n, file)
	return uintptr(n), nil
}

func connect(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	var sa socket.Addr
	if err := readAddr(t, &sa, a[1].Pointer(), a[2].Int()); err != nil {
		return 0, err
	}
	err = s.Connect(t, &sa)
	if err != unix.EAGAIN && err != unix.EINPROGRESS || f.Nonblocking() {
		return 0, err
	}
	started := err == unix.EINPROGRESS
	err = retryBlocked(t, s.ConnectWait(), waiter.WritableEvents, ioDeadline(s, true), func() error {
		err := s.Connect(t, &sa)
		switch {
		case err == unix.EINPROGRESS || err == unix.EALREADY:
			started = true
			return unix.EAGAIN
		case err == unix.EISCONN && started:
			return nil
		}
		return err
	})
	if err == unix.EAGAIN && started {
		err = unix.EINPROGRESS // SO_SNDTIMEO has passed
	}
	return 0, err
}

func getsockname(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return nameOf(t, a, socket.Socket.Name)
}

func getpeername(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return nameOf(t, a, socket.Socket.Peer)
}

func nameOf(t *kernel.Task, a arch.SyscallArgs, get func(socket.Socket, *kernel.Task, *socket.Addr) error) (uintptr, error) {
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	var sa socket.Addr
	if err := get(s, t, &sa); err != nil {
		return 0, err
	}
	if a[1].Pointer() == 0 {
		return 0, unix.EFAULT
	}
	return 0, writeAddr(t, &sa, a[1].Pointer(), a[2].Pointer())
}

func shutdown(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	how := a[1].Int()
	if how < unix.SHUT_RD || how > unix.SHUT_RDWR {
		return 0, unix.EINVAL
	}
	return 0, s.Shutdown(t, int(how))
}

// maxOption bounds the values of socket options, in bytes.
const maxOption = 64 << 10

func setsockopt(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	n := a[4].Int()
	if n < 0 {
		return 0, unix.EINVAL
	}
	val := make([]byte, min(n, maxOption))
	if _, err := t.MM().CopyIn(a[3].Pointer(), val); err != nil {
		return 0, err
	}
	return 0, s.SetOption(t, int(a[1].Int()), int(a[2].Int()), val)
}

func getsockopt(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	room, err := t.MM().ReadUint32(a[4].Pointer())
	if err != nil {
		return 0, err
	}
	if int32(room) < 0 {
		return 0, unix.EINVAL
	}
	level, name := int(a[1].Int()), int(a[2].Int())
	buf := make([]byte, min(room, maxOption))
	n, err := specialOption(t, s, level, name, buf)
	if err == socket.ErrUnhandled {
		n, err = s.GetOption(t, level, name, buf)
	}
	if err != nil {
		return 0, err
	}
	n = min(n, len(buf))
	if _, err := t.MM().CopyOut(a[3].Pointer(), buf[:n]); err != nil {
		return 0, err
	}
	return 0, t.MM().WriteUint32(a[4].Pointer(), uint32(n))
}

// peerCreds is implemented by sockets that know who their peer is.
type peerCreds interface{ PeerCred() socket.PeerCred }

// specialOption reads options that need the task's tables; socket.ErrUnhandled for others.
func specialOption(t *kernel.Task, s socket.Socket, level, name int, buf []byte) (int, error) {
	p, ok := s.(peerCreds)
	if !ok || level != unix.SOL_SOCKET {
		return 0, socket.ErrUnhandled
	}
	switch name {
	case unix.SO_PEERPIDFD:
		c := p.PeerCred()
		if c.PID == nil {
			return 0, unix.ENODATA
		}
		fd, err := installFile(t, t.Kernel().NewPIDFD(c.PID, false, 0), true)
		if err != nil {
			return 0, err
		}
		return socket.PutInt(buf, int(fd)), nil
	case unix.SO_PEERGROUPS:
		groups := p.PeerCred().Groups
		if len(buf) < 4*len(groups) {
			return 0, unix.ERANGE
		}
		for i, g := range groups {
			v, _ := t.UserNS().GID(g)
			binary.LittleEndian.PutUint32(buf[4*i:], uint32(v))
		}
		return 4 * len(groups), nil
	}
	return 0, socket.ErrUnhandled
}

// checkCred vets the credentials that a process passes (unix(7), SCM_CREDENTIALS), in the numbers of its namespaces. EPERM, ESRCH, EINVAL.
func checkCred(t *kernel.Task, pid int32, uid, gid uint32) (socket.Ucred, error) {
	c, ns := t.Credentials(), t.UserNS()
	u := socket.Ucred{PID: t.Group().PID()}
	if pid != t.Group().ID() {
		if !t.HasCapIn(unix.CAP_SYS_ADMIN, t.PIDNS().UserNS()) {
			return u, unix.EPERM
		}
		g := t.PIDNS().GroupByTGID(pid)
		if g == nil {
			return u, unix.ESRCH
		}
		u.PID = g.PID()
	}
	var ok bool
	if u.UID, ok = ns.KUID(auth.UID(uid)); !ok {
		return u, unix.EINVAL
	}
	if u.GID, ok = ns.KGID(auth.GID(gid)); !ok {
		return u, unix.EINVAL
	}
	if u.UID != c.RUID && u.UID != c.EUID && u.UID != c.SUID && !t.HasCap(unix.CAP_SETUID) {
		return u, unix.EPERM
	}
	if u.GID != c.RGID && u.GID != c.EGID && u.GID != c.SGID && !t.HasCap(unix.CAP_SETGID) {
		return u, unix.EPERM
	}
	return u, nil
}
