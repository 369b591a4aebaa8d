package guest

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/gofer"
	"husk/pkg/log"
	"husk/pkg/platform"
	"husk/pkg/platform/ptrace"
	"husk/pkg/platform/systrap"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/devpts"
	gofs "husk/pkg/sentry/fsimpl/gofer"
	"husk/pkg/sentry/fsimpl/hostfile"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/syscalls"
	"husk/pkg/sentry/vfs"
	"husk/runsc/boot"
)

const (
	// dentryCost is about what a cached name of a file of the image costs in bytes, with its inodes (950 measured), and what the collector leaves free.
	dentryCost = 2 << 10
	// A part of the sandbox's memory is for cached names: 1 / cacheShare, but between minDentries and maxDentries names, as a walk over a million files
	// must not keep a million.
	cacheShare  = 64
	minDentries = 1 << 12
	maxDentries = 1 << 18
)

// sizeCache fits the size of the dentry cache to the sandbox's memory.
func (g *Guest) sizeCache() {
	memory, _ := g.k.Memory()
	g.v.SetCacheSize(int(min(max(memory/cacheShare/dentryCost, minDentries), maxDentries)))
}

// openFiles bounds what the gofer keeps open for cached names, and the descriptors without users of an attach point. The gofer has the limit of this process,
// which the host may not have allowed to be raised: some of what it allows stays for directories that are read and names that are asked for ahead, as most of
// the limit here stays for files in use.
func openFiles() (handles, idle int) {
	lim := unix.Rlimit{Cur: 1024}
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	return min(maxDentries, gofer.HandleLimit(lim.Cur)/4*3), int(min(max(lim.Cur/8, 16), 512))
}

// Guest is the sentry of a sandbox. It implements boot.Kernel.
type Guest struct {
	log  *log.Logger
	time *boot.Timeline
	k    *kernel.Kernel
	v    *vfs.VFS
	mf   *memfile.File
	// maxHandles bounds what a gofer keeps open for cached names, maxIdle the descriptors of files without users; immutable.
	maxHandles, maxIdle int
	// table is the system call table.
	table *syscalls.Table
	// host makes files of descriptors that the sandbox was given.
	host *hostfile.Host

	// first is the ID of the sandbox's first container, whose limit of memory is the sandbox's.
	first string

	mu         sync.Mutex
	containers map[string]*container // protected by mu
}

// container is what the guest keeps of a container beside the kernel's part.
type container struct {
	ct    *kernel.Container
	ns    *vfs.MountNamespace
	gofer *gofer.Client
	// handles counts what the gofer keeps open.
	handles *gofs.Handles
	spec    *boot.Container
	// seccomp is the compiled filter of the container's processes.
	seccomp [][]unix.SockFilter

	// gone is closed when the container has been destroyed, or could not be made.
	gone chan struct{}
	// life is held for reading while a process is added, so that none is added to a container that is being destroyed.
	life  sync.RWMutex
	phase phase // protected by life

	mu      sync.Mutex
	procs   map[int32]*process // protected by mu: what Create and Exec started, by process ID
	started bool               // protected by mu
}

// phase is how far the life of a container is.
type phase uint8

const (
	inCreation phase = iota
	alive
	dying
)

// process is a process that the sandbox was asked to start.
type process struct {
	group *kernel.ThreadGroup
	tty   *devpts.Terminal // nil without a terminal
	// drained is closed when the process has ended and its terminal's output is out; nil without a terminal.
	drained chan struct{}
}

// New makes the kernel of a sandbox: the platform first, since its helper processes are copies of this one.
func New(b *boot.Boot, l *log.Logger) (boot.Kernel, error) {
	p, err := newPlatform(b.Platform)
	if err != nil {
		return nil, fmt.Errorf("platform %s: %w", b.Platform, err)
	}
	b.Time().Mark("platform ready")
	if b.Debug {
		p = &timedPlatform{Platform: p, time: b.Time()}
	}
	mf, err := memfile.New(memfile.Options{Limit: b.Memory, FD: b.MemoryFile()})
	if err != nil {
		return nil, fmt.Errorf("memory file: %w", err)
	}
	b.Time().Mark("memory file mapped")
	g := &Guest{log: l, time: b.Time(), v: vfs.New(0), mf: mf, table: syscalls.New(), containers: map[string]*container{}}
	g.maxHandles, g.maxIdle = openFiles()
	cfg := kernel.Config{
		Platform: p, MemFile: mf, VFS: g.v, NumCPU: int(b.NumCPU),
		HostName: b.Container.Hostname, DomainName: b.Container.Domainname,
		Logf: func(format string, args ...any) { l.Printf(log.Info, format, args...) },
		HostCPU: func() string {
			text := make([]byte, 4096) // more than the kernel writes of one processor
			n, _ := unix.Pread(b.CPUInfo, text, 0)
			return string(text[:max(n, 0)])
		},
	}
	cfg.Table = &g.table.SyscallTable
	if g.k, err = kernel.New(cfg); err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	g.k.SetMemory(b.Memory, func() uint64 {
		n, _ := mf.Usage()
		return n
	})
	g.sizeCache()
	g.first = b.Container.ID
	g.host = hostfile.NewHost(g.v)
	g.register()
	if b.Strace {
		g.k.SetStrace(syscalls.NewStrace(g.table, func(line string) { l.Print(log.Info, line) }))
	}
	return g, nil
}

func newPlatform(name string) (platform.Platform, error) {
	switch name {
	case "systrap":
		return systrap.New()
	case "ptrace":
		return ptrace.New()
	}
	return nil, fmt.Errorf("unknown platform; it is systrap or ptrace")
}

