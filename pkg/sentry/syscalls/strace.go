package syscalls

import (
	"strconv"
	"strings"

	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"

	"golang.org/x/sys/unix"
)

// strace prints system calls in the way of strace(1).
type strace struct {
	t   *Table
	out func(string)
}

// NewStrace makes a tracer that gives out a line when a call ends (and one when it starts, for calls that may block for
// long). out is called from many goroutines.
func NewStrace(t *Table, out func(line string)) kernel.Tracer { return &strace{t, out} }

// maxString is how many bytes of strings and buffers are shown.
const maxString = 48

// Enter implements kernel.Tracer.
func (s *strace) Enter(t *kernel.Task, nr uint64) {
	switch nr {
	case unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RT_SIGRETURN:
		// Arguments are gone, or the thread is, when the call ends.
		s.out(s.call(t, nr, t.Regs().SyscallArgs(), 0, nil))
	case unix.SYS_WAIT4, unix.SYS_WAITID, unix.SYS_POLL, unix.SYS_PPOLL, unix.SYS_SELECT, unix.SYS_PSELECT6, unix.SYS_EPOLL_WAIT,
		unix.SYS_EPOLL_PWAIT, unix.SYS_FUTEX, unix.SYS_READ, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
		unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_CONNECT, unix.SYS_RT_SIGSUSPEND, unix.SYS_PAUSE, unix.SYS_RT_SIGTIMEDWAIT, unix.SYS_VFORK:
		s.out(s.call(t, nr, t.Regs().SyscallArgs(), 0, nil) + " ...")
	}
}

// Exit implements kernel.Tracer.
func (s *strace) Exit(t *kernel.Task, nr uint64, ret uintptr, err error) {
	r := t.Regs()
	var a arch.SyscallArgs
	switch nr {
	case unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RT_SIGRETURN:
		return
	case unix.SYS_EXECVE, unix.SYS_EXECVEAT:
		s.out(s.prefix(t) + s.name(nr) + " = " + resultString(ret, err))
		return
	}
	a = r.SyscallArgs()
	s.out(s.call(t, nr, a, ret, err) + " = " + resultString(ret, err))
}

func (s *strace) prefix(t *kernel.Task) string {
	return "[" + strconv.Itoa(int(t.TaskID())) + " " + t.Name() + "] "
}

func (s *strace) name(nr uint64) string {
	if n := s.t.NameOf(nr); n != "" {
		return n
	}
	return "syscall_" + strconv.FormatUint(nr, 10)
}

// call formats the name and arguments.
func (s *strace) call(t *kernel.Task, nr uint64, a arch.SyscallArgs, ret uintptr, err error) string {
	var b strings.Builder
	b.WriteString(s.prefix(t))
	b.WriteString(s.name(nr))
	b.WriteByte('(')
	formats := "hex hex hex hex hex hex"
	if nr < kernel.MaxSyscall && s.t.entries[nr].Name != "" {
		formats = s.t.entries[nr].Args
	}
	for i, f := range strings.Fields(formats) {
		if i >= len(a) {
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		n := uint64(1) << 63
		if i+1 < len(a) {
			n = a[i+1].Uint64()
		}
		b.WriteString(formatArg(t, f, a[i], n, ret, err))
	}
	b.WriteByte(')')
	return b.String()
}

// formatArg shows one argument; next is the argument behind it, which is the length of buffers.
func formatArg(t *kernel.Task, f string, v arch.SyscallArg, next uint64, ret uintptr, err error) string {
	switch f {
	case "int", "signal", "clock":
		if f == "signal" {
			if n := unix.SignalName(unix.Signal(v.Int())); n != "" {
				return n
			}
		}
		return strconv.Itoa(int(v.Int()))
	case "long", "size", "offset":
		return strconv.FormatInt(v.Int64(), 10)
	case "fd", "dirfd":
		if v.Int() == unix.AT_FDCWD {
			return "AT_FDCWD"
		}
		return strconv.Itoa(int(v.Int()))
	case "oct", "mode":
		return "0" + strconv.FormatUint(uint64(v.Uint()), 8)
	case "path", "string":
		return quoted(t, v.Pointer())
	case "strings":
		return stringVector(t, v.Pointer())
	case "buf", "inbuf":
		return quotedBytes(t, v.Pointer(), next)
	case "outbuf":
		if err != nil || ret == 0 {
			return hex(v)
		}
		return quotedBytes(t, v.Pointer(), min(uint64(ret), next))
	case "outint":
		if p := v.Pointer(); p != 0 && err == nil {
			if x, e := t.MM().ReadUint32(p); e == nil {
				return "[" + strconv.Itoa(int(int32(x))) + "]"
			}
		}
	case "timespec", "outtimespec":
		if v != 0 {
			if ns, e := readTimespec(t, v.Pointer()); e == nil {
				return "{" + strconv.FormatFloat(float64(ns)/1e9, 'f', 9, 64) + "s}"
			}
		}
	case "sigset", "outsigset":
		if v != 0 {
			if x, e := t.MM().ReadUint64(v.Pointer()); e == nil {
				return "[" + strconv.FormatUint(x, 16) + "]"
			}
		}
	case "cloneflags", "openflags":
		return "0x" + strconv.FormatUint(uint64(v.Uint()), 16)
	}
	return hex(v)
}

func hex(v arch.SyscallArg) string {
	if v == 0 {
		return "0"
	}
	return "0x" + strconv.FormatUint(v.Uint64(), 16)
}

func quoted(t *kernel.Task, addr uint64) string {
	if t.MM() == nil {
		return "?"
	}
	str, err := t.MM().CopyInString(addr, 512)
	if err != nil {
		return "0x" + strconv.FormatUint(addr, 16)
	}
	return strconv.Quote(str)
}

func stringVector(t *kernel.Task, addr uint64) string {
	var b strings.Builder
	b.WriteByte('[')
	for i := 0; ; i++ {
		p, err := t.MM().ReadUint64(addr + uint64(i)*8)
		if err != nil || p == 0 {
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		if i == 16 {
			b.WriteString("...")
			break
		}
		b.WriteString(quoted(t, p))
	}
	b.WriteByte(']')
	return b.String()
}

func quotedBytes(t *kernel.Task, addr, n uint64) string {
	buf := make([]byte, min(n, maxString))
	k, _ := t.MM().CopyIn(addr, buf)
	s := strconv.Quote(string(buf[:k]))
	if n > maxString {
		s += "..."
	}
	return s
}

// resultString shows what the call gave.
func resultString(ret uintptr, err error) string {
	if err == nil {
		if ret > 1<<20 {
			return "0x" + strconv.FormatUint(uint64(ret), 16)
		}
		return strconv.FormatInt(int64(ret), 10)
	}
	e, ok := err.(unix.Errno)
	if !ok {
		return "? " + err.Error()
	}
	switch e {
	case linux.ERESTARTSYS:
		return "? ERESTARTSYS"
	case linux.ERESTARTNOINTR:
		return "? ERESTARTNOINTR"
	case linux.ERESTARTNOHAND:
		return "? ERESTARTNOHAND"
	case linux.ERESTART_RESTARTBLOCK:
		return "? ERESTART_RESTARTBLOCK"
	}
	return "-1 " + unix.ErrnoName(e) + " (" + e.Error() + ")"
}
