package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/vfs"
)

// NamespaceFile is implemented by the open files of /proc/PID/ns.
type NamespaceFile interface {
	// Namespace is a *UTSNamespace, *IPCNamespace, *PIDNamespace, *auth.UserNamespace, *vfs.MountNamespace or NetworkNamespace.
	Namespace() any
}

// joinable are the kinds of namespaces that setns(2) knows here.
const joinable = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUSER

// Unshare is unshare(2). Own goroutine.
func (t *Task) Unshare(f uint64) error {
	const known = joinable | unix.CLONE_THREAD | unix.CLONE_FS | unix.CLONE_SIGHAND | unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_SYSVSEM | unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME
	if f&^known != 0 || f&(unix.CLONE_NEWTIME) != 0 {
		return unix.EINVAL
	}
	if f&unix.CLONE_NEWUSER != 0 {
		f |= unix.CLONE_THREAD | unix.CLONE_FS
	}
	if f&unix.CLONE_VM != 0 {
		f |= unix.CLONE_SIGHAND
	}
	if f&unix.CLONE_SIGHAND != 0 {
		f |= unix.CLONE_THREAD
	}
	if f&unix.CLONE_NEWNS != 0 {
		f |= unix.CLONE_FS
	}
	if f&unix.CLONE_THREAD != 0 && t.group.NumThreads() > 1 {
		return unix.EINVAL
	}
	if f&(unix.CLONE_SIGHAND|unix.CLONE_VM) != 0 && (t.group.handlers().refsShared() || t.MM().Users() > 1) {
		return unix.EINVAL
	}
	creds := t.Credentials()
	if f&unix.CLONE_NEWUSER != 0 {
		c, err := t.newUserNS()
		if err != nil {
			return err
		}
		creds = c
	}
	if f&cloneNSFlags != 0 && !creds.HasCap(unix.CAP_SYS_ADMIN) {
		return unix.EPERM
	}
	return t.unshareChecked(f, creds)
}

func (t *Task) unshareChecked(f uint64, creds *auth.Credentials) error {
	user := creds.UserNS
	var pidns *PIDNamespace
	if f&unix.CLONE_NEWPID != 0 {
		var err error
		if pidns, err = t.k.NewPIDNamespace(t.childNS, user); err != nil {
			return err
		}
	}
	if f&unix.CLONE_NEWNET != 0 && t.k.cfg.NewNetNS == nil {
		return unix.EPERM
	}
	if f&unix.CLONE_FS != 0 {
		t.unshareFS()
	}
	if f&unix.CLONE_NEWNS != 0 {
		old := t.MountNS()
		ns, err := old.Clone(t, user, t.FS())
		if err != nil {
			return err
		}
		t.mntNS.Store(ns)
		old.DecRef()
	}
	if f&unix.CLONE_FILES != 0 {
		if old := t.FDTable(); old.Shared() {
			t.files.Store(old.Fork(^uint32(0)))
			old.DecRef(t)
		}
	}
	if uts := t.UTSNamespace(); f&unix.CLONE_NEWUTS != 0 {
		t.utsNS.Store(newUTSNamespace(t.k, user, uts.HostName(), uts.DomainName()))
	}
	if f&unix.CLONE_NEWIPC != 0 {
		t.ipcNS.Store(newIPCNamespace(t.k, user))
	}
	if f&unix.CLONE_NEWNET != 0 {
		ns := t.k.cfg.NewNetNS(user)
		t.SetNetNS(ns)
		ns.DecRef()
	}
	if pidns != nil {
		t.childNS = pidns
	}
	if creds != t.Credentials() {
		t.SetCredentials(creds)
	}
	return nil
}

// unshareFS gives the task an FSContext of its own.
func (t *Task) unshareFS() {
	if t.fsShare.n.Load() == 1 {
		return
	}
	old, share := t.FS(), t.fsShare
	t.fs.Store(old.Clone())
	t.fsShare = newShareCount()
	if share.n.Add(-1) == 0 {
		old.Release()
	}
}

