package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"husk/pkg/log"
	"husk/runsc/boot"
	"husk/runsc/cgroup"
	"husk/runsc/config"
	"husk/runsc/host"
	"husk/runsc/sandbox"
)

// Options say how to create a container.
type Options struct {
	Conf   *config.Config
	Log    *log.Logger
	Time   *boot.Timeline
	ID     string
	Bundle string // absolute
	Spec   *specs.Spec
	// Start starts the container as soon as it is created; Detach says that this process will not
	// wait for it.
	Start, Detach bool
	PIDFile       string
	ConsoleSocket string
	PreserveFDs   int
	Inherited     Inherited // nil where nothing is to be preserved
}

// Launched is a new container whose sandbox is still held by this process.
type Launched struct {
	*Container
	holder holder
	// Terminal is the master of the container's terminal for a container that is not detached, else -1.
	Terminal int

	opts    *Options
	files   []int // to be closed when the sandbox has its own
	lenient bool
	// Started says that the container's process runs already.
	Started bool
}

// Create makes a container up to the state "created" (or "running"). On error nothing is left behind.
func Create(o *Options) (_ *Launched, err error) {
	if err := CheckID(o.ID); err != nil {
		return nil, err
	}
	if err := checkConsole(o.Spec.Process.Terminal, o.Detach, o.ConsoleSocket); err != nil {
		return nil, err
	}
	bc, attach, err := toContainer(o.ID, o.Spec)
	if err != nil {
		return nil, err
	}
	host, joins, err := findSandbox(o.Conf.Root, o.Spec)
	if err != nil {
		return nil, err
	}
	bc.Joins = joins
	c, err := reserve(o)
	if err != nil {
		return nil, err
	}
	n := &Launched{Container: c, Terminal: -1, opts: o, lenient: o.Conf.IsRootless()}
	defer func() {
		n.closeFiles()
		if err != nil {
			n.abandon()
		}
	}()
	l, err := n.newLaunch(attach)
	if err != nil {
		return nil, err
	}
	if host != nil {
		if err = n.prepare(l, bc, attach); err == nil {
			l.Boot.Start = false
			n.holder, err = n.join(host, l)
		}
	} else {
		var pending *sandbox.Pending
		if pending, err = sandbox.Spawn(l); err != nil {
			return nil, err
		}
		// The rest is prepared while the processes start.
		if err = n.prepare(l, bc, attach); err != nil {
			pending.Cancel()
		} else {
			n.holder, err = startSandbox(pending)
		}
	}
	if err != nil {
		return nil, processError(err)
	}
	return n, n.commit(l.Boot.Start)
}

// startSandbox keeps a nil sandbox from becoming a holder.
func startSandbox(p *sandbox.Pending) (holder, error) {
	s, err := p.Start()
	if err != nil {
		return nil, err
	}
	return s, nil
}

// processError marks errors of the sandbox as runc marks those of its init process, whose text engines look at.
func processError(err error) error {
	var e *boot.Error
	if errors.As(err, &e) {
		return fmt.Errorf("unable to start container process: %w", err)
	}
	return err
}

// reserve makes the container's directory, locked; it is what makes the ID taken.
func reserve(o *Options) (*Container, error) {
	if err := os.MkdirAll(o.Conf.Root, 0o700); err != nil {
		return nil, err
	}
	c := &Container{dir: filepath.Join(o.Conf.Root, o.ID), lock: -1}
	if err := unix.Mkdir(c.dir, 0o700); err != nil {
		if err == unix.EEXIST {
			return nil, fmt.Errorf("%w: %s", ErrExist, o.ID)
		}
		return nil, &os.PathError{Op: "mkdir", Path: c.dir, Err: err}
	}
	if err := c.acquire(unix.LOCK_EX); err != nil {
		os.Remove(c.dir)
		return nil, err
	}
	c.State = State{
		OCIVersion:  specs.Version,
		ID:          o.ID,
		Status:      Creating,
		Bundle:      o.Bundle,
		Rootfs:      o.Spec.Root.Path,
		Created:     time.Now().UTC(),
		Owner:       os.Geteuid(),
		Annotations: o.Spec.Annotations,
		Sandbox:     o.ID,
		Process:     o.Spec.Process,
		Hooks:       o.Spec.Hooks,
	}
	return c, nil
}

