package boot

// Kernel is what the control server asks of the sentry. All methods may be called from any
// goroutine. Errors are *Error where the code matters to the command; any other error counts as
// ErrFailed. Process ids are those of the container's PID namespace; 0 means its first process.
type Kernel interface {
	// Create builds a container up to, but not including, the first instruction of its first
	// process: mounts are made, the executable is found and loadable, the working directory exists.
	// The descriptors of c but the lifeline belong to the kernel from now on, also on error.
	Create(c *Container) error
	// Start lets the first process run.
	Start(id string) error
	// Exec starts a further process and returns its process id. p's descriptors belong to the
	// kernel from now on, also on error.
	Exec(id string, p *Process) (pid int32, err error)
	// Wait blocks until the process has exited and returns its status as wait4(2) encodes it. It
	// can be called at any time for a process that Create or Exec started, also after its end, until it is forgotten.
	Wait(id string, pid int32) (status uint32, err error)
	// Forget frees what Exec left of a process that has exited: it cannot be waited for any more.
	Forget(id string, pid int32)
	// Signal sends a signal to a process, or to all processes of the container.
	Signal(id string, pid int32, sig int32, all bool) error
	// Processes lists the container's processes.
	Processes(id string) ([]ProcessInfo, error)
	// Pause stops every task of the container without a trace in it; Resume lets them go on.
	Pause(id string) error
	Resume(id string) error
	// Resize sets the size of the terminal of a process and signals SIGWINCH to its foreground
	// group. With a size of 0 x 0 the size is read from the host's terminal.
	Resize(id string, pid int32, rows, cols uint16) error
	// Stats tells what the container uses.
	Stats(id string) (Stats, error)
	// Update changes limits; see UpdateRequest.
	Update(id string, l *Limits) error
	// Destroy kills what runs in the container and frees it.
	Destroy(id string) error
}
