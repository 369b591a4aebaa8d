package stub

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
)

// The user half of the address space: applications have [Min, Max); the code block and the vdso lie between
// Max and taskSize. 64 GiB leave 24 bits of randomness for each.
const (
	Min      = 0x10000
	Max      = 0x7ff000000000
	taskSize = 0x7ffffffff000
)

// Config describes the zygote.
type Config struct {
	// Code is position-independent machine code, mapped read-execute.
	Code []byte
	// Pages is the size of the block that begins with Code; what follows the code is left unmapped,
	// for the platform's own use.
	Pages int
	// Pause is the offset in Code of a loop that only sleeps, without using memory.
	Pause uint64
	// Call is the offset of a syscall instruction followed by int3.
	Call uint64
	// Filter is the seccomp filter of all stubs. It has to allow munmap(2).
	Filter []unix.SockFilter
}

// Zygote is the process that stub processes are cloned from. It is stopped, and traced by the thread
// that made it.
type Zygote struct {
	Tracee
	// Code is the address of the code block in all stubs.
	Code uint64
	// VDSOBase, VDSOSize and VDSOEhdr are what platform.Platform.VDSO returns.
	VDSOBase, VDSOSize, VDSOEhdr uint64
	// XState is the extended state of a new process in the standard XSAVE format: its length is the
	// platform's FPStateSize.
	XState []byte

	call uint64

	// The filter as the kernel wants it. The zygote passes it from its copy of this process's memory, so it has
	// to be on the heap, where nothing moves, before the clone.
	prog   unix.SockFprog
	filter []unix.SockFilter
}

// Call executes a system call in the zygote.
func (z *Zygote) Call(nr uintptr, args ...uint64) (uint64, error) {
	return z.Tracee.Call(z.call, nr, args...)
}

// NewZygote makes the zygote. See the package comment for what the calling thread must be.
func NewZygote(cfg Config) (*Zygote, error) {
	base, ehdr, end := hostVDSO()
	code, err := mapCode(cfg)
	if err != nil {
		return nil, fmt.Errorf("stub: mapping the code: %w", err)
	}
	z := &Zygote{Code: code, call: code + cfg.Call, filter: append([]unix.SockFilter(nil), cfg.Filter...)}
	z.prog = unix.SockFprog{Len: uint16(len(z.filter)), Filter: unsafe.SliceData(z.filter)}
	pid, err := cloneSelf(code + cfg.Pause)
	// Only the clone keeps the code.
	unix.RawSyscall(unix.SYS_MUNMAP, uintptr(code), uintptr(cfg.Pages)*arch.PageSize, 0)
	if err != nil {
		return nil, fmt.Errorf("stub: clone: %w", err)
	}
	z.Tracee = Tracee(pid)
	if err := z.setUp(cfg.Pages, base, ehdr, end); err != nil {
		z.Kill()
		return nil, fmt.Errorf("stub: setting up the zygote: %w", err)
	}
	return z, nil
}

// Kill ends the zygote.
func (z *Zygote) Kill() {
	unix.Kill(int(z.Tracee), unix.SIGKILL)
	for {
		if st, err := z.Wait(); err != nil || !st.Stopped() {
			return
		}
	}
}

// mapCode maps the code block at a random place, with unmapped pages around it in this process.
func mapCode(cfg Config) (uint64, error) {
	if cfg.Pages < 1 || len(cfg.Code) > arch.PageSize*cfg.Pages {
		return 0, unix.EINVAL
	}
	size := uint64(cfg.Pages) * arch.PageSize
	for range 16 {
		addr, err := randomPage(size)
		if err != nil {
			return 0, err
		}
		got, _, e := unix.RawSyscall6(unix.SYS_MMAP, uintptr(addr), uintptr(size), unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, ^uintptr(0), 0)
		if e == unix.EEXIST {
			continue
		}
		if e != 0 {
			return 0, e
		}
		codeLen, _ := arch.PageUp(uint64(len(cfg.Code)))
		copy(unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&got))), size), cfg.Code)
		if _, _, e := unix.RawSyscall(unix.SYS_MPROTECT, got, uintptr(codeLen), unix.PROT_READ|unix.PROT_EXEC); e != 0 {
			return 0, e
		}
		if codeLen < size {
			unix.RawSyscall(unix.SYS_MUNMAP, got+uintptr(codeLen), uintptr(size-codeLen), 0)
		}
		return uint64(got), nil
	}
	return 0, unix.EEXIST
}

