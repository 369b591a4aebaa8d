package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"husk/runsc/boot"
	"husk/runsc/host"
)

// child is a process being started.
type child struct {
	name   string
	pid    int
	conn   int // the launcher's end of its boot connection
	words  lastWords
	script *script // in use until the process has said something

	reaped bool
	status unix.WaitStatus
}

// spawnSpec says how a child differs from the launcher.
type spawnSpec struct {
	name, verb string
	namespaces uint64
	netNS      int // network namespace to start in, -1 for the launcher's
	files      int // descriptors that confine opens for the program
	confine    func(c *childScript)
	// Of a child in a user namespace of its own.
	uids, gids []syscall.SysProcIDMap
	setgroups  bool
}

// spawn makes a child. It waits to be released, does what confine says, and executes this binary with its boot connection
// at descriptor 3.
func spawn(s *spawnSpec) (c child, err error) {
	c = child{name: s.name, conn: -1, words: lastWords{-1}}
	defer func() {
		if err != nil {
			c.close()
			err = fmt.Errorf("start %s process: %w", s.name, err)
		}
	}()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return c, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(pair[1])
	c.conn = pair[0]
	if c.words, err = newLastWords(); err != nil {
		return c, err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return c, fmt.Errorf("/dev/null: %w", err)
	}
	defer unix.Close(null)
	// The running binary, whatever has become of its path.
	exe, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return c, fmt.Errorf("/proc/self/exe: %w", err)
	}
	defer unix.Close(exe)
	c.script = s.script([...]int{slotNull: null, slotWords: c.words.fd, slotConn: pair[1], slotExe: exe}, c.conn)
	c.pid, err = startIn(s.netNS, c.script, s.namespaces)
	return c, err
}

// childScript is the script of a child under construction.
type childScript struct {
	*script
	base uintptr // of the slots
}

// inherit passes a descriptor on to the program.
func (c *childScript) inherit(from, to uintptr) { c.do("dup3", unix.SYS_DUP3, from, to, 0) }

// script makes the child's script, of descriptors that it starts with, and the other end of its connection.
func (s *spawnSpec) script(fds [slotExe + 1]int, conn int) *script {
	// Descriptors move to where neither those that the child starts with are nor those that it opens on the way.
	top := max(conn, boot.FirstFD+s.files)
	for _, fd := range fds {
		top = max(top, fd)
	}
	c := &childScript{newScript(80 + 2*capBits + 5*s.files), uintptr(top + 64 + 2*s.files)}
	c.do("close_range", unix.SYS_CLOSE_RANGE, c.base, uintptr(^uint32(0)), 0)
	for slot, fd := range fds {
		c.inherit(uintptr(fd), c.base+uintptr(slot))
		c.steps[len(c.steps)-1].args[2] = unix.O_CLOEXEC
	}
	// Only the launcher's own end may keep the connection up.
	c.do("close", unix.SYS_CLOSE, uintptr(conn))
	c.do("wait for the launcher", unix.SYS_READ, c.base+slotConn, keepAt(c.script, new([8]byte)), 1).flags = stepResult
	c.do("setsid", unix.SYS_SETSID)
	s.confine(c)
	c.inherit(c.base+slotNull, 0)
	c.inherit(c.base+slotWords, 1)
	c.inherit(c.base+slotWords, 2)
	c.inherit(c.base+slotConn, boot.BootFD)
	c.do("sigprocmask", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, keepAt(c.script, new(uint64)), 0, 8)
	c.do("execve", unix.SYS_EXECVEAT, c.base+slotExe, c.str(""), c.strs("runsc", s.verb), c.strs(), unix.AT_EMPTY_PATH)
	return c.script
}

// release lets a child begin: its user namespace is complete.
func (c *child) release(s *spawnSpec) error {
	raiseFiles(c.pid)
	if s.namespaces&unix.CLONE_NEWUSER != 0 {
		dir := "/proc/" + strconv.Itoa(c.pid) + "/"
		err := host.Put(dir+"uid_map", idMap(s.uids))
		if err == nil && !s.setgroups {
			err = host.Put(dir+"setgroups", "deny")
		}
		if err == nil {
			err = host.Put(dir+"gid_map", idMap(s.gids))
		}
		if err != nil {
			return fmt.Errorf("start %s process: %w", c.name, err)
		}
	}
	// A failure to write is the process's death, of which the first reading finds out.
	unix.SendmsgN(c.conn, []byte{1}, nil, nil, unix.MSG_NOSIGNAL)
	return nil
}

