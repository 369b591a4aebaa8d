package cmd

import (
	"fmt"

	"husk/runsc/container"
)

// createFlags are the flags that create and run share.
type createFlags struct {
	bundle, consoleSocket, pidFile string
	noPivot, noKeyring             bool
	preserve                       int
}

func (c *createFlags) add(f *flagSet) {
	f.str(&c.bundle, "bundle,b", "path to the root of the bundle directory, defaults to the current directory")
	f.str(&c.consoleSocket, "console-socket", "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal")
	f.str(&c.pidFile, "pid-file", "specify the file to write the process id to")
	f.boolean(&c.noPivot, "no-pivot", "accepted for compatibility: the application's root is never one of the host's")
	f.boolean(&c.noKeyring, "no-new-keyring", "accepted for compatibility: the application never sees a keyring of the host")
	f.num(&c.preserve, 0, "preserve-fds", "Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)")
}

// options loads the bundle.
func (c *createFlags) options(e *env, id string) (*container.Options, error) {
	bundle, err := bundlePath(c.bundle)
	if err != nil {
		return nil, err
	}
	e.time.Mark("flags parsed")
	spec, err := container.LoadSpec(bundle)
	if err != nil {
		return nil, err
	}
	e.time.Mark("config.json loaded")
	return &container.Options{
		Conf: e.conf, Log: e.log, Time: e.time,
		ID: id, Bundle: bundle, Spec: spec,
		PIDFile: c.pidFile, ConsoleSocket: c.consoleSocket, PreserveFDs: c.preserve, Inherited: e.inherited,
	}, nil
}

func createCommand() command {
	return command{
		name: "create", args: "<container-id>", summary: "create a container", min: 1, max: 1,
		text: idText + `
The create command creates an instance of a container for a bundle: its sandbox
runs and everything is ready, but the process of the specification has not
started. The start command does that.
`,
		setup: func(f *flagSet) func(*env, []string) error {
			c := &createFlags{}
			c.add(f)
			return func(e *env, args []string) error {
				if err := c.create(e, args[0]); err != nil {
					return fmt.Errorf("runsc create failed: %w", err)
				}
				return nil
			}
		},
	}
}

func (c *createFlags) create(e *env, id string) error {
	if err := container.CheckID(id); err != nil {
		return err
	}
	o, err := c.options(e, id)
	if err != nil {
		return err
	}
	o.Detach = true
	n, err := container.Create(o)
	if err != nil {
		return err
	}
	return n.Release()
}
