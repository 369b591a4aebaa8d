package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"

	"golang.org/x/sys/unix"
)

// namespaceEntries are the calls of namespaces(7).
func namespaceEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_UNSHARE, Name: "unshare", Handler: unshare, Support: Partial, Note: "no cgroup and time namespaces", Args: "cloneflags"},
		{Number: unix.SYS_SETNS, Name: "setns", Handler: setns, Support: Partial, Note: "no cgroup and time namespaces", Args: "fd cloneflags"},
	}
}

func unshare(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) { return 0, t.Unshare(a[0].Uint64()) }

func setns(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd := t.FDTable().Get(a[0].Int())
	if fd == nil {
		return 0, unix.EBADF
	}
	defer fd.DecRef()
	flags := uint64(a[1].Uint())
	if p, ok := fd.Impl().(*kernel.PIDFD); ok {
		o := p.Task()
		if o == nil {
			return 0, unix.ESRCH
		}
		return 0, t.JoinNamespaces(o, flags)
	}
	n, ok := fd.Impl().(kernel.NamespaceFile)
	if !ok {
		return 0, unix.EINVAL
	}
	return 0, t.JoinNamespace(n.Namespace(), flags)
}
