package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

func fileAttrEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_CHMOD, Name: "chmod", Handler: sysChmod, Args: "path oct"},
		{Number: unix.SYS_FCHMOD, Name: "fchmod", Handler: sysFchmod, Args: "fd oct"},
		{Number: unix.SYS_FCHMODAT, Name: "fchmodat", Handler: sysFchmodat, Args: "dirfd path oct"},
		{Number: unix.SYS_FCHMODAT2, Name: "fchmodat2", Handler: sysFchmodat2, Args: "dirfd path oct atflags"},
		{Number: unix.SYS_CHOWN, Name: "chown", Handler: sysChown, Args: "path int int"},
		{Number: unix.SYS_LCHOWN, Name: "lchown", Handler: sysLchown, Args: "path int int"},
		{Number: unix.SYS_FCHOWN, Name: "fchown", Handler: sysFchown, Args: "fd int int"},
		{Number: unix.SYS_FCHOWNAT, Name: "fchownat", Handler: sysFchownat, Args: "dirfd path int int atflags"},
		{Number: unix.SYS_UTIME, Name: "utime", Handler: sysUtime, Args: "path ptr"},
		{Number: unix.SYS_UTIMES, Name: "utimes", Handler: sysUtimes, Args: "path ptr"},
		{Number: unix.SYS_FUTIMESAT, Name: "futimesat", Handler: sysFutimesat, Args: "dirfd path ptr"},
		{Number: unix.SYS_UTIMENSAT, Name: "utimensat", Handler: sysUtimensat, Args: "dirfd path ptr atflags"},
		{Number: unix.SYS_TRUNCATE, Name: "truncate", Handler: sysTruncate, Args: "path int64"},
		{Number: unix.SYS_FTRUNCATE, Name: "ftruncate", Handler: sysFtruncate, Args: "fd int64"},
	}
}

// setStatAt changes attributes by path.
func setStatAt(t *kernel.Task, dirfd, path arch.SyscallArg, at uint32, s *vfs.SetStat) (uintptr, error) {
	p, err := copyPathAt(t, dirfd, path)
	if err != nil {
		return 0, err
	}
	defer p.done(t)
	return 0, t.Kernel().VFS().SetStat(t, p.place.path, p.s, followFlags(at), s)
}

// setStatFD changes attributes by descriptor.
func setStatFD(t *kernel.Task, n arch.SyscallArg, s *vfs.SetStat) (uintptr, error) {
	fd, err := getFD(t, n)
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	return 0, fd.SetStat(t, s)
}

func sysChmod(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return setStatAt(t, atCWD, a[0], 0, &vfs.SetStat{Mask: vfs.SetMode, Mode: a[1].Uint() & 07777})
}

func sysFchmod(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return setStatFD(t, a[0], &vfs.SetStat{Mask: vfs.SetMode, Mode: a[1].Uint() & 07777})
}

func sysFchmodat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return setStatAt(t, a[0], a[1], 0, &vfs.SetStat{Mask: vfs.SetMode, Mode: a[2].Uint() & 07777})
}

func sysFchmodat2(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	at := a[3].Uint()
	if at&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	p, err := copyPathAt(t, a[0], a[1])
	if err != nil {
		return 0, err
	}
	defer p.done(t)
	v := t.Kernel().VFS()
	place, err := v.Walk(t, p.place.path, p.s, followFlags(at))
	if err != nil {
		return 0, err
	}
	defer place.DecRef()
	if place.Inode().Type() == unix.S_IFLNK {
		return 0, unix.EOPNOTSUPP // symlinks have no modes
	}
	return 0, v.SetStatPath(t, place, &vfs.SetStat{Mask: vfs.SetMode, Mode: a[2].Uint() & 07777})
}

// owners makes the change of a chown; -1 leaves an ID as it is. EINVAL for an ID without mapping.
func owners(t *kernel.Task, uid, gid arch.SyscallArg) (*vfs.SetStat, error) {
	s := &vfs.SetStat{}
	ns := t.UserNS()
	if u := uid.Uint(); u != ^uint32(0) {
		k, ok := ns.KUID(auth.UID(u))
		if !ok {
			return nil, unix.EINVAL
		}
		s.Mask |= vfs.SetUID
		s.UID = k
	}
	if g := gid.Uint(); g != ^uint32(0) {
		k, ok := ns.KGID(auth.GID(g))
		if !ok {
			return nil, unix.EINVAL
		}
		s.Mask |= vfs.SetGID
		s.GID = k
	}
	return s, nil
}

func chownAt(t *kernel.Task, dirfd, path, uid, gid arch.SyscallArg, at uint32) (uintptr, error) {
	s, err := owners(t, uid, gid)
	if err != nil {
		return 0, err
	}
	return setStatAt(t, dirfd, path, at, s)
}

