package kernel

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/arch"
)

// deliverSignals acts on pending signals until none is left that the thread takes, and settles interrupted system calls. False
// ends the task.
func (t *Task) deliverSignals() bool {
	tg := t.group
	tg.mu.Lock()
	for {
		if tg.exiting.Load() {
			tg.mu.Unlock()
			return false
		}
		if t.sig.stopPending || tg.stop.notify != 0 || t.ptr.wantsStop() {
			t.handleStops()
			continue
		}
		info := &t.sigInfo
		sig := t.dequeueLocked(^t.SignalMask(), info)
		if sig == 0 {
			break
		}
		if t.ptr.tracer.Load() != nil && sig != sigKILL {
			tg.mu.Unlock()
			sig = t.traceSignal(info)
			tg.mu.Lock()
			if sig == 0 {
				continue
			}
		}
		if !t.actLocked(sig, info) {
			tg.mu.Unlock()
			return false
		}
	}
	tg.mu.Unlock()
	t.prepareRestart(nil)
	t.restoreMask()
	return true
}

// actLocked does what the disposition of sig says; it is called and returns with tg.mu held. False ends the task.
func (t *Task) actLocked(sig linux.Signal, info *linux.SignalInfo) bool {
	tg := t.group
	act := tg.hand.get(sig)
	switch {
	case act.Handler == linux.SIG_IGN:
	case act.Handler != linux.SIG_DFL:
		if act.Flags&linux.SA_RESETHAND != 0 {
			tg.hand.mu.Lock()
			tg.hand.act[sig-1].Handler = linux.SIG_DFL
			tg.hand.mu.Unlock()
		}
		tg.mu.Unlock()
		t.prepareRestart(&act)
		t.runHandler(sig, &act, info)
		tg.mu.Lock()
	case ignoredByDefault.Has(sig):
	case tg.unkillable && !linux.UnblockableSignals.Has(sig):
	case stopSignals.Has(sig):
		t.stopSignal(sig)
	default:
		tg.groupExitLocked(int32(sig)) // no core(5) is written, so no wait status says so
		return false
	}
	return true
}

// runHandler builds the frame of sig's handler on the thread's stack; where that fails the thread gets SIGSEGV.
func (t *Task) runHandler(sig linux.Signal, act *linux.SigAction, info *linux.SignalInfo) {
	if !t.pushFrame(sig, act, info) {
		t.forceSegv(sig)
		return
	}
	m := t.SignalMask() | act.Mask
	if act.Flags&linux.SA_NODEFER == 0 {
		m |= sig.Bit()
	}
	t.sig.hasSaved = false
	t.SetSignalMask(m)
}

// forceSegv sends SIGSEGV for a frame that could not be written; for SIGSEGV itself the handler is dropped first.
func (t *Task) forceSegv(sig linux.Signal) {
	if sig == sigSEGV {
		h := t.group.handlers()
		h.mu.Lock()
		h.act[sigSEGV-1].Handler = linux.SIG_DFL
		h.mu.Unlock()
	}
	t.ForceSignal(&linux.SignalInfo{Signo: int32(sigSEGV), Code: linux.SI_KERNEL})
}

// pushFrame saves the thread's state on its stack and enters the handler.
func (t *Task) pushFrame(sig linux.Signal, act *linux.SigAction, info *linux.SignalInfo) bool {
	if act.Flags&linux.SA_RESTORER == 0 {
		return false
	}
	sp, onAlt, nested := t.regs.Rsp, false, false
	if t.onAltStack(sp) {
		nested = true
	} else if act.Flags&linux.SA_ONSTACK != 0 && t.sig.alt.Size != 0 {
		sp, onAlt = t.sig.alt.Addr+t.sig.alt.Size, true
	}
	size := t.k.fpSize
	at := arch.PlaceFrame(sp, onAlt, size)
	if (onAlt || nested && act.Flags&linux.SA_ONSTACK != 0) && !t.inAltStack(at.Frame) {
		return false
	}
	m := t.MM()
	if t.fp == nil {
		t.fp = make([]byte, arch.FrameFPSize(size))
	}
	if t.ctx.ReadFP(t.fp[:size]) != nil {
		return false
	}
	arch.SealFP(t.fp, size, t.k.xcr0)
	if _, err := m.CopyOut(at.FP, t.fp); err != nil {
		return false
	}
	f := &t.frame
	f.UC.Stack = t.sig.alt
	if t.sig.alt.Size == 0 {
		f.UC.Stack.Flags |= linux.SS_DISABLE
	}
	f.UC.Sigmask = t.SignalMask()
	if t.sig.hasSaved {
		f.UC.Sigmask = t.sig.saved
	}
	f.Info = *info
	f.Fill(&t.regs, at, act.Restorer, &t.lastFault)
	b := unsafe.Slice((*byte)(unsafe.Pointer(f)), arch.SignalFrameSize)
	if _, err := m.CopyOut(at.Frame, b); err != nil {
		return false
	}
	if t.sig.alt.Flags&linux.SS_AUTODISARM != 0 {
		t.sig.alt = linux.SignalStack{Flags: linux.SS_DISABLE}
	}
	t.regs.Enter(act.Handler, int32(sig), at)
	arch.InitFP(t.fp[:size])
	if t.ctx.WriteFP(t.fp[:size]) != nil {
		return false
	}
	return true
}

