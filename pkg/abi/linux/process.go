package linux

// CloneArgs is struct clone_args of clone3(2).
type CloneArgs struct {
	Flags      uint64
	Pidfd      uint64
	ChildTID   uint64
	ParentTID  uint64
	ExitSignal uint64
	Stack      uint64
	StackSize  uint64
	TLS        uint64
	SetTID     uint64
	SetTIDSize uint64
	Cgroup     uint64
}

// Sizes of the versions of CloneArgs.
const (
	CloneArgsSizeVer0 = 64
	CloneArgsSizeVer1 = 80
	CloneArgsSizeVer2 = 88
)

// Options of wait4(2) and waitid(2) beyond those of x/sys/unix, and id types.
const (
	P_ALL   = 0
	P_PID   = 1
	P_PGID  = 2
	P_PIDFD = 3
)

// arch_prctl(2).
const (
	ARCH_SET_GS    = 0x1001
	ARCH_SET_FS    = 0x1002
	ARCH_GET_FS    = 0x1003
	ARCH_GET_GS    = 0x1004
	ARCH_GET_CPUID = 0x1011
	ARCH_SET_CPUID = 0x1012
)

// kcmp(2).
const (
	KCMP_FILE      = 0
	KCMP_VM        = 1
	KCMP_FILES     = 2
	KCMP_FS        = 3
	KCMP_SIGHAND   = 4
	KCMP_IO        = 5
	KCMP_SYSVSEM   = 6
	KCMP_EPOLL_TFD = 7
)

// Secure bits (capabilities(7)).
const (
	SECBIT_NOROOT                 = 1 << 0
	SECBIT_NOROOT_LOCKED          = 1 << 1
	SECBIT_NO_SETUID_FIXUP        = 1 << 2
	SECBIT_NO_SETUID_FIXUP_LOCKED = 1 << 3
	SECBIT_KEEP_CAPS              = 1 << 4
	SECBIT_KEEP_CAPS_LOCKED       = 1 << 5
	SECBIT_NO_CAP_AMBIENT_RAISE   = 1 << 6
	SECBIT_NO_CAP_AMBIENT_LOCKED  = 1 << 7
	SecureAllBits                 = 0x55
	SecureAllLocks                = SecureAllBits << 1
)

// Personality bits and values (personality(2)).
const (
	PER_LINUX          = 0
	ADDR_NO_RANDOMIZE  = 0x0040000
	READ_IMPLIES_EXEC  = 0x0400000
	PER_CLEAR_ON_SETID = 0x0400000 | 0x0040000 | 0x0200000 | 0x0100000
)

// rseq(2).
const (
	RSEQ_FLAG_UNREGISTER = 1
	// RseqSizeV0 is the size of struct rseq before extension.
	RseqSizeV0 = 32
	// RSEQ_CPU_ID_UNINITIALIZED and RSEQ_CPU_ID_REGISTRATION_FAILED are values of rseq.cpu_id.
	RSEQ_CPU_ID_UNINITIALIZED       = ^uint32(0)
	RSEQ_CPU_ID_REGISTRATION_FAILED = ^uint32(1)
)

// membarrier(2).
const (
	MEMBARRIER_CMD_QUERY                                = 0
	MEMBARRIER_CMD_GLOBAL                               = 1 << 0
	MEMBARRIER_CMD_GLOBAL_EXPEDITED                     = 1 << 1
	MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED            = 1 << 2
	MEMBARRIER_CMD_PRIVATE_EXPEDITED                    = 1 << 3
	MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED           = 1 << 4
	MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE          = 1 << 5
	MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE = 1 << 6
	MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ               = 1 << 7
	MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ      = 1 << 8
	MEMBARRIER_CMD_FLAG_CPU                             = 1
)

// ClockTick is USER_HZ, the unit of times(2) and /proc, in ticks per second.
const ClockTick = 100
