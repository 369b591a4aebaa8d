package boot

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/log"
)

// NewFake makes a kernel that executes nothing: it knows a handful of commands by name (true,
// false, exit N, sleep N, echo, panic). The tests of everything around the kernel run on it.
func NewFake(b *Boot, l *log.Logger) (Kernel, error) {
	return &fake{containers: make(map[string]*fakeContainer)}, nil
}

type fake struct {
	mu         sync.Mutex
	containers map[string]*fakeContainer
}

type fakeContainer struct {
	init    *Process
	procs   map[int32]*fakeProcess
	next    int32
	started bool
	paused  bool
}

type fakeProcess struct {
	p      *Process
	done   chan struct{}
	kill   chan int32
	status uint32
}

func (k *fake) find(id string) (*fakeContainer, error) {
	if c := k.containers[id]; c != nil {
		return c, nil
	}
	return nil, &Error{ErrNoContainer, "container does not exist"}
}

// known checks that a command exists.
func known(p *Process) error {
	if len(p.Args) == 0 {
		return &Error{ErrFailed, "process args cannot be empty"}
	}
	switch p.Args[0] {
	case "true", "false", "exit", "sleep", "echo", "panic":
		return nil
	case "/":
		return &Error{ErrNotExecuted, `exec: "/": permission denied`}
	}
	return &Error{ErrNotFound, fmt.Sprintf("exec: %q: executable file not found in $PATH", p.Args[0])}
}

func (k *fake) Create(c *Container) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := known(&c.Process); err != nil {
		return err
	}
	fc := &fakeContainer{init: &c.Process, procs: make(map[int32]*fakeProcess), next: 1}
	k.containers[c.ID] = fc
	fc.add(&c.Process)
	return nil
}

func (c *fakeContainer) add(p *Process) (int32, *fakeProcess) {
	fp := &fakeProcess{p: p, done: make(chan struct{}), kill: make(chan int32, 16)}
	pid := c.next
	c.next++
	c.procs[pid] = fp
	return pid, fp
}

func (p *fakeProcess) run() {
	defer close(p.done)
	defer closeAll(p.p.Stdio[:])
	num := func() int {
		if len(p.p.Args) < 2 {
			return 0
		}
		n, _ := strconv.Atoi(p.p.Args[1])
		return n
	}
	switch p.p.Args[0] {
	case "false":
		p.status = 1 << 8
	case "exit":
		p.status = uint32(num()&0xff) << 8
	case "echo":
		for _, a := range p.p.Args[1:] {
			unix.Write(p.p.Stdio[1], []byte(a+"\n"))
		}
	case "panic":
		panic("fake kernel told to panic")
	case "sleep":
		select {
		case <-time.After(time.Duration(num()) * time.Second):
		case sig := <-p.kill:
			p.status = uint32(sig)
		}
	}
}

func (k *fake) Start(id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.find(id)
	if err != nil {
		return err
	}
	if c.started {
		return &Error{ErrState, "cannot start an already running container"}
	}
	c.started = true
	go c.procs[1].run()
	return nil
}

func (k *fake) Exec(id string, p *Process) (int32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.find(id)
	if err != nil {
		return 0, err
	}
	if err := known(p); err != nil {
		return 0, err
	}
	pid, fp := c.add(p)
	go fp.run()
	return pid, nil
}

func (k *fake) process(id string, pid int32) (*fakeProcess, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.find(id)
	if err != nil {
		return nil, err
	}
	if p := c.procs[max(pid, 1)]; p != nil {
		return p, nil
	}
	return nil, &Error{ErrNoProcess, "no such process"}
}

func (k *fake) Wait(id string, pid int32) (uint32, error) {
	p, err := k.process(id, pid)
	if err != nil {
		return 0, err
	}
	<-p.done
	return p.status, nil
}

func (k *fake) Signal(id string, pid int32, sig int32, all bool) error {
	p, err := k.process(id, pid)
	if err != nil {
		return err
	}
	if sig < 0 || sig > 64 {
		return unix.EINVAL
	}
	k.mu.Lock()
	c := k.containers[id]
	if !c.started && p == c.procs[1] && sig == int32(unix.SIGKILL) {
		p.status, c.started = uint32(sig), true
		close(p.done)
	}
	k.mu.Unlock()
	if sig != 0 {
		select {
		case p.kill <- sig:
		default:
		}
	}
	return nil
}

func (k *fake) Processes(id string) ([]ProcessInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.find(id)
	if err != nil {
		return nil, err
	}
	var out []ProcessInfo
	for pid, p := range c.procs {
		select {
		case <-p.done:
		default:
			out = append(out, ProcessInfo{PID: pid, State: 'S', TTY: "?", Args: p.p.Args[0]})
		}
	}
	return out, nil
}

func (k *fake) setPaused(id string, v bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.find(id)
	if err == nil {
		c.paused = v
	}
	return err
}

func (k *fake) Pause(id string) error                                { return k.setPaused(id, true) }
func (k *fake) Resume(id string) error                               { return k.setPaused(id, false) }
func (k *fake) Resize(id string, pid int32, rows, cols uint16) error { return nil }
func (k *fake) Stats(id string) (Stats, error)                       { return Stats{}, nil }
func (k *fake) Forget(id string, pid int32)                          {}
func (k *fake) Update(id string, l *Limits) error                    { return nil }
func (k *fake) Destroy(id string) error                              { return k.Signal(id, 0, int32(unix.SIGKILL), true) }
