package syscalls

import (
	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
)

// mempolicyEntries are the NUMA calls, for a machine with the one node 0.
func mempolicyEntries() []Entry {
	const note = "the machine has one memory node; policies are checked and have no effect"
	return []Entry{
		{Number: unix.SYS_MBIND, Name: "mbind", Handler: mbind, Support: Partial, Note: note, Args: "ptr size int ptr int hex"},
		{Number: unix.SYS_SET_MEMPOLICY, Name: "set_mempolicy", Handler: setMempolicy, Support: Partial, Note: note, Args: "int ptr int"},
		{Number: unix.SYS_GET_MEMPOLICY, Name: "get_mempolicy", Handler: getMempolicy, Support: Partial, Note: note, Args: "ptr ptr int ptr hex"},
		{Number: unix.SYS_MIGRATE_PAGES, Name: "migrate_pages", Handler: migratePages, Support: Partial, Note: note, Args: "int int ptr ptr"},
		{Number: unix.SYS_MOVE_PAGES, Name: "move_pages", Handler: movePages, Support: Partial, Note: note, Args: "int int ptr ptr ptr hex"},
		{Number: unix.SYS_SET_MEMPOLICY_HOME_NODE, Name: "set_mempolicy_home_node", Handler: setHomeNode, Support: Partial, Note: note, Args: "ptr size int hex"},
	}
}

// Policies and flags of set_mempolicy(2) and get_mempolicy(2).
const (
	mpolDefault    = 0
	mpolPreferred  = 1
	mpolLocal      = 4
	mpolWeighted   = 6
	mpolModeFlags  = 1<<15 | 1<<14 | 1<<13
	mpolFNode      = 1
	mpolFAddr      = 2
	mpolFMemsAllow = 4
	maxNodes       = 32 << 10 // bits that a mask may have at most: what fits a page
)

// nodeMask reads a mask of nodes of maxnode-1 bits, and tells whether it is empty. EINVAL for nodes that do not exist, EFAULT.
func nodeMask(t *kernel.Task, addr, maxnode uint64) (empty bool, err error) {
	if maxnode > maxNodes {
		return false, unix.EINVAL
	}
	if addr == 0 || maxnode <= 1 {
		return true, nil
	}
	bits := maxnode - 1
	empty = true
	for i := uint64(0); i < bits; i += 64 {
		w, err := t.MM().ReadUint64(addr + i/8)
		if err != nil {
			return false, err
		}
		if bits-i < 64 {
			w &= 1<<(bits-i) - 1
		}
		if i == 0 {
			empty = w&1 == 0
			w &^= 1
		}
		if w != 0 {
			return false, unix.EINVAL
		}
	}
	return empty, nil
}

// checkPolicy checks a policy and its nodes.
func checkPolicy(t *kernel.Task, mode, addr, maxnode uint64) error {
	mode &^= mpolModeFlags
	if mode > mpolWeighted {
		return unix.EINVAL
	}
	empty, err := nodeMask(t, addr, maxnode)
	if err != nil {
		return err
	}
	switch mode {
	case mpolDefault, mpolLocal:
		if !empty {
			return unix.EINVAL
		}
	case mpolPreferred:
	default:
		if empty {
			return unix.EINVAL
		}
	}
	return nil
}

func mbind(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	addr, n := a[0].Pointer(), a[1].Uint64()
	if addr&arch.PageMask != 0 || a[5].Uint64()&^7 != 0 {
		return 0, unix.EINVAL
	}
	if err := checkPolicy(t, a[2].Uint64(), a[3].Pointer(), a[4].Uint64()); err != nil {
		return 0, err
	}
	if n, ok := arch.PageUp(n); !ok || !t.MM().Mapped(addr, n) {
		return 0, unix.EFAULT
	}
	return 0, nil
}

func setMempolicy(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return 0, checkPolicy(t, uint64(a[0].Uint()), a[1].Pointer(), a[2].Uint64())
}

func getMempolicy(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	m := t.MM()
	mode, mask, maxnode, flags := a[0].Pointer(), a[1].Pointer(), a[2].Uint64(), a[4].Uint64()
	if flags&^7 != 0 || mask != 0 && maxnode < 1 {
		return 0, unix.EINVAL
	}
	var word uint64
	if flags&mpolFMemsAllow != 0 {
		if flags != mpolFMemsAllow {
			return 0, unix.EINVAL
		}
		word = 1
	} else if flags&mpolFAddr != 0 {
		if !m.Mapped(a[3].Pointer(), 1) {
			return 0, unix.EFAULT
		}
	} else if a[3].Pointer() != 0 || flags&mpolFNode != 0 {
		return 0, unix.EINVAL
	}
	if mode != 0 && flags&mpolFMemsAllow == 0 {
		if err := m.WriteUint32(mode, mpolDefault); err != nil { // also node 0 for MPOL_F_NODE
			return 0, err
		}
	}
	if mask != 0 {
		bytes := (min(maxnode, maxNodes) + 63) / 64 * 8
		if _, err := m.ZeroOut(mask, bytes); err != nil {
			return 0, err
		}
		if err := m.WriteUint64(mask, word); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func migratePages(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if pid := a[0].Int(); pid != 0 && t.PIDNS().TaskByTID(pid) == nil {
		return 0, unix.ESRCH
	}
	for _, addr := range [2]uint64{a[2].Pointer(), a[3].Pointer()} {
		if _, err := nodeMask(t, addr, a[1].Uint64()); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func movePages(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	m := t.MM()
	count, pages, nodes, status := a[1].Uint64(), a[2].Pointer(), a[3].Pointer(), a[4].Pointer()
	if a[5].Int()&^6 != 0 {
		return 0, unix.EINVAL
	}
	if pid := a[0].Int(); pid != 0 && pid != t.Group().ID() {
		if t.PIDNS().TaskByTID(pid) == nil {
			return 0, unix.ESRCH
		}
		return 0, unix.EPERM
	}
	if count > 1<<20 {
		return 0, unix.E2BIG
	}
	var vec [1]byte
	for i := range count {
		page, err := m.ReadUint64(pages + 8*i)
		if err != nil {
			return 0, err
		}
		if nodes != 0 {
			if n, err := m.ReadUint32(nodes + 4*i); err != nil {
				return 0, err
			} else if n != 0 {
				return 0, unix.ENODEV
			}
		}
		var st int32
		if m.Mincore(arch.PageDown(page), vec[:]) != nil {
			st = -int32(unix.EFAULT)
		} else if vec[0]&1 == 0 {
			st = -int32(unix.ENOENT)
		}
		if err := m.WriteUint32(status+4*i, uint32(st)); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func setHomeNode(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[0].Pointer()&arch.PageMask != 0 || a[2].Uint64() != 0 || a[3].Uint64() != 0 {
		return 0, unix.EINVAL
	}
	return 0, nil
}
