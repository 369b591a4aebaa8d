package cgroupfs

import (
	"sort"
	"strconv"

	"husk/pkg/sentry/fsimpl/pseudo"

	"golang.org/x/sys/unix"
)

const pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"

// filesV2 are the files of the unified hierarchy.
var filesV2 = [...]file{
	{name: "cgroup.controllers", text: "cpuset cpu io memory pids\n"},
	{name: "cgroup.events", text: "populated 1\nfrozen 0\n"},
	{name: "cgroup.freeze", perm: 0644, text: "0\n"},
	{name: "cgroup.kill", perm: 0200},
	{name: "cgroup.max.depth", perm: 0644, text: "max\n"},
	{name: "cgroup.max.descendants", perm: 0644, text: "max\n"},
	{name: "cgroup.pressure", perm: 0644, text: "1\n"},
	{name: "cgroup.procs", perm: 0644, gen: genProcs, set: setProcs},
	{name: "cgroup.stat", text: "nr_descendants 0\nnr_dying_descendants 0\n"},
	{name: "cgroup.subtree_control", perm: 0644, text: "\n"},
	{name: "cgroup.threads", perm: 0644, gen: genThreads, set: setProcs},
	{name: "cgroup.type", perm: 0644, text: "domain\n"},
	{name: "cpu.idle", perm: 0644, text: "0\n"},
	{name: "cpu.max", perm: 0644, gen: genCPUMax},
	{name: "cpu.max.burst", perm: 0644, text: "0\n"},
	{name: "cpu.pressure", perm: 0644, text: pressure},
	{name: "cpu.stat", gen: genCPUStat},
	{name: "cpu.weight", perm: 0644, gen: genCPUWeight},
	{name: "cpu.weight.nice", perm: 0644, text: "0\n"},
	{name: "cpuset.cpus", perm: 0644, gen: genCPUSet},
	{name: "cpuset.cpus.effective", gen: genEffectiveCPUs},
	{name: "cpuset.cpus.partition", perm: 0644, text: "member\n"},
	{name: "cpuset.mems", perm: 0644, gen: genMems},
	{name: "cpuset.mems.effective", text: "0\n"},
	{name: "io.max", perm: 0644},
	{name: "io.pressure", perm: 0644, text: pressure},
	{name: "io.stat"},
	{name: "io.weight", perm: 0644, text: "default 100\n"},
	{name: "memory.current", gen: genMemoryUsage},
	{name: "memory.events", text: memoryEvents},
	{name: "memory.events.local", text: memoryEvents},
	{name: "memory.high", perm: 0644, text: "max\n"},
	{name: "memory.low", perm: 0644, text: "0\n"},
	{name: "memory.max", perm: 0644, gen: genMemoryMax},
	{name: "memory.min", perm: 0644, text: "0\n"},
	{name: "memory.oom.group", perm: 0644, text: "0\n"},
	{name: "memory.peak", gen: genMemoryUsage},
	{name: "memory.pressure", perm: 0644, text: pressure},
	{name: "memory.stat", gen: genMemoryStat},
	{name: "memory.swap.current", text: "0\n"},
	{name: "memory.swap.events", text: "high 0\nmax 0\nfail 0\n"},
	{name: "memory.swap.high", perm: 0644, text: "max\n"},
	{name: "memory.swap.max", perm: 0644, text: "0\n"},
	{name: "pids.current", gen: genPIDs},
	{name: "pids.events", text: "max 0\n"},
	{name: "pids.max", perm: 0644, gen: genPIDsMax},
	{name: "pids.peak", gen: genPIDsPeak},
}

const memoryEvents = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"

