package syscalls

import (
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/seccomp"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

// prctlEntries are prctl(2), arch_prctl(2), personality(2) and seccomp(2).
func prctlEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_PRCTL, Name: "prctl", Handler: prctl, Support: Partial, Note: "options for features of other processors and rare ones give EINVAL", Args: "prctl hex hex hex hex"},
		{Number: unix.SYS_ARCH_PRCTL, Name: "arch_prctl", Handler: archPrctl, Support: Partial, Note: "FS and GS bases; shadow stacks and CPUID faulting are refused", Args: "hex ptr"},
		{Number: unix.SYS_PERSONALITY, Name: "personality", Handler: personality, Args: "hex"},
		{Number: unix.SYS_SECCOMP, Name: "seccomp", Handler: seccompCall, Support: Partial, Note: "no user notification", Args: "int hex ptr"},
	}
}

func prctl(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	arg := a[1].Uint64()
	rest := a[2] | a[3] | a[4]
	switch a[0].Int() {
	case unix.PR_SET_PDEATHSIG:
		if arg > linux.NumSignals {
			return 0, unix.EINVAL
		}
		t.SetPDeathSignal(linux.Signal(arg))
		return 0, nil
	case unix.PR_GET_PDEATHSIG:
		return 0, t.MM().WriteUint32(arg, uint32(t.PDeathSignal()))
	case unix.PR_GET_DUMPABLE:
		return uintptr(t.Group().Dumpable()), nil
	case unix.PR_SET_DUMPABLE:
		if arg > 1 {
			return 0, unix.EINVAL
		}
		t.Group().SetDumpable(int32(arg))
		return 0, nil
	case unix.PR_GET_KEEPCAPS:
		return boolResult(t.Credentials().KeepCaps), nil
	case unix.PR_SET_KEEPCAPS:
		return setKeepCaps(t, arg)
	case unix.PR_SET_NAME:
		return setName(t, arg)
	case unix.PR_GET_NAME:
		var b [16]byte
		copy(b[:15], t.Name())
		_, err := t.MM().CopyOut(arg, b[:])
		return 0, err
	case unix.PR_SET_NO_NEW_PRIVS:
		if arg != 1 || rest != 0 {
			return 0, unix.EINVAL
		}
		t.SetNoNewPrivs()
		return 0, nil
	case unix.PR_GET_NO_NEW_PRIVS:
		if arg != 0 || rest != 0 {
			return 0, unix.EINVAL
		}
		return boolResult(t.NoNewPrivs()), nil
	case unix.PR_SET_CHILD_SUBREAPER:
		t.Group().SetSubreaper(arg != 0)
		return 0, nil
	case unix.PR_GET_CHILD_SUBREAPER:
		v := uint32(boolResult(t.Group().Subreaper()))
		return 0, t.MM().WriteUint32(arg, v)
	case unix.PR_GET_SECCOMP:
		return uintptr(t.SeccompMode()), nil
	case unix.PR_SET_SECCOMP:
		switch arg {
		case unix.SECCOMP_MODE_STRICT:
			return 0, t.SetSeccompStrict()
		case unix.SECCOMP_MODE_FILTER:
			return addFilter(t, a[2].Pointer(), 0)
		}
		return 0, unix.EINVAL
	case unix.PR_CAPBSET_READ, unix.PR_CAPBSET_DROP, unix.PR_GET_SECUREBITS, unix.PR_SET_SECUREBITS, unix.PR_CAP_AMBIENT:
		return prctlCaps(t, a)
	case unix.PR_SET_TIMERSLACK, unix.PR_GET_TIMERSLACK, unix.PR_SET_TSC, unix.PR_GET_TSC, unix.PR_SET_THP_DISABLE, unix.PR_GET_THP_DISABLE,
		unix.PR_MCE_KILL, unix.PR_MCE_KILL_GET, unix.PR_GET_TID_ADDRESS, unix.PR_SET_MM, unix.PR_SET_PTRACER,
		unix.PR_SET_IO_FLUSHER, unix.PR_GET_IO_FLUSHER, unix.PR_SET_VMA, unix.PR_GET_TIMING, unix.PR_SET_TIMING,
		unix.PR_GET_SPECULATION_CTRL, unix.PR_SET_SPECULATION_CTRL, unix.PR_SET_MDWE, unix.PR_GET_MDWE, unix.PR_GET_AUXV:
		return prctlMisc(t, a)
	}
	return 0, unix.EINVAL
}

