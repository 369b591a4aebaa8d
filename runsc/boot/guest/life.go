package guest

import (
	"golang.org/x/sys/unix"

	"husk/runsc/boot"
)

// errDying is the answer to who wants to add a process to a container that is being destroyed.
var errDying = &boot.Error{Code: boot.ErrState, Text: "the container is being destroyed"}

// find returns a container that has been created. One that is being destroyed is still found: its processes can be waited for.
func (g *Guest) find(id string) (*container, error) {
	g.mu.Lock()
	c := g.containers[id]
	g.mu.Unlock()
	if c != nil {
		c.life.RLock()
		defer c.life.RUnlock()
		if c.phase != inCreation {
			return c, nil
		}
	}
	return nil, &boot.Error{Code: boot.ErrNoContainer, Text: "container does not exist in the sandbox"}
}

// Create implements boot.Kernel.
func (g *Guest) Create(spec *boot.Container) error {
	c := &container{spec: spec, procs: map[int32]*process{}, gone: make(chan struct{})}
	if err := g.reserve(c); err != nil {
		closeFDs(&spec.Process)
		unix.Close(spec.Gofer)
		return err
	}
	c.life.Lock()
	err := g.create(c)
	if c.phase = alive; err != nil {
		c.phase = dying
	}
	c.life.Unlock()
	if err != nil {
		g.end(c)
	}
	return err
}

// reserve takes the container's ID. An engine that restarts a container may be faster than the end of the one before: that is waited for.
func (g *Guest) reserve(c *container) error {
	for {
		g.mu.Lock()
		old := g.containers[c.spec.ID]
		if old == nil {
			g.containers[c.spec.ID] = c
			g.mu.Unlock()
			return nil
		}
		g.mu.Unlock()
		old.life.RLock()
		live := old.phase == alive
		old.life.RUnlock()
		if live {
			return &boot.Error{Code: boot.ErrState, Text: "a container with the ID " + c.spec.ID + " exists in the sandbox"}
		}
		<-old.gone
	}
}

// Destroy implements boot.Kernel.
func (g *Guest) Destroy(id string) error {
	c, err := g.find(id)
	if err != nil {
		return err
	}
	c.life.Lock()
	first := c.phase == alive
	c.phase = dying
	c.life.Unlock()
	if !first {
		<-c.gone
		return nil
	}
	g.end(c)
	return nil
}

// end kills what runs in a dying container and frees it.
func (g *Guest) end(c *container) {
	// More than once, since a process may fork on its way out. Zombies are the business of whoever is their parent in a shared
	// PID namespace.
	for live := c.ct != nil; live; {
		live = false
		for _, tg := range c.ct.Groups(nil) {
			if !tg.Exited() {
				live = true
				tg.Kill()
				tg.WaitExited()
			}
		}
	}
	if c.ct != nil {
		g.k.RemoveContainer(c.spec.ID)
	}
	if c.ns != nil {
		c.ns.DecRef()
	}
	if c.gofer != nil {
		c.gofer.Shutdown()
	}
	g.mu.Lock()
	delete(g.containers, c.spec.ID)
	g.mu.Unlock()
	close(c.gone)
}
