package cmd

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"time"

	"husk/runsc/container"
)

// stateOutput is what state and list print, with runc's extensions of the specification's state.
type stateOutput struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	PID         int               `json:"pid"`
	Status      container.Status  `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func newStateOutput(c *container.Container) *stateOutput {
	s := &stateOutput{
		Version: c.OCIVersion, ID: c.ID, PID: c.PID, Status: c.CurrentStatus(),
		Bundle: c.Bundle, Rootfs: c.Rootfs, Created: c.Created, Annotations: c.Annotations,
	}
	if s.Status == container.Stopped {
		s.PID = 0
	}
	return s
}

func stateCommand() command {
	return command{
		name: "state", args: "<container-id>", summary: "output the state of a container", min: 1, max: 1,
		setup: func(f *flagSet) func(*env, []string) error {
			return func(e *env, args []string) error {
				c, err := container.Load(e.conf.Root, args[0], false)
				if err != nil {
					return err
				}
				data, err := json.MarshalIndent(newStateOutput(c), "", "  ")
				if err != nil {
					return err
				}
				_, err = os.Stdout.Write(data)
				return err
			}
		},
	}
}

// ownerName is the name of a user of the host, or its number where it has none.
func ownerName(uid int) string {
	number := strconv.Itoa(uid)
	data, _ := os.ReadFile("/etc/passwd")
	for _, line := range strings.Split(string(data), "\n") {
		if f := strings.SplitN(line, ":", 4); len(f) == 4 && f[2] == number {
			return f[0]
		}
	}
	return "#" + number
}
