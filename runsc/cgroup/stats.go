package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stats are a container's figures in the form that engines know from runc's events.
type Stats struct {
	CPU    CPUStats    `json:"cpu"`
	Memory MemoryStats `json:"memory"`
	Pids   PidsStats   `json:"pids"`
}

// CPUStats are times in nanoseconds.
type CPUStats struct {
	Usage      CPUUsage   `json:"usage"`
	Throttling Throttling `json:"throttling"`
}

// CPUUsage is processor time used.
type CPUUsage struct {
	Total  uint64   `json:"total,omitempty"`
	Percpu []uint64 `json:"percpu,omitempty"`
	// PercpuKernel and PercpuUser divide it.
	PercpuKernel []uint64 `json:"percpu_kernel,omitempty"`
	PercpuUser   []uint64 `json:"percpu_user,omitempty"`
	Kernel       uint64   `json:"kernel"`
	User         uint64   `json:"user"`
}

// Throttling counts what a CPU quota did.
type Throttling struct {
	Periods          uint64 `json:"periods,omitempty"`
	ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
	ThrottledTime    uint64 `json:"throttledTime,omitempty"`
}

// MemoryStats are sizes in bytes.
type MemoryStats struct {
	Cache  uint64      `json:"cache,omitempty"`
	Usage  MemoryEntry `json:"usage,omitempty"`
	Swap   MemoryEntry `json:"swap,omitempty"`
	Kernel MemoryEntry `json:"kernel,omitempty"`
	// KernelTCP is what the buffers of TCP sockets take.
	KernelTCP MemoryEntry       `json:"kernelTCP,omitempty"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
}

// MemoryEntry is one kind of memory.
type MemoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// PidsStats counts tasks.
type PidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// Stats reads the figures; what the host does not account for stays 0.
func (p *Paths) Stats() *Stats {
	s := new(Stats)
	if len(p.V1) > 0 {
		p.statsV1(s)
	} else if p.V2 != "" {
		p.statsV2(s)
	}
	return s
}

// clockTick is the unit of cpuacct.stat: USER_HZ is 100 on every architecture that matters.
const clockTick = 1e9 / 100

func (p *Paths) statsV1(s *Stats) {
	num := func(c, f string) uint64 {
		n, _ := readInt(p.V1[c], f)
		return n
	}
	s.CPU.Usage.Total = num("cpuacct", "cpuacct.usage")
	perCPU := func(file string) (out []uint64) {
		text, _ := os.ReadFile(filepath.Join(p.V1["cpuacct"], file))
		for _, f := range strings.Fields(string(text)) {
			n, _ := strconv.ParseUint(f, 10, 64)
			out = append(out, n)
		}
		return out
	}
	s.CPU.Usage.Percpu = perCPU("cpuacct.usage_percpu")
	s.CPU.Usage.PercpuKernel, s.CPU.Usage.PercpuUser = perCPU("cpuacct.usage_percpu_sys"), perCPU("cpuacct.usage_percpu_user")
	t := readTable(p.V1["cpuacct"], "cpuacct.stat")
	s.CPU.Usage.User, s.CPU.Usage.Kernel = t["user"]*clockTick, t["system"]*clockTick
	t = readTable(p.V1["cpu"], "cpu.stat")
	s.CPU.Throttling = Throttling{t["nr_periods"], t["nr_throttled"], t["throttled_time"]}
	entry := func(prefix string) MemoryEntry {
		return MemoryEntry{
			Limit: num("memory", prefix+"limit_in_bytes"), Usage: num("memory", prefix+"usage_in_bytes"),
			Max: num("memory", prefix+"max_usage_in_bytes"), Failcnt: num("memory", prefix+"failcnt"),
		}
	}
	s.Memory.Usage, s.Memory.Swap, s.Memory.Kernel = entry("memory."), entry("memory.memsw."), entry("memory.kmem.")
	s.Memory.KernelTCP = entry("memory.kmem.tcp.")
	s.Memory.Raw = readTable(p.V1["memory"], "memory.stat")
	s.Memory.Cache = s.Memory.Raw["cache"]
	s.Pids.Current = num("pids", "pids.current")
	if l := num("pids", "pids.max"); l != ^uint64(0) {
		s.Pids.Limit = l
	}
}

func (p *Paths) statsV2(s *Stats) {
	num := func(f string) uint64 {
		n, _ := readInt(p.V2, f)
		return n
	}
	t := readTable(p.V2, "cpu.stat")
	s.CPU.Usage.Total, s.CPU.Usage.User, s.CPU.Usage.Kernel = t["usage_usec"]*1000, t["user_usec"]*1000, t["system_usec"]*1000
	s.CPU.Throttling = Throttling{t["nr_periods"], t["nr_throttled"], t["throttled_usec"] * 1000}
	s.Memory.Usage = MemoryEntry{Limit: num("memory.max"), Usage: num("memory.current"), Max: num("memory.peak"),
		Failcnt: readTable(p.V2, "memory.events")["max"]}
	s.Memory.Swap = MemoryEntry{Limit: num("memory.swap.max"), Usage: num("memory.swap.current")}
	s.Memory.Raw = readTable(p.V2, "memory.stat")
	s.Memory.Cache = s.Memory.Raw["file"]
	s.Pids.Current = num("pids.current")
	if l := num("pids.max"); l != ^uint64(0) {
		s.Pids.Limit = l
	}
}

// readTable reads a file of lines with a name and a number.
func readTable(dir, file string) map[string]uint64 {
	data, _ := os.ReadFile(filepath.Join(dir, file))
	out := make(map[string]uint64)
	for _, line := range strings.Split(string(data), "\n") {
		if name, v, ok := strings.Cut(line, " "); ok {
			if n, err := strconv.ParseUint(v, 10, 64); err == nil {
				out[name] = n
			}
		}
	}
	return out
}
