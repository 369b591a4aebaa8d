package syscalls

import (
	"math"

	"husk/pkg/arch"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

func fileStatEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_STAT, Name: "stat", Handler: sysStat, Args: "path stat"},
		{Number: unix.SYS_LSTAT, Name: "lstat", Handler: sysLstat, Args: "path stat"},
		{Number: unix.SYS_FSTAT, Name: "fstat", Handler: sysFstat, Args: "fd stat"},
		{Number: unix.SYS_NEWFSTATAT, Name: "newfstatat", Handler: sysNewfstatat, Args: "dirfd path stat atflags"},
		{Number: unix.SYS_STATX, Name: "statx", Handler: sysStatx, Args: "dirfd path atflags hex ptr"},
		{Number: unix.SYS_STATFS, Name: "statfs", Handler: sysStatfs, Args: "path ptr"},
		{Number: unix.SYS_FSTATFS, Name: "fstatfs", Handler: sysFstatfs, Args: "fd ptr"},
		{Number: unix.SYS_USTAT, Name: "ustat", Handler: fail(unix.ENOSYS), Support: Stub, Note: "ENOSYS: obsolete", Args: "uint ptr"},
		{Number: unix.SYS_ACCESS, Name: "access", Handler: sysAccess, Args: "path oct"},
		{Number: unix.SYS_FACCESSAT, Name: "faccessat", Handler: sysFaccessat, Args: "dirfd path oct"},
		{Number: unix.SYS_FACCESSAT2, Name: "faccessat2", Handler: sysFaccessat2, Args: "dirfd path oct atflags"},
		{Number: unix.SYS_READLINK, Name: "readlink", Handler: sysReadlink, Args: "path outbuf size"},
		{Number: unix.SYS_READLINKAT, Name: "readlinkat", Handler: sysReadlinkat, Args: "dirfd path outbuf size"},
		{Number: unix.SYS_GETDENTS, Name: "getdents", Handler: sysGetdents, Args: "fd ptr uint"},
		{Number: unix.SYS_GETDENTS64, Name: "getdents64", Handler: sysGetdents64, Args: "fd ptr uint"},
	}
}

// shownUID is the ID as the task's user namespace shows it.
func shownUID(c *auth.Credentials, k auth.KUID) uint32 {
	if c.UserNS.Parent == nil {
		return uint32(k)
	}
	u, _ := c.UserNS.UID(k)
	return uint32(u)
}

func shownGID(c *auth.Credentials, k auth.KGID) uint32 {
	if c.UserNS.Parent == nil {
		return uint32(k)
	}
	g, _ := c.UserNS.GID(k)
	return uint32(g)
}

// floorTimespec splits nanoseconds, also negative ones, so that the fraction is positive.
func floorTimespec(ns int64) unix.Timespec {
	sec, nsec := ns/1e9, ns%1e9
	if nsec < 0 {
		sec--
		nsec += 1e9
	}
	return unix.Timespec{Sec: sec, Nsec: nsec}
}

func writeStat(t *kernel.Task, addr arch.SyscallArg, st *vfs.Stat) error {
	c := t.Credentials()
	s := unix.Stat_t{
		Dev: st.Dev, Ino: st.Ino, Nlink: uint64(st.Nlink), Mode: st.Mode, Uid: shownUID(c, st.UID), Gid: shownGID(c, st.GID), Rdev: st.Rdev,
		Size: st.Size, Blksize: int64(st.Blksize), Blocks: int64(st.Blocks),
		Atim: floorTimespec(st.Atime), Mtim: floorTimespec(st.Mtime), Ctim: floorTimespec(st.Ctime),
	}
	return mm.Write(t.MM(), addr.Pointer(), &s)
}

func sysStat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return newfstatat(t, atCWD, a[0], a[1], 0)
}

func sysLstat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return newfstatat(t, atCWD, a[0], a[1], unix.AT_SYMLINK_NOFOLLOW)
}

func newfstatat(t *kernel.Task, dirfd, path, buf arch.SyscallArg, flags uint32) (uintptr, error) {
	p, err := copyPathAt(t, dirfd, path)
	if err != nil {
		return 0, err
	}
	defer p.done(t)
	st := &p.buf.Stat
	if p.s == "" && flags&unix.AT_EMPTY_PATH != 0 && p.fd != nil {
		err = p.fd.Stat(t, unix.STATX_BASIC_STATS, st)
	} else {
		err = t.Kernel().VFS().Stat(t, p.place.path, p.s, followFlags(flags), unix.STATX_BASIC_STATS, st)
	}
	if err != nil {
		return 0, err
	}
	return 0, writeStat(t, buf, st)
}

func sysFstat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	v := t.Kernel().VFS()
	b := v.PathBuffer()
	defer v.PutPathBuffer(b)
	if err := fd.Stat(t, unix.STATX_BASIC_STATS, &b.Stat); err != nil {
		return 0, err
	}
	return 0, writeStat(t, a[1], &b.Stat)
}

