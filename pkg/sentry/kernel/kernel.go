package kernel

import (
	"sync"
	"sync/atomic"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/heap"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/vfs"
)

// Config is what a Kernel is made from.
type Config struct {
	Platform platform.Platform
	MemFile  *memfile.File
	VFS      *vfs.VFS
	Table    *SyscallTable
	// NumCPU is the number of processors that the application sees; 0 means the host's.
	NumCPU int
	// HostCPU is the beginning of the host's /proc/cpuinfo, the first processor at least; nil or "" where it cannot be told.
	HostCPU func() string
	// RootUserNS is the sandbox's root user namespace; nil makes a new one.
	RootUserNS *auth.UserNamespace
	// Limits are those of init; nil for Linux' defaults.
	Limits *limits.Set
	// HostName and DomainName are those of the root UTS namespace.
	HostName, DomainName string
	// RootNetNS is the network namespace that containers start in; NewNetNS makes the others (nil: EPERM).
	RootNetNS NetworkNamespace
	NewNetNS  func(user *auth.UserNamespace) NetworkNamespace
	// Logf writes to the sandbox's log; nil discards.
	Logf func(format string, args ...any)
	// Strace, when set, is called around every system call (see SetStrace).
	Strace Tracer
}

// NetworkNamespace is a network namespace (network_namespaces(7)), implemented by the socket layer.
type NetworkNamespace interface {
	// UserNS owns the namespace.
	UserNS() *auth.UserNamespace
	// IncRef and DecRef count tasks and files that use it.
	IncRef()
	DecRef()
}

// Tracer observes system calls (strace).
type Tracer interface {
	Enter(t *Task, nr uint64)
	Exit(t *Task, nr uint64, ret uintptr, err error)
}

// Kernel is the root of everything that the sandbox's applications can see.
type Kernel struct {
	cfg      Config // immutable after New
	platform platform.Platform
	memFile  *memfile.File
	vfs      *vfs.VFS
	table    *SyscallTable
	timers   *clock.Timers // immutable: host resource
	heap     heap.Growth   // host resource

	rootUserNS *auth.UserNamespace // immutable
	rootPIDNS  *PIDNamespace       // immutable
	rootUTSNS  *UTSNamespace       // immutable
	rootIPCNS  *IPCNamespace       // immutable
	futexes    futexManager
	bootTime   int64 // immutable: CLOCK_BOOTTIME at New, ns
	startTime  int64 // immutable: CLOCK_REALTIME at New, ns
	numCPU     int   // immutable
	crowd      crowd

	// tree protects the process tree; see the lock order.
	tree       sync.Mutex
	containers map[string]*Container // protected by tree

	uidTasks  map[auth.KUID]int // protected by tree: tasks by real user (RLIMIT_NPROC)
	fpSize    int               // immutable: bytes of extended state
	xcr0      uint64            // immutable: components of extended state
	mxcsrMask uint32            // immutable: bits that may be set in MXCSR

	tasks     atomic.Int32 // live tasks
	running   sync.WaitGroup
	forks     atomic.Uint64
	tracer    atomic.Pointer[Tracer]
	nsInode   atomic.Uint64
	unknown   [MaxSyscall + 1]atomic.Uint32 // calls of unknown numbers; the last counts what is out of range
	load      loadAverage
	memTotal  atomic.Uint64 // see SetMemory
	memUsed   func() uint64 // immutable once tasks run
	exitHooks []func(*Task) // immutable once tasks run: see OnTaskExit
	extra     sync.Map      // values of upper layers by key; see Value
}

// New makes a kernel without processes.
func New(cfg Config) (*Kernel, error) {
	k := &Kernel{cfg: cfg, platform: cfg.Platform, memFile: cfg.MemFile, vfs: cfg.VFS, table: cfg.Table}
	if k.table == nil {
		k.table = &SyscallTable{}
	}
	if k.rootUserNS = cfg.RootUserNS; k.rootUserNS == nil {
		k.rootUserNS = auth.NewRootUserNamespace()
	}
	if k.cfg.Limits == nil {
		k.cfg.Limits = limits.New()
	}
	k.numCPU = cfg.NumCPU
	if k.numCPU <= 0 {
		k.numCPU = hostCPUs()
	}
	k.crowd.cpus = int32(k.numCPU)
	k.nsInode.Store(firstNSInode)
	var err error
	if k.timers, err = clock.NewTimers(); err != nil {
		return nil, err
	}
	k.bootTime, k.startTime = clock.Now(clockBoottime), clock.Realtime()
	k.rootPIDNS = newPIDNamespace(k, nil, k.rootUserNS)
	k.rootUTSNS = newUTSNamespace(k, k.rootUserNS, cfg.HostName, cfg.DomainName)
	k.rootIPCNS = newIPCNamespace(k, k.rootUserNS)
	k.uidTasks = make(map[auth.KUID]int)
	k.fpSize, k.xcr0, k.mxcsrMask = cfg.Platform.FPStateSize(), arch.XCR0(), 0xffff
	k.containers = make(map[string]*Container)
	if cfg.Strace != nil {
		k.SetStrace(cfg.Strace)
	}
	return k, nil
}

