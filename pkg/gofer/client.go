package gofer

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrExited is what every call returns once the server is gone.
var ErrExited = errors.New("gofer exited")

const (
	// calls is how many requests are under way at most; more wait.
	calls = 64
	// startedMax is how many of them may have been started without somebody who waits for the reply, and sentMax how many of those may
	// have no reply yet: fewer than the server has workers, so that one is left to answer however large the replies are that nobody takes.
	startedMax = 32
	sentMax    = 3
)

// Client makes requests. All methods may be called from any number of goroutines. Errors are the
// server's unix.Errno, or ErrExited.
//
// There is no goroutine that receives: of the callers that wait for replies one reads the socket, for
// the others too, and passes that duty on when its own reply is there. A lone caller so pays two system
// calls and no switch between goroutines.
type Client struct {
	conn   int           // immutable
	attach []AttachFlags // immutable

	rpkt packet // of the caller that reads
	rbuf []byte // likewise, as is
	rfds descriptors

	mu      sync.Mutex // guards what follows
	room    sync.Cond  // a slot became free
	err     error      // why the connection is unusable
	reading bool       // some caller reads
	seq     uint32
	slots   [calls]*call
	used    uint64   // bitmap of slots
	waiting uint64   // bitmap of slots whose callers wait to be woken
	closes  []Handle // to close with the next request
	started int      // calls of Start that are not collected
	sent    int      // those of them that have no reply
}

// call is one slot: a request under way.
type call struct {
	slot int
	tag  uint32
	pkt  packet
	out  writer        // the request
	wake chan struct{} // one token: look again

	// Guarded by Client.mu until done.
	buf   []byte // MaxMessage bytes
	reply []byte // the used part of buf
	fds   descriptors
	done  bool
	async bool // of Start, without a reply
	drop  bool // nobody will collect the reply
}

// NewClient agrees on the protocol over conn, a SOCK_SEQPACKET socket, and takes conn over.
func NewClient(conn int) (*Client, error) {
	c := &Client{conn: conn, rbuf: make([]byte, MaxMessage)}
	c.room.L = &c.mu
	k := c.begin(opHello)
	k.out.u32(Version)
	r, err := c.do(k)
	if err == nil {
		if r.u32() != Version {
			err = unix.EPROTONOSUPPORT
		}
		for range min(r.u32(), MaxMessage/4) {
			c.attach = append(c.attach, AttachFlags(r.u32()))
		}
		err = c.end(k, &r, err)
	} else {
		c.end(k, nil, err)
	}
	if err != nil {
		unix.Close(conn)
		return nil, err
	}
	return c, nil
}

// Shutdown ends the connection: the server closes all handles, and calls under way and later ones
// return ErrExited.
func (c *Client) Shutdown() { c.fail() }

// Attachments returns the flags of the server's attach points, in order. The caller must not change
// the slice.
func (c *Client) Attachments() []AttachFlags { return c.attach }

// begin takes a slot and starts a request.
func (c *Client) begin(o op) *call {
	c.mu.Lock()
	for c.used == ^uint64(0) {
		c.room.Wait()
	}
	i := bits.TrailingZeros64(^c.used)
	k := c.slots[i]
	if k == nil {
		k = &call{slot: i, wake: make(chan struct{}, 1), out: writer{make([]byte, 0, 1024)}, buf: make([]byte, MaxMessage)}
		c.slots[i] = k
	}
	c.used |= 1 << i
	c.seq++
	k.tag = c.seq*calls + uint32(i)
	k.done, k.async, k.drop = false, false, false
	c.mu.Unlock()
	k.out.header(k.tag, uint16(o))
	return k
}

// beginOn starts a request on a handle.
func (c *Client) beginOn(o op, h Handle) *call {
	k := c.begin(o)
	k.out.u64(uint64(h))
	return k
}

// end gives the slot back after the reply is decoded. It returns err, or EPROTO where the reply was
// not what it should have been.
func (c *Client) end(k *call, r *reader, err error) error {
	if err == nil && r != nil && !r.end() {
		err = unix.EPROTO
	}
	k.fds.close()
	c.mu.Lock()
	c.free(k)
	c.mu.Unlock()
	return err
}

// free gives a slot back; c.mu is held.
func (c *Client) free(k *call) {
	c.used &^= 1 << k.slot
	c.room.Signal() // whatever was free before: each slot is somebody's who waits
}

// takeFD returns the donated descriptor, which then is the caller's; -1 if there is none.
func (k *call) takeFD() int { return k.fds.take(0) }

