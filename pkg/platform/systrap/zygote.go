package systrap

import (
	"cmp"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform/stub"
)

// zygoteMaps is the number of mappings that forkZygote makes.
const zygoteMaps = 4

// zygoteArgs are what the zygote's first instructions need; read by forkZygote.
type zygoteArgs struct {
	flags  uint64
	maps   [zygoteMaps][6]uint64
	secret [3]uint64
	key    [2]uint64
	entry  uint64
}

//go:noescape
func forkZygote(a *zygoteArgs) int64

// vdso is where the host's vvar and vdso are in all stub processes, and the code of the vdso.
type vdso struct {
	base, size, ehdr uint64
	text             []byte
}

type span struct{ start, end uint64 }

// moveVDSO moves the host's vvar and vdso pages to their place, if that is possible. Each of their mappings moves only as
// a whole, and where one ends cannot be seen: try.
func (p *systrap) moveVDSO(z *addressSpace) error {
	base, ehdr, end := stub.HostVDSO()
	if ehdr == 0 || base < slotsEnd && end > stubBase {
		return nil // in the way of the stub region: improbable
	}
	for from := base; from < end; {
		n := uint64(arch.PageSize)
		for ; from+n <= end; n += arch.PageSize {
			z.post(raw(nil, unix.SYS_MREMAP, from, n, n, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, vdsoAddr+from-base))
			r, err := z.await()
			if err != nil {
				return err
			}
			if r >= 0 {
				break
			}
		}
		if from += n; from > end {
			return nil // sealed, perhaps
		}
	}
	p.vdso = vdso{vdsoAddr, end - base, vdsoAddr + ehdr - base, stub.VDSOText()}
	return nil
}

// raw appends a system call without the secret.
func raw(ops []op, nr uint64, args ...uint64) []op {
	o := op{nr: nr, kind: opRaw}
	copy(o.args[:], args)
	return append(ops, o)
}

// mapShared is the system call that maps a part of the stub memory.
func (p *systrap) mapShared(addr, size, off, prot uint64) [6]uint64 {
	return [6]uint64{addr, size, prot, unix.MAP_SHARED | unix.MAP_FIXED, uint64(p.mem.fd), off}
}

