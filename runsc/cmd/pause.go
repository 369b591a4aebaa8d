package cmd

import "husk/runsc/container"

func pauseCommand() command {
	return command{
		name: "pause", args: "<container-id>", summary: "pause suspends all processes inside the container", min: 1, max: 1,
		setup: func(f *flagSet) func(*env, []string) error {
			return func(e *env, args []string) error { return withContainer(e, args[0], (*container.Container).Pause) }
		},
	}
}

func resumeCommand() command {
	return command{
		name: "resume", args: "<container-id>", summary: "resumes all processes that have been previously paused", min: 1, max: 1,
		setup: func(f *flagSet) func(*env, []string) error {
			return func(e *env, args []string) error {
				return withContainer(e, args[0], (*container.Container).Resume)
			}
		},
	}
}