// filesV1 are the files of hierarchies of version 1, by controller.
var filesV1 = [...]file{
	{name: "cgroup.clone_children", perm: 0644, text: "0\n"},
	{name: "cgroup.procs", perm: 0644, gen: genProcs, set: setProcs},
	{name: "notify_on_release", perm: 0644, text: "0\n"},
	{name: "tasks", perm: 0644, gen: genThreads, set: setProcs},
	{"blkio", "blkio.throttle.io_service_bytes", 0444, "Total 0\n", nil, nil},
	{"blkio", "blkio.throttle.io_serviced", 0444, "Total 0\n", nil, nil},
	{"blkio", "blkio.throttle.read_bps_device", 0644, "", nil, nil},
	{"blkio", "blkio.throttle.read_iops_device", 0644, "", nil, nil},
	{"blkio", "blkio.throttle.write_bps_device", 0644, "", nil, nil},
	{"blkio", "blkio.throttle.write_iops_device", 0644, "", nil, nil},
	{"blkio", "blkio.weight", 0644, "500\n", nil, nil},
	{"cpu", "cpu.cfs_period_us", 0644, "", genPeriodV1, nil},
	{"cpu", "cpu.cfs_quota_us", 0644, "", genQuotaV1, nil},
	{"cpu", "cpu.rt_period_us", 0644, "1000000\n", nil, nil},
	{"cpu", "cpu.rt_runtime_us", 0644, "0\n", nil, nil},
	{"cpu", "cpu.shares", 0644, "", genSharesV1, nil},
	{"cpu", "cpu.stat", 0444, "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n", nil, nil},
	{"cpuacct", "cpuacct.stat", 0444, "", genAcctStatV1, nil},
	{"cpuacct", "cpuacct.usage", 0644, "", genAcctUsageV1, nil},
	{"cpuacct", "cpuacct.usage_percpu", 0444, "", genAcctPerCPUV1, nil},
	{"cpuset", "cpuset.cpu_exclusive", 0644, "0\n", nil, nil},
	{"cpuset", "cpuset.cpus", 0644, "", genEffectiveCPUs, nil},
	{"cpuset", "cpuset.effective_cpus", 0444, "", genEffectiveCPUs, nil},
	{"cpuset", "cpuset.effective_mems", 0444, "0\n", nil, nil},
	{"cpuset", "cpuset.mem_exclusive", 0644, "0\n", nil, nil},
	{"cpuset", "cpuset.mems", 0644, "0\n", nil, nil},
	{"cpuset", "cpuset.sched_load_balance", 0644, "1\n", nil, nil},
	{"devices", "devices.list", 0444, "a *:* rwm\n", nil, nil},
	{"freezer", "freezer.state", 0644, "THAWED\n", nil, nil},
	{"memory", "memory.failcnt", 0644, "0\n", nil, nil},
	{"memory", "memory.limit_in_bytes", 0644, "", genMemoryLimitV1, nil},
	{"memory", "memory.max_usage_in_bytes", 0644, "", genMemoryUsage, nil},
	{"memory", "memory.memsw.failcnt", 0644, "0\n", nil, nil},
	{"memory", "memory.memsw.limit_in_bytes", 0644, "", genMemoryLimitV1, nil},
	{"memory", "memory.memsw.max_usage_in_bytes", 0644, "", genMemoryUsage, nil},
	{"memory", "memory.memsw.usage_in_bytes", 0444, "", genMemoryUsage, nil},
	{"memory", "memory.move_charge_at_immigrate", 0644, "0\n", nil, nil},
	{"memory", "memory.oom_control", 0644, "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", nil, nil},
	{"memory", "memory.soft_limit_in_bytes", 0644, "9223372036854771712\n", nil, nil},
	{"memory", "memory.stat", 0444, "", genMemoryStatV1, nil},
	{"memory", "memory.swappiness", 0644, "60\n", nil, nil},
	{"memory", "memory.usage_in_bytes", 0444, "", genMemoryUsage, nil},
	{"memory", "memory.use_hierarchy", 0644, "1\n", nil, nil},
	{"net_cls", "net_cls.classid", 0644, "0\n", nil, nil},
	{"pids", "pids.current", 0444, "", genPIDs, nil},
	{"pids", "pids.events", 0444, "max 0\n", nil, nil},
	{"pids", "pids.max", 0644, "", genPIDsMax, nil},
}

