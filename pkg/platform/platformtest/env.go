package platformtest

import (
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// Addresses that the programs use. Nothing is mapped at noAddr.
const (
	codeAddr = 0x10000000
	dataAddr = 0x20000000
	noAddr   = 0x30000000
)

// patience bounds everything that ought to happen soon, on a busy machine.
const patience = 20 * time.Second

// env is one test's view of the platform and of a memory file.
type env struct {
	testing.TB
	p    platform.Platform
	fd   int
	mem  []byte
	next uint64 // next unused offset of the file
}

const memSize = 64 << 20

func newEnv(t testing.TB, p platform.Platform) *env {
	t.Helper()
	fd, err := unix.MemfdCreate("platformtest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, memSize); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Munmap(mem)
		unix.Close(fd)
	})
	return &env{TB: t, p: p, fd: fd, mem: mem}
}

// alloc takes pages of the memory file.
func (e *env) alloc(pages int) (off uint64) {
	off = e.next
	e.next += uint64(pages) * arch.PageSize
	if e.next > memSize {
		e.Fatal("platformtest: memory file too small")
	}
	return off
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// space is an address space with a code page at codeAddr and a data page at dataAddr.
type space struct {
	platform.AddressSpace
	code, data []byte
	codeOff    uint64
	dataOff    uint64
}

// newSpace makes a space and releases it at the end of the test.
func (e *env) newSpace(code ...byte) *space {
	e.Helper()
	as, err := e.p.NewAddressSpace()
	e.must(err)
	e.Cleanup(as.Release)
	return e.fill(as, code)
}

func (e *env) fill(as platform.AddressSpace, code []byte) *space {
	e.Helper()
	s := &space{AddressSpace: as, codeOff: e.alloc(1), dataOff: e.alloc(1)}
	s.code = e.mem[s.codeOff:][:arch.PageSize]
	s.data = e.mem[s.dataOff:][:arch.PageSize]
	copy(s.code, code)
	e.must(as.Apply([]platform.MapOp{
		{Op: platform.OpMap, Perms: platform.Read | platform.Exec, FD: e.fd, Addr: codeAddr, Length: arch.PageSize, Offset: s.codeOff},
		{Op: platform.OpMap, Perms: platform.ReadWrite, FD: e.fd, Addr: dataAddr, Length: arch.PageSize, Offset: s.dataOff},
	}))
	return s
}

func (e *env) newContext() platform.Context {
	c := e.p.NewContext()
	e.Cleanup(c.Release)
	return c
}

// word gives atomic access to a word of the memory file.
func word(b []byte) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&b[0])) }

// start is the registers of a new program: rdi points to the data page.
func start() *arch.Registers {
	return &arch.Registers{Rip: codeAddr, Rsp: dataAddr + arch.PageSize, Rdi: dataAddr, Eflags: 0x202, Cs: arch.UserCS, Ss: arch.UserSS}
}

// run switches and fails the test where that gives an error.
func (e *env) run(c platform.Context, as platform.AddressSpace, r *arch.Registers) platform.Event {
	e.Helper()
	if s, ok := as.(*space); ok {
		as = s.AddressSpace
	}
	ev, err := c.Switch(as, r)
	if err != nil {
		e.Fatalf("Switch: %v", err)
	}
	return ev
}

func (e *env) wantSyscall(ev platform.Event, r *arch.Registers, nr uint64) {
	e.Helper()
	if ev.Kind != platform.EventSyscall || r.OrigRax != nr {
		e.Fatalf("got event %+v with OrigRax %#x, Rip %#x, want system call %d", ev, r.OrigRax, r.Rip, nr)
	}
}

// eventually waits for a condition.
func (e *env) eventually(what string, cond func() bool) {
	e.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			e.Fatalf("%s did not happen", what)
		}
	}
}

// result is what Switch gave in another goroutine.
type result struct {
	ev  platform.Event
	err error
}

// goSwitch switches in another goroutine; r must not be used until the channel delivers.
func goSwitch(c platform.Context, s *space, r *arch.Registers) <-chan result {
	ch := make(chan result, 1)
	go func() {
		ev, err := c.Switch(s.AddressSpace, r)
		ch <- result{ev, err}
	}()
	return ch
}

// await waits for a goSwitch.
func (e *env) await(ch <-chan result) result {
	e.Helper()
	select {
	case r := <-ch:
		return r
	case <-time.After(patience):
		e.Fatal("Switch did not return")
		panic("not reached")
	}
}

func cat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// Instructions. Those that use memory use (%rdi), or (%rsi) for the vector loads.
var (
	iSyscall  = []byte{0x0f, 0x05}
	iLoad     = []byte{0x48, 0x8b, 0x07}                         // mov (%rdi),%rax
	iStore    = []byte{0x48, 0x89, 0x07}                         // mov %rax,(%rdi)
	iDiv      = []byte{0x48, 0xf7, 0xf1}                         // div %rcx
	iUd2      = []byte{0x0f, 0x0b}                               //
	iHlt      = []byte{0xf4}                                     //
	iInt3     = []byte{0xcc}                                     //
	iInt80    = []byte{0xcd, 0x80}                               //
	iSysenter = []byte{0x0f, 0x34}                               //
	iLjmp     = []byte{0xff, 0x2f}                               // ljmp *(%rdi)
	iNop      = []byte{0x90}                                     //
	iSpin     = []byte{0xeb, 0xfe}                               // 1: jmp 1b
	iCount    = []byte{0x48, 0xff, 0x07, 0xeb, 0xfb}             // 1: incq (%rdi); jmp 1b
	iReadLoop = []byte{0x48, 0x8b, 0x07, 0xeb, 0xfb}             // 1: mov (%rdi),%rax; jmp 1b
	iInc      = []byte{0x48, 0xff, 0x07}                         // incq (%rdi)
	iCallRax  = []byte{0xff, 0xd0}                               // call *%rax
	iJmpRax   = []byte{0xff, 0xe0}                               // jmp *%rax
	iStoreX0  = []byte{0xf3, 0x0f, 0x7f, 0x07}                   // movdqu %xmm0,(%rdi)
	iLoadY1   = []byte{0xc5, 0xfe, 0x6f, 0x0e}                   // vmovdqu (%rsi),%ymm1
	iStoreY1  = []byte{0xc5, 0xfe, 0x7f, 0x0f}                   // vmovdqu %ymm1,(%rdi)
	iLoadZ17  = []byte{0x62, 0xe1, 0xfe, 0x48, 0x6f, 0x0e}       // vmovdqu64 (%rsi),%zmm17
	iStoreZ17 = []byte{0x62, 0xe1, 0xfe, 0x48, 0x7f, 0x0f}       // vmovdqu64 %zmm17,(%rdi)
	iFldpi    = []byte{0xd9, 0xeb}                               //
	iFsLoad   = []byte{0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0} // mov %fs:0,%rax
	iGsLoad   = []byte{0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0} // mov %gs:0,%rax

	// 1: pause; mov (%rdi),%rax; cmp %rsi,%rax; jne 1b; mov %rdx,(%rdi); syscall
	iWaitStore = []byte{0xf3, 0x90, 0x48, 0x8b, 0x07, 0x48, 0x39, 0xf0, 0x75, 0xf6, 0x48, 0x89, 0x17, 0x0f, 0x05}
)

// jmpBack is a jump to the start of a program of n bytes before it.
func jmpBack(n int) []byte { return []byte{0xeb, byte(-(n + 2))} }

func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
