package kernel

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/vfs"
)

// Container is a set of processes with namespaces of their own inside the sandbox (a pod has several).
type Container struct {
	k     *Kernel
	id    string        // immutable
	pidns *PIDNamespace // immutable

	// Defaults for processes started by CreateProcess; immutable after NewContainer.
	uts   *UTSNamespace
	ipc   *IPCNamespace
	net   NetworkNamespace
	mntNS *vfs.MountNamespace

	resources atomic.Pointer[Resources]
	init      *ThreadGroup // protected by Kernel.tree
	pidsLimit atomic.Int64 // most tasks at once; 0 is no limit
	pids      atomic.Int64 // live tasks
	pidsPeak  atomic.Int64
	freezer   freezer
}

// ContainerConfig describes a container. Nil namespaces mean the kernel's root ones; a nil PIDNS makes a child of the root PID
// namespace.
type ContainerConfig struct {
	ID        string
	UserNS    *auth.UserNamespace
	PIDNS     *PIDNamespace
	UTS       *UTSNamespace
	IPC       *IPCNamespace
	Net       NetworkNamespace
	MountNS   *vfs.MountNamespace
	PIDsLimit int64
	// Resources are shown by the cgroup files.
	Resources Resources
}

// NewContainer makes a container without processes. EEXIST if the id is taken.
func (k *Kernel) NewContainer(c *ContainerConfig) (*Container, error) {
	user := c.UserNS
	if user == nil {
		user = k.rootUserNS
	}
	ct := &Container{k: k, id: c.ID, pidns: c.PIDNS, uts: c.UTS, ipc: c.IPC, net: c.Net, mntNS: c.MountNS}
	ct.pidsLimit.Store(c.PIDsLimit)
	ct.SetResources(c.Resources)
	if ct.pidns == nil {
		ns, err := k.NewPIDNamespace(k.rootPIDNS, user)
		if err != nil {
			return nil, err
		}
		ct.pidns = ns
	}
	if ct.uts == nil {
		ct.uts = k.rootUTSNS
	}
	if ct.ipc == nil {
		ct.ipc = k.rootIPCNS
	}
	if ct.net == nil {
		ct.net = k.cfg.RootNetNS
	}
	k.tree.Lock()
	defer k.tree.Unlock()
	if k.containers[c.ID] != nil {
		return nil, unix.EEXIST
	}
	k.containers[c.ID] = ct
	return ct, nil
}

// Container finds a container; nil if there is none.
func (k *Kernel) Container(id string) *Container {
	k.tree.Lock()
	defer k.tree.Unlock()
	return k.containers[id]
}

// RemoveContainer forgets a container, whose processes have ended; zombies that another container's process is to wait for may be left.
func (k *Kernel) RemoveContainer(id string) error {
	k.tree.Lock()
	defer k.tree.Unlock()
	if k.containers[id] == nil {
		return unix.ENOENT
	}
	delete(k.containers, id)
	return nil
}

// ID is the container's id.
func (c *Container) ID() string { return c.id }

// Kernel is the container's kernel.
func (c *Container) Kernel() *Kernel { return c.k }

// PIDNS is the container's PID namespace.
func (c *Container) PIDNS() *PIDNamespace { return c.pidns }

// UTS is the UTS namespace of the container's first process.
func (c *Container) UTS() *UTSNamespace { return c.uts }

// IPC is the IPC namespace of the container's first process.
func (c *Container) IPC() *IPCNamespace { return c.ipc }

// MountNS is the mount namespace of the container's first process.
func (c *Container) MountNS() *vfs.MountNamespace { return c.mntNS }

// Init is the container's first process; nil before it is made. It stays after its exit.
func (c *Container) Init() *ThreadGroup {
	c.k.tree.Lock()
	defer c.k.tree.Unlock()
	return c.init
}

// PIDs are the live tasks, their peak and their limit (0: none), as of the pids cgroup.
func (c *Container) PIDs() (current, peak, limit int64) {
	return c.pids.Load(), c.pidsPeak.Load(), c.pidsLimit.Load()
}

// SetPIDsLimit changes the limit; 0 is none.
func (c *Container) SetPIDsLimit(n int64) { c.pidsLimit.Store(n) }

// charge counts a new task; EAGAIN at the limit.
func (c *Container) charge() error {
	n := c.pids.Add(1)
	if lim := c.pidsLimit.Load(); lim > 0 && n > lim {
		c.pids.Add(-1)
		return unix.EAGAIN
	}
	for {
		p := c.pidsPeak.Load()
		if n <= p || c.pidsPeak.CompareAndSwap(p, n) {
			return nil
		}
	}
}

func (c *Container) uncharge() { c.pids.Add(-1) }

// Groups appends the processes of the container, zombies included.
func (c *Container) Groups(buf []*ThreadGroup) []*ThreadGroup {
	k := c.k
	k.tree.Lock()
	defer k.tree.Unlock()
	for _, p := range k.rootPIDNS.pids {
		if p.group != nil && p.group.container == c {
			buf = append(buf, p.group)
		}
	}
	return buf
}

// SignalAll sends a signal of the sandbox to every process of the container (runsc kill --all).
func (c *Container) SignalAll(sig linux.Signal) error {
	if !sig.Valid() {
		return unix.EINVAL
	}
	for _, tg := range c.Groups(nil) {
		tg.SendSignal(kernelInfo(sig))
	}
	return nil
}

// Signal sends a signal of the sandbox to the process with the number pid in the container's PID namespace; 0 stands for the first process. ESRCH.
func (c *Container) Signal(pid int32, sig linux.Signal) error {
	tg := c.Init()
	if pid != 0 {
		tg = c.pidns.GroupByTGID(pid)
	}
	if tg == nil || tg.Exited() {
		return unix.ESRCH
	}
	return tg.SendSignal(kernelInfo(sig))
}

// SignalForeground sends a signal to the foreground process group of the terminal of process tg, and to tg itself if it has none.
func (c *Container) SignalForeground(tg *ThreadGroup, sig linux.Signal) error {
	if !sig.Valid() {
		return unix.EINVAL
	}
	if y := tg.ControllingTTY(); y != nil && y.Foreground() != nil {
		y.SignalForeground(c.k, sig)
		return nil
	}
	return tg.SendSignal(kernelInfo(sig))
}

// CreateProcessArgs describes a process that the sandbox starts.
type CreateProcessArgs struct {
	Container *Container
	// Filename is the program, resolved against the root and WorkingDir; if it has no slash, in PATH of Envv. Empty means Argv[0].
	Filename   string
	Argv, Envv []string
	WorkingDir string
	// Credentials, Limits: nil for root and for the kernel's.
	Credentials *auth.Credentials
	Limits      *limits.Set
	// FDs are the descriptors; the process takes the caller's reference on the table. Nil makes an empty one.
	FDs *vfs.FDTable
	// MountNS and Root default to the container's. Root is the process' root directory.
	MountNS *vfs.MountNamespace
	Root    vfs.Path
	Umask   uint32
	// TTY becomes the controlling terminal; nil for none.
	TTY         *TTY
	NoNewPrivs  bool
	OOMScoreAdj int32
	Personality uint32
	// Seccomp filters of the container, in order of installation: classic BPF programs (struct sock_filter).
	Seccomp [][]unix.SockFilter
	// CPUs is the affinity mask; 0 means every processor.
	CPUs uint64
}