func line(b []byte, v int64) []byte { return append(strconv.AppendInt(b, v, 10), '\n') }

func row(b []byte, name string, v int64) []byte { return line(append(append(b, name...), ' '), v) }

// limit appends a limit, of which 0 is none.
func limit(b []byte, v int64) []byte {
	if v <= 0 {
		return append(b, "max\n"...)
	}
	return line(b, v)
}

// ids appends numbers in ascending order, one a line.
func ids(b []byte, l []int) []byte {
	sort.Ints(l)
	for _, n := range l {
		b = line(b, int64(n))
	}
	return b
}

func genProcs(e *env, b []byte) []byte {
	if e.t == nil {
		return b
	}
	var l []int
	for _, tg := range e.ct.Groups(nil) {
		if id := tg.IDIn(e.t.PIDNS()); id != 0 {
			l = append(l, int(id))
		}
	}
	return ids(b, l)
}

func genThreads(e *env, b []byte) []byte {
	if e.t == nil {
		return b
	}
	var l []int
	for _, tg := range e.ct.Groups(nil) {
		for _, t := range tg.Tasks(nil) {
			if id := t.TIDIn(e.t.PIDNS()); id != 0 {
				l = append(l, int(id))
			}
		}
	}
	return ids(b, l)
}

// setProcs moves a process here, where it is. EINVAL, ESRCH.
func setProcs(e *env, data string) error {
	n, err := strconv.ParseInt(data, 10, 32)
	if err != nil || n < 0 {
		return unix.EINVAL
	}
	if e.t == nil || n != 0 && e.t.PIDNS().TaskByTID(int32(n)) == nil {
		return unix.ESRCH
	}
	return nil
}

func (e *env) period() int64 {
	if e.res.CPUPeriod == 0 {
		return 100000
	}
	return int64(e.res.CPUPeriod)
}

func genCPUMax(e *env, b []byte) []byte {
	if e.res.CPUQuota <= 0 {
		b = append(b, "max"...)
	} else {
		b = strconv.AppendInt(b, e.res.CPUQuota, 10)
	}
	return line(append(b, ' '), e.period())
}

func (e *env) cpuTime() (user, system int64) {
	if e.ct == nil {
		return 0, 0
	}
	return e.ct.CPUTime()
}

func genCPUStat(e *env, b []byte) []byte {
	u, s := e.cpuTime()
	b = row(b, "usage_usec", (u+s)/1000)
	b = row(b, "user_usec", u/1000)
	b = row(b, "system_usec", s/1000)
	return append(b, "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\nnr_bursts 0\nburst_usec 0\n"...)
}

// genCPUWeight turns the shares of version 1 (2 to 262144) into a weight (1 to 10000), as runtimes do.
func genCPUWeight(e *env, b []byte) []byte {
	s := int64(e.res.CPUShares)
	if s == 0 {
		return append(b, "100\n"...)
	}
	s = min(max(s, 2), 262144)
	return line(b, 1+(s-2)*9999/262142)
}

func genCPUSet(e *env, b []byte) []byte { return append(append(b, e.res.CPUs...), '\n') }

func genMems(e *env, b []byte) []byte { return append(append(b, e.res.Mems...), '\n') }

// genEffectiveCPUs lists the processors that the application sees: a container's share of the host's has become their number.
func genEffectiveCPUs(e *env, b []byte) []byte {
	return append(pseudo.AppendList(b, e.k.NumCPU()), '\n')
}

// memoryUsage is what the sandbox uses, in bytes.
func (e *env) memoryUsage() int64 {
	if f := e.k.MemFile(); f != nil {
		n, _ := f.Usage()
		return int64(n)
	}
	return 0
}

func genMemoryUsage(e *env, b []byte) []byte { return line(b, e.memoryUsage()) }