// randomPage chooses a place for size bytes between Max and taskSize.
func randomPage(size uint64) (uint64, error) {
	var b [8]byte
	if n, err := unix.Getrandom(b[:], 0); n != len(b) {
		return 0, errors.Join(unix.EIO, err)
	}
	pages := (taskSize - Max - size) / arch.PageSize
	return Max + binary.LittleEndian.Uint64(b[:])%pages*arch.PageSize, nil
}

// cloneSelf clones this process. All signals are blocked around it, so that no handler of the Go
// runtime runs in the child. They stay blocked there, so that no signal of others ends a thread that is not traced yet;
// Tracee.SetSigMask unblocks them, when no handler's code is left.
func cloneSelf(entry uint64) (int, error) {
	all, old := ^uint64(0), uint64(0)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid := rawClone(unix.CLONE_FILES, entry, uint64(unix.Getpid()))
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	if e := Errno(uint64(pid)); e != 0 {
		return 0, e
	}
	return int(pid), nil
}

func rawClone(flags, entry, ppid uint64) (pid int64)

// setUp attaches to the zygote and makes it bare.
func (z *Zygote) setUp(pages int, vvar, ehdr, end uint64) error {
	var err error
	for range 1000 { // until it made itself dumpable
		err = z.Seize(0)
		if err != unix.EPERM {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("attaching: %w", err)
	}
	if err := z.Interrupt(); err != nil {
		return err
	}
	if _, err := z.WaitStop(); err != nil {
		return err
	}
	if err := z.placeVDSO(vvar, ehdr, end); err != nil {
		return fmt.Errorf("moving the vdso: %w", err)
	}
	if _, err := z.Call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return err
	}
	if _, err := z.Call(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uint64(uintptr(unsafe.Pointer(&z.prog)))); err != nil {
		return fmt.Errorf("installing the filter: %w", err)
	}
	if err := z.unmapAll(uint64(pages) * arch.PageSize); err != nil {
		return fmt.Errorf("unmapping: %w", err)
	}
	buf := make([]byte, 16384) // 11008 bytes with AMX
	n, err := z.GetXState(buf)
	if err != nil {
		return err
	}
	if n < 576 {
		return errors.New("the processor has no XSAVE")
	}
	z.XState = initialXState(buf[:n])
	return nil
}

// initialXState is the state that execve(2) gives a program, as large as sample and with its software-reserved
// bytes (which hold XCR0 at 464).
func initialXState(sample []byte) []byte {
	b := make([]byte, len(sample))
	copy(b[28:32], sample[28:32]) // MXCSR_MASK
	copy(b[464:512], sample[464:512])
	binary.LittleEndian.PutUint16(b[0:], 0x37f)   // FCW
	binary.LittleEndian.PutUint32(b[24:], 0x1f80) // MXCSR
	binary.LittleEndian.PutUint64(b[512:], 3)     // XSTATE_BV: x87 and SSE
	return b
}

// placeVDSO moves the vdso to a random place, so that the application does not learn where the sentry has
// its own. Where the host seals it (EPERM) it stays.
func (z *Zygote) placeVDSO(vvar, ehdr, end uint64) error {
	if ehdr == 0 {
		return nil
	}
	size := end - vvar
	for {
		dest, err := randomPage(size)
		if err != nil {
			return err
		}
		if dest < z.Code+(1<<20) && z.Code < dest+size+(1<<20) {
			continue
		}
		// What may lie at dest (the stack of the sentry, never its code) is dropped with it.
		if dest < end && vvar < dest+size {
			continue
		}
		switch err := z.moveVDSO(vvar, end, dest); err {
		case nil:
		case unix.EPERM:
			dest = vvar
		case unix.EINVAL:
			return nil // Linux 6.1 does not move them; without them the clock costs system calls
		default:
			return err
		}
		z.VDSOBase, z.VDSOSize, z.VDSOEhdr = dest, size, dest+ehdr-vvar
		return nil
	}
}

// unmapAll unmaps everything but the code block and the vdso.
func (z *Zygote) unmapAll(codeSize uint64) error {
	keep := [2][2]uint64{{z.Code, z.Code + codeSize}, {z.VDSOBase, z.VDSOBase + z.VDSOSize}}
	if keep[1][0] < keep[0][0] {
		keep[0], keep[1] = keep[1], keep[0]
	}
	start := uint64(0)
	for _, k := range keep {
		if k[0] > start {
			if _, err := z.Call(unix.SYS_MUNMAP, start, k[0]-start); err != nil {
				return err
			}
		}
		start = max(start, k[1])
	}
	_, err := z.Call(unix.SYS_MUNMAP, start, taskSize-start)
	return err
}
