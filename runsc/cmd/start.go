package cmd

import "husk/runsc/container"

func startCommand() command {
	return command{
		name: "start", args: "<container-id>", summary: "executes the user defined process in a created container", min: 1, max: 1,
		setup: func(f *flagSet) func(*env, []string) error {
			return func(e *env, args []string) error {
				return withContainer(e, args[0], func(c *container.Container) error { return c.StartInit(e.log) })
			}
		},
	}
}

// withContainer runs an operation that changes a container.
func withContainer(e *env, id string, f func(*container.Container) error) error {
	c, err := container.Load(e.conf.Root, id, true)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}
