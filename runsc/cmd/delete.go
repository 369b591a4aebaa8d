package cmd

import (
	"errors"

	"husk/runsc/container"
)

func deleteCommand() command {
	return command{
		name: "delete", args: "<container-id>", min: 1, max: 1,
		summary: "delete any resources held by the container often used with detached container",
		setup: func(f *flagSet) func(*env, []string) error {
			force := false
			f.boolean(&force, "force,f", "Forcibly deletes the container if it is still running (uses SIGKILL)")
			return func(e *env, args []string) error {
				err := withContainer(e, args[0], func(c *container.Container) error { return c.Delete(force, e.log) })
				if force && errors.Is(err, container.ErrNotExist) {
					return nil
				}
				return err
			}
		},
	}
}
