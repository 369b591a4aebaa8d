package unix

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/ring"
	"husk/pkg/sentry/socket"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Family makes AF_UNIX sockets; one per kernel.
type Family struct {
	names  names
	rights rights
}

// NewFamily makes the family.
func NewFamily() *Family { return &Family{} }

// States of a socket.
const (
	idle = iota
	listening
	connected
)

// Socket is an AF_UNIX socket.
type Socket struct {
	socket.Base
	fam *Family                 // immutable
	ns  kernel.NetworkNamespace // immutable: where abstract names are; may be nil

	events waiter.Queue
	recv   queue
	name   atomic.Pointer[string] // set once
	peer   atomic.Pointer[Socket] // connected socket; datagrams: default destination
	cred   atomic.Pointer[socket.PeerCred]
	noSend atomic.Bool // SHUT_WR
	dead   atomic.Bool // closed

	mu      sync.Mutex
	state   int                // protected by mu, as is what follows
	path    vfs.Path           // node in the file system, with a reference
	backlog int                // listening
	pending ring.List[*Socket] // listening: connections to accept
	blocked []*Socket          // listening: sockets that wait for room in pending
	own     socket.PeerCred    // listening: credentials for connecting peers

	fd *vfs.FileDescription // the open file, set before use; the collector compares its references
}

// Socket implements socket.Family.
func (f *Family) Socket(t *kernel.Task, typ, protocol int) (socket.Socket, error) {
	if protocol != 0 && protocol != unix.AF_UNIX {
		return nil, unix.EPROTONOSUPPORT
	}
	switch typ {
	case unix.SOCK_RAW:
		typ = unix.SOCK_DGRAM
	case unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET:
	default:
		return nil, unix.ESOCKTNOSUPPORT
	}
	var ns kernel.NetworkNamespace
	if t != nil {
		ns = t.NetNS()
	}
	return f.newSocket(ns, typ), nil
}

func (f *Family) newSocket(ns kernel.NetworkNamespace, typ int) *Socket {
	s := &Socket{fam: f, ns: ns}
	s.InitBase(unix.AF_UNIX, typ, 0)
	return s
}

// Pair implements socket.Family.
func (f *Family) Pair(t *kernel.Task, typ, protocol int) (a, b socket.Socket, err error) {
	x, err := f.Socket(t, typ, protocol)
	if err != nil {
		return nil, nil, err
	}
	p := x.(*Socket)
	q := f.newSocket(p.ns, p.Type)
	var c socket.PeerCred
	if t != nil {
		c = socket.PeerCredOf(t)
	}
	p.join(q, &c, &c)
	return p, q, nil
}

// join connects two sockets; pc are the credentials that p's end shows of q, qc those that q shows of p.
func (p *Socket) join(q *Socket, pc, qc *socket.PeerCred) {
	p.cred.Store(pc)
	q.cred.Store(qc)
	p.peer.Store(q)
	q.peer.Store(p)
	p.state, q.state = connected, connected
}

// Bind implements vfs.FileBinder.
func (s *Socket) Bind(fd *vfs.FileDescription) { s.fd = fd }

