package syscalls

import (
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"

	"golang.org/x/sys/unix"
)

func membarrier(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	cmd, flags := a[0].Int(), a[1].Uint()
	if flags != 0 {
		return 0, unix.EINVAL
	}
	const (
		register = linux.MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED | linux.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED |
			linux.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE
		run = linux.MEMBARRIER_CMD_GLOBAL | linux.MEMBARRIER_CMD_GLOBAL_EXPEDITED | linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED |
			linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE
		getRegistrations = 1 << 9
	)
	tg := t.Group()
	switch cmd {
	case linux.MEMBARRIER_CMD_QUERY:
		return register | run | getRegistrations, nil
	case linux.MEMBARRIER_CMD_GLOBAL, linux.MEMBARRIER_CMD_GLOBAL_EXPEDITED:
		t.MemoryBarrier(false)
		return 0, nil
	case linux.MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, linux.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
		linux.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE:
		tg.RegisterMembarrier(uint32(cmd))
		return 0, nil
	case linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED, linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE:
		if tg.Membarriers()&uint32(cmd<<1) == 0 {
			return 0, unix.EPERM
		}
		t.MemoryBarrier(true)
		return 0, nil
	case getRegistrations:
		return uintptr(tg.Membarriers()), nil
	}
	return 0, unix.EINVAL
}
