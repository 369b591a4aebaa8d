package kernel

import (
	"sync"
	"sync/atomic"

	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Bits of Task.work: what must be looked at before the application runs on.
const (
	workSignal  uint32 = 1 << iota // an unblocked signal may be pending
	workExit                       // the task shall exit
	workStop                       // the group is stopping, or ptrace wants attention
	workRestart                    // a system call asked for a restart or left a temporary mask
	workBarrier                    // somebody waits for the thread to leave application code
	workUser                       // a function is queued by RunInTask
	workFreeze                     // the container may be frozen
)

// interrupting are the bits that end a blocked system call.
const interrupting = workSignal | workExit | workStop

// Values of Task.where.
const (
	inKernel uint32 = iota
	inUser
	inBlock
)

// Task is a thread of the application. It implements vfs.Context. Methods without another remark are for
// the task's own goroutine.
type Task struct {
	k   *Kernel
	ctx platform.Context      // own goroutine but for Interrupt; host resource
	as  platform.AddressSpace // own goroutine: that of mm
	// regs are the general registers while the application does not run. Own goroutine, or a tracer while stopped.
	regs      arch.Registers
	lastFault arch.Fault // own goroutine
	// fp is the buffer for extended state of signal frames, made at first use. Own goroutine.
	fp []byte

	work  atomic.Uint32
	dying atomic.Bool // workExit is in work
	where atomic.Uint32
	wake  waiter.Signal // tokens for whatever the task waits for, interrupts and its timer included
	timer clock.Timer   // puts a token into wake
	// late is when the first of the tokens was due that wake has put off, in clock.Ticks; own goroutine.
	late   int64
	linger platform.Lingerer // ctx, if it is one; own goroutine

	// Identity.
	group *ThreadGroup // immutable but for exec by a non-leader, where it stays the same
	pid   *PID         // protected by tree: exec by a non-leader swaps it
	tid   atomic.Int32 // number in the root namespace
	nsTID atomic.Int32 // number in the group's own namespace

	mu       sync.Mutex
	mm       atomic.Pointer[mm.MemoryManager] // replaced by own goroutine
	files    atomic.Pointer[vfs.FDTable]      // replaced by own goroutine
	fs       atomic.Pointer[vfs.FSContext]    // replaced by own goroutine
	creds    atomic.Pointer[auth.Credentials] // replaced by own goroutine
	mntNS    atomic.Pointer[vfs.MountNamespace]
	utsNS    atomic.Pointer[UTSNamespace]
	ipcNS    atomic.Pointer[IPCNamespace]
	netNS    atomic.Pointer[NetworkNamespace]
	childNS  *PIDNamespace // own goroutine: where children are numbered (unshare, setns)
	name     atomic.Pointer[string]
	released bool // protected by tree

	sig         taskSignals
	acct        taskAccounting
	futex       futexWaiter
	piWaiters   int          // protected by futexManager.piMu: waiters of PI locks that the task holds
	robust      uint64       // own goroutine: set_robust_list head
	clearTID    uint64       // own goroutine: clear_child_tid
	secc        seccompState // own goroutine
	pendingSecc atomic.Pointer[seccompState]
	sched       schedState

	restart      restartState     // own goroutine
	frame        arch.SignalFrame // own goroutine: buffer for signal frames
	sigInfo      linux.SignalInfo // own goroutine: buffer for the signal being delivered
	iovecs       []mm.AddrRange   // own goroutine: buffer of IOVecs
	waitEntry    waiter.Entry     // own goroutine: for waits of child states
	queued       []func()         // protected by mu: see RunInTask
	newLimits    *limits.Set      // between newChild and linkChild
	fsShare      *shareCount      // own goroutine: tasks that share fs
	ct           *Container       // immutable
	exit         exitState
	ptr          ptraceState
	pdeathSignal linux.Signal // protected by tree
	noNewPrivs   atomic.Bool
	vfork        *vforkWait // own goroutine of the child: the parent that waits
	personality  atomic.Uint32
	startTime    int64 // immutable: CLOCK_BOOTTIME ns
	ioprio       atomic.Int32
	tsc          uint32 // own goroutine: PR_SET_TSC mode
	timerSlack   uint64 // own goroutine
	memPolicy    int32  // own goroutine
}

// Kernel is the task's kernel; any goroutine.
func (t *Task) Kernel() *Kernel { return t.k }

// Group is the process; any goroutine.
func (t *Task) Group() *ThreadGroup { return t.group }

// MM is the address space; nil after exit. Any goroutine, but only the task's own may use it without
// mm.TryIncUsers.
func (t *Task) MM() *mm.MemoryManager { return t.mm.Load() }

// FDTable is the table of file descriptors; nil after exit. Any goroutine.
func (t *Task) FDTable() *vfs.FDTable { return t.files.Load() }

// FS implements vfs.Context; nil after exit. Any goroutine.
func (t *Task) FS() *vfs.FSContext { return t.fs.Load() }

// MountNS implements vfs.Context. Any goroutine.
func (t *Task) MountNS() *vfs.MountNamespace { return t.mntNS.Load() }

// UTSNamespace is where the host name is. Any goroutine.
func (t *Task) UTSNamespace() *UTSNamespace { return t.utsNS.Load() }

// IPCNamespace isolates System V IPC and message queues. Any goroutine.
func (t *Task) IPCNamespace() *IPCNamespace { return t.ipcNS.Load() }

// NetNS is the network namespace; nil where the sandbox has none. Any goroutine.
func (t *Task) NetNS() NetworkNamespace {
	if p := t.netNS.Load(); p != nil {
		return *p
	}
	return nil
}

// SetNetNS moves the task (setns(2), unshare(2)); it takes a reference on ns and drops that of the old.
func (t *Task) SetNetNS(ns NetworkNamespace) {
	if ns != nil {
		ns.IncRef()
	}
	if old := t.netNS.Swap(&ns); old != nil && *old != nil {
		(*old).DecRef()
	}
}

// Credentials implements vfs.Context: immutable, never nil. Any goroutine.
func (t *Task) Credentials() *auth.Credentials { return t.creds.Load() }

// UserNS is the user namespace of the credentials. Any goroutine.
func (t *Task) UserNS() *auth.UserNamespace { return t.creds.Load().UserNS }

// HasCap tells whether the task has the capability in its own user namespace.
func (t *Task) HasCap(c int) bool { return t.creds.Load().HasCap(c) }

// HasCapIn tells whether the task has the capability in ns.
func (t *Task) HasCapIn(c int, ns *auth.UserNamespace) bool { return t.creds.Load().HasCapIn(c, ns) }

// HasRootCap tells whether the task has the capability in the sandbox's root user namespace.
func (t *Task) HasRootCap(c int) bool { return t.creds.Load().HasCapIn(c, t.k.rootUserNS) }

// Limits implements vfs.Context. Any goroutine.
func (t *Task) Limits() *limits.Set { return t.group.limits }

// TaskID implements vfs.Context: the TID in the root PID namespace. Any goroutine.
func (t *Task) TaskID() int32 { return t.tid.Load() }

// TGID implements vfs.Context: the process' ID in the root PID namespace. Any goroutine.
func (t *Task) TGID() int32 { return t.group.tgid.Load() }

// TID is the thread's number in its own PID namespace (gettid(2)). Any goroutine.
func (t *Task) TID() int32 { return t.nsTID.Load() }

// PIDNS is the PID namespace that the task is in (not where its children go). Any goroutine.
func (t *Task) PIDNS() *PIDNamespace { return t.group.pidns }

// TIDIn is the thread's number in ns; 0 if not visible. Any goroutine.
func (t *Task) TIDIn(ns *PIDNamespace) int32 {
	t.k.tree.Lock()
	defer t.k.tree.Unlock()
	return t.pid.In(ns)
}

// Name is the comm name of at most 15 bytes. Any goroutine.
func (t *Task) Name() string { return *t.name.Load() }

// SetName changes the comm name; it is cut to 15 bytes. Any goroutine.
func (t *Task) SetName(s string) {
	if len(s) > 15 {
		s = s[:15]
	}
	t.name.Store(&s)
}

// Regs are the general registers; handlers that replace them (execve, rt_sigreturn) return the new rax.
func (t *Task) Regs() *arch.Registers { return &t.regs }

// PlatformContext runs the task's code.
func (t *Task) PlatformContext() platform.Context { return t.ctx }

// NoNewPrivs is prctl(PR_SET_NO_NEW_PRIVS). Any goroutine.
func (t *Task) NoNewPrivs() bool { return t.noNewPrivs.Load() }

// StartTime is the task's birth in nanoseconds of CLOCK_BOOTTIME. Any goroutine.
func (t *Task) StartTime() int64 { return t.startTime }

// Personality is that of personality(2). Any goroutine.
func (t *Task) Personality() uint32 { return t.personality.Load() }

// Waker implements vfs.Context: the task's preallocated wait channel.
func (t *Task) Waker() *waiter.Signal { return &t.wake }

// SendSignal implements vfs.Context: a kernel-generated signal to the calling thread.
func (t *Task) SendSignal(sig int32) {
	t.SendTaskSignal(&linux.SignalInfo{Signo: sig, Code: linux.SI_KERNEL})
}

// SetPersonality stores a value of personality(2).
func (t *Task) SetPersonality(p uint32) { t.personality.Store(p) }

// defaultTimerSlack is the timer slack of new programs in nanoseconds.
const defaultTimerSlack = 50000

// TimerSlack is prctl(PR_GET_TIMERSLACK), in nanoseconds. It is kept without effect.
func (t *Task) TimerSlack() uint64 { return t.timerSlack }

// SetTimerSlack is prctl(PR_SET_TIMERSLACK); 0 restores the default.
func (t *Task) SetTimerSlack(ns uint64) {
	if ns == 0 {
		ns = defaultTimerSlack
	}
	t.timerSlack = ns
}

// ClearTID is what set_tid_address(2) stored.
func (t *Task) ClearTID() uint64 { return t.clearTID }

// THPDisabled is prctl(PR_GET_THP_DISABLE); kept without effect.
func (tg *ThreadGroup) THPDisabled() bool { return tg.noTHP.Load() }

// SetTHPDisabled is prctl(PR_SET_THP_DISABLE).
func (tg *ThreadGroup) SetTHPDisabled(v bool) { tg.noTHP.Store(v) }
