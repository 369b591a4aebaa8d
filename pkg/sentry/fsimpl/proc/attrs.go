package proc

import (
	"bytes"
	"strconv"

	"husk/pkg/sentry/fsimpl/cgroupfs"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

// limitNames are the rows of limits, in the order of the resources' numbers.
var limitNames = [limits.Count]struct{ name, unit string }{
	{"Max cpu time", "seconds"}, {"Max file size", "bytes"}, {"Max data size", "bytes"}, {"Max stack size", "bytes"},
	{"Max core file size", "bytes"}, {"Max resident set", "bytes"}, {"Max processes", "processes"}, {"Max open files", "files"},
	{"Max locked memory", "bytes"}, {"Max address space", "bytes"}, {"Max file locks", "locks"}, {"Max pending signals", "signals"},
	{"Max msgqueue size", "bytes"}, {"Max nice priority", ""}, {"Max realtime priority", ""}, {"Max realtime timeout", "us"},
}

// appendColumn appends s, padded to width.
func appendColumn(b []byte, s string, width int) []byte {
	b = append(b, s...)
	for n := len(s); n < width; n++ {
		b = append(b, ' ')
	}
	return b
}

func genLimits(e *env, b []byte) ([]byte, error) {
	text := func(v uint64) string {
		if v == limits.Infinity {
			return "unlimited"
		}
		return strconv.FormatUint(v, 10)
	}
	b = append(b, "Limit                     Soft Limit           Hard Limit           Units     \n"...)
	for i := range limitNames {
		l := e.tg.Limits().Get(i)
		b = append(appendColumn(b, limitNames[i].name, 25), ' ')
		b = append(appendColumn(b, text(l.Cur), 20), ' ')
		b = append(appendColumn(b, text(l.Max), 20), ' ')
		b = append(appendColumn(b, limitNames[i].unit, 10), '\n')
	}
	return b, nil
}

func genComm(e *env, b []byte) ([]byte, error) { return append(append(b, e.t.Name()...), '\n'), nil }

// setComm names a thread; only threads of the same process may.
func setComm(e *env, data []byte, _ int64) error {
	me := taskOf(e.ctx)
	if me == nil || me.Group() != e.tg {
		return unix.EINVAL
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		data = data[:i]
	}
	e.t.SetName(string(data[:min(len(data), 15)]))
	return nil
}

func genPersonality(e *env, b []byte) ([]byte, error) {
	return append(appendHexPadded(b, uint64(e.t.Personality()), 8), '\n'), nil
}

// genSyscall is proc_pid_syscall(5).
func genSyscall(e *env, b []byte) ([]byte, error) {
	nr, args, sp, pc, ok := e.t.BlockedSyscall()
	if e.t.Exited() {
		return append(b, "-1 0x0 0x0\n"...), nil
	}
	if !ok {
		return append(b, "running\n"...), nil
	}
	b = strconv.AppendUint(b, nr, 10)
	for _, a := range args {
		b = strconv.AppendUint(append(b, " 0x"...), a, 16)
	}
	b = strconv.AppendUint(append(b, " 0x"...), sp, 16)
	return append(strconv.AppendUint(append(b, " 0x"...), pc, 16), '\n'), nil
}

// genWchan shows 0: there are no kernel symbols to name.
func genWchan(_ *env, b []byte) ([]byte, error) { return append(b, '0'), nil }

func genSchedstat(e *env, b []byte) ([]byte, error) {
	u := e.t.Usage()
	return append(appendInts(b, ' ', u.UTime+u.STime, 0, u.NVCSw+u.NIvCSw), '\n'), nil
}

func genCpuset(_ *env, b []byte) ([]byte, error) { return append(b, "/\n"...), nil }

// Bounds of oom_score_adj and of oom_adj, its older form.
const (
	oomMax    = 1000
	oomAdjMax = 15
	oomAdjMin = -17
)

// genOOMScore is the badness of proc_pid_oom_score(5): what part of memory the process has, with its adjustment.
func genOOMScore(e *env, b []byte) ([]byte, error) {
	var rss uint64
	e.withMM(func(m *mm.MemoryManager) { s := m.Stats(); rss = s.RSS.Total() + s.PageTables })
	adj := int64(e.tg.OOMScoreAdj())
	if adj == -oomMax || e.t.Exited() {
		return append(b, "0\n"...), nil
	}
	total, _ := e.fs.k.Memory()
	score := (oomMax + adj + int64(rss*oomMax/max(total, 1))) * 2 / 3
	return append(strconv.AppendInt(b, max(score, 0), 10), '\n'), nil
}

func genOOMScoreAdj(e *env, b []byte) ([]byte, error) {
	return append(strconv.AppendInt(b, int64(e.tg.OOMScoreAdj()), 10), '\n'), nil
}

// parseInt reads a number as it is written to a file, with white space around it. EINVAL, ERANGE.
func parseInt(data []byte) (int64, error) {
	s := string(bytes.TrimSpace(bytes.TrimRight(data, "\x00")))
	v, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		if ne, ok := err.(*strconv.NumError); ok && ne.Err == strconv.ErrRange {
			return 0, unix.ERANGE
		}
		return 0, unix.EINVAL
	}
	return v, nil
}

func setOOMScoreAdj(e *env, data []byte, _ int64) error {
	v, err := parseInt(data)
	if err != nil {
		return err
	}
	if v < -oomMax || v > oomMax {
		return unix.EINVAL
	}
	return setOOM(e, int32(v))
}

