package container

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"husk/pkg/log"
	"husk/runsc/boot"
	"husk/runsc/cgroup"
	"husk/runsc/sandbox"
)

// connect opens a control connection to the container's sandbox.
func (c *Container) connect() (*sandbox.Client, error) { return c.connectTo(c.PID) }

// connectTo is connect with the process whose last words explain an early end.
func (c *Container) connectTo(pid int) (*sandbox.Client, error) {
	return sandbox.Connect(filepath.Join(filepath.Dir(c.dir), c.Sandbox), pid)
}

// call makes one request of the sandbox.
func (c *Container) call(k boot.Kind, q *boot.Request) (*boot.Reply, error) {
	q.Container = c.ID
	cl, err := c.connect()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return cl.Call(k, q)
}

// StartInit lets a created container run. Its poststart hooks run afterwards; their failure is only logged.
func (c *Container) StartInit(l *log.Logger) error {
	switch st := c.CurrentStatus(); st {
	case Created:
	case Stopped:
		return errors.New("cannot start a container that has stopped")
	case Running, Paused:
		return errors.New("cannot start an already running container")
	default:
		return fmt.Errorf("cannot start a container in the %s state", st)
	}
	if err := c.startContainerHooks(); err != nil {
		return err
	}
	if _, err := c.call(boot.KindStart, &boot.Request{}); err != nil {
		return err
	}
	c.Status = Running
	if err := c.save(); err != nil {
		return err
	}
	c.PostStart(l)
	return nil
}

// PostStart runs the poststart hooks.
func (c *Container) PostStart(l *log.Logger) {
	if c.Hooks == nil {
		return
	}
	if err := runHooks("poststart", c.Hooks.Poststart, c.OCIState(Running)); err != nil {
		l.Print(log.Warning, err.Error())
	}
}

// startContainerHooks runs hooks inside the container, before its own process: as additional
// processes with the user and the capabilities of the container's own.
func (c *Container) startContainerHooks() error {
	if c.Hooks == nil {
		return nil
	}
	for i := range c.Hooks.StartContainer {
		if err := c.runInside(&c.Hooks.StartContainer[i]); err != nil {
			return fmt.Errorf("error running startContainer hook #%d: %w", i, err)
		}
	}
	return nil
}

// runInside runs a hook in the container, with the state on its standard input.
func (c *Container) runInside(h *specs.Hook) error {
	stdin, err := memoryFile("hook-state", encodeState(c.OCIState(Created)))
	if err != nil {
		return err
	}
	defer stdin.Close()
	output, err := memoryFile("hook-output", nil)
	if err != nil {
		return err
	}
	defer output.Close()
	process := *c.Process
	process.Args, process.Env, process.Cwd, process.Terminal = h.Args, h.Env, "/", false
	if len(process.Args) == 0 {
		process.Args = []string{h.Path}
	}
	p, err := ToProcess(&process)
	if err != nil {
		return err
	}
	p.Path = h.Path
	p.Stdio = [3]int{int(stdin.Fd()), int(output.Fd()), int(output.Fd())}
	cl, err := c.connect()
	if err != nil {
		return err
	}
	defer cl.Close() // which also ends a hook that takes too long
	r, err := cl.Call(boot.KindExec, &boot.ExecRequest{Container: c.ID, Attached: true, Process: *p})
	if err != nil {
		return err
	}
	if h.Timeout != nil {
		r, err = cl.CallWithin(*h.Timeout, boot.KindWait, &boot.Request{Container: c.ID, PID: r.PID})
	} else {
		r, err = cl.Call(boot.KindWait, &boot.Request{Container: c.ID, PID: r.PID})
	}
	if err != nil {
		return err
	}
	if code := boot.ExitCode(r.Status); code != 0 {
		buf := make([]byte, maxHookOutput)
		n, _ := output.ReadAt(buf, 0)
		return fmt.Errorf("%s: exit status %d, output: %s", h.Path, code, bytes.TrimSpace(buf[:n]))
	}
	return nil
}

// Signal sends a signal to the container's first process (pid 0), to another, or to all its processes.
func (c *Container) Signal(sig, pid int, all bool) error {
	switch c.CurrentStatus() {
	case Stopped:
		if all {
			return nil // as runc: there is nothing left to be signalled
		}
		return ErrNotRunning
	case Creating:
		return errors.New("container is being created")
	}
	if unix.Signal(sig) == unix.SIGKILL && pid == 0 && !all {
		// The end of the process that stands for the container is the end of the container, and this
		// way needs nobody's help. A container that has yet to start dies the same way.
		if err := c.killSandbox(); err != nil {
			return err
		}
		return nil
	}
	_, err := c.call(boot.KindSignal, &boot.Request{Signal: int32(sig), PID: int32(pid), All: all})
	if errors.Is(err, sandbox.ErrGone) || errors.Is(err, unix.ECONNREFUSED) {
		return ErrNotRunning
	}
	return err
}

// killSandbox kills the process that stands for the container.
func (c *Container) killSandbox() error {
	if c.PID == 0 || !alive(c.PID, c.StartTime) {
		return nil
	}
	// A descriptor of the process, so that a process id that is reused meanwhile is not hit.
	fd, err := unix.PidfdOpen(c.PID, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	if !alive(c.PID, c.StartTime) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill the sandbox: %w", err)
	}
	return nil
}

// Pause stops the container's processes, Resume lets them go on.
func (c *Container) Pause() error {
	if st := c.CurrentStatus(); st != Running && st != Created {
		return ErrNotRunning
	}
	if _, err := c.call(boot.KindPause, &boot.Request{}); err != nil {
		return err
	}
	c.BeforePause, c.Status = c.Status, Paused
	return c.save()
}

