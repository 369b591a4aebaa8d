package spec

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Config lists the fields of a configuration that concern Linux.
func Config(c *JSON, s *specs.Spec) {
	Str(c, "ociVersion", &s.Version)
	Ptr(c, "process", &s.Process, Process)
	Ptr(c, "root", &s.Root, func(c *JSON, r *specs.Root) {
		Str(c, "path", &r.Path)
		Bool(c, "readonly", &r.Readonly)
	})
	Str(c, "hostname", &s.Hostname)
	Str(c, "domainname", &s.Domainname)
	Objs(c, "mounts", &s.Mounts, mount)
	Ptr(c, "hooks", &s.Hooks, Hooks)
	Map(c, "annotations", &s.Annotations)
	Ptr(c, "linux", &s.Linux, linux)
}

// Process lists the fields of a process description.
func Process(c *JSON, p *specs.Process) {
	Bool(c, "terminal", &p.Terminal)
	Ptr(c, "consoleSize", &p.ConsoleSize, func(c *JSON, b *specs.Box) {
		Int(c, "height", &b.Height)
		Int(c, "width", &b.Width)
	})
	Obj(c, "user", &p.User, user)
	Strs(c, "args", &p.Args)
	Strs(c, "env", &p.Env)
	Str(c, "cwd", &p.Cwd)
	Ptr(c, "capabilities", &p.Capabilities, func(c *JSON, k *specs.LinuxCapabilities) {
		Strs(c, "bounding", &k.Bounding)
		Strs(c, "effective", &k.Effective)
		Strs(c, "inheritable", &k.Inheritable)
		Strs(c, "permitted", &k.Permitted)
		Strs(c, "ambient", &k.Ambient)
	})
	Objs(c, "rlimits", &p.Rlimits, func(c *JSON, r *specs.POSIXRlimit) {
		Str(c, "type", &r.Type)
		Int(c, "hard", &r.Hard)
		Int(c, "soft", &r.Soft)
	})
	Bool(c, "noNewPrivileges", &p.NoNewPrivileges)
	Str(c, "apparmorProfile", &p.ApparmorProfile)
	Opt(c, "oomScoreAdj", &p.OOMScoreAdj, integer)
	Str(c, "selinuxLabel", &p.SelinuxLabel)
}

func user(c *JSON, u *specs.User) {
	Int(c, "uid", &u.UID)
	Int(c, "gid", &u.GID)
	Opt(c, "umask", &u.Umask, integer)
	if c.field("additionalGids", len(u.AdditionalGids) == 0) {
		list(c, &u.AdditionalGids, integer[uint32])
	}
	Str(c, "username", &u.Username)
}

// Hooks lists the fields of the hooks.
func Hooks(c *JSON, h *specs.Hooks) {
	Objs(c, "prestart", &h.Prestart, hook)
	Objs(c, "createRuntime", &h.CreateRuntime, hook)
	Objs(c, "createContainer", &h.CreateContainer, hook)
	Objs(c, "startContainer", &h.StartContainer, hook)
	Objs(c, "poststart", &h.Poststart, hook)
	Objs(c, "poststop", &h.Poststop, hook)
}

func hook(c *JSON, h *specs.Hook) {
	Str(c, "path", &h.Path)
	Strs(c, "args", &h.Args)
	Strs(c, "env", &h.Env)
	Opt(c, "timeout", &h.Timeout, integer)
}

func mount(c *JSON, m *specs.Mount) {
	Str(c, "destination", &m.Destination)
	Str(c, "type", &m.Type)
	Str(c, "source", &m.Source)
	Strs(c, "options", &m.Options)
	Objs(c, "uidMappings", &m.UIDMappings, mapping)
	Objs(c, "gidMappings", &m.GIDMappings, mapping)
}

func mapping(c *JSON, m *specs.LinuxIDMapping) {
	Int(c, "containerID", &m.ContainerID)
	Int(c, "hostID", &m.HostID)
	Int(c, "size", &m.Size)
}

func linux(c *JSON, l *specs.Linux) {
	Objs(c, "uidMappings", &l.UIDMappings, mapping)
	Objs(c, "gidMappings", &l.GIDMappings, mapping)
	Map(c, "sysctl", &l.Sysctl)
	Ptr(c, "resources", &l.Resources, Resources)
	Str(c, "cgroupsPath", &l.CgroupsPath)
	Objs(c, "namespaces", &l.Namespaces, func(c *JSON, n *specs.LinuxNamespace) {
		Str(c, "type", &n.Type)
		Str(c, "path", &n.Path)
	})
	Objs(c, "devices", &l.Devices, func(c *JSON, d *specs.LinuxDevice) {
		Str(c, "path", &d.Path)
		Str(c, "type", &d.Type)
		Int(c, "major", &d.Major)
		Int(c, "minor", &d.Minor)
		Opt(c, "fileMode", &d.FileMode, integer[os.FileMode])
		Opt(c, "uid", &d.UID, integer)
		Opt(c, "gid", &d.GID, integer)
	})
	Ptr(c, "seccomp", &l.Seccomp, seccomp)
	Str(c, "rootfsPropagation", &l.RootfsPropagation)
	Strs(c, "maskedPaths", &l.MaskedPaths)
	Strs(c, "readonlyPaths", &l.ReadonlyPaths)
	Str(c, "mountLabel", &l.MountLabel)
}

