package boot

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// control starts a server on a fake kernel with one created container "c" that runs args.
func control(t *testing.T, args ...string) (*Server, func(k Kind, m Message) (*Reply, error)) {
	t.Helper()
	k, _ := NewFake(&Boot{}, nil)
	if err := k.Create(&Container{ID: "c", Process: Process{Args: args, Stdio: [3]int{-1, -1, -1}}}); err != nil {
		t.Fatal(err)
	}
	s := NewServer(k)
	return s, dial(t, s)
}

func dial(t *testing.T, s *Server) func(k Kind, m Message) (*Reply, error) {
	a, b := pair(t)
	pc, err := NewPollConn(b)
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(pc)
	c := NewConn(a)
	t.Cleanup(c.Close)
	return func(k Kind, m Message) (*Reply, error) {
		if err := c.SendMessage(k, 1, m); err != nil {
			return nil, err
		}
		f, err := c.Recv()
		if err != nil {
			return nil, err
		}
		var r Reply
		if err := Decode(&f, KindReply, &r); err != nil {
			return nil, err
		}
		if r.Err.Code != ErrNone {
			return nil, &r.Err
		}
		return &r, nil
	}
}

func wantCode(t *testing.T, err error, want ErrorCode) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != want {
		t.Errorf("error %v, want code %d", err, want)
	}
}

func TestServerLifecycle(t *testing.T) {
	s, call := control(t, "exit", "3")
	wantCode(t, func() error { _, err := call(KindStart, &Request{Container: "x"}); return err }(), ErrNoContainer)
	if _, err := call(KindStart, &Request{Container: "c"}); err != nil {
		t.Fatal(err)
	}
	_, err := call(KindStart, &Request{Container: "c"})
	wantCode(t, err, ErrState)
	r, err := call(KindWait, &Request{Container: "c"})
	if err != nil || ExitCode(r.Status) != 3 {
		t.Fatalf("wait: %+v, %v", r, err)
	}
	_, err = call(KindWait, &Request{Container: "c", PID: 99})
	wantCode(t, err, ErrNoProcess)
	_, err = call(Kind(999), &Request{})
	wantCode(t, err, ErrUnsupported)
	_, err = call(KindExec, &Request{Container: "c"}) // a payload of the wrong type
	wantCode(t, err, ErrFailed)
	_, err = call(KindExec, &ExecRequest{Container: "c", Process: Process{Args: []string{"nonex"}, Stdio: [3]int{-1, -1, -1}}})
	wantCode(t, err, ErrNotFound)
	s.Drain(time.Second)
}

// A process that a connection keeps alive dies with it.
func TestServerKillsAttached(t *testing.T) {
	s, call := control(t, "sleep", "60")
	call(KindStart, &Request{Container: "c"})
	a, b := pair(t)
	pc, _ := NewPollConn(b)
	go s.Serve(pc)
	c := NewConn(a)
	p := Process{Args: []string{"sleep", "60"}, Stdio: [3]int{-1, -1, -1}}
	c.SendMessage(KindExec, 1, &ExecRequest{Container: "c", Attached: true, Process: p})
	f, err := c.Recv()
	var r Reply
	if err != nil || Decode(&f, KindReply, &r) != nil || r.PID == 0 {
		t.Fatalf("exec: %v %+v", err, r)
	}
	c.Close()
	w, err := call(KindWait, &Request{Container: "c", PID: r.PID})
	if err != nil || ExitCode(w.Status) != 128+int(unix.SIGKILL) {
		t.Fatalf("wait: %+v, %v", w, err)
	}
}

// A request in flight is answered before Drain returns, and none is taken afterwards.
func TestServerDrain(t *testing.T) {
	s, call := control(t, "sleep", "60")
	call(KindStart, &Request{Container: "c"})
	await := func(want int) {
		for {
			s.mu.Lock()
			n := s.inFlight
			s.mu.Unlock()
			if n == want {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	await(0) // a reply is sent before its request counts as done
	wait := dial(t, s)
	got := make(chan error, 1)
	go func() { _, err := wait(KindWait, &Request{Container: "c"}); got <- err }()
	await(1)
	call(KindSignal, &Request{Container: "c", Signal: 9})
	s.Drain(5 * time.Second)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if _, err := call(KindStart, &Request{Container: "c"}); err == nil {
		t.Error("a request was taken after Drain")
	}
}

// countingKernel counts calls of Destroy and Forget.
type countingKernel struct {
	Kernel
	destroyed, forgotten atomic.Int32
}

func (k *countingKernel) Forget(id string, pid int32) { k.forgotten.Add(1) }

func (k *countingKernel) Destroy(id string) error {
	k.destroyed.Add(1)
	return k.Kernel.Destroy(id)
}

// A further container ends with its gofer, with its connection or with the first container; it is destroyed once, however many of them end.
func TestServerDestroysMembersOnce(t *testing.T) {
	f, _ := NewFake(&Boot{}, nil)
	k := &countingKernel{Kernel: f}
	s := NewServer(k)
	await := func() {
		t.Helper()
		for range 1000 {
			if k.destroyed.Load() == 1 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
		if n := k.destroyed.Swap(0); n != 1 {
			t.Fatalf("destroyed %d times", n)
		}
	}
	for range 3 {
		a, b := pair(t)
		pc, err := NewPollConn(b)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() { s.Serve(pc); close(served) }()
		c := NewConn(a)
		var life [2]int
		if err := unix.Pipe2(life[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		null, _ := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		m := &Container{ID: "m", OverlayFile: -1, Gofer: null, Lifeline: life[0], Process: Process{Args: []string{"sleep", "60"}, Stdio: [3]int{-1, -1, -1}}}
		if err := c.SendMessage(KindCreate, 1, m); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Recv(); err != nil {
			t.Fatal(err)
		}
		unix.Close(null)
		unix.Close(life[0])
		unix.Close(life[1]) // as if the gofer had died
		await()
		k.destroyed.Store(1) // the connection's end adds nothing
		c.Close()
		<-served
		await()
	}
	s.DestroyMembers()
	if n := k.destroyed.Load(); n != 0 {
		t.Errorf("destroyed %d times after its end", n)
	}
}

// Nothing is left of an additional process once the connection that started it knows of its end: a container may be probed every second.
func TestServerForgetsProcesses(t *testing.T) {
	f, _ := NewFake(&Boot{}, nil)
	k := &countingKernel{Kernel: f}
	if err := k.Create(&Container{ID: "c", Process: Process{Args: []string{"sleep", "60"}, Stdio: [3]int{-1, -1, -1}}}); err != nil {
		t.Fatal(err)
	}
	s := NewServer(k)
	call, other := dial(t, s), dial(t, s)
	r, err := call(KindExec, &ExecRequest{Container: "c", Attached: true, Process: Process{Args: []string{"exit", "3"}, Stdio: [3]int{-1, -1, -1}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, wait := range []func(Kind, Message) (*Reply, error){other, call, call} {
		if w, err := wait(KindWait, &Request{Container: "c", PID: r.PID}); err != nil || ExitCode(w.Status) != 3 {
			t.Errorf("wait: %+v, %v", w, err)
		}
	}
	if n := k.forgotten.Load(); n != 1 {
		t.Errorf("forgotten %d times", n)
	}
}
