package cmd

import (
	"fmt"
	"os"
	"strings"
	"time"

	"husk/runsc/boot"
	"husk/runsc/container"
)

func debugCommand() command {
	return command{
		name: "debug", args: "<container-id>", min: 1, max: 1,
		summary: "show what the sandbox of a running container is doing",
		text: `Takes profiles of the sandbox process, which "go tool pprof FILE" shows: of the
kernel that serves the application, and not of the application itself.
Containers that share a sandbox share its profiles.
`,
		setup: func(f *flagSet) func(*env, []string) error {
			d := debugFlags{duration: 10 * time.Second}
			f.str(&d.cpu, "profile-cpu", "write a profile of processor time to this file")
			f.duration(&d.duration, "duration", "how long to profile processor time (default: 10s)")
			f.str(&d.heap, "profile-heap", "write a profile of the heap to this file")
			f.boolean(&d.stacks, "stacks", "print the stacks of all goroutines")
			return func(e *env, args []string) error { return d.run(e, args[0]) }
		},
	}
}

type debugFlags struct {
	cpu, heap string
	duration  time.Duration
	stacks    bool
}

func (d *debugFlags) run(e *env, id string) error {
	if d.cpu == "" && d.heap == "" && !d.stacks {
		return fmt.Errorf("nothing to do: give --profile-cpu, --profile-heap or --stacks")
	}
	if d.duration > boot.MaxProfileTime {
		return fmt.Errorf("--duration is limited to %v", boot.MaxProfileTime)
	}
	c, err := container.Load(e.conf.Root, id, false)
	if err != nil {
		return err
	}
	if d.cpu != "" {
		if err := writeProfile(c, d.cpu, boot.ProfileCPU, d.duration); err != nil {
			return err
		}
	}
	if d.heap != "" {
		if err := writeProfile(c, d.heap, boot.ProfileHeap, 0); err != nil {
			return err
		}
	}
	if d.stacks {
		text, err := c.Profile(boot.ProfileStacks, 0)
		if err != nil {
			return err
		}
		_, err = os.Stdout.WriteString(printable(text))
		return err
	}
	return nil
}

// writeProfile writes a profile to a file, which it makes before it asks for the profile.
func writeProfile(c *container.Container, path string, what uint8, d time.Duration) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	data, err := c.Profile(what, d)
	if err == nil {
		_, err = f.WriteString(data)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// printable replaces what a terminal could take for a command: the text is the sandbox's.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r >= 0xa0) {
			return r
		}
		return '?'
	}, s)
}
