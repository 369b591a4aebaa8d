package cmd

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"husk/runsc/container"
	"husk/runsc/spec"
)

// execFlags are the flags of exec.
type execFlags struct {
	consoleSocket, cwd, user, process, pidFile, label, apparmor, cgroup string
	env, gids, caps                                                     []string
	tty, detach, noNewPrivs, ignorePaused                               bool
	preserve                                                            int
}

func execCommand() command {
	return command{
		name: "exec", args: "<container-id> <command> [command options]  || -p process.json <container-id>",
		summary: "execute new process inside the container", min: 1, max: -1, stop: true,
		text: `Where "<container-id>" is the name for the instance of the container and
"<command>" is the command to be executed in the container.
"<command>" can't be empty unless a "-p" flag provided.

With --detach, the process in the pid file ends with the exit code of the command.
`,
		setup: func(f *flagSet) func(*env, []string) error {
			x := &execFlags{}
			f.str(&x.consoleSocket, "console-socket", "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal")
			f.str(&x.cwd, "cwd", "current working directory in the container")
			f.strs(&x.env, "env,e", "set environment variables")
			f.boolean(&x.tty, "tty,t", "allocate a pseudo-TTY")
			f.str(&x.user, "user,u", "UID (format: <uid>[:<gid>])")
			f.strs(&x.gids, "additional-gids,g", "additional gids")
			f.str(&x.process, "process,p", "path to the process.json")
			f.boolean(&x.detach, "detach,d", "detach from the container's process")
			f.str(&x.pidFile, "pid-file", "specify the file to write the process id to")
			f.str(&x.label, "process-label", "accepted for compatibility: the sentry has no SELinux")
			f.str(&x.apparmor, "apparmor", "accepted for compatibility: the sentry has no AppArmor")
			f.boolean(&x.noNewPrivs, "no-new-privs", "set the no new privileges value for the process")
			f.strs(&x.caps, "cap,c", "add a capability to the bounding set for the process")
			f.num(&x.preserve, 0, "preserve-fds", "Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)")
			f.str(&x.cgroup, "cgroup", "accepted for compatibility: all processes share the container's cgroup")
			f.boolean(&x.ignorePaused, "ignore-paused", "allow exec in a paused container")
			return func(e *env, args []string) error {
				code, err := x.exec(e, args[0], args[1:])
				if err != nil {
					return &exitError{255, fmt.Errorf("exec failed: %w", err)}
				}
				return exitCode(code)
			}
		},
	}
}

func (x *execFlags) exec(e *env, id string, args []string) (int, error) {
	c, err := container.Load(e.conf.Root, id, false)
	if err != nil {
		return 0, err
	}
	switch c.CurrentStatus() {
	case container.Stopped, container.Creating:
		return 0, errors.New("cannot exec a container that has stopped")
	case container.Paused:
		if !x.ignorePaused {
			return 0, errors.New("cannot exec in a paused container (use --ignore-paused to override)")
		}
	}
	p, err := x.processSpec(c, args)
	if err != nil {
		return 0, err
	}
	sigs := make(chan os.Signal, 64)
	if !x.detach {
		signal.Notify(sigs, forwarded()...)
	}
	r, err := c.Exec(&container.ExecOptions{
		Process: p, Detach: x.detach, ConsoleSocket: x.consoleSocket, PIDFile: x.pidFile, PreserveFDs: x.preserve, Inherited: e.inherited,
	})
	if err != nil || x.detach {
		return 0, err
	}
	var tty *console
	if r.Terminal >= 0 {
		tty = attachConsole(r.Terminal)
		tty.resized = r.Resize
	}
	go forwardSignals(sigs, tty, r.Signal)
	code, err := r.Wait()
	tty.finish()
	return code, err
}

// processSpec makes the process description from the flags and what the container's own process has.
func (x *execFlags) processSpec(c *container.Container, args []string) (*specs.Process, error) {
	if x.process != "" {
		data, err := os.ReadFile(x.process)
		if err != nil {
			return nil, err
		}
		p := new(specs.Process)
		if err := spec.Decode(data, func(c *spec.JSON) { spec.Process(c, p) }); err != nil {
			return nil, fmt.Errorf("parse %s: %w", x.process, err)
		}
		return p, container.CheckProcess(p)
	}
	if c.Process == nil {
		return nil, errors.New("the container's state has no process")
	}
	p := *c.Process
	p.Args, p.Terminal, p.ConsoleSize = args, x.tty, nil
	if x.cwd != "" {
		p.Cwd = x.cwd
	}
	p.Env = append(p.Env[:len(p.Env):len(p.Env)], x.env...)
	p.NoNewPrivileges = p.NoNewPrivileges || x.noNewPrivs
	if err := x.setUser(&p.User); err != nil {
		return nil, err
	}
	if len(x.caps) > 0 {
		p.Capabilities = addCaps(p.Capabilities, x.caps)
	}
	return &p, container.CheckProcess(&p)
}

func (x *execFlags) setUser(u *specs.User) error {
	id := func(s, what string) (uint32, error) {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return 0, fmt.Errorf("parsing %s as int for %s failed: not a number", s, what)
		}
		return uint32(n), nil
	}
	if x.user != "" {
		uid, gid, ok := strings.Cut(x.user, ":")
		var err error
		if u.UID, err = id(uid, "uid"); err != nil {
			return err
		}
		if ok {
			if u.GID, err = id(gid, "gid"); err != nil {
				return err
			}
		}
	}
	for _, g := range x.gids {
		n, err := id(g, "additional gid")
		if err != nil {
			return err
		}
		u.AdditionalGids = append(u.AdditionalGids[:len(u.AdditionalGids):len(u.AdditionalGids)], n)
	}
	return nil
}

func addCaps(old *specs.LinuxCapabilities, names []string) *specs.LinuxCapabilities {
	var c specs.LinuxCapabilities
	if old != nil {
		c = *old
	}
	add := func(set []string) []string { return append(set[:len(set):len(set)], names...) }
	c.Bounding, c.Effective, c.Permitted, c.Ambient = add(c.Bounding), add(c.Effective), add(c.Permitted), add(c.Ambient)
	return &c
}