func sysNewfstatat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := a[3].Uint()
	if flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT) != 0 {
		return 0, unix.EINVAL
	}
	if flags&unix.AT_EMPTY_PATH != 0 && a[1] == 0 && a[0].Int() != unix.AT_FDCWD {
		return sysFstat(t, arch.SyscallArgs{a[0], a[2]}) // a null path is an empty one since Linux 6.11
	}
	return newfstatat(t, a[0], a[1], a[2], flags)
}

// statxSyncType is AT_STATX_SYNC_TYPE.
const statxSyncType = unix.AT_STATX_FORCE_SYNC | unix.AT_STATX_DONT_SYNC

func statxTime(ns int64) unix.StatxTimestamp {
	ts := floorTimespec(ns)
	return unix.StatxTimestamp{Sec: ts.Sec, Nsec: uint32(ts.Nsec)}
}

func sysStatx(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags, mask := a[2].Uint(), a[3].Uint()
	const known = unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH | unix.AT_NO_AUTOMOUNT | statxSyncType
	if mask&unix.STATX__RESERVED != 0 || flags&^known != 0 || flags&statxSyncType == statxSyncType {
		return 0, unix.EINVAL
	}
	var st vfs.Stat
	var x unix.Statx_t
	if flags&unix.AT_EMPTY_PATH != 0 && a[1] == 0 {
		s, err := startFD(t, a[0].Int())
		if err != nil {
			return 0, err
		}
		defer s.put()
		if err := s.fd.Stat(t, mask, &st); err != nil {
			return 0, err
		}
		x.Mnt_id = uint64(s.path.Mount.ID())
	} else {
		v := t.Kernel().VFS()
		p, err := copyPathAt(t, a[0], a[1])
		if err != nil {
			return 0, err
		}
		defer p.done(t)
		at, err := v.Walk(t, p.place.path, p.s, followFlags(flags))
		if err != nil {
			return 0, err
		}
		defer at.DecRef()
		if p.s == "" && p.fd != nil {
			err = p.fd.Stat(t, mask, &st)
		} else {
			err = at.Inode().Ops().Stat(t, mask, &st)
		}
		if err != nil {
			return 0, err
		}
		x.Mnt_id = uint64(at.Mount.ID())
		if at.Dentry == at.Mount.Root() {
			st.Attributes |= unix.STATX_ATTR_MOUNT_ROOT
		}
	}
	c := t.Credentials()
	x.Mask = unix.STATX_BASIC_STATS | mask&unix.STATX_MNT_ID
	if st.Btime != 0 {
		x.Mask |= unix.STATX_BTIME
		x.Btime = statxTime(st.Btime)
	}
	x.Attributes, x.Attributes_mask = st.Attributes, st.AttributesMask|unix.STATX_ATTR_MOUNT_ROOT
	x.Blksize, x.Nlink, x.Uid, x.Gid, x.Mode = st.Blksize, st.Nlink, shownUID(c, st.UID), shownGID(c, st.GID), uint16(st.Mode)
	x.Ino, x.Size, x.Blocks = st.Ino, uint64(st.Size), st.Blocks
	x.Atime, x.Mtime, x.Ctime = statxTime(st.Atime), statxTime(st.Mtime), statxTime(st.Ctime)
	x.Rdev_major, x.Rdev_minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	x.Dev_major, x.Dev_minor = unix.Major(st.Dev), unix.Minor(st.Dev)
	return 0, mm.Write(t.MM(), a[4].Pointer(), &x)
}

// statfs writes struct statfs for a place.
func statfs(t *kernel.Task, p vfs.Path, addr arch.SyscallArg) error {
	var st vfs.StatFS
	if err := p.Inode().Superblock().Ops().StatFS(t, &st); err != nil {
		return err
	}
	f := uint64(p.Mount.Flags())
	if p.Mount.ReadOnly() {
		f |= unix.ST_RDONLY
	}
	const stValid = 0x20
	dev := p.Inode().Superblock().Dev()
	if st.Fsid == 0 {
		st.Fsid = dev
	}
	s := unix.Statfs_t{
		Type: int64(st.Type), Bsize: int64(st.Bsize), Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Namelen: int64(st.Namelen), Frsize: int64(st.Frsize), Flags: int64(f | stValid),
		Fsid: unix.Fsid{Val: [2]int32{int32(st.Fsid), int32(st.Fsid >> 32)}},
	}
	return mm.Write(t.MM(), addr.Pointer(), &s)
}

func sysStatfs(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	p, err := copyPath(t, a[0])
	if err != nil {
		return 0, err
	}
	defer p.put(t)
	at, err := t.Kernel().VFS().Walk(t, vfs.Path{}, p.s, vfs.FollowLast)
	if err != nil {
		return 0, err
	}
	defer at.DecRef()
	return 0, statfs(t, at, a[1])
}