// Listen implements socket.Socket.
func (s *Socket) Listen(t *kernel.Task, backlog int) error {
	if s.Type == unix.SOCK_DGRAM {
		return unix.EOPNOTSUPP
	}
	if backlog < 0 || backlog > maxBacklog {
		backlog = maxBacklog
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name.Load() == nil || s.state == connected {
		return unix.EINVAL
	}
	s.own = socket.PeerCredOf(t)
	s.state, s.backlog = listening, backlog
	s.wakeConnectors()
	return nil
}

// maxBacklog is /proc/sys/net/core/somaxconn.
const maxBacklog = 4096

// wakeConnectors tells waiting sockets that there may be room; mu is held.
func (s *Socket) wakeConnectors() {
	for i, o := range s.blocked {
		s.blocked[i] = nil
		o.events.Notify(waiter.WritableEvents)
	}
	s.blocked = s.blocked[:0]
}

// Connect implements socket.Socket.
func (s *Socket) Connect(t *kernel.Task, a *socket.Addr) error {
	if a.Len < 2 {
		return unix.EINVAL
	}
	if s.Type == unix.SOCK_DGRAM {
		return s.connectDgram(t, a)
	}
	if s.Bool(unix.SO_PASSCRED) {
		if err := s.autobind(); err != nil {
			return err
		}
	}
	l, err := s.find(t, a)
	if err != nil {
		return err
	}
	me := socket.PeerCredOf(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case connected:
		return unix.EISCONN
	case listening:
		return unix.EINVAL
	}
	if l == s {
		return unix.ECONNREFUSED
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != listening || l.dead.Load() || l.recv.closed.Load() {
		return unix.ECONNREFUSED
	}
	if l.pending.Len() > l.backlog {
		l.await(s)
		return unix.EAGAIN
	}
	c := s.fam.newSocket(l.ns, l.Type)
	c.SetBool(unix.SO_PASSCRED, l.Bool(unix.SO_PASSCRED))
	c.name.Store(l.name.Load())
	own := l.own
	s.join(c, &own, &me)
	l.pending.Push(c)
	l.events.Notify(waiter.ReadableEvents)
	return nil
}

// await notes that o waits for room in pending; mu is held.
func (s *Socket) await(o *Socket) {
	for _, x := range s.blocked {
		if x == o {
			return
		}
	}
	s.blocked = append(s.blocked, o)
}

// connectDgram sets or (AF_UNSPEC) clears the default destination.
func (s *Socket) connectDgram(t *kernel.Task, a *socket.Addr) error {
	if a.Family() == unix.AF_UNSPEC {
		s.peer.Store(nil)
		s.mu.Lock()
		s.state = idle
		s.mu.Unlock()
		s.events.Notify(waiter.WritableEvents)
		return nil
	}
	if s.Bool(unix.SO_PASSCRED) {
		if err := s.autobind(); err != nil {
			return err
		}
	}
	o, err := s.find(t, a)
	if err != nil {
		return err
	}
	if p := o.peer.Load(); p != nil && p != s {
		return unix.EPERM
	}
	s.peer.Store(o)
	s.mu.Lock()
	s.state = connected
	s.mu.Unlock()
	s.events.Notify(waiter.WritableEvents)
	return nil
}

// ConnectWait implements socket.Socket.
func (s *Socket) ConnectWait() waiter.Waitable { return connectWait{s} }

// connectWait waits for room in a listener's queue: there is no state to ask, so it is always worth a try.
type connectWait struct{ s *Socket }

func (c connectWait) Readiness(mask waiter.EventMask) waiter.EventMask { return 0 }
func (c connectWait) EventRegister(e *waiter.Entry)                    { c.s.events.EventRegister(e) }
func (c connectWait) EventUnregister(e *waiter.Entry)                  { c.s.events.EventUnregister(e) }

// Accept implements socket.Socket.
func (s *Socket) Accept(t *kernel.Task, peer *socket.Addr) (socket.Socket, error) {
	if s.Type == unix.SOCK_DGRAM {
		return nil, unix.EOPNOTSUPP
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != listening {
		return nil, unix.EINVAL
	}
	if s.pending.Len() == 0 {
		if s.recv.closed.Load() {
			return nil, unix.EINVAL
		}
		return nil, unix.EAGAIN
	}
	// The collector must not see the socket neither here nor open.
	c := s.pending.Pop()
	s.wakeConnectors()
	if p := c.peer.Load(); p != nil {
		putName(peer, p.name.Load())
	}
	return c, nil
}

// Shutdown implements socket.Socket.
func (s *Socket) Shutdown(t *kernel.Task, how int) error {
	p := s.peer.Load()
	s.mu.Lock()
	state := s.state
	s.mu.Unlock()
	if how != unix.SHUT_RD {
		s.noSend.Store(true)
	}
	if how != unix.SHUT_WR {
		s.recv.close()
	}
	if p != nil && s.Type != unix.SOCK_DGRAM && state == connected {
		if how != unix.SHUT_RD {
			p.recv.close()
		}
		m := waiter.ReadableEvents | waiter.WritableEvents | waiter.EventRdHUp
		if p.hungUp() {
			m |= waiter.EventHUp
		}
		p.events.Notify(m)
	}
	s.events.Notify(waiter.AllEvents)
	return nil
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed.Store(true)
	q.mu.Unlock()
}

// sendShut tells whether writes give EPIPE.
func (s *Socket) sendShut() bool {
	if s.noSend.Load() {
		return true
	}
	p := s.peer.Load()
	return s.Type != unix.SOCK_DGRAM && p != nil && p.recv.closed.Load()
}

func (s *Socket) hungUp() bool { return s.recv.closed.Load() && s.sendShut() }

// Release implements vfs.FileImpl.
func (s *Socket) Release() {
	s.kill()
	s.fam.rights.collectAll()
}

// kill ends a socket; the files in its queue are dropped.
func (s *Socket) kill() {
	s.dead.Store(true)
	s.unname()
	s.mu.Lock()
	was := s.state
	s.state = idle
	var orphans []*Socket
	for s.pending.Len() > 0 {
		orphans = append(orphans, s.pending.Pop())
	}
	s.wakeConnectors()
	s.mu.Unlock()
	for _, o := range orphans {
		o.reset()
		o.kill()
	}

	s.recv.mu.Lock()
	s.recv.closed.Store(true)
	unread := s.recv.msgs.Len() > 0
	blocked := s.recv.unblock()
	s.recv.mu.Unlock()
	s.fam.rights.purge(&s.recv)
	for _, o := range blocked {
		o.events.Notify(waiter.WritableEvents | waiter.EventErr)
	}
	if p := s.peer.Load(); p != nil && s.Type != unix.SOCK_DGRAM && was == connected {
		if unread {
			s.reset()
		}
		p.recv.close()
		p.events.Notify(waiter.AllEvents)
	}
}

// reset makes the peer find ECONNRESET.
func (s *Socket) reset() {
	if p := s.peer.Load(); p != nil {
		p.Err.Store(int32(unix.ECONNRESET))
	}
}

// Readiness implements waiter.Waitable.
func (s *Socket) Readiness(mask waiter.EventMask) waiter.EventMask {
	var m waiter.EventMask
	s.mu.Lock()
	state, pending := s.state, s.pending.Len()
	s.mu.Unlock()
	if s.Err.Load() != 0 {
		m |= waiter.EventErr
	}
	s.recv.mu.Lock()
	readable, rcvShut := s.recv.msgs.Len() > 0, s.recv.closed.Load()
	s.recv.mu.Unlock()
	if rcvShut {
		m |= waiter.ReadableEvents | waiter.EventRdHUp
		if s.sendShut() {
			m |= waiter.EventHUp
		}
	}
	if readable || pending > 0 {
		m |= waiter.ReadableEvents
	}
	if s.Type != unix.SOCK_DGRAM && state == idle {
		m |= waiter.EventHUp
	}
	if state != listening && mask&waiter.WritableEvents != 0 && s.writable() {
		m |= waiter.WritableEvents
	}
	return m & mask
}

// writable tells whether poll(2) shows POLLOUT: half the buffer is free. Who is told no is notified later.
func (s *Socket) writable() bool {
	p := s.peer.Load()
	if p == nil || p.dead.Load() {
		return true
	}
	p.recv.mu.Lock()
	defer p.recv.mu.Unlock()
	if s.Type == unix.SOCK_DGRAM {
		if p.full(s) && !p.recv.closed.Load() {
			p.recv.await(s)
			return false
		}
		return true
	}
	return p.recv.closed.Load() || p.recv.data.Len() <= int(s.SendBuf.Load())/2 && (s.Type == unix.SOCK_STREAM || p.recv.msgs.Len() < maxPackets)
}

// EventRegister implements waiter.Waitable.
func (s *Socket) EventRegister(e *waiter.Entry) { s.events.EventRegister(e) }

// EventUnregister implements waiter.Waitable.
func (s *Socket) EventUnregister(e *waiter.Entry) { s.events.EventUnregister(e) }
