package sandbox

import (
	"fmt"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// nobody is the host user and group that a sandbox of a privileged launcher runs as.
const nobody = 65534

// exe is the running binary, whatever has become of its path. The link is read in the child, where it names
// the same file.
const exe = "/proc/self/exe"

// child is a process being started.
type child struct {
	pid   int
	conn  int // the launcher's end of its boot connection
	words lastWords

	reaped bool
	status unix.WaitStatus
}

// spawnSpec says how a child differs from the launcher.
type spawnSpec struct {
	verb  string
	attr  syscall.SysProcAttr
	netNS int // network namespace to start in, -1 for the launcher's
	env   []string
}

// spawn starts a child, with its boot connection at descriptor 3.
func spawn(s *spawnSpec) (c child, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return c, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(pair[1])
	c.conn = pair[0]
	if c.words, err = newLastWords(); err != nil {
		unix.Close(pair[0])
		return c, err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		c.close()
		return c, fmt.Errorf("/dev/null: %w", err)
	}
	defer unix.Close(null)
	words := uintptr(c.words.fd)
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   s.env,
		Files: []uintptr{uintptr(null), words, words, uintptr(pair[1])},
		Sys:   &s.attr,
	}
	if c.pid, err = forkIn(s.netNS, []string{"runsc", s.verb}, attr); err != nil {
		c.close()
		return c, fmt.Errorf("start %s process: %w", s.verb, err)
	}
	return c, nil
}

func (c *child) close() {
	unix.Close(c.conn)
	c.words.close()
}

// wait reaps the child; it can be called again.
func (c *child) wait() unix.WaitStatus {
	for !c.reaped {
		_, err := unix.Wait4(c.pid, &c.status, 0, nil)
		c.reaped = err != unix.EINTR
	}
	return c.status
}

// kill ends the child and everything in its PID namespace, and reaps it.
func (c *child) kill() {
	if c.pid > 0 && !c.reaped {
		unix.Kill(c.pid, unix.SIGKILL)
		c.wait()
	}
}

// died describes the unexpected end of the child.
func (c *child) died(what string) error {
	ws := c.wait()
	how := fmt.Sprintf("exit status %d", ws.ExitStatus())
	if ws.Signaled() {
		how = "killed by " + ws.Signal().String()
	}
	if w := c.words.read(); w != "" {
		how += ": " + w
	}
	return fmt.Errorf("the %s process died: %s", what, how)
}

// forkIn forks and executes on a thread that is in a network namespace. The thread is not used for anything else afterwards.
func forkIn(netNS int, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	if netNS < 0 {
		return syscall.ForkExec(exe, argv, attr)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err = unix.Setns(netNS, unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("join network namespace: %w", err)
			return
		}
		pid, err = syscall.ForkExec(exe, argv, attr)
	}()
	<-done
	return pid, err
}

// sandboxAttr is how a sandbox process starts: new namespaces of every kind, an unprivileged user,
// and of capabilities only what it takes to empty its root.
func sandboxAttr(l *Launch, uid, gid int) syscall.SysProcAttr {
	flags := unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if l.NetNS < 0 && !l.HostNetwork {
		flags |= unix.CLONE_NEWNET
	}
	return syscall.SysProcAttr{
		Cloneflags:                 uintptr(flags),
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: nobody, HostID: uid, Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: nobody, HostID: gid, Size: 1}},
		GidMappingsEnableSetgroups: !l.Rootless,
		Credential:                 &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: l.Rootless},
		AmbientCaps:                []uintptr{unix.CAP_SYS_ADMIN},
		Setsid:                     true,
	}
}

// goferAttr is how a gofer process starts. It keeps the launcher's user: files of any owner are its
// business; but where the container has a user namespace of its own, that bounds it.
func goferAttr(l *Launch) syscall.SysProcAttr {
	a := syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Setsid:     true,
	}
	if len(l.UIDMappings) > 0 {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings, a.GidMappings = l.UIDMappings, l.GIDMappings
		a.GidMappingsEnableSetgroups = !l.Rootless
		a.Credential = &syscall.Credential{NoSetGroups: l.Rootless}
	}
	return a
}

// maxFiles is the limit of descriptors of a sandbox and of a gofer: Linux's default of fs.nr_open,
// because each stands for the files of all the container's processes.
const maxFiles = 1 << 20

// raiseFiles raises a child's limit of descriptors as far as this process may.
func raiseFiles(pid int) {
	lim := unix.Rlimit{Cur: maxFiles, Max: maxFiles}
	if unix.Prlimit(pid, unix.RLIMIT_NOFILE, &lim, nil) == nil {
		return
	}
	if unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &lim) == nil {
		lim.Cur = lim.Max
		unix.Prlimit(pid, unix.RLIMIT_NOFILE, &lim, nil)
	}
}
