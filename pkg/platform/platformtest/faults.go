package platformtest

import (
	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

const siKernel = 0x80

func testFaults(e *env) {
	s, c := e.newSpace(), e.newContext()
	// A page that is readable only, and one behind the end of its file.
	short, err := unix.MemfdCreate("short", unix.MFD_CLOEXEC)
	e.must(err)
	defer unix.Close(short)
	e.must(s.Apply([]platform.MapOp{
		{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: 0x40000000, Length: arch.PageSize, Offset: e.alloc(1)},
		{Op: platform.OpMap, Perms: platform.ReadWrite, FD: short, Addr: 0x50000000, Length: arch.PageSize},
	}))
	for _, tc := range []struct {
		name           string
		code           []byte
		rdi, rax       uint64
		signal, sicode int32
		addr           uint64
		rip            uint64 // relative to codeAddr
		access         platform.Perms
	}{
		{"read unmapped", iLoad, noAddr, 0, 11, 1, noAddr, 0, platform.Read},
		{"read unmapped, odd", iLoad, noAddr + 0x123, 0, 11, 1, noAddr + 0x123, 0, platform.Read},
		{"write unmapped", iStore, noAddr, 0, 11, 1, noAddr, 0, platform.Write},
		{"write read-only", iStore, 0x40000000, 0, 11, 2, 0x40000000, 0, platform.Write},
		{"read null", iLoad, 0, 0, 11, 1, 0, 0, platform.Read},
		{"behind the end of file", iLoad, 0x50000000, 0, 7, 2, 0x50000000, 0, platform.Read},
		{"exec data", iJmpRax, 0, dataAddr, 11, 2, dataAddr, dataAddr - codeAddr, platform.Exec},
		{"exec unmapped", iJmpRax, 0, noAddr, 11, 1, noAddr, noAddr - codeAddr, platform.Exec},
		{"kernel address", iLoad, 0xffff888000000000, 0, 11, 1, 0xffff888000000000, 0, platform.Read},
		{"non-canonical", iLoad, 0x8000000000000000, 0, 11, siKernel, 0, 0, 0},
		{"divide", iDiv, 0, 1, 8, 1, codeAddr, 0, 0},
		{"ud2", iUd2, 0, 0, 4, 2, codeAddr, 0, 0},
		{"hlt", iHlt, 0, 0, 11, siKernel, 0, 0, 0},
		{"int3", iInt3, 0, 0, 5, siKernel, 0, 1, 0},
		{"int 0x80", iInt80, 0, 39, 11, siKernel, 0, 0, 0},
	} {
		copy(s.code, cat(tc.code, iSyscall))
		r := start()
		r.Rdi, r.Rax = tc.rdi, tc.rax
		ev := e.run(c, s, r)
		if ev.Kind != platform.EventFault || ev.Signal != tc.signal || ev.Code != tc.sicode || ev.Addr != tc.addr {
			e.Errorf("%s: got %+v, want signal %d, code %d, address %#x", tc.name, ev, tc.signal, tc.sicode, tc.addr)
		}
		if r.Rip != codeAddr+tc.rip {
			e.Errorf("%s: rip %#x, want %#x", tc.name, r.Rip, codeAddr+tc.rip)
		}
		if r.Rax != tc.rax || r.Rdi != tc.rdi {
			e.Errorf("%s: rax %#x, rdi %#x", tc.name, r.Rax, r.Rdi)
		}
		if ev.Access != tc.access && ev.Access != platform.None {
			e.Errorf("%s: access %d, want %d or none", tc.name, ev.Access, tc.access)
		}
	}
	// After a fault the instruction can be tried again.
	copy(s.code, cat(iLoad, iSyscall))
	r := start()
	r.Rdi = 0x60000000
	if ev := e.run(c, s, r); ev.Kind != platform.EventFault {
		e.Fatalf("got %+v", ev)
	}
	off := e.alloc(1)
	copy(e.mem[off:], le64(77))
	e.must(s.Apply([]platform.MapOp{{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: 0x60000000, Length: arch.PageSize, Offset: off}}))
	e.wantSyscall(e.run(c, s, r), r, 77)
}

func testSingleStep(e *env) {
	s, c, r := e.newSpace(cat(iNop, iNop, iNop, iSyscall, iNop)...), e.newContext(), start()
	r.Eflags |= 0x100
	for i := range uint64(3) {
		ev := e.run(c, s, r)
		if ev.Kind != platform.EventFault || ev.Signal != 5 || ev.Code != 2 || r.Rip != codeAddr+i+1 {
			e.Fatalf("step %d: %+v, rip %#x", i, ev, r.Rip)
		}
		if r.Eflags&0x100 == 0 {
			e.Fatalf("step %d: eflags %#x lost TF", i, r.Eflags)
		}
	}
	r.Rax = 39
	e.wantSyscall(e.run(c, s, r), r, 39)
	r.Eflags &^= 0x100
	r.Rip = codeAddr + 3
	r.Rax = 40
	e.wantSyscall(e.run(c, s, r), r, 40)
}

func testNonCanonicalRip(e *env) {
	s, c := e.newSpace(cat(iSyscall)...), e.newContext()
	for _, rip := range []uint64{1 << 63, 0x800000000000, 0xffff800000000000, ^uint64(0), 0x7ffffffff000} {
		r := start()
		r.Rip, r.Rcx = rip, rip
		if ev := e.run(c, s, r); ev.Kind != platform.EventFault || ev.Signal != 11 {
			e.Errorf("rip %#x: %+v", rip, ev)
		}
		r = start()
		r.Rax = 39
		e.wantSyscall(e.run(c, s, r), r, 39)
	}
}

// testOtherCallGates tries the ways into the kernel that 64-bit programs do not have. None may give
// a system call of the host; all end in a fault.
func testOtherCallGates(e *env) {
	s, c := e.newSpace(cat(iInt80, iSyscall)...), e.newContext()
	r := start()
	r.Rax, r.Rcx, r.R11 = 20, codeAddr+2, 0x999 // looks almost like a syscall instruction
	if ev := e.run(c, s, r); ev.Kind != platform.EventFault || ev.Signal != 11 {
		e.Errorf("int 0x80: %+v, orig_rax %d", ev, r.OrigRax)
	}
	copy(s.code, cat(iSysenter, iSyscall))
	r = start()
	r.Rax, r.Rbp = 20, dataAddr
	if ev := e.run(c, s, r); ev.Kind != platform.EventFault || ev.Signal != 11 && ev.Signal != 4 {
		e.Errorf("sysenter: %+v, orig_rax %d", ev, r.OrigRax)
	}
	// Far jump into the compatibility segment, and int 0x80 there.
	copy(s.code, iLjmp)
	copy(s.code[16:], cat(iInt80, iSyscall))
	copy(s.data, []byte{0x10, 0, 0, 0x10, 0x23, 0})
	r = start()
	r.Rax = 20
	if ev := e.run(c, s, r); ev.Kind != platform.EventFault {
		e.Errorf("compatibility int 0x80: %+v, orig_rax %d", ev, r.OrigRax)
	}
	copy(s.code[16:], iSyscall)
	r = start()
	r.Rax = 20
	if ev := e.run(c, s, r); ev.Kind != platform.EventFault {
		e.Errorf("compatibility syscall: %+v, orig_rax %d", ev, r.OrigRax)
	}
	// The context is in order afterwards.
	copy(s.code, iSyscall)
	r = start()
	r.Rax = 39
	e.wantSyscall(e.run(c, s, r), r, 39)
}

// testVsyscall: the legacy page is emulated by the sentry, so a call there is a fault, with the
// return address still on the stack.
func testVsyscall(e *env) {
	s, c := e.newSpace(cat(iCallRax, iSyscall)...), e.newContext()
	for _, addr := range []uint64{0xffffffffff600000, 0xffffffffff600400, 0xffffffffff600800} {
		r := start()
		r.Rax, r.Rdi, r.Rsi = addr, dataAddr+64, 0
		ev := e.run(c, s, r)
		if ev.Kind != platform.EventFault || ev.Signal != 11 || ev.Addr != addr || r.Rip != addr || r.Rsp != dataAddr+arch.PageSize-8 {
			e.Errorf("%+v, rip %#x, rsp %#x", ev, r.Rip, r.Rsp)
		}
		if ret := word(s.data[arch.PageSize-8:]).Load(); ret != codeAddr+2 {
			e.Errorf("return address %#x", ret)
		}
	}
	if word(s.data[64:]).Load() != 0 {
		e.Error("the host served the call")
	}
}
