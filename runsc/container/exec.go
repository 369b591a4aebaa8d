package container

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"husk/runsc/boot"
	"husk/runsc/sandbox"
)

// WaiterVerb is the command that stands for a detached process.
const WaiterVerb = "exec-waiter"

// ExecOptions say how to run an additional process.
type ExecOptions struct {
	Process       *specs.Process // checked
	Detach        bool
	ConsoleSocket string
	PIDFile       string
	PreserveFDs   int
	Inherited     Inherited // nil where nothing is to be preserved
}

// Process is an additional process that this process waits for.
type Process struct {
	// Terminal is the master of its terminal, -1 without.
	Terminal int

	c      *Container
	client *sandbox.Client
	pid    int32
}

// Exec runs an additional process in the container. A detached one has a process of its own on the
// host that stands for it, and nil is returned.
func (c *Container) Exec(o *ExecOptions) (*Process, error) {
	if err := checkConsole(o.Process.Terminal, o.Detach, o.ConsoleSocket); err != nil {
		return nil, err
	}
	p, err := ToProcess(o.Process)
	if err != nil {
		return nil, err
	}
	run := &Process{Terminal: -1, c: c}
	slave := -1
	p.Stdio = [3]int{0, 1, 2}
	if p.Terminal {
		if run.Terminal, slave, err = openPTY(); err != nil {
			return nil, err
		}
		defer unix.Close(slave)
		if p.Rows != 0 || p.Cols != 0 {
			unix.IoctlSetWinsize(run.Terminal, unix.TIOCSWINSZ, &unix.Winsize{Row: p.Rows, Col: p.Cols})
		}
		p.Stdio = [3]int{slave, slave, slave}
		if o.ConsoleSocket != "" {
			err := sendConsole(o.ConsoleSocket, run.Terminal)
			unix.Close(run.Terminal)
			if run.Terminal = -1; err != nil {
				return nil, err
			}
		}
	}
	extra, env, err := o.Inherited.preserved(o.PreserveFDs)
	if err != nil {
		return nil, err
	}
	p.Extra, p.Env = extra, append(p.Env[:len(p.Env):len(p.Env)], env...)
	if run.client, err = c.connect(); err != nil {
		return nil, err
	}
	r, err := run.client.Call(boot.KindExec, &boot.ExecRequest{Container: c.ID, Attached: true, Process: *p})
	if err != nil {
		run.client.Close()
		return nil, processError(err)
	}
	run.pid = r.PID
	if !o.Detach {
		if o.PIDFile != "" {
			err = writePIDFile(o.PIDFile, os.Getpid())
		}
		return run, err
	}
	defer run.client.Close()
	return nil, run.handOver(o.PIDFile, slave)
}

// handOver starts the process that stands for p on the host, and gives it the connection that keeps p alive.
func (p *Process) handOver(pidFile string, tty int) error {
	w, err := p.c.spawnWaiter(p.client, p.pid, tty, nil)
	if err == nil && pidFile != "" {
		if err = writePIDFile(pidFile, w.pid); err != nil {
			w.kill()
		}
	}
	w.detach()
	return err
}

// waiter is a process that stands for one of a container's on the host, as long as this process holds it.
type waiter struct {
	pid    int
	conn   *boot.Conn // nil once the waiter lives on its own
	reaped bool
	status unix.WaitStatus
}

// detach lets the waiter live on without this process.
func (w *waiter) detach() {
	if w.conn != nil {
		w.conn.Send(boot.Frame{Kind: boot.KindDetach})
		w.conn.Close()
		w.conn = nil
	}
}

func (w *waiter) kill() {
	unix.Kill(w.pid, unix.SIGKILL)
	w.wait()
}

func (w *waiter) wait() unix.WaitStatus {
	for !w.reaped {
		_, err := unix.Wait4(w.pid, &w.status, 0, nil)
		w.reaped = err != unix.EINTR
	}
	return w.status
}

// spawnWaiter starts a process that stands for one of the container's on the host: it passes
// signals on, ends with its exit code, and while it lives keeps client's connection open. placed, if not nil, puts it into
// cgroups: those of additional processes stay out of the container's, whose memory is the application's. Until it is detached it ends with this process.
func (c *Container) spawnWaiter(client *sandbox.Client, pid int32, tty int, placed func(pid int) error) (_ waiter, err error) {
	control, err := c.connect()
	if err != nil {
		return waiter{}, err
	}
	defer control.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return waiter{}, fmt.Errorf("socketpair: %w", err)
	}
	w := waiter{conn: boot.NewConn(pair[0])}
	defer func() {
		if err != nil {
			w.conn.Close()
		}
	}()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(pair[1])
		return waiter{}, err
	}
	defer unix.Close(null)
	n := uintptr(null)
	w.pid, err = syscall.ForkExec("/proc/self/exe", []string{"runsc", WaiterVerb}, &syscall.ProcAttr{
		Dir:   "/",
		Files: []uintptr{n, n, n, uintptr(pair[1])},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	unix.Close(pair[1])
	if err != nil {
		return waiter{}, fmt.Errorf("start the waiting process: %w", err)
	}
	if placed != nil {
		err = placed(w.pid)
	}
	if err == nil {
		err = w.conn.SendMessage(boot.KindWaiter, 0, &boot.Waiter{
			Container: c.ID, PID: pid, Wait: client.FD(), Control: control.FD(), TTY: tty,
		})
	}
	if err != nil {
		w.kill()
		return waiter{}, fmt.Errorf("start the waiting process: %w", err)
	}
	return w, nil
}

// Wait waits for the process's end and returns its exit code.
func (p *Process) Wait() (int, error) {
	defer p.client.Close()
	r, err := p.client.Call(boot.KindWait, &boot.Request{Container: p.c.ID, PID: p.pid})
	if errors.Is(err, sandbox.ErrGone) {
		return 128 + int(unix.SIGKILL), nil // the container ended, and all its processes with it
	}
	if err != nil {
		return 0, err
	}
	return boot.ExitCode(r.Status), nil
}

// Signal sends the process a signal.
func (p *Process) Signal(sig int) {
	p.c.call(boot.KindSignal, &boot.Request{PID: p.pid, Signal: int32(sig)})
}

// Resize tells the process that its terminal has a new size.
func (p *Process) Resize(rows, cols uint16) {
	p.c.call(boot.KindResize, &boot.Request{PID: p.pid, Rows: uint32(rows), Cols: uint32(cols)})
}

// Wait waits for a process of the container, 0 for the first, and returns its exit code.
func (c *Container) Wait(pid int) (int, error) {
	if c.CurrentStatus() == Stopped {
		return 0, ErrNotRunning
	}
	r, err := c.call(boot.KindWait, &boot.Request{PID: int32(pid)})
	if err != nil {
		return 0, err
	}
	return boot.ExitCode(r.Status), nil
}
