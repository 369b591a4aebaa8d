package cmd

import (
	"encoding/json"
	"errors"
	"os"
	"time"

	"husk/runsc/cgroup"
	"husk/runsc/container"
)

// event is a line of the events command.
type event struct {
	Type string        `json:"type"`
	ID   string        `json:"id"`
	Data *cgroup.Stats `json:"data,omitempty"`
}

func eventsCommand() command {
	return command{
		name: "events", args: "<container-id>", min: 1, max: 1,
		summary: "display container events such as cpu, memory, and IO usage statistics",
		text: `The events command displays information about the container, a line of JSON at
a time, until the container ends.
`,
		setup: func(f *flagSet) func(*env, []string) error {
			interval, once := 5*time.Second, false
			f.duration(&interval, "interval", "set the stats collection interval (default: 5s)")
			f.boolean(&once, "stats", "display the container's stats then exit")
			return func(e *env, args []string) error { return events(e, args[0], interval, once) }
		},
	}
}

func events(e *env, id string, interval time.Duration, once bool) error {
	enc := json.NewEncoder(os.Stdout)
	for first := true; ; first = false {
		c, err := container.Load(e.conf.Root, id, false)
		if errors.Is(err, container.ErrNotExist) && !first {
			return nil
		}
		if err != nil {
			return err
		}
		if c.CurrentStatus() == container.Stopped {
			if first {
				return container.ErrNotRunning
			}
			return nil
		}
		s, err := c.Stats()
		if err != nil {
			return err
		}
		if err := enc.Encode(event{"stats", id, s}); err != nil || once {
			return err
		}
		time.Sleep(interval)
	}
}
