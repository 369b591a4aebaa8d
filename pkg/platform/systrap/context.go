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
	thread *thread   // nil until the first Switch
	state  []byte    // extended state while there is no thread; nil is the initial state
	spin   spinState // while there is no thread

	current   atomic.Pointer[thread] // thread, for Interrupt
	interrupt atomic.Uint32          // Interrupt was called and Switch did not say so yet
	lent      *addressSpace          // the thread is lent there: it, and state, must be claimed first
	idle      func()                 // OnIdle
}

// OnIdle implements platform.Lingerer.
func (c *context) OnIdle(f func()) { c.idle = f }

// Crowded implements platform.Lingerer. A context in application code and the goroutine that spins for it need two processors.
func (c *context) Crowded() bool {
	p := &c.p.pace
	return 2*(p.running.Load()+1) >= p.cpus
}

// Switch implements platform.Context.
func (c *context) Switch(as platform.AddressSpace, regs *arch.Registers) (platform.Event, error) {
	a := as.(*addressSpace)
	c.claim()
	t := c.thread
	if t == nil || t.as != a {
		var err error
		if t, err = c.bind(a); err != nil {
			return platform.Event{}, err
		}
	} else if u := c.swap(t); u != nil {
		t = u
	}
	for again := false; ; {
		// From here on others send the interrupt signal, and do not replace code that the thread is in.
		running := t.enter()
		if a.freezing.Load() {
			t.leave()
			a.awaitThaw()
			continue
		}
		if c.interrupt.Load() != 0 && c.interrupt.Swap(0) != 0 {
			t.leave()
			return platform.Event{Kind: platform.EventInterrupt}, nil
		}
		if again {
			t.again()
		} else if err := c.load(t, regs); err != nil {
			t.leave()
			return platform.Event{}, err
		}
		if a.deferred.some.Load() {
			t.bring(running)
		}
		t.resume(running)
		// An interrupt signal that was sent before the thread was told to run had no effect.
		if c.interrupt.Load() != 0 {
			t.kick()
		}
		t.wait(running, c.idle)
		t.leave()
		if a.dead.Load() {
			return platform.Event{}, a.death()
		}
		ev, ok := t.event(regs)
		if !ok {
			a.kill()
			return ev, errDead
		}
		if ev.Kind == platform.EventInterrupt && c.interrupt.Swap(0) == 0 {
			again = true // not for the application
			continue
		}
		return ev, nil
	}
}

// again prepares the thread to go on as it stopped, by a signal.
func (t *thread) again() {
	u := (*ucontext)(t.at(t.uctx))
	u.rip = t.as.forward(u.rip)
	t.slot.mode = modeSigreturn
}

// Blocked implements platform.Context: the stub thread need not spin. It may as long as nobody else wants its processor, as
// waking a processor that idles costs more than waking one that does not, if the last times were short.
func (c *context) Blocked() {
	if c.lent != nil || c.thread == nil || c.thread.as.dead.Load() {
		return
	}
	t := c.thread
	p := &c.p.pace
	t.blocked = true
	defer c.lendThread(t)
	cpu := &p.cpu[t.cpu%cpuSlots]
	if uint64(t.spin.block) >= spinBlockMax*p.ticks || p.running.Load() >= p.cpus {
		t.rest()
	} else if u := cpu.last.Load(); u != t && u != nil && atomic.LoadUint32(&u.inside) != 0 {
		t.giveWay()
	} else if u := cpu.idle.Swap(t); u != nil && u != t {
		u.rest()
	}
}

// Interrupt implements platform.Context.
func (c *context) Interrupt() {
	if c.interrupt.Swap(1) != 0 {
		return
	}
	if t := c.current.Load(); t != nil && atomic.LoadUint32(&t.inside) != 0 {
		t.kick()
	}
}

// bind gives the context a thread in a.
func (c *context) bind(a *addressSpace) (*thread, error) {
	c.unbind()
	if !a.ref() {
		return nil, errDead
	}
	t := a.steal(true)
	if t == nil {
		var err error
		if t, err = a.take(); err != nil {
			a.unref()
			return nil, err
		}
	}
	c.take(t)
	return t, nil
}

