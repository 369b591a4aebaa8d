package guest

import (
	"bytes"
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
		if t == nil {
			continue
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
		switch {
		case tg.Exited():
			info.Args = "[" + t.Name() + "] <defunct>"
		case len(args) == 0:
			info.Args = "[" + t.Name() + "]"
		default:
			info.Args = string(bytes.ReplaceAll(args, []byte{0}, []byte{' '}))
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
