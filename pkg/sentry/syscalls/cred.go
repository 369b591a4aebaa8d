package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

// credEntries are the calls of credentials(7) and capabilities(7).
func credEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_GETUID, Name: "getuid", Handler: getuid},
		{Number: unix.SYS_GETEUID, Name: "geteuid", Handler: geteuid},
		{Number: unix.SYS_GETGID, Name: "getgid", Handler: getgid},
		{Number: unix.SYS_GETEGID, Name: "getegid", Handler: getegid},
		{Number: unix.SYS_GETRESUID, Name: "getresuid", Handler: getresuid, Args: "outint outint outint"},
		{Number: unix.SYS_GETRESGID, Name: "getresgid", Handler: getresgid, Args: "outint outint outint"},
		{Number: unix.SYS_SETUID, Name: "setuid", Handler: setuid, Args: "int"},
		{Number: unix.SYS_SETGID, Name: "setgid", Handler: setgid, Args: "int"},
		{Number: unix.SYS_SETREUID, Name: "setreuid", Handler: setreuid, Args: "int int"},
		{Number: unix.SYS_SETREGID, Name: "setregid", Handler: setregid, Args: "int int"},
		{Number: unix.SYS_SETRESUID, Name: "setresuid", Handler: setresuid, Args: "int int int"},
		{Number: unix.SYS_SETRESGID, Name: "setresgid", Handler: setresgid, Args: "int int int"},
		{Number: unix.SYS_SETFSUID, Name: "setfsuid", Handler: setfsuid, Args: "int"},
		{Number: unix.SYS_SETFSGID, Name: "setfsgid", Handler: setfsgid, Args: "int"},
		{Number: unix.SYS_GETGROUPS, Name: "getgroups", Handler: getgroups, Args: "int ptr"},
		{Number: unix.SYS_SETGROUPS, Name: "setgroups", Handler: setgroups, Args: "int ptr"},
		{Number: unix.SYS_CAPGET, Name: "capget", Handler: capget, Args: "ptr ptr"},
		{Number: unix.SYS_CAPSET, Name: "capset", Handler: capset, Args: "ptr ptr"},
	}
}

func uidOf(t *kernel.Task, k auth.KUID) uintptr {
	u, _ := t.UserNS().UID(k)
	return uintptr(u)
}

func gidOf(t *kernel.Task, k auth.KGID) uintptr {
	g, _ := t.UserNS().GID(k)
	return uintptr(g)
}

func getuid(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) {
	return uidOf(t, t.Credentials().RUID), nil
}
func geteuid(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) {
	return uidOf(t, t.Credentials().EUID), nil
}
func getgid(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) {
	return gidOf(t, t.Credentials().RGID), nil
}
func getegid(t *kernel.Task, _ arch.SyscallArgs) (uintptr, error) {
	return gidOf(t, t.Credentials().EGID), nil
}

// writeIDs stores three IDs at the addresses of a.
func writeIDs(t *kernel.Task, a arch.SyscallArgs, ids [3]uintptr) (uintptr, error) {
	for i, id := range ids {
		if err := t.MM().WriteUint32(a[i].Pointer(), uint32(id)); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func getresuid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	c := t.Credentials()
	return writeIDs(t, a, [3]uintptr{uidOf(t, c.RUID), uidOf(t, c.EUID), uidOf(t, c.SUID)})
}

func getresgid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	c := t.Credentials()
	return writeIDs(t, a, [3]uintptr{gidOf(t, c.RGID), gidOf(t, c.EGID), gidOf(t, c.SGID)})
}

// become publishes new credentials unless err says that there are none.
func become(t *kernel.Task, c *auth.Credentials, err error) (uintptr, error) {
	if err == nil {
		t.SetCredentials(c)
	}
	return 0, err
}

func setuid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	c, err := t.Credentials().WithUID(a[0].Uint())
	return become(t, c, err)
}

func setgid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	c, err := t.Credentials().WithGID(a[0].Uint())
	return become(t, c, err)
}

func setreuid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	c, err := t.Credentials().WithREUID(a[0].Uint(), a[1].Uint())
	return become(t, c, err)
}

func setregid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	c, err := t.Credentials().WithREGID(a[0].Uint(), a[1].Uint())
	return become(t, c, err)
}

func setresuid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	c, err := t.Credentials().WithRESUID(a[0].Uint(), a[1].Uint(), a[2].Uint())
	return become(t, c, err)
}

