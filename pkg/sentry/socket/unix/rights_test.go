package unix

import (
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/socket"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

func files(t *testing.T, v *vfs.VFS, f *Family) (a, b *vfs.FileDescription) {
	x, y := pair(t, f, unix.SOCK_STREAM)
	return socket.NewFile(context(), v, x, 0), socket.NewFile(context(), v, y, 0)
}

func sendFile(t *testing.T, via, f *vfs.FileDescription) {
	t.Helper()
	f.IncRef()
	m := socket.Message{Control: socket.Control{Rights: []*vfs.FileDescription{f}}}
	s := via.Impl().(*Socket)
	msg := message{}
	if n, err := s.sendRights(nil, mm.BytesSeq([]byte("x")), &m, s.peer.Load(), &msg, new(waiter.Signal)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}

func TestRights(t *testing.T) {
	v, f := vfs.New(0), NewFamily()
	a, b := files(t, v, f)
	c, d := files(t, v, f)
	send(a.Impl().(*Socket), "plain")
	sendFile(t, a, c)
	send(a.Impl().(*Socket), "more")
	s := b.Impl().(*Socket)
	buf := make([]byte, 100)
	var m socket.Message
	if n, err := s.receive(context(), mm.BytesSeq(buf[:2]), &m, 0); n != 2 || err != nil || len(m.Control.Rights) != 0 {
		t.Fatal(n, err)
	}
	n, err := s.receive(context(), mm.BytesSeq(buf), &m, unix.MSG_PEEK)
	if err != nil || n > 4 {
		t.Fatal(n, err)
	}
	m.Control.DropRights()
	for total := int64(0); total < 4; total += n {
		if n, err = s.receive(context(), mm.BytesSeq(buf), &m, 0); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.Control.Rights) != 1 || m.Control.Rights[0] != c {
		t.Fatal(m.Control.Rights)
	}
	if c.Refs() != 2 || f.rights.files.Load() != 0 {
		t.Fatal("references:", c.Refs())
	}
	m.Control.DropRights()
	_ = d
}

// Sockets that are only in each other's queues are closed.
func TestCollectCycle(t *testing.T) {
	v, f := vfs.New(0), NewFamily()
	a, b := files(t, v, f)
	sendFile(t, a, b) // b in b's queue
	sendFile(t, b, a) // a in a's queue
	c, d := files(t, v, f)
	sendFile(t, a, d)
	sendFile(t, c, a)
	a.DecRef()
	b.DecRef()
	d.DecRef()
	if f.rights.files.Load() != 4 {
		t.Fatal("collected while c can reach them:", f.rights.files.Load())
	}
	c.DecRef()
	if n := f.rights.files.Load(); n != 0 || a.Refs() != 0 || b.Refs() != 0 || d.Refs() != 0 {
		t.Fatal("left in flight:", n, a.Refs(), b.Refs(), d.Refs())
	}
}

// A chain of sockets in each other's queues is closed without recursion.
func TestCloseChain(t *testing.T) {
	v, f := vfs.New(0), NewFamily()
	const depth = 20000
	a, b := files(t, v, f)
	for range depth {
		c, d := files(t, v, f)
		sendFile(t, c, a)
		sendFile(t, c, b)
		a.DecRef()
		b.DecRef()
		a, b = c, d
	}
	a.DecRef()
	b.DecRef()
	if n := f.rights.files.Load(); n != 0 {
		t.Fatal(n)
	}
}
