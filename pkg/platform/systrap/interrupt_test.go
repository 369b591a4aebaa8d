package systrap

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
)

// tracer drives a stub thread with ptrace(2), instruction by instruction. All of it happens on one thread of the test.
type tracer struct {
	tid     int
	pending int // signal to deliver next
}

// seize attaches to the thread and stops it.
func seize(tid int) (*tracer, error) {
	if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(tid), 0, 0, 0, 0); errno != 0 {
		return nil, fmt.Errorf("PTRACE_SEIZE of %d: %w", tid, errno)
	}
	return &tracer{tid: tid}, nil
}

// wait notes the next stop; got is false if there is none yet and flags has WNOHANG.
func (x *tracer) wait(flags int) (sig unix.Signal, event, got bool, err error) {
	var status unix.WaitStatus
	tid, err := unix.Wait4(x.tid, &status, unix.WALL|flags, nil)
	if err != nil || tid == 0 {
		return 0, false, false, err
	}
	if !status.Stopped() {
		return 0, false, false, fmt.Errorf("thread ended: status %#x", status)
	}
	sig, event = status.StopSignal(), int(status)>>16 != 0
	if sig != unix.SIGTRAP {
		x.pending = int(sig)
	}
	return sig, event, true, nil
}

func (x *tracer) resume(request int) error {
	sig := x.pending
	x.pending = 0
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(x.tid), 0, uintptr(sig), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// stop interrupts the running thread.
func (x *tracer) stop() error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_INTERRUPT, uintptr(x.tid), 0, 0, 0, 0); errno != 0 {
		return errno
	}
	for {
		_, event, _, err := x.wait(0)
		if err != nil || event {
			return err
		}
		if err := x.resume(unix.PTRACE_CONT); err != nil {
			return err
		}
	}
}

// step executes one instruction, or enters the handler of a signal, and returns where the thread is then.
func (x *tracer) step() (rip uint64, err error) {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(x.tid, &r); err != nil {
		return 0, err
	}
	var code [8]byte
	unix.PtracePeekText(x.tid, uintptr(r.Rip), code[:])
	pushf := code[0] == 0x9c && x.pending == 0
	request := unix.PTRACE_SINGLESTEP
	if code[0] == 0x0f && code[1] == 0x05 && r.Rip < maxUser {
		request = unix.PTRACE_CONT // stops by SIGSYS, and without the tracer's trap flag in r11
	}
	if err := x.resume(request); err != nil {
		return 0, err
	}
	if _, _, _, err := x.wait(0); err != nil {
		return 0, err
	}
	if err := unix.PtraceGetRegs(x.tid, &r); err != nil {
		return 0, err
	}
	if r.Eflags&flagTF != 0 { // it is the tracer's, but the kernel takes it for what popf loaded
		r.Eflags &^= flagTF
		if err := unix.PtraceSetRegs(x.tid, &r); err != nil {
			return 0, err
		}
	}
	if pushf { // likewise
		var b [8]byte
		unix.PtracePeekData(x.tid, uintptr(r.Rsp), b[:])
		b[1] &^= flagTF >> 8
		unix.PtracePokeData(x.tid, uintptr(r.Rsp), b[:])
	}
	return r.Rip, nil
}

// stepped is the program of one site under the tracer.
type stepped struct {
	*guest
	defers     bool   // each system call puts off a change
	ticket     uint64 // of the last one
	incAt      uint64 // offset of the instruction that counts the rounds
	behind     uint64
	boundaries map[uint64]bool
	calls      uint64 // system calls that the sentry saw
	interrupts atomic.Int32
	quit       atomic.Bool
	err        chan error
}

// Values that the program does not change.
const (
	keptR14, keptR13, keptR12, keptRbp = 0x1414141414141414, 0x1313131313131313, 0x1212121212121212, 0x5555555555555555
	keptR10, keptR8, keptRdx, keptRdi  = 0x1010101010101010, 0x0808080808080808, 0x0202020202020202, 0x7777777777777777
)

// check tells whether the registers are what they must be at an event.
func (s *stepped) check(ev platform.Event) error {
	r := &s.regs
	if r.R14 != keptR14 || r.R13 != keptR13 || r.R12 != keptR12 || r.Rbp != keptRbp || r.R10 != keptR10 || r.R8 != keptR8 ||
		r.Rdx != keptRdx || r.Rdi != keptRdi || r.Rsp != dataAddr+dataLen-64 || r.Eflags&(flagTF|0x400) != 0 {
		return fmt.Errorf("registers changed: %+v %+v", ev, r)
	}
	off := r.Rip - codeAddr
	switch ev.Kind {
	case platform.EventSyscall:
		s.calls++
		if off != s.behind || r.R15 != s.calls {
			return fmt.Errorf("call %d: %+v", s.calls, r)
		}
		r.Rax = 7
		if s.defers {
			d := s.as.(platform.Deferrer)
			if done := d.Done(); done < s.ticket {
				return fmt.Errorf("call %d came before the change %d, after %d", s.calls, s.ticket, done)
			}
			var err error
			if s.ticket, err = d.Defer([]platform.MapOp{s.page(int(s.calls&1), s.calls)}); err != nil {
				return err
			}
		}
	case platform.EventInterrupt:
		want := s.calls + 1
		if off >= s.behind && off <= s.incAt {
			want = s.calls
		}
		if !s.boundaries[off] || r.R15 != want {
			return fmt.Errorf("interrupted at offset %d in round %d, want %d: %+v", off, r.R15, want, r)
		}
		fp := make([]byte, s.p.FPStateSize())
		if err := s.ctx.ReadFP(fp); err != nil || string(fp[160:176]) != "state of xmm0..." {
			return fmt.Errorf("interrupted at offset %d: xmm0 %q, %v", off, fp[160:176], err)
		}
		s.interrupts.Add(1)
	default:
		return fmt.Errorf("%+v %+v", ev, r)
	}
	return nil
}