// startZygote forks the zygote and makes it what it is: a process with nothing but the stub region, without
// privileges, under the filter.
func (p *systrap) startZygote() error {
	chunk, _ := p.mem.alloc(chunkSpace)
	z := p.newSpace(chunk)
	off := uint64(chunk) * chunkSize
	// In memory that the fork has, too; cleared at the end.
	args := (*zygoteArgs)(unsafe.Pointer(&z.ring.data))
	*args = zygoteArgs{flags: unix.CLONE_FILES, entry: p.text.label[labelMemory], key: p.key}
	for i, s := range p.secret {
		args.secret[i] = uint64(s) << 32
	}
	args.maps = [zygoteMaps][6]uint64{
		p.mapShared(textAddr, textSize+tableSize, offText, unix.PROT_READ|unix.PROT_EXEC),
		p.mapShared(hintAddr, hintSize, offHints, unix.PROT_READ),
		p.mapShared(ringAddr, ringSize, off, unix.PROT_READ),
		p.mapShared(doneAddr, doneSize, off+chunkDone, unix.PROT_READ|unix.PROT_WRITE),
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.post(raw(raw(nil, unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uint64(unix.SIGKILL)), unix.SYS_SETSID))
	p.leaveBehind()
	pid, err := forkBlocked(args)
	if err != nil {
		return err
	}
	z.pid = pid
	p.zygote = z
	r, err := z.await()
	*args = zygoteArgs{}
	if err == nil && r >= 0 {
		err = p.moveVDSO(z)
	}
	if err != nil || r < 0 {
		return cmp.Or(err, error(unix.Errno(-r)))
	}
	ops := p.zygoteOps(z)
	p.secret = secret{}
	z.post(ops)
	r, err = z.await()
	if err == nil && r < 0 {
		err = unix.Errno(-r)
	}
	clear(z.ring.data[:])
	clear(z.ring.ops[:len(ops)])
	return err
}

// leaveBehind keeps the sentry's memory out of the fork, which needs of it no more than forkZygote's instructions and
// arguments: neither are page tables copied, nor must each page of the sentry that is written afterwards fault first.
// A part of the data segment and all that lies above it goes; where the kernel refuses, it is copied.
func (p *systrap) leaveBehind() {
	from := uint64(uintptr(unsafe.Pointer(&handled))) &^ arch.PageMask
	keep := []span{{uint64(p.mem.base), uint64(p.mem.base) + memorySize}}
	if base, ehdr, end := stub.HostVDSO(); ehdr != 0 {
		keep = append(keep, span{base, end})
	}
	slices.SortFunc(keep, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	for _, k := range append(keep, span{stubEnd, 0}) {
		// It ends with ENOMEM, as there are gaps.
		unix.RawSyscall(unix.SYS_MADVISE, uintptr(from), uintptr(k.start-from), unix.MADV_DONTFORK)
		from = k.end
	}
}

// forkBlocked forks with all signals blocked: the child has no handlers, and keeps the mask.
func forkBlocked(args *zygoteArgs) (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return 0, err
	}
	r := forkZygote(args)
	unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	if r < 0 {
		return 0, unix.Errno(-r)
	}
	return int(r), nil
}

// zygoteOps are the system calls that turn the copy of the sentry into the zygote.
func (p *systrap) zygoteOps(z *addressSpace) []op {
	var ops []op
	keep := []span{{textAddr, tableAddr + tableSize}, {hintAddr, hintAddr + hintSize}, {ringAddr, ringAddr + ringSize}, {doneAddr, doneAddr + doneSize}}
	if p.vdso.size != 0 {
		keep = append(keep, span{p.vdso.base, p.vdso.base + p.vdso.size})
	}
	from := uint64(0)
	for _, k := range append(keep, span{stubEnd, 0}) {
		if from < k.start {
			ops = raw(ops, unix.SYS_MUNMAP, from, k.start-from)
		}
		from = k.end
	}
	// What the calls point to lies in the ring's data, at addresses of the zygote.
	data := z.ring.data[:0]
	put := func(b []byte) uint64 {
		at := ringDataAddr + uint64(len(data))
		data = append(data, b...)
		return at
	}
	act := sigaction{handler: p.text.label[labelHandler], flags: saFlags | saNoDefer, restorer: p.text.label[labelHandler]}
	actAt := put(bytesOf(&act))
	act.flags = saFlags
	interruptAt := put(bytesOf(&act))
	for _, s := range handled {
		at := actAt
		if s == unix.SIGUSR1 {
			at = interruptAt
		}
		ops = raw(ops, unix.SYS_RT_SIGACTION, uint64(s), at, 0, 8)
	}
	ops = raw(ops, unix.SYS_SETRLIMIT, unix.RLIMIT_CORE, put(bytesOf(&[2]uint64{})))
	ops = raw(ops, unix.SYS_CAPSET, put(bytesOf(&[2]uint32{unix.LINUX_CAPABILITY_VERSION_3})), put(bytesOf(&[6]uint32{})))
	ops = raw(ops, unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	prog := filter(p.secret, p.reactor.fd)
	progAt := ringDataAddr + uint64(len(data))
	for i := range prog {
		put(bytesOf(&prog[i]))
	}
	fprog := put(bytesOf(&[2]uint64{uint64(len(prog)), progAt}))
	return raw(ops, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, fprog)
}

// sigaction is the kernel's struct sigaction.
type sigaction struct{ handler, flags, restorer, mask uint64 }

// Flags of sigaction(2). The interrupt signal is blocked in its own handler, so that many of them do not overflow the signal
// stack; going back from there takes rt_sigreturn. The others are not blocked, so that going back does not need it.
const (
	saFlags   = 0x4 | 0x04000000 | 0x08000000 // SA_SIGINFO, SA_RESTORER, SA_ONSTACK
	saNoDefer = 0x40000000
)

// handled are the signals with the stub's handler; no other is ever unblocked.
var handled = [...]unix.Signal{unix.SIGSYS, unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGUSR1}

// appMask is the signal mask of application threads.
func appMask() uint64 {
	m := ^uint64(0)
	for _, s := range handled {
		m &^= 1 << (s - 1)
	}
	return m
}

// bytesOf are the bytes of a value of one of the kernel's structures.
func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }
