package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"husk/pkg/log"
	"husk/runsc/boot"
	"husk/runsc/container"
)

func doCommand() command {
	return command{
		name: "do", args: "<command> [command options]", summary: "run a command in a sandbox that sees the host's files", min: 1, max: -1, stop: true,
		text: `Runs a command with the root filesystem of the host, or another one. The command
sees all files; what it changes is kept in memory and lost with it, unless
--overlay says otherwise on the command line of runsc.
`,
		setup: func(f *flagSet) func(*env, []string) error {
			root, cwd, user, writable := "/", "", "", false
			f.str(&root, "root", "directory that is the root filesystem (default: \"/\")")
			f.str(&cwd, "cwd", "current working directory in the sandbox (default: the caller's)")
			f.str(&user, "user,u", "UID (format: <uid>[:<gid>]) (default: 0:0)")
			f.boolean(&writable, "writable", "let changes reach the files")
			return func(e *env, args []string) error {
				spec, err := doSpec(root, cwd, args)
				if err == nil {
					err = (&execFlags{user: user}).setUser(&spec.Process.User)
				}
				if err == nil && !writable && e.conf.Overlay == "none" {
					e.conf.Overlay = "memory"
				}
				var code int
				if err == nil {
					code, err = doRun(e, spec)
				}
				if err != nil {
					return &exitError{doExit(err), fmt.Errorf("runsc do failed: %w", err)}
				}
				return exitCode(code)
			}
		},
	}
}

// doExit is the exit code of shells for a command that could not be run.
func doExit(err error) int {
	var e *boot.Error
	if errors.As(err, &e) {
		switch e.Code {
		case boot.ErrNotFound:
			return 127
		case boot.ErrNotExecuted:
			return 126
		}
	}
	return 1
}

func doSpec(root, cwd string, args []string) (*specs.Spec, error) {
	s := defaultSpec()
	var err error
	if s.Root.Path, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	s.Root.Readonly = false
	s.Process.Terminal = isTerminal(0) && isTerminal(1)
	s.Process.Args = args
	s.Process.Env = os.Environ()
	s.Process.NoNewPrivileges = false
	s.Process.Rlimits = nil
	var all []string
	for i := 0; container.CapName(i) != ""; i++ {
		all = append(all, container.CapName(i))
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths, s.Linux.Resources = nil, nil, nil
	s.Linux.CgroupsPath = ""
	s.Hostname, _ = os.Hostname()
	if s.Process.Cwd = cwd; cwd == "" {
		if s.Process.Cwd, err = os.Getwd(); err != nil {
			return nil, err
		}
		rel, err := filepath.Rel(s.Root.Path, s.Process.Cwd)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			rel = "."
		}
		s.Process.Cwd = filepath.Join("/", rel)
	}
	return s, nil
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

func doRun(e *env, s *specs.Spec) (int, error) {
	if err := container.CheckSpec(s); err != nil {
		return 0, err
	}
	bundle, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	sweepKilled(e)
	var rnd [4]byte
	unix.Getrandom(rnd[:], 0)
	s.Annotations = map[string]string{doAnnotation: "true"}
	return runContainer(e, &container.Options{
		Conf: e.conf, Log: e.log, Time: e.time, Bundle: bundle, Spec: s, Start: true,
		ID: doPrefix + strconv.Itoa(os.Getpid()) + fmt.Sprintf("-%x", rnd),
	}, false)
}

// Containers of do are named do-PID-RANDOM after the process that owns them, and marked by an annotation.
const (
	doPrefix     = "do-"
	doAnnotation = "husk.do"
)

// sweepKilled deletes the containers of commands that were killed, which nobody else would do: they are stopped, and the
// process that the name says is gone. What cannot be deleted stays for the next time, or for delete.
func sweepKilled(e *env) {
	entries, _ := os.ReadDir(e.conf.Root)
	for _, d := range entries {
		id := d.Name()
		rest, ok := strings.CutPrefix(id, doPrefix)
		owner, _, dashed := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(owner)
		if !ok || !dashed || err != nil || pid <= 0 || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		c, err := container.Load(e.conf.Root, id, true)
		if err != nil {
			continue
		}
		// Without a state, it was killed before anything else was made.
		if (c.Version == 0 || c.Annotations[doAnnotation] != "") && c.CurrentStatus() == container.Stopped {
			if err := c.Delete(false, e.log); err != nil {
				e.log.Print(log.Debug, fmt.Sprintf("delete %s: %v", id, err))
			}
		}
		c.Close()
	}
}