// prepare makes everything on the host that the sandbox will use. The state on disk names it before it exists.
func (n *Launched) prepare(l *sandbox.Launch, bc *boot.Container, attach []boot.Attach) error {
	o := n.opts
	var resources *specs.LinuxResources
	if o.Spec.Linux != nil {
		resources = o.Spec.Linux.Resources
	}
	var err error
	n.Cgroup, err = cgroup.Find(o.Spec.Linux.CgroupsPath, o.ID, o.Conf.SystemdCgroup, resources)
	if err != nil {
		return err
	}
	if err := n.save(); err != nil {
		return err
	}
	if err := n.Cgroup.Create(n.lenient); err != nil {
		return err
	}
	if err := n.Cgroup.Apply(resources, n.lenient); err != nil {
		return err
	}
	o.Time.Mark("cgroup ready")
	listen, err := sandbox.Listen(n.dir)
	if err != nil {
		return err
	}
	n.files = append(n.files, listen)
	logFD, err := n.openLog()
	if err != nil {
		return err
	}
	if err := n.stdio(&bc.Process); err != nil {
		return err
	}
	b := &boot.Boot{
		Platform:  o.Conf.Platform,
		Strace:    o.Conf.Strace,
		Debug:     o.Conf.Debug,
		Rootless:  o.Conf.IsRootless(),
		Start:     o.Start && !hasHooks(o.Spec.Hooks),
		Memory:    uint64(bc.Limits.Memory),
		Listen:    listen,
		Log:       logFD,
		CPUInfo:   n.open("/proc/cpuinfo"),
		Epoch:     o.Time.Epoch(),
		Container: *bc,
	}
	switch o.Conf.Network {
	case "host":
		b.Network = boot.NetworkHost
	case "none":
		b.Network = boot.NetworkNone
	}
	if err := n.overlay(&b.Container); err != nil {
		return err
	}
	l.Boot, l.Gofer = b, &boot.GoferBoot{Attach: attach, Log: logFD, Epoch: o.Time.Epoch()}
	if h := n.Hooks; h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0 {
		l.Ready = func(pid int) error { return n.createHooks(pid) }
	}
	o.Time.Mark("container directory ready")
	return nil
}

// open opens a file for reading that the sandbox gets; -1 if that is not possible.
func (n *Launched) open(path string) int {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	n.files = append(n.files, fd)
	return fd
}

// overlay says where changes to the root go.
func (n *Launched) overlay(c *boot.Container) error {
	dir, file := strings.CutPrefix(n.opts.Conf.Overlay, "file:")
	if !file {
		if dir == "memory" {
			c.Overlay = boot.OverlayMemory
		}
		return nil
	}
	fd, err := unix.Open(dir, unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "make the overlay's file in", Path: dir, Err: err}
	}
	n.files = append(n.files, fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	c.Overlay, c.OverlayFile, c.OverlaySize = boot.OverlayFile, fd, st.Bavail*uint64(st.Bsize)
	return nil
}

// hasHooks says whether hooks must run between creation and start.
func hasHooks(h *specs.Hooks) bool { return h != nil && len(h.StartContainer) > 0 }

// newLaunch says what it takes to start the processes: their namespaces and users.
func (n *Launched) newLaunch(attach []boot.Attach) (*sandbox.Launch, error) {
	s := n.opts.Spec
	if n.opts.Conf.Overlay != "none" {
		attach[0].ReadOnly = true // the root: changes stay in the sandbox, so the gofer can make none, whoever asks
	}
	l := &sandbox.Launch{NetNS: -1, Attach: attach, Rootless: n.opts.Conf.IsRootless(), Placed: n.place, Time: n.opts.Time}
	network := false
	for _, ns := range s.Linux.Namespaces {
		switch ns.Type {
		case specs.NetworkNamespace:
			network = true
			if ns.Path == "" {
				continue
			}
			fd, err := unix.Open(ns.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, fmt.Errorf("network namespace %s: %w", ns.Path, err)
			}
			n.files = append(n.files, fd)
			l.NetNS = fd
		case specs.UserNamespace:
			l.UIDMappings, l.GIDMappings = idMappings(s.Linux.UIDMappings), idMappings(s.Linux.GIDMappings)
		}
	}
	l.HostNetwork = !network || n.opts.Conf.Network == "host"
	if l.Rootless && len(l.UIDMappings) == 0 {
		// Without privileges the gofer is root in a namespace where that is this user.
		l.UIDMappings = idMappings([]specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(os.Geteuid()), Size: 1}})
		l.GIDMappings = idMappings([]specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(os.Getegid()), Size: 1}})
	}
	return l, nil
}

// createHooks runs the hooks that belong between the namespaces and the container's root.
func (n *Launched) createHooks(pid int) error {
	n.PID = pid
	st := n.OCIState(Creating)
	h := n.Hooks
	if err := runHooks("prestart", h.Prestart, st); err != nil {
		return err
	}
	if err := runHooks("createRuntime", h.CreateRuntime, st); err != nil {
		return err
	}
	return runHooks("createContainer", h.CreateContainer, st)
}

// place puts a new process where the host accounts for the container.
func (n *Launched) place(pid int) error {
	if err := n.Cgroup.Add(pid, n.lenient); err != nil {
		return err
	}
	if adj := n.opts.Spec.Process.OOMScoreAdj; adj != nil {
		err := host.Put("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", strconv.Itoa(*adj))
		if err != nil && !n.lenient {
			return fmt.Errorf("oom_score_adj: %w", err)
		}
	}
	return nil
}