func sysFstatfs(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	return 0, statfs(t, fd.Path(), a[1])
}

func sysAccess(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return access(t, atCWD, a[0], a[1].Uint(), 0)
}

func sysFaccessat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return access(t, a[0], a[1], a[2].Uint(), 0)
}

func sysFaccessat2(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return access(t, a[0], a[1], a[2].Uint(), a[3].Uint())
}

// realContext is the task with the credentials that access(2) checks: real IDs instead of effective ones.
type realContext struct {
	*kernel.Task
	creds *auth.Credentials
}

// Credentials implements vfs.Context.
func (r *realContext) Credentials() *auth.Credentials { return r.creds }

// accessContext is the context for access(2). Where real and effective IDs agree it is the task itself.
func accessContext(t *kernel.Task) vfs.Context {
	c := t.Credentials()
	caps := c.Effective
	if c.SecureBits&1 == 0 { // SECBIT_NOROOT
		if c.RUID == 0 {
			caps = c.Permitted
		} else {
			caps = 0
		}
	}
	if c.FSUID == c.RUID && c.FSGID == c.RGID && caps == c.Effective {
		return t
	}
	d := c.Clone()
	d.FSUID, d.FSGID, d.Effective = c.RUID, c.RGID, caps
	return &realContext{t, d}
}

func access(t *kernel.Task, dirfd, path arch.SyscallArg, mode, flags uint32) (uintptr, error) {
	if mode&^7 != 0 || flags&^(unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	p, err := copyPathAt(t, dirfd, path)
	if err != nil {
		return 0, err
	}
	defer p.done(t)
	ctx := vfs.Context(t)
	if flags&unix.AT_EACCESS == 0 {
		ctx = accessContext(t)
	}
	return 0, t.Kernel().VFS().Access(ctx, p.place.path, p.s, followFlags(flags), mode)
}

func sysReadlink(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return readlink(t, atCWD, a[0], a[1], a[2])
}

func sysReadlinkat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return readlink(t, a[0], a[1], a[2], a[3])
}

func readlink(t *kernel.Task, dirfd, path, buf, size arch.SyscallArg) (uintptr, error) {
	if size.Int() <= 0 {
		return 0, unix.EINVAL
	}
	p, err := copyPathAt(t, dirfd, path)
	if err != nil {
		return 0, err
	}
	defer p.done(t)
	if p.s == "" && p.fd == nil {
		return 0, unix.ENOENT
	}
	s, err := t.Kernel().VFS().Readlink(t, p.place.path, p.s)
	if err != nil {
		if p.s == "" && err == unix.EINVAL {
			err = unix.ENOENT
		}
		return 0, err
	}
	if len(s) > int(size.Int()) {
		s = s[:size.Int()]
	}
	n, err := t.MM().CopyOut(buf.Pointer(), []byte(s))
	if err != nil {
		return 0, err
	}
	return uintptr(n), nil
}

// direntSink formats entries as struct linux_dirent64 or, with old set, linux_dirent.
type direntSink struct {
	b    []byte
	room int
	old  bool
	last int // where the last entry begins
}

// Emit implements vfs.DirSink.
func (d *direntSink) Emit(name string, ino uint64, typ uint8, next int64) bool {
	const head64, headOld = 19, 18
	n := head64 + len(name) + 1
	if d.old {
		n = headOld + len(name) + 2
	}
	n = (n + 7) &^ 7
	if len(d.b)+n > d.room {
		return false
	}
	d.last = len(d.b)
	le := func(v uint64, k int) {
		for ; k > 0; k-- {
			d.b = append(d.b, byte(v))
			v >>= 8
		}
	}
	le(ino, 8)
	le(uint64(next), 8)
	le(uint64(n), 2)
	if !d.old {
		d.b = append(d.b, typ)
	}
	d.b = append(d.b, name...)
	for len(d.b) < d.last+n {
		d.b = append(d.b, 0)
	}
	if d.old {
		d.b[d.last+n-1] = typ
	}
	return true
}

func sysGetdents(t *kernel.Task, a arch.SyscallArgs) (uintptr, error)   { return getdents(t, a, true) }
func sysGetdents64(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) { return getdents(t, a, false) }

// maxDirents bounds what one getdents call gives.
const maxDirents = 64 << 10

func getdents(t *kernel.Task, a arch.SyscallArgs, old bool) (uintptr, error) {
	fd, err := getFD(t, a[0])
	if err != nil {
		return 0, err
	}
	defer fd.DecRef()
	v := t.Kernel().VFS()
	buf := v.PathBuffer()
	d := &direntSink{b: buf.B[:0], room: int(min(a[2].Uint64()&math.MaxUint32, maxDirents)), old: old}
	err = fd.ReadDir(t, d)
	n := 0
	if err == nil {
		n, err = t.MM().CopyOut(a[1].Pointer(), d.b)
	}
	buf.B = d.b
	v.PutPathBuffer(buf)
	return uintptr(n), err
}
