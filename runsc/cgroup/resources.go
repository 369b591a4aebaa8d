package cgroup

import (
	"errors"
	"fmt"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// minMemory is the least memory limit that is passed on to the host: the sentry itself lives on it
// too, and an application that needs less than this would otherwise kill it.
const minMemory = 32 << 20

// pidSlack is by how much the host's limit of tasks exceeds the container's, on top of doubling it.
// The sentry counts the container's tasks itself; the host's limit bounds what
// a broken sentry can do, and must not hit the sentry's own threads.
const pidSlack = 512

// HostPIDs is the limit of host tasks for a container's limit of tasks.
func HostPIDs(limit int64) int64 { return 2*limit + pidSlack }

// setting is a value for a file of a controller; an optional one is left out where the host has no such file.
type setting struct {
	controller, file, value string
	optional                bool
}

// isV2 says whether the limits are those of the unified hierarchy.
func (p *Paths) isV2() bool {
	return len(p.V1) == 0 || p.V1["memory"] == "" && p.V1["cpu"] == "" && p.V1["pids"] == ""
}

// Apply sets the limits. With lenient, what cannot be set is left out.
func (p *Paths) Apply(r *specs.LinuxResources, lenient bool) error {
	if r == nil {
		return nil
	}
	list, err := p.settings(r)
	if err != nil {
		return err
	}
	for _, s := range list {
		if err := p.set(s); err != nil && !lenient {
			return err
		}
	}
	return nil
}

func (p *Paths) settings(r *specs.LinuxResources) ([]setting, error) {
	if p.isV2() {
		return unified(r)
	}
	return version1(r)
}

func (p *Paths) set(s setting) error {
	dir := p.V2
	if !p.isV2() {
		dir = p.V1[s.controller]
	}
	err := errNoController
	if dir != "" {
		err = write(dir, s.file, s.value)
	}
	if s.optional && errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cgroup limit %s=%s: %w", s.file, s.value, err)
	}
	return nil
}

func memoryValue(n int64) string {
	if n > 0 && n < minMemory {
		n = minMemory
	}
	return strconv.FormatInt(n, 10)
}

func version1(r *specs.LinuxResources) (list []setting, err error) {
	add := func(controller, file, value string) { list = append(list, setting{controller, file, value, false}) }
	if m := r.Memory; m != nil {
		if m.Limit != nil && *m.Limit != 0 {
			add("memory", "memory.limit_in_bytes", memoryValue(*m.Limit))
		}
		if m.Swap != nil && *m.Swap != 0 {
			if m.Limit != nil && *m.Swap > 0 && *m.Swap < *m.Limit {
				return nil, fmt.Errorf("memory+swap limit %d is below the memory limit %d", *m.Swap, *m.Limit)
			}
			add("memory", "memory.memsw.limit_in_bytes", memoryValue(*m.Swap))
		}
		if m.Reservation != nil && *m.Reservation != 0 {
			add("memory", "memory.soft_limit_in_bytes", strconv.FormatInt(*m.Reservation, 10))
		}
		if m.Swappiness != nil {
			if *m.Swappiness > 100 {
				return nil, fmt.Errorf("invalid memory swappiness value %d (0 to 100)", *m.Swappiness)
			}
			add("memory", "memory.swappiness", strconv.FormatUint(*m.Swappiness, 10))
		}
		if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
			add("memory", "memory.oom_control", "1")
		}
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 {
			add("cpu", "cpu.shares", strconv.FormatUint(*c.Shares, 10))
		}
		if c.Period != nil && *c.Period != 0 {
			add("cpu", "cpu.cfs_period_us", strconv.FormatUint(*c.Period, 10))
		}
		if c.Quota != nil && *c.Quota != 0 {
			add("cpu", "cpu.cfs_quota_us", strconv.FormatInt(*c.Quota, 10))
		}
		if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
			add("cpu", "cpu.rt_period_us", strconv.FormatUint(*c.RealtimePeriod, 10))
		}
		if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
			add("cpu", "cpu.rt_runtime_us", strconv.FormatInt(*c.RealtimeRuntime, 10))
		}
		if c.Cpus != "" {
			add("cpuset", "cpuset.cpus", c.Cpus)
		}
		if c.Mems != "" {
			add("cpuset", "cpuset.mems", c.Mems)
		}
	}
	if n, ok := pidsLimit(r); ok {
		add("pids", "pids.max", n)
	}
	if b := r.BlockIO; b != nil {
		if b.Weight != nil && *b.Weight != 0 {
			// It is there with one of the host's I/O schedulers only.
			list = append(list, setting{"blkio", "blkio.bfq.weight", strconv.Itoa(int(*b.Weight)), true})
		}
		throttle := func(file string, devs []specs.LinuxThrottleDevice) {
			for _, d := range devs {
				add("blkio", file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate))
			}
		}
		throttle("blkio.throttle.read_bps_device", b.ThrottleReadBpsDevice)
		throttle("blkio.throttle.write_bps_device", b.ThrottleWriteBpsDevice)
		throttle("blkio.throttle.read_iops_device", b.ThrottleReadIOPSDevice)
		throttle("blkio.throttle.write_iops_device", b.ThrottleWriteIOPSDevice)
	}
	return list, nil
}

