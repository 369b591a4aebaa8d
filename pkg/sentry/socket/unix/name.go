package unix

import (
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/socket"
	"husk/pkg/sentry/vfs"
)

// pathMax is sizeof(sun_path).
const pathMax = 108

// parseName checks a sockaddr_un and returns its name: "" for none, a path without the NUL, or an abstract name with
// its leading NUL byte (unix(7)). EINVAL.
func parseName(a *socket.Addr) (string, error) {
	if a.Len < 2 || a.Len > 2+pathMax || a.Family() != unix.AF_UNIX {
		return "", unix.EINVAL
	}
	b := a.Data[2:a.Len]
	if len(b) == 0 || b[0] == 0 {
		return string(b), nil
	}
	for i, c := range b {
		if c == 0 {
			b = b[:i]
			break
		}
	}
	return string(b), nil
}

// putName stores name, which may be nil, as sockaddr_un.
func putName(a *socket.Addr, name *string) {
	a.SetFamily(unix.AF_UNIX)
	if name == nil {
		return
	}
	a.Len += copy(a.Data[2:], *name)
	if (*name)[0] != 0 && a.Len < len(a.Data) {
		a.Data[a.Len] = 0
		a.Len++
	}
}

// names are the abstract names of all network namespaces.
type names struct {
	mu   sync.Mutex
	m    map[nameKey]*Socket // protected by mu
	auto uint32              // protected by mu: the latest number given by autobind
}

type nameKey struct {
	ns   kernel.NetworkNamespace
	name string
}

// claim gives an abstract name to s; EADDRINUSE.
func (n *names) claim(ns kernel.NetworkNamespace, name string, s *Socket) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := nameKey{ns, name}
	if n.m[k] != nil {
		return unix.EADDRINUSE
	}
	if n.m == nil {
		n.m = make(map[nameKey]*Socket)
	}
	n.m[k] = s
	return nil
}

// autobind gives s a name of five hexadecimal digits that is free; ENOSPC.
func (n *names) autobind(ns kernel.NetworkNamespace, s *Socket) (string, error) {
	const limit = 1 << 20
	for range limit {
		n.mu.Lock()
		n.auto = (n.auto + 1) % limit
		v := n.auto
		n.mu.Unlock()
		b := [6]byte{}
		for i := 5; i > 0; i-- {
			b[i] = "0123456789abcdef"[v&15]
			v >>= 4
		}
		name := string(b[:])
		if n.claim(ns, name, s) == nil {
			return name, nil
		}
	}
	return "", unix.ENOSPC
}

func (n *names) lookup(ns kernel.NetworkNamespace, name string) *Socket {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.m[nameKey{ns, name}]
}

func (n *names) release(ns kernel.NetworkNamespace, name string, s *Socket) {
	n.mu.Lock()
	if k := (nameKey{ns, name}); n.m[k] == s {
		delete(n.m, k)
	}
	n.mu.Unlock()
}

// BindAddr implements socket.Socket.
func (s *Socket) BindAddr(t *kernel.Task, a *socket.Addr) error {
	name, err := parseName(a)
	if err != nil {
		return err
	}
	if name == "" {
		return s.autobind()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name.Load() != nil {
		if name[0] != 0 {
			// As on Linux, which makes the node first.
			if p, err := t.Kernel().VFS().Walk(t, vfs.Path{}, name, 0); err == nil {
				p.DecRef()
				return unix.EADDRINUSE
			}
		}
		return unix.EINVAL
	}
	if name[0] == 0 {
		if err := s.fam.names.claim(s.ns, name, s); err != nil {
			return err
		}
		s.name.Store(&name)
		return nil
	}
	mode := uint32(unix.S_IFSOCK) | 0777
	p, err := t.Kernel().VFS().MknodPath(t, vfs.Path{}, name, mode, 0)
	if err != nil {
		if err == unix.EEXIST {
			err = unix.EADDRINUSE
		}
		return err
	}
	p.Inode().Slot(vfs.SlotSocket, func(any) any { return s })
	s.path = p
	s.name.Store(&name)
	return nil
}

// autobind gives the socket an abstract name unless it has one.
func (s *Socket) autobind() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name.Load() != nil {
		return nil
	}
	name, err := s.fam.names.autobind(s.ns, s)
	if err == nil {
		s.name.Store(&name)
	}
	return err
}

// unname undoes what BindAddr did besides the node; the socket is closed.
func (s *Socket) unname() {
	s.mu.Lock()
	name, p := s.name.Load(), s.path
	s.path = vfs.Path{}
	s.mu.Unlock()
	if name != nil && (*name)[0] == 0 {
		s.fam.names.release(s.ns, *name, s)
	}
	if !p.IsZero() {
		p.Inode().Slot(vfs.SlotSocket, func(old any) any {
			if old == any(s) {
				return nil
			}
			return old
		})
		p.DecRef()
	}
}

// find looks up the socket that is bound to an address: ECONNREFUSED, EACCES, the errors of path walks.
func (s *Socket) find(t *kernel.Task, a *socket.Addr) (*Socket, error) {
	name, err := parseName(a)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, unix.EINVAL
	}
	var o *Socket
	if name[0] == 0 {
		o = s.fam.names.lookup(s.ns, name)
	} else {
		p, err := t.Kernel().VFS().Walk(t, vfs.Path{}, name, vfs.FollowLast)
		if err != nil {
			return nil, err
		}
		defer p.DecRef()
		if err := vfs.CheckPermission(t, p.Inode(), vfs.MayWrite); err != nil {
			return nil, err
		}
		if p.Inode().Type() != unix.S_IFSOCK {
			return nil, unix.ECONNREFUSED
		}
		o, _ = p.Inode().Slot(vfs.SlotSocket, func(old any) any { return old }).(*Socket)
	}
	if o == nil || o.dead.Load() {
		return nil, unix.ECONNREFUSED
	}
	if o.Type != s.Type {
		return nil, unix.EPROTOTYPE
	}
	return o, nil
}

// Name implements socket.Socket.
func (s *Socket) Name(t *kernel.Task, a *socket.Addr) error {
	putName(a, s.name.Load())
	return nil
}

// Peer implements socket.Socket.
func (s *Socket) Peer(t *kernel.Task, a *socket.Addr) error {
	p := s.peer.Load()
	if p == nil {
		return unix.ENOTCONN
	}
	putName(a, p.name.Load())
	return nil
}