// take lets t, which nobody has, go on with the context's state.
func (c *context) take(t *thread) {
	c.thread = t
	t.interrupt = &c.interrupt
	c.current.Store(t)
	t.live, t.blocked, t.fresh, t.spin = false, false, true, c.spin
	t.frame(c.state)
}

// unbind gives the thread back and keeps its extended state.
func (c *context) unbind() {
	c.claim()
	if t := c.thread; t != nil {
		c.detach()
		t.as.give(t)
	}
}

// detach keeps the extended state of the thread, and leaves the thread.
func (c *context) detach() {
	t := c.thread
	c.current.Store(nil)
	c.thread, c.spin = nil, t.spin
	if t.live && t.save() != nil {
		t.fp = 0
	}
	if fp := t.xstate(); fp != nil {
		if c.state == nil {
			c.state = make([]byte, c.p.xstate.size)
		}
		c.p.xstate.read(c.state, fp)
	} else {
		c.state = nil
	}
}

// Release implements platform.Context.
func (c *context) Release() {
	c.claim()
	if t := c.thread; t != nil {
		c.current.Store(nil)
		c.thread = nil
		t.rest()
		t.as.give(t)
	}
	c.state = nil
}

// settle makes sure that the thread has a frame with the extended state.
func (c *context) settle(t *thread) error {
	if !t.live {
		return nil
	}
	if err := t.save(); err != nil {
		return err
	}
	if c.state == nil {
		c.state = make([]byte, c.p.xstate.size)
	}
	c.p.xstate.read(c.state, t.xstate())
	t.frame(c.state)
	return nil
}

// save has the stub save the extended state of a live thread at slotFP.
func (t *thread) save() error {
	if atomic.LoadUint32(&t.slot.goSeq)&asleep != 0 {
		t.live, t.fp = false, slotSleep // it did that before it went to sleep
		return nil
	}
	clear(unsafe.Slice((*byte)(t.at(slotFP)), t.as.p.xstate.size))
	t.slot.mode = modeSave
	var now atomic.Uint32
	now.Store(1)
	context := t.interrupt
	t.interrupt = &now
	t.resume(0)
	t.wait(0, nil)
	t.interrupt = context
	if t.as.dead.Load() {
		return errDead
	}
	t.live, t.fp = false, slotFP
	return nil
}