// process finds a process that was started by Create (0) or Exec.
func (g *Guest) process(id string, pid int32) (*container, *process, error) {
	c, err := g.find(id)
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.procs[pid]; p != nil {
		return c, p, nil
	}
	return c, nil, &boot.Error{Code: boot.ErrNoProcess, Text: "no such process"}
}

func (g *Guest) create(c *container) (err error) {
	spec := c.spec
	handedOver := false
	defer func() {
		if !handedOver {
			closeFDs(&spec.Process)
		}
	}()
	if c.seccomp, err = g.compileSeccomp(spec.Seccomp); err != nil {
		return err
	}
	if c.gofer, err = gofer.NewClient(spec.Gofer); err != nil {
		return fmt.Errorf("gofer: %w", err)
	}
	c.handles = gofs.NewHandles(g.maxHandles)
	g.time.Mark("gofer connected")
	l := &spec.Limits
	cfg := kernel.ContainerConfig{ID: spec.ID, PIDsLimit: l.PIDs, Resources: kernel.Resources{
		Memory: l.Memory, CPUQuota: l.CPUQuota, CPUPeriod: l.CPUPeriod, CPUShares: l.CPUShares, CPUs: l.CPUs, Mems: l.Mems,
	}}
	user := g.k.RootUserNamespace()
	cfg.UTS = g.k.NewUTSNamespace(user, spec.Hostname, spec.Domainname)
	cfg.IPC = g.k.NewIPCNamespace(user)
	if err := g.join(&cfg, spec.Joins); err != nil {
		return err
	}
	if cfg.PIDNS == nil {
		if cfg.PIDNS, err = g.k.NewPIDNamespace(g.k.RootPIDNamespace(), user); err != nil {
			return err
		}
	}
	if err := g.mountAll(c, cfg.PIDNS, cfg.IPC); err != nil {
		return err
	}
	g.time.Mark("file systems mounted")
	cfg.MountNS = c.ns
	if c.ct, err = g.k.NewContainer(&cfg); err != nil {
		return fmt.Errorf("container %s: %w", spec.ID, err)
	}
	applyNames(c.ct.UTS(), spec.Sysctls)
	handedOver = true
	p, err := g.newProcess(c, &spec.Process, true)
	if err != nil {
		return err
	}
	g.time.Mark("program loaded")
	c.procs[0] = p
	c.procs[p.group.IDIn(cfg.PIDNS)] = p
	if p.tty != nil {
		if err := g.mountConsole(c, p.tty); err != nil {
			return fmt.Errorf("/dev/console: %w", err)
		}
	}
	return nil
}

// join makes a container share namespaces with others of the sandbox.
func (g *Guest) join(cfg *kernel.ContainerConfig, joins []boot.Join) error {
	for _, j := range joins {
		o, err := g.find(j.Container)
		if err != nil {
			return fmt.Errorf("%s namespace of container %s: %w", j.Namespace, j.Container, err)
		}
		switch j.Namespace {
		case "pid":
			cfg.PIDNS = o.ct.PIDNS()
		case "ipc":
			cfg.IPC = o.ct.IPC()
		case "uts":
			cfg.UTS = o.ct.UTS()
		}
	}
	return nil
}

// Start implements boot.Kernel.
func (g *Guest) Start(id string) error {
	c, err := g.find(id)
	if err != nil {
		return err
	}
	c.life.RLock()
	defer c.life.RUnlock()
	if c.phase != alive {
		return errDying
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started {
		return &boot.Error{Code: boot.ErrState, Text: "cannot start an already running container"}
	}
	c.started = true
	g.k.StartProcess(c.procs[0].group)
	return nil
}

// Exec implements boot.Kernel.
func (g *Guest) Exec(id string, spec *boot.Process) (int32, error) {
	c, err := g.find(id)
	if err != nil {
		closeFDs(spec)
		return 0, err
	}
	c.life.RLock()
	defer c.life.RUnlock()
	if c.phase != alive {
		closeFDs(spec)
		return 0, errDying
	}
	p, err := g.newProcess(c, spec, false)
	if err != nil {
		return 0, err
	}
	pid := p.group.IDIn(c.ct.PIDNS())
	c.mu.Lock()
	c.procs[pid] = p
	c.mu.Unlock()
	g.k.StartProcess(p.group)
	return pid, nil
}

// Wait implements boot.Kernel.
func (g *Guest) Wait(id string, pid int32) (uint32, error) {
	_, p, err := g.process(id, pid)
	if err != nil {
		return 0, err
	}
	status := p.group.WaitExited()
	if p.drained != nil {
		<-p.drained
	}
	return uint32(status), nil
}

// Forget implements boot.Kernel.
func (g *Guest) Forget(id string, pid int32) {
	c, p, err := g.process(id, pid)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.group.Exited() && p != c.procs[0] && c.procs[pid] == p {
		delete(c.procs, pid)
	}
}

// Signal implements boot.Kernel.
func (g *Guest) Signal(id string, pid, sig int32, all bool) error {
	c, err := g.find(id)
	if err != nil {
		return err
	}
	if all {
		err = c.ct.SignalAll(linux.Signal(sig))
	} else {
		err = c.ct.Signal(pid, linux.Signal(sig))
	}
	if err == unix.ESRCH {
		return &boot.Error{Code: boot.ErrNoProcess, Text: "process already finished"}
	}
	return err
}

// rootContext is a context of the sentry itself with all rights, for work on a container's mounts.
func (g *Guest) rootContext(c *container) (vfs.Context, func()) {
	root := c.ns.Root()
	fs := vfs.NewFSContext(root, root, 0)
	root.DecRef()
	return vfs.NewKernelContext(auth.NewRootCredentials(g.k.RootUserNamespace()), fs, c.ns), fs.Release
}
