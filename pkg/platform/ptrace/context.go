package ptrace

import (
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/platform/stub"
)

// interruptSignal makes a running thread stop. It is sent to threads that are traced only; its default action is
// none, and several of them coalesce.
const interruptSignal = unix.SIGURG

// vsyscallPage is where the kernel emulates three calls of old programs.
const vsyscallPage = 0xffffffffff600000

// context implements platform.Context.
type context struct {
	p    *Platform
	fp   []byte  // extended state; used by the goroutine that uses the context
	on   *thread // that has the state of fp loaded, if its owner agrees; same
	wake chan struct{}

	mu          sync.Mutex
	interrupted bool    // Interrupt was called and no Switch returned for it; protected by mu
	preempted   bool    // the gate wants the place; protected by mu
	running     *thread // executes application code; protected by mu
	signalled   bool    // running was sent interruptSignal; protected by mu

	turn turn // of the gate
}

// Switch implements platform.Context.
func (c *context) Switch(space platform.AddressSpace, regs *arch.Registers) (platform.Event, error) {
	as, ok := space.(*addressSpace)
	if !ok || as.p != c.p {
		return platform.Event{}, unix.EINVAL
	}
	if !as.enter() {
		return platform.Event{}, errGone
	}
	defer as.leave()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sanitise(regs)
	for {
		if !c.p.gate.acquire(c) {
			return platform.Event{Kind: platform.EventInterrupt}, nil
		}
		ev, again, err := c.runIn(as, regs)
		c.p.gate.release(c)
		if err != nil || !again {
			return ev, err
		}
	}
}

// sanitise replaces what SETREGS would refuse or what 64-bit programs cannot have.
func sanitise(r *arch.Registers) {
	const top = 0x7ffffffff000
	r.OrigRax, r.Cs, r.Ss = ^uint64(0), arch.UserCS, arch.UserSS
	r.Ds, r.Es, r.Fs, r.Gs = 0, 0, 0, 0
	r.Eflags = r.Eflags&0x254dd5 | 0x202 // ID AC RF NT OF DF TF SF ZF AF PF CF; always IF and bit 1
	if r.FsBase >= top {
		r.FsBase = 0
	}
	if r.GsBase >= top {
		r.GsBase = 0
	}
}

// takeInterrupt says whether the context was interrupted, and forgets it.
func (c *context) takeInterrupt() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.interrupted
	c.interrupted = false
	return was
}

// Blocked implements platform.Context. Its threads sleep anyway.
func (c *context) Blocked() {}