func idMap(m []syscall.SysProcIDMap) string {
	s := ""
	for _, r := range m {
		s += strconv.Itoa(r.ContainerID) + " " + strconv.Itoa(r.HostID) + " " + strconv.Itoa(r.Size) + "\n"
	}
	return s
}

func (c *child) close() {
	if c.conn >= 0 {
		unix.Close(c.conn)
		c.conn = -1
	}
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
func (c *child) died() error {
	ws := c.wait()
	if err := c.script.failure(); err != nil {
		return err
	}
	how := fmt.Sprintf("exit status %d", ws.ExitStatus())
	if ws.Signaled() {
		how = "killed by " + ws.Signal().String()
	}
	if w := c.words.read(); w != "" {
		how += ": " + w
	}
	return fmt.Errorf("the %s process died: %s", c.name, how)
}

// startIn starts a script in a network namespace, -1 for the caller's.
func startIn(netNS int, s *script, namespaces uint64) (pid int, err error) {
	if netNS < 0 {
		return s.start(namespaces)
	}
	runtime.LockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Setns(netNS, unix.CLONE_NEWNET)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return 0, fmt.Errorf("join network namespace: %w", err)
	}
	pid, err = s.start(namespaces)
	if back := unix.Setns(own, unix.CLONE_NEWNET); back == nil {
		runtime.UnlockOSThread() // else the thread is of no further use
	}
	unix.Close(own)
	return pid, err
}

// sandboxSpec is how a sandbox process starts: new namespaces of every kind, an unprivileged user, an empty root, and no
// capability but while its script runs.
func sandboxSpec(l *Launch) *spawnSpec {
	uid, gid := nobody, nobody
	if l.Rootless {
		uid, gid = os.Geteuid(), os.Getegid()
	}
	s := &spawnSpec{
		name: "sandbox", verb: "boot", netNS: l.NetNS, files: 1, setgroups: !l.Rootless,
		namespaces: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		uids:       []syscall.SysProcIDMap{{ContainerID: nobody, HostID: uid, Size: 1}},
		gids:       []syscall.SysProcIDMap{{ContainerID: nobody, HostID: gid, Size: 1}},
	}
	if l.NetNS < 0 && !l.HostNetwork {
		s.namespaces |= unix.CLONE_NEWNET
	}
	s.confine = func(c *childScript) {
		c.user(nobody, !l.Rootless)
		c.memoryFile()
		c.emptyRoot()
		c.caps(0)
	}
	return s
}

// goferSpec is how a gofer process starts. It keeps the launcher's user: files of any owner are its business; but where
// the container has a user namespace of its own, that bounds it.
func goferSpec(l *Launch) *spawnSpec {
	s := &spawnSpec{
		name: "gofer", verb: "gofer", netNS: -1, files: 1 + len(l.Attach), setgroups: !l.Rootless,
		namespaces: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		uids:       l.UIDMappings, gids: l.GIDMappings,
	}
	own := len(l.UIDMappings) > 0
	if own {
		s.namespaces |= unix.CLONE_NEWUSER
	}
	s.confine = func(c *childScript) {
		if own {
			c.user(0, !l.Rootless)
		}
		c.do("chdir", unix.SYS_CHDIR, c.str("/"))
		// Nothing in a gofer goes by the clock but the Go runtime's monitor, which would look around every 20 us at first.
		c.do("timer slack", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, 2e6, 0, 0, 0)
		for i := range l.Attach {
			c.tree(&l.Attach[i], i)
		}
		c.procFD()
		c.emptyRoot()
		c.caps(boot.GoferCaps)
	}
	return s
}

// user makes the process one user and group, without others.
func (c *childScript) user(id uintptr, setgroups bool) {
	if setgroups {
		c.do("setgroups", unix.SYS_SETGROUPS, 0, 0)
	}
	c.do("setgid", unix.SYS_SETRESGID, id, id, id)
	c.do("setuid", unix.SYS_SETRESUID, id, id, id)
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
