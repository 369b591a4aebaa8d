package gofer

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Siblings looks up names in dir, each by itself, and appends what it found to out, in order, until one is not there or the
// reply is full; err says why the first that is missing is. It takes up to 128 names. Handles and descriptors are the caller's.
func (c *Client) Siblings(dir Handle, names []string, with With, out []Sibling) ([]Sibling, error) {
	k, err := c.beginSiblings(dir, names, with)
	if err != nil {
		return out, err
	}
	r, err := c.do(k)
	return c.siblings(k, &r, err, len(names), out)
}

func (c *Client) beginSiblings(dir Handle, names []string, with With) (*call, error) {
	k := c.beginOn(opSiblings, dir)
	k.out.u8(uint8(with))
	if err := k.names(names); err != nil {
		return nil, c.end(k, nil, err)
	}
	return k, nil
}

// siblings decodes a reply and gives the slot back.
func (c *Client) siblings(k *call, r *reader, err error, most int, out []Sibling) ([]Sibling, error) {
	if err != nil {
		return out, c.end(k, nil, err)
	}
	out, why := k.decodeSiblings(r, most, out)
	if err = c.end(k, r, nil); err == nil && why != 0 {
		err = unix.Errno(why)
	}
	return out, err
}

func (k *call) decodeSiblings(r *reader, most int, out []Sibling) ([]Sibling, uint16) {
	n, why := int(r.u16()), r.u16()
	donated := 0
	n = min(n, most)
	out = slices.Grow(out, min(n, len(r.b)/attrSize)) // a page of the heap that is new costs more than what it holds
	for range n {
		if r.bad {
			break
		}
		out = append(out, Sibling{})
		k.decodeSibling(r, &out[len(out)-1], &donated)
	}
	return out, why
}

// decodeSibling decodes one; donated counts the descriptors that the reply has used.
func (k *call) decodeSibling(r *reader, s *Sibling, donated *int) {
	r.entry(&s.Entry)
	s.FD = -1
	more := r.u8()
	if more&withFD != 0 {
		s.FD = k.fds.take(*donated)
		*donated++
	}
	if more&withList != 0 {
		s.List = r.dirents([]Dirent{})
	}
	if more&withTree != 0 {
		n := min(int(r.u8()), len(s.List), len(r.b)/attrSize) // so that the depth is bounded: a server that lies has an end as well
		s.Tree = make([]Sibling, 0, n)
		for i := 0; i < n && !r.bad; i++ {
			s.Tree = append(s.Tree, Sibling{})
			k.decodeSibling(r, &s.Tree[i], donated)
		}
	}
}

// Started is a request of Start.
type Started struct {
	c    *Client
	k    *call
	most int
}

// Start is Siblings in two parts: it sends the request, and Collect or Drop, one of which must be called once, takes the reply. It
// returns nil where too many are under way or the server is gone: then there is nothing to do.
func (c *Client) Start(dir Handle, names []string, with With) *Started {
	c.mu.Lock()
	full := c.err != nil || c.started >= startedMax || c.sent >= sentMax
	if !full {
		c.started++
		c.sent++
	}
	c.mu.Unlock()
	if full {
		return nil
	}
	k, err := c.beginSiblings(dir, names, with)
	if err == nil {
		c.mu.Lock()
		k.async = true
		c.mu.Unlock()
		if err = c.send(k); err != nil {
			c.end(k, nil, err)
		}
	}
	if err != nil {
		c.mu.Lock()
		c.started--
		c.sent--
		c.mu.Unlock()
		return nil
	}
	return &Started{c, k, len(names)}
}

// Collect waits for the reply; it is what Siblings returns.
func (s *Started) Collect(out []Sibling) ([]Sibling, error) {
	r, err := s.c.wait(s.k)
	s.c.mu.Lock()
	s.c.started--
	s.c.mu.Unlock()
	return s.c.siblings(s.k, &r, err, s.most, out)
}

// Drop gives up what the reply holds, which may come later.
func (s *Started) Drop() {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.k.done {
		c.discard(s.k)
		return
	}
	s.k.drop = true
}

// discard gives up a reply that nobody collects, and its slot; c.mu is held.
func (c *Client) discard(k *call) {
	c.started--
	if r, err := k.result(); err == nil {
		list, _ := k.decodeSiblings(&r, walkMax, nil)
		for i := range list {
			c.closes = list[i].give(c.closes)
		}
	}
	k.fds.close()
	c.free(k)
}

// give closes the descriptors and appends the handles to closes.
func (s *Sibling) give(closes []Handle) []Handle {
	if s.FD >= 0 {
		unix.Close(s.FD)
		s.FD = -1
	}
	if s.Handle != 0 {
		closes = append(closes, s.Handle)
	}
	for i := range s.Tree {
		closes = s.Tree[i].give(closes)
	}
	return closes
}

// Drop closes what came with a sibling that is not used.
func (c *Client) Drop(s *Sibling) {
	c.mu.Lock()
	c.closes = s.give(c.closes)
	full := len(c.closes) >= closesMax
	c.mu.Unlock()
	if full {
		c.Flush()
	}
}
