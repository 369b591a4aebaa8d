package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// systemEntries are uname(2), sysinfo(2), getrandom(2) and what concerns the machine as a whole.
func systemEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_UNAME, Name: "uname", Handler: uname, Args: "ptr"},
		{Number: unix.SYS_SETHOSTNAME, Name: "sethostname", Handler: sethostname, Args: "path int"},
		{Number: unix.SYS_SETDOMAINNAME, Name: "setdomainname", Handler: setdomainname, Args: "path int"},
		{Number: unix.SYS_SYSINFO, Name: "sysinfo", Handler: sysinfo, Args: "ptr"},
		{Number: unix.SYS_GETRANDOM, Name: "getrandom", Handler: getrandom, Args: "ptr int hex"},
		{Number: unix.SYS_SYSLOG, Name: "syslog", Handler: syslog, Support: Partial, Note: "a fixed start-up log", Args: "int ptr int"},
	}
}

// What uname(2) shows: a release that current C libraries accept.
const (
	utsSysname = "Linux"
	utsRelease = kernel.Release
	utsVersion = kernel.Version
	utsMachine = "x86_64"
	utsMax     = 64 // longest name
)

func uname(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	ns := t.UTSNamespace()
	var u unix.Utsname
	copy(u.Sysname[:], utsSysname)
	copy(u.Nodename[:utsMax], ns.HostName())
	copy(u.Release[:], utsRelease)
	copy(u.Version[:], utsVersion)
	copy(u.Machine[:], utsMachine)
	copy(u.Domainname[:utsMax], ns.DomainName())
	return 0, mm.Write(t.MM(), a[0].Pointer(), &u)
}

// Release is what uname(2) shows as the kernel's release and version (/proc/version).
func Release() (release, version string) { return utsRelease, utsVersion }

// utsArg reads a name of sethostname(2): EPERM, EINVAL, EFAULT.
func utsArg(t *kernel.Task, a arch.SyscallArgs) (string, error) {
	if !t.HasCapIn(unix.CAP_SYS_ADMIN, t.UTSNamespace().UserNS()) {
		return "", unix.EPERM
	}
	n := a[1].Int()
	if n < 0 || n > utsMax {
		return "", unix.EINVAL
	}
	b := make([]byte, n)
	if _, err := t.MM().CopyIn(a[0].Pointer(), b); err != nil {
		return "", err
	}
	for i, x := range b {
		if x == 0 {
			b = b[:i]
			break
		}
	}
	return string(b), nil
}

func sethostname(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, err := utsArg(t, a)
	if err == nil {
		t.UTSNamespace().SetHostName(s)
	}
	return 0, err
}

func setdomainname(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, err := utsArg(t, a)
	if err == nil {
		t.UTSNamespace().SetDomainName(s)
	}
	return 0, err
}

func sysinfo(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	k := t.Kernel()
	total, free := k.Memory()
	s := unix.Sysinfo_t{
		Uptime: k.Uptime() / 1e9, Totalram: total, Freeram: free,
		Procs: uint16(min(k.TaskCount(), 65535)), Unit: 1,
	}
	for i, l := range k.LoadAverage() {
		s.Loads[i] = uint64(l * 65536)
	}
	return 0, mm.Write(t.MM(), a[0].Pointer(), &s)
}

func getrandom(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := a[2].Uint()
	if flags&^(unix.GRND_NONBLOCK|unix.GRND_RANDOM|unix.GRND_INSECURE) != 0 ||
		flags&(unix.GRND_INSECURE|unix.GRND_RANDOM) == unix.GRND_INSECURE|unix.GRND_RANDOM {
		return 0, unix.EINVAL
	}
	n := min(a[1].Uint64(), 1<<31-1-arch.PageSize)
	addr := a[0].Pointer()
	var buf [256]byte
	done := uint64(0)
	for done < n {
		b := buf[:min(n-done, uint64(len(buf)))]
		kernel.Random(b)
		k, err := t.MM().CopyOut(addr+done, b)
		done += uint64(k)
		if err != nil {
			if done == 0 {
				return 0, err
			}
			break
		}
		if done&0xffff == 0 && t.Interrupted() {
			break
		}
	}
	return uintptr(done), nil
}

// kernelLog is what dmesg(1) shows.
const kernelLog = "<6>[    0.000000] Linux version " + utsRelease + " (husk) " + utsVersion + "\n"

// Commands of syslog(2).
const (
	syslogRead       = 2
	syslogReadAll    = 3
	syslogReadClear  = 4
	syslogUnread     = 9
	syslogBufferSize = 10
)

func syslog(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	cmd := a[0].Int()
	if cmd < 0 || cmd > syslogBufferSize {
		return 0, unix.EINVAL
	}
	if cmd != syslogReadAll && cmd != syslogBufferSize && !t.HasCap(unix.CAP_SYSLOG) && !t.HasCap(unix.CAP_SYS_ADMIN) {
		return 0, unix.EPERM
	}
	switch cmd {
	case syslogReadAll, syslogReadClear:
		n := a[2].Int()
		if n < 0 || a[1].Pointer() == 0 {
			return 0, unix.EINVAL
		}
		b := []byte(kernelLog)
		if len(b) > int(n) {
			b = b[len(b)-int(n):]
		}
		_, err := t.MM().CopyOut(a[1].Pointer(), b)
		return uintptr(len(b)), err
	case syslogRead:
		err := t.Block(t.Waker().C, vfs.NoDeadline)
		for err == nil {
			err = t.Block(t.Waker().C, vfs.NoDeadline)
		}
		return 0, err
	case syslogUnread:
		return 0, nil
	case syslogBufferSize:
		return 1 << 17, nil
	}
	return 0, nil
}
