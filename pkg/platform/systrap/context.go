package systrap

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// context is an application thread. Between two Switches in the same address space it keeps its stub thread, whose
// signal frame holds the extended state.
type context struct {
	p      *systrap
	thread *thread // nil until the first Switch
	state  []byte  // extended state while there is no thread; nil is the initial state

	running   atomic.Pointer[thread] // set while the stub thread may be in application code
	interrupt atomic.Uint32          // Interrupt was called and Switch did not say so yet
}

// Switch implements platform.Context.
func (c *context) Switch(as platform.AddressSpace, regs *arch.Registers) (platform.Event, error) {
	a := as.(*addressSpace)
	t := c.thread
	if t == nil || t.as != a {
		var err error
		if t, err = c.bind(a); err != nil {
			return platform.Event{}, err
		}
	}
	c.running.Store(t)
	if c.interrupt.Load() != 0 && c.interrupt.Swap(0) != 0 {
		c.running.Store(nil)
		return platform.Event{Kind: platform.EventInterrupt}, nil
	}
	t.load(regs)
	for {
		t.resume()
		// An interrupt signal that was sent before the thread was told to run had no effect.
		if c.interrupt.Load() != 0 {
			t.kick()
		}
		t.wait()
		if a.dead.Load() {
			c.running.Store(nil)
			return platform.Event{}, errDead
		}
		ev, ok := t.event(regs)
		if !ok {
			c.running.Store(nil)
			a.kill()
			return ev, errDead
		}
		if ev.Kind == platform.EventInterrupt && c.interrupt.Swap(0) == 0 {
			t.slot.mode = modeSigreturn // not for the application
			continue
		}
		c.running.Store(nil)
		return ev, nil
	}
}

// Interrupt implements platform.Context.
func (c *context) Interrupt() {
	if c.interrupt.Swap(1) != 0 {
		return
	}
	if t := c.running.Load(); t != nil {
		t.kick()
	}
}

// bind gives the context a thread in a.
func (c *context) bind(a *addressSpace) (*thread, error) {
	c.unbind()
	if !a.ref() {
		return nil, errDead
	}
	t, err := a.take()
	if err != nil {
		a.unref()
		return nil, err
	}
	c.thread = t
	t.frame(c.state)
	return t, nil
}

// unbind gives the thread back and keeps its extended state.
func (c *context) unbind() {
	t := c.thread
	if t == nil {
		return
	}
	c.thread = nil
	if fp := t.xstate(); fp != nil {
		if c.state == nil {
			c.state = make([]byte, c.p.xstate.size)
		}
		c.p.xstate.read(c.state, fp)
	}
	t.as.give(t)
}

// Release implements platform.Context.
func (c *context) Release() {
	if t := c.thread; t != nil {
		c.thread = nil
		t.as.give(t)
	}
	c.state = nil
}

// ReadFP implements platform.Context.
func (c *context) ReadFP(buf []byte) error {
	x := &c.p.xstate
	if len(buf) != x.size {
		return unix.EINVAL
	}
	var fp []byte
	if c.thread != nil {
		fp = c.thread.xstate()
	} else {
		fp = c.state
	}
	if fp == nil {
		x.init(buf)
		return nil
	}
	x.read(buf, fp)
	return nil
}

// WriteFP implements platform.Context.
func (c *context) WriteFP(buf []byte) error {
	x := &c.p.xstate
	if len(buf) != x.size {
		return unix.EINVAL
	}
	if err := x.check(buf); err != nil {
		return err
	}
	if t := c.thread; t != nil {
		fp := t.xstate()
		if fp == nil {
			// It did not run yet, or a hostile application hid the state.
			t.frame(buf)
			return nil
		}
		x.write(fp, buf)
		return nil
	}
	if c.state == nil {
		c.state = make([]byte, x.size)
	}
	copy(c.state, buf)
	return nil
}

// xstate is the extended state in the frame that the thread resumes from; nil if it has none.
func (t *thread) xstate() []byte {
	if t.fp == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(t.at(t.fp)), t.as.p.xstate.size)
}

// at is the sentry's address of an offset in the slot.
func (t *thread) at(off uint64) unsafe.Pointer {
	p := t.base + uintptr(off)
	return *(*unsafe.Pointer)(unsafe.Pointer(&p))
}

// frame builds the frame that a context's first run on this thread starts from.
func (t *thread) frame(fp []byte) {
	u := (*ucontext)(t.at(slotFrame))
	*u = ucontext{flags: 7, stackSP: t.addr + slotStack, ssLen: slotSize - slotStack, sigmask: appMask()}
	t.uctx, t.fp, t.fresh = slotFrame, 0, true
	if fp != nil {
		t.as.p.xstate.frame(unsafe.Slice((*byte)(t.at(slotFP)), t.as.p.xstate.size+4), fp)
		u.fpstate = t.addr + slotFP
		t.fp = slotFP
	}
	t.slot.uctx = t.addr + slotFrame
}

// User-changeable flags, as rt_sigreturn(2) takes them: CF PF AF ZF SF TF DF OF RF AC.
const (
	flagsUser  = 0x50dd5
	flagsFixed = 0x202
	flagTF     = 0x100
	flagRF     = 0x10000
)

