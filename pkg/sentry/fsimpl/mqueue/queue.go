package mqueue

import (
	"fmt"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Attr is struct mq_attr but for the flags, which belong to the open file.
type Attr struct {
	MaxMsg, MsgSize int64
	CurMsgs         int64
}

// check vets the attributes of a new queue; privileged is CAP_SYS_RESOURCE. EINVAL.
func (a *Attr) check(privileged bool) error {
	most, size := int64(MaxMessages), int64(MaxSize)
	if privileged {
		most, size = hardMessages, hardSize
	}
	if a.MaxMsg <= 0 || a.MsgSize <= 0 || a.MaxMsg > most || a.MsgSize > size {
		return unix.EINVAL
	}
	return nil
}

// Queue is a message queue: an inode of the file system.
type Queue struct {
	vfs.Inode
	vfs.NoOps
	fs    *FS
	owner auth.KUID // immutable: whose memory it is
	cost  int64     // immutable
	ctime int64     // immutable

	events waiter.Queue

	mu       sync.Mutex
	attr     Attr      // protected by mu, as is what follows; CurMsgs is len(messages)
	messages []message // by falling priority, then age
	bytes    int64
	waiting  int // blocked receivers
	notify   *notification
}

type message struct {
	prio uint32
	text []byte
}

// notification is a registration by mq_notify(3).
type notification struct {
	group *kernel.ThreadGroup
	sig   linux.Signal // 0: SIGEV_NONE
	value uint64
}

// Release implements vfs.InodeOps.
func (q *Queue) Release() {
	q.fs.mu.Lock()
	if q.fs.bytes[q.owner] -= q.cost; q.fs.bytes[q.owner] == 0 {
		delete(q.fs.bytes, q.owner)
	}
	q.fs.mu.Unlock()
}

// Stat implements vfs.InodeOps.
func (q *Queue) Stat(_ vfs.Context, _ uint32, st *vfs.Stat) error {
	st.Mode, st.Nlink, st.Ino, st.Dev, st.Blksize = q.Mode(), 1, q.Ino(), q.Superblock().Dev(), 4096
	st.UID, st.GID, st.Size = q.UID(), q.GID(), 80
	st.Atime, st.Mtime, st.Ctime = q.ctime, q.ctime, q.ctime
	return nil
}

// SetStat implements vfs.InodeOps.
func (q *Queue) SetStat(_ vfs.Context, s *vfs.SetStat) error {
	setAttributes(&q.Inode, s)
	return nil
}

// Open implements vfs.InodeOps.
func (q *Queue) Open(vfs.Context, uint32) (vfs.FileImpl, error) { return &file{q: q}, nil }

// file is an open queue.
type file struct{ q *Queue }

// Of is the queue behind an open file; nil if it is something else.
func QueueOf(f *vfs.FileDescription) *Queue {
	if x, ok := f.Impl().(*file); ok {
		return x.q
	}
	return nil
}

// Release implements vfs.FileImpl.
func (*file) Release() {}

// Flush implements vfs.Flusher: a close by the process that is registered for notification ends that.
func (f *file) Flush(ctx vfs.Context) error {
	if t, ok := ctx.(*kernel.Task); ok {
		f.q.mu.Lock()
		if n := f.q.notify; n != nil && n.group == t.Group() {
			f.q.notify = nil
		}
		f.q.mu.Unlock()
	}
	return nil
}

// Read implements vfs.Reader: the state of the queue as text (mq_overview(7)).
func (f *file) Read(ctx vfs.Context, dst mm.IOSeq, off int64) (int64, error) {
	q := f.q
	q.mu.Lock()
	notify, signo, pid := 0, int32(0), int32(0)
	if n := q.notify; n != nil {
		if n.sig == 0 {
			notify = 1
		}
		signo = int32(n.sig)
		pid = n.group.ID()
		if t, ok := ctx.(*kernel.Task); ok {
			pid = n.group.IDIn(t.PIDNS())
		}
	}
	s := fmt.Sprintf("QSIZE:%-10d NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n", q.bytes, notify, signo, pid)
	q.mu.Unlock()
	if off >= int64(len(s)) {
		return 0, nil
	}
	n, err := dst.CopyOut([]byte(s[off:]))
	return int64(n), err
}

// Readiness implements waiter.Waitable.
func (f *file) Readiness(mask waiter.EventMask) waiter.EventMask {
	f.q.mu.Lock()
	defer f.q.mu.Unlock()
	var m waiter.EventMask
	if len(f.q.messages) > 0 {
		m |= waiter.ReadableEvents
	}
	if int64(len(f.q.messages)) < f.q.attr.MaxMsg {
		m |= waiter.WritableEvents
	}
	return m & mask
}

// EventRegister implements waiter.Waitable.
func (f *file) EventRegister(e *waiter.Entry) { f.q.events.EventRegister(e) }

// EventUnregister implements waiter.Waitable.
func (f *file) EventUnregister(e *waiter.Entry) { f.q.events.EventUnregister(e) }

// Attr returns the attributes.
func (q *Queue) Attr() Attr {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.attr
	a.CurMsgs = int64(len(q.messages))
	return a
}

// wait calls op until it gives something else than EAGAIN or the CLOCK_MONOTONIC deadline has passed (ETIMEDOUT).
func (q *Queue) wait(ctx vfs.Context, nonblock bool, mask waiter.EventMask, deadline int64, op func() error) error {
	err := op()
	if err != unix.EAGAIN || nonblock {
		return err
	}
	s := ctx.Waker()
	var e waiter.Entry
	e.Init(s, mask)
	q.events.EventRegister(&e)
	defer q.events.EventUnregister(&e)
	for {
		if err := op(); err != unix.EAGAIN {
			return err
		}
		if err := ctx.Block(s.C, deadline); err != nil {
			return err
		}
	}
}

// Send is mq_timedsend(3) of text, which belongs to the queue from now on. EMSGSIZE, EINVAL, EAGAIN, ETIMEDOUT.
func (q *Queue) Send(t *kernel.Task, text []byte, prio uint32, nonblock bool, deadline int64) error {
	if prio >= maxPriority {
		return unix.EINVAL
	}
	if int64(len(text)) > q.Attr().MsgSize {
		return unix.EMSGSIZE
	}
	var n *notification
	err := q.wait(t, nonblock, waiter.WritableEvents, deadline, func() error {
		q.mu.Lock()
		defer q.mu.Unlock()
		if int64(len(q.messages)) >= q.attr.MaxMsg {
			return unix.EAGAIN
		}
		if len(q.messages) == 0 && q.waiting == 0 {
			n, q.notify = q.notify, nil
		}
		i := sort.Search(len(q.messages), func(i int) bool { return q.messages[i].prio < prio })
		q.messages = append(q.messages, message{})
		copy(q.messages[i+1:], q.messages[i:])
		q.messages[i] = message{prio, text}
		q.bytes += int64(len(text))
		q.events.Notify(waiter.ReadableEvents)
		return nil
	})
	if err == nil && n != nil && n.sig != 0 {
		info := t.UserInfo(n.sig, linux.SI_MESGQ, n.group)
		info.SetValue(n.value)
		n.group.SendSignal(info)
	}
	return err
}

// Receive is mq_timedreceive(3) into a buffer of size bytes. EMSGSIZE if it is smaller than the queue's messages may be.
func (q *Queue) Receive(t *kernel.Task, size uint64, nonblock bool, deadline int64) (text []byte, prio uint32, err error) {
	if size < uint64(q.Attr().MsgSize) {
		return nil, 0, unix.EMSGSIZE
	}
	counted := false
	err = q.wait(t, nonblock, waiter.ReadableEvents, deadline, func() error {
		q.mu.Lock()
		defer q.mu.Unlock()
		if len(q.messages) == 0 {
			if !counted && !nonblock {
				counted = true
				q.waiting++
			}
			return unix.EAGAIN
		}
		m := q.messages[0]
		copy(q.messages, q.messages[1:])
		q.messages[len(q.messages)-1] = message{}
		q.messages = q.messages[:len(q.messages)-1]
		q.bytes -= int64(len(m.text))
		text, prio = m.text, m.prio
		q.events.Notify(waiter.WritableEvents)
		return nil
	})
	if counted {
		q.mu.Lock()
		q.waiting--
		q.mu.Unlock()
	}
	return text, prio, err
}

// Notify is mq_notify(3): sig 0 asks for no signal. EBUSY if somebody is registered.
func (q *Queue) Notify(t *kernel.Task, sig linux.Signal, value uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := q.notify; n != nil && !n.group.Exited() {
		return unix.EBUSY
	}
	q.notify = &notification{t.Group(), sig, value}
	return nil
}

// CancelNotify ends the registration of the calling process.
func (q *Queue) CancelNotify(t *kernel.Task) {
	q.mu.Lock()
	if n := q.notify; n != nil && n.group == t.Group() {
		q.notify = nil
	}
	q.mu.Unlock()
}