// inAltStack tells whether sp lies on the alternate stack.
func (t *Task) inAltStack(sp uint64) bool {
	a := &t.sig.alt
	return sp > a.Addr && sp-a.Addr <= a.Size
}

// onAltStack tells whether the thread counts as running on its alternate stack.
func (t *Task) onAltStack(sp uint64) bool {
	return t.sig.alt.Flags&linux.SS_AUTODISARM == 0 && t.inAltStack(sp)
}

// SigReturn is rt_sigreturn(2): it restores the state that a handler interrupted and returns its rax. Where the frame
// is bad the thread gets SIGSEGV.
func (t *Task) SigReturn() uintptr {
	m := t.MM()
	f := &t.frame
	b := unsafe.Slice((*byte)(unsafe.Pointer(f)), arch.SignalFrameSize)
	if _, err := m.CopyIn(t.regs.FrameAtReturn(), b); err != nil {
		t.badFrame()
		return uintptr(t.regs.Rax)
	}
	t.SetSignalMask(f.UC.Sigmask)
	t.regs.Leave(f)
	if !t.restoreFP(f.UC.MContext.Fpstate) {
		t.badFrame()
		return uintptr(t.regs.Rax)
	}
	t.setAltStack(&f.UC.Stack, t.regs.Rsp)
	return uintptr(t.regs.Rax)
}

func (t *Task) badFrame() {
	t.ForceSignal(&linux.SignalInfo{Signo: int32(sigSEGV), Code: linux.SI_KERNEL})
}

// restoreFP loads the extended state at addr; 0 stands for the initial state.
func (t *Task) restoreFP(addr uint64) bool {
	size := t.k.fpSize
	if t.fp == nil {
		t.fp = make([]byte, arch.FrameFPSize(size))
	}
	if addr == 0 {
		arch.InitFP(t.fp[:size])
		return t.ctx.WriteFP(t.fp[:size]) == nil
	}
	if n, err := t.MM().CopyIn(addr, t.fp); err != nil {
		if n < 512 {
			return false
		}
		clear(t.fp[n:])
	}
	arch.CheckFP(t.fp, size)
	if size >= 576 {
		// Only components that exist, and no compaction: XRSTOR would fault.
		le := binary.LittleEndian
		le.PutUint64(t.fp[512:], le.Uint64(t.fp[512:])&t.k.xcr0)
		clear(t.fp[520:576])
		le.PutUint32(t.fp[24:], le.Uint32(t.fp[24:])&t.k.mxcsrMask)
	}
	return t.ctx.WriteFP(t.fp[:size]) == nil
}

// SigAltStack gets and, if s is not nil, sets the alternate signal stack (sigaltstack(2)). EPERM, EINVAL, ENOMEM.
func (t *Task) SigAltStack(s *linux.SignalStack) (linux.SignalStack, error) {
	old := t.sig.alt
	switch {
	case old.Size == 0:
		old.Flags = old.Flags&linux.SS_AUTODISARM | linux.SS_DISABLE
	case t.onAltStack(t.regs.Rsp):
		old.Flags |= linux.SS_ONSTACK
	}
	if s == nil {
		return old, nil
	}
	if t.onAltStack(t.regs.Rsp) {
		return old, unix.EPERM
	}
	return old, t.setAltStack(s, t.regs.Rsp)
}

func (t *Task) setAltStack(s *linux.SignalStack, sp uint64) error {
	if t.onAltStack(sp) {
		return unix.EPERM
	}
	mode := s.Flags &^ linux.SS_AUTODISARM
	switch mode {
	case linux.SS_DISABLE:
		t.sig.alt = linux.SignalStack{Flags: s.Flags}
		return nil
	case 0, linux.SS_ONSTACK:
		if s.Size < linux.MINSIGSTKSZ {
			return unix.ENOMEM
		}
		t.sig.alt = linux.SignalStack{Addr: s.Addr, Flags: s.Flags &^ linux.SS_ONSTACK, Size: s.Size}
		return nil
	}
	return unix.EINVAL
}
