package arch

import (
	"encoding/binary"

	"husk/pkg/abi/linux"
)

// SignalContext is struct sigcontext of x86-64 (uc_mcontext).
type SignalContext struct {
	R8, R9, R10, R11, R12, R13, R14, R15   uint64
	Rdi, Rsi, Rbp, Rbx, Rdx, Rax, Rcx, Rsp uint64
	Rip, Eflags                            uint64
	Cs, Gs, Fs, Ss                         uint16
	Err, Trapno, OldMask, Cr2              uint64
	Fpstate                                uint64
	_                                      [8]uint64
}

// UContext is struct ucontext of x86-64.
type UContext struct {
	Flags, Link uint64
	Stack       linux.SignalStack
	MContext    SignalContext
	Sigmask     linux.SignalSet
}

// SignalFrame is what a handler finds on its stack: the return address, then the context and the signal's information.
type SignalFrame struct {
	Return uint64
	UC     UContext
	Info   linux.SignalInfo
}

// Sizes and offsets of a SignalFrame.
const (
	SignalFrameSize = 8 + 304 + 128
	ucontextOffset  = 8
	siginfoOffset   = 8 + 304
)

// Flags of UContext.
const (
	ucFPXState       = 1
	ucSigcontextSS   = 2
	ucStrictRestore  = 4
	redZone          = 128
	fpSoftOffset     = 464 // _fpx_sw_bytes inside the FXSAVE area
	fpMagic1         = 0x46505853
	fpMagic2         = 0x46505845
	fpMagic2Size     = 4
	fxsaveSize       = 512
	xsaveHeaderSize  = 64
	fpStateAlignment = 64
)

// Flags that a signal handler's caller may set (FIX_EFLAGS of Linux), and those cleared for a handler.
const (
	eflagsCF, eflagsPF, eflagsAF, eflagsZF, eflagsSF = 1 << 0, 1 << 2, 1 << 4, 1 << 6, 1 << 7
	eflagsTF, eflagsDF, eflagsOF                     = 1 << 8, 1 << 10, 1 << 11
	eflagsRF, eflagsAC                               = 1 << 16, 1 << 18

	userEflags = eflagsAC | eflagsOF | eflagsDF | eflagsTF | eflagsSF | eflagsZF | eflagsAF | eflagsPF | eflagsCF | eflagsRF
)

// EflagsTF is the trap flag: an exception after one instruction.
const EflagsTF = eflagsTF

// FrameAddrs says where the parts of a signal frame go.
type FrameAddrs struct {
	Frame uint64 // SignalFrame
	FP    uint64 // extended state
}

// PlaceFrame computes where a frame goes below sp; onAlt says that sp is the top of an alternate stack which the
// thread is not yet on, so that there is no red zone to spare. fpSize is the size of the extended state.
func PlaceFrame(sp uint64, onAlt bool, fpSize int) FrameAddrs {
	if !onAlt {
		sp -= redZone
	}
	fp := (sp - uint64(fpSize) - fpMagic2Size) &^ (fpStateAlignment - 1)
	return FrameAddrs{Frame: (fp-SignalFrameSize)&^15 - 8, FP: fp}
}

// FrameFPSize is the room that extended state of fpSize bytes takes in a frame.
func FrameFPSize(fpSize int) int { return fpSize + fpMagic2Size }

// SealFP writes the software fields into the extended state buf[:fpSize] and the magic number behind it; len(buf) is
// FrameFPSize(fpSize). xfeatures is XCR0.
func SealFP(buf []byte, fpSize int, xfeatures uint64) {
	le := binary.LittleEndian
	sw := buf[fpSoftOffset:fxsaveSize]
	clear(sw)
	le.PutUint32(sw[0:], fpMagic1)
	le.PutUint32(sw[4:], uint32(fpSize+fpMagic2Size))
	le.PutUint64(sw[8:], xfeatures)
	le.PutUint32(sw[16:], uint32(fpSize))
	le.PutUint32(buf[fpSize:], fpMagic2)
}

