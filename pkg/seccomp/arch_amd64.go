package seccomp

import "golang.org/x/sys/unix"

// hostArch is the architecture in Data.Arch for native system calls.
const hostArch = unix.AUDIT_ARCH_X86_64