// do sends the request and waits for the reply, which the reader covers until end.
func (c *Client) do(k *call) (reader, error) {
	if err := c.send(k); err != nil {
		return reader{}, err
	}
	return c.wait(k)
}

// send sends the request.
func (c *Client) send(k *call) error {
	if len(k.out.b) > MaxMessage-8*closesMax {
		return unix.E2BIG
	}
	c.mu.Lock()
	err := c.err
	n := min(len(c.closes), closesMax)
	k.trailer(c.closes[:n])
	c.closes = c.closes[:copy(c.closes, c.closes[n:])]
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if err := k.pkt.send(c.conn, k.out.b, nil); err != nil {
		c.fail()
		return ErrExited
	}
	return nil
}

// wait waits for the reply.
func (c *Client) wait(k *call) (reader, error) {
	c.mu.Lock()
	for !k.done && c.err == nil {
		if c.reading {
			c.waiting |= 1 << k.slot
			c.mu.Unlock()
			<-k.wake
			c.mu.Lock()
			c.waiting &^= 1 << k.slot
			continue
		}
		c.reading = true
		c.mu.Unlock()
		n, err := c.rpkt.recv(c.conn, c.rbuf, &c.rfds)
		c.mu.Lock()
		c.reading = false
		if err != nil || n == 0 || !c.deliver(n) {
			c.rfds.close()
			c.failLocked()
		}
	}
	if !c.reading && c.waiting != 0 {
		c.slots[bits.TrailingZeros64(c.waiting)].signal() // read on in my place
	}
	done, err := k.done, c.err
	k.done = true // nothing is delivered from now on
	c.mu.Unlock()
	if !done {
		return reader{}, err
	}
	return k.result()
}

// result reads the reply.
func (k *call) result() (reader, error) {
	_, code, _, body, _ := parse(k.reply)
	if code != 0 {
		return reader{}, unix.Errno(code)
	}
	return reader{b: body}, nil
}

// trailer appends handles to close and completes the request.
func (k *call) trailer(closes []Handle) {
	for _, h := range closes {
		k.out.u64(uint64(h))
	}
	k.out.seal(len(closes))
}

func (k *call) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// deliver gives the packet in c.rbuf, and the descriptors, to its call by exchanging the buffers; false where it is none
// that a server may send. c.mu is held.
func (c *Client) deliver(n int) bool {
	tag, _, _, _, ok := parse(c.rbuf[:n])
	if ok {
		k := c.slots[tag%calls]
		if k != nil && c.used&(1<<k.slot) != 0 && k.tag == tag && !k.done {
			k.buf, c.rbuf = c.rbuf, k.buf
			k.reply = k.buf[:n]
			k.fds, k.done = c.rfds, true
			c.rfds.n = 0
			if k.async {
				k.async = false
				c.sent--
			}
			if k.drop {
				c.discard(k)
			}
			if c.waiting&(1<<k.slot) != 0 {
				k.signal()
			}
			return true
		}
	}
	return false
}

func (c *Client) fail() {
	c.mu.Lock()
	c.failLocked()
	c.mu.Unlock()
}

// failLocked makes the connection unusable and wakes everybody. The socket stays open, as others may be
// about to use its number; the process keeps it until the end.
func (c *Client) failLocked() {
	if c.err != nil {
		return
	}
	c.err = ErrExited
	unix.Shutdown(c.conn, unix.SHUT_RDWR)
	for w := c.waiting; w != 0; w &= w - 1 {
		c.slots[bits.TrailingZeros64(w)].signal()
	}
}

// Close closes h some time later: with the next request, or after enough of them have gathered.
// Zero is ignored.
func (c *Client) Close(h Handle) {
	if h == 0 {
		return
	}
	c.mu.Lock()
	c.closes = append(c.closes, h)
	full := len(c.closes) >= closesMax
	c.mu.Unlock()
	if full {
		c.Flush()
	}
}

// Flush closes now what Close has gathered, which matters for deleted files that still take space. It
// does not wait for the server.
func (c *Client) Flush() {
	var msg [headerSize + 8*closesMax]byte
	c.mu.Lock()
	n := min(len(c.closes), closesMax)
	if n == 0 || c.err != nil {
		c.mu.Unlock()
		return
	}
	w := writer{msg[:0]}
	w.header(0, uint16(opClose))
	for _, h := range c.closes[:n] {
		w.b = binary.LittleEndian.AppendUint64(w.b, uint64(h))
	}
	c.closes = c.closes[:copy(c.closes, c.closes[n:])]
	c.mu.Unlock()
	w.seal(n)
	var p packet
	if p.send(c.conn, w.b, nil) != nil {
		c.fail()
	}
}