func seccomp(c *JSON, s *specs.LinuxSeccomp) {
	Str(c, "defaultAction", &s.DefaultAction)
	Opt(c, "defaultErrnoRet", &s.DefaultErrnoRet, integer)
	Strs(c, "architectures", &s.Architectures)
	Strs(c, "flags", &s.Flags)
	Str(c, "listenerPath", &s.ListenerPath)
	Str(c, "listenerMetadata", &s.ListenerMetadata)
	Objs(c, "syscalls", &s.Syscalls, func(c *JSON, r *specs.LinuxSyscall) {
		Strs(c, "names", &r.Names)
		Str(c, "action", &r.Action)
		Opt(c, "errnoRet", &r.ErrnoRet, integer)
		Objs(c, "args", &r.Args, func(c *JSON, a *specs.LinuxSeccompArg) {
			Int(c, "index", &a.Index)
			Int(c, "value", &a.Value)
			Int(c, "valueTwo", &a.ValueTwo)
			Str(c, "op", &a.Op)
		})
	})
}

// Resources lists the fields of the resource limits that a container of ours can have.
func Resources(c *JSON, r *specs.LinuxResources) {
	Objs(c, "devices", &r.Devices, func(c *JSON, d *specs.LinuxDeviceCgroup) {
		Bool(c, "allow", &d.Allow)
		Str(c, "type", &d.Type)
		Opt(c, "major", &d.Major, integer)
		Opt(c, "minor", &d.Minor, integer)
		Str(c, "access", &d.Access)
	})
	Ptr(c, "memory", &r.Memory, func(c *JSON, m *specs.LinuxMemory) {
		Opt(c, "limit", &m.Limit, integer)
		Opt(c, "reservation", &m.Reservation, integer)
		Opt(c, "swap", &m.Swap, integer)
		Opt(c, "kernel", &m.Kernel, integer)
		Opt(c, "kernelTCP", &m.KernelTCP, integer)
		Opt(c, "swappiness", &m.Swappiness, integer)
		Opt(c, "disableOOMKiller", &m.DisableOOMKiller, boolean)
		Opt(c, "useHierarchy", &m.UseHierarchy, boolean)
		Opt(c, "checkBeforeUpdate", &m.CheckBeforeUpdate, boolean)
	})
	Ptr(c, "cpu", &r.CPU, func(c *JSON, u *specs.LinuxCPU) {
		Opt(c, "shares", &u.Shares, integer)
		Opt(c, "quota", &u.Quota, integer)
		Opt(c, "burst", &u.Burst, integer)
		Opt(c, "period", &u.Period, integer)
		Opt(c, "realtimeRuntime", &u.RealtimeRuntime, integer)
		Opt(c, "realtimePeriod", &u.RealtimePeriod, integer)
		Str(c, "cpus", &u.Cpus)
		Str(c, "mems", &u.Mems)
		Opt(c, "idle", &u.Idle, integer)
	})
	Ptr(c, "pids", &r.Pids, func(c *JSON, p *specs.LinuxPids) { Opt(c, "limit", &p.Limit, integer) })
	Ptr(c, "blockIO", &r.BlockIO, blockIO)
	Map(c, "unified", &r.Unified)
}

func blockIO(c *JSON, b *specs.LinuxBlockIO) {
	throttle := func(c *JSON, d *specs.LinuxThrottleDevice) {
		Int(c, "major", &d.Major)
		Int(c, "minor", &d.Minor)
		Int(c, "rate", &d.Rate)
	}
	Opt(c, "weight", &b.Weight, integer)
	Objs(c, "throttleReadBpsDevice", &b.ThrottleReadBpsDevice, throttle)
	Objs(c, "throttleWriteBpsDevice", &b.ThrottleWriteBpsDevice, throttle)
	Objs(c, "throttleReadIOPSDevice", &b.ThrottleReadIOPSDevice, throttle)
	Objs(c, "throttleWriteIOPSDevice", &b.ThrottleWriteIOPSDevice, throttle)
}

// State lists the fields of the state that hooks get.
func State(c *JSON, s *specs.State) {
	Str(c, "ociVersion", &s.Version)
	Str(c, "id", &s.ID)
	Str(c, "status", &s.Status)
	Int(c, "pid", &s.Pid)
	Str(c, "bundle", &s.Bundle)
	Map(c, "annotations", &s.Annotations)
}
