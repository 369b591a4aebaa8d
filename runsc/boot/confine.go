package boot

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/seccomp"
)

// enterEmptyRoot gives the process's mount namespace an empty, read-only root and nothing else:
// every path, absolute or relative, ends at once. It needs CAP_SYS_ADMIN in the namespace's owner.
func enterEmptyRoot() error {
	// Nothing that is mounted from here on may show up in the namespace that this one is a copy of.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen tmpfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "size", "4096"); err != nil {
		return fmt.Errorf("fsconfig tmpfs: %w", err)
	}
	if err := unix.FsconfigSetString(fs, "mode", "0555"); err != nil {
		return fmt.Errorf("fsconfig tmpfs: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("fsconfig tmpfs: %w", err)
	}
	attrs := unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return fmt.Errorf("fsmount tmpfs: %w", err)
	}
	defer unix.Close(mnt)
	// Mounted over "/", it is reached through its descriptor, as paths still start below it.
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	if err := unix.Fchdir(mnt); err != nil {
		return fmt.Errorf("fchdir: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("umount old root: %w", err)
	}
	return unix.Chdir("/")
}

// setName sets the name under which ps(1) and top(1) show the process.
func setName(name string) {
	b, err := unix.BytePtrFromString(name)
	if err == nil {
		unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(b)), 0, 0, 0)
	}
}

// setCaps reduces every thread of the process to the capabilities of mask and forbids it to ever
// gain any by execve(2).
func setCaps(mask uint64) error {
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("no_new_privs: %w", errno)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		half := uint32(mask >> (32 * i))
		data[i] = unix.CapUserData{Effective: half, Permitted: half}
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return fmt.Errorf("capset: %w", errno)
	}
	return nil
}

// buildFilter compiles a system call filter in the background. The function that it returns puts
// every thread of the process under it.
func buildFilter(f *seccomp.Filter) (install func() error) {
	type result struct {
		prog []seccomp.Insn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		prog, err := f.Build()
		done <- result{prog, err}
	}()
	return func() error {
		r := <-done
		if r.err == nil {
			r.err = seccomp.Install(r.prog, unix.SECCOMP_FILTER_FLAG_TSYNC)
		}
		if r.err != nil {
			return fmt.Errorf("seccomp filter: %w", r.err)
		}
		return nil
	}
}
