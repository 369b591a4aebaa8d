package syscalls

import (
	"unsafe"

	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

// ptraceEntries are ptrace(2).
func ptraceEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_PTRACE, Name: "ptrace", Handler: ptrace, Support: Partial,
			Note: "no debug registers, PTRACE_SYSEMU and PTRACE_EVENT_EXIT stops", Args: "hex int ptr ptr"},
	}
}

// Layouts of user_regs_struct and struct user.
const (
	userRegsSize    = uint64(unsafe.Sizeof(arch.Registers{}))
	userSize        = 912
	userDebugregs   = 848
	ntPrstatus      = 1
	ntPrfpreg       = 2
	ntX86Xstate     = 0x202
	fpregsSize      = 512
	syscallInfoSize = 88
)

func ptrace(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	req := int64(a[0].Uint64())
	if req == unix.PTRACE_TRACEME {
		return 0, t.PtraceTraceme()
	}
	c := t.PIDNS().TaskByTID(a[1].Int())
	if c == nil {
		return 0, unix.ESRCH
	}
	addr, data := a[2].Uint64(), a[3].Uint64()
	switch req {
	case unix.PTRACE_ATTACH:
		return 0, t.PtraceAttach(c, false, 0)
	case unix.PTRACE_SEIZE:
		if addr != 0 || data&^ptraceOptions != 0 {
			return 0, unix.EIO
		}
		return 0, t.PtraceAttach(c, true, uint32(data))
	}
	if !t.PtraceTracee(c) {
		return 0, unix.ESRCH
	}
	switch req {
	case unix.PTRACE_INTERRUPT:
		return 0, t.PtraceInterrupt(c)
	case unix.PTRACE_KILL:
		c.Group().Kill()
		return 0, nil
	case unix.PTRACE_LISTEN:
		return 0, t.PtraceListen(c)
	case unix.PTRACE_CONT, unix.PTRACE_SYSCALL, unix.PTRACE_SINGLESTEP, unix.PTRACE_DETACH:
		return 0, t.PtraceResume(c, req == unix.PTRACE_SYSCALL, req == unix.PTRACE_SINGLESTEP, req == unix.PTRACE_DETACH, linux.Signal(int32(data)))
	case unix.PTRACE_PEEKTEXT, unix.PTRACE_PEEKDATA, unix.PTRACE_POKETEXT, unix.PTRACE_POKEDATA:
		return 0, ptraceMemory(t, c, req, addr, data)
	case unix.PTRACE_PEEKUSR, unix.PTRACE_POKEUSR:
		return 0, ptraceUser(t, c, req == unix.PTRACE_POKEUSR, addr, data)
	case unix.PTRACE_GETREGS, unix.PTRACE_SETREGS:
		return 0, ptraceRegs(t, c, req == unix.PTRACE_SETREGS, data)
	case unix.PTRACE_GETREGSET, unix.PTRACE_SETREGSET:
		return 0, ptraceRegset(t, c, req == unix.PTRACE_SETREGSET, addr, data)
	case unix.PTRACE_GETFPREGS, unix.PTRACE_SETFPREGS:
		_, err := ptraceFP(t, c, req == unix.PTRACE_SETFPREGS, data, fpregsSize)
		return 0, err
	}
	return ptraceState(t, c, req, addr, data)
}

// ptraceOptions are the options of PTRACE_SETOPTIONS.
const ptraceOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC |
	unix.PTRACE_O_TRACEVFORKDONE | unix.PTRACE_O_TRACEEXIT | unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_EXITKILL

