package cmd

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"husk/pkg/log"
	"husk/runsc/container"
)

func runCommand() command {
	return command{
		name: "run", args: "<container-id>", summary: "create and run a container", min: 1, max: 1,
		text: idText + `
The run command creates a container, starts it, and waits for its process unless
it is told to detach. Its exit code is that of the process.
`,
		setup: func(f *flagSet) func(*env, []string) error {
			c := &createFlags{}
			var detach, keep, noSubreaper bool
			c.add(f)
			f.boolean(&detach, "detach,d", "detach from the container's process")
			f.boolean(&keep, "keep", "do not delete the container after it exits")
			f.boolean(&noSubreaper, "no-subreaper", "accepted for compatibility: processes of the container are never reparented to the host")
			return func(e *env, args []string) error {
				code, err := c.run(e, args[0], detach, keep)
				if err != nil {
					return fmt.Errorf("runsc run failed: %w", err)
				}
				return exitCode(code)
			}
		},
	}
}

// exitCode is the error that ends a command with an exit code, nil for 0.
func exitCode(code int) error {
	if code == 0 {
		return nil
	}
	return &exitError{code: code}
}

func (c *createFlags) run(e *env, id string, detach, keep bool) (int, error) {
	if err := container.CheckID(id); err != nil {
		return 0, err
	}
	o, err := c.options(e, id)
	if err != nil {
		return 0, err
	}
	o.Detach, o.Start = detach, true
	return runContainer(e, o, keep)
}

// runContainer creates and starts a container, and unless it detaches, waits for its end and deletes it.
func runContainer(e *env, o *container.Options, keep bool) (int, error) {
	// From here on signals are for the container.
	sigs := make(chan os.Signal, 64)
	if !o.Detach {
		signal.Notify(sigs, forwarded()...)
	}
	n, err := container.Create(o)
	if err != nil {
		return 0, err
	}
	if !n.Started {
		if err := n.StartInit(e.log); err != nil {
			n.Destroy()
			return 0, err
		}
	} else {
		n.PostStart(e.log)
	}
	if o.Detach {
		return 0, n.Release()
	}
	n.Close() // other commands may have it while it runs
	e.time.Print(e.log)
	var tty *console
	if n.Terminal >= 0 {
		tty = attachConsole(n.Terminal)
	}
	go forwardSignals(sigs, tty, func(sig int) { n.Signal(sig, 0, false) })
	ws := n.Wait()
	e.time.Mark("sandbox ended")
	tty.finish()
	if w := n.LastWords(); w != "" {
		e.log.Print(log.Error, "sandbox: "+w)
	}
	if !keep {
		if err := n.Reap(e.log); err != nil {
			return 0, err
		}
		e.time.Mark("container deleted")
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

// forwarded are the signals that a foreground command passes on.
func forwarded() []os.Signal {
	return []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT, unix.SIGWINCH}
}

// forwardSignals passes signals on; a change of the terminal's size goes to the container's.
func forwardSignals(sigs <-chan os.Signal, tty *console, send func(sig int)) {
	for s := range sigs {
		if s == unix.SIGWINCH {
			tty.resize()
			continue
		}
		send(int(s.(syscall.Signal)))
	}
}