func sysChown(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return chownAt(t, atCWD, a[0], a[1], a[2], 0)
}

func sysLchown(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return chownAt(t, atCWD, a[0], a[1], a[2], unix.AT_SYMLINK_NOFOLLOW)
}

func sysFchown(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, err := owners(t, a[1], a[2])
	if err != nil {
		return 0, err
	}
	return setStatFD(t, a[0], s)
}

func sysFchownat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	at := a[4].Uint()
	if at&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	return chownAt(t, a[0], a[1], a[2], a[3], at)
}

// nowTimes sets both times to now.
func nowTimes() *vfs.SetStat { return &vfs.SetStat{Mask: vfs.SetAtimeNow | vfs.SetMtimeNow} }

// satTime is a time in nanoseconds, saturating at what int64 holds.
func satTime(sec, nsec int64) int64 {
	const maxSec = (1<<63-1)/int64(1e9) - 1
	return min(max(sec, -maxSec), maxSec)*1e9 + nsec
}

func fixedTimes(atime, mtime int64) *vfs.SetStat {
	return &vfs.SetStat{Mask: vfs.SetAtime | vfs.SetMtime, Atime: atime, Mtime: mtime}
}

func sysUtime(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s := nowTimes()
	if a[1] != 0 {
		b, err := mm.Read[[2]int64](t.MM(), a[1].Pointer())
		if err != nil {
			return 0, err
		}
		s = fixedTimes(satTime(b[0], 0), satTime(b[1], 0))
	}
	return setStatAt(t, atCWD, a[0], 0, s)
}

// timevals reads two struct timeval. EINVAL.
func timevals(t *kernel.Task, addr arch.SyscallArg) (*vfs.SetStat, error) {
	if addr == 0 {
		return nowTimes(), nil
	}
	b, err := mm.Read[[2]unix.Timeval](t.MM(), addr.Pointer())
	if err != nil {
		return nil, err
	}
	for _, x := range b {
		if x.Usec < 0 || x.Usec >= 1e6 {
			return nil, unix.EINVAL
		}
	}
	return fixedTimes(satTime(b[0].Sec, b[0].Usec*1000), satTime(b[1].Sec, b[1].Usec*1000)), nil
}

func sysUtimes(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, err := timevals(t, a[1])
	if err != nil {
		return 0, err
	}
	return setStatAt(t, atCWD, a[0], 0, s)
}

func sysFutimesat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, err := timevals(t, a[2])
	if err != nil {
		return 0, err
	}
	if a[1] == 0 {
		return setStatFD(t, a[0], s)
	}
	return setStatAt(t, a[0], a[1], 0, s)
}

// timespecs reads two struct timespec of utimensat(2).
func timespecs(t *kernel.Task, addr arch.SyscallArg) (*vfs.SetStat, error) {
	if addr == 0 {
		return nowTimes(), nil
	}
	b, err := mm.Read[[2]unix.Timespec](t.MM(), addr.Pointer())
	if err != nil {
		return nil, err
	}
	s := &vfs.SetStat{}
	for i, x := range b {
		set, now := vfs.SetAtime, vfs.SetAtimeNow
		if i == 1 {
			set, now = vfs.SetMtime, vfs.SetMtimeNow
		}
		switch {
		case x.Nsec == unix.UTIME_OMIT:
			continue
		case x.Nsec == unix.UTIME_NOW:
			s.Mask |= now
			continue
		case x.Nsec < 0 || x.Nsec >= 1e9:
			return nil, unix.EINVAL
		}
		s.Mask |= set
		if i == 0 {
			s.Atime = satTime(x.Sec, x.Nsec)
		} else {
			s.Mtime = satTime(x.Sec, x.Nsec)
		}
	}
	return s, nil
}

func sysUtimensat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	at := a[3].Uint()
	s, err := timespecs(t, a[2])
	if err != nil {
		return 0, err
	}
	if s.Mask == 0 {
		return 0, nil
	}
	if a[1] == 0 && a[0].Int() != unix.AT_FDCWD {
		if at != 0 {
			return 0, unix.EINVAL
		}
		return setStatFD(t, a[0], s)
	}
	if at&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	return setStatAt(t, a[0], a[1], at, s)
}

func sysTruncate(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[1].Int64() < 0 {
		return 0, unix.EINVAL
	}
	return setStatAt(t, atCWD, a[0], 0, &vfs.SetStat{Mask: vfs.SetSize, Size: a[1].Int64()})
}

func sysFtruncate(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	if a[1].Int64() < 0 {
		return 0, unix.EINVAL
	}
	return setStatFD(t, a[0], &vfs.SetStat{Mask: vfs.SetSize, Size: a[1].Int64()})
}