func boolResult(b bool) uintptr {
	if b {
		return 1
	}
	return 0
}

func setName(t *kernel.Task, addr uint64) (uintptr, error) {
	var b [15]byte
	n := 0
	for ; n < len(b); n++ {
		if _, err := t.MM().CopyIn(addr+uint64(n), b[n:n+1]); err != nil {
			return 0, err
		}
		if b[n] == 0 {
			break
		}
	}
	t.SetName(string(b[:n]))
	return 0, nil
}

func setKeepCaps(t *kernel.Task, arg uint64) (uintptr, error) {
	c := t.Credentials()
	if arg > 1 {
		return 0, unix.EINVAL
	}
	if c.SecureBits&linux.SECBIT_KEEP_CAPS_LOCKED != 0 {
		return 0, unix.EPERM
	}
	d := c.Clone()
	d.KeepCaps = arg == 1
	d.SecureBits &^= linux.SECBIT_KEEP_CAPS
	if d.KeepCaps {
		d.SecureBits |= linux.SECBIT_KEEP_CAPS
	}
	return become(t, d, nil)
}

// prctlCaps are the options that concern capabilities.
func prctlCaps(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	c, arg := t.Credentials(), a[1].Uint64()
	switch a[0].Int() {
	case unix.PR_CAPBSET_READ:
		if arg > auth.LastCap {
			return 0, unix.EINVAL
		}
		return boolResult(c.Bounding.Has(int(arg))), nil
	case unix.PR_CAPBSET_DROP:
		if !c.HasCap(unix.CAP_SETPCAP) {
			return 0, unix.EPERM
		}
		if arg > auth.LastCap {
			return 0, unix.EINVAL
		}
		d := c.Clone()
		d.Bounding &^= 1 << arg
		return become(t, d, nil)
	case unix.PR_GET_SECUREBITS:
		return uintptr(c.SecureBits), nil
	case unix.PR_SET_SECUREBITS:
		return setSecureBits(t, c, arg)
	}
	return prctlAmbient(t, c, a)
}

func setSecureBits(t *kernel.Task, c *auth.Credentials, v uint64) (uintptr, error) {
	const all = linux.SecureAllBits | linux.SecureAllLocks
	old := uint64(c.SecureBits)
	locks := old & linux.SecureAllLocks
	if locks>>1&(old^v) != 0 || locks&^v != 0 || v&^all != 0 {
		return 0, unix.EPERM
	}
	if !c.HasCap(unix.CAP_SETPCAP) {
		return 0, unix.EPERM
	}
	d := c.Clone()
	d.SecureBits = uint32(v)
	d.KeepCaps = v&linux.SECBIT_KEEP_CAPS != 0
	return become(t, d, nil)
}

func prctlAmbient(t *kernel.Task, c *auth.Credentials, a arch.SyscallArgs) (uintptr, error) {
	op, cp := a[1].Uint64(), a[2].Uint64()
	if op == unix.PR_CAP_AMBIENT_CLEAR_ALL {
		if a[2]|a[3]|a[4] != 0 {
			return 0, unix.EINVAL
		}
		d := c.Clone()
		d.Ambient = 0
		return become(t, d, nil)
	}
	if a[3]|a[4] != 0 || cp > auth.LastCap {
		return 0, unix.EINVAL
	}
	switch op {
	case unix.PR_CAP_AMBIENT_IS_SET:
		return boolResult(c.Ambient.Has(int(cp))), nil
	case unix.PR_CAP_AMBIENT_RAISE:
		if !c.Permitted.Has(int(cp)) || !c.Inheritable.Has(int(cp)) || c.SecureBits&linux.SECBIT_NO_CAP_AMBIENT_RAISE != 0 {
			return 0, unix.EPERM
		}
		d := c.Clone()
		d.Ambient |= 1 << cp
		return become(t, d, nil)
	case unix.PR_CAP_AMBIENT_LOWER:
		d := c.Clone()
		d.Ambient &^= 1 << cp
		return become(t, d, nil)
	}
	return 0, unix.EINVAL
}