// loop serves the program until quit or the first error.
func (s *stepped) loop() {
	for !s.quit.Load() {
		ev, err := s.ctx.Switch(s.as, &s.regs)
		if err == nil {
			err = s.check(ev)
		}
		if err != nil {
			s.err <- err
			s.as.(*addressSpace).kill() // it would wait for ever, and the tracer for it
			return
		}
	}
	s.err <- nil
}

// TestInterruptAt interrupts the program at each single instruction of its way into the sentry and back: that of a
// replaced system call, the same with a change of memory on the way back, and that of one which traps.
func TestInterruptAt(t *testing.T) {
	p := newPlatform(t)
	incAt := map[string]uint64{"moved": 7, "long": 9, "load": 7, "tail": 11}
	boundaries := map[string][]uint64{"moved": {0, 5, 7, 10}, "long": {0, 7, 9, 12}, "load": {0, 5, 7, 10}, "tail": {0, 2, 8, 11, 14}}
	for _, c := range []struct {
		name            string
		patched, defers bool
	}{{"patched", true, false}, {"deferred", true, true}, {"trap", false, false}} {
		for _, site := range sites {
			if (!c.patched || c.defers) && site.name != "tail" { // the way is the same for all
				continue
			}
			t.Run(c.name+"-"+site.name, func(t *testing.T) {
				s := &stepped{guest: newGuest(t, p, site.code), incAt: incAt[site.name], behind: site.behind,
					boundaries: make(map[uint64]bool), err: make(chan error, 1)}
				for _, off := range boundaries[site.name] {
					s.boundaries[off] = true
				}
				s.regs.Rsp -= 64
				s.start(t, c.patched)
				s.defers = c.defers
				at := s.interruptAll(t)
				t.Logf("interrupted at %d places of the way", at)
				if at < 30 {
					t.Errorf("only %d places", at)
				}
			})
		}
	}
}

// start brings the program to its loop, with known registers.
func (s *stepped) start(t *testing.T, patched bool) {
	t.Helper()
	s.regs.Rax = 7
	fp := make([]byte, s.p.FPStateSize())
	if err := s.ctx.ReadFP(fp); err != nil {
		t.Fatal(err)
	}
	copy(fp[160:], "state of xmm0...")
	fp[512] |= 2 // XSTATE_BV: SSE is not in its initial state
	if err := s.ctx.WriteFP(fp); err != nil {
		t.Fatal(err)
	}
	if patched {
		s.hot(t)
	} else if ev := s.run(t); ev.Kind != platform.EventSyscall {
		t.Fatalf("%+v", ev)
	}
	r := &s.regs
	r.R15, r.R14, r.R13, r.R12, r.Rbp = 0, keptR14, keptR13, keptR12, keptRbp
	r.R10, r.R8, r.Rdx, r.Rdi, r.Rax = keptR10, keptR8, keptRdx, keptRdi, 7
}

// interruptAll returns how many instructions one round of the loop has.
func (s *stepped) interruptAll(t *testing.T) (at int) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	x, err := seize(s.ctx.(*context).thread.tid)
	if err != nil {
		t.Fatal(err)
	}
	go s.loop()
	end := time.Now().Add(time.Minute)
	for round := false; err == nil && !round; at++ {
		if round, err = s.interruptOne(x, at); time.Now().After(end) {
			err = fmt.Errorf("all takes too long")
		}
	}
	s.quit.Store(true)
	if err == nil {
		err = x.detach()
	}
	if err != nil {
		s.as.(*addressSpace).kill()
		x.bury()
	}
	s.ctx.Interrupt()
	if why := <-s.err; why != nil {
		err = why
	}
	if err != nil {
		t.Fatalf("at instruction %d: %v", at, err)
	}
	return at
}

// interruptOne interrupts the program n instructions behind the start of its loop; round says that this was in the next round.
func (s *stepped) interruptOne(x *tracer, n int) (round bool, err error) {
	if err := x.stop(); err != nil {
		return false, err
	}
	for rip := uint64(0); rip != codeAddr; {
		if rip, err = x.step(); err != nil {
			return false, err
		}
	}
	for range n {
		rip, err := x.step()
		if err != nil {
			return false, err
		}
		if rip == codeAddr {
			round = true
			break
		}
	}
	before := s.interrupts.Load()
	s.ctx.Interrupt()
	if err := x.resume(unix.PTRACE_CONT); err != nil {
		return false, err
	}
	return round, x.serve(func() bool { return s.interrupts.Load() != before || len(s.err) != 0 })
}

// serve lets the thread run, and delivers its signals, until a condition holds.
func (x *tracer) serve(until func() bool) error {
	for end := time.Now().Add(time.Minute); !until(); {
		_, _, got, err := x.wait(unix.WNOHANG)
		if err != nil {
			return err
		}
		if !got {
			if time.Now().After(end) {
				return fmt.Errorf("the interrupt was lost")
			}
			time.Sleep(10 * time.Microsecond)
			continue
		}
		if err := x.resume(unix.PTRACE_CONT); err != nil {
			return err
		}
	}
	return nil
}

// detach ends the tracing.
func (x *tracer) detach() error {
	if err := x.stop(); err != nil {
		return err
	}
	return x.resume(unix.PTRACE_DETACH)
}

// bury waits for the end of the thread, which has been killed.
func (x *tracer) bury() {
	for {
		if _, _, _, err := x.wait(0); err != nil {
			return
		}
		x.resume(unix.PTRACE_CONT)
	}
}
