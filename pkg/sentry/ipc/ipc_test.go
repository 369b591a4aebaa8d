package ipc

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// caller is a vfs.Context that can wait.
type caller struct {
	vfs.Context
	creds *auth.Credentials
	sig   waiter.Signal
}

func newCaller(c *auth.Credentials) *caller {
	x := &caller{creds: c}
	x.sig.Init()
	return x
}

func (c *caller) Credentials() *auth.Credentials { return c.creds }
func (c *caller) Waker() *waiter.Signal          { return &c.sig }
func (c *caller) Block(ch <-chan struct{}, deadline int64) error {
	select {
	case <-ch:
		return nil
	case <-time.After(5 * time.Second):
		return unix.ETIMEDOUT
	}
}

type noPlatform struct{ platform.Platform }

func (noPlatform) UserRange() (uint64, uint64)     { return 4096, 1<<47 - 4096 }
func (noPlatform) VDSO() (base, size, ehdr uint64) { return 0, 0, 0 }

func setup(t *testing.T) (*Namespace, *memfile.File, *auth.Credentials) {
	f, err := memfile.New(memfile.Options{Size: 1 << 32})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	ns := auth.NewRootUserNamespace()
	return New(ns, f), f, auth.NewRootCredentials(ns)
}

func TestSharedMemory(t *testing.T) {
	n, f, root := setup(t)
	user := root.Clone()
	user.EUID, user.Effective = 1000, 0
	id, err := n.Shm.Get(root, 1, 42, 10000, Create|0o600)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cred  *auth.Credentials
		key   int32
		size  uint64
		flags int
		want  error
	}{
		{root, 42, 10000, 0, nil}, {root, 42, 10001, 0, unix.EINVAL}, {root, 42, 1, Create | Exclusive, unix.EEXIST}, {user, 42, 0, 0o400, unix.EACCES},
		{root, 43, 1, 0, unix.ENOENT}, {root, 43, 0, Create, unix.EINVAL}, {root, Private, ^uint64(0), 0, unix.EINVAL},
	} {
		if got, err := n.Shm.Get(c.cred, 1, c.key, c.size, c.flags); err != c.want || err == nil && got != id {
			t.Errorf("%+v: %d, %v", c, got, err)
		}
	}
	a := mm.New(noPlatform{}, f, limits.New())
	b := mm.New(noPlatform{}, f, limits.New())
	at, err := n.Shm.Attach(root, a, 1, id, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	bt, err := n.Shm.Attach(root, b, 2, id, 0x10000123, ShmRound|ShmReadOnly)
	if err != nil || bt != 0x10000000 {
		t.Fatal(bt, err)
	}
	if _, err := n.Shm.Attach(root, b, 2, id, bt, 0); err != unix.EINVAL {
		t.Fatal(err)
	}
	if _, err := n.Shm.Attach(user, b, 2, id, 0, 0); err != unix.EACCES {
		t.Fatal(err)
	}
	a.WriteUint32(at+8192, 7)
	if v, err := b.ReadUint32(bt + 8192); v != 7 || err != nil {
		t.Fatal(v, err)
	}
	if b.WriteUint32(bt, 1) == nil {
		t.Fatal("wrote through a read-only attachment")
	}
	if err := n.Shm.Remove(root, id); err != nil {
		t.Fatal(err)
	}
	if st, err := n.Shm.Stat(root, id, false, false); err != nil || st.Attaches != 2 || st.Mode&shmDest == 0 {
		t.Fatal(st, err)
	}
	// An attachment that was cut goes as a whole.
	a.Munmap(at+4096, 4096)
	if err := Detach(a, 1, at+8192); err != unix.EINVAL {
		t.Fatal(err)
	}
	if err := Detach(a, 1, at); err != nil {
		t.Fatal(err)
	}
	c, _ := b.Fork(limits.New())
	b.DecUsers()
	if _, err := n.Shm.Stat(root, id, false, false); err != nil {
		t.Fatal(err)
	}
	c.DecUsers()
	if _, err := n.Shm.Stat(root, id, false, false); err != unix.EINVAL {
		t.Fatal(err)
	}
	if f.Allocated() != 0 || a.VirtualSize() != 0 {
		t.Fatalf("%d bytes leaked, %d mapped", f.Allocated(), a.VirtualSize())
	}
	// The next segment in the slot has another identifier.
	if id2, _ := n.Shm.Get(root, 1, Private, 1, 0); id2 == id {
		t.Fatal("identifier reused at once")
	} else if _, err := n.Shm.Stat(root, id, false, false); err != unix.EIDRM {
		t.Fatal(err)
	}
}

