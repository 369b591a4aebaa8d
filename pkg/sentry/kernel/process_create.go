package kernel

import "golang.org/x/sys/unix"

// CreateProcess makes a process from a program file, as the container's first one or (like docker exec) beside it: a new
// session and group without a parent. It does not run before StartProcess. Errors are those of execve(2).
func (k *Kernel) CreateProcess(a *CreateProcessArgs) (*ThreadGroup, error) {
	return nil, unix.ENOSYS
}

// StartProcess lets the process run.
func (k *Kernel) StartProcess(tg *ThreadGroup) {}
