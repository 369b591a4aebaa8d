package syscalls

import (
	"encoding/binary"

	"husk/pkg/arch"
	"husk/pkg/sentry/fsimpl/pipefs"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// pipeEntries are pipe(2).
func pipeEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_PIPE, Name: "pipe", Handler: pipe, Args: "pipefds"},
		{Number: unix.SYS_PIPE2, Name: "pipe2", Handler: pipe2, Args: "pipefds hex"},
	}
}

func pipe(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return 0, makePipe(t, a[0].Pointer(), 0)
}

func pipe2(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	flags := a[1].Uint()
	if flags&^(unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_DIRECT) != 0 {
		return 0, unix.EINVAL
	}
	return 0, makePipe(t, a[0].Pointer(), flags)
}

func makePipe(t *kernel.Task, addr uint64, flags uint32) error {
	r, w := pipefs.NewPipe(t, t.Kernel().VFS(), flags)
	return installPair(t, r, w, addr, flags&unix.O_CLOEXEC != 0)
}

// installPair enters two files, whose references pass on, and stores their descriptors as int[2] at addr.
func installPair(t *kernel.Task, a, b *vfs.FileDescription, addr uint64, cloexec bool) error {
	defer a.DecRef()
	defer b.DecRef()
	x, y, err := t.FDTable().Install2(t, a, b, cloexec)
	if err != nil {
		return err
	}
	var buf [8]byte
	binary.LittleEndian.PutUint32(buf[:], uint32(x))
	binary.LittleEndian.PutUint32(buf[4:], uint32(y))
	if _, err := t.MM().CopyOut(addr, buf[:]); err != nil {
		t.FDTable().Close(t, x)
		t.FDTable().Close(t, y)
		return err
	}
	return nil
}
