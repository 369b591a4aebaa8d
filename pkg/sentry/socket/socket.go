package socket

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// MaxAddr is the size of struct sockaddr_storage, the largest address.
const MaxAddr = 128

// Addr is a socket address in the layout of the application: the first Len bytes of Data, of which two are the
// family. Len 0 is no address. It is a value, so that passing it allocates nothing.
type Addr struct {
	Len  int
	Data [MaxAddr]byte
}

// Bytes is the address; it aliases a.
func (a *Addr) Bytes() []byte { return a.Data[:a.Len] }

// Set stores b, cut to MaxAddr.
func (a *Addr) Set(b []byte) { a.Len = copy(a.Data[:], b) }

// Family is the address family; AF_UNSPEC if the address is too short to have one.
func (a *Addr) Family() int {
	if a.Len < 2 {
		return unix.AF_UNSPEC
	}
	return int(a.Data[0]) | int(a.Data[1])<<8
}

// SetFamily makes a the address of only a family.
func (a *Addr) SetFamily(f int) {
	a.Data[0], a.Data[1] = byte(f), byte(f>>8)
	a.Len = 2
}

// Message is what goes along with the data of sendmsg(2) and recvmsg(2).
type Message struct {
	// Addr is the destination (Len 0: the connected peer), or the source.
	Addr Addr
	// Control is the ancillary data.
	Control Control
	// Flags are those that recvmsg(2) returns in msg_flags: MSG_TRUNC, MSG_EOR.
	Flags int
	// Full is the length of the whole message, of which MSG_TRUNC lets recv return more than was copied.
	Full int64
}

// Reset makes m empty for another use; it keeps memory. Files in it must have been taken.
func (m *Message) Reset() {
	m.Addr.Len, m.Flags, m.Full = 0, 0, 0
	m.Control.reset()
}

// Control is ancillary data (cmsg(3)) in decoded form.
type Control struct {
	// Rights are files (SCM_RIGHTS) with one reference each.
	Rights []*vfs.FileDescription
	// Cred is SCM_CREDENTIALS if HasCred.
	Cred    Ucred
	HasCred bool
	// PIDFD asks for SCM_PIDFD with Cred's process.
	PIDFD bool
	// Other are messages of the protocols, for sending in the order of the application, for receiving in the order to deliver.
	Other []CMsg
}

// CMsg is one control message that the socket layer does not interpret.
type CMsg struct {
	Level, Type int32
	Data        []byte
}

func (c *Control) reset() {
	clear(c.Rights)
	clear(c.Other)
	c.Rights, c.Other = c.Rights[:0], c.Other[:0]
	c.Cred, c.HasCred, c.PIDFD = Ucred{}, false, false
}

// DropRights drops the references of the files.
func (c *Control) DropRights() {
	for i, f := range c.Rights {
		c.Rights[i] = nil
		f.DecRef()
	}
	c.Rights = c.Rights[:0]
}

// Socket is the implementation of an open socket. Methods never block: those that would return unix.EAGAIN
// (Connect: EINPROGRESS once it is under way) and the caller waits for the socket's readiness and calls again.
// Addresses and option values are hostile.
type Socket interface {
	vfs.FileImpl
	vfs.StreamReader
	vfs.StreamWriter
	waiter.Waitable

	// Common is what all sockets have: family, type, protocol and the options of SOL_SOCKET.
	Common() *Base

	// BindAddr is bind(2).
	BindAddr(t *kernel.Task, a *Addr) error
	Listen(t *kernel.Task, backlog int) error
	// Connect starts or goes on connecting. With EAGAIN (an AF_UNIX listener's queue is full) or EINPROGRESS the
	// caller waits for ConnectWait and calls again; EALREADY and EISCONN as connect(2) says.
	Connect(t *kernel.Task, a *Addr) error
	// ConnectWait is what to wait on after a Connect that did not finish.
	ConnectWait() waiter.Waitable
	// Accept takes a connection off the queue; peer gets the address of its other end.
	Accept(t *kernel.Task, peer *Addr) (Socket, error)
	// SendMsg sends src, all or (streams) a part: the count and EAGAIN if the rest would block. Control and Addr
	// of m are consumed with the first byte. EPIPE: the caller raises SIGPIPE unless MSG_NOSIGNAL.
	SendMsg(t *kernel.Task, src mm.IOSeq, m *Message, flags int) (int64, error)
	// RecvMsg receives into dst. flags: MSG_PEEK, MSG_TRUNC, MSG_OOB, MSG_ERRQUEUE, MSG_WAITALL...; the return is the
	// number of bytes copied.
	RecvMsg(t *kernel.Task, dst mm.IOSeq, m *Message, flags int) (int64, error)
	// Shutdown is shutdown(2): how is SHUT_RD, SHUT_WR or SHUT_RDWR, already checked.
	Shutdown(t *kernel.Task, how int) error
	// Name is the address of this end, Peer that of the other (ENOTCONN).
	Name(t *kernel.Task, a *Addr) error
	Peer(t *kernel.Task, a *Addr) error
	// GetOption and SetOption serve levels and options that the common part does not; ENOPROTOOPT. GetOption writes to
	// buf and returns the length of the whole value.
	GetOption(t *kernel.Task, level, name int, buf []byte) (int, error)
	SetOption(t *kernel.Task, level, name int, val []byte) error
}

// Family makes the sockets of an address family.
type Family interface {
	// Socket makes a socket. typ has no flags. EPROTONOSUPPORT, ESOCKTNOSUPPORT, EPERM...
	Socket(t *kernel.Task, typ, protocol int) (Socket, error)
	// Pair makes two that are connected; EOPNOTSUPP.
	Pair(t *kernel.Task, typ, protocol int) (a, b Socket, err error)
}

// Registry holds the families of a kernel.
type Registry struct {
	families [unix.AF_MAX]Family // written at start only
	cookies  atomic.Uint64
}

type registryKey struct{}

// RegistryOf is k's registry. It is made on first use.
func RegistryOf(k *kernel.Kernel) *Registry {
	return k.ValueOr(registryKey{}, func() any { return &Registry{} }).(*Registry)
}

// Register adds a family; at start only.
func (r *Registry) Register(family int, f Family) { r.families[family] = f }

// Family finds a family; EAFNOSUPPORT.
func (r *Registry) Family(family int) (Family, error) {
	if family < 0 || family >= len(r.families) || r.families[family] == nil {
		return nil, unix.EAFNOSUPPORT
	}
	return r.families[family], nil
}