// ptraceState are the requests about the stop itself.
func ptraceState(t, c *kernel.Task, req int64, addr, data uint64) (ret uintptr, err error) {
	m := t.MM()
	switch req {
	case unix.PTRACE_SETOPTIONS:
		if data&^ptraceOptions != 0 {
			return 0, unix.EINVAL
		}
		return 0, t.PtraceStopped(c, func() error { c.SetPtraceOptions(uint32(data)); return nil })
	case unix.PTRACE_GETEVENTMSG:
		var msg uint64
		if err := t.PtraceStopped(c, func() error { msg = c.PtraceMessage(); return nil }); err != nil {
			return 0, err
		}
		return 0, m.WriteUint64(data, msg)
	case unix.PTRACE_GETSIGINFO:
		var info linux.SignalInfo
		if err := t.PtraceStopped(c, func() error { info = *c.PtraceSignalInfo(); return nil }); err != nil {
			return 0, err
		}
		return 0, mm.Write(m, data, &info)
	case unix.PTRACE_SETSIGINFO:
		info, err := mm.Read[linux.SignalInfo](m, data)
		if err != nil {
			return 0, err
		}
		return 0, t.PtraceStopped(c, func() error { *c.PtraceSignalInfo() = info; return nil })
	case unix.PTRACE_GETSIGMASK:
		if addr != linux.SignalSetSize {
			return 0, unix.EINVAL
		}
		return 0, m.WriteUint64(data, uint64(c.SignalMask()))
	case unix.PTRACE_SETSIGMASK:
		if addr != linux.SignalSetSize {
			return 0, unix.EINVAL
		}
		v, err := m.ReadUint64(data)
		if err != nil {
			return 0, err
		}
		return 0, t.PtraceStopped(c, func() error { c.SetPtraceMask(linux.SignalSet(v)); return nil })
	case unix.PTRACE_GET_SYSCALL_INFO:
		return ptraceSyscallInfo(t, c, addr, data)
	case unix.PTRACE_PEEKSIGINFO:
		return 0, t.PtraceStopped(c, func() error { return nil }) // none is queued, as far as tracers care
	}
	return 0, unix.EIO
}

// ptraceMemory reads or writes a word of the tracee's memory, whatever its protection.
func ptraceMemory(t, c *kernel.Task, req int64, addr, data uint64) error {
	if err := t.PtraceStopped(c, func() error { return nil }); err != nil {
		return err
	}
	m := c.MM()
	if m == nil || !m.IncUsers() {
		return unix.ESRCH
	}
	defer m.DecUsers()
	seq := m.Seq(addr, 8).Forced()
	var word uint64
	if req == unix.PTRACE_POKETEXT || req == unix.PTRACE_POKEDATA {
		word = data
		if _, err := seq.CopyOut(bytesOf(&word)); err != nil {
			return unix.EIO
		}
		return nil
	}
	if _, err := seq.CopyIn(bytesOf(&word)); err != nil {
		return unix.EIO
	}
	return t.MM().WriteUint64(data, word)
}

// ptraceUser reads or writes a word of struct user: the general registers; debug registers read as zero.
func ptraceUser(t, c *kernel.Task, write bool, off, data uint64) error {
	if off%8 != 0 || off > userSize-8 {
		return unix.EIO
	}
	var word uint64
	err := t.PtraceStopped(c, func() error {
		r := *c.Regs()
		b := bytesOf(&r)
		switch {
		case off >= userRegsSize:
			if write && (off < userDebugregs || data != 0) {
				return unix.EIO
			}
		case write:
			copy(b[off:], bytesOf(&data))
			c.SetTracedRegs(&r)
		default:
			copy(bytesOf(&word), b[off:off+8])
		}
		return nil
	})
	if err != nil || write {
		return err
	}
	return t.MM().WriteUint64(data, word)
}

// ptraceRegs reads or writes all general registers.
func ptraceRegs(t, c *kernel.Task, write bool, at uint64) error {
	var r arch.Registers
	if write {
		var err error
		if r, err = mm.Read[arch.Registers](t.MM(), at); err != nil {
			return err
		}
		return t.PtraceStopped(c, func() error { c.SetTracedRegs(&r); return nil })
	}
	if err := t.PtraceStopped(c, func() error { r = *c.Regs(); return nil }); err != nil {
		return err
	}
	return mm.Write(t.MM(), at, &r)
}