// CheckFP tells whether buf, an extended state read from a frame, has the marks of SealFP. Where it has not, only the legacy
// part counts (as in Linux), and the rest is set to its initial state.
func CheckFP(buf []byte, fpSize int) bool {
	le := binary.LittleEndian
	sw := buf[fpSoftOffset:fxsaveSize]
	ok := le.Uint32(sw[0:]) == fpMagic1 && le.Uint32(sw[16:]) == uint32(fpSize) && le.Uint32(buf[fpSize:]) == fpMagic2
	if !ok && fpSize >= fxsaveSize+xsaveHeaderSize {
		clear(buf[fxsaveSize:fpSize])
		le.PutUint64(buf[fxsaveSize:], 3) // x87 and SSE
	}
	return ok
}

// InitFP stores the initial extended state (as FNINIT and a reset MXCSR leave it) in the standard XSAVE format.
func InitFP(buf []byte) {
	clear(buf)
	binary.LittleEndian.PutUint16(buf[0:], 0x37f)
	binary.LittleEndian.PutUint32(buf[24:], 0x1f80)
}

// Fault is what the last processor exception of a thread was, for frames.
type Fault struct {
	Trapno, Err, Cr2 uint64
}

// Fill stores the interrupted state into the frame.
func (f *SignalFrame) Fill(r *Registers, at FrameAddrs, restorer uint64, flt *Fault) {
	f.Return = restorer
	f.UC.Flags, f.UC.Link = ucFPXState|ucSigcontextSS|ucStrictRestore, 0
	f.UC.MContext = SignalContext{
		R8: r.R8, R9: r.R9, R10: r.R10, R11: r.R11, R12: r.R12, R13: r.R13, R14: r.R14, R15: r.R15,
		Rdi: r.Rdi, Rsi: r.Rsi, Rbp: r.Rbp, Rbx: r.Rbx, Rdx: r.Rdx, Rax: r.Rax, Rcx: r.Rcx, Rsp: r.Rsp,
		Rip: r.Rip, Eflags: r.Eflags, Cs: UserCS, Ss: UserSS,
		Err: flt.Err, Trapno: flt.Trapno, Cr2: flt.Cr2, OldMask: uint64(f.UC.Sigmask), Fpstate: at.FP,
	}
}

// Enter makes the thread run a handler with the frame.
func (r *Registers) Enter(handler uint64, sig int32, at FrameAddrs) {
	r.Rip, r.Rsp = handler, at.Frame
	r.Rdi, r.Rsi, r.Rdx, r.Rax = uint64(sig), at.Frame+siginfoOffset, at.Frame+ucontextOffset, 0
	r.Cs, r.Ss = UserCS, UserSS
	r.Eflags &^= eflagsDF | eflagsRF | eflagsTF
	r.OrigRax = ^uint64(0)
}

// FrameAtReturn is the address of the frame that rt_sigreturn(2) returns from: the return address has been popped.
func (r *Registers) FrameAtReturn() uint64 { return r.Rsp - 8 }

// Leave restores the state that the frame holds, sanitised.
func (r *Registers) Leave(f *SignalFrame) {
	c := &f.UC.MContext
	r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15 = c.R8, c.R9, c.R10, c.R11, c.R12, c.R13, c.R14, c.R15
	r.Rdi, r.Rsi, r.Rbp, r.Rbx, r.Rdx, r.Rax, r.Rcx, r.Rsp = c.Rdi, c.Rsi, c.Rbp, c.Rbx, c.Rdx, c.Rax, c.Rcx, c.Rsp
	r.Rip = c.Rip
	r.Eflags = r.Eflags&^userEflags | c.Eflags&userEflags
	r.Cs, r.Ss = UserCS, UserSS
	r.OrigRax = ^uint64(0)
}

// StartProgram sets the registers as execve(2) leaves them.
func (r *Registers) StartProgram(entry, sp uint64) {
	*r = Registers{Rip: entry, Rsp: sp, Cs: UserCS, Ss: UserSS, Eflags: 0x200, OrigRax: ^uint64(0)}
}

// ErrorCode makes the page fault error code of a user access.
func ErrorCode(present, write, exec bool) uint64 {
	e := uint64(4)
	if present {
		e |= 1
	}
	if write {
		e |= 2
	}
	if exec {
		e |= 16
	}
	return e
}

// XCR0 is the set of extended state components that the host enables; 3 where it has no XSAVE.
func XCR0() uint64 { return xgetbv0() }