// Interrupt implements platform.Context.
func (c *context) Interrupt() {
	c.mu.Lock()
	c.interrupted = true
	c.kick()
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// kick stops the running thread. c.mu is held.
func (c *context) kick() {
	if t := c.running; t != nil && !c.signalled {
		c.signalled = true
		unix.Tgkill(int(t.as.leader.Tracee), int(t.Tracee), interruptSignal)
	}
}

// runIn executes the context in a thread of as until an event; again asks to start over because the gate preempted it.
func (c *context) runIn(as *addressSpace, regs *arch.Registers) (ev platform.Event, again bool, err error) {
	tid := unix.Gettid()
	t := c.on
	if t == nil || t.as != as || t.tracer.tid != tid || t.ended {
		if t = as.find(tid); t == nil {
			if t, err = as.newThread(tid); err != nil {
				return ev, false, err
			}
		}
	}
	if c.on != t || t.owner != c {
		if err := t.SetXState(c.fp); err != nil {
			return ev, false, err
		}
		c.on, t.owner = t, c
	}
	if err := t.SetRegs(regs); err != nil {
		return ev, false, err
	}
	for {
		st, err := c.resume(t)
		if err != nil {
			return ev, false, err
		}
		if st == 0 {
			return platform.Event{Kind: platform.EventInterrupt}, false, c.fetch(t, regs)
		}
		stop, err := c.classify(t, st, regs, &ev)
		if err != nil {
			return ev, false, err
		}
		switch stop {
		case stopEvent:
			return ev, false, nil
		case stopPreempted:
			return ev, true, nil
		}
	}
}

// resume lets the thread run until it stops. The status is 0 where the context was interrupted before.
func (c *context) resume(t *thread) (stub.Status, error) {
	c.mu.Lock()
	if c.interrupted {
		c.interrupted = false
		c.mu.Unlock()
		return 0, nil
	}
	c.running, c.signalled = t, false
	c.mu.Unlock()
	err := t.Sysemu()
	var st stub.Status
	if err == nil {
		st, err = t.WaitStop()
		t.note(err)
	}
	c.mu.Lock()
	c.running = nil
	c.mu.Unlock()
	return st, err
}

// fetch reads the state of a stopped thread.
func (c *context) fetch(t *thread, regs *arch.Registers) error {
	if err := t.GetRegs(regs); err != nil {
		return err
	}
	_, err := t.GetXState(c.fp)
	return err
}

// stopKind is what a stop means to Switch.
type stopKind int

const (
	stopNothing   stopKind = iota // go on
	stopEvent                     // return the event
	stopPreempted                 // give up the place, then go on
)

// classify finds out why the thread stopped and, where that ends the turn, fetches its state.
func (c *context) classify(t *thread, st stub.Status, regs *arch.Registers, ev *platform.Event) (stopKind, error) {
	if st.Event() != 0 {
		return stopNothing, nil
	}
	switch sig := st.Signal(); sig {
	case stub.SyscallStop:
		if err := c.fetch(t, regs); err != nil {
			return stopEvent, err
		}
		syscallEvent(regs, ev)
		return stopEvent, nil
	case int(interruptSignal):
		c.mu.Lock()
		interrupted, preempted := c.interrupted, c.preempted
		c.interrupted, c.preempted = false, false
		c.mu.Unlock()
		if !interrupted && !preempted {
			return stopNothing, nil // left over from an earlier turn of this thread
		}
		if err := c.fetch(t, regs); err != nil {
			return stopEvent, err
		}
		regs.OrigRax = ^uint64(0)
		*ev = platform.Event{Kind: platform.EventInterrupt}
		if !interrupted {
			return stopPreempted, nil
		}
		return stopEvent, nil
	case int(unix.SIGSEGV), int(unix.SIGBUS), int(unix.SIGFPE), int(unix.SIGILL), int(unix.SIGTRAP), int(unix.SIGSYS):
		return c.fault(t, regs, ev)
	}
	return stopNothing, nil
}

// syscallEvent describes a stop at a system call. A syscall instruction of 64-bit code leaves rip in rcx and the flags in
// r11. What does not look like that is int 0x80 or an instruction of another mode: a fault, as on a
// processor and kernel without 32-bit support. (A program that forges the registers before int 0x80 gets the
// 64-bit call of that number, which it could have had anyway.)
func syscallEvent(regs *arch.Registers, ev *platform.Event) {
	if regs.Cs == arch.UserCS && regs.Rcx == regs.Rip && regs.R11 == regs.Eflags {
		*ev = platform.Event{Kind: platform.EventSyscall}
		return
	}
	if regs.Cs == arch.UserCS {
		regs.Rip -= 2
	}
	regs.Rax, regs.OrigRax = regs.OrigRax, ^uint64(0)
	regs.Cs, regs.Ss = arch.UserCS, arch.UserSS
	*ev = platform.Event{Kind: platform.EventFault, Signal: int32(unix.SIGSEGV), Code: 0x80}
}

// si_code values; see sigaction(2).
const (
	segvMapErr = 1
	sysSeccomp = 1
)

// fault describes a stop by a signal that a processor exception may have caused. Those that someone sent have si_code <= 0.
func (c *context) fault(t *thread, regs *arch.Registers, ev *platform.Event) (stopKind, error) {
	var si stub.Siginfo
	if err := t.GetSiginfo(&si); err != nil {
		return stopEvent, err
	}
	if si.Code <= 0 {
		return stopNothing, nil
	}
	if err := c.fetch(t, regs); err != nil {
		return stopEvent, err
	}
	regs.OrigRax, regs.Cs, regs.Ss = ^uint64(0), arch.UserCS, arch.UserSS
	*ev = platform.Event{Kind: platform.EventFault, Signal: si.Signo, Code: si.Code, Addr: si.Addr}
	switch unix.Signal(si.Signo) {
	case unix.SIGSYS:
		// The filter refused the emulation of a vsyscall; the kernel has returned from it already.
		if si.Code != sysSeccomp || si.Addr&^arch.PageMask != vsyscallPage {
			return stopEvent, errGone
		}
		regs.Rip, regs.Rsp = si.Addr, regs.Rsp-8
		*ev = platform.Event{Kind: platform.EventFault, Signal: int32(unix.SIGSEGV), Code: segvMapErr, Addr: si.Addr, Access: platform.Exec}
	case unix.SIGSEGV, unix.SIGBUS:
		if si.Addr == regs.Rip && si.Code != 0x80 {
			ev.Access = platform.Exec
		}
	case unix.SIGTRAP:
		if si.Code == 0x80 {
			ev.Addr = 0
		}
	}
	return stopEvent, nil
}

// ReadFP implements platform.Context. EINVAL where the buffer has not the right size.
func (c *context) ReadFP(buf []byte) error {
	if len(buf) != len(c.fp) {
		return unix.EINVAL
	}
	copy(buf, c.fp)
	return nil
}

// WriteFP implements platform.Context. EINVAL where the buffer has not the right size, or a header that XRSTOR
// refuses: the compacted format, reserved bytes, unknown components, reserved bits of MXCSR.
func (c *context) WriteFP(buf []byte) error {
	if len(buf) != len(c.fp) {
		return unix.EINVAL
	}
	h := (*[8]uint64)(unsafe.Pointer(&buf[512]))
	if h[0]&^c.p.xcr0 != 0 || *(*uint32)(unsafe.Pointer(&buf[24]))&^c.p.mxcsrMask != 0 {
		return unix.EINVAL
	}
	for _, v := range h[1:] {
		if v != 0 {
			return unix.EINVAL
		}
	}
	copy(c.fp, buf)
	c.on = nil
	return nil
}

// Release implements platform.Context.
func (c *context) Release() { c.on = nil }
