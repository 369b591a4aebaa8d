package boot

// The message types. Descriptor fields hold -1 for none; a decoded message's descriptors belong to
// whoever decoded it.

// Network says where a sandbox's sockets end.
const (
	NetworkSandbox uint8 = iota // the sentry's own stack on the devices of the namespace
	NetworkHost                 // the host's sockets
	NetworkNone                 // loopback only
	networkCount
)

// Overlay says where changes to a container's root go.
const (
	OverlayNone   uint8 = iota // to the root itself
	OverlayMemory              // to the sandbox's memory
	OverlayFile                // to a file of the host, Container.OverlayFile
	overlayCount
)

// Boot is the message that makes a sandbox of a fresh process.
type Boot struct {
	Platform string // "ptrace", "systrap"
	Network  uint8  // NetworkSandbox...
	Strace   bool   // log the system calls of applications
	Debug    bool   // log phases and their times
	Rootless bool
	// Start says that the container starts without waiting for a Start request.
	Start bool
	// NumCPU is how many processors applications see; 0 is the host's number.
	NumCPU uint32
	// Memory is how much memory applications see, in bytes; 0 is the host's amount.
	Memory uint64
	// Listen is the listening socket for control connections, Log where debug and strace lines go.
	Listen, Log int
	// CPUInfo is the host's /proc/cpuinfo, -1 without.
	CPUInfo int
	// Epoch is the launcher's CLOCK_MONOTONIC in nanoseconds at its own start, for the timeline.
	Epoch     int64
	Container Container

	// memoryFile and time are no part of the message.
	memoryFile int
	time       *Timeline
}

// Time is the sandbox's timeline; nil in tests.
func (b *Boot) Time() *Timeline { return b.time }

// MemoryFile is an empty file for the memory of applications, which the sandbox was born with; 0 without.
func (b *Boot) MemoryFile() int { return b.memoryFile }

func (b *Boot) visit(c *coder) {
	c.str(&b.Platform)
	c.enum(&b.Network, networkCount)
	c.flag(&b.Strace)
	c.flag(&b.Debug)
	c.flag(&b.Rootless)
	c.flag(&b.Start)
	c.u32(&b.NumCPU)
	c.u64(&b.Memory)
	c.fd(&b.Listen)
	c.fd(&b.Log)
	c.fd(&b.CPUInfo)
	c.i64(&b.Epoch)
	b.Container.visit(c)
}

// Container is all that the sandbox needs to know of a container; paths in it are the container's.
type Container struct {
	ID                   string
	Hostname, Domainname string
	Process              Process
	// Mounts are the mounts in order, the root first.
	Mounts        []Mount
	MaskedPaths   []string
	ReadonlyPaths []string
	Devices       []Device
	Sysctls       []KeyValue
	Overlay       uint8 // OverlayNone...; applies to the root
	Limits        Limits
	Seccomp       *Seccomp
	// Joins are the namespaces shared with other containers of the sandbox.
	Joins []Join
	// OverlayFile is an empty file without a name for the contents of changed files, -1 without.
	OverlayFile int
	// OverlaySize is the free room in its file system in bytes.
	OverlaySize uint64
	// Gofer is the connection to the container's gofer. Lifeline is the reading end of a pipe that
	// only the gofer holds open: it hangs up when the gofer dies.
	Gofer, Lifeline int
}

func (n *Container) visit(c *coder) {
	c.str(&n.ID)
	c.str(&n.Hostname)
	c.str(&n.Domainname)
	n.Process.visit(c)
	parts(c, &n.Mounts, 24)
	c.strs(&n.MaskedPaths)
	c.strs(&n.ReadonlyPaths)
	parts(c, &n.Devices, 24)
	parts(c, &n.Sysctls, 8)
	c.enum(&n.Overlay, overlayCount)
	n.Limits.visit(c)
	has := n.Seccomp != nil
	c.flag(&has)
	if has {
		if c.dec {
			n.Seccomp = new(Seccomp)
		}
		n.Seccomp.visit(c)
	}
	parts(c, &n.Joins, 8)
	c.fd(&n.OverlayFile)
	c.u64(&n.OverlaySize)
	c.fd(&n.Gofer)
	c.fd(&n.Lifeline)
}

// Process describes a process to be started: a container's first or an additional one.
type Process struct {
	Path      string // the executable, where it is not Args[0] (looked up in $PATH)
	Args, Env []string
	Cwd       string
	UID, GID  uint32
	Groups    []uint32
	Umask     int32 // -1 leaves the default of 022
	// Capability sets as bit masks, capabilities(7).
	Bounding, Effective, Inheritable, Permitted, Ambient uint64

	Rlimits     []Rlimit
	NoNewPrivs  bool
	OOMScoreAdj int32
	// Terminal says that Stdio is a terminal, and that it becomes the controlling one. Rows and
	// Cols are its size, 0 for whatever the host's has.
	Terminal   bool
	Rows, Cols uint16
	// Stdio are the host files that become descriptors 0 to 2, Extra those from 3 on.
	Stdio [3]int
	Extra []int
}

func (p *Process) visit(c *coder) {
	c.str(&p.Path)
	c.strs(&p.Args)
	c.strs(&p.Env)
	c.str(&p.Cwd)
	c.u32(&p.UID)
	c.u32(&p.GID)
	list(c, &p.Groups, 4, (*coder).u32)
	c.i32(&p.Umask)
	for _, s := range []*uint64{&p.Bounding, &p.Effective, &p.Inheritable, &p.Permitted, &p.Ambient} {
		c.u64(s)
	}
	parts(c, &p.Rlimits, 20)
	c.flag(&p.NoNewPrivs)
	c.i32(&p.OOMScoreAdj)
	c.flag(&p.Terminal)
	size := uint32(p.Rows)<<16 | uint32(p.Cols)
	c.u32(&size)
	p.Rows, p.Cols = uint16(size>>16), uint16(size)
	for i := range p.Stdio {
		c.fd(&p.Stdio[i])
	}
	list(c, &p.Extra, 4, (*coder).fd)
}

