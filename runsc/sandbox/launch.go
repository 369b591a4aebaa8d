package sandbox

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"husk/runsc/boot"
)

// Launch is what it takes to start a sandbox with its first container.
type Launch struct {
	Boot  *boot.Boot
	Gofer *boot.GoferBoot
	// NetNS is a descriptor of the network namespace to run in, -1 for a new one (or the host's, with HostNetwork).
	NetNS int
	// Attach are the trees of files that the gofer opens.
	Attach      []boot.Attach
	HostNetwork bool
	Rootless    bool
	// UIDMappings and GIDMappings are the container's user namespace, empty for none.
	UIDMappings, GIDMappings []syscall.SysProcIDMap
	// Placed is called for each new process before it is told anything: to put it into cgroups.
	Placed func(pid int) error
	// Ready is called with the sandbox's process id when its namespaces exist and before it boots: for hooks.
	Ready func(pid int) error
	Time  *boot.Timeline
}

// Sandbox is a started sandbox, held by its launcher. Until Detach, it dies with the launcher.
type Sandbox struct {
	sandbox, gofer child
	conn           *boot.Conn // the boot connection to the sandbox
}

// PID is the sandbox process, GoferPID the gofer's.
func (s *Sandbox) PID() int      { return s.sandbox.pid }
func (s *Sandbox) GoferPID() int { return s.gofer.pid }

// wires are what connects a gofer with a sandbox.
type wires struct {
	files [2]int // the file protocol: the sandbox's end, the gofer's
	life  [2]int // the pipe that hangs up when the gofer dies: reading end, writing end
}

func newWires() (w wires, err error) {
	if w.files, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0); err != nil {
		return w, fmt.Errorf("socketpair: %w", err)
	}
	if err := unix.Pipe2(w.life[:], unix.O_CLOEXEC); err != nil {
		unix.Close(w.files[0])
		unix.Close(w.files[1])
		return w, fmt.Errorf("pipe: %w", err)
	}
	return w, nil
}

func (w *wires) close(end int) {
	unix.Close(w.files[end])
	unix.Close(w.life[end])
}

// Pending is a sandbox whose processes have been started, and wait for their messages: meanwhile the launcher can prepare
// what the messages will hold.
type Pending struct {
	l *Launch
	s *Sandbox
}

// Spawn starts the processes of a launch, of which only the fields on namespaces, users and files count yet. They end
// when this process does.
func Spawn(l *Launch) (*Pending, error) {
	s := &Sandbox{}
	if err := s.spawn(l); err != nil {
		s.Kill()
		return nil, err
	}
	return &Pending{l: l, s: s}, nil
}

// spawn starts both processes. Where this one has no privileges, neither goes on before both user namespaces are complete:
// a process that has changed its user takes from this one, whose memory it shares, what makes it the owner of its files in /proc.
func (s *Sandbox) spawn(l *Launch) (err error) {
	sandbox, gofer := sandboxSpec(l), goferSpec(l)
	if s.sandbox, err = spawn(sandbox); err != nil {
		return err
	}
	s.conn = boot.NewConn(s.sandbox.conn)
	l.Time.Mark("sandbox process spawned")
	if !l.Rootless {
		if err = s.sandbox.release(sandbox); err != nil {
			return err
		}
	}
	if s.gofer, err = spawn(gofer); err != nil {
		return err
	}
	l.Time.Mark("gofer process spawned")
	if l.Rootless {
		if err = s.sandbox.release(sandbox); err != nil {
			return err
		}
	}
	return s.gofer.release(gofer)
}

// Cancel ends the processes.
func (p *Pending) Cancel() { p.s.Kill() }

// Start returns when the container is created. The descriptors in the boot messages stay the
// caller's. On error the processes are gone.
func (p *Pending) Start() (*Sandbox, error) {
	if err := p.s.boot(p.l); err != nil {
		p.s.Kill()
		return nil, err
	}
	return p.s, nil
}

func (s *Sandbox) boot(l *Launch) error {
	w, err := newWires()
	if err != nil {
		return err
	}
	l.Boot.Container.Gofer, l.Boot.Container.Lifeline = w.files[0], w.life[0]
	l.Gofer.Conn, l.Gofer.Lifeline = w.files[1], w.life[1]
	err = s.bootGofer(l)
	w.close(1)
	if err == nil {
		err = s.bootSandbox(l)
	}
	w.close(0)
	// What the sandbox says follows from what the gofer says, which waits for nobody.
	if err == nil {
		err = s.awaitGofer(l)
	}
	if err == nil {
		err = s.awaitSandbox(l)
	}
	return err
}

