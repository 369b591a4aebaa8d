package linux

import "golang.org/x/sys/unix"

// Signal is a signal number, 1 to 64.
type Signal int32

// Limits of signal numbers.
const (
	NumSignals  = 64
	SignalMaxRT = 64
	// FirstRTSignal is the kernel's SIGRTMIN.
	FirstRTSignal Signal = 32
)

// Valid tells whether s is a signal number.
func (s Signal) Valid() bool { return s > 0 && s <= NumSignals }

// RealTime tells whether s queues.
func (s Signal) RealTime() bool { return s >= FirstRTSignal }

// SignalSet is the kernel's sigset_t: bit n-1 is signal n.
type SignalSet uint64

// SignalSetSize is the size that the rt_sig calls require.
const SignalSetSize = 8

// SetOf makes a set.
func SetOf(sigs ...Signal) (m SignalSet) {
	for _, s := range sigs {
		m |= s.Bit()
	}
	return m
}

// Bit is the set of s alone.
func (s Signal) Bit() SignalSet { return 1 << uint(s-1) }

// Has tells whether s is in m.
func (m SignalSet) Has(s Signal) bool { return m>>uint(s-1)&1 != 0 }

// UnblockableSignals can be neither blocked, caught nor ignored.
const UnblockableSignals SignalSet = 1<<(unix.SIGKILL-1) | 1<<(unix.SIGSTOP-1)

// SigAction is the kernel's struct sigaction on x86-64.
type SigAction struct {
	Handler  uint64
	Flags    uint64
	Restorer uint64
	Mask     SignalSet
}

// Values of SigAction.Handler that are no function.
const (
	SIG_DFL = 0
	SIG_IGN = 1
)

// Flags of SigAction (sigaction(2)).
const (
	SA_NOCLDSTOP   = 0x1
	SA_NOCLDWAIT   = 0x2
	SA_SIGINFO     = 0x4
	SA_UNSUPPORTED = 0x400
	SA_EXPOSE_TAGS = 0x800
	SA_RESTORER    = 0x04000000
	SA_ONSTACK     = 0x08000000
	SA_RESTART     = 0x10000000
	SA_NODEFER     = 0x40000000
	SA_RESETHAND   = 0x80000000
)

// SignalStack is stack_t.
type SignalStack struct {
	Addr  uint64
	Flags uint32
	_     uint32
	Size  uint64
}

// Flags and limits of SignalStack (sigaltstack(2)).
const (
	SS_ONSTACK    = 1
	SS_DISABLE    = 2
	SS_AUTODISARM = 1 << 31
	MINSIGSTKSZ   = 2048
)

// SignalInfo is siginfo_t: 128 bytes. The union after the header is kept as words; accessors name
// the fields.
type SignalInfo struct {
	Signo int32
	Errno int32
	Code  int32
	_     int32
	Union [14]uint64
}

func (i *SignalInfo) lo(w int) uint32 { return uint32(i.Union[w]) }
func (i *SignalInfo) hi(w int) uint32 { return uint32(i.Union[w] >> 32) }
func (i *SignalInfo) setLo(w int, v uint32) {
	i.Union[w] = i.Union[w]&^0xffffffff | uint64(v)
}
func (i *SignalInfo) setHi(w int, v uint32) {
	i.Union[w] = i.Union[w]&0xffffffff | uint64(v)<<32
}

// PID is si_pid.
func (i *SignalInfo) PID() int32 { return int32(i.lo(0)) }

// SetPID stores si_pid.
func (i *SignalInfo) SetPID(v int32) { i.setLo(0, uint32(v)) }

// UID is si_uid.
func (i *SignalInfo) UID() uint32 { return i.hi(0) }

// SetUID stores si_uid.
func (i *SignalInfo) SetUID(v uint32) { i.setHi(0, v) }

// Value is si_value.
func (i *SignalInfo) Value() uint64 { return i.Union[1] }

// SetValue stores si_value.
func (i *SignalInfo) SetValue(v uint64) { i.Union[1] = v }

// Status is si_status (SIGCHLD).
func (i *SignalInfo) Status() int32 { return int32(i.lo(1)) }

// SetStatus stores si_status.
func (i *SignalInfo) SetStatus(v int32) { i.setLo(1, uint32(v)) }

// SetTimes stores si_utime and si_stime in clock ticks (SIGCHLD).
func (i *SignalInfo) SetTimes(utime, stime int64) {
	i.Union[2], i.Union[3] = uint64(utime), uint64(stime)
}

// Addr is si_addr (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP).
func (i *SignalInfo) Addr() uint64 { return i.Union[0] }

// SetAddr stores si_addr.
func (i *SignalInfo) SetAddr(v uint64) { i.Union[0] = v }

// SetTimer stores si_timerid and si_overrun.
func (i *SignalInfo) SetTimer(id, overrun int32) { i.setLo(0, uint32(id)); i.setHi(0, uint32(overrun)) }

// TimerID is si_timerid.
func (i *SignalInfo) TimerID() int32 { return int32(i.lo(0)) }

// Overrun is si_overrun.
func (i *SignalInfo) Overrun() int32 { return int32(i.hi(0)) }

// Band is si_band and FD si_fd (SIGIO).
func (i *SignalInfo) Band() int64 { return int64(i.Union[0]) }

// FD is si_fd (SIGIO).
func (i *SignalInfo) FD() int32 { return int32(i.lo(1)) }

// SetPoll stores si_band and si_fd.
func (i *SignalInfo) SetPoll(band int64, fd int32) { i.Union[0] = uint64(band); i.setLo(1, uint32(fd)) }

// SetSyscall stores si_call_addr, si_syscall and si_arch (SIGSYS).
func (i *SignalInfo) SetSyscall(addr uint64, nr int32, arch uint32) {
	i.Union[0], i.Union[1] = addr, uint64(uint32(nr))|uint64(arch)<<32
}

// Syscall is si_syscall (SIGSYS).
func (i *SignalInfo) Syscall() int32 { return int32(i.lo(1)) }

// Values of SignalInfo.Code.
const (
	SI_USER    = 0
	SI_KERNEL  = 0x80
	SI_QUEUE   = -1
	SI_TIMER   = -2
	SI_MESGQ   = -3
	SI_ASYNCIO = -4
	SI_SIGIO   = -5
	SI_TKILL   = -6

	CLD_EXITED    = 1
	CLD_KILLED    = 2
	CLD_DUMPED    = 3
	CLD_TRAPPED   = 4
	CLD_STOPPED   = 5
	CLD_CONTINUED = 6

	SEGV_MAPERR = 1
	SEGV_ACCERR = 2
	BUS_ADRALN  = 1
	BUS_ADRERR  = 2
	ILL_ILLOPN  = 2
	FPE_INTDIV  = 1
	TRAP_BRKPT  = 1
	TRAP_TRACE  = 2
	SYS_SECCOMP = 1

	POLL_IN  = 1
	POLL_OUT = 2
	POLL_MSG = 3
	POLL_ERR = 4
	POLL_PRI = 5
	POLL_HUP = 6
)

// Sigevent is struct sigevent (sigevent(7)): 64 bytes.
type Sigevent struct {
	Value  uint64
	Signo  int32
	Notify int32
	TID    int32
	_      [44]byte
}

// Values of Sigevent.Notify.
const (
	SIGEV_SIGNAL    = 0
	SIGEV_NONE      = 1
	SIGEV_THREAD    = 2
	SIGEV_THREAD_ID = 4
)