// JoinNamespace is setns(2) with a namespace file; kind is a CLONE_NEW* flag or 0.
func (t *Task) JoinNamespace(ns any, kind uint64) error {
	var is uint64
	switch ns.(type) {
	case *UTSNamespace:
		is = unix.CLONE_NEWUTS
	case *IPCNamespace:
		is = unix.CLONE_NEWIPC
	case *PIDNamespace:
		is = unix.CLONE_NEWPID
	case *auth.UserNamespace:
		is = unix.CLONE_NEWUSER
	case *vfs.MountNamespace:
		is = unix.CLONE_NEWNS
	case NetworkNamespace:
		is = unix.CLONE_NEWNET
	default:
		return unix.EINVAL
	}
	if kind != 0 && kind != is {
		return unix.EINVAL
	}
	return t.join(ns)
}

// mayJoin is the rule of most namespaces: CAP_SYS_ADMIN in its owner and in the caller's own user namespace.
func (t *Task) mayJoin(owner *auth.UserNamespace) error {
	if !t.HasCapIn(unix.CAP_SYS_ADMIN, owner) || !t.HasCap(unix.CAP_SYS_ADMIN) {
		return unix.EPERM
	}
	return nil
}

func (t *Task) join(ns any) error {
	switch n := ns.(type) {
	case *UTSNamespace:
		if err := t.mayJoin(n.user); err != nil {
			return err
		}
		t.utsNS.Store(n)
	case *IPCNamespace:
		if err := t.mayJoin(n.user); err != nil {
			return err
		}
		t.ipcNS.Store(n)
	case *PIDNamespace:
		if err := t.mayJoin(n.user); err != nil {
			return err
		}
		if !t.PIDNS().contains(n) {
			return unix.EINVAL
		}
		t.childNS = n
	case *auth.UserNamespace:
		return t.joinUser(n)
	case *vfs.MountNamespace:
		if err := t.mayJoin(n.UserNS); err != nil {
			return err
		}
		if !t.HasCap(unix.CAP_SYS_CHROOT) {
			return unix.EPERM
		}
		if t.fsShare.n.Load() > 1 {
			return unix.EINVAL
		}
		n.IncRef()
		old := t.mntNS.Swap(n)
		root := n.Root()
		t.FS().SetRoot(root)
		t.FS().SetCWD(root)
		root.DecRef()
		if old != nil {
			old.DecRef()
		}
	case NetworkNamespace:
		if err := t.mayJoin(n.UserNS()); err != nil {
			return err
		}
		t.SetNetNS(n)
	default:
		return unix.EINVAL
	}
	return nil
}

func (t *Task) joinUser(n *auth.UserNamespace) error {
	if n == t.UserNS() || t.group.NumThreads() > 1 || t.fsShare.n.Load() > 1 {
		return unix.EINVAL
	}
	if !t.HasCapIn(unix.CAP_SYS_ADMIN, n) {
		return unix.EPERM
	}
	c := t.Credentials().Clone()
	c.EnterUserNS(n)
	t.SetCredentials(c)
	return nil
}

// JoinNamespaces is setns(2) with a pidfd: the namespaces of o that flags name.
func (t *Task) JoinNamespaces(o *Task, flags uint64) error {
	if flags == 0 || flags&^joinable != 0 {
		return unix.EINVAL
	}
	if !t.MayPtrace(o) {
		return unix.EPERM
	}
	var list []any
	if flags&unix.CLONE_NEWUSER != 0 {
		list = append(list, o.UserNS())
	}
	if flags&unix.CLONE_NEWUTS != 0 {
		list = append(list, o.UTSNamespace())
	}
	if flags&unix.CLONE_NEWIPC != 0 {
		list = append(list, o.IPCNamespace())
	}
	if flags&unix.CLONE_NEWPID != 0 {
		list = append(list, o.PIDNS())
	}
	if n := o.NetNS(); n != nil && flags&unix.CLONE_NEWNET != 0 {
		list = append(list, n)
	}
	if m := o.MountNS(); m != nil && flags&unix.CLONE_NEWNS != 0 {
		list = append(list, m)
	}
	for _, n := range list {
		if err := t.join(n); err != nil {
			return err
		}
	}
	return nil
}

// ChildPIDNS is where the task's children are numbered (/proc/PID/ns/pid_for_children).
func (t *Task) ChildPIDNS() *PIDNamespace { return t.childNS }
