package kernel_test

import (
	"encoding/binary"
	"runtime"
	"sync"
	"testing"
	"time"

	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/tmpfs"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/syscalls"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// The fake platform runs "application code" that is a Go function in a goroutine of its own: it makes system calls through
// its thread and sees signals as calls of functions. So everything above the platform runs under the race detector.

// thread is what a program runs on.
type thread struct {
	p     *fakePlatform
	regs  *arch.Registers
	start chan struct{} // the kernel lets the program run
	stop  chan platform.Event
	intr  chan struct{}
	gone  chan struct{}
	begun bool
}

type program func(th *thread)

// fakePlatform implements platform.Platform.
type fakePlatform struct {
	mu       sync.Mutex
	programs map[uint64]program            // protected by mu: by address of their first instruction
	handlers map[uint64]func(*thread, int) // protected by mu: signal handlers by address
	next     uint64
	stacks   uint64 // protected by mu
	threads  []*thread
}

func (p *fakePlatform) NewAddressSpace() (platform.AddressSpace, error) { return fakeSpace{}, nil }
func (p *fakePlatform) NewContext() platform.Context {
	th := &thread{p: p, start: make(chan struct{}), stop: make(chan platform.Event), intr: make(chan struct{}, 1), gone: make(chan struct{})}
	p.mu.Lock()
	p.threads = append(p.threads, th)
	p.mu.Unlock()
	return th
}
func (p *fakePlatform) FPStateSize() int               { return 832 }
func (p *fakePlatform) UserRange() (uint64, uint64)    { return 0, 1<<47 - 4096 }
func (p *fakePlatform) VDSO() (uint64, uint64, uint64) { return 0, 0, 0 }
func (p *fakePlatform) Release()                       {}

// add gives a program an address.
func (p *fakePlatform) add(f program) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	a := fakeBase + p.next*16
	p.programs[a] = f
	return a
}

// addStack gives the program of a cloned thread a stack by whose top it is known.
func (p *fakePlatform) addStack(f program) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stacks++
	a := fakeData + 0x1000 + p.stacks*0x1000
	p.programs[a] = f
	return a
}

// handler gives a signal handler an address.
func (p *fakePlatform) handler(f func(*thread, int)) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	a := fakeBase + p.next*16
	p.handlers[a] = f
	return a
}

type fakeSpace struct{}

func (fakeSpace) Apply([]platform.MapOp) error { return nil }
func (fakeSpace) Release()                     {}

// Switch implements platform.Context.
func (th *thread) Switch(_ platform.AddressSpace, regs *arch.Registers) (platform.Event, error) {
	th.regs = regs
	select {
	case <-th.intr:
		return platform.Event{Kind: platform.EventInterrupt}, nil
	default:
	}
	if !th.begun {
		th.begun = true
		go func() {
			for th.p.program(th.regs) == nil {
				th.runHandler() // a signal came before the first instruction
			}
			th.p.program(th.regs)(th)
			th.sys(unix.SYS_EXIT, 0)
		}()
	} else {
		th.start <- struct{}{}
	}
	return <-th.stop, nil
}

// program is what a thread with these registers starts with: an entry point, or that of a cloned thread's stack.
func (p *fakePlatform) program(r *arch.Registers) program {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.handlers[r.Rip] != nil {
		return nil
	}
	if f := p.programs[r.Rip]; f != nil {
		return f
	}
	return p.programs[r.Rsp]
}

// check is a safe point of code that makes no system calls: an interrupt and signals get in there.
func (th *thread) check() {
	select {
	case <-th.intr:
	default:
		return
	}
	here := fakeBase + 8
	th.regs.Rip, th.regs.OrigRax = here, ^uint64(0)
	th.event(platform.Event{Kind: platform.EventInterrupt})
	for th.regs.Rip != here {
		th.runHandler()
	}
}

func (th *thread) Interrupt() {
	select {
	case th.intr <- struct{}{}:
	default:
	}
}

func (th *thread) ReadFP(b []byte) error  { clear(b); return nil }
func (th *thread) Blocked()               {}
func (th *thread) WriteFP(b []byte) error { return nil }
func (th *thread) Release()               { close(th.gone) }

// sys makes a system call: the result is negative for errors. Signal handlers run before it returns.
func (th *thread) sys(nr uint64, args ...uint64) int64 {
	var a [6]uint64
	copy(a[:], args)
	ret := fakeBase
	for {
		r := th.regs
		r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9, r.OrigRax, r.Rax = a[0], a[1], a[2], a[3], a[4], a[5], nr, nr
		r.Rip = ret + 2
		th.event(platform.Event{Kind: platform.EventSyscall})
		for th.regs.Rip != ret && th.regs.Rip != ret+2 {
			th.runHandler()
		}
		if th.regs.Rip == ret+2 {
			return int64(th.regs.Rax)
		}
		nr = th.regs.Rax // restarted, perhaps as restart_syscall
	}
}

// runHandler runs the handler that the kernel has entered, and rt_sigreturn.
func (th *thread) runHandler() {
	th.p.mu.Lock()
	h := th.p.handlers[th.regs.Rip]
	th.p.mu.Unlock()
	frame := *th.regs
	h(th, int(frame.Rdi))
	*th.regs = frame
	th.regs.Rsp += 8 // the return address is popped by ret
	th.regs.OrigRax = unix.SYS_RT_SIGRETURN
	th.event(platform.Event{Kind: platform.EventSyscall})
}

func (th *thread) event(ev platform.Event) {
	select {
	case th.stop <- ev:
	case <-th.gone:
		runtime.Goexit()
	}
	select {
	case <-th.start:
	case <-th.gone:
		runtime.Goexit()
	}
}

