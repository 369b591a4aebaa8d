package seccomp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Insn is one instruction, struct sock_filter of <linux/filter.h>.
type Insn = unix.SockFilter

// Data is what a filter looks at, struct seccomp_data of <linux/seccomp.h>.
type Data struct {
	NR   int32
	Arch uint32
	IP   uint64
	Args [6]uint64
}

// dataSize is the size of Data in bytes: the value of "ld len".
const dataSize = 64

// Offsets into Data. The low half of a 64-bit value comes first: both supported architectures are
// little endian.
const (
	offNR   = 0
	offArch = 4
	offArgs = 16
)

func offLo(arg uint8) uint32 { return offArgs + 8*uint32(arg) }
func offHi(arg uint8) uint32 { return offLo(arg) + 4 }

// word returns the 32-bit word at off, which Check has bounded.
func (d *Data) word(off uint32) uint32 {
	return (*[dataSize / 4]uint32)(unsafe.Pointer(d))[off/4]
}

// Instruction codes that a filter may hold. unix has the parts; these are the sums, as the names in
// bpf(4) and <linux/filter.h> spell them, and the few parts that unix lacks.
const (
	ldAbs  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	ldLen  = unix.BPF_LD | unix.BPF_W | unix.BPF_LEN
	ldImm  = unix.BPF_LD | unix.BPF_IMM
	ldMem  = unix.BPF_LD | unix.BPF_MEM
	ldxLen = unix.BPF_LDX | unix.BPF_W | unix.BPF_LEN
	ldxImm = unix.BPF_LDX | unix.BPF_IMM
	ldxMem = unix.BPF_LDX | unix.BPF_MEM
	st     = unix.BPF_ST
	stx    = unix.BPF_STX
	tax    = unix.BPF_MISC | unix.BPF_TAX
	txa    = unix.BPF_MISC | unix.BPF_TXA
	retK   = unix.BPF_RET | unix.BPF_K
	retA   = unix.BPF_RET | unix.BPF_A

	aluAdd = unix.BPF_ALU | unix.BPF_ADD
	aluSub = unix.BPF_ALU | unix.BPF_SUB
	aluMul = unix.BPF_ALU | unix.BPF_MUL
	aluDiv = unix.BPF_ALU | unix.BPF_DIV
	aluOr  = unix.BPF_ALU | unix.BPF_OR
	aluAnd = unix.BPF_ALU | unix.BPF_AND
	aluLsh = unix.BPF_ALU | unix.BPF_LSH
	aluRsh = unix.BPF_ALU | unix.BPF_RSH
	aluNeg = unix.BPF_ALU | unix.BPF_NEG
	aluXor = unix.BPF_ALU | unix.BPF_XOR

	ja   = unix.BPF_JMP | unix.BPF_JA
	jeq  = unix.BPF_JMP | unix.BPF_JEQ
	jgt  = unix.BPF_JMP | unix.BPF_JGT
	jge  = unix.BPF_JMP | unix.BPF_JGE
	jset = unix.BPF_JMP | unix.BPF_JSET

	srcX = unix.BPF_X
)

// Action is what a filter returns: SECCOMP_RET_* with its data in the low 16 bits.
type Action uint32

// Actions of seccomp(2). Those with data are made by Errno, Trap and Trace.
const (
	KillThread  Action = unix.SECCOMP_RET_KILL_THREAD
	KillProcess Action = unix.SECCOMP_RET_KILL_PROCESS
	UserNotif   Action = unix.SECCOMP_RET_USER_NOTIF
	Log         Action = unix.SECCOMP_RET_LOG
	Allow       Action = unix.SECCOMP_RET_ALLOW
)

// Errno makes the call fail with e.
func Errno(e unix.Errno) Action { return unix.SECCOMP_RET_ERRNO | Action(e)&unix.SECCOMP_RET_DATA }

// Trap makes the call raise SIGSYS with data in si_errno.
func Trap(data uint16) Action { return unix.SECCOMP_RET_TRAP | Action(data) }

// Trace stops the call for the ptrace(2) tracer with data as the event message.
func Trace(data uint16) Action { return unix.SECCOMP_RET_TRACE | Action(data) }

// Kind is the action without its data.
func (a Action) Kind() Action { return a & unix.SECCOMP_RET_ACTION_FULL }

// Data is the low 16 bits.
func (a Action) Data() uint16 { return uint16(a) }

// Precedes reports whether a takes precedence over b when several filters apply: the most severe
// action wins, in the order of seccomp(2), and KILL_PROCESS has the sign bit to be the least value.
func (a Action) Precedes(b Action) bool { return int32(a.Kind()) < int32(b.Kind()) }
