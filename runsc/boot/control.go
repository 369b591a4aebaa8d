package boot

import "time"

// Kinds of frames. A request is answered by KindReply with the request's id.
const (
	KindReply Kind = iota
	KindBoot
	KindGoferBoot
	KindGoferReady
	KindDetach // launcher to sandbox: from now on, live without me
	KindCreate // Container
	KindStart
	KindExec
	KindWait
	KindSignal
	KindProcesses
	KindPause
	KindResume
	KindResize
	KindStats
	KindQuery
	KindWaiter
	KindUpdate
	KindProfile
	kindCount
)

// ErrorCode classifies an error of the sandbox for the command that asked.
type ErrorCode uint8

// The codes.
const (
	ErrNone ErrorCode = iota
	ErrFailed
	ErrNotFound    // the executable does not exist: shells say 127
	ErrNotExecuted // the executable cannot be run: shells say 126
	ErrNoContainer // no such container in the sandbox
	ErrNoProcess   // no such process
	ErrState       // the container's state forbids it
	ErrUnsupported // the sandbox cannot do that
	errorCodeCount
)

// Error is an error that crossed the control socket.
type Error struct {
	Code ErrorCode
	Text string
}

func (e *Error) Error() string { return e.Text }

// Request is what most control requests carry; which fields matter depends on the kind.
type Request struct {
	Container string
	PID       int32 // 0 is the container's first process
	Signal    int32
	All       bool // KindSignal: every process of the container
	Rows      uint32
	Cols      uint32
}

func (r *Request) visit(c *coder) {
	c.str(&r.Container)
	c.i32(&r.PID)
	c.i32(&r.Signal)
	c.flag(&r.All)
	c.u32(&r.Rows)
	c.u32(&r.Cols)
}

// ExecRequest is the payload of KindExec.
type ExecRequest struct {
	Container string
	// Attached kills the process when the connection closes before it has exited.
	Attached bool
	Process  Process
}

func (r *ExecRequest) visit(c *coder) {
	c.str(&r.Container)
	c.flag(&r.Attached)
	r.Process.visit(c)
}

// What a ProfileRequest asks for.
const (
	ProfileCPU    uint8 = iota // processor time of the sandbox process, as pprof reads it
	ProfileHeap                // its Go heap, as pprof reads it
	ProfileStacks              // the stacks of its goroutines, as text
	profileCount
)

// Limits of a ProfileRequest and of its reply.
const (
	MaxProfileTime = time.Hour
	MaxProfile     = 8 << 20
)

// ProfileRequest is the payload of KindProfile, which is about the sandbox process and not about one container.
type ProfileRequest struct {
	What     uint8
	Duration int64 // nanoseconds; for ProfileCPU
}

func (r *ProfileRequest) visit(c *coder) {
	c.enum(&r.What, profileCount)
	c.i64(&r.Duration)
}

// UpdateRequest is the payload of KindUpdate.
type UpdateRequest struct {
	Container string
	// Limits are the new ones: what is 0 or empty stays, -1 (for CPUPeriod and CPUShares 0) is none.
	Limits Limits
}

func (r *UpdateRequest) visit(c *coder) {
	c.str(&r.Container)
	r.Limits.visit(c)
}

// Status is what became of a container.
const (
	StatusCreated uint8 = iota
	StatusRunning
	StatusPaused
	StatusStopped
	statusCount
)

// Reply answers every request.
type Reply struct {
	Err       Error
	PID       int32  // KindExec
	Status    uint32 // KindWait: as wait4(2) reports it; KindQuery: StatusCreated...
	Processes []ProcessInfo
	Stats     Stats
	Profile   string // KindProfile: at most MaxProfile bytes
}

func (r *Reply) visit(c *coder) {
	code := uint8(r.Err.Code)
	c.enum(&code, uint8(errorCodeCount))
	r.Err.Code = ErrorCode(code)
	c.str(&r.Err.Text)
	c.i32(&r.PID)
	c.u32(&r.Status)
	parts(c, &r.Processes, 40)
	r.Stats.visit(c)
	c.str(&r.Profile)
}

// ProcessInfo describes a process as ps(1) would.
type ProcessInfo struct {
	PID, PPID int32
	Threads   uint32
	UID       uint32
	State     uint8  // a letter of proc(5)
	CPU       int64  // user and system time, nanoseconds
	Start     int64  // wall clock, nanoseconds since 1970
	TTY       string // "pts/0", "?" for none
	Args      string // command line with blanks
}

func (p *ProcessInfo) visit(c *coder) {
	c.i32(&p.PID)
	c.i32(&p.PPID)
	c.u32(&p.Threads)
	c.u32(&p.UID)
	c.u8(&p.State)
	c.i64(&p.CPU)
	c.i64(&p.Start)
	c.str(&p.TTY)
	c.str(&p.Args)
}

// Stats are the resources that a container uses.
type Stats struct {
	Memory    uint64 // bytes of application memory and memory file systems
	Processes uint64
	CPUUser   uint64 // nanoseconds
	CPUSystem uint64
	FilesOpen uint64
}

func (s *Stats) visit(c *coder) {
	c.u64(&s.Memory)
	c.u64(&s.Processes)
	c.u64(&s.CPUUser)
	c.u64(&s.CPUSystem)
	c.u64(&s.FilesOpen)

}
