package container

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"husk/runsc/boot"
)

// GoferType is the file system type of mounts that the gofer serves.
const GoferType = "gofer"

// toContainer translates a checked configuration. The attach points that its mounts refer to are
// returned for the gofer. Descriptors are left for the caller to fill in.
func toContainer(id string, s *specs.Spec) (*boot.Container, []boot.Attach, error) {
	c := &boot.Container{
		ID:            id,
		Hostname:      s.Hostname,
		Domainname:    s.Domainname,
		MaskedPaths:   s.Linux.MaskedPaths,
		ReadonlyPaths: s.Linux.ReadonlyPaths,
		OverlayFile:   -1,
		Gofer:         -1,
		Lifeline:      -1,
	}
	if c.Hostname == "" {
		c.Hostname, _ = os.Hostname() // a new UTS namespace is a copy, uts_namespaces(7)
	}
	p, err := ToProcess(s.Process)
	if err != nil {
		return nil, nil, err
	}
	c.Process = *p
	root := boot.Mount{Destination: "/", Type: GoferType, Source: "rootfs", Attach: 0}
	if s.Root.Readonly {
		root.Flags |= unix.MS_RDONLY
	}
	if s.Linux.RootfsPropagation != "" {
		var ok bool
		if _, root.Propagation, ok = mountOption(s.Linux.RootfsPropagation); !ok || root.Propagation == 0 {
			return nil, nil, fmt.Errorf("rootfsPropagation=%v is not supported", s.Linux.RootfsPropagation)
		}
	}
	attach := []boot.Attach{{Path: s.Root.Path, Root: true, Recursive: true}}
	c.Mounts = append(c.Mounts, root)
	for i := range s.Mounts {
		m, a, err := toMount(&s.Mounts[i])
		if err != nil {
			return nil, nil, err
		}
		if a != nil {
			m.Attach = int32(len(attach))
			attach = append(attach, *a)
		}
		c.Mounts = append(c.Mounts, *m)
	}
	for _, d := range s.Linux.Devices {
		bd, err := toDevice(&d)
		if err != nil {
			return nil, nil, err
		}
		c.Devices = append(c.Devices, bd)
	}
	for k, v := range s.Linux.Sysctl {
		c.Sysctls = append(c.Sysctls, boot.KeyValue{Key: k, Value: v})
	}
	sort.Slice(c.Sysctls, func(i, j int) bool { return c.Sysctls[i].Key < c.Sysctls[j].Key })
	c.Limits = toLimits(s.Linux)
	c.Seccomp = toSeccomp(s.Linux.Seccomp)
	return c, attach, nil
}

func toLimits(l *specs.Linux) (out boot.Limits) {
	out.CgroupsPath = l.CgroupsPath
	r := l.Resources
	if r == nil {
		return out
	}
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0 {
		out.PIDs = *r.Pids.Limit
	}
	if r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 {
		out.Memory = *r.Memory.Limit
	}
	if c := r.CPU; c != nil {
		if c.Quota != nil && *c.Quota > 0 {
			out.CPUQuota = *c.Quota
		}
		if c.Period != nil {
			out.CPUPeriod = *c.Period
		}
		if c.Shares != nil {
			out.CPUShares = *c.Shares
		}
		out.CPUs, out.Mems = c.Cpus, c.Mems
	}
	return out
}

func toSeccomp(s *specs.LinuxSeccomp) *boot.Seccomp {
	if s == nil {
		return nil
	}
	out := &boot.Seccomp{DefaultAction: string(s.DefaultAction), DefaultErrno: uint32(unix.EPERM)}
	if s.DefaultErrnoRet != nil {
		out.DefaultErrno = uint32(*s.DefaultErrnoRet)
	}
	for _, a := range s.Architectures {
		out.Architectures = append(out.Architectures, string(a))
	}
	for _, f := range s.Flags {
		out.Flags = append(out.Flags, string(f))
	}
	for _, r := range s.Syscalls {
		rule := boot.SeccompRule{Names: r.Names, Action: string(r.Action), Errno: uint32(unix.EPERM)}
		if r.ErrnoRet != nil {
			rule.Errno = uint32(*r.ErrnoRet)
		}
		for _, a := range r.Args {
			rule.Args = append(rule.Args, boot.SeccompArg{Index: uint32(a.Index), Op: string(a.Op), Value: a.Value, ValueTwo: a.ValueTwo})
		}
		out.Rules = append(out.Rules, rule)
	}
	return out
}

