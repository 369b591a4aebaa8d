package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"

	"golang.org/x/sys/unix"
)

// stubEntries are calls that a container must not make or that this kernel has no use for; they give what Linux gives
// to a process without the capability, or on a kernel built without the feature.
func stubEntries() []Entry {
	const (
		host     = "of the host: EPERM"
		disabled = "as on a kernel without it: ENOSYS"
	)
	perm := fail(unix.EPERM)
	nosys := fail(unix.ENOSYS)
	e := func(nr uint16, name string, h kernel.SyscallFn, note string) Entry {
		return Entry{Number: nr, Name: name, Handler: h, Support: Stub, Note: note, Args: "hex hex hex hex hex hex"}
	}
	return []Entry{
		e(unix.SYS_ACCT, "acct", perm, host),
		e(unix.SYS_REBOOT, "reboot", reboot, "EPERM, EINVAL for bad magic numbers"),
		e(unix.SYS_SWAPON, "swapon", perm, host),
		e(unix.SYS_SWAPOFF, "swapoff", perm, host),
		e(unix.SYS_IOPL, "iopl", perm, host),
		e(unix.SYS_IOPERM, "ioperm", perm, host),
		e(unix.SYS_MODIFY_LDT, "modify_ldt", nosys, disabled),
		e(unix.SYS_INIT_MODULE, "init_module", perm, host),
		e(unix.SYS_FINIT_MODULE, "finit_module", perm, host),
		e(unix.SYS_DELETE_MODULE, "delete_module", perm, host),
		e(unix.SYS_KEXEC_LOAD, "kexec_load", perm, host),
		e(unix.SYS_KEXEC_FILE_LOAD, "kexec_file_load", perm, host),
		e(unix.SYS_VHANGUP, "vhangup", perm, host),
		e(unix.SYS_QUOTACTL, "quotactl", fail(unix.ENOSYS), disabled),
		e(unix.SYS_QUOTACTL_FD, "quotactl_fd", nosys, disabled),
		e(unix.SYS_USELIB, "uselib", nosys, disabled),
		e(unix.SYS_USTAT, "ustat", nosys, disabled),
		e(unix.SYS_SYSFS, "sysfs", nosys, disabled),
		e(unix.SYS__SYSCTL, "_sysctl", nosys, disabled),
		e(unix.SYS_CREATE_MODULE, "create_module", nosys, disabled),
		e(unix.SYS_GET_KERNEL_SYMS, "get_kernel_syms", nosys, disabled),
		e(unix.SYS_QUERY_MODULE, "query_module", nosys, disabled),
		e(unix.SYS_NFSSERVCTL, "nfsservctl", nosys, disabled),
		e(unix.SYS_GETPMSG, "getpmsg", nosys, disabled),
		e(unix.SYS_PUTPMSG, "putpmsg", nosys, disabled),
		e(unix.SYS_AFS_SYSCALL, "afs_syscall", nosys, disabled),
		e(unix.SYS_TUXCALL, "tuxcall", nosys, disabled),
		e(unix.SYS_SECURITY, "security", nosys, disabled),
		e(unix.SYS_SET_THREAD_AREA, "set_thread_area", nosys, disabled),
		e(unix.SYS_GET_THREAD_AREA, "get_thread_area", nosys, disabled),
		e(unix.SYS_EPOLL_CTL_OLD, "epoll_ctl_old", nosys, disabled),
		e(unix.SYS_EPOLL_WAIT_OLD, "epoll_wait_old", nosys, disabled),
		e(unix.SYS_VSERVER, "vserver", nosys, disabled),
		e(unix.SYS_ADD_KEY, "add_key", nosys, disabled),
		e(unix.SYS_REQUEST_KEY, "request_key", nosys, disabled),
		e(unix.SYS_KEYCTL, "keyctl", nosys, disabled),
		e(unix.SYS_LOOKUP_DCOOKIE, "lookup_dcookie", nosys, disabled),
		e(unix.SYS_PERF_EVENT_OPEN, "perf_event_open", perm, "EPERM, as perf_event_paranoid tells Linux to"),
		e(unix.SYS_BPF, "bpf", perm, "EPERM, as unprivileged_bpf_disabled tells Linux to"),
		e(unix.SYS_USERFAULTFD, "userfaultfd", perm, "EPERM, as unprivileged_userfaultfd tells Linux to"),
		e(unix.SYS_IO_URING_SETUP, "io_uring_setup", perm, "EPERM, as io_uring_disabled tells Linux to"),
		e(unix.SYS_IO_URING_ENTER, "io_uring_enter", perm, "EPERM, as io_uring_disabled tells Linux to"),
		e(unix.SYS_IO_URING_REGISTER, "io_uring_register", perm, "EPERM, as io_uring_disabled tells Linux to"),
		e(unix.SYS_LANDLOCK_CREATE_RULESET, "landlock_create_ruleset", fail(unix.EOPNOTSUPP), "EOPNOTSUPP, as Linux with Landlock disabled"),
		e(unix.SYS_LANDLOCK_ADD_RULE, "landlock_add_rule", fail(unix.EOPNOTSUPP), "EOPNOTSUPP, as Linux with Landlock disabled"),
		e(unix.SYS_LANDLOCK_RESTRICT_SELF, "landlock_restrict_self", fail(unix.EOPNOTSUPP), "EOPNOTSUPP, as Linux with Landlock disabled"),
		e(unix.SYS_MEMFD_SECRET, "memfd_secret", nosys, disabled),
		e(unix.SYS_MAP_SHADOW_STACK, "map_shadow_stack", fail(unix.EOPNOTSUPP), "EOPNOTSUPP, as on processors without it"),
		e(unix.SYS_LSM_GET_SELF_ATTR, "lsm_get_self_attr", nosys, disabled),
		e(unix.SYS_LSM_SET_SELF_ATTR, "lsm_set_self_attr", nosys, disabled),
		e(unix.SYS_LSM_LIST_MODULES, "lsm_list_modules", nosys, disabled),
		e(unix.SYS_FUTEX_WAKE, "futex_wake", nosys, disabled),
		e(unix.SYS_FUTEX_WAIT, "futex_wait", nosys, disabled),
		e(unix.SYS_FUTEX_REQUEUE, "futex_requeue", nosys, disabled),
	}
}

// Magic numbers of reboot(2).
const (
	rebootMagic1  = 0xfee1dead
	rebootMagic2  = 672274793
	rebootMagic2A = 85072278
	rebootMagic2B = 369367448
	rebootMagic2C = 537993216
)

func reboot(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if !t.HasCapIn(unix.CAP_SYS_BOOT, t.PIDNS().UserNS()) {
		return 0, unix.EPERM
	}
	if a[0].Uint() != rebootMagic1 {
		return 0, unix.EINVAL
	}
	switch a[1].Uint() {
	case rebootMagic2, rebootMagic2A, rebootMagic2B, rebootMagic2C:
		return 0, unix.EPERM
	}
	return 0, unix.EINVAL
}