// prctlMisc are the options that do little here.
func prctlMisc(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	arg := a[1].Uint64()
	switch a[0].Int() {
	case unix.PR_GET_TIMERSLACK:
		return uintptr(t.TimerSlack()), nil
	case unix.PR_SET_TIMERSLACK:
		t.SetTimerSlack(arg)
		return 0, nil
	case unix.PR_GET_TSC:
		return 0, t.MM().WriteUint32(arg, unix.PR_TSC_ENABLE)
	case unix.PR_SET_TSC:
		if arg != unix.PR_TSC_ENABLE {
			return 0, unix.EINVAL
		}
		return 0, nil
	case unix.PR_GET_THP_DISABLE:
		if arg|uint64(a[2]|a[3]|a[4]) != 0 {
			return 0, unix.EINVAL
		}
		return boolResult(t.Group().THPDisabled()), nil
	case unix.PR_SET_THP_DISABLE:
		if a[2]|a[3]|a[4] != 0 {
			return 0, unix.EINVAL
		}
		t.Group().SetTHPDisabled(arg != 0)
		return 0, nil
	case unix.PR_MCE_KILL_GET:
		return unix.PR_MCE_KILL_DEFAULT, nil
	case unix.PR_MCE_KILL:
		return 0, nil
	case unix.PR_GET_TID_ADDRESS:
		return 0, t.MM().WriteUint64(arg, t.ClearTID())
	case unix.PR_GET_TIMING:
		return unix.PR_TIMING_STATISTICAL, nil
	case unix.PR_SET_TIMING:
		if arg != unix.PR_TIMING_STATISTICAL {
			return 0, unix.EINVAL
		}
		return 0, nil
	case unix.PR_SET_MM:
		return prctlMM(t, a)
	case unix.PR_SET_PTRACER:
		return 0, nil
	case unix.PR_SET_VMA:
		return 0, nil // names of anonymous memory are for display only
	case unix.PR_SET_IO_FLUSHER, unix.PR_GET_IO_FLUSHER:
		if !t.HasRootCap(unix.CAP_SYS_RESOURCE) {
			return 0, unix.EPERM
		}
		return 0, nil
	case unix.PR_GET_SPECULATION_CTRL, unix.PR_SET_SPECULATION_CTRL:
		return 0, unix.ENODEV
	case unix.PR_GET_MDWE:
		return 0, nil
	case unix.PR_GET_AUXV:
		b := t.MM().ProcInfo().Auxv
		n := min(a[2].Uint64(), uint64(len(b)))
		_, err := t.MM().CopyOut(arg, b[:n])
		return uintptr(len(b)), err
	}
	return 0, unix.EINVAL
}

// prctlMM is PR_SET_MM: the positions that /proc/PID shows.
func prctlMM(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if !t.HasRootCap(unix.CAP_SYS_RESOURCE) {
		return 0, unix.EPERM
	}
	m, v := t.MM(), a[2].Uint64()
	i := m.ProcInfo()
	switch a[1].Int() {
	case unix.PR_SET_MM_EXE_FILE:
		fd := t.FDTable().Get(int32(v))
		if fd == nil {
			return 0, unix.EBADF
		}
		defer fd.DecRef()
		t.Group().ReplaceExe(fd)
		return 0, nil
	case unix.PR_SET_MM_START_CODE:
		i.StartCode = v
	case unix.PR_SET_MM_END_CODE:
		i.EndCode = v
	case unix.PR_SET_MM_START_DATA:
		i.StartData = v
	case unix.PR_SET_MM_END_DATA:
		i.EndData = v
	case unix.PR_SET_MM_START_STACK:
		i.StartStack = v
	case unix.PR_SET_MM_ARG_START:
		i.ArgStart = v
	case unix.PR_SET_MM_ARG_END:
		i.ArgEnd = v
	case unix.PR_SET_MM_ENV_START:
		i.EnvStart = v
	case unix.PR_SET_MM_ENV_END:
		i.EnvEnd = v
	default:
		return 0, unix.EINVAL
	}
	if !m.CheckRange(v, 1) {
		return 0, unix.EINVAL
	}
	m.SetProcInfo(i)
	return 0, nil
}

