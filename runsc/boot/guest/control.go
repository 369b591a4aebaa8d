package guest

import (
	"husk/runsc/boot"
)

// Processes implements boot.Kernel.
func (g *Guest) Processes(id string) ([]boot.ProcessInfo, error) {
	c, err := g.find(id)
	if err != nil {
		return nil, err
	}
	ns := c.ct.PIDNS()
	var out []boot.ProcessInfo
	for _, tg := range c.ct.Groups(nil) {
		if tg.Exited() {
			continue
		}
		use := tg.Usage()
		t := tg.AnyTask()
		if t == nil {
			continue
		}
		out = append(out, boot.ProcessInfo{
			PID: tg.IDIn(ns), PPID: tg.ParentIDIn(ns), Threads: uint32(tg.NumThreads()), UID: uint32(t.Credentials().RUID), State: 'S',
			CPU: use.UTime + use.STime, TTY: "?", Args: t.Name(),
		})
	}
	return out, nil
}

// Pause implements boot.Kernel.
func (g *Guest) Pause(id string) error {
	c, err := g.find(id)
	if err == nil {
		c.ct.Freeze()
	}
	return err
}

// Resume implements boot.Kernel.
func (g *Guest) Resume(id string) error {
	c, err := g.find(id)
	if err == nil {
		c.ct.Thaw()
	}
	return err
}

// Resize implements boot.Kernel.
func (g *Guest) Resize(id string, pid int32, rows, cols uint16) error {
	_, p, err := g.process(id, pid)
	if err != nil || p.tty == nil {
		return err
	}
	p.tty.Resize(rows, cols)
	return nil
}

// Stats implements boot.Kernel.
func (g *Guest) Stats(id string) (boot.Stats, error) {
	c, err := g.find(id)
	if err != nil {
		return boot.Stats{}, err
	}
	n, _, _ := c.ct.PIDs()
	s := boot.Stats{Processes: uint64(n), Memory: g.mf.Allocated()}
	return s, nil
}