func genMemoryMax(e *env, b []byte) []byte { return limit(b, e.res.Memory) }

// unlimitedV1 is what version 1 shows without a limit of memory.
const unlimitedV1 = 0x7ffffffffffff000

func genMemoryLimitV1(e *env, b []byte) []byte {
	if e.res.Memory <= 0 {
		return line(b, unlimitedV1)
	}
	return line(b, e.res.Memory)
}

func genMemoryStat(e *env, b []byte) []byte {
	n := e.memoryUsage()
	b = row(b, "anon", n)
	for _, s := range [...]string{"file", "kernel", "kernel_stack", "pagetables", "sec_pagetables", "percpu", "sock", "vmalloc", "shmem", "file_mapped", "file_dirty",
		"file_writeback", "swapcached", "anon_thp", "file_thp", "shmem_thp", "inactive_anon"} {
		b = row(b, s, 0)
	}
	b = row(b, "active_anon", n)
	for _, s := range [...]string{"inactive_file", "active_file", "unevictable", "slab_reclaimable", "slab_unreclaimable", "slab", "workingset_refault_anon",
		"workingset_refault_file", "pgfault", "pgmajfault", "pgrefill", "pgscan", "pgsteal"} {
		b = row(b, s, 0)
	}
	return b
}

func genMemoryStatV1(e *env, b []byte) []byte {
	n := e.memoryUsage()
	max := int64(unlimitedV1)
	if e.res.Memory > 0 {
		max = e.res.Memory
	}
	for _, x := range [...]struct {
		name string
		v    int64
	}{{"cache", 0}, {"rss", n}, {"rss_huge", 0}, {"shmem", 0}, {"mapped_file", 0}, {"dirty", 0}, {"writeback", 0}, {"swap", 0}, {"pgpgin", 0}, {"pgpgout", 0},
		{"pgfault", 0}, {"pgmajfault", 0}, {"inactive_anon", 0}, {"active_anon", n}, {"inactive_file", 0}, {"active_file", 0}, {"unevictable", 0},
		{"hierarchical_memory_limit", max}, {"hierarchical_memsw_limit", max}, {"total_cache", 0}, {"total_rss", n}, {"total_swap", 0}, {"total_inactive_file", 0},
		{"total_active_file", 0}} {
		b = row(b, x.name, x.v)
	}
	return b
}

func (e *env) pids() (current, peak, most int64) {
	if e.ct == nil {
		return 0, 0, 0
	}
	return e.ct.PIDs()
}

func genPIDs(e *env, b []byte) []byte { n, _, _ := e.pids(); return line(b, n) }

func genPIDsPeak(e *env, b []byte) []byte { _, n, _ := e.pids(); return line(b, n) }

func genPIDsMax(e *env, b []byte) []byte { _, _, n := e.pids(); return limit(b, n) }

func genQuotaV1(e *env, b []byte) []byte {
	if e.res.CPUQuota <= 0 {
		return append(b, "-1\n"...)
	}
	return line(b, e.res.CPUQuota)
}

func genPeriodV1(e *env, b []byte) []byte { return line(b, e.period()) }

func genSharesV1(e *env, b []byte) []byte {
	if e.res.CPUShares == 0 {
		return append(b, "1024\n"...)
	}
	return line(b, int64(e.res.CPUShares))
}

func genAcctUsageV1(e *env, b []byte) []byte {
	u, s := e.cpuTime()
	return line(b, u+s)
}

func genAcctStatV1(e *env, b []byte) []byte {
	const tick = 1e7 // nanoseconds
	u, s := e.cpuTime()
	return row(row(b, "user", u/tick), "system", s/tick)
}

func genAcctPerCPUV1(e *env, b []byte) []byte {
	u, s := e.cpuTime()
	n := int64(e.k.NumCPU())
	for i := int64(0); i < n; i++ {
		b = append(strconv.AppendInt(b, (u+s)/n, 10), ' ')
	}
	return append(b, '\n')
}