func setresgid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	c, err := t.Credentials().WithRESGID(a[0].Uint(), a[1].Uint(), a[2].Uint())
	return become(t, c, err)
}

func setfsuid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	old := t.Credentials()
	if c := old.WithFSUID(a[0].Uint()); c != old {
		t.SetCredentials(c)
	}
	return uidOf(t, old.FSUID), nil
}

func setfsgid(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	old := t.Credentials()
	if c := old.WithFSGID(a[0].Uint()); c != old {
		t.SetCredentials(c)
	}
	return gidOf(t, old.FSGID), nil
}

// maxGroups is NGROUPS_MAX.
const maxGroups = 65536

func getgroups(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	n, g := a[0].Int(), t.Credentials().Groups
	if n < 0 {
		return 0, unix.EINVAL
	}
	if n == 0 {
		return uintptr(len(g)), nil
	}
	if len(g) > int(n) {
		return 0, unix.EINVAL
	}
	for i, k := range g {
		if err := t.MM().WriteUint32(a[1].Pointer()+uint64(i)*4, uint32(gidOf(t, k))); err != nil {
			return 0, err
		}
	}
	return uintptr(len(g)), nil
}

func setgroups(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	n := a[0].Uint()
	c := t.Credentials()
	if !c.HasCap(unix.CAP_SETGID) || !c.UserNS.MaySetgroups() {
		return 0, unix.EPERM
	}
	if n > maxGroups {
		return 0, unix.EINVAL
	}
	g := make([]auth.KGID, n)
	for i := range g {
		v, err := t.MM().ReadUint32(a[1].Pointer() + uint64(i)*4)
		if err != nil {
			return 0, err
		}
		k, ok := c.UserNS.KGID(auth.GID(v))
		if !ok {
			return 0, unix.EINVAL
		}
		g[i] = k
	}
	d := c.Clone()
	d.Groups = g
	return become(t, d, nil)
}

// Versions of struct __user_cap_header_struct.
const (
	capVersion1 = 0x19980330
	capVersion2 = 0x20071026
	capVersion3 = 0x20080522
)

// capHeader reads the header: the number of data elements and the pid. An unknown version is answered with the newest and EINVAL.
func capHeader(t *kernel.Task, addr uint64) (elems int, pid int32, err error) {
	h, err := mm.Read[unix.CapUserHeader](t.MM(), addr)
	if err != nil {
		return 0, 0, err
	}
	switch h.Version {
	case capVersion1:
		return 1, h.Pid, nil
	case capVersion2, capVersion3:
		return 2, h.Pid, nil
	}
	if err := t.MM().WriteUint32(addr, capVersion3); err != nil {
		return 0, 0, err
	}
	return 0, h.Pid, unix.EINVAL
}

func capget(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	n, pid, err := capHeader(t, a[0].Pointer())
	at := a[1].Pointer()
	if err != nil {
		if err == unix.EINVAL && at == 0 {
			return 0, nil // a probe for the version
		}
		return 0, err
	}
	if pid < 0 {
		return 0, unix.EINVAL
	}
	o := t
	if pid != 0 {
		if o = t.PIDNS().TaskByTID(pid); o == nil {
			return 0, unix.ESRCH
		}
	}
	if at == 0 {
		return 0, nil
	}
	c := o.Credentials()
	for i := 0; i < n; i++ {
		sh := uint(32 * i)
		d := unix.CapUserData{Effective: uint32(c.Effective >> sh), Permitted: uint32(c.Permitted >> sh), Inheritable: uint32(c.Inheritable >> sh)}
		if err := mm.Write(t.MM(), at+uint64(i)*12, &d); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func capset(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	n, pid, err := capHeader(t, a[0].Pointer())
	if err != nil {
		return 0, err
	}
	if pid != 0 && pid != t.TID() {
		return 0, unix.EPERM
	}
	var e, p, in auth.CapSet
	for i := 0; i < n; i++ {
		d, err := mm.Read[unix.CapUserData](t.MM(), a[1].Pointer()+uint64(i)*12)
		if err != nil {
			return 0, err
		}
		sh := uint(32 * i)
		e |= auth.CapSet(d.Effective) << sh
		p |= auth.CapSet(d.Permitted) << sh
		in |= auth.CapSet(d.Inheritable) << sh
	}
	c, err := t.Credentials().WithCaps(e, p, in)
	return become(t, c, err)
}