// openLog opens where the sandbox and the gofer write their lines, -1 for nowhere.
func (n *Launched) openLog() (int, error) {
	path := n.opts.Conf.DebugLog
	if path == "" {
		if n.opts.Conf.Debug && !n.opts.Detach {
			return 2, nil
		}
		return -1, nil
	}
	if path[len(path)-1] == '/' {
		path += "runsc." + n.ID + ".log"
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, &os.PathError{Op: "open debug log", Path: path, Err: err}
	}
	n.files = append(n.files, fd)
	return fd, nil
}

// stdio fills in the descriptors that the process gets from this one.
func (n *Launched) stdio(p *boot.Process) error {
	p.Stdio = [3]int{0, 1, 2}
	if p.Terminal {
		master, slave, err := openPTY()
		if err != nil {
			return err
		}
		n.files = append(n.files, slave)
		if p.Rows != 0 || p.Cols != 0 {
			unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: p.Rows, Col: p.Cols})
		}
		if n.opts.ConsoleSocket != "" {
			err := sendConsole(n.opts.ConsoleSocket, master)
			unix.Close(master)
			if err != nil {
				return err
			}
		} else {
			n.Terminal = master
		}
		p.Stdio = [3]int{slave, slave, slave}
	}
	extra, env, err := n.opts.Inherited.preserved(n.opts.PreserveFDs)
	p.Extra = extra
	p.Env = append(p.Env[:len(p.Env):len(p.Env)], env...)
	return err
}

// maxPreserved bounds the descriptors that a process can be given: they travel with one message.
const maxPreserved = 200

// Inherited are the descriptors from 3 on that were open when this process began; index 0 stands for 3.
type Inherited []bool

// FindInherited must be called before anything is opened: later, a descriptor of this process's
// own could be taken for one that the caller wants to pass on.
func FindInherited() Inherited {
	in := make(Inherited, maxPreserved)
	for i := range in {
		_, err := unix.FcntlInt(uintptr(3+i), unix.F_GETFD, 0)
		in[i] = err == nil
	}
	return in
}

// preserved are the descriptors that the caller of this process wants to pass on, with the
// variables that announce those of socket activation, sd_listen_fds(3).
func (in Inherited) preserved(extra int) (fds []int, env []string, err error) {
	if v := os.Getenv("LISTEN_FDS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return nil, nil, fmt.Errorf("LISTEN_FDS=%q is not a number of descriptors", v)
		}
		env = []string{"LISTEN_FDS=" + v, "LISTEN_PID=1"}
		extra += n
	}
	if extra > maxPreserved {
		return nil, nil, fmt.Errorf("%d descriptors to preserve are too many (%d can be)", extra, maxPreserved)
	}
	for i := range extra {
		if i >= len(in) || !in[i] {
			return nil, nil, fmt.Errorf("please check that preserved file descriptors are correct: fd %d is not open", 3+i)
		}
		fds = append(fds, 3+i)
	}
	return fds, env, nil
}

// commit writes down what now exists, for later commands to find.
func (n *Launched) commit(started bool) error {
	n.Status, n.Started = Created, started
	if started {
		n.Status = Running
	}
	var ok bool
	n.PID, n.GoferPID = n.holder.PID(), n.holder.GoferPID()
	if _, n.StartTime, ok = procStat(n.PID); !ok {
		return errors.New("the sandbox has vanished")
	}
	if _, n.GoferStart, ok = procStat(n.GoferPID); !ok {
		return errors.New("the gofer has vanished")
	}
	if err := n.save(); err != nil {
		return err
	}
	if n.opts.PIDFile != "" {
		if err := writePIDFile(n.opts.PIDFile, n.PID); err != nil {
			return err
		}
	}
	n.opts.Time.Mark("state saved")
	return nil
}

// writePIDFile writes a pid file in one step: engines read it as soon as it exists.
func writePIDFile(path string, pid int) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := host.WriteFile(tmp, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	return os.Rename(tmp, path)
}

func (n *Launched) closeFiles() {
	for _, fd := range n.files {
		unix.Close(fd)
	}
	n.files = nil
}

// abandon removes all traces of a container that could not be created.
func (n *Launched) abandon() {
	if n.holder != nil {
		n.holder.Kill()
	}
	if n.Terminal >= 0 {
		unix.Close(n.Terminal)
	}
	if err := n.remove(); err != nil {
		n.opts.Log.Print(log.Warning, "clean up: "+err.Error())
	}
}

// Release lets the container live on without this process.
func (n *Launched) Release() error {
	defer n.Close()
	return n.holder.Detach()
}

// Destroy ends and removes the container.
func (n *Launched) Destroy() { n.abandon() }

// Reap deletes the container after its end.
func (n *Launched) Reap(l *log.Logger) error {
	if err := n.acquire(unix.LOCK_EX); err != nil {
		if errors.Is(err, ErrNotExist) {
			return nil // somebody else was faster
		}
		return err
	}
	defer n.Close()
	return n.Delete(true, l)
}

// Wait waits for the container's end.
func (n *Launched) Wait() unix.WaitStatus { return n.holder.Wait() }

// LastWords is what the sandbox had to say that this process holds, after its end.
func (n *Launched) LastWords() string { return n.holder.LastWords() }