func toDevice(d *specs.LinuxDevice) (boot.Device, error) {
	out := boot.Device{Path: filepath.Clean("/" + d.Path), Major: uint32(d.Major), Minor: uint32(d.Minor), Mode: 0o666}
	if d.FileMode != nil {
		out.Mode = uint32(d.FileMode.Perm())
	}
	switch d.Type {
	case "c", "u":
		out.Mode |= unix.S_IFCHR
	case "b":
		out.Mode |= unix.S_IFBLK
	case "p":
		out.Mode |= unix.S_IFIFO
	default:
		return out, fmt.Errorf("device %s: unknown type %q", d.Path, d.Type)
	}
	if d.UID != nil {
		out.UID = *d.UID
	}
	if d.GID != nil {
		out.GID = *d.GID
	}
	return out, nil
}

// ToProcess translates a checked process description; its descriptors are -1.
func ToProcess(p *specs.Process) (*boot.Process, error) {
	out := &boot.Process{
		Args: p.Args, Env: p.Env, Cwd: p.Cwd,
		UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids,
		Umask:      -1,
		NoNewPrivs: p.NoNewPrivileges,
		Terminal:   p.Terminal,
		Stdio:      [3]int{-1, -1, -1},
	}
	if p.User.Umask != nil {
		out.Umask = int32(*p.User.Umask & 0o777)
	}
	if p.OOMScoreAdj != nil {
		out.OOMScoreAdj = int32(*p.OOMScoreAdj)
	}
	if p.ConsoleSize != nil {
		if p.ConsoleSize.Height > 0xffff || p.ConsoleSize.Width > 0xffff {
			return nil, fmt.Errorf("consoleSize %dx%d is too large", p.ConsoleSize.Height, p.ConsoleSize.Width)
		}
		out.Rows, out.Cols = uint16(p.ConsoleSize.Height), uint16(p.ConsoleSize.Width)
	}
	for _, r := range p.Rlimits {
		n, ok := rlimitNumber(r.Type)
		if !ok {
			return nil, fmt.Errorf("invalid rlimit type: %s", r.Type)
		}
		out.Rlimits = append(out.Rlimits, boot.Rlimit{Resource: uint32(n), Soft: r.Soft, Hard: r.Hard})
	}
	if c := p.Capabilities; c != nil {
		out.Bounding, out.Effective, out.Inheritable = capMask(c.Bounding), capMask(c.Effective), capMask(c.Inheritable)
		out.Permitted, out.Ambient = capMask(c.Permitted), capMask(c.Ambient)
	}
	return out, nil
}

// toMount translates a mount; a is the tree of the host that it shows, nil for file systems of the sentry.
func toMount(m *specs.Mount) (out *boot.Mount, a *boot.Attach, err error) {
	out = &boot.Mount{Destination: m.Destination, Type: m.Type, Source: m.Source, Attach: -1}
	bind, recursive := m.Type == "bind", false
	var data []string
	for _, o := range m.Options {
		switch o {
		case "bind":
			bind = true
			continue
		case "rbind":
			bind, recursive = true, true
			continue
		}
		set, prop, ok := mountOption(o)
		switch {
		case !ok:
			data = append(data, o)
		case prop != 0:
			out.Propagation |= prop
		case set&clearFlag != 0:
			out.Flags &^= set &^ clearFlag
		default:
			out.Flags |= set
		}
	}
	out.Data = strings.Join(data, ",")
	if !bind {
		return out, nil, nil
	}
	if m.Source == "" {
		return nil, nil, fmt.Errorf("mount to %s has no source", m.Destination)
	}
	if !filepath.IsAbs(m.Source) {
		return nil, nil, fmt.Errorf("mount source %q to %s is not absolute", m.Source, m.Destination)
	}
	if _, err := os.Stat(m.Source); err != nil {
		return nil, nil, fmt.Errorf("mount source of %s: %w", m.Destination, err)
	}
	out.Type = GoferType
	return out, &boot.Attach{Path: m.Source, Recursive: recursive, ReadOnly: out.Flags&unix.MS_RDONLY != 0}, nil
}

// clearFlag marks options that clear a flag.
const clearFlag = 1 << 40

