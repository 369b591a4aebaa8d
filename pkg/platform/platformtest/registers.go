package platformtest

import (
	"math/rand/v2"
	"reflect"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

func testProperties(e *env) {
	if n := e.p.FPStateSize(); n < 576 || n > 1<<16 {
		e.Errorf("FPStateSize %d", n)
	}
	lo, hi := e.p.UserRange()
	if lo%arch.PageSize != 0 || hi%arch.PageSize != 0 || lo > 0x10000 || hi < 0x7f0000000000 || hi > 0x7ffffffff000 {
		e.Errorf("UserRange [%#x, %#x)", lo, hi)
	}
}

func testSyscall(e *env) {
	s, c, r := e.newSpace(cat(iSyscall, iStore, iSyscall)...), e.newContext(), start()
	r.Rax, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = 39, 2, 3, 4, 5, 6
	e.wantSyscall(e.run(c, s, r), r, 39)
	if got, want := r.SyscallArgs(), (arch.SyscallArgs{dataAddr, 2, 3, 4, 5, 6}); got != want {
		e.Errorf("arguments %v, want %v", got, want)
	}
	r.SetReturn(60)
	e.wantSyscall(e.run(c, s, r), r, 60)
	if v := word(s.data).Load(); v != 60 {
		e.Errorf("the program saw the result %d, want 60", v)
	}
	// A restarted call comes again.
	r.RestartSyscall(60)
	e.wantSyscall(e.run(c, s, r), r, 60)
	// Numbers beyond the table, and results that look like the kernel's own restart codes.
	for _, nr := range []uint64{0, 511, 0x40000001, 1 << 40, ^uint64(0), ^uint64(511)} {
		r.Rip, r.Rax = codeAddr, nr
		e.wantSyscall(e.run(c, s, r), r, nr)
		for _, rax := range []int64{-512, -513, -514, -516} {
			r.SetReturn(uint64(rax))
			e.wantSyscall(e.run(c, s, r), r, uint64(rax))
			if v := int64(word(s.data).Load()); v != rax {
				e.Fatalf("the program saw the result %d, want %d", v, rax)
			}
			r.Rip, r.Rax = codeAddr, nr
			e.wantSyscall(e.run(c, s, r), r, nr)
		}
	}
}

// randomRegisters fills the general registers with noise.
func randomRegisters(rng *rand.Rand) *arch.Registers {
	r := start()
	for _, p := range []*uint64{&r.R15, &r.R14, &r.R13, &r.R12, &r.Rbp, &r.Rbx, &r.R11, &r.R10, &r.R9, &r.R8, &r.Rax, &r.Rcx, &r.Rdx, &r.Rsi, &r.Rdi, &r.Rsp} {
		*p = rng.Uint64()
	}
	r.Rsp >>= 17 // not every processor returns to a stack at a non-canonical address
	r.FsBase, r.GsBase = rng.Uint64()>>18, rng.Uint64()>>18
	r.Eflags = 0x202 | rng.Uint64()&0x8d5 // CF PF AF ZF SF OF
	return r
}

// same compares what has to be preserved.
func (e *env) same(got, want arch.Registers) {
	e.Helper()
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		name := g.Type().Field(i).Name
		if name == "OrigRax" || name == "Rax" && want.OrigRax != ^uint64(0) {
			continue
		}
		if gv, wv := g.Field(i).Uint(), w.Field(i).Uint(); gv != wv {
			e.Errorf("%s is %#x, want %#x", name, gv, wv)
		}
	}
}

func testSyscallRegisters(e *env) {
	rng := rand.New(rand.NewPCG(1, 2))
	s, c := e.newSpace(iSyscall...), e.newContext()
	for range 200 {
		r := randomRegisters(rng)
		want := *r
		want.OrigRax, want.Rip, want.Rcx, want.R11 = r.Rax, codeAddr+2, codeAddr+2, r.Eflags
		e.wantSyscall(e.run(c, s, r), r, want.OrigRax)
		e.same(*r, want)
	}
}

// testRegisters checks that rcx and r11 too can be set to anything, as sigreturn(2) does.
func testRegisters(e *env) {
	rng := rand.New(rand.NewPCG(3, 4))
	s, c := e.newSpace(iInt3...), e.newContext()
	for range 200 {
		r := randomRegisters(rng)
		want := *r
		want.OrigRax, want.Rip = ^uint64(0), codeAddr+1
		ev := e.run(c, s, r)
		if ev.Kind != platform.EventFault || ev.Signal != 5 {
			e.Fatalf("int3 gave %+v", ev)
		}
		e.same(*r, want)
	}
}