// Platform runs the application's code.
func (k *Kernel) Platform() platform.Platform { return k.platform }

// MemFile backs application memory.
func (k *Kernel) MemFile() *memfile.File { return k.memFile }

// VFS is the file system layer.
func (k *Kernel) VFS() *vfs.VFS { return k.vfs }

// Timers are where times are waited for.
func (k *Kernel) Timers() *clock.Timers { return k.timers }

// Table is the system call table.
func (k *Kernel) Table() *SyscallTable { return k.table }

// RootUserNamespace is the sandbox's root user namespace.
func (k *Kernel) RootUserNamespace() *auth.UserNamespace { return k.rootUserNS }

// RootPIDNamespace is the ancestor of every container's PID namespace.
func (k *Kernel) RootPIDNamespace() *PIDNamespace { return k.rootPIDNS }

// RootUTSNamespace is the UTS namespace of containers that ask for no other.
func (k *Kernel) RootUTSNamespace() *UTSNamespace { return k.rootUTSNS }

// RootIPCNamespace is the IPC namespace of containers that ask for no other.
func (k *Kernel) RootIPCNamespace() *IPCNamespace { return k.rootIPCNS }

// RootNetworkNamespace is the network namespace of Config.
func (k *Kernel) RootNetworkNamespace() NetworkNamespace { return k.cfg.RootNetNS }

// NumCPU is the number of processors that the application sees.
func (k *Kernel) NumCPU() int { return k.numCPU }

// HostCPU is the beginning of the host's /proc/cpuinfo, "" where it cannot be told.
func (k *Kernel) HostCPU() string {
	if k.cfg.HostCPU == nil {
		return ""
	}
	return k.cfg.HostCPU()
}

// BootTime is the sandbox's start in nanoseconds of CLOCK_BOOTTIME; StartTime is it in CLOCK_REALTIME.
func (k *Kernel) BootTime() int64 { return k.bootTime }

// StartTime is the sandbox's start in nanoseconds of CLOCK_REALTIME.
func (k *Kernel) StartTime() int64 { return k.startTime }

// Uptime is the time since the sandbox's start in nanoseconds.
func (k *Kernel) Uptime() int64 { return clock.Now(clockBoottime) - k.bootTime }

// TaskCount is the number of live tasks, Forks the number of tasks ever made (/proc/stat, /proc/loadavg).
func (k *Kernel) TaskCount() int { return int(k.tasks.Load()) }

// Forks is the number of tasks made since the start.
func (k *Kernel) Forks() uint64 { return k.forks.Load() }

// SetStrace switches system call tracing on (or off with nil), from any goroutine.
func (k *Kernel) SetStrace(tr Tracer) {
	if tr == nil {
		k.tracer.Store(nil)
		return
	}
	k.tracer.Store(&tr)
}

// Logf writes a line to the sandbox's log.
func (k *Kernel) Logf(format string, args ...any) {
	if k.cfg.Logf != nil {
		k.cfg.Logf(format, args...)
	}
}

// Value returns what an upper layer stored under key with SetValue; nil if nothing. Keys are private types, as
// with context.Context.
func (k *Kernel) Value(key any) any {
	v, _ := k.extra.Load(key)
	return v
}

// SetValue stores v under key.
func (k *Kernel) SetValue(key, v any) { k.extra.Store(key, v) }

// newNSInode numbers a namespace for /proc/PID/ns.
func (k *Kernel) newNSInode() uint64 {
	if k.vfs != nil {
		return k.vfs.NewNamespaceID()
	}
	return k.nsInode.Add(1)
}

// OnTaskExit makes f run in each thread that exits, before it leaves its namespaces (System V semaphore adjustments).
// It is called before any process exists.
func (k *Kernel) OnTaskExit(f func(*Task)) { k.exitHooks = append(k.exitHooks, f) }

// WaitAll waits until no task runs any more.
func (k *Kernel) WaitAll() { k.running.Wait() }
