package boot

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/profile"
)

// maxInFlight bounds the requests of one connection that are being served at a time.
const maxInFlight = 64

// Server serves control connections.
type Server struct {
	kernel Kernel

	mu sync.Mutex
	// inFlight counts requests whose reply is not written yet; guarded by mu.
	inFlight int
	// idle is closed when inFlight drops to 0 after closing is set; both guarded by mu.
	closing bool
	idle    chan struct{}
	// ending is closed when closing is set: what takes its time ends early then.
	ending chan struct{}
	cpu    profile.CPU
	// members are the containers that requests created; guarded by mu.
	members map[*member]bool
}

// member is a container that a request created. Several things end it, at about the same time; it is destroyed once, since
// by then its ID may be that of another.
type member struct {
	id   string
	once sync.Once
}

// NewServer makes a server for k.
func NewServer(k Kernel) *Server {
	return &Server{kernel: k, idle: make(chan struct{}), ending: make(chan struct{}), members: make(map[*member]bool)}
}

// Listen accepts connections on a listening socket until it fails; it owns fd.
func (s *Server) Listen(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	l := os.NewFile(uintptr(fd), "control")
	defer l.Close()
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var nfd int
		var aerr error
		err := raw.Read(func(fd uintptr) bool {
			nfd, _, aerr = unix.Accept4(int(fd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return aerr != unix.EAGAIN
		})
		if err != nil {
			return err
		}
		switch aerr {
		case nil:
		case unix.EINTR, unix.ECONNABORTED:
			continue
		case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
			time.Sleep(10 * time.Millisecond)
			continue
		default:
			return aerr
		}
		c, err := NewPollConn(nfd)
		if err != nil {
			unix.Close(nfd)
			continue
		}
		go s.Serve(c)
	}
}

// peer is the server's side of one connection.
type peer struct {
	s     *Server
	c     *Conn
	slots chan struct{} // one token per request in flight
	left  chan struct{} // closed when the connection is

	send sync.Mutex // serialises replies

	mu       sync.Mutex
	attached []execID  // processes that die with the connection; guarded by mu
	created  []*member // containers that do; guarded by mu
	gone     bool      // the connection is closed; guarded by mu
}

type execID struct {
	container string
	pid       int32
}

// Serve answers the requests of one connection until it closes.
func (s *Server) Serve(c *Conn) {
	p := &peer{s: s, c: c, slots: make(chan struct{}, maxInFlight), left: make(chan struct{})}
	defer c.Close()
	defer p.hangup()
	for {
		f, err := c.Recv()
		if err != nil {
			return
		}
		if !s.begin() {
			closeAll(f.FDs)
			return
		}
		p.slots <- struct{}{}
		go func() {
			r := p.handle(&f)
			p.send.Lock()
			p.c.SendMessage(KindReply, f.ID, r) // on error Recv fails too
			p.send.Unlock()
			<-p.slots
			s.end()
		}()
	}
}

// hangup kills what the connection kept alive.
func (p *peer) hangup() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	close(p.left)
	for _, x := range p.attached {
		p.s.kernel.Signal(x.container, x.pid, int32(unix.SIGKILL), false)
	}
	for _, m := range p.created {
		go p.s.destroy(m)
	}
}

func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.inFlight++
	return true
}

func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
	if s.closing && s.inFlight == 0 {
		close(s.idle)
	}
}

// destroy ends a container that a request created; it returns when that has ended.
func (s *Server) destroy(m *member) {
	m.once.Do(func() { s.kernel.Destroy(m.id) })
	s.mu.Lock()
	delete(s.members, m)
	s.mu.Unlock()
}

// DestroyMembers begins to end every container that a request created, so that those who wait for them hear of their end.
func (s *Server) DestroyMembers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for m := range s.members {
		go s.destroy(m)
	}
}

// Drain refuses new requests and waits until those in flight are answered, at most for the timeout.
func (s *Server) Drain(timeout time.Duration) {
	s.mu.Lock()
	s.closing = true
	close(s.ending)
	idle := s.inFlight == 0
	s.mu.Unlock()
	if idle {
		return
	}
	select {
	case <-s.idle:
	case <-time.After(timeout):
	}
}

