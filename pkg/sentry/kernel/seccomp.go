package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/seccomp"
)

// maxSeccompInsns bounds the instructions of all of a thread's filters together, as Linux does (MAX_INSNS_PER_PATH).
const maxSeccompInsns = 32768

// seccompState is a thread's seccomp(2) mode and filters.
type seccompState struct {
	mode    int32 // SECCOMP_MODE_*; own goroutine (and a thread of the group under TSYNC)
	filters *seccompFilter
}

// seccompFilter is an immutable link of a chain, newest first.
type seccompFilter struct {
	prog []seccomp.Insn
	prev *seccompFilter
	log  bool
	size int // instructions of the chain
	// allowed has a bit for each system call that this filter and all older ones allow whatever the arguments.
	allowed [MaxSyscall / 64]uint64
}

// SeccompMode is prctl(PR_GET_SECCOMP) and the Seccomp line of /proc/PID/status. Any goroutine.
func (t *Task) SeccompMode() int32 { return t.secc.mode }

// SeccompFilters is the number of filters (Seccomp_filters of /proc/PID/status).
func (t *Task) SeccompFilters() int {
	n := 0
	for f := t.secc.filters; f != nil; f = f.prev {
		n++
	}
	return n
}

// SetSeccompStrict is SECCOMP_SET_MODE_STRICT.
func (t *Task) SetSeccompStrict() error {
	if t.secc.mode == unix.SECCOMP_MODE_FILTER {
		return unix.EINVAL
	}
	t.secc.mode = unix.SECCOMP_MODE_STRICT
	return nil
}

// newFilter links a program in front of prev.
func newFilter(prog []seccomp.Insn, prev *seccompFilter, log bool) (*seccompFilter, error) {
	if err := seccomp.Check(prog); err != nil {
		return nil, unix.EINVAL
	}
	f := &seccompFilter{prog: prog, prev: prev, log: log, size: len(prog) + 4}
	if prev != nil {
		f.size += prev.size
	}
	if f.size > maxSeccompInsns {
		return nil, unix.ENOMEM
	}
	for nr := uint64(0); nr < MaxSyscall; nr++ {
		d := seccomp.Data{NR: int32(nr), Arch: unix.AUDIT_ARCH_X86_64}
		if a, ok := seccomp.RunConst(prog, &d); ok && a.Kind() == seccomp.Allow && (prev == nil || prev.allows(nr)) {
			f.allowed[nr/64] |= 1 << (nr % 64)
		}
	}
	return f, nil
}

func (f *seccompFilter) allows(nr uint64) bool {
	return nr < MaxSyscall && f.allowed[nr/64]>>(nr%64)&1 != 0
}

// AddSeccompFilter is SECCOMP_SET_MODE_FILTER with flags of seccomp(2). EACCES without CAP_SYS_ADMIN and no_new_privs. With TSYNC, the
// positive result is the TID of a thread that could not follow.
func (t *Task) AddSeccompFilter(prog []seccomp.Insn, flags uint32) (int32, error) {
	if !t.NoNewPrivs() && !t.HasCap(unix.CAP_SYS_ADMIN) {
		return 0, unix.EACCES
	}
	if t.secc.mode == unix.SECCOMP_MODE_STRICT {
		return 0, unix.EINVAL
	}
	f, err := newFilter(prog, t.secc.filters, flags&unix.SECCOMP_FILTER_FLAG_LOG != 0)
	if err != nil {
		return 0, err
	}
	if flags&unix.SECCOMP_FILTER_FLAG_TSYNC != 0 {
		if tid := t.syncFilters(f); tid != 0 {
			return tid, nil
		}
	}
	t.secc = seccompState{unix.SECCOMP_MODE_FILTER, f}
	return 0, nil
}

// syncFilters gives every thread of the process the filter chain f, if each has an older part of t's chain.
func (t *Task) syncFilters(f *seccompFilter) int32 {
	tg := t.group
	tg.mu.Lock()
	defer tg.mu.Unlock()
	for _, o := range tg.tasks {
		if o != t && !o.sig.exiting && o.secc.mode != 0 && !isAncestor(o.secc.filters, t.secc.filters) {
			return o.TID()
		}
	}
	for _, o := range tg.tasks {
		if o == t || o.sig.exiting {
			continue
		}
		o.noNewPrivs.Store(o.noNewPrivs.Load() || t.noNewPrivs.Load())
		o.pendingSecc.Store(&seccompState{unix.SECCOMP_MODE_FILTER, f})
		o.setWork(workUser)
	}
	return 0
}

func isAncestor(a, of *seccompFilter) bool {
	for f := of; f != nil; f = f.prev {
		if f == a {
			return true
		}
	}
	return a == nil
}

// takeFilters adopts what another thread's TSYNC left.
func (t *Task) takeFilters() {
	if s := t.pendingSecc.Swap(nil); s != nil {
		t.secc = *s
	}
}

// checkSeccomp applies the thread's mode to a system call; false means that the call must not be made (its result is stored).
func (t *Task) checkSeccomp(nr *uint64) bool {
	if t.secc.mode == unix.SECCOMP_MODE_STRICT {
		switch *nr {
		case unix.SYS_READ, unix.SYS_WRITE, unix.SYS_EXIT, unix.SYS_RT_SIGRETURN:
			return true
		}
		t.exit.code = int32(sigKILL)
		t.setWork(workExit)
		return false
	}
	f := t.secc.filters
	if f.allows(*nr) {
		return true
	}
	a := t.regs.SyscallArgs()
	d := seccomp.Data{NR: int32(*nr), Arch: unix.AUDIT_ARCH_X86_64, IP: t.regs.Rip}
	for i := range a {
		d.Args[i] = a[i].Uint64()
	}
	act := seccomp.Allow
	for ; f != nil; f = f.prev {
		if r := seccomp.Run(f.prog, &d); r.Precedes(act) {
			act = r
		}
	}
	return t.seccompAction(act, *nr)
}

func (t *Task) seccompAction(act seccomp.Action, nr uint64) bool {
	switch act.Kind() {
	case seccomp.Allow:
		return true
	case unix.SECCOMP_RET_LOG:
		t.k.Logf("seccomp: task %d (%s): system call %d", t.TaskID(), t.Name(), nr)
		return true
	case unix.SECCOMP_RET_ERRNO:
		e := uint64(act.Data())
		t.regs.Rax = -min(e, 4095)
		return false
	case unix.SECCOMP_RET_TRAP:
		info := linux.SignalInfo{Signo: int32(unix.SIGSYS), Code: linux.SYS_SECCOMP, Errno: int32(act.Data())}
		info.SetSyscall(t.regs.Rip, int32(nr), unix.AUDIT_ARCH_X86_64)
		t.regs.Rax = nr
		t.ForceSignal(&info)
		return false
	case unix.SECCOMP_RET_TRACE:
		if ok, handled := t.traceSeccomp(act.Data()); handled {
			return ok
		}
		enosys := unix.ENOSYS
		t.regs.Rax = -uint64(enosys)
		return false
	case unix.SECCOMP_RET_USER_NOTIF:
		enosys := unix.ENOSYS
		t.regs.Rax = -uint64(enosys)
		return false
	case unix.SECCOMP_RET_KILL_THREAD:
		if t.group.NumThreads() > 1 {
			t.exit.code = int32(unix.SIGSYS)
			t.setWork(workExit)
			return false
		}
	}
	t.group.groupExit(int32(unix.SIGSYS))
	return false
}