func testHostileRegisters(e *env) {
	s, c := e.newSpace(iSyscall...), e.newContext()
	for _, change := range []func(r *arch.Registers){
		func(r *arch.Registers) { r.Cs = 0 },
		func(r *arch.Registers) { r.Cs = 0x10 },
		func(r *arch.Registers) { r.Cs = ^uint64(0) },
		func(r *arch.Registers) { r.Ss = 0 },
		func(r *arch.Registers) { r.Ss = 0x18 },
		func(r *arch.Registers) { r.Ss = 0xffff },
		func(r *arch.Registers) { r.Ds, r.Es, r.Fs, r.Gs = 0x18, 0x10, 0x7, 0xfffb },
		func(r *arch.Registers) { r.Ds, r.Es, r.Fs, r.Gs = ^uint64(0), 1<<32, 1<<16, 1<<63 },
		func(r *arch.Registers) { r.FsBase = ^uint64(0) },
		func(r *arch.Registers) { r.GsBase = 0xffff800000000000 },
		func(r *arch.Registers) { r.FsBase, r.GsBase = 1<<63, 0x7fffffffffff },
		func(r *arch.Registers) { r.Eflags = 0 },
		func(r *arch.Registers) { r.Eflags = ^uint64(0) &^ 0x100 },
		func(r *arch.Registers) { r.Eflags = 0x3000 | 1<<17 | 1<<14 },
		func(r *arch.Registers) { r.OrigRax = 1 },
	} {
		r := start()
		r.Rax = 39
		change(r)
		e.wantSyscall(e.run(c, s, r), r, 39)
		if r.Cs != arch.UserCS || r.Ss != arch.UserSS {
			e.Errorf("cs:ss %#x:%#x", r.Cs, r.Ss)
		}
		if r.Eflags&0x3000 != 0 || r.Eflags&(1<<17|1<<19|1<<20) != 0 || r.Eflags&0x202 != 0x202 {
			e.Errorf("eflags %#x", r.Eflags)
		}
	}
}

func testSegmentBases(e *env) {
	s, c, r := e.newSpace(cat(iFsLoad, iStore, iSyscall, iGsLoad, iSyscall)...), e.newContext(), start()
	copy(s.data[0x100:], le64(0xf5f5))
	copy(s.data[0x200:], le64(0x6565))
	r.FsBase, r.GsBase = dataAddr+0x100, dataAddr+0x200
	e.wantSyscall(e.run(c, s, r), r, 0xf5f5)
	e.wantSyscall(e.run(c, s, r), r, 0x6565)
	if r.FsBase != dataAddr+0x100 || r.GsBase != dataAddr+0x200 {
		e.Errorf("bases %#x, %#x", r.FsBase, r.GsBase)
	}
}

// testWriteBases: what an application writes to the segment bases itself is what it has from then on, if the host allows that.
func testWriteBases(e *env) {
	aux, err := unix.Auxv()
	e.must(err)
	allowed := false
	for _, v := range aux {
		allowed = allowed || v[0] == 26 && v[1]&2 != 0 // AT_HWCAP2, HWCAP2_FSGSBASE
	}
	if !allowed {
		e.Skip("the host does not let applications write the segment bases")
	}
	// wrfsbase %rbx; wrgsbase %r12; syscall; rdfsbase %rbx; rdgsbase %r12; syscall; jmp to the start
	code := []byte{0xf3, 0x48, 0x0f, 0xae, 0xd3, 0xf3, 0x49, 0x0f, 0xae, 0xdc, 0x0f, 0x05,
		0xf3, 0x48, 0x0f, 0xae, 0xc3, 0xf3, 0x49, 0x0f, 0xae, 0xcc, 0x0f, 0x05, 0xeb, 0xe6}
	a, b, c, r := e.newSpace(code...), e.newSpace(code...), e.newContext(), start()
	other, ro := e.newContext(), start()
	for i := range uint64(100) {
		fs, gs := dataAddr+i*64, dataAddr+i*128
		if i%10 == 9 {
			gs = 0
		}
		for _, s := range []*space{a, b}[:1+i%2] {
			r.Rip, r.Rbx, r.R12 = codeAddr, fs, gs
			e.run(c, s, r)
			if r.FsBase != fs || r.GsBase != gs {
				e.Fatalf("round %d: bases %#x, %#x, want %#x, %#x", i, r.FsBase, r.GsBase, fs, gs)
			}
		}
		ro.Rip = codeAddr
		e.run(other, b, ro)
		r.Rbx, r.R12 = 0, 0
		// The gs base of an application that does not use it need not be 0 in the processor.
		if e.run(c, b, r); r.FsBase != fs || r.GsBase != gs || r.Rbx != fs || gs != 0 && r.R12 != gs {
			e.Fatalf("round %d: bases %#x, %#x, read %#x, %#x, want %#x, %#x", i, r.FsBase, r.GsBase, r.Rbx, r.R12, fs, gs)
		}
		r.FsBase, r.GsBase, r.Rip = fs+8, gs+8, codeAddr+12
		if e.run(c, a, r); r.Rbx != fs+8 || r.R12 != gs+8 {
			e.Fatalf("round %d: read %#x, %#x, want %#x, %#x", i, r.Rbx, r.R12, fs+8, gs+8)
		}
	}
}

// testMigrate moves a context between address spaces, as execve(2) does, with its registers.
func testMigrate(e *env) {
	a, b, c, r := e.newSpace(cat(iSyscall, jmpBack(2))...), e.newSpace(cat(iSyscall, jmpBack(2))...), e.newContext(), start()
	fp := make([]byte, e.p.FPStateSize())
	e.must(c.ReadFP(fp))
	copy(fp[160:], "migrating xmm0..")
	e.must(c.WriteFP(fp))
	r.Rbx = 0x1234
	for i := range uint64(50) {
		for _, s := range []*space{a, b, a} {
			r.Rax = i
			e.wantSyscall(e.run(c, s, r), r, i)
			if r.Rbx != 0x1234 {
				e.Fatalf("rbx %#x", r.Rbx)
			}
			e.must(c.ReadFP(fp))
			if string(fp[160:176]) != "migrating xmm0.." {
				e.Fatalf("xmm0 %q", fp[160:176])
			}
		}
	}
}