func TestSemaphores(t *testing.T) {
	n, _, root := setup(t)
	s := n.Sem
	id, err := s.Get(root, Private, 3, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	x := newCaller(root)
	do := func(owner string, ops ...SemOp) error { return s.Do(x, 1, owner, id, ops, vfs.NoDeadline) }
	if err := do("a", SemOp{0, 5, SemUndo}, SemOp{1, -1, unix.IPC_NOWAIT}); err != unix.EAGAIN {
		t.Fatal(err)
	}
	if st, _ := s.State(root, id, 0); st.Value != 0 {
		t.Fatal("half done", st)
	}
	if err := do("a", SemOp{3, 1, 0}); err != unix.EFBIG {
		t.Fatal(err)
	}
	if err := do("a", SemOp{0, 32767, 0}, SemOp{0, 1, 0}); err != unix.ERANGE {
		t.Fatal(err)
	}
	if err := do("a", SemOp{0, 5, SemUndo}); err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() { got <- s.Do(newCaller(root), 2, "b", id, []SemOp{{0, 0, 0}, {1, 1, 0}}, vfs.NoDeadline) }()
	for {
		if st, _ := s.State(root, id, 0); st.Zero == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s.Exit("a", 1)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if list, _ := s.Values(root, id); list[0] != 0 || list[1] != 1 {
		t.Fatal(list)
	}
	go func() { got <- s.Do(newCaller(root), 2, "b", id, []SemOp{{0, -1, 0}}, vfs.NoDeadline) }()
	for {
		if st, _ := s.State(root, id, 0); st.More == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := s.Remove(root, id); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != unix.EIDRM {
		t.Fatal(err)
	}
}

func TestMessages(t *testing.T) {
	n, _, root := setup(t)
	s := n.Msg
	id, _ := s.Get(root, 5, Create|0o600)
	x := newCaller(root)
	for _, typ := range []int64{3, 1, 2, 1} {
		if err := s.Send(x, 1, id, Message{typ, []byte{byte(typ), 9}}, false); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		typ   int64
		size  uint64
		flags int
		want  int64
		err   error
	}{
		{0, 1, 0, 0, unix.E2BIG}, {-2, 10, 0, 1, nil}, {3, 10, MsgExcept, 2, nil}, {0, 1, MsgNoError, 3, nil}, {7, 10, unix.IPC_NOWAIT, 0, unix.ENOMSG},
		{1, 10, 0, 1, nil}, {0, 10, unix.IPC_NOWAIT, 0, unix.ENOMSG},
	} {
		m, err := s.Receive(x, 1, id, c.size, c.typ, c.flags)
		if err != c.err || m.Type != c.want {
			t.Errorf("%+v: %v, %v", c, m, err)
		}
	}
	got := make(chan error)
	go func() {
		_, err := s.Receive(newCaller(root), 2, id, 10, 4, 0)
		got <- err
	}()
	s.Send(x, 1, id, Message{4, nil}, false)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	big := make([]byte, MsgMax)
	s.Send(x, 1, id, Message{1, big}, true)
	s.Send(x, 1, id, Message{1, big}, true)
	if err := s.Send(x, 1, id, Message{1, big}, true); err != unix.EAGAIN {
		t.Fatal(err)
	}
	if _, messages, bytes, _ := s.Info(); messages != 2 || bytes != 2*MsgMax {
		t.Fatal(messages, bytes)
	}
}