// ptraceFP reads or writes up to n bytes of the extended state at address at.
func ptraceFP(t, c *kernel.Task, write bool, at, n uint64) (uint64, error) {
	buf := make([]byte, t.Kernel().FPStateSize())
	n = min(n, uint64(len(buf)))
	if err := t.PtraceFP(c, buf, false); err != nil {
		return 0, err
	}
	if !write {
		const xcr0At = 464 // XCR0, in the bytes for software of the FXSAVE area
		if n > fpregsSize {
			x := t.Kernel().XCR0()
			copy(buf[xcr0At:], bytesOf(&x))
		}
		_, err := t.MM().CopyOut(at, buf[:n])
		return n, err
	}
	if _, err := t.MM().CopyIn(at, buf[:n]); err != nil {
		return 0, err
	}
	if n <= fpregsSize {
		buf[fpregsSize] |= 3 // x87 and SSE are no longer in their initial state
	}
	return n, t.PtraceFP(c, buf, true)
}

// ptraceRegset is PTRACE_GETREGSET and PTRACE_SETREGSET: kind is an ELF note type, iov the address of a struct iovec.
func ptraceRegset(t, c *kernel.Task, write bool, kind, iov uint64) error {
	m := t.MM()
	v, err := mm.Read[[2]uint64](m, iov)
	if err != nil {
		return err
	}
	base, n := v[0], v[1]
	switch kind {
	case ntPrstatus:
		if n%8 != 0 {
			return unix.EINVAL
		}
		n = min(n, userRegsSize)
		var r arch.Registers
		if err := t.PtraceStopped(c, func() error { r = *c.Regs(); return nil }); err != nil {
			return err
		}
		if write {
			if _, err = m.CopyIn(base, bytesOf(&r)[:n]); err == nil {
				err = t.PtraceStopped(c, func() error { c.SetTracedRegs(&r); return nil })
			}
		} else {
			_, err = m.CopyOut(base, bytesOf(&r)[:n])
		}
	case ntPrfpreg:
		n, err = ptraceFP(t, c, write, base, min(n, fpregsSize))
	case ntX86Xstate:
		n, err = ptraceFP(t, c, write, base, n)
	default:
		return unix.EINVAL
	}
	if err != nil {
		return err
	}
	return m.WriteUint64(iov+8, n)
}

// syscallInfo is struct ptrace_syscall_info.
type syscallInfo struct {
	Op     uint8
	_      [3]byte
	Arch   uint32
	IP, SP uint64
	Data   [8]uint64
}

func ptraceSyscallInfo(t, c *kernel.Task, size, at uint64) (uintptr, error) {
	var s syscallInfo
	n := uint64(24)
	err := t.PtraceStopped(c, func() error {
		r := c.Regs()
		op, nr, ret, failed := c.PtraceSyscall()
		s = syscallInfo{Op: op, Arch: unix.AUDIT_ARCH_X86_64, IP: r.Rip, SP: r.Rsp}
		switch op {
		case unix.PTRACE_SYSCALL_INFO_ENTRY, unix.PTRACE_SYSCALL_INFO_SECCOMP:
			s.Data[0] = nr
			for i, x := range r.SyscallArgs() {
				s.Data[1+i] = x.Uint64()
			}
			n = 80
			if op == unix.PTRACE_SYSCALL_INFO_SECCOMP {
				s.Data[7] = c.PtraceMessage()
				n = 84
			}
		case unix.PTRACE_SYSCALL_INFO_EXIT:
			s.Data[0] = uint64(ret)
			if failed {
				s.Data[1] = 1
			}
			n = 33
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	_, err = t.MM().CopyOut(at, bytesOf(&s)[:min(n, size)])
	return uintptr(n), err
}
