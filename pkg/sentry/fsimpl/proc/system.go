package proc

import (
	"strconv"
	"sync"

	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// shared is what the instances of one kernel have in common.
type shared struct {
	tsc    tscClock // immutable
	bootID string   // immutable: /proc/sys/kernel/random/boot_id
	vars   sysVars
	// cpu is what CPUID tells, asked for once: the instruction is slow in virtual machines.
	cpuOnce sync.Once
	cpu     cpuFacts
	// buffers are what copies between address spaces go through: *[copyChunk]byte.
	buffers sync.Pool
}

type sharedKey struct{}

func sharedOf(k *kernel.Kernel) *shared {
	s, _ := k.Value(sharedKey{}).(*shared)
	return s
}

// addSystem enters all that is not about processes.
func (f *FS) addSystem(r *pseudo.Dir) {
	f.add(r, "buddyinfo", 0400, genEmpty)
	f.add(r, "cgroups", 0444, genCgroups)
	f.add(r, "cmdline", 0444, text("BOOT_IMAGE=/vmlinuz quiet\n"))
	f.add(r, "consoles", 0444, genEmpty)
	f.add(r, "cpuinfo", 0444, genCPUInfo)
	f.add(r, "crypto", 0444, genEmpty)
	f.add(r, "devices", 0444, text("Character devices:\n  1 mem\n  4 tty\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n 10 misc\n128 ptm\n136 pts\n\nBlock devices:\n"))
	f.add(r, "diskstats", 0444, genEmpty)
	f.add(r, "execdomains", 0444, text("0-0\tLinux           \t[kernel]\n"))
	f.add(r, "filesystems", 0444, genFileSystems)
	f.add(r, "interrupts", 0444, genInterrupts)
	f.add(r, "iomem", 0400, genEmpty)
	f.add(r, "ioports", 0400, genEmpty)
	f.add(r, "kallsyms", 0444, genEmpty)
	f.add(r, "key-users", 0444, genEmpty)
	f.add(r, "keys", 0444, genEmpty)
	f.add(r, "loadavg", 0444, genLoadAvg)
	f.add(r, "locks", 0444, genEmpty)
	f.add(r, "meminfo", 0444, genMemInfo)
	f.add(r, "misc", 0444, genEmpty)
	f.add(r, "modules", 0444, genEmpty)
	f.addLink(r, "mounts", "self/mounts")
	f.addLink(r, "net", "self/net")
	f.add(r, "partitions", 0444, text("major minor  #blocks  name\n\n"))
	p := f.addDir(r, "pressure")
	some := "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
	full := "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
	for _, n := range [...]string{"cpu", "io", "memory"} {
		f.add(p, n, 0444, text(some+full))
	}
	f.add(r, "slabinfo", 0400, text("slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n"))
	f.add(r, "softirqs", 0444, genEmpty)
	f.add(r, "stat", 0444, genSystemStat)
	f.add(r, "swaps", 0444, text("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"))
	f.addSys(r)
	ipc := f.addDir(r, "sysvipc")
	f.add(ipc, "msg", 0444, genSysvMsg)
	f.add(ipc, "sem", 0444, genSysvSem)
	f.add(ipc, "shm", 0444, genSysvShm)
	t := f.addDir(r, "tty")
	f.add(t, "drivers", 0444, text("/dev/tty             /dev/tty        5       0 system:/dev/tty\n/dev/console         /dev/console    5       1 system:console\n"+
		"/dev/ptmx            /dev/ptmx       5       2 system\npty_slave            /dev/pts      136 0-1048575 pty:slave\npty_master           /dev/ptm      128 0-1048575 pty:master\n"))
	f.add(t, "ldiscs", 0444, text("n_tty       0\n"))
	f.add(r, "uptime", 0444, genUptime)
	f.add(r, "version", 0444, text("Linux version "+kernel.Release+" (husk) "+kernel.Version+"\n"))
	f.add(r, "vmstat", 0444, genVMStat)
	f.add(r, "zoneinfo", 0444, genEmpty)
}

// text makes fixed content.
func text(s string) func(*FS, vfs.Context, []byte) ([]byte, error) {
	return func(_ *FS, _ vfs.Context, b []byte) ([]byte, error) { return append(b, s...), nil }
}

func genEmpty(_ *FS, _ vfs.Context, b []byte) ([]byte, error) { return b, nil }

func genCgroups(_ *FS, _ vfs.Context, b []byte) ([]byte, error) {
	b = append(b, "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"...)
	for _, n := range [...]string{"cpuset", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer", "net_cls", "perf_event", "net_prio", "hugetlb", "pids"} {
		b = append(append(b, n...), "\t0\t1\t1\n"...)
	}
	return b, nil
}

func genFileSystems(f *FS, _ vfs.Context, b []byte) ([]byte, error) {
	for _, t := range f.k.VFS().FileSystemTypes() {
		if t.NoDev() {
			b = append(b, "nodev"...)
		}
		b = append(append(append(b, '\t'), t.Name()...), '\n')
	}
	return b, nil
}

func genInterrupts(f *FS, _ vfs.Context, b []byte) ([]byte, error) {
	b = append(b, "           "...)
	for i := 0; i < f.k.NumCPU(); i++ {
		b = appendColumn(strconv.AppendInt(append(b, "CPU"...), int64(i), 10), "", 7)
	}
	return append(b, '\n'), nil
}

// memory tells total and used bytes of the sandbox's memory.
func (f *FS) memory() (total, used uint64) {
	total, free := f.k.Memory()
	return total, total - free
}

// genMemInfo is proc_meminfo(5). Applications' memory and tmpfs come from one pool, and the page cache of files is the host's.
func genMemInfo(f *FS, _ vfs.Context, b []byte) ([]byte, error) {
	total, used := f.memory()
	free := total - used
	row := func(name string, v uint64) {
		b = append(append(b, name...), ':')
		b = appendColumn(b, "", 15-len(name))
		b = append(appendPadded(b, v>>10, 8), " kB\n"...)
	}
	count := func(name string) {
		b = append(append(b, name...), ':')
		b = appendColumn(b, "", 15-len(name))
		b = append(appendPadded(b, 0, 8), '\n')
	}
	row("MemTotal", total)
	row("MemFree", free)
	row("MemAvailable", free)
	row("Buffers", 0)
	row("Cached", 0)
	row("SwapCached", 0)
	row("Active", used)
	row("Inactive", 0)
	row("Active(anon)", used)
	for _, n := range [...]string{"Inactive(anon)", "Active(file)", "Inactive(file)", "Unevictable", "Mlocked", "SwapTotal", "SwapFree", "Dirty", "Writeback"} {
		row(n, 0)
	}
	row("AnonPages", used)
	for _, n := range [...]string{"Mapped", "Shmem", "KReclaimable", "Slab", "SReclaimable", "SUnreclaim", "KernelStack", "PageTables", "NFS_Unstable", "Bounce", "WritebackTmp"} {
		row(n, 0)
	}
	row("CommitLimit", total)
	row("Committed_AS", used)
	row("VmallocTotal", 34359738367<<10)
	for _, n := range [...]string{"VmallocUsed", "VmallocChunk", "Percpu", "AnonHugePages", "ShmemHugePages", "ShmemPmdMapped", "FileHugePages", "FilePmdMapped"} {
		row(n, 0)
	}
	for _, n := range [...]string{"HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp"} {
		count(n)
	}
	row("Hugepagesize", 2<<20)
	row("Hugetlb", 0)
	row("DirectMap4k", total)
	return b, nil
}

// cpuTime is what the processes that the instance shows, and the children they have waited for, used; and how many threads can run.
func (f *FS) cpuTime() (user, system int64, running, threads int) {
	var tasks []*kernel.Task
	for _, g := range f.ns.Groups(nil) {
		u, ch := g.Group.CPUTimes()
		user, system = user+u.UTime, system+u.STime
		if g.Group.ParentIDIn(f.ns) == 0 {
			user, system = user+ch.UTime, system+ch.STime
		}
		tasks = g.Group.Tasks(tasks[:0])
		threads += len(tasks)
		for _, t := range tasks {
			if t.State() == 'R' {
				running++
			}
		}
	}
	return
}

// genSystemStat is proc_stat(5).
func genSystemStat(f *FS, _ vfs.Context, b []byte) ([]byte, error) {
	user, system, running, _ := f.cpuTime()
	n := int64(f.k.NumCPU())
	idle := max(f.k.Uptime()*n-user-system, 0)
	line := func(name string, div int64) {
		b = append(append(b, name...), ' ')
		b = append(appendInts(b, ' ', ticks(user/div), 0, ticks(system/div), ticks(idle/div), 0, 0, 0, 0, 0, 0), '\n')
	}
	line("cpu ", 1)
	for i := int64(0); i < n; i++ {
		line("cpu"+strconv.FormatInt(i, 10), n)
	}
	b = append(b, "intr 0\nctxt 0\n"...)
	b = appendLine(b, "btime ", f.k.StartTime()/1e9)
	b = appendLine(b, "processes ", int64(f.k.Forks()))
	b = appendLine(b, "procs_running ", int64(running))
	return append(b, "procs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n"...), nil
}

// genUptime is proc_uptime(5).
func genUptime(f *FS, _ vfs.Context, b []byte) ([]byte, error) {
	user, system, _, _ := f.cpuTime()
	up := f.k.Uptime()
	idle := max(up*int64(f.k.NumCPU())-user-system, 0)
	hundredths := func(ns int64) {
		b = strconv.AppendInt(b, ns/1e9, 10)
		b = append(b, '.', '0'+byte(ns/1e8%10), '0'+byte(ns/1e7%10))
	}
	hundredths(up)
	b = append(b, ' ')
	hundredths(idle)
	return append(b, '\n'), nil
}

// genLoadAvg is proc_loadavg(5). Nothing samples in the background: the averages follow what can run at the times when somebody asks.
func genLoadAvg(f *FS, _ vfs.Context, b []byte) ([]byte, error) {
	_, _, running, threads := f.cpuTime()
	for _, l := range f.k.LoadAverage() {
		b = append(strconv.AppendFloat(b, l, 'f', 2, 64), ' ')
	}
	b = append(strconv.AppendInt(b, int64(running), 10), '/')
	b = append(strconv.AppendInt(b, int64(threads), 10), ' ')
	return append(strconv.AppendInt(b, int64(f.ns.LastPID()), 10), '\n'), nil
}

func genVMStat(f *FS, _ vfs.Context, b []byte) ([]byte, error) {
	total, used := f.memory()
	b = appendLine(b, "nr_free_pages ", int64((total-used)>>12))
	b = appendLine(b, "nr_active_anon ", int64(used>>12))
	b = appendLine(b, "nr_anon_pages ", int64(used>>12))
	for _, n := range [...]string{"nr_inactive_anon", "nr_inactive_file", "nr_active_file", "nr_unevictable", "nr_mlock", "nr_mapped", "nr_file_pages", "nr_dirty", "nr_writeback",
		"nr_shmem", "pgpgin", "pgpgout", "pswpin", "pswpout", "pgfault", "pgmajfault", "oom_kill"} {
		b = append(append(b, n...), " 0\n"...)
	}
	return b, nil
}

// newUUID makes a random UUID (version 4).
func newUUID() string {
	var r [16]byte
	for n := 0; n < len(r); {
		k, err := unix.Getrandom(r[n:], 0)
		if err != nil && err != unix.EINTR {
			break
		}
		n += max(k, 0)
	}
	r[6], r[8] = r[6]&0x0f|0x40, r[8]&0x3f|0x80
	const digits = "0123456789abcdef"
	b := make([]byte, 0, 36)
	for i, c := range r {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, digits[c>>4], digits[c&15])
	}
	return string(b)
}
