package boot

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Limits of the codec. A message carries at most what execve(2) takes as arguments and environment
// (2 MiB each way is Linux's default), rounded up generously; descriptors are bounded by SCM_MAX_FD.
const (
	maxMessage = 16 << 20
	maxFDs     = 253
)

// Errors of the decoder; they name the fault and not the content, which is the peer's.
var (
	errTruncated = errors.New("message is truncated")
	errTrailing  = errors.New("message has trailing bytes")
	errCount     = errors.New("message has an impossible count")
	errFD        = errors.New("message refers to a descriptor that it does not carry")
	errValue     = errors.New("message has an invalid value")
)

// coder encodes or decodes a message: each message type lists its fields once, in visit, and the
// same list serves both directions. After the first error a decoder does nothing more.
type coder struct {
	buf []byte // encoding: the output; decoding: what is left of the input
	// fds are the descriptors that travel with the message. The message holds indexes in their
	// place; when decoding, taken marks those that a field has claimed.
	fds   []int
	taken []bool
	dec   bool
	err   error
}

// Message is a message or a part of one.
type Message interface{ visit(c *coder) }

// Marshal encodes m. The descriptors that m holds are returned in the order of their indexes.
func Marshal(m Message) (data []byte, fds []int) {
	c := coder{buf: make([]byte, 0, 4096)}
	m.visit(&c)
	return c.buf, c.fds
}

// Unmarshal decodes data into m, whose descriptor fields become those of fds. On error, and for
// descriptors that no field claims, the caller's fds stay open and are the caller's to close;
// unclaimed lists which.
func Unmarshal(m Message, data []byte, fds []int) (unclaimed []int, err error) {
	c := coder{buf: data, fds: fds, taken: make([]bool, len(fds)), dec: true}
	m.visit(&c)
	if c.err == nil && len(c.buf) != 0 {
		c.err = errTrailing
	}
	if c.err != nil {
		return fds, c.err
	}
	for i, t := range c.taken {
		if !t {
			unclaimed = append(unclaimed, fds[i])
		}
	}
	return unclaimed, nil
}

func (c *coder) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// take returns the next n bytes of the input, nil after an error.
func (c *coder) take(n int) []byte {
	if c.err != nil || n < 0 || n > len(c.buf) {
		c.fail(errTruncated)
		return nil
	}
	b := c.buf[:n:n]
	c.buf = c.buf[n:]
	return b
}

func (c *coder) u8(p *uint8) {
	if !c.dec {
		c.buf = append(c.buf, *p)
	} else if b := c.take(1); b != nil {
		*p = b[0]
	}
}

func (c *coder) u32(p *uint32) {
	if !c.dec {
		c.buf = binary.LittleEndian.AppendUint32(c.buf, *p)
	} else if b := c.take(4); b != nil {
		*p = binary.LittleEndian.Uint32(b)
	}
}

func (c *coder) u64(p *uint64) {
	if !c.dec {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, *p)
	} else if b := c.take(8); b != nil {
		*p = binary.LittleEndian.Uint64(b)
	}
}

func (c *coder) i32(p *int32) {
	u := uint32(*p)
	c.u32(&u)
	*p = int32(u)
}

func (c *coder) i64(p *int64) {
	u := uint64(*p)
	c.u64(&u)
	*p = int64(u)
}

func (c *coder) flag(p *bool) {
	var b uint8
	if *p {
		b = 1
	}
	c.u8(&b)
	if b > 1 {
		c.fail(errValue)
	}
	*p = b == 1
}

// enum is a small integer below limit.
func (c *coder) enum(p *uint8, limit uint8) {
	c.u8(p)
	if c.dec && *p >= limit {
		c.fail(errValue)
	}
}

func (c *coder) str(p *string) {
	n := uint32(len(*p))
	c.u32(&n)
	if !c.dec {
		c.buf = append(c.buf, *p...)
	} else if n > maxMessage {
		c.fail(errTruncated)
	} else if b := c.take(int(n)); b != nil {
		*p = string(b)
	}
}

func (c *coder) strs(p *[]string) { list(c, p, 4, (*coder).str) }

// list is a counted sequence. size is the least number of bytes that an element occupies, so that
// a count is known to be honest before anything is allocated for it.
func list[T any](c *coder, p *[]T, size int, each func(*coder, *T)) {
	n := uint32(len(*p))
	c.u32(&n)
	if c.dec {
		if c.err != nil {
			return
		}
		if uint64(n)*uint64(size) > uint64(len(c.buf)) {
			c.fail(errCount)
			return
		}
		if n == 0 {
			*p = nil
			return
		}
		*p = make([]T, n)
	}
	for i := range *p {
		each(c, &(*p)[i])
	}
}

// parts is a list of visitors.
func parts[T any, P interface {
	*T
	Message
}](c *coder, p *[]T, size int) {
	list(c, p, size, func(c *coder, t *T) { P(t).visit(c) })
}

// fd is a descriptor, or -1 for none. Each descriptor of a message belongs to one field.
func (c *coder) fd(p *int) {
	idx := int32(-1)
	if !c.dec && *p >= 0 {
		idx = int32(len(c.fds))
		c.fds = append(c.fds, *p)
	}
	c.i32(&idx)
	if !c.dec || c.err != nil {
		return
	}
	*p = -1
	if idx == -1 {
		return
	}
	if idx < 0 || int(idx) >= len(c.fds) || c.taken[idx] {
		c.fail(errFD)
		return
	}
	c.taken[idx] = true
	*p = c.fds[idx]
}

// closeAll closes descriptors; errors do not matter for what is being thrown away.
func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
