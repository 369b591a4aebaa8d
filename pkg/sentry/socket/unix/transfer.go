package unix

import (
	"golang.org/x/sys/unix"

	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/socket"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// maxDatagrams is how many datagrams a socket queues from senders that it is not connected to
// (/proc/sys/net/unix/max_dgram_qlen; the value that systemd sets).
const maxDatagrams = 512

// maxPackets bounds the messages in a queue whatever their size: empty ones take memory, too.
const maxPackets = 4096

// overhead is what Linux takes off SO_SNDBUF for the largest message, in bytes.
const overhead = 32

// WriteStream implements vfs.StreamWriter.
func (s *Socket) WriteStream(ctx vfs.Context, src mm.IOSeq) (int64, error) {
	n, err := s.send(ctx, nil, src, nil, nil)
	if err == unix.EPIPE && s.Type == unix.SOCK_STREAM {
		ctx.SendSignal(int32(unix.SIGPIPE))
	}
	return n, err
}

// ReadStream implements vfs.StreamReader.
func (s *Socket) ReadStream(ctx vfs.Context, dst mm.IOSeq) (int64, error) {
	return s.receive(ctx, dst, nil, 0)
}

// SendMsg implements socket.Socket.
func (s *Socket) SendMsg(t *kernel.Task, src mm.IOSeq, m *socket.Message, flags int) (int64, error) {
	if flags&unix.MSG_OOB != 0 {
		return 0, unix.EOPNOTSUPP
	}
	var to *Socket
	if m.Addr.Len > 0 {
		switch {
		case s.Type == unix.SOCK_STREAM && s.peer.Load() != nil:
			return 0, unix.EISCONN
		case s.Type == unix.SOCK_STREAM:
			return 0, unix.EOPNOTSUPP
		case s.Type == unix.SOCK_DGRAM:
			o, err := s.find(t, &m.Addr)
			if err != nil {
				return 0, err
			}
			to = o
		}
	}
	if s.Type == unix.SOCK_DGRAM && s.Bool(unix.SO_PASSCRED) {
		if err := s.autobind(); err != nil {
			return 0, err
		}
	}
	return s.send(t, t, src, m, to)
}

// send queues src at the receiver. m may be nil; t is needed only for files in it.
func (s *Socket) send(ctx vfs.Context, t *kernel.Task, src mm.IOSeq, m *socket.Message, to *Socket) (int64, error) {
	if s.Err.Load() != 0 && (s.Type != unix.SOCK_STREAM || !s.sendShut()) { // of a stream that is closed it is for who reads
		if err := s.TakeErr(); err != nil {
			return 0, err
		}
	}
	if s.noSend.Load() {
		return 0, unix.EPIPE
	}
	if to == nil {
		if to = s.peer.Load(); to == nil {
			return 0, unix.ENOTCONN
		}
	}
	msg := message{from: s.name.Load()}
	if m != nil && m.Control.HasCred {
		msg.cred = m.Control.Cred
	} else {
		msg.cred = socket.CredOf(ctx)
	}
	if m != nil && len(m.Control.Rights) > 0 {
		return s.sendRights(t, src, m, to, &msg, ctx.Waker())
	}
	return s.queueAt(to, src, &msg, ctx.Waker())
}

// sendRights is the rest of send for a message with files.
func (s *Socket) sendRights(t *kernel.Task, src mm.IOSeq, m *socket.Message, to *Socket, msg *message, by *waiter.Signal) (int64, error) {
	r := &s.fam.rights
	if err := r.charge(t, len(m.Control.Rights)); err != nil {
		return 0, err
	}
	r.mu.Lock()
	msg.rights = append([]*vfs.FileDescription(nil), m.Control.Rights...)
	n, err := s.queueAt(to, src, msg, by)
	sent := n > 0 || err == nil && (s.Type != unix.SOCK_STREAM)
	if sent {
		r.add(msg.rights)
		clear(m.Control.Rights)
		m.Control.Rights = m.Control.Rights[:0]
	}
	r.mu.Unlock()
	return n, err
}

// queueAt appends src to the queue of to: streams as much as there is room, others all or nothing.
func (s *Socket) queueAt(to *Socket, src mm.IOSeq, msg *message, by *waiter.Signal) (int64, error) {
	if s.Type == unix.SOCK_STREAM {
		return s.queueStream(to, src, msg, by)
	}
	n := src.NumBytes()
	if n > int64(s.SendBuf.Load()-overhead) {
		return 0, unix.EMSGSIZE
	}
	q := &to.recv
	q.mu.Lock()
	if err := s.mayQueue(to, int(n)); err != nil {
		q.mu.Unlock()
		return 0, err
	}
	done, err := q.appendBytes(src, int(n))
	if err != nil {
		q.data.Unwrite(done)
		q.mu.Unlock()
		return 0, err
	}
	msg.n = done
	q.push(*msg, false)
	q.mu.Unlock()
	to.events.NotifyLater(by, waiter.ReadableEvents)
	return n, nil
}

// mayQueue checks whether a message of n bytes can be queued at to; to's queue is locked.
func (s *Socket) mayQueue(to *Socket, n int) error {
	q := &to.recv
	if s.Type == unix.SOCK_SEQPACKET {
		switch {
		case q.closed.Load():
			return unix.EPIPE
		case q.msgs.Len() > 0 && q.room(s.SendBuf.Load()) < n, q.msgs.Len() >= maxPackets:
			return unix.EAGAIN
		}
		return nil
	}
	if to.dead.Load() {
		if s.peer.CompareAndSwap(to, nil) {
			return unix.ECONNREFUSED
		}
		return unix.ECONNREFUSED
	}
	if p := to.peer.Load(); p != nil && p != s {
		return unix.EPERM
	}
	if q.closed.Load() {
		return unix.EPIPE
	}
	if to.full(s) || q.msgs.Len() > 0 && q.room(s.SendBuf.Load()) < n {
		q.await(s)
		return unix.EAGAIN
	}
	return nil
}

// full tells whether s, a datagram socket, takes no more from a sender; the queue is locked.
func (s *Socket) full(from *Socket) bool {
	q := &s.recv
	return s.peer.Load() != from && q.msgs.Len() > maxDatagrams ||
		q.msgs.Len() > 0 && q.room(from.SendBuf.Load()) <= 0 || q.msgs.Len() >= maxPackets
}

func (s *Socket) queueStream(to *Socket, src mm.IOSeq, msg *message, by *waiter.Signal) (int64, error) {
	total := src.NumBytes()
	q := &to.recv
	q.mu.Lock()
	if q.closed.Load() {
		q.mu.Unlock()
		return 0, unix.EPIPE
	}
	if total == 0 {
		q.mu.Unlock()
		return 0, nil
	}
	n := min(total, int64(q.room(s.SendBuf.Load())))
	if n <= 0 {
		q.mu.Unlock()
		return 0, unix.EAGAIN
	}
	done, err := q.appendBytes(src, int(n))
	if done == 0 {
		q.mu.Unlock()
		return 0, err
	}
	msg.n = done
	q.push(*msg, true)
	q.mu.Unlock()
	to.events.NotifyLater(by, waiter.ReadableEvents)
	if err == nil && int64(done) < total {
		err = unix.EAGAIN
	} else {
		err = nil
	}
	return int64(done), err
}

// RecvMsg implements socket.Socket.
func (s *Socket) RecvMsg(t *kernel.Task, dst mm.IOSeq, m *socket.Message, flags int) (int64, error) {
	if flags&unix.MSG_OOB != 0 {
		return 0, unix.EOPNOTSUPP
	}
	if flags&unix.MSG_ERRQUEUE != 0 {
		return 0, unix.EAGAIN
	}
	return s.receive(t, dst, m, flags)
}

// errRights says that the next message has files and rights.mu is needed.
const errRights = unix.Errno(0xfff)

// receive takes from the queue. m may be nil: then files are dropped.
func (s *Socket) receive(ctx vfs.Context, dst mm.IOSeq, m *socket.Message, flags int) (int64, error) {
	if s.Type != unix.SOCK_DGRAM && s.peer.Load() == nil {
		if s.Type == unix.SOCK_STREAM {
			return 0, unix.EINVAL
		}
		return 0, unix.ENOTCONN
	}
	n, dropped, err := s.receiveLocked(dst, ctx.Waker(), m, flags, false)
	if err == errRights {
		s.fam.rights.mu.Lock()
		n, dropped, err = s.receiveLocked(dst, ctx.Waker(), m, flags, true)
		s.fam.rights.mu.Unlock()
	}
	for _, f := range dropped {
		f.DecRef()
	}
	return n, err
}

// receiveLocked is receive under the queue's lock; withRights tells that rights.mu is held.
func (s *Socket) receiveLocked(dst mm.IOSeq, by *waiter.Signal, m *socket.Message, flags int, withRights bool) (int64, []*vfs.FileDescription, error) {
	q := &s.recv
	q.mu.Lock()
	if q.msgs.Len() == 0 {
		closed := q.closed.Load()
		q.mu.Unlock()
		if err := s.TakeErr(); err != nil {
			return 0, nil, err
		}
		if closed {
			return 0, nil, nil
		}
		return 0, nil, unix.EAGAIN
	}
	var n int
	var dropped []*vfs.FileDescription
	var err error
	peek := flags&unix.MSG_PEEK != 0
	was := q.data.Len()
	if s.Type == unix.SOCK_STREAM {
		n, dropped, err = s.takeStream(dst, m, peek, withRights)
	} else {
		n, dropped, err = s.takeMessage(dst, m, peek, withRights)
	}
	var blocked []*Socket
	if !peek && s.Type == unix.SOCK_DGRAM && err != errRights {
		blocked = q.unblock()
	}
	now := q.data.Len()
	q.mu.Unlock()
	for i, o := range blocked {
		o.events.NotifyLater(by, waiter.WritableEvents)
		blocked[i] = nil
	}
	if blocked != nil {
		q.mu.Lock()
		q.free = blocked
		q.mu.Unlock()
	}
	if p := s.peer.Load(); p != nil && !peek && err == nil && s.Type != unix.SOCK_DGRAM {
		if half := int(p.SendBuf.Load()) / 2; was > half && now <= half || s.Type == unix.SOCK_SEQPACKET {
			p.events.NotifyLater(by, waiter.WritableEvents)
		}
	}
	return int64(n), dropped, err
}

// takeMessage receives one datagram or packet; the queue is locked and not empty.
func (s *Socket) takeMessage(dst mm.IOSeq, m *socket.Message, peek, withRights bool) (int, []*vfs.FileDescription, error) {
	q := &s.recv
	msg := q.msgs.At(0)
	if msg.rights != nil && !withRights {
		return 0, nil, errRights
	}
	skip := 0
	if peek {
		skip = min(max(int(s.PeekOff.Load()), 0), msg.n)
	}
	n := msg.n - skip
	if dst.NumBytes() < int64(n) {
		n = int(dst.NumBytes())
		if m != nil {
			m.Flags |= unix.MSG_TRUNC
		}
	}
	n, err := q.copyOut(skip, n, dst)
	if err != nil && n == 0 {
		return 0, nil, err
	}
	if m != nil {
		m.Full = int64(msg.n - skip)
		if s.Type == unix.SOCK_DGRAM {
			putName(&m.Addr, msg.from)
		}
	}
	dropped := s.deliver(m, msg, peek)
	if peek {
		s.movePeek(n)
	} else {
		s.movePeek(-msg.n)
		q.take(0, true)
	}
	return n, dropped, nil
}

// deliver hands credentials and files of the first message over; what m does not take is returned.
func (s *Socket) deliver(m *socket.Message, msg *message, peek bool) (dropped []*vfs.FileDescription) {
	if m != nil && (s.Bool(unix.SO_PASSCRED) || s.Bool(unix.SO_PASSPIDFD)) {
		m.Control.Cred, m.Control.HasCred = msg.cred, s.Bool(unix.SO_PASSCRED)
		m.Control.PIDFD = s.Bool(unix.SO_PASSPIDFD)
	}
	if msg.rights == nil {
		return nil
	}
	if peek {
		if m != nil {
			for _, f := range msg.rights {
				f.IncRef()
			}
			m.Control.Rights = append(m.Control.Rights, msg.rights...)
		}
		return nil
	}
	files := s.recv.takeRights()
	s.fam.rights.remove(files)
	if m == nil {
		return files
	}
	m.Control.Rights = append(m.Control.Rights, files...)
	return nil
}

// movePeek moves SO_PEEK_OFF, if it is set.
func (s *Socket) movePeek(n int) {
	if off := int(s.PeekOff.Load()); off >= 0 {
		s.PeekOff.Store(int32(max(off+n, 0)))
	}
}

// takeStream receives bytes; the queue is locked and not empty. It stops where credentials change (if the receiver
// wants them) and behind bytes that came with files.
func (s *Socket) takeStream(dst mm.IOSeq, m *socket.Message, peek, withRights bool) (int, []*vfs.FileDescription, error) {
	q := &s.recv
	var dropped []*vfs.FileDescription
	passCred := m != nil && s.Bool(unix.SO_PASSCRED)
	skip := 0
	if peek {
		skip = max(int(s.PeekOff.Load()), 0)
	}
	done, at := 0, 0
	var cred socket.Ucred
	for i := 0; i < q.msgs.Len() && dst.NumBytes() > int64(done); {
		msg := q.msgs.At(i)
		if skip >= msg.n {
			skip -= msg.n
			at += msg.n
			i++
			continue
		}
		if done > 0 && (passCred && msg.cred != cred || msg.rights != nil && !withRights) {
			break
		}
		if msg.rights != nil && !withRights {
			return 0, nil, errRights
		}
		cred = msg.cred
		n := int(min(int64(msg.n-skip), dst.NumBytes()-int64(done)))
		n, err := q.copyOut(at+skip, n, dst.DropFirst(int64(done)))
		if n == 0 {
			if done == 0 {
				return 0, nil, err
			}
			break
		}
		had := msg.rights != nil
		if done == 0 || had {
			dropped = append(dropped, s.deliver(m, msg, peek)...)
		}
		done += n
		if peek {
			at += msg.n
			skip = 0
			i++
		} else {
			q.take(n, false)
		}
		if had || err != nil {
			break
		}
	}
	if peek && done == 0 && dst.NumBytes() > 0 {
		return 0, nil, unix.EAGAIN
	}
	if m != nil {
		m.Full = int64(done)
		if p := s.peer.Load(); p != nil {
			putName(&m.Addr, p.name.Load())
		}
	}
	if peek {
		s.movePeek(done)
	} else {
		s.movePeek(-done)
	}
	return done, dropped, nil
}
