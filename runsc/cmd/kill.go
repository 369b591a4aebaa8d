package cmd

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"husk/runsc/container"
)

func killCommand() command {
	return command{
		name: "kill", args: "<container-id> [signal]", min: 1, max: 2,
		summary: "kill sends the specified signal (default: SIGTERM) to the container's init process",
		text: `Where "[signal]" is the signal to be sent to the init process, by name or number.

For example, if the container id is "ubuntu01" the following will send a "KILL"
signal to the init process of the "ubuntu01" container:

       # runsc kill ubuntu01 KILL
`,
		setup: func(f *flagSet) func(*env, []string) error {
			all, pid := false, 0
			f.boolean(&all, "all,a", "send the specified signal to all processes inside the container")
			f.num(&pid, 0, "pid", "send the signal to the process with this id inside the container")
			return func(e *env, args []string) error {
				name := "SIGTERM"
				if len(args) == 2 {
					name = args[1]
				}
				sig, err := parseSignal(name)
				if err != nil {
					return err
				}
				c, err := container.Load(e.conf.Root, args[0], false)
				if err != nil {
					return err
				}
				return c.Signal(sig, pid, all)
			}
		},
	}
}

// parseSignal reads a signal as a number or a name with or without SIG.
func parseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > 64 {
			return 0, fmt.Errorf("unable to signal init: %w", unix.EINVAL)
		}
		return n, nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	for prefix, base := range map[string]int{"SIGRTMIN": 34, "SIGRTMAX": 64} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			off := 0
			if rest != "" {
				var err error
				if off, err = strconv.Atoi(rest); err != nil {
					break
				}
			}
			if n := base + off; n >= 34 && n <= 64 {
				return n, nil
			}
		}
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}
