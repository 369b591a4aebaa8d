package syscalls

import (
	"strconv"

	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"

	"golang.org/x/sys/unix"
)

// execEntries are execve(2) and execveat(2).
func execEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_EXECVE, Name: "execve", Handler: execve, Args: "path strings hex"},
		{Number: unix.SYS_EXECVEAT, Name: "execveat", Handler: execveat, Args: "fd path strings hex atflags"},
	}
}

// maxArgStrlen is MAX_ARG_STRLEN: the longest argument of execve(2) in bytes, with its zero byte.
const maxArgStrlen = 32 * arch.PageSize

func execve(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	path, err := t.MM().CopyInString(a[0].Pointer(), unix.PathMax)
	if err != nil {
		return 0, err
	}
	if path == "" {
		return 0, unix.ENOENT
	}
	return execute(t, &kernel.ExecArgs{Path: path, Name: path}, a[1].Pointer(), a[2].Pointer())
}

func execute(t *kernel.Task, x *kernel.ExecArgs, argv, envv uint64) (uintptr, error) {
	// A fourth of the stack's limit, at least 128 KiB and at most 6 MiB, bounds strings and pointers together.
	limit := int64(min(max(t.Limits().Get(unix.RLIMIT_STACK).Cur/4, 128<<10), 6<<20))
	var err error
	if x.Argv, err = copyInStrings(t, argv, &limit); err != nil {
		return 0, err
	}
	if x.Envv, err = copyInStrings(t, envv, &limit); err != nil {
		return 0, err
	}
	return t.Exec(x)
}

// copyInStrings reads a vector of strings, taking what it needs from *limit: E2BIG.
func copyInStrings(t *kernel.Task, addr uint64, limit *int64) (list []string, err error) {
	if addr == 0 {
		return nil, nil
	}
	m := t.MM()
	for ; ; addr += 8 {
		p, err := m.ReadUint64(addr)
		if err != nil {
			return nil, err
		}
		if p == 0 {
			return list, nil
		}
		s, err := m.CopyInString(p, maxArgStrlen)
		if err == unix.ENAMETOOLONG {
			return nil, unix.E2BIG
		}
		if err != nil {
			return nil, err
		}
		if *limit -= int64(len(s)) + 9; *limit < 0 {
			return nil, unix.E2BIG
		}
		list = append(list, s)
	}
}

func execveat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	dirfd, flags := a[0].Int(), a[4].Uint()
	if flags&^(unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW) != 0 {
		return 0, unix.EINVAL
	}
	path, err := t.MM().CopyInString(a[1].Pointer(), unix.PathMax)
	if err != nil {
		return 0, err
	}
	x := &kernel.ExecArgs{Path: path, Name: path, NoFollow: flags&unix.AT_SYMLINK_NOFOLLOW != 0}
	if path == "" && flags&unix.AT_EMPTY_PATH == 0 {
		return 0, unix.ENOENT
	}
	if dirfd != unix.AT_FDCWD && (path == "" || path[0] != '/') {
		fd := t.FDTable().Get(dirfd)
		if fd == nil {
			return 0, unix.EBADF
		}
		defer fd.DecRef()
		x.Name = "/dev/fd/" + strconv.Itoa(int(dirfd))
		if path == "" {
			x.File = fd
		} else {
			x.Start = fd.Path()
			x.Name += "/" + path
		}
		x.Hidden, _ = t.FDTable().Cloexec(dirfd)
	} else if path == "" {
		x.Path, x.Name = ".", "."
	}
	return execute(t, x, a[2].Pointer(), a[3].Pointer())
}
