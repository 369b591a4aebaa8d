package unix

import (
	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/socket"
	"husk/pkg/sentry/uio"
	"husk/pkg/sentry/vfs"
)

// GetOption implements socket.Socket.
func (s *Socket) GetOption(t *kernel.Task, level, name int, buf []byte) (int, error) {
	if level != unix.SOL_SOCKET {
		return 0, unix.EOPNOTSUPP
	}
	switch name {
	case unix.SO_ACCEPTCONN:
		s.mu.Lock()
		v := 0
		if s.state == listening {
			v = 1
		}
		s.mu.Unlock()
		return socket.PutInt(buf, v), nil
	case unix.SO_PEERCRED:
		u := s.PeerCred()
		var b [12]byte
		socket.EncodeUcred(t, &u.Ucred, b[:])
		copy(buf, b[:])
		return 12, nil
	case unix.SO_PEERSEC:
		return 0, unix.ENOPROTOOPT
	}
	return s.GetCommon(t, name, buf)
}

// PeerCred are the credentials of the other end when it connected or listened; IDs are auth.NoID without one.
func (s *Socket) PeerCred() socket.PeerCred {
	if c := s.cred.Load(); c != nil {
		return *c
	}
	return socket.PeerCred{Ucred: socket.Ucred{UID: auth.KUID(auth.NoID), GID: auth.KGID(auth.NoID)}}
}

// SetOption implements socket.Socket.
func (s *Socket) SetOption(t *kernel.Task, level, name int, val []byte) error {
	if level != unix.SOL_SOCKET {
		return unix.EOPNOTSUPP
	}
	err := s.SetCommon(t, name, val)
	if err == nil && name == unix.SO_SNDBUF {
		s.events.Notify(0)
	}
	return err
}

// Ioctl implements vfs.Ioctler.
func (s *Socket) Ioctl(ctx vfs.Context, fd *vfs.FileDescription, cmd uint32, arg uint64) (uintptr, error) {
	switch cmd {
	case unix.TIOCINQ:
		s.mu.Lock()
		isListener := s.state == listening
		s.mu.Unlock()
		if isListener {
			return 0, unix.EINVAL
		}
		s.recv.mu.Lock()
		n := s.recv.data.Len()
		if s.Type != unix.SOCK_STREAM && s.recv.msgs.Len() > 0 {
			n = s.recv.msgs.At(0).n
		}
		s.recv.mu.Unlock()
		return 0, uio.PutInt32(ctx, arg, int32(n))
	case unix.TIOCOUTQ:
		n := 0
		if p := s.peer.Load(); p != nil {
			p.recv.mu.Lock()
			n = p.recv.data.Len()
			p.recv.mu.Unlock()
		}
		return 0, uio.PutInt32(ctx, arg, int32(n))
	}
	return 0, linux.ENOIOCTLCMD
}
