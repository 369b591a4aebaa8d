package ipc

import (
	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Limits of message queues, as /proc/sys/kernel/msg* shows them.
const (
	MsgMax = 8192  // bytes of a message
	MsgMnb = 16384 // bytes of a queue at first
	MsgMni = 32000
)

// Flags of msgrcv(2).
const (
	MsgNoError = 0o10000
	MsgExcept  = 0o20000
	MsgCopy    = 0o40000
)

// Msgs is the message queues of a namespace.
type Msgs struct {
	table[*MsgQueue]
	bytes, messages uint64 // in all queues; protected by mu
}

// MsgQueue is a message queue; the table's mu protects it.
type MsgQueue struct {
	Perm
	list               []Message
	bytes, limit       uint64
	queue              waiter.Queue
	gone               bool
	SendTime, RecvTime int64 // seconds since the epoch
	Sender, Receiver   int32
}

// Message is a message; Text is immutable.
type Message struct {
	Type int64
	Text []byte
}

func (q *MsgQueue) perm() *Perm { return &q.Perm }

func newMsgs(user *auth.UserNamespace) *Msgs {
	return &Msgs{table: newTable[*MsgQueue](user, MsgMni)}
}

// Get is msgget(2).
func (s *Msgs) Get(c *auth.Credentials, key int32, flags int) (int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(c, key, flags, func(*MsgQueue) error { return nil }, func(p Perm) (*MsgQueue, error) {
		return &MsgQueue{Perm: p, limit: MsgMnb}, nil
	})
}

// wait releases mu and waits for a change of the queue. EIDRM, EINTR.
func (s *Msgs) wait(ctx vfs.Context, q *MsgQueue) error {
	var e waiter.Entry
	sig := ctx.Waker()
	sig.Drain()
	e.Init(sig, waiter.EventIn)
	q.queue.EventRegister(&e)
	s.mu.Unlock()
	err := ctx.Block(sig.C, vfs.NoDeadline)
	s.mu.Lock()
	q.queue.EventUnregister(&e)
	if q.gone {
		return unix.EIDRM
	}
	if err != nil {
		return unix.EINTR // msgop(2): never restarted
	}
	return nil
}

// open finds a queue that c has the right want to; mu is held.
func (s *Msgs) open(c *auth.Credentials, id int32, want uint16) (*MsgQueue, error) {
	q, err := s.find(id)
	if err != nil {
		return nil, err
	}
	return q, q.check(c, want)
}

// Send is msgsnd(2) by process pid; the caller has checked the message's type and length.
func (s *Msgs) Send(ctx vfs.Context, pid, id int32, msg Message, noWait bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.open(ctx.Credentials(), id, wantWrite)
	if err != nil {
		return err
	}
	n := uint64(len(msg.Text))
	for q.bytes+n > q.limit || uint64(len(q.list)) >= q.limit {
		if noWait {
			return unix.EAGAIN
		}
		if err := s.wait(ctx, q); err != nil {
			return err
		}
		if err := q.check(ctx.Credentials(), wantWrite); err != nil {
			return err
		}
	}
	q.list = append(q.list, msg)
	q.bytes += n
	s.bytes += n
	s.messages++
	q.SendTime, q.Sender = now(), pid
	q.queue.Notify(waiter.EventIn)
	return nil
}

// Receive is msgrcv(2) by process pid for a buffer of size bytes.
func (s *Msgs) Receive(ctx vfs.Context, pid, id int32, size uint64, typ int64, flags int) (Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.open(ctx.Credentials(), id, wantRead)
	if err != nil {
		return Message{}, err
	}
	for {
		if i := q.pick(typ, flags); i >= 0 {
			m := q.list[i]
			n := uint64(len(m.Text))
			if n > size {
				if flags&MsgNoError == 0 {
					return Message{}, unix.E2BIG
				}
				m.Text = m.Text[:size]
			}
			if flags&MsgCopy != 0 {
				return m, nil
			}
			q.list = append(q.list[:i], q.list[i+1:]...)
			q.bytes -= n
			s.bytes -= n
			s.messages--
			q.RecvTime, q.Receiver = now(), pid
			q.queue.Notify(waiter.EventIn)
			return m, nil
		}
		if flags&unix.IPC_NOWAIT != 0 {
			return Message{}, unix.ENOMSG
		}
		if err := s.wait(ctx, q); err != nil {
			return Message{}, err
		}
		if err := q.check(ctx.Credentials(), wantRead); err != nil {
			return Message{}, err
		}
	}
}

// pick is the index of the message that msgrcv(2) takes, or -1.
func (q *MsgQueue) pick(typ int64, flags int) int {
	if flags&MsgCopy != 0 {
		if typ >= 0 && typ < int64(len(q.list)) {
			return int(typ)
		}
		return -1
	}
	best := -1
	for i := range q.list {
		t := q.list[i].Type
		switch {
		case typ == 0, typ > 0 && (t == typ) == (flags&MsgExcept == 0):
			return i
		case typ < 0 && (typ == -1<<63 || t <= -typ) && (best < 0 || t < q.list[best].Type):
			best = i
		}
	}
	return best
}

// MsgStat is what IPC_STAT tells.
type MsgStat struct {
	Perm
	SendTime, RecvTime, Changed int64
	Bytes, Messages, Limit      uint64
	Sender, Receiver            int32
}

func (q *MsgQueue) stat() MsgStat {
	return MsgStat{q.Perm, q.SendTime, q.RecvTime, q.Perm.Changed, q.bytes, uint64(len(q.list)), q.limit, q.Sender, q.Receiver}
}

// Stat is IPC_STAT of an identifier, or with index set MSG_STAT of a slot; any is MSG_STAT_ANY.
func (s *Msgs) Stat(c *auth.Credentials, id int32, index, any bool) (MsgStat, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	find := s.find
	if index {
		find = s.byIndex
	}
	q, err := find(id)
	if err != nil {
		return MsgStat{}, err
	}
	if !any {
		if err := q.check(c, wantRead); err != nil {
			return MsgStat{}, err
		}
	}
	return q.stat(), nil
}

// Set is IPC_SET; limit is msg_qbytes.
func (s *Msgs) Set(c *auth.Credentials, id int32, o Owner, limit uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(id)
	if err != nil {
		return err
	}
	if err := q.own(c); err != nil {
		return err
	}
	if limit > MsgMnb && !c.HasCapIn(unix.CAP_SYS_RESOURCE, s.userNS) {
		return unix.EPERM
	}
	if err := q.set(c, o); err != nil {
		return err
	}
	q.limit = limit
	q.queue.Notify(waiter.EventIn)
	return nil
}

// Remove is IPC_RMID: who waits gets EIDRM.
func (s *Msgs) Remove(c *auth.Credentials, id int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(id)
	if err != nil {
		return err
	}
	if err := q.own(c); err != nil {
		return err
	}
	q.gone = true
	s.bytes -= q.bytes
	s.messages -= uint64(len(q.list))
	q.list = nil
	s.remove(&q.Perm)
	q.queue.Notify(waiter.EventIn)
	return nil
}

// Info is the counts of MSG_INFO: queues, messages and bytes in all, and the highest slot in use.
func (s *Msgs) Info() (queues int, messages, bytes uint64, highest int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count, s.messages, s.bytes, s.highest()
}

// ForEach calls f for all queues (/proc/sysvipc/msg).
func (s *Msgs) ForEach(f func(MsgStat)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if s.slots[i].used {
			f(s.slots[i].obj.stat())
		}
	}
}
