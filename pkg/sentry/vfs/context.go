package vfs

import (
	"math"
	"sync"
	"sync/atomic"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/waiter"
)

// NoDeadline makes Context.Block wait without a limit of time.
const NoDeadline int64 = math.MaxInt64

// ErrInterrupted is what Context.Block returns when a signal is pending for the task.
const ErrInterrupted = linux.ERESTARTSYS

// Context is what an operation knows of its caller: a task, or the sentry itself (NewKernelContext).
// One goroutine uses it at a time.
type Context interface {
	// Credentials are immutable and never nil.
	Credentials() *auth.Credentials
	// FS is the root, working directory and umask; tasks may share it (CLONE_FS).
	FS() *FSContext
	// MountNS is the mount namespace of the caller.
	MountNS() *MountNamespace
	// Limits are the resource limits (RLIMIT_NOFILE, RLIMIT_FSIZE).
	Limits() *limits.Set
	// MM is the caller's address space, for ioctl arguments; nil for the sentry itself.
	MM() *mm.MemoryManager
	// TaskID and TGID are the caller's IDs in the root PID namespace; 0 for the sentry itself.
	TaskID() int32
	TGID() int32
	// Waker is the task's preallocated wait channel: one blocking operation uses it at a time.
	Waker() *waiter.Signal
	// Block waits until ch has a token (taken: nil), the CLOCK_MONOTONIC deadline in nanoseconds has
	// passed (unix.ETIMEDOUT) or a signal must be handled (ErrInterrupted).
	Block(ch <-chan struct{}, deadline int64) error
	// SendSignal sends a thread-directed signal to the caller (SIGPIPE, SIGXFSZ).
	SendSignal(sig int32)
}

// Killed tells whether the caller is a task that is to exit: what takes long ends then.
func Killed(ctx Context) bool {
	k, ok := ctx.(interface{ Killed() bool })
	return ok && k.Killed()
}

// FSContext is what CLONE_FS shares: root, working directory, umask. Readers take no lock.
type FSContext struct {
	mu        sync.Mutex           // serialises changes
	root, cwd atomic.Pointer[Path] // each holds a reference; a reader that wants to keep one calls TryIncRef
	umask     atomic.Uint32
}

// NewFSContext takes references of its own on root and cwd.
func NewFSContext(root, cwd Path, umask uint32) *FSContext {
	f := &FSContext{}
	root.IncRef()
	cwd.IncRef()
	f.root.Store(&root)
	f.cwd.Store(&cwd)
	f.umask.Store(umask & 0777)
	return f
}

// Root and CWD are snapshots without a reference (RootRef and CWDRef have one).
func (f *FSContext) Root() Path { return *f.root.Load() }

// CWD is the working directory, without a reference.
func (f *FSContext) CWD() Path { return *f.cwd.Load() }

// RootRef returns the root with a reference.
func (f *FSContext) RootRef() Path { return refPath(&f.root) }

// CWDRef returns the working directory with a reference.
func (f *FSContext) CWDRef() Path { return refPath(&f.cwd) }

func refPath(p *atomic.Pointer[Path]) Path {
	for {
		if q := p.Load(); q.TryIncRef() {
			return *q
		}
	}
}

// TryRootRef and TryCWDRef are for callers that do not own f: the zero Path where f has been released.
func (f *FSContext) TryRootRef() Path { return tryRefPath(&f.root) }

// TryCWDRef is the working directory with a reference; the zero Path where f has been released.
func (f *FSContext) TryCWDRef() Path { return tryRefPath(&f.cwd) }

func tryRefPath(p *atomic.Pointer[Path]) Path {
	for q := p.Load(); ; {
		if q.TryIncRef() {
			return *q
		}
		now := p.Load()
		if now == q {
			return Path{}
		}
		q = now
	}
}

// SetRoot changes the root (chroot(2)); it takes a reference of its own.
func (f *FSContext) SetRoot(p Path) { f.set(&f.root, p) }

// SetCWD changes the working directory (chdir(2)).
func (f *FSContext) SetCWD(p Path) { f.set(&f.cwd, p) }

func (f *FSContext) set(at *atomic.Pointer[Path], p Path) {
	p.IncRef()
	f.mu.Lock()
	old := at.Swap(&p)
	f.mu.Unlock()
	old.DecRef()
}

// Umask is the file creation mask.
func (f *FSContext) Umask() uint32 { return f.umask.Load() }

// SetUmask changes the mask and returns the old one (umask(2)).
func (f *FSContext) SetUmask(m uint32) uint32 { return f.umask.Swap(m & 0777) }

// Clone copies f for a task that does not share it.
func (f *FSContext) Clone() *FSContext {
	root, cwd := f.RootRef(), f.CWDRef()
	c := NewFSContext(root, cwd, f.Umask())
	root.DecRef()
	cwd.DecRef()
	return c
}

// Release drops the references when the last task that shares f is gone.
func (f *FSContext) Release() {
	f.root.Load().DecRef()
	f.cwd.Load().DecRef()
}

// replaceRoot makes f follow pivot_root(2): where root or cwd is old, it becomes p.
func (f *FSContext) replaceRoot(old, p Path) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range []*atomic.Pointer[Path]{&f.root, &f.cwd} {
		if *at.Load() == old {
			p.IncRef()
			q := p
			at.Swap(&q).DecRef()
		}
	}
}

// kernelContext is the sentry acting for itself: root, never blocked by signals.
type kernelContext struct {
	creds *auth.Credentials
	fs    *FSContext
	ns    *MountNamespace
	lim   *limits.Set
	wake  waiter.Signal
}

// NewKernelContext makes a Context for work of the sentry itself, such as the first mounts. fs and ns may be nil
// while there is no mount.
func NewKernelContext(creds *auth.Credentials, fs *FSContext, ns *MountNamespace) Context {
	k := &kernelContext{creds: creds, fs: fs, ns: ns, lim: limits.New()}
	k.wake.Init()
	return k
}

func (k *kernelContext) Credentials() *auth.Credentials { return k.creds }
func (k *kernelContext) FS() *FSContext                 { return k.fs }
func (k *kernelContext) MountNS() *MountNamespace       { return k.ns }
func (k *kernelContext) Limits() *limits.Set            { return k.lim }
func (k *kernelContext) MM() *mm.MemoryManager          { return nil }
func (k *kernelContext) TaskID() int32                  { return 0 }
func (k *kernelContext) TGID() int32                    { return 0 }
func (k *kernelContext) Waker() *waiter.Signal          { return &k.wake }
func (k *kernelContext) SendSignal(int32)               {}
func (k *kernelContext) Block(ch <-chan struct{}, deadline int64) error {
	return BlockGoroutine(ch, nil, deadline)
}
