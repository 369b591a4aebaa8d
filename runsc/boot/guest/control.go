package guest

import (
	"bytes"
	"cmp"
	"fmt"
	"sort"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/fsimpl/devpts"
	"husk/pkg/sentry/fsimpl/proc"
	"husk/runsc/boot"
)

// maxCommandLine bounds what ps shows of a command line, maxCommandLines of all of them together: they fit into one message.
const (
	maxCommandLine  = 4096
	maxCommandLines = 8 << 20
)

// Processes implements boot.Kernel.
func (g *Guest) Processes(id string) ([]boot.ProcessInfo, error) {
	c, err := g.find(id)
	if err != nil {
		return nil, err
	}
	ns := c.ct.PIDNS()
	sinceBoot := clock.Now(unix.CLOCK_REALTIME) - clock.Now(unix.CLOCK_BOOTTIME)
	var out []boot.ProcessInfo
	groups := c.ct.Groups(nil)
	limit := min(maxCommandLine, maxCommandLines/max(1, len(groups)))
	for _, tg := range groups {
		t := tg.Leader()
		if t == nil || tg.Exited() {
			continue // zombies are in no cgroup, and so not in runc's list either
		}
		use := tg.Usage()
		info := boot.ProcessInfo{
			PID: tg.IDIn(ns), PPID: tg.ParentIDIn(ns), Threads: uint32(tg.NumThreads()), UID: uint32(t.Credentials().EUID), State: t.State(),
			CPU: use.UTime + use.STime, Start: t.StartTime() + sinceBoot, TTY: "?",
		}
		if tty := tg.PlacementIn(ns).TTY; unix.Major(tty) == devpts.Major {
			info.TTY = fmt.Sprintf("pts/%d", unix.Minor(tty))
		}
		args := []byte(nil)
		if live := tg.AnyTask(); live != nil {
			if m := live.MM(); m != nil {
				args = bytes.TrimRight(proc.CommandLine(m, limit), "\x00")
			}
		}
		if info.Args = string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})); info.Args == "" {
			info.Args = "[" + t.Name() + "]"
		}
		out = append(out, info)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].PID < out[j].PID })
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

// Update implements boot.Kernel.
func (g *Guest) Update(id string, l *boot.Limits) error {
	c, err := g.find(id)
	if err != nil {
		return err
	}
	none := func(n int64) int64 { return max(n, 0) } // -1 is no limit, which the kernel's 0 is
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.PIDs != 0 {
		c.ct.SetPIDsLimit(none(l.PIDs))
	}
	r := c.ct.Resources()
	if l.Memory != 0 {
		r.Memory = none(l.Memory)
		if id == g.first {
			g.mf.SetLimit(uint64(r.Memory))
			g.k.SetTotalMemory(uint64(r.Memory))
			g.sizeCache()
		}
	}
	if l.CPUQuota != 0 {
		r.CPUQuota = none(l.CPUQuota)
	}
	r.CPUPeriod = cmp.Or(l.CPUPeriod, r.CPUPeriod)
	r.CPUShares = cmp.Or(l.CPUShares, r.CPUShares)
	r.CPUs, r.Mems = cmp.Or(l.CPUs, r.CPUs), cmp.Or(l.Mems, r.Mems)
	c.ct.SetResources(r)
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