// handle serves one request.
func (p *peer) handle(f *Frame) *Reply {
	r := &Reply{}
	var err error
	switch f.Kind {
	case KindCreate:
		err = p.create(f)
	case KindExec:
		err = p.exec(f, r)
	case KindUpdate:
		var q UpdateRequest
		if err = decode(f, &q); err == nil {
			err = p.s.kernel.Update(q.Container, &q.Limits)
		}
	case KindProfile:
		r.Profile, err = p.profile(f)
	default:
		var q Request
		if err = decode(f, &q); err == nil {
			err = p.s.simple(f.Kind, &q, r)
			if f.Kind == KindWait {
				p.exited(q.Container, q.PID)
			}
		}
	}
	if err != nil {
		r.Err = toError(err)
	}
	return r
}

// Decode checks the kind of a received frame and decodes it into m; descriptors that m does not claim are closed.
func Decode(f *Frame, k Kind, m Message) error {
	if f.Kind != k {
		closeAll(f.FDs)
		return errors.New("message of an unexpected kind")
	}
	return decode(f, m)
}

// decode decodes a request; descriptors that it does not use are closed.
func decode(f *Frame, m Message) error {
	left, err := Unmarshal(m, f.Data, f.FDs)
	closeAll(left)
	return err
}

// create makes a further container in the sandbox, which goes when the connection closes or its gofer dies.
func (p *peer) create(f *Frame) error {
	c := new(Container)
	if err := decode(f, c); err != nil {
		return err
	}
	if err := p.s.kernel.Create(c); err != nil {
		closeAll([]int{c.Lifeline})
		return err
	}
	m := &member{id: c.ID}
	p.s.mu.Lock()
	p.s.members[m] = true
	p.s.mu.Unlock()
	p.mu.Lock()
	p.created = append(p.created, m)
	gone := p.gone
	p.mu.Unlock()
	if gone {
		p.s.destroy(m)
	}
	go func() {
		if awaitHangup(c.Lifeline) {
			p.s.destroy(m)
		}
	}()
	return nil
}

func (p *peer) exec(f *Frame, r *Reply) error {
	var q ExecRequest
	if err := decode(f, &q); err != nil {
		return err
	}
	pid, err := p.s.kernel.Exec(q.Container, &q.Process)
	if err != nil {
		return err
	}
	r.PID = pid
	if q.Attached {
		p.mu.Lock()
		p.attached = append(p.attached, execID{q.Container, pid})
		gone := p.gone
		p.mu.Unlock()
		if gone {
			p.s.kernel.Signal(q.Container, pid, int32(unix.SIGKILL), false)
		}
	}
	return nil
}

// exited forgets a process whose end the peer knows.
func (p *peer) exited(container string, pid int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, x := range p.attached {
		if x.container == container && x.pid == pid {
			p.attached = append(p.attached[:i], p.attached[i+1:]...)
			p.s.kernel.Forget(container, pid)
			return
		}
	}
}

// simple serves the requests that carry no more than a Request.
func (s *Server) simple(k Kind, q *Request, r *Reply) (err error) {
	switch k {
	case KindStart:
		return s.kernel.Start(q.Container)
	case KindWait:
		r.Status, err = s.kernel.Wait(q.Container, q.PID)
	case KindSignal:
		return s.kernel.Signal(q.Container, q.PID, q.Signal, q.All)
	case KindProcesses:
		r.Processes, err = s.kernel.Processes(q.Container)
	case KindPause:
		return s.kernel.Pause(q.Container)
	case KindResume:
		return s.kernel.Resume(q.Container)
	case KindResize:
		if q.Rows > 0xffff || q.Cols > 0xffff {
			return unix.EINVAL
		}
		return s.kernel.Resize(q.Container, q.PID, uint16(q.Rows), uint16(q.Cols))
	case KindStats:
		r.Stats, err = s.kernel.Stats(q.Container)
	default:
		return &Error{ErrUnsupported, fmt.Sprintf("unknown request %d", k)}
	}
	return err
}

// toError makes an error fit for the socket.
func toError(err error) Error {
	var e *Error
	if errors.As(err, &e) {
		return *e
	}
	return Error{ErrFailed, err.Error()}
}