// Resume undoes Pause.
func (c *Container) Resume() error {
	if c.CurrentStatus() != Paused {
		return ErrNotPaused
	}
	if _, err := c.call(boot.KindResume, &boot.Request{}); err != nil {
		return err
	}
	c.Status = c.BeforePause
	if c.Status == "" {
		c.Status = Running
	}
	return c.save()
}

// Update changes the limits of the container, on the host first; what is 0 or empty in r stays as it is.
func (c *Container) Update(r *specs.LinuxResources) error {
	if st := c.CurrentStatus(); st == Stopped || st == Creating {
		return ErrNotRunning
	}
	if c.Cgroup == nil {
		return errors.New("the container has no cgroup")
	}
	err := c.Cgroup.Update(r)
	if serr := c.save(); err == nil { // the cgroups may be more now
		err = serr
	}
	if err != nil {
		return err
	}
	q := boot.UpdateRequest{Container: c.ID}
	if r.Pids != nil && r.Pids.Limit != nil {
		q.Limits.PIDs = *r.Pids.Limit
	}
	if r.Memory != nil && r.Memory.Limit != nil {
		q.Limits.Memory = *r.Memory.Limit
	}
	if u := r.CPU; u != nil {
		if u.Quota != nil {
			q.Limits.CPUQuota = *u.Quota
		}
		if u.Period != nil {
			q.Limits.CPUPeriod = *u.Period
		}
		if u.Shares != nil {
			q.Limits.CPUShares = *u.Shares
		}
		q.Limits.CPUs, q.Limits.Mems = u.Cpus, u.Mems
	}
	cl, err := c.connect()
	if err != nil {
		return err
	}
	defer cl.Close()
	_, err = cl.Call(boot.KindUpdate, &q)
	return err
}

// Processes lists what runs in the container.
func (c *Container) Processes() ([]boot.ProcessInfo, error) {
	if c.CurrentStatus() == Stopped {
		return nil, nil
	}
	r, err := c.call(boot.KindProcesses, &boot.Request{})
	if err != nil {
		return nil, err
	}
	return r.Processes, nil
}

// Delete removes a stopped (or not yet started) container; with force, one in any state.
func (c *Container) Delete(force bool, l *log.Logger) error {
	switch st := c.CurrentStatus(); {
	case st == Stopped:
	case force || st == Created:
	default:
		return fmt.Errorf("cannot delete container %s that is not stopped: %s", c.ID, st)
	}
	if err := c.killSandbox(); err != nil {
		return err
	}
	if err := c.awaitEnd(); err != nil {
		return err
	}
	if err := c.remove(); err != nil {
		return err
	}
	if c.Hooks != nil {
		for i := range c.Hooks.Poststop {
			if err := runHook(&c.Hooks.Poststop[i], c.OCIState(Stopped)); err != nil {
				l.Print(log.Warning, fmt.Sprintf("poststop hook #%d: %v", i, err))
			}
		}
	}
	return nil
}

// awaitEnd waits until both processes are gone: the gofer has nobody to serve without the sandbox.
func (c *Container) awaitEnd() error {
	// The kernel takes its time for the thousands of processes of a fork bomb.
	deadline := time.Now().Add(time.Minute)
	ended := awaitExit(c.PID, c.StartTime, deadline)
	if ended && c.GoferPID != 0 && alive(c.GoferPID, c.GoferStart) {
		unix.Kill(c.GoferPID, unix.SIGKILL)
		ended = awaitExit(c.GoferPID, c.GoferStart, deadline)
	}
	if !ended {
		return fmt.Errorf("container %s does not end", c.ID)
	}
	return nil
}

// awaitExit waits until a process has ended, and says whether it did before the deadline.
func awaitExit(pid int, start uint64, deadline time.Time) bool {
	if pid == 0 {
		return true
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return !alive(pid, start)
	}
	defer unix.Close(fd)
	for alive(pid, start) { // now that the process id cannot mean another one without notice
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left/time.Millisecond)+1)
	}
	return true
}

// remove removes the container from the host: its cgroups first, as the state file names them.
func (c *Container) remove() error {
	if c.Cgroup != nil {
		if err := c.Cgroup.Remove(); err != nil {
			return err
		}
	}
	for _, name := range [...]string{sandbox.SocketName, stateFile} {
		unix.Unlink(filepath.Join(c.dir, name))
	}
	err := unix.Rmdir(c.dir)
	if err != nil {
		err = os.RemoveAll(c.dir)
	}
	c.Close()
	return err
}

// Stats are the resources that the container uses on the host. The number of tasks is the
// container's own, as the sandbox counts it: the host would count the sandbox's threads.
func (c *Container) Stats() (*cgroup.Stats, error) {
	s := new(cgroup.Stats)
	if c.Cgroup != nil {
		s = c.Cgroup.Stats()
	}
	r, err := c.call(boot.KindStats, &boot.Request{})
	if err != nil {
		return nil, err
	}
	s.Pids.Current = r.Stats.Processes
	if s.CPU.Usage.Total == 0 {
		s.CPU.Usage.User, s.CPU.Usage.Kernel = r.Stats.CPUUser, r.Stats.CPUSystem
		s.CPU.Usage.Total = r.Stats.CPUUser + r.Stats.CPUSystem
	}
	if s.Memory.Usage.Usage == 0 {
		s.Memory.Usage.Usage = r.Stats.Memory
	}
	return s, nil
}