// setOOM changes the adjustment: lowering it is a privilege.
func setOOM(e *env, v int32) error {
	if v < e.tg.OOMScoreAdj() && !e.ctx.Credentials().HasCapIn(unix.CAP_SYS_RESOURCE, e.fs.k.RootUserNamespace()) {
		return unix.EACCES
	}
	e.tg.SetOOMScoreAdj(v)
	return nil
}

func genOOMAdj(e *env, b []byte) ([]byte, error) {
	v := int64(e.tg.OOMScoreAdj())
	switch {
	case v == oomMax:
		v = oomAdjMax
	default:
		v = v * -oomAdjMin / oomMax
	}
	return append(strconv.AppendInt(b, v, 10), '\n'), nil
}

func setOOMAdj(e *env, data []byte, _ int64) error {
	v, err := parseInt(data)
	if err != nil {
		return err
	}
	if v < oomAdjMin || v > oomAdjMax {
		return unix.EINVAL
	}
	if v == oomAdjMax {
		v = oomMax
	} else {
		v = v * oomMax / -oomAdjMin
	}
	return setOOM(e, int32(v))
}

func genLoginUID(e *env, b []byte) ([]byte, error) {
	return strconv.AppendUint(b, uint64(e.tg.LoginUID()), 10), nil
}

// setLoginUID sets the audit identity: one's own only, once, or with CAP_AUDIT_CONTROL.
func setLoginUID(e *env, data []byte, off int64) error {
	if off != 0 {
		return unix.EINVAL
	}
	if me := taskOf(e.ctx); me != e.t {
		return unix.EPERM
	}
	v, err := strconv.ParseUint(string(bytes.TrimSpace(data)), 10, 32)
	if err != nil {
		return unix.EINVAL
	}
	const unset = ^uint32(0)
	if e.tg.LoginUID() != unset && !e.ctx.Credentials().HasCapIn(unix.CAP_AUDIT_CONTROL, e.fs.k.RootUserNamespace()) {
		return unix.EPERM
	}
	e.tg.SetLoginUID(uint32(v))
	return nil
}

// genSessionID shows that there is no audit session.
func genSessionID(_ *env, b []byte) ([]byte, error) { return append(b, "4294967295"...), nil }

func genCoredumpFilter(e *env, b []byte) ([]byte, error) {
	return append(appendHexPadded(b, uint64(e.tg.CoredumpFilter()), 8), '\n'), nil
}

func setCoredumpFilter(e *env, data []byte, _ int64) error {
	v, err := parseInt(data)
	if err != nil {
		return err
	}
	const known = 0x1ff
	e.tg.SetCoredumpFilter(uint32(v) & known)
	return nil
}

// genIO is proc_pid_io(5): of the thread, or the sum over those of the process.
func genIO(e *env, b []byte) ([]byte, error) {
	var rc, wc, rs, ws uint64
	list := []*kernel.Task{e.t}
	if !e.sub {
		list = e.tg.Tasks(list[:0])
	}
	for _, t := range list {
		c := t.IO()
		rc, wc, rs, ws = rc+c.RChar.Load(), wc+c.WChar.Load(), rs+c.SyscR.Load(), ws+c.SyscW.Load()
	}
	b = appendLine(b, "rchar: ", int64(rc))
	b = appendLine(b, "wchar: ", int64(wc))
	b = appendLine(b, "syscr: ", int64(rs))
	b = appendLine(b, "syscw: ", int64(ws))
	return append(b, "read_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n"...), nil
}

// genTimers is proc_pid_timers(5).
func genTimers(e *env, b []byte) ([]byte, error) {
	for _, t := range e.tg.Timers(nil) {
		b = appendLine(b, "ID: ", int64(t.ID))
		b = append(strconv.AppendInt(append(b, "signal: "...), int64(t.Signal), 10), '/')
		b = append(strconv.AppendUint(b, t.Value, 16), "\nnotify: "...)
		switch t.Notify &^ 4 {
		case 1:
			b = append(b, "none/"...)
		case 2:
			b = append(b, "thread/"...)
		default:
			b = append(b, "signal/"...)
		}
		id := e.tgid()
		if t.Target != nil {
			b, id = append(b, "tid."...), int64(t.Target.TIDIn(e.fs.ns))
		} else {
			b = append(b, "pid."...)
		}
		b = append(strconv.AppendInt(b, id, 10), '\n')
		b = appendLine(b, "ClockID: ", int64(t.Clock))
	}
	return b, nil
}

// mayTime is who sees and sets timer slack: the thread itself, and who has CAP_SYS_NICE over it.
func mayTime(e *env) bool {
	return taskOf(e.ctx) == e.t || e.ctx.Credentials().HasCapIn(unix.CAP_SYS_NICE, e.t.UserNS())
}

func genTimerSlack(e *env, b []byte) ([]byte, error) {
	if !mayTime(e) {
		return b, unix.EPERM
	}
	return append(strconv.AppendUint(b, e.t.TimerSlack(), 10), '\n'), nil
}

func setTimerSlack(e *env, data []byte, _ int64) error {
	v, err := parseInt(data)
	if err != nil {
		return err
	}
	if !mayTime(e) {
		return unix.EPERM
	}
	e.t.SetTimerSlack(uint64(v))
	return nil
}

// genChildren lists the processes that the thread has made (proc_tid_children(5)).
func genChildren(e *env, b []byte) ([]byte, error) {
	for _, c := range e.t.Children(nil) {
		if id := c.IDIn(e.fs.ns); id != 0 {
			b = append(strconv.AppendInt(b, int64(id), 10), ' ')
		}
	}
	return b, nil
}

// genCgroup is cgroups(7), "/proc files": containers are at the root of their cgroup namespace.
func genCgroup(e *env, b []byte) ([]byte, error) { return cgroupfs.AppendProc(e.fs.k, b), nil }