// fakeBase is where the addresses of fake code start, fakeData is writable memory of each process.
const (
	fakeBase = uint64(0x400000)
	fakeData = uint64(0x600000)
	dataSize = 64 << 10
)

// world is a kernel on the fake platform.
type world struct {
	t   testing.TB
	p   *fakePlatform
	k   *kernel.Kernel
	v   *vfs.VFS
	ct  *kernel.Container
	ctx vfs.Context
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOn(t, func(p *fakePlatform) platform.Platform { return p })
}

// newWorldOn is newWorld with a platform made of the fake one.
func newWorldOn(t testing.TB, wrap func(*fakePlatform) platform.Platform) *world {
	t.Helper()
	mf, err := memfile.New(memfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, p: &fakePlatform{programs: map[uint64]program{}, handlers: map[uint64]func(*thread, int){}}, v: vfs.New(0)}
	tab := syscalls.New()
	w.k, err = kernel.New(kernel.Config{Platform: wrap(w.p), MemFile: mf, VFS: w.v, Table: &tab.SyscallTable})
	if err != nil {
		t.Fatal(err)
	}
	creds := auth.NewRootCredentials(w.k.RootUserNamespace())
	sb, err := tmpfs.NewType("tmpfs", mf, 1<<30).Mount(vfs.NewKernelContext(creds, nil, nil), w.v, &vfs.MountOptions{Source: "none"})
	if err != nil {
		t.Fatal(err)
	}
	ns := w.v.NewMountNamespace(sb, creds.UserNS, 0)
	root := ns.Root()
	w.ctx = vfs.NewKernelContext(creds, vfs.NewFSContext(root, root, 022), ns)
	root.DecRef()
	if w.ct, err = w.k.NewContainer(&kernel.ContainerConfig{ID: "t", MountNS: ns}); err != nil {
		t.Fatal(err)
	}
	return w
}

// elf is a program file whose entry point is the address of f and which has a page of data.
func elf(entry uint64) []byte {
	b := make([]byte, 0x1000+dataSize)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], 2)  // ET_EXEC
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], entry)
	le.PutUint64(b[32:], 64) // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 2)
	seg := func(at int, flags uint32, off, addr, n uint64) {
		le.PutUint32(b[at:], 1)
		le.PutUint32(b[at+4:], flags)
		le.PutUint64(b[at+8:], off)
		le.PutUint64(b[at+16:], addr)
		le.PutUint64(b[at+24:], addr)
		le.PutUint64(b[at+32:], n)
		le.PutUint64(b[at+40:], n)
		le.PutUint64(b[at+48:], 0x1000)
	}
	seg(64, 5, 0, fakeBase, 0x1000)
	seg(120, 6, 0x1000, fakeData, dataSize)
	return b
}

// spawn starts f as a process.
func (w *world) spawn(f program) *kernel.ThreadGroup {
	w.t.Helper()
	tg := w.create(f)
	w.k.StartProcess(tg)
	return tg
}

// create makes a process of f that waits to be started.
func (w *world) create(f program) *kernel.ThreadGroup {
	w.t.Helper()
	entry := w.p.add(f)
	name := "/" + string(rune('a'+entry%26)) + time.Now().Format("150405.000000000")
	fd, err := w.v.Open(w.ctx, vfs.Path{}, name, &vfs.OpenOptions{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0755})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := fd.Write(w.ctx, mm.BytesSeq(elf(entry))); err != nil {
		w.t.Fatal(err)
	}
	fd.DecRef()
	tg, err := w.k.CreateProcess(&kernel.CreateProcessArgs{Container: w.ct, Filename: name, Argv: []string{"x"}})
	if err != nil {
		w.t.Fatal(err)
	}
	return tg
}

// run is spawn and the wait for the end; it checks that the process exits with 0.
func (w *world) run(f program) {
	w.t.Helper()
	w.expect(w.spawn(f), 0)
}

func (w *world) expect(tg *kernel.ThreadGroup, status int32) {
	w.t.Helper()
	select {
	case <-tg.Done():
	case <-time.After(20 * time.Second):
		buf := make([]byte, 1<<16)
		w.t.Fatalf("the process does not end\n%s", buf[:runtime.Stack(buf, true)])
	}
	if st := tg.ExitStatus(); st != status {
		w.t.Fatalf("wait status %#x, want %#x", st, status)
	}
}

// fork makes a child that runs f; it returns its ID.
func (th *thread) fork(f program) int64 {
	return th.sys(unix.SYS_CLONE, uint64(unix.SIGCHLD), th.p.addStack(f))
}

// threadFlags are those of pthread_create.
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM

// clone makes another thread that runs f.
func (th *thread) clone(f program) int64 {
	return th.sys(unix.SYS_CLONE, threadFlags, th.p.addStack(f))
}

// exit ends the process.
func (th *thread) exit(code int) { th.sys(unix.SYS_EXIT_GROUP, uint64(code)) }

// must ends the process with an exit code that points at the check, if ok is false.
func (th *thread) must(t testing.TB, ok bool, what string, v ...any) {
	if !ok {
		t.Helper()
		t.Errorf("%s %v", what, v)
		th.exit(99)
	}
}

// task is the kernel's side of the process tg, for access to its memory.
func mem(tg *kernel.ThreadGroup) *mm.MemoryManager { return tg.Leader().MM() }

// onSignal sets a handler.
func (th *thread) onSignal(m *mm.MemoryManager, sig unix.Signal, flags uint64, mask linux.SignalSet, f func(*thread, int)) int64 {
	act := linux.SigAction{Handler: th.p.handler(f), Flags: flags | linux.SA_RESTORER, Restorer: fakeBase, Mask: mask}
	mm.Write(m, fakeData+0x800, &act)
	return th.sys(unix.SYS_RT_SIGACTION, uint64(sig), fakeData+0x800, 0, 8)
}
