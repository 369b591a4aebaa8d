package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/waiter"
)

const (
	// maxPID is the number of PIDs of a namespace (/proc/sys/kernel/pid_max of Linux on 64 bits).
	maxPID = 1 << 22
	// reservedPIDs is where allocation goes on after a wrap-around, as in Linux.
	reservedPIDs = 300
	// maxPIDNSLevel is the deepest nesting of pid_namespaces(7).
	maxPIDNSLevel = 32
)

// PID is an identity that a task, a thread group, a process group and a session may share, with a number in
// its namespace and in each ancestor. It outlives the task while a group or session uses it, and pidfds
// refer to it.
type PID struct {
	ns   *PIDNamespace // immutable: the deepest
	nums []int32       // immutable: nums[l] is the number in the ancestor at level l

	task    *Task         // protected by Kernel.tree: the thread with this TID; nil after its release
	group   *ThreadGroup  // protected by Kernel.tree: the process with this TGID
	pgrp    *ProcessGroup // protected by Kernel.tree
	session *Session      // protected by Kernel.tree

	queue waiter.Queue // polls of pidfds
}

// In is the number in ns; 0 where it is not visible.
func (p *PID) In(ns *PIDNamespace) int32 {
	if p == nil || ns.level >= len(p.nums) {
		return 0
	}
	at := p.ns
	for at.level > ns.level {
		at = at.parent
	}
	if at != ns {
		return 0
	}
	return p.nums[ns.level]
}

// PIDNamespace numbers tasks (pid_namespaces(7)).
type PIDNamespace struct {
	k      *Kernel
	parent *PIDNamespace       // immutable
	level  int                 // immutable: 0 at the root
	user   *auth.UserNamespace // immutable
	inode  uint64              // immutable

	pids   map[int32]*PID // protected by Kernel.tree
	last   int32          // protected by Kernel.tree: the latest number
	init   *ThreadGroup   // protected by Kernel.tree: PID 1; nil before it is made
	dead   bool           // protected by Kernel.tree: init is gone, no more PIDs
	zapper *Task          // protected by Kernel.tree: thread of init that waits for the others' end
}

func newPIDNamespace(k *Kernel, parent *PIDNamespace, user *auth.UserNamespace) *PIDNamespace {
	ns := &PIDNamespace{k: k, parent: parent, user: user, inode: k.newNSInode(), pids: make(map[int32]*PID)}
	if parent != nil {
		ns.level = parent.level + 1
	}
	return ns
}

// NewPIDNamespace makes a child of parent, for a container or CLONE_NEWPID. ENOSPC if it would be too deep.
func (k *Kernel) NewPIDNamespace(parent *PIDNamespace, user *auth.UserNamespace) (*PIDNamespace, error) {
	if parent.level+1 > maxPIDNSLevel {
		return nil, unix.ENOSPC
	}
	return newPIDNamespace(k, parent, user), nil
}

// Parent is the namespace that ns is nested in; nil at the root.
func (ns *PIDNamespace) Parent() *PIDNamespace { return ns.parent }

// UserNS owns the namespace.
func (ns *PIDNamespace) UserNS() *auth.UserNamespace { return ns.user }

// Inode identifies the namespace in /proc/PID/ns.
func (ns *PIDNamespace) Inode() uint64 { return ns.inode }

// contains tells whether ns is other or an ancestor of it.
func (ns *PIDNamespace) contains(other *PIDNamespace) bool {
	for ; other != nil; other = other.parent {
		if other == ns {
			return true
		}
	}
	return false
}

