package kernel

import (
	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
)

// PtraceTraceme is PTRACE_TRACEME: the parent becomes the tracer.
func (t *Task) PtraceTraceme() error {
	t.k.tree.Lock()
	defer t.k.tree.Unlock()
	by := t.group.parentTask
	if t.ptr.tracer.Load() != nil || by == nil {
		return unix.EPERM
	}
	t.link(by)
	return nil
}

// PtraceAttach is PTRACE_ATTACH and, with seize, PTRACE_SEIZE with options.
func (t *Task) PtraceAttach(c *Task, seize bool, options uint32) error {
	if c.group == t.group || !t.MayPtrace(c) {
		return unix.EPERM
	}
	k := t.k
	k.tree.Lock()
	defer k.tree.Unlock()
	if c.ptr.tracer.Load() != nil || c.exit.done.Load() || c.released {
		return unix.EPERM
	}
	c.ptr.seized, c.ptr.options = seize, options
	c.link(t)
	if !seize {
		c.group.send(c, &linux.SignalInfo{Signo: int32(sigSTOP), Code: linux.SI_USER}, true)
	}
	return nil
}

// PtraceInterrupt is PTRACE_INTERRUPT. EIO for tracees that were not seized, ESRCH.
func (t *Task) PtraceInterrupt(c *Task) error {
	t.k.tree.Lock()
	defer t.k.tree.Unlock()
	if c.ptr.tracer.Load() != t {
		return unix.ESRCH
	}
	if !c.ptr.seized {
		return unix.EIO
	}
	if !c.ptr.stopped {
		c.ptr.trap.Store(true)
		c.setWork(workStop)
	}
	return nil
}

// PtraceListen is PTRACE_LISTEN.
func (t *Task) PtraceListen(c *Task) error {
	t.k.tree.Lock()
	defer t.k.tree.Unlock()
	if c.ptr.tracer.Load() != t || !c.ptr.stopped {
		return unix.ESRCH
	}
	if !c.ptr.seized || c.ptr.code>>8 != unix.PTRACE_EVENT_STOP {
		return unix.EIO
	}
	c.ptr.listen = true
	c.wake.NotifyEvent(0)
	return nil
}

// PtraceResume lets a stopped tracee go on: with stops at system calls or after one instruction, and with a signal. detach ends the tracing.
func (t *Task) PtraceResume(c *Task, sysStops, step, detach bool, sig linux.Signal) error {
	if sig < 0 || sig > linux.NumSignals {
		return unix.EIO
	}
	t.k.tree.Lock()
	defer t.k.tree.Unlock()
	p := &c.ptr
	if p.tracer.Load() != t || !p.stopped {
		return unix.ESRCH
	}
	p.inject = sig
	if detach {
		c.detach()
		return nil
	}
	p.stopped, p.sysStops, p.step = false, sysStops, step
	c.wake.NotifyEvent(0)
	return nil
}

// PtraceStopped runs f on a tracee of t that is stopped, and which stays so meanwhile. ESRCH.
func (t *Task) PtraceStopped(c *Task, f func() error) error {
	t.k.tree.Lock()
	defer t.k.tree.Unlock()
	if c.ptr.tracer.Load() != t || !c.ptr.stopped {
		return unix.ESRCH
	}
	return f()
}

// PtraceTracee tells whether c is a tracee of t. Kernel.PtraceStopped checks this as well.
func (t *Task) PtraceTracee(c *Task) bool { return c.ptr.tracer.Load() == t }

// SetPtraceOptions is PTRACE_SETOPTIONS, to be called in PtraceStopped.
func (t *Task) SetPtraceOptions(o uint32) { t.ptr.options = o }

// PtraceMessage is PTRACE_GETEVENTMSG; to be called in PtraceStopped.
func (t *Task) PtraceMessage() uint64 { return t.ptr.msg }

// PtraceSignalInfo is what PTRACE_GETSIGINFO reads and PTRACE_SETSIGINFO writes; to be called in PtraceStopped.
func (t *Task) PtraceSignalInfo() *linux.SignalInfo { return &t.ptr.info }

// PtraceSyscall describes the stop for PTRACE_GET_SYSCALL_INFO: op is PTRACE_SYSCALL_INFO_*; to be called in PtraceStopped.
func (t *Task) PtraceSyscall() (op uint8, nr uint64, ret int64, failed bool) {
	p := &t.ptr
	return p.where, p.nr, p.ret, p.failed
}

// SetPtraceMask is PTRACE_SETSIGMASK; to be called in PtraceStopped.
func (t *Task) SetPtraceMask(m linux.SignalSet) {
	t.group.mu.Lock()
	t.setMaskLocked(m &^ linux.UnblockableSignals)
	t.group.mu.Unlock()
}

// PtraceFP reads (or, with write, replaces) the extended state of a stopped tracee, on the tracee's own goroutine: buf has
// Kernel.FPStateSize bytes. ESRCH, EINVAL.
func (t *Task) PtraceFP(c *Task, buf []byte, write bool) error {
	t.k.tree.Lock()
	p := &c.ptr
	if p.tracer.Load() != t || !p.stopped || p.work != nil {
		t.k.tree.Unlock()
		return unix.ESRCH
	}
	var err error = unix.ESRCH
	p.done = make(chan struct{})
	p.work = func() {
		if write {
			err = c.ctx.WriteFP(buf)
		} else {
			err = c.ctx.ReadFP(buf)
		}
	}
	done := p.done
	c.wake.NotifyEvent(0)
	t.k.tree.Unlock()
	<-done
	if err != nil && err != unix.ESRCH {
		err = unix.EINVAL
	}
	return err
}

// FPStateSize is the size of the extended state in bytes, XCR0 its components.
func (k *Kernel) FPStateSize() int { return k.fpSize }

// XCR0 are the components of the extended state.
func (k *Kernel) XCR0() uint64 { return k.xcr0 }

// SetTracedRegs replaces the registers of a stopped tracee, sanitised; to be called in PtraceStopped.
func (t *Task) SetTracedRegs(r *arch.Registers) {
	const flags = 0x50dd5 // what POPF may change
	r.Cs, r.Ss, r.Ds, r.Es, r.Fs, r.Gs = t.regs.Cs, t.regs.Ss, t.regs.Ds, t.regs.Es, t.regs.Fs, t.regs.Gs
	r.Eflags = t.regs.Eflags&^flags | r.Eflags&flags
	t.regs = *r
	if int64(r.OrigRax) < 0 {
		t.restart.err = 0 // a debugger that calls a function wants no restart of the interrupted call
	}
}