// load writes the registers into the frame and chooses how to resume.
func (t *thread) load(r *arch.Registers) {
	u := (*ucontext)(t.at(t.uctx))
	flags := r.Eflags&flagsUser | flagsFixed
	u.r8, u.r9, u.r10, u.r11 = r.R8, r.R9, r.R10, r.R11
	u.r12, u.r13, u.r14, u.r15 = r.R12, r.R13, r.R14, r.R15
	u.rdi, u.rsi, u.rbp, u.rbx = r.Rdi, r.Rsi, r.Rbp, r.Rbx
	u.rdx, u.rax, u.rcx, u.rsp = r.Rdx, r.Rax, r.Rcx, r.Rsp
	u.rip, u.eflags = r.Rip, flags
	u.cs, u.ss = arch.UserCS, arch.UserSS
	if r.Cs&0xffff == userCS32 {
		u.cs = userCS32
	}
	mode := uint32(modeSigreturn)
	if r.Rcx == r.Rip && r.R11 == flags && flags&(flagTF|flagRF) == 0 && t.fp != 0 && !t.fresh && u.cs == arch.UserCS && r.Rip < maxUser {
		mode = modeFast
	}
	s := t.slot
	s.mode = mode
	if !t.basesKnown || t.fs != r.FsBase || t.gs != r.GsBase {
		t.fs, t.gs, t.basesKnown = r.FsBase, r.GsBase, true
		s.fsBase, s.gsBase = r.FsBase, r.GsBase
		atomic.StoreUint32(&s.setBase, setFs|setGs)
	}
}

// userCS32 is the code segment of 32-bit code, to which a 64-bit program may jump.
const userCS32 = 0x23

// kick sends the interrupt signal.
func (t *thread) kick() {
	a := t.as
	a.life.Lock()
	if !a.reaped {
		unix.Tgkill(a.pid, t.tid, unix.SIGUSR1)
	}
	a.life.Unlock()
}

// offset checks that n bytes at a stub address lie in the thread's signal stack, and gives their offset in the slot.
func (t *thread) offset(addr, n, align uint64) (off uint64, ok bool) {
	off = addr - t.addr
	return off, off >= slotStack && off <= slotSize-n && off%align == 0
}

// event reads what stopped the thread; ok is false if it makes no sense.
func (t *thread) event(r *arch.Registers) (ev platform.Event, ok bool) {
	p := t.as.p
	off, ok := t.offset(t.slot.uctx, uint64(ucontextSize), 8)
	infoOff, ok2 := t.offset(t.slot.info, uint64(siginfoSize), 8)
	if !ok {
		return ev, false
	}
	u := *(*ucontext)(t.at(off))
	t.uctx, t.fp, t.fresh = off, 0, false
	if fp, ok := t.offset(u.fpstate, uint64(p.xstate.size)+4, 64); ok {
		t.fp = fp
	}
	if t.slot.setBase != 0 {
		t.basesKnown = false // stopped again before it got that far
	}
	sig := t.slot.signal
	r.R8, r.R9, r.R10, r.R11 = u.r8, u.r9, u.r10, u.r11
	r.R12, r.R13, r.R14, r.R15 = u.r12, u.r13, u.r14, u.r15
	r.Rdi, r.Rsi, r.Rbp, r.Rbx = u.rdi, u.rsi, u.rbp, u.rbx
	r.Rdx, r.Rax, r.Rcx, r.Rsp = u.rdx, u.rax, u.rcx, u.rsp
	r.Rip, r.Eflags = u.rip, u.eflags&flagsUser|flagsFixed
	r.Cs, r.Ss = uint64(u.cs), uint64(u.ss)
	r.OrigRax = ^uint64(0)
	if unix.Signal(sig) == unix.SIGUSR1 {
		return platform.Event{Kind: platform.EventInterrupt}, true
	}
	if !ok2 {
		return ev, false
	}
	info := *(*siginfo)(t.at(infoOff))
	switch unix.Signal(sig) {
	case unix.SIGSYS:
		return sysEvent(r, &info), true
	case unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP:
		if info.code <= 0 {
			return platform.Event{Kind: platform.EventInterrupt}, true // sent by some process
		}
		ev = platform.Event{Kind: platform.EventFault, Signal: int32(sig), Code: info.code, Addr: info.addr}
		if u.trapno == trapPageFault {
			ev.Access = access(u.err)
		}
		return ev, true
	}
	return ev, false
}

const (
	trapPageFault = 14
	siKernel      = 0x80
)

// sysEvent is the event for a system call. The kernel takes the number from 32 bits, and may have treated
// it as the result of an interrupted call; what it says in the siginfo is right.
func sysEvent(r *arch.Registers, info *siginfo) platform.Event {
	ev := platform.Event{Kind: platform.EventFault, Signal: int32(unix.SIGSEGV), Code: siKernel}
	switch {
	case info.addr >= vsyscallPage:
		// The kernel did the page's ret already.
		ev.Code, ev.Addr, ev.Access = segvMapErr, info.addr, platform.Exec
		r.Rip = info.addr
		r.Rsp -= 8
		return ev
	case info.arch != unix.AUDIT_ARCH_X86_64:
		r.Rip = info.addr - 2 // int $0x80, as on a host without 32-bit emulation
		return ev
	}
	r.OrigRax = r.Rax
	if int32(r.Rax) != info.nr {
		r.OrigRax = uint64(int64(info.nr))
	}
	r.Rip = info.addr
	r.Rcx, r.R11 = r.Rip, r.Eflags
	return platform.Event{Kind: platform.EventSyscall}
}

const (
	vsyscallPage = 0xffffffffff600000
	segvMapErr   = 1
)

// access decodes the error code of a page fault.
func access(code uint64) platform.Perms {
	switch {
	case code&0x10 != 0:
		return platform.Exec
	case code&2 != 0:
		return platform.Write
	}
	return platform.Read
}