// allocPID numbers a new task in ns and its ancestors. want, from the innermost namespace outwards, asks for
// given numbers (clone3(2) set_tid). The caller holds k.tree. EAGAIN when numbers run out, EEXIST when a wanted one is
// taken, ENOMEM in a namespace whose init is gone (as Linux).
func (k *Kernel) allocPID(ns *PIDNamespace, want []int32) (*PID, error) {
	if ns.dead {
		return nil, unix.ENOMEM
	}
	p := &PID{ns: ns, nums: make([]int32, ns.level+1)}
	at := ns
	for i := 0; at != nil; i++ {
		n, err := int32(0), error(nil)
		if i < len(want) && want[i] != 0 {
			n, err = at.take(want[i])
		} else {
			n, err = at.next()
		}
		if err != nil {
			for u := ns; u != at; u = u.parent {
				delete(u.pids, p.nums[u.level])
			}
			return nil, err
		}
		p.nums[at.level] = n
		at.pids[n] = p
		at = at.parent
	}
	return p, nil
}

func (ns *PIDNamespace) take(n int32) (int32, error) {
	if n < 1 || n >= maxPID || (n != 1 && ns.init == nil && len(ns.pids) == 0) {
		return 0, unix.EINVAL
	}
	if ns.pids[n] != nil {
		return 0, unix.EEXIST
	}
	return n, nil
}

func (ns *PIDNamespace) next() (int32, error) {
	n := ns.last
	for tries := 0; tries < maxPID; tries++ {
		if n++; n >= maxPID {
			n = reservedPIDs
		}
		if ns.pids[n] == nil {
			ns.last = n
			return n, nil
		}
	}
	return 0, unix.EAGAIN
}

// release frees the numbers if nothing uses p any more. The caller holds k.tree.
func (p *PID) release() {
	if p.task != nil || p.group != nil || p.pgrp != nil || p.session != nil {
		return
	}
	for ns := p.ns; ns != nil; ns = ns.parent {
		if ns.pids[p.nums[ns.level]] == p {
			delete(ns.pids, p.nums[ns.level])
		}
	}
}

// lookup finds the PID with number n; the caller holds k.tree.
func (ns *PIDNamespace) lookup(n int32) *PID { return ns.pids[n] }

// TaskByTID returns the thread with number tid in ns; nil if there is none (zombie threads of a living
// process count until they are reaped).
func (ns *PIDNamespace) TaskByTID(tid int32) *Task {
	ns.k.tree.Lock()
	defer ns.k.tree.Unlock()
	if p := ns.pids[tid]; p != nil {
		return p.task
	}
	return nil
}

// GroupByTGID returns the process with number tgid in ns, zombies included; nil if there is none.
func (ns *PIDNamespace) GroupByTGID(tgid int32) *ThreadGroup {
	ns.k.tree.Lock()
	defer ns.k.tree.Unlock()
	if p := ns.pids[tgid]; p != nil {
		return p.group
	}
	return nil
}

// ProcessGroupByID returns the process group with number id in ns; nil if there is none.
func (ns *PIDNamespace) ProcessGroupByID(id int32) *ProcessGroup {
	ns.k.tree.Lock()
	defer ns.k.tree.Unlock()
	if p := ns.pids[id]; p != nil {
		return p.pgrp
	}
	return nil
}

// Groups appends to buf the processes visible in ns with their numbers there, zombies included, in no
// particular order.
func (ns *PIDNamespace) Groups(buf []NumberedGroup) []NumberedGroup {
	ns.k.tree.Lock()
	defer ns.k.tree.Unlock()
	for n, p := range ns.pids {
		if p.group != nil {
			buf = append(buf, NumberedGroup{n, p.group})
		}
	}
	return buf
}

// NumberedGroup is a process and its number in some namespace.
type NumberedGroup struct {
	PID   int32
	Group *ThreadGroup
}

// Init is the namespace's PID 1; nil before it exists and after its release.
func (ns *PIDNamespace) Init() *ThreadGroup {
	ns.k.tree.Lock()
	defer ns.k.tree.Unlock()
	return ns.init
}

// LastPID is the latest number given out (/proc/loadavg, /proc/sys/kernel/ns_last_pid).
func (ns *PIDNamespace) LastPID() int32 {
	ns.k.tree.Lock()
	defer ns.k.tree.Unlock()
	return ns.last
}