// Rlimit is a limit of setrlimit(2).
type Rlimit struct {
	Resource   uint32
	Soft, Hard uint64
}

func (r *Rlimit) visit(c *coder) {
	c.u32(&r.Resource)
	c.u64(&r.Soft)
	c.u64(&r.Hard)
}

// Mount is one mount of a container.
type Mount struct {
	Destination string // absolute
	Type        string // file system type of the sentry; "gofer" for what the gofer serves
	Source      string // as /proc/mounts shows it
	Flags       uint64 // MS_RDONLY and so on, mount(2)
	Propagation uint64 // MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE with MS_REC or 0
	Data        string // options of the file system, comma-separated
	// Attach is the index of the gofer's attach point, -1 where the gofer is not involved.
	Attach int32
}

func (m *Mount) visit(c *coder) {
	c.str(&m.Destination)
	c.str(&m.Type)
	c.str(&m.Source)
	c.u64(&m.Flags)
	c.u64(&m.Propagation)
	c.str(&m.Data)
	c.i32(&m.Attach)
}

// Device is a device node to be made in the container's /dev.
type Device struct {
	Path         string
	Mode         uint32 // with the type bits of mknod(2)
	Major, Minor uint32
	UID, GID     uint32
}

func (d *Device) visit(c *coder) {
	c.str(&d.Path)
	c.u32(&d.Mode)
	c.u32(&d.Major)
	c.u32(&d.Minor)
	c.u32(&d.UID)
	c.u32(&d.GID)
}

// KeyValue is a setting, such as a sysctl.
type KeyValue struct{ Key, Value string }

func (k *KeyValue) visit(c *coder) {
	c.str(&k.Key)
	c.str(&k.Value)
}

// Limits are the limits that the sentry enforces or shows itself; 0 is unlimited.
type Limits struct {
	PIDs        int64
	Memory      int64 // bytes
	CPUQuota    int64 // microseconds per CPUPeriod
	CPUPeriod   uint64
	CPUShares   uint64
	CPUs, Mems  string // cpuset lists
	CgroupsPath string // as applications see it
}

func (l *Limits) visit(c *coder) {
	c.i64(&l.PIDs)
	c.i64(&l.Memory)
	c.i64(&l.CPUQuota)
	c.u64(&l.CPUPeriod)
	c.u64(&l.CPUShares)
	c.str(&l.CPUs)
	c.str(&l.Mems)
	c.str(&l.CgroupsPath)
}

// Join shares a namespace with another container of the sandbox.
type Join struct {
	Namespace string // "pid", "ipc", "uts", "network"
	Container string
}

func (j *Join) visit(c *coder) {
	c.str(&j.Namespace)
	c.str(&j.Container)
}

// Seccomp is a container's filter of its own system calls, in the terms of config.json; the sentry
// compiles and runs it.
type Seccomp struct {
	DefaultAction string
	DefaultErrno  uint32
	Architectures []string
	Flags         []string
	Rules         []SeccompRule
}

func (s *Seccomp) visit(c *coder) {
	c.str(&s.DefaultAction)
	c.u32(&s.DefaultErrno)
	c.strs(&s.Architectures)
	c.strs(&s.Flags)
	parts(c, &s.Rules, 16)
}

// SeccompRule is an action for some system calls.
type SeccompRule struct {
	Names  []string
	Action string
	Errno  uint32
	Args   []SeccompArg
}

func (r *SeccompRule) visit(c *coder) {
	c.strs(&r.Names)
	c.str(&r.Action)
	c.u32(&r.Errno)
	parts(c, &r.Args, 24)
}

// SeccompArg is a condition on an argument.
type SeccompArg struct {
	Index           uint32
	Op              string
	Value, ValueTwo uint64
}

func (a *SeccompArg) visit(c *coder) {
	c.u32(&a.Index)
	c.str(&a.Op)
	c.u64(&a.Value)
	c.u64(&a.ValueTwo)
}

// GoferBoot is the message that makes a gofer of a fresh process.
type GoferBoot struct {
	// Attach are the trees to serve; their indexes are what Mount.Attach refers to.
	Attach []Attach
	// Conn is the connection that is served, Lifeline a writing end to be held open, Log for debug lines.
	Conn, Lifeline, Log int
	Epoch               int64
}

func (g *GoferBoot) visit(c *coder) {
	parts(c, &g.Attach, 7)
	c.fd(&g.Conn)
	c.fd(&g.Lifeline)
	c.fd(&g.Log)
	c.i64(&g.Epoch)
}

// Attach is a tree of the host to be served.
type Attach struct {
	Path      string // host path
	Recursive bool   // with the mounts below it
	ReadOnly  bool
	// Root marks the container's root, which must be a directory and no symbolic link.
	Root bool
}

func (a *Attach) visit(c *coder) {
	c.str(&a.Path)
	c.flag(&a.Recursive)
	c.flag(&a.ReadOnly)
	c.flag(&a.Root)
}

// GoferReady is the gofer's answer to GoferBoot.
type GoferReady struct {
	Error string // empty when the gofer serves
}

func (g *GoferReady) visit(c *coder) { c.str(&g.Error) }
