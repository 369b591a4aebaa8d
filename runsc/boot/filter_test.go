package boot

import (
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/seccomp"
)

func TestSandboxFilter(t *testing.T) {
	for i, network := range []uint8{NetworkSandbox, NetworkHost, NetworkNone} {
		platform := "systrap"
		if i == 0 {
			platform = "ptrace"
		}
		prog, err := sandboxFilter(network, platform).Build()
		if err != nil {
			t.Fatal(err)
		}
		allowed := func(nr uint32, args ...uint64) bool {
			d := seccomp.Data{NR: int32(nr), Arch: unix.AUDIT_ARCH_X86_64}
			copy(d.Args[:], args)
			return seccomp.Run(prog, &d) == seccomp.Allow
		}
		for _, nr := range []uint32{unix.SYS_READ, unix.SYS_FUTEX, unix.SYS_PREAD64, unix.SYS_WAIT4, unix.SYS_RECVMSG, unix.SYS_EXIT_GROUP} {
			if !allowed(nr) {
				t.Errorf("network %d: call %d is denied", network, nr)
			}
		}
		for _, nr := range []uint32{
			unix.SYS_OPEN, unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_FORK, unix.SYS_VFORK,
			unix.SYS_CLONE3, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_MKDIR, unix.SYS_STAT, unix.SYS_BPF,
			unix.SYS_IO_URING_SETUP, unix.SYS_KEYCTL, unix.SYS_USERFAULTFD, unix.SYS_PIDFD_GETFD, unix.SYS_PROCESS_VM_WRITEV,
			unix.SYS_PERF_EVENT_OPEN, unix.SYS_MEMFD_CREATE, unix.SYS_SECCOMP, unix.SYS_CAPSET, unix.SYS_SETUID,
		} {
			if allowed(nr) {
				t.Errorf("network %d: call %d is allowed", network, nr)
			}
		}
		if got := allowed(unix.SYS_PTRACE); got != (platform == "ptrace") {
			t.Errorf("%s: ptrace is allowed: %v", platform, got)
		}
		if got := allowed(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM); got != (network == NetworkHost) {
			t.Errorf("network %d: socket(AF_INET) allowed: %v", network, got)
		}
		if allowed(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM) || allowed(unix.SYS_SOCKET, unix.AF_NETLINK) {
			t.Errorf("network %d: socket of another family", network)
		}
		if allowed(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC) || allowed(unix.SYS_MPROTECT, 0, 4096, unix.PROT_EXEC) {
			t.Error("executable memory is allowed")
		}
		if allowed(unix.SYS_CLONE, unix.CLONE_VM) || allowed(unix.SYS_CLONE, unix.CLONE_NEWUSER) {
			t.Error("a new process is allowed")
		}
		if allowed(unix.SYS_IOCTL, 0, unix.TIOCSTI) || !allowed(unix.SYS_IOCTL, 0, unix.TIOCGWINSZ) {
			t.Error("ioctl")
		}
	}
}
