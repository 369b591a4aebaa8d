package boot

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A frame is a header and a payload on a stream socket. The descriptors travel with the header's
// first byte, so that a reader knows them before it reads the payload.
//
//	0  magic  uint32
//	4  kind   uint16
//	6  nfds   uint16
//	8  id     uint32  chosen by the requester, repeated in the reply
//	12 length uint32  of the payload
const (
	headerSize = 16
	frameMagic = 0x314b5348 // "HSK1": version 1 of the protocol
)

// Kind says what the payload of a frame is.
type Kind uint16

// Frame is one message as it travels.
type Frame struct {
	Kind Kind
	ID   uint32
	Data []byte
	FDs  []int
}

// Conn is a connection between the launcher and a sandbox or gofer, or between a command and
// the control server. Send and Recv may be used concurrently with each other, each by one
// goroutine at a time.
type Conn struct {
	fd int
	// raw is set on connections that wait through the Go poller and not in a blocked host thread.
	file *os.File
	raw  syscall.RawConn
	// until is when sends and receives of a blocking connection give up; zero: never.
	until time.Time
}

// NewConn makes a connection of a blocking stream socket; it owns fd from now on.
func NewConn(fd int) *Conn { return &Conn{fd: fd} }

// NewPollConn makes a connection that parks goroutines instead of host threads; fd becomes non-blocking.
func NewPollConn(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "control")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Conn{fd: fd, file: f, raw: raw}, nil
}

// FD is the socket; it stays the connection's.
func (c *Conn) FD() int { return c.fd }

// SetTimeout bounds how long all that is sent and received from now on may take, on a blocking connection: EAGAIN then. 0 is no bound.
// A peer that delivers a message byte by byte does not prolong it.
func (c *Conn) SetTimeout(d time.Duration) {
	c.until = time.Time{}
	if d > 0 {
		c.until = time.Now().Add(d)
	}
	c.limit(max(d, 0))
}

// limit is how long the next call waits; 0 is for ever.
func (c *Conn) limit(d time.Duration) {
	tv := unix.NsecToTimeval(int64(d))
	unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
}

// Close closes the socket. A goroutine waiting in Recv of a polled connection returns.
func (c *Conn) Close() {
	if c.file != nil {
		c.file.Close()
	} else {
		unix.Close(c.fd)
	}
}

// read and write run f until it does not say EAGAIN or EINTR.
func (c *Conn) wait(rw func(func(uintptr) bool) error, f func(fd int) (int, error)) (n int, err error) {
	try := func(fd uintptr) bool {
		for {
			n, err = f(int(fd))
			if err != unix.EINTR {
				return err != unix.EAGAIN // on a blocking socket EAGAIN is its time limit
			}
		}
	}
	if c.raw == nil {
		if !c.until.IsZero() {
			left := time.Until(c.until)
			if left <= 0 {
				return 0, unix.EAGAIN
			}
			c.limit(max(left, time.Millisecond))
		}
		try(uintptr(c.fd))
		return n, err
	}
	if werr := rw(try); werr != nil {
		return 0, werr
	}
	return n, err
}

func (c *Conn) reader() func(func(uintptr) bool) error {
	if c.raw == nil {
		return nil
	}
	return c.raw.Read
}

func (c *Conn) writer() func(func(uintptr) bool) error {
	if c.raw == nil {
		return nil
	}
	return c.raw.Write
}

// Send writes one frame. The descriptors stay the caller's.
func (c *Conn) Send(f Frame) error {
	if len(f.Data) > maxMessage || len(f.FDs) > maxFDs {
		return unix.EMSGSIZE
	}
	buf := make([]byte, headerSize, headerSize+len(f.Data))
	binary.LittleEndian.PutUint32(buf[0:], frameMagic)
	binary.LittleEndian.PutUint16(buf[4:], uint16(f.Kind))
	binary.LittleEndian.PutUint16(buf[6:], uint16(len(f.FDs)))
	binary.LittleEndian.PutUint32(buf[8:], f.ID)
	binary.LittleEndian.PutUint32(buf[12:], uint32(len(f.Data)))
	buf = append(buf, f.Data...)
	var oob []byte
	if len(f.FDs) > 0 {
		oob = unix.UnixRights(f.FDs...)
	}
	for len(buf) > 0 {
		n, err := c.wait(c.writer(), func(fd int) (int, error) {
			return unix.SendmsgN(fd, buf, oob, nil, unix.MSG_NOSIGNAL)
		})
		if err != nil {
			return err
		}
		buf, oob = buf[n:], nil
	}
	return nil
}

// SendMessage encodes m and sends it.
func (c *Conn) SendMessage(k Kind, id uint32, m Message) error {
	data, fds := Marshal(m)
	return c.Send(Frame{Kind: k, ID: id, Data: data, FDs: fds})
}

// Recv reads one frame; its descriptors (close-on-exec) are the caller's. io.EOF says that the
// peer closed the connection between frames.
func (c *Conn) Recv() (f Frame, err error) {
	var hdr [headerSize]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFDs))
	var fds []int
	defer func() {
		if err != nil {
			closeAll(fds)
		}
	}()
	for got := 0; got < headerSize; {
		n, oobn, flags, err := c.recvmsg(hdr[got:], oob)
		if err != nil {
			return f, err
		}
		more, perr := parseRights(oob[:oobn])
		fds = append(fds, more...)
		if perr != nil || flags&unix.MSG_CTRUNC != 0 || len(fds) > maxFDs {
			return f, errFD
		}
		if n == 0 {
			if got == 0 {
				return f, io.EOF
			}
			return f, errTruncated
		}
		got += n
	}
	length := binary.LittleEndian.Uint32(hdr[12:])
	if binary.LittleEndian.Uint32(hdr[0:]) != frameMagic || length > maxMessage || int(binary.LittleEndian.Uint16(hdr[6:])) != len(fds) {
		return f, errors.New("message has a bad header")
	}
	f = Frame{Kind: Kind(binary.LittleEndian.Uint16(hdr[4:])), ID: binary.LittleEndian.Uint32(hdr[8:]), FDs: fds}
	f.Data, err = c.readPayload(int(length))
	if err != nil {
		return Frame{}, err
	}
	return f, nil
}

// readPayload reads n bytes. The buffer grows as bytes arrive: a length alone costs the reader nothing.
func (c *Conn) readPayload(n int) ([]byte, error) {
	buf := make([]byte, 0, min(n, 64<<10))
	for len(buf) < n {
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(n, 2*cap(buf))), buf...)
		}
		m, err := c.wait(c.reader(), func(fd int) (int, error) { return unix.Read(fd, buf[len(buf):cap(buf)]) })
		if err != nil {
			return nil, err
		}
		if m == 0 {
			return nil, errTruncated
		}
		buf = buf[:len(buf)+m]
	}
	return buf, nil
}

func (c *Conn) recvmsg(b, oob []byte) (n, oobn, flags int, err error) {
	n, err = c.wait(c.reader(), func(fd int) (int, error) {
		var n int
		n, oobn, flags, _, err = unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		return n, err
	})
	return n, oobn, flags, err
}

// parseRights extracts the descriptors of SCM_RIGHTS messages. Those found before an error are returned too.
func parseRights(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range msgs {
		more, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, more...)
	}
	return fds, nil
}