// ReadFP implements platform.Context.
func (c *context) ReadFP(buf []byte) error {
	x := &c.p.xstate
	if len(buf) != x.size {
		return unix.EINVAL
	}
	var fp []byte
	c.claim()
	if c.thread != nil {
		if err := c.settle(c.thread); err != nil {
			return err
		}
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
	c.claim()
	if t := c.thread; t != nil {
		fp := t.xstate()
		if fp == nil || t.live {
			t.live = false
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
	t.uctx, t.fp = slotFrame, 0
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

// load hands the registers to the stub thread and chooses how to resume.
func (c *context) load(t *thread, r *arch.Registers) error {
	a := t.as
	flags := r.Eflags&flagsUser | flagsFixed
	cs := uint16(arch.UserCS)
	if r.Cs&0xffff == userCS32 {
		cs = userCS32
	}
	gs := r.GsBase
	if gs != 0 {
		if !a.noPatch.Load() {
			a.stopPatching()
		}
	} else {
		gs = t.addr // for trampolines
	}
	if flags&flagTF != 0 && a.patches.Load() != nil {
		a.stopPatching()
	}
	s := t.slot
	set := uint32(setFs | setGs)
	if t.basesKnown {
		set = 0
		if t.fs != r.FsBase {
			set = setFs
		}
		if t.gs != gs {
			set |= setGs
		}
	}
	if set != 0 {
		t.fs, t.gs, t.basesKnown = r.FsBase, gs, true
		s.fsBase, s.gsBase = r.FsBase, gs
		atomic.StoreUint32(&s.before, set)
	}
	plain := flags&(flagTF|flagRF) == 0 && cs == arch.UserCS && r.Rip < maxUser
	if t.live {
		if plain && r.GsBase == 0 {
			t.loadPatched(r, flags)
			return nil
		}
		if err := c.settle(t); err != nil {
			return err
		}
	}
	u := (*ucontext)(t.at(t.uctx))
	rip := a.forward(r.Rip)
	put(&u.r8, r.R8)
	put(&u.r9, r.R9)
	put(&u.r10, r.R10)
	put(&u.r11, r.R11)
	put(&u.r12, r.R12)
	put(&u.r13, r.R13)
	put(&u.r14, r.R14)
	put(&u.r15, r.R15)
	put(&u.rdi, r.Rdi)
	put(&u.rsi, r.Rsi)
	put(&u.rbp, r.Rbp)
	put(&u.rbx, r.Rbx)
	put(&u.rdx, r.Rdx)
	put(&u.rax, r.Rax)
	put(&u.rcx, r.Rcx)
	put(&u.rsp, r.Rsp)
	put(&u.rip, rip)
	put(&u.eflags, flags)
	if u.cs != cs || u.ss != arch.UserSS {
		u.cs, u.ss = cs, arch.UserSS
	}
	s.mode = modeSigreturn
	if plain && r.Rcx == rip && r.R11 == flags && t.fp != 0 && !t.masked {
		s.mode = modeFast
	}
	return nil
}

// put writes what is not there already: most registers come back as they were, and a cache line that is not written
// need not be fetched by the other side again.
func put(p *uint64, v uint64) {
	if *p != v {
		*p = v
	}
}

// loadPatched is load for a thread whose extended state is in the processor.
func (t *thread) loadPatched(r *arch.Registers, flags uint64) {
	s := t.slot
	put(&s.rdi, r.Rdi)
	put(&s.rsi, r.Rsi)
	put(&s.rdx, r.Rdx)
	put(&s.r10, r.R10)
	put(&s.r8, r.R8)
	put(&s.r9, r.R9)
	put(&s.rcx, r.Rcx)
	put(&s.rsp, r.Rsp)
	put(&s.rbp, r.Rbp)
	put(&s.rbx, r.Rbx)
	put(&s.r12, r.R12)
	put(&s.r13, r.R13)
	put(&s.r14, r.R14)
	put(&s.r15, r.R15)
	put(&s.flags, flags)
	s.result, s.r11, s.rip = r.Rax, r.R11, r.Rip
	s.mode = modePatched
	ps := t.as.patches.Load()
	switch site := &ps.sites[t.site]; {
	case r.Rip != site.ret:
		s.target = t.as.forward(r.Rip)
	case site.kind == siteTail:
		s.target = tailOf(t.site)
	default:
		s.target = r.Rip
	}
}

// patchedEvent is event after a patched system call; ok is false if there can be none.
func (t *thread) patchedEvent(r *arch.Registers) (platform.Event, bool) {
	s := t.slot
	ps := t.as.patches.Load()
	k := int(s.site)
	if ps == nil || k < 0 || k >= int(ps.n.Load()) {
		return platform.Event{}, false
	}
	t.live, t.site, t.masked = true, k, false
	flags := s.flags&flagsUser | flagsFixed
	rax, rip := s.rax, s.rcx
	r.Rax, r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9, r.Rcx = rax, s.rdi, s.rsi, s.rdx, s.r10, s.r8, s.r9, rip
	r.Rsp, r.Rbp, r.Rbx, r.R11, r.R12, r.R13 = s.rsp, s.rbp, s.rbx, flags, s.r12, s.r13
	r.R14, r.R15, r.Eflags, r.Rip = s.r14, s.r15, flags, rip
	r.Cs, r.Ss, r.OrigRax = arch.UserCS, arch.UserSS, rax
	return platform.Event{Kind: platform.EventSyscall}, true
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

// bases notes which segment bases the thread has. Where applications can write them, the kernel tells that in AT_HWCAP2, which
// ours do not get; to one that writes them all the same, what it wrote is what counts, once it has stopped. If a patched place
// is how it stops, after it changed the gs base, it overwrites its own memory.
func (t *thread) bases(r *arch.Registers) {
	s := t.slot
	if s.before != 0 {
		t.basesKnown = false // stopped again before it got that far
		return
	}
	if !t.as.p.fsgsbase {
		return
	}
	if fs := s.fsNow; fs != t.fs && fs < 1<<47 {
		r.FsBase, t.fs = fs, fs
	}
	if gs := s.gsNow; gs != t.gs && gs < 1<<47 {
		r.GsBase, t.gs = gs, gs
	}
}

// event reads what stopped the thread; ok is false if it makes no sense.
func (t *thread) event(r *arch.Registers) (ev platform.Event, ok bool) {
	t.bases(r)
	sig := t.slot.signal
	if sig == sigPatched {
		return t.patchedEvent(r)
	}
	p := t.as.p
	off, ok := t.offset(t.slot.uctx, uint64(ucontextSize), 8)
	infoOff, ok2 := t.offset(t.slot.info, uint64(siginfoSize), 8)
	if !ok {
		return ev, false
	}
	u := *(*ucontext)(t.at(off))
	t.uctx, t.fp, t.live = off, 0, false
	t.masked = unix.Signal(sig) == unix.SIGUSR1
	if fp, ok := t.offset(u.fpstate, uint64(p.xstate.size)+4, 64); ok {
		t.fp = fp
	}
	r.R8, r.R9, r.R10, r.R11 = u.r8, u.r9, u.r10, u.r11
	r.R12, r.R13, r.R14, r.R15 = u.r12, u.r13, u.r14, u.r15
	r.Rdi, r.Rsi, r.Rbp, r.Rbx = u.rdi, u.rsi, u.rbp, u.rbx
	r.Rdx, r.Rax, r.Rcx, r.Rsp = u.rdx, u.rax, u.rcx, u.rsp
	r.Rip, r.Eflags = u.rip, u.eflags&flagsUser|flagsFixed
	r.Cs, r.Ss = uint64(u.cs), uint64(u.ss)
	r.OrigRax = ^uint64(0)
	if r.Rip-trampAddr < trampEnd-trampAddr {
		t.as.backward(r)
	}
	if unix.Signal(sig) == unix.SIGUSR1 {
		return platform.Event{Kind: platform.EventInterrupt}, true
	}
	if !ok2 {
		return ev, false
	}
	info := *(*siginfo)(t.at(infoOff))
	switch unix.Signal(sig) {
	case unix.SIGSYS:
		ev = t.sysEvent(r, &info)
		ev.Hot = ev.Kind == platform.EventSyscall && t.hot.hit(r.Rip) && !t.as.noPatch.Load()
		return ev, true
	case unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP:
		if info.code <= 0 {
			return platform.Event{Kind: platform.EventInterrupt}, true // sent by some process
		}
		if u.rip == p.text.label[labelPatched] && t.as.patches.Load() != nil {
			return t.lostGs(r), true
		}
		if unix.Signal(sig) == unix.SIGTRAP && u.rip-trampAddr < trampEnd-trampAddr {
			return platform.Event{Kind: platform.EventInterrupt}, true // a single step inside the system call
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
func (t *thread) sysEvent(r *arch.Registers, info *siginfo) platform.Event {
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
	if r.Rip-trampAddr < trampEnd-trampAddr {
		t.as.backward(r)
	}
	r.Rcx, r.R11 = r.Rip, r.Eflags
	return platform.Event{Kind: platform.EventSyscall}
}

// lostGs is the event for a patched system call of a thread that made gs point elsewhere, by loading the segment register:
// its registers are untouched but for what a system call changes anyway.
func (t *thread) lostGs(r *arch.Registers) platform.Event {
	t.basesKnown = false
	r.OrigRax, r.Rip, r.R11 = r.Rax, r.Rcx, r.Eflags
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
