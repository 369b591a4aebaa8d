package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"husk/pkg/log"
	"husk/runsc/boot"
	"husk/runsc/config"
	"husk/runsc/container"
)

// Version is the version of the runtime; the build may set it.
var Version = "0.1-dev"

const about = `runsc is an OCI runtime. It runs containers as runc does, but on a kernel of
their own: what an application asks of its kernel is served by a sandboxed
process in user space, and never reaches the kernel of the host.

Containers are configured using bundles. A bundle for a container is a directory
that includes a specification file named "config.json" and a root filesystem.

To start a new instance of a container:

    # runsc run [ -b bundle ] <container-id>
`

// env is what a command runs with.
type env struct {
	conf *config.Config
	log  *log.Logger
	time *boot.Timeline
	// inherited are the descriptors that the caller passed on, if some are to be preserved.
	inherited container.Inherited
}

// command is a verb.
type command struct {
	name     string
	args     string // arguments as help shows them
	summary  string
	text     string // more help
	min, max int    // number of arguments; max -1 for any
	stop     bool   // flags end at the first argument
	hidden   bool
	// setup adds the verb's flags and returns what runs it with the arguments.
	setup func(f *flagSet) func(e *env, args []string) error
}

func commands() []command {
	return []command{
		createCommand(), debugCommand(), deleteCommand(), doCommand(), eventsCommand(), execCommand(), featuresCommand(),
		killCommand(), listCommand(), pauseCommand(), psCommand(), resumeCommand(), runCommand(),
		specCommand(), startCommand(), stateCommand(), updateCommand(), waitCommand(), execWaiterCommand(),
	}
}

// exitError ends the command with an exit code; without an error nothing is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// Main runs a command line and returns the exit code.
func Main(argv []string) int {
	start := boot.Enter()
	growStack(false)
	if len(argv) != 2 || argv[1] != "boot" {
		runtime.MemProfileRate = 0 // only sandboxes live long enough to be asked for a profile
	}
	if len(argv) == 2 {
		switch argv[1] {
		case "boot":
			return boot.Main(newKernel)
		case "gofer":
			return boot.GoferMain()
		}
	}
	e := &env{conf: config.Default(), log: &log.Logger{FD: 2, On: true, Level: log.Info}, time: boot.NewTimeline("runsc", start.At)}
	e.time.MarkEntry(start)
	if preserves(argv) {
		e.inherited = container.FindInherited()
	}
	// What this process inherited is not for its children; what they are to have is given to them.
	unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC)
	err := e.dispatch(argv[1:])
	e.time.Print(e.log)
	if err == nil {
		return 0
	}
	code := 1
	var x *exitError
	if errors.As(err, &x) {
		if code = x.code; x.err == nil {
			return code
		}
	}
	e.log.Print(log.Error, err.Error())
	if e.log.FD != 2 {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// growStack makes the caller's stack as large as a start needs, in one step and while there is little on it: it would be
// doubled time and again, and each time all frames looked up in tables whose pages have never been touched.
//
//go:noinline
func growStack(touch bool) {
	if touch {
		var room [24 << 10]byte
		fill(&room)
	}
}

//go:noinline
func fill(b *[24 << 10]byte) { b[0] = 1 }

// preserves says whether a command line asks for descriptors to be passed on.
func preserves(argv []string) bool {
	if os.Getenv("LISTEN_FDS") != "" {
		return true
	}
	for _, a := range argv {
		if strings.HasPrefix(strings.TrimLeft(a, "-"), "preserve-fds") {
			return true
		}
	}
	return false
}

func globalFlags(c *config.Config) *flagSet {
	f := &flagSet{stop: true}
	f.boolean(&c.Debug, "debug", "log what happens, with the time that each phase of a start takes")
	f.str(&c.Log, "log", "set the log file to write runsc logs to (default is '/dev/stderr')")
	f.str(&c.LogFormat, "log-format", "set the log format ('text' (default), or 'json')")
	f.str(&c.Root, "root", "root directory for storage of container state (default: \"/run/runsc\")")
	f.boolean(&c.SystemdCgroup, "systemd-cgroup", "expect cgroupsPath to be of form \"slice:prefix:name\"")
	f.add("rootless", "", "do without privileges on the host ('true', 'false', or 'auto')", func(v string) error { c.Rootless = v; return nil })
	f.str(&c.Platform, "platform", "how application code is run and intercepted: 'systrap' or 'ptrace' (default: \""+c.Platform+"\")")
	f.str(&c.Overlay, "overlay", "where changes to the root filesystem go: 'none' (to itself), 'memory', or 'file:DIR' (default: \""+c.Overlay+"\")")
	f.str(&c.Network, "network", "'sandbox' (a network stack of the container's own), 'host', or 'none' (default: \""+c.Network+"\")")
	f.str(&c.FileAccess, "file-access", "'exclusive' when only the container changes its root filesystem, or 'shared' (default: \""+c.FileAccess+"\")")
	f.boolean(&c.Strace, "strace", "log the system calls of the application to the debug log")
	f.str(&c.DebugLog, "debug-log", "file for the logs of the sandbox; a directory when it ends in '/'")
	return f
}

// dispatch finds and runs the verb.
func (e *env) dispatch(args []string) error {
	version := false
	g := globalFlags(e.conf)
	g.boolean(&version, "version,v", "print the version")
	rest, err := g.parse(args)
	if _, help := err.(errHelp); help || err == nil && len(rest) == 0 && !version {
		printHelp(g)
		return nil
	}
	if err != nil {
		fmt.Printf("Incorrect Usage. %v\n\n", err)
		printHelp(g)
		return err
	}
	if version {
		fmt.Printf("runsc version %s\nspec: %s\n", Version, specs.Version)
		return nil
	}
	if err := e.setUp(); err != nil {
		return err
	}
	if rest[0] == "help" || rest[0] == "h" {
		return helpFor(g, rest[1:])
	}
	c := findCommand(rest[0])
	if c == nil {
		return &exitError{3, fmt.Errorf("No help topic for '%s'", rest[0])}
	}
	return e.invoke(c, rest[1:])
}

// setUp validates the global flags and opens the log.
func (e *env) setUp() error {
	if err := e.conf.Check(); err != nil {
		return err
	}
	if e.conf.Debug {
		e.log.Level = log.Debug
	}
	e.log.JSON = e.conf.LogFormat == "json"
	if e.conf.Log != "" {
		fd, err := unix.Open(e.conf.Log, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC, 0o644)
		if err != nil {
			e.log.JSON = false
			return &os.PathError{Op: "open", Path: e.conf.Log, Err: err}
		}
		e.log.FD = fd
	}
	return nil
}

func findCommand(name string) *command {
	for _, c := range commands() {
		if c.name == name {
			return &c
		}
	}
	return nil
}

// invoke parses a verb's flags and runs it.
func (e *env) invoke(c *command, args []string) error {
	f := &flagSet{stop: c.stop}
	run := c.setup(f)
	rest, err := f.parse(args)
	if _, help := err.(errHelp); help {
		fmt.Print(c.help(f))
		return nil
	}
	if err != nil {
		fmt.Printf("Incorrect Usage: %v\n\n%s\n", err, c.help(f))
		return err
	}
	if len(rest) < c.min || c.max >= 0 && len(rest) > c.max {
		want := fmt.Sprintf("exactly %d argument(s)", c.min)
		if c.max < 0 || c.max > c.min {
			want = fmt.Sprintf("a minimum of %d argument(s)", c.min)
			if len(rest) > c.min {
				want = fmt.Sprintf("a maximum of %d argument(s)", c.max)
			}
		}
		fmt.Printf("Incorrect Usage.\n\n%s\n", c.help(f))
		return fmt.Errorf("runsc: %q requires %s", c.name, want)
	}
	return run(e, rest)
}

func (c *command) help(f *flagSet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "NAME:\n   runsc %s - %s\n\nUSAGE:\n   runsc %s", c.name, c.summary, c.name)
	if len(f.flags) > 0 {
		b.WriteString(" [command options]")
	}
	if c.args != "" {
		b.WriteString(" " + c.args)
	}
	b.WriteString("\n")
	if c.text != "" {
		b.WriteString("\nDESCRIPTION:\n" + strings.TrimRight(c.text, "\n") + "\n")
	}
	if len(f.flags) > 0 {
		b.WriteString("\nOPTIONS:\n" + f.help())
	}
	return b.String()
}