// Member is a further container of a sandbox, held by its launcher: its gofer, and its connection
// to the sandbox, with which it goes.
type Member struct {
	gofer  child
	client *Client
}

// Join starts a gofer and has the sandbox that client is connected to create the container. It takes client over.
func Join(l *Launch, client *Client) (*Member, error) {
	w, err := newWires()
	if err != nil {
		client.Close()
		return nil, err
	}
	l.Boot.Container.Gofer, l.Boot.Container.Lifeline = w.files[0], w.life[0]
	l.Gofer.Conn, l.Gofer.Lifeline = w.files[1], w.life[1]
	s := &Sandbox{}
	spec := goferSpec(l)
	if s.gofer, err = spawn(spec); err == nil {
		err = s.gofer.release(spec)
	}
	if err == nil {
		err = s.bootGofer(l)
	}
	w.close(1)
	if err == nil {
		err = s.awaitGofer(l)
	}
	m := &Member{gofer: s.gofer, client: client}
	if err == nil {
		_, err = client.Call(boot.KindCreate, &l.Boot.Container)
	}
	w.close(0)
	if err != nil {
		m.Kill()
		return nil, err
	}
	return m, nil
}

// GoferPID is the gofer's process.
func (m *Member) GoferPID() int { return m.gofer.pid }

// Client is the connection that keeps the container.
func (m *Member) Client() *Client { return m.client }

// Kill ends the container.
func (m *Member) Kill() {
	m.client.Close()
	m.gofer.kill()
	if m.gofer.pid > 0 {
		m.gofer.close()
	}
}

// Detach leaves the container to who else holds the connection.
func (m *Member) Detach() {
	m.client.Close()
	m.gofer.close()
}

// Reap ends the gofer, which has nobody to serve any more and no state.
func (m *Member) Reap() { m.gofer.kill() }

func (s *Sandbox) bootGofer(l *Launch) error {
	if err := l.Placed(s.gofer.pid); err != nil {
		return err
	}
	// A failure to send is the process's death, and awaitGofer finds out more about it.
	boot.NewConn(s.gofer.conn).SendMessage(boot.KindGoferBoot, 1, l.Gofer)
	return nil
}

func (s *Sandbox) awaitGofer(l *Launch) error {
	var ready boot.GoferReady
	f, err := boot.NewConn(s.gofer.conn).Recv()
	if err == nil {
		err = boot.Decode(&f, boot.KindGoferReady, &ready)
	} else if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return s.gofer.died()
	}
	if err != nil {
		return fmt.Errorf("gofer: %w", err)
	}
	if ready.Error != "" {
		return errors.New(ready.Error)
	}
	l.Time.Mark("gofer ready")
	return nil
}

func (s *Sandbox) bootSandbox(l *Launch) error {
	if err := l.Placed(s.sandbox.pid); err != nil {
		return err
	}
	if l.Ready != nil {
		if err := l.Ready(s.sandbox.pid); err != nil {
			return err
		}
	}
	s.conn.SendMessage(boot.KindBoot, 1, l.Boot)
	l.Time.Mark("boot message sent")
	return nil
}

func (s *Sandbox) awaitSandbox(l *Launch) error {
	var r boot.Reply
	f, err := s.conn.Recv()
	if err == nil {
		err = boot.Decode(&f, boot.KindReply, &r)
	} else if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return s.sandbox.died()
	}
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	if r.Err.Code != boot.ErrNone {
		return sandboxError(&r.Err)
	}
	l.Time.Mark("sandbox ready")
	return nil
}

// Detach lets the sandbox live on when the launcher ends.
func (s *Sandbox) Detach() error {
	err := s.conn.Send(boot.Frame{Kind: boot.KindDetach})
	s.sandbox.close()
	s.gofer.close()
	return err
}

// Kill ends both processes.
func (s *Sandbox) Kill() {
	s.sandbox.kill()
	s.gofer.kill()
	if s.sandbox.pid > 0 {
		s.sandbox.close()
	}
	if s.gofer.pid > 0 {
		s.gofer.close()
	}
}

// Wait returns how the sandbox process ended, which is how the application did. LastWords holds what the
// sandbox had to say if it did not end well.
func (s *Sandbox) Wait() unix.WaitStatus {
	ws := s.sandbox.wait()
	s.gofer.kill() // it would follow by itself; it has no state
	return ws
}

// LastWords is what the sandbox left on its standard error.
func (s *Sandbox) LastWords() string { return s.sandbox.words.read() }
