package kernel

import (
	"strconv"

	"golang.org/x/sys/unix"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// PIDFD is the file behind a pidfd (pidfd_open(2)).
type PIDFD struct {
	k      *Kernel
	pid    *PID // immutable
	thread bool // immutable: PIDFD_THREAD
}

// NewPIDFD makes a file that refers to p; flags are O_NONBLOCK or 0.
func (k *Kernel) NewPIDFD(p *PID, thread bool, flags uint32) *vfs.FileDescription {
	return k.vfs.NewAnonFile("anon_inode:[pidfd]", &PIDFD{k: k, pid: p, thread: thread}, unix.O_RDWR|flags)
}

// PID is what the file refers to.
func (p *PIDFD) PID() *PID { return p.pid }

// Group is the process; nil when it has been reaped.
func (p *PIDFD) Group() *ThreadGroup {
	p.k.tree.Lock()
	defer p.k.tree.Unlock()
	if p.pid.group != nil {
		return p.pid.group
	}
	if p.pid.task != nil {
		return p.pid.task.group
	}
	return nil
}

// Task is the thread for PIDFD_THREAD files, and the process' main thread for others; nil when it is gone.
func (p *PIDFD) Task() *Task {
	p.k.tree.Lock()
	defer p.k.tree.Unlock()
	return p.pid.task
}

// Thread tells whether the file refers to a thread.
func (p *PIDFD) Thread() bool { return p.thread }

// Release implements vfs.FileImpl.
func (p *PIDFD) Release() {}

// Readiness implements waiter.Waitable: readable when the process (thread) has ended, hung up when it has been reaped.
func (p *PIDFD) Readiness(mask waiter.EventMask) waiter.EventMask {
	p.k.tree.Lock()
	defer p.k.tree.Unlock()
	var ev waiter.EventMask
	switch g := p.pid.group; {
	case g == nil && p.pid.task == nil:
		ev = waiter.ReadableEvents | waiter.EventHUp
	case g != nil && g.zombie, p.pid.task == nil, p.thread && p.pid.task.exit.done.Load():
		ev = waiter.ReadableEvents
	}
	return ev & (mask | waiter.EventHUp)
}

// EventRegister implements waiter.Waitable.
func (p *PIDFD) EventRegister(e *waiter.Entry) {
	p.k.tree.Lock()
	defer p.k.tree.Unlock()
	p.pid.queue.EventRegister(e)
}

// EventUnregister implements waiter.Waitable.
func (p *PIDFD) EventUnregister(e *waiter.Entry) { p.pid.queue.EventUnregister(e) }

// FDInfo implements vfs.FDInfoWriter.
func (p *PIDFD) FDInfo() string {
	n := p.pid.nums[len(p.pid.nums)-1]
	p.k.tree.Lock()
	if p.pid.task == nil && p.pid.group == nil {
		n = -1
	}
	p.k.tree.Unlock()
	s := strconv.Itoa(int(n))
	return "Pid:\t" + s + "\nNSpid:\t" + s + "\n"
}

// PIDByNumber finds the identity with number n in ns; nil if there is none.
func (ns *PIDNamespace) PIDByNumber(n int32) *PID {
	ns.k.tree.Lock()
	defer ns.k.tree.Unlock()
	return ns.pids[n]
}

// IsLeader tells whether p identifies a process, and not just a thread.
func (p *PID) IsLeader() bool {
	p.ns.k.tree.Lock()
	defer p.ns.k.tree.Unlock()
	return p.group != nil
}

// Alive tells whether the thread or process still exists, as a zombie at least.
func (p *PID) Alive() bool {
	p.ns.k.tree.Lock()
	defer p.ns.k.tree.Unlock()
	return p.task != nil || p.group != nil
}