func helpFor(g *flagSet, args []string) error {
	if len(args) == 1 && args[0] == "syscalls" {
		os.Stdout.WriteString(syscallsPage())
		return nil
	}
	if len(args) == 0 {
		printHelp(g)
		return nil
	}
	c := findCommand(args[0])
	if c == nil {
		return &exitError{3, fmt.Errorf("No help topic for '%s'", args[0])}
	}
	f := &flagSet{}
	c.setup(f)
	fmt.Print(c.help(f))
	return nil
}

func printHelp(g *flagSet) {
	var b strings.Builder
	fmt.Fprintf(&b, "NAME:\n   runsc - Open Container Initiative runtime\n\n%s\nUSAGE:\n   runsc [global options] command [command options] [arguments...]\n\nVERSION:\n   %s\n\nCOMMANDS:\n", about, Version)
	for _, c := range commands() {
		if !c.hidden {
			fmt.Fprintf(&b, "   %-10s  %s\n", c.name, c.summary)
		}
	}
	fmt.Fprintf(&b, "   %-10s  %s\n", "help", "show the help of a command, or (help syscalls) the table of system calls")
	b.WriteString("\nGLOBAL OPTIONS:\n" + g.help())
	os.Stdout.WriteString(b.String())
}

// bundlePath makes a bundle's path absolute.
func bundlePath(bundle string) (string, error) {
	abs, err := filepath.Abs(bundle)
	if err != nil {
		return "", err
	}
	if err := unix.Access(abs, unix.X_OK); err != nil {
		return "", &os.PathError{Op: "chdir", Path: bundle, Err: err}
	}
	return abs, nil
}

const idText = `Where "<container-id>" is your name for the instance of the container that you
are starting. The name you provide for the container instance must be unique on
your host.
`