// mountOption translates an option of fstab style, mount(8): flags to set (or to clear, with
// clearFlag), or a propagation type. Options of the file system are not ok.
func mountOption(o string) (flags, propagation uint64, ok bool) {
	switch o {
	case "defaults", "auto", "noauto", "user", "async", "loud", "silent", "rw":
		if o == "rw" {
			return unix.MS_RDONLY | clearFlag, 0, true
		}
		return 0, 0, true
	case "ro", "rro":
		return unix.MS_RDONLY, 0, true
	case "suid", "rsuid":
		return unix.MS_NOSUID | clearFlag, 0, true
	case "nosuid", "rnosuid":
		return unix.MS_NOSUID, 0, true
	case "dev", "rdev":
		return unix.MS_NODEV | clearFlag, 0, true
	case "nodev", "rnodev":
		return unix.MS_NODEV, 0, true
	case "exec", "rexec":
		return unix.MS_NOEXEC | clearFlag, 0, true
	case "noexec", "rnoexec":
		return unix.MS_NOEXEC, 0, true
	case "sync":
		return unix.MS_SYNCHRONOUS, 0, true
	case "dirsync":
		return unix.MS_DIRSYNC, 0, true
	case "atime", "ratime":
		return unix.MS_NOATIME | clearFlag, 0, true
	case "noatime", "rnoatime":
		return unix.MS_NOATIME, 0, true
	case "diratime", "rdiratime":
		return unix.MS_NODIRATIME | clearFlag, 0, true
	case "nodiratime", "rnodiratime":
		return unix.MS_NODIRATIME, 0, true
	case "relatime", "rrelatime":
		return unix.MS_RELATIME, 0, true
	case "norelatime", "rnorelatime":
		return unix.MS_RELATIME | clearFlag, 0, true
	case "strictatime", "rstrictatime":
		return unix.MS_STRICTATIME, 0, true
	case "nostrictatime", "rnostrictatime":
		return unix.MS_STRICTATIME | clearFlag, 0, true
	case "mand", "nomand", "iversion", "noiversion", "lazytime", "nolazytime", "acl", "noacl", "rrw":
		return 0, 0, true // without effect in the sentry
	case "nosymfollow", "rnosymfollow":
		return unix.MS_NOSYMFOLLOW, 0, true
	case "symfollow", "rsymfollow":
		return unix.MS_NOSYMFOLLOW | clearFlag, 0, true
	case "private":
		return 0, unix.MS_PRIVATE, true
	case "rprivate":
		return 0, unix.MS_PRIVATE | unix.MS_REC, true
	case "shared":
		return 0, unix.MS_SHARED, true
	case "rshared":
		return 0, unix.MS_SHARED | unix.MS_REC, true
	case "slave":
		return 0, unix.MS_SLAVE, true
	case "rslave":
		return 0, unix.MS_SLAVE | unix.MS_REC, true
	case "unbindable":
		return 0, unix.MS_UNBINDABLE, true
	case "runbindable":
		return 0, unix.MS_UNBINDABLE | unix.MS_REC, true
	}
	return 0, 0, false
}

// capNames are the capabilities by number, capabilities(7).
func capNames() []string {
	return []string{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
		"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK",
		"IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT",
		"SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL",
		"SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON",
		"BPF", "CHECKPOINT_RESTORE"}
}

// CapNumber is the number of a capability, with or without the CAP_ prefix; -1 if there is none of the name.
func CapNumber(name string) int {
	name = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	for i, n := range capNames() {
		if n == name {
			return i
		}
	}
	return -1
}

// capMask makes a set of names; as runc does, it leaves out those that it does not know.
func capMask(names []string) (mask uint64) {
	for _, n := range names {
		if i := CapNumber(n); i >= 0 {
			mask |= 1 << i
		}
	}
	return mask
}

// rlimitNumber is the number of a resource of setrlimit(2).
func rlimitNumber(name string) (int, bool) {
	for i, n := range []string{"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"} {
		if name == "RLIMIT_"+n {
			return i, true
		}
	}
	return 0, false
}

// idMappings translates user namespace mappings.
func idMappings(m []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, x := range m {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(x.ContainerID), HostID: int(x.HostID), Size: int(x.Size)})
	}
	return out
}

// CapName is the name of a capability, "" beyond the last one.
func CapName(n int) string {
	if names := capNames(); n >= 0 && n < len(names) {
		return "CAP_" + names[n]
	}
	return ""
}

// MountOptions are the options of fstab style that mounts understand whatever their type.
func MountOptions() []string {
	all := strings.Fields(`acl async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noacl
		noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private
		ratime rbind rdev rdiratime relatime rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid
		rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared
		silent slave strictatime suid symfollow sync unbindable`)
	return all
}