func pidsLimit(r *specs.LinuxResources) (string, bool) {
	if r.Pids == nil || r.Pids.Limit == nil || *r.Pids.Limit == 0 {
		return "", false
	}
	n := *r.Pids.Limit
	if n < 0 || n > 1<<22 { // beyond PID_MAX_LIMIT, proc(5)
		return "max", true
	}
	return strconv.FormatInt(HostPIDs(n), 10), true
}

func unified(r *specs.LinuxResources) (list []setting, err error) {
	add := func(file, value string) { list = append(list, setting{"", file, value, false}) }
	orMax := func(n int64) string {
		if n < 0 {
			return "max"
		}
		return memoryValue(n)
	}
	if m := r.Memory; m != nil {
		if m.Limit != nil && *m.Limit != 0 {
			add("memory.max", orMax(*m.Limit))
		}
		if m.Swap != nil && *m.Swap != 0 {
			swap := *m.Swap
			if swap > 0 && m.Limit != nil && *m.Limit > 0 {
				if swap < *m.Limit {
					return nil, fmt.Errorf("memory+swap limit %d is below the memory limit %d", swap, *m.Limit)
				}
				// The unified hierarchy counts swap alone.
				add("memory.swap.max", strconv.FormatInt(swap-*m.Limit, 10))
			} else if swap < 0 {
				add("memory.swap.max", "max")
			}
		}
		if m.Reservation != nil && *m.Reservation != 0 {
			add("memory.low", orMax(*m.Reservation))
		}
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares >= 2 {
			// The conversion that the kernel's documentation of cpu.weight implies: [2, 262144] to [1, 10000].
			add("cpu.weight", strconv.FormatUint(1+(min(*c.Shares, 262144)-2)*9999/262142, 10))
		}
		if c.Quota != nil && *c.Quota != 0 || c.Period != nil && *c.Period != 0 {
			v := "max"
			if c.Quota != nil && *c.Quota > 0 {
				v = strconv.FormatInt(*c.Quota, 10)
			}
			period := uint64(100000)
			if c.Period != nil && *c.Period != 0 {
				period = *c.Period
			}
			add("cpu.max", v+" "+strconv.FormatUint(period, 10))
		}
		if c.Cpus != "" {
			add("cpuset.cpus", c.Cpus)
		}
		if c.Mems != "" {
			add("cpuset.mems", c.Mems)
		}
	}
	if n, ok := pidsLimit(r); ok {
		add("pids.max", n)
	}
	if b := r.BlockIO; b != nil && b.Weight != nil && *b.Weight != 0 {
		list = append(list, setting{"", "io.bfq.weight", strconv.Itoa(int(*b.Weight)), true})
	}
	for k, v := range r.Unified {
		add(k, v)
	}
	return list, nil
}
