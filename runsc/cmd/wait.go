package cmd

import (
	"encoding/json"
	"os"

	"husk/runsc/container"
)

func waitCommand() command {
	return command{
		name: "wait", args: "<container-id>", summary: "wait for a process of a container and print its exit status", min: 1, max: 1,
		text: `Prints a line of JSON with the exit status, which is 128 and the number of the
signal for a process that a signal ended.
`,
		setup: func(f *flagSet) func(*env, []string) error {
			pid := 0
			f.num(&pid, 0, "pid", "process id inside the container (default: the container's first process)")
			return func(e *env, args []string) error {
				c, err := container.Load(e.conf.Root, args[0], false)
				if err != nil {
					return err
				}
				code, err := c.Wait(pid)
				if err != nil {
					return err
				}
				return json.NewEncoder(os.Stdout).Encode(struct {
					ID         string `json:"id"`
					PID        int    `json:"pid,omitempty"`
					ExitStatus int    `json:"exitStatus"`
				}{c.ID, pid, code})
			}
		},
	}
}
