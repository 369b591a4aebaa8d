package proc

import (
	"strconv"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

// userHZ is the unit of times in /proc: hundredths of a second.
const userHZ = 100

// ticks turns nanoseconds into clock ticks.
func ticks(ns int64) int64 { return max(ns, 0) / (1e9 / userHZ) }

func appendHex16(b []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	for s := 60; s >= 0; s -= 4 {
		b = append(b, digits[v>>s&15])
	}
	return b
}

// appendPadded appends v right-aligned in width.
func appendPadded(b []byte, v uint64, width int) []byte {
	var t [20]byte
	s := strconv.AppendUint(t[:0], v, 10)
	for n := len(s); n < width; n++ {
		b = append(b, ' ')
	}
	return append(b, s...)
}

func appendKB(b []byte, name string, bytes uint64) []byte {
	b = append(append(b, name...), '\t')
	return append(appendPadded(b, bytes>>10, 8), " kB\n"...)
}

func appendInts(b []byte, sep byte, v ...int64) []byte {
	for i, n := range v {
		if i > 0 {
			b = append(b, sep)
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return b
}

func appendUints(b []byte, sep byte, v ...uint64) []byte {
	for i, n := range v {
		if i > 0 {
			b = append(b, sep)
		}
		b = strconv.AppendUint(b, n, 10)
	}
	return b
}

// appendName appends the name of a task with line feeds and backslashes escaped.
func appendName(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\n':
			b = append(b, `\n`...)
		case '\\':
			b = append(b, `\\`...)
		default:
			b = append(b, s[i])
		}
	}
	return b
}

func stateText(s byte) string {
	switch s {
	case 'R':
		return "R (running)"
	case 'S':
		return "S (sleeping)"
	case 'D':
		return "D (disk sleep)"
	case 'T':
		return "T (stopped)"
	case 't':
		return "t (tracing stop)"
	case 'Z':
		return "Z (zombie)"
	}
	return "X (dead)"
}

// withMM calls f with the address space of the task, if it has one, which stays while f runs.
func (e *env) withMM(f func(m *mm.MemoryManager)) {
	if m := e.t.MM(); m != nil && m.IncUsers() {
		f(m)
		m.DecUsers()
	}
}

// pidIn is the number of p as the instance shows it.
func (e *env) tgid() int64 { return int64(e.tg.IDIn(e.fs.ns)) }

func (e *env) tid() int64 {
	if p := e.t.PID(); p != nil {
		return int64(p.In(e.fs.ns))
	}
	return 0
}

// genStatus is proc_pid_status(5).
func genStatus(e *env, b []byte) ([]byte, error) {
	t, c := e.t, e.t.Credentials()
	b = append(appendName(append(b, "Name:\t"...), t.Name()), '\n')
	if f := t.FS(); f != nil {
		u := f.Umask()
		b = append(b, "Umask:\t0"...)
		b = append(b, '0'+byte(u>>6&7), '0'+byte(u>>3&7), '0'+byte(u&7), '\n')
	}
	b = append(append(append(b, "State:\t"...), stateText(t.State())...), '\n')
	b = appendLine(b, "Tgid:\t", e.tgid())
	b = append(b, "Ngid:\t0\n"...)
	b = appendLine(b, "Pid:\t", e.tid())
	b = appendLine(b, "PPid:\t", int64(e.tg.ParentIDIn(e.fs.ns)))
	var tracer int64
	if tr := t.Tracer(); tr != nil {
		tracer = int64(tr.TIDIn(e.fs.ns))
	}
	b = appendLine(b, "TracerPid:\t", tracer)
	b = append(b, "Uid:\t"...)
	b = appendUints(b, '\t', shownUID(e.ctx, c.RUID), shownUID(e.ctx, c.EUID), shownUID(e.ctx, c.SUID), shownUID(e.ctx, c.FSUID))
	b = append(b, "\nGid:\t"...)
	b = appendUints(b, '\t', shownGID(e.ctx, c.RGID), shownGID(e.ctx, c.EGID), shownGID(e.ctx, c.SGID), shownGID(e.ctx, c.FSGID))
	size := 0
	if ft := t.FDTable(); ft != nil {
		_, size = ft.Count()
	}
	b = appendLine(append(b, '\n'), "FDSize:\t", int64(size))
	b = append(b, "Groups:\t"...)
	for _, g := range c.Groups {
		b = append(strconv.AppendUint(b, shownGID(e.ctx, g), 10), ' ')
	}
	if len(c.Groups) == 0 {
		b = append(b, ' ')
	}
	b = append(b, '\n')
	b = e.appendNSNumbers(b)
	b = append(b, "Kthread:\t0\n"...)
	e.withMM(func(m *mm.MemoryManager) { b = appendMemory(b, m) })
	b = e.appendSignals(b)
	b = appendCaps(b, c)
	return e.appendRest(b), nil
}

func appendLine(b []byte, name string, v int64) []byte {
	return append(strconv.AppendInt(append(b, name...), v, 10), '\n')
}

// appendNSNumbers appends the numbers in the instance's PID namespace and those below.
func (e *env) appendNSNumbers(b []byte) []byte {
	place := e.tg.PlacementIn(e.fs.ns)
	ids := func(name string, l []int32) {
		b = append(b, name...)
		for _, n := range l {
			b = strconv.AppendInt(append(b, '\t'), int64(n), 10)
		}
		b = append(b, '\n')
	}
	ids("NStgid:", e.tg.PID().Numbers(e.fs.ns))
	if p := e.t.PID(); p != nil {
		ids("NSpid:", p.Numbers(e.fs.ns))
	}
	ids("NSpgid:", []int32{place.PGID})
	ids("NSsid:", []int32{place.SID})
	return b
}

func appendMemory(b []byte, m *mm.MemoryManager) []byte {
	s := m.Stats()
	b = appendKB(b, "VmPeak:", s.PeakVirtual)
	b = appendKB(b, "VmSize:", s.Virtual)
	b = appendKB(b, "VmLck:", s.Locked)
	b = appendKB(b, "VmPin:", 0)
	b = appendKB(b, "VmHWM:", s.PeakRSS)
	b = appendKB(b, "VmRSS:", s.RSS.Total())
	b = appendKB(b, "RssAnon:", s.RSS.Anon)
	b = appendKB(b, "RssFile:", s.RSS.File)
	b = appendKB(b, "RssShmem:", s.RSS.Shared)
	i := m.ProcInfo()
	text := min(pageUp(i.EndCode)-min(i.StartCode&^0xfff, pageUp(i.EndCode)), s.Exec)
	b = appendKB(b, "VmData:", s.Data)
	b = appendKB(b, "VmStk:", s.Stack)
	b = appendKB(b, "VmExe:", text)
	b = appendKB(b, "VmLib:", s.Exec-text)
	b = appendKB(b, "VmPTE:", s.PageTables)
	b = appendKB(b, "VmSwap:", 0)
	b = appendKB(b, "HugetlbPages:", 0)
	return append(b, "CoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\n"...)
}

func pageUp(a uint64) uint64 { return (a + 0xfff) &^ 0xfff }

func (e *env) appendSignals(b []byte) []byte {
	b = appendLine(b, "Threads:\t", int64(e.tg.NumThreads()))
	b = strconv.AppendInt(append(b, "SigQ:\t"...), int64(e.tg.QueuedSignals()), 10)
	b = append(strconv.AppendUint(append(b, '/'), e.tg.Limits().Get(unix.RLIMIT_SIGPENDING).Cur, 10), '\n')
	own, shared := e.t.PendingSets()
	ign, caught := e.tg.HandlerSets()
	mask := func(name string, v uint64) { b = append(appendHex16(append(b, name...), v), '\n') }
	mask("SigPnd:\t", uint64(own))
	mask("ShdPnd:\t", uint64(shared))
	mask("SigBlk:\t", uint64(e.t.SignalMask()))
	mask("SigIgn:\t", uint64(ign))
	mask("SigCgt:\t", uint64(caught))
	return b
}

func appendCaps(b []byte, c *auth.Credentials) []byte {
	set := func(name string, v auth.CapSet) { b = append(appendHex16(append(b, name...), uint64(v)), '\n') }
	set("CapInh:\t", c.Inheritable)
	set("CapPrm:\t", c.Permitted)
	set("CapEff:\t", c.Effective)
	set("CapBnd:\t", c.Bounding)
	set("CapAmb:\t", c.Ambient)
	return b
}

func (e *env) appendRest(b []byte) []byte {
	nnp := int64(0)
	if e.t.NoNewPrivs() {
		nnp = 1
	}
	b = appendLine(b, "NoNewPrivs:\t", nnp)
	b = appendLine(b, "Seccomp:\t", int64(e.t.SeccompMode()))
	b = appendLine(b, "Seccomp_filters:\t", int64(e.t.SeccompFilters()))
	b = append(b, "Speculation_Store_Bypass:\tthread vulnerable\nSpeculationIndirectBranch:\tconditional enabled\nCpus_allowed:\t"...)
	cpus := e.t.Affinity()
	n := e.fs.k.NumCPU()
	b = appendMask(b, cpus[:], n)
	b = append(b, "\nCpus_allowed_list:\t"...)
	b = appendList(b, cpus[:])
	b = append(b, "\nMems_allowed:\t1\nMems_allowed_list:\t0\n"...)
	u := e.t.Usage()
	b = appendLine(b, "voluntary_ctxt_switches:\t", u.NVCSw)
	return appendLine(b, "nonvoluntary_ctxt_switches:\t", u.NIvCSw)
}

// appendMask appends a set of n processors as comma-separated groups of 32 bits.
func appendMask(b []byte, set []uint64, n int) []byte {
	const digits = "0123456789abcdef"
	for i := (max(n, 1)+3)/4 - 1; i >= 0; i-- {
		d := uint64(0)
		if i/16 < len(set) {
			d = set[i/16] >> (i % 16 * 4) & 15
		}
		b = append(b, digits[d])
		if i%8 == 0 && i > 0 {
			b = append(b, ',')
		}
	}
	return b
}

// appendList appends a set of processors as ranges: "0-3,6".
func appendList(b []byte, set []uint64) []byte {
	has := func(i int) bool { return i/64 < len(set) && set[i/64]>>(i%64)&1 != 0 }
	sep := false
	for i := 0; i < len(set)*64; i++ {
		if !has(i) {
			continue
		}
		j := i
		for has(j + 1) {
			j++
		}
		if sep {
			b = append(b, ',')
		}
		sep = true
		b = strconv.AppendInt(b, int64(i), 10)
		if j > i {
			b = strconv.AppendInt(append(b, '-'), int64(j), 10)
		}
		i = j
	}
	return b
}

// deviceNumber encodes a device as tty_nr does.
func deviceNumber(dev uint64) int64 {
	ma, mi := uint64(unix.Major(dev)), uint64(unix.Minor(dev))
	return int64(mi&0xff | ma<<8 | mi&^0xff<<12)
}

// genStat is proc_pid_stat(5).
func genStat(e *env, b []byte) ([]byte, error) {
	t := e.t
	access := mayAccess(e.ctx, t)
	place := e.tg.PlacementIn(e.fs.ns)
	var u, ch kernel.Rusage
	if e.sub {
		u = t.Usage()
	} else {
		u, ch = e.tg.CPUTimes()
	}
	b = strconv.AppendInt(b, e.tid(), 10)
	b = append(b, " ("...)
	b = append(b, t.Name()...)
	b = append(b, ") "...)
	b = append(b, t.State(), ' ')
	const flags = 0x400000 // PF_RANDOMIZE
	b = appendInts(b, ' ', int64(place.PPID), int64(place.PGID), int64(place.SID), deviceNumber(place.TTY), int64(place.TPGID), flags,
		u.MinFlt, ch.MinFlt, u.MajFlt, ch.MajFlt, ticks(u.UTime), ticks(u.STime), ticks(ch.UTime), ticks(ch.STime))
	policy, prio := t.SchedPolicy()
	nice := int64(t.Nice())
	shown := 20 + nice
	if prio > 0 {
		shown = -1 - int64(prio)
	}
	b = append(b, ' ')
	b = appendInts(b, ' ', shown, nice, int64(e.tg.NumThreads()), 0, ticks(t.StartTime()-e.fs.k.BootTime()))
	var i mm.ProcInfo
	var virt, rss, heap uint64
	e.withMM(func(m *mm.MemoryManager) {
		s := m.Stats()
		virt, rss = s.Virtual, s.RSS.Total()>>12
		if access {
			i = m.ProcInfo()
			heap, _ = m.Heap()
		} else {
			i.StartCode, i.EndCode = 1, 1
		}
	})
	b = append(b, ' ')
	b = appendUints(b, ' ', virt, rss, e.tg.Limits().Get(unix.RLIMIT_RSS).Cur, i.StartCode, i.EndCode, i.StartStack, 0, 0)
	own, _ := t.PendingSets()
	ign, caught := e.tg.HandlerSets()
	const rtMask = 1<<31 - 1 // real-time signals are not shown here
	b = append(b, ' ')
	b = appendUints(b, ' ', uint64(own)&rtMask, uint64(t.SignalMask())&rtMask, uint64(ign)&rtMask, uint64(caught)&rtMask, 0, 0, 0)
	b = append(b, ' ')
	b = appendInts(b, ' ', int64(place.ExitSignal), int64(t.CPU()), int64(prio), int64(policy), 0, 0, 0)
	b = append(b, ' ')
	b = appendUints(b, ' ', i.StartData, i.EndData, heap, i.ArgStart, i.ArgEnd, i.EnvStart, i.EnvEnd)
	code := int64(0)
	if access && e.tg.Exited() {
		code = int64(e.tg.ExitStatus())
	}
	return append(strconv.AppendInt(append(b, ' '), code, 10), '\n'), nil
}

// genStatm is proc_pid_statm(5), in pages.
func genStatm(e *env, b []byte) ([]byte, error) {
	var s mm.MemStats
	e.withMM(func(m *mm.MemoryManager) { s = m.Stats() })
	b = appendUints(b, ' ', s.Virtual>>12, s.RSS.Total()>>12, (s.RSS.File+s.RSS.Shared)>>12, s.Exec>>12, 0, (s.Data+s.Stack)>>12, 0)
	return append(b, '\n'), nil
}