func archPrctl(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	addr := a[1].Pointer()
	r := t.Regs()
	switch a[0].Int() {
	case linux.ARCH_SET_FS, linux.ARCH_SET_GS:
		if !t.MM().CheckRange(addr, 0) {
			return 0, unix.EPERM
		}
		if a[0].Int() == linux.ARCH_SET_FS {
			r.FsBase = addr
		} else {
			r.GsBase = addr
		}
		return 0, nil
	case linux.ARCH_GET_FS:
		return 0, t.MM().WriteUint64(addr, r.FsBase)
	case linux.ARCH_GET_GS:
		return 0, t.MM().WriteUint64(addr, r.GsBase)
	case linux.ARCH_GET_CPUID:
		return 1, nil
	case linux.ARCH_SET_CPUID:
		return 0, unix.ENODEV
	}
	return 0, unix.EINVAL
}

func personality(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	old := t.Personality()
	if p := a[0].Uint(); p != 0xffffffff {
		t.SetPersonality(p)
	}
	return uintptr(old), nil
}

// Operations of seccomp(2).
const (
	seccompSetStrict      = 0
	seccompSetFilter      = 1
	seccompGetAction      = 2
	seccompGetNotifSizes  = 3
	maxFilterInsns        = 4096
	sockFprogSize         = 16
	seccompFilterKnown    = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	seccompListenerUnsupp = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
)

func seccompCall(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	op, flags, arg := a[0].Uint(), a[1].Uint(), a[2].Pointer()
	switch op {
	case seccompSetStrict:
		if flags != 0 || arg != 0 {
			return 0, unix.EINVAL
		}
		return 0, t.SetSeccompStrict()
	case seccompSetFilter:
		return addFilter(t, arg, flags)
	case seccompGetAction:
		if flags != 0 {
			return 0, unix.EINVAL
		}
		act, err := t.MM().ReadUint32(arg)
		if err != nil {
			return 0, err
		}
		switch act {
		case unix.SECCOMP_RET_KILL_PROCESS, unix.SECCOMP_RET_KILL_THREAD, unix.SECCOMP_RET_TRAP, unix.SECCOMP_RET_ERRNO,
			unix.SECCOMP_RET_TRACE, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_ALLOW:
			return 0, nil
		}
		return 0, unix.EOPNOTSUPP
	}
	return 0, unix.EINVAL
}

// addFilter reads struct sock_fprog at addr and installs the filter.
func addFilter(t *kernel.Task, addr uint64, flags uint32) (uintptr, error) {
	if flags&^seccompFilterKnown != 0 {
		return 0, unix.EINVAL
	}
	var fprog struct {
		Len  uint16
		_    [6]byte
		Prog uint64
	}
	if _, err := t.MM().CopyIn(addr, bytesOf(&fprog)); err != nil {
		return 0, err
	}
	if fprog.Len == 0 || fprog.Len > maxFilterInsns {
		return 0, unix.EINVAL
	}
	prog := make([]seccomp.Insn, fprog.Len)
	for i := range prog {
		v, err := mm.Read[seccomp.Insn](t.MM(), fprog.Prog+uint64(i)*8)
		if err != nil {
			return 0, err
		}
		prog[i] = v
	}
	tid, err := t.AddSeccompFilter(prog, flags)
	if err == nil && tid != 0 && flags&unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH != 0 {
		return 0, unix.ESRCH
	}
	return result(tid, err)
}
