package kernel

import (
	"sync"

	"husk/pkg/sentry/vfs"
)

// freezer is whether a container's tasks may run application code.
type freezer struct {
	mu   sync.Mutex
	thaw chan struct{} // protected by mu: closed by Thaw; nil unless frozen
}

// frozen returns the channel that Thaw closes; nil unless the container is frozen.
func (f *freezer) frozen() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.thaw
}

// Freeze keeps the container's tasks from running application code, without a trace in them (freezer in cgroups(7)). System
// calls that have begun go on; SIGKILL still ends a task.
func (c *Container) Freeze() {
	c.freezer.mu.Lock()
	if c.freezer.thaw == nil {
		c.freezer.thaw = make(chan struct{})
	}
	c.freezer.mu.Unlock()
	// A task that is made meanwhile looks at the freezer when it starts.
	for _, tg := range c.Groups(nil) {
		for _, t := range tg.Tasks(nil) {
			t.setWork(workFreeze)
		}
	}
}

// Thaw lets the tasks go on.
func (c *Container) Thaw() {
	c.freezer.mu.Lock()
	defer c.freezer.mu.Unlock()
	if c.freezer.thaw != nil {
		close(c.freezer.thaw)
		c.freezer.thaw = nil
	}
}

// Frozen tells whether Freeze has been called.
func (c *Container) Frozen() bool { return c.freezer.frozen() != nil }

// waitThaw waits while the container is frozen, unless the task is killed.
func (t *Task) waitThaw() {
	for ch := t.ct.freezer.frozen(); ch != nil; ch = t.ct.freezer.frozen() {
		if t.BlockKillable(ch, vfs.NoDeadline) != nil {
			return
		}
	}
}
