package platformtest

import (
	"testing"

	"husk/pkg/platform"
)

// Config adapts the suite to a platform.
type Config struct {
	// New makes a platform. It is called once: platforms may install seccomp filters, which tests must do sparingly.
	New func() (platform.Platform, error)
	// Stub gives the process ID behind an address space, for the tests that kill it; nil where there is none.
	Stub func(platform.AddressSpace) int
	// Contexts is how many contexts run at once in the crowd test; 0 means 200; 40 at most with -short.
	Contexts int
}

// Run runs the suite.
func Run(t *testing.T, cfg Config) {
	p, err := cfg.New()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	for _, tc := range []struct {
		name string
		f    func(*env)
	}{
		{"Properties", testProperties},
		{"Syscall", testSyscall},
		{"SyscallRegisters", testSyscallRegisters},
		{"Registers", testRegisters},
		{"HostileRegisters", testHostileRegisters},
		{"SegmentBases", testSegmentBases},
		{"WriteBases", testWriteBases},
		{"FPInitial", testFPInitial},
		{"FPVectors", testFPVectors},
		{"FPWrite", testFPWrite},
		{"FPHostile", testFPHostile},
		{"FPManyContexts", testFPManyContexts},
		{"Faults", testFaults},
		{"SingleStep", testSingleStep},
		{"NonCanonicalRip", testNonCanonicalRip},
		{"OtherCallGates", testOtherCallGates},
		{"Vsyscall", testVsyscall},
		{"MapBatch", testMapBatch},
		{"MapErrors", testMapErrors},
		{"UnmapWhileRunning", testUnmapWhileRunning},
		{"ProtectWhileRunning", testProtectWhileRunning},
		{"MapFromOtherGoroutines", testMapFromOtherGoroutines},
		{"Parallel", testParallel},
		{"Migrate", testMigrate},
		{"InterruptSpinning", testInterruptSpinning},
		{"InterruptBefore", testInterruptBefore},
		{"InterruptStorm", testInterruptStorm},
		{"InterruptSyscalls", testInterruptSyscalls},
		{"ManySpaces", testManySpaces},
		{"SpacesInTurn", testSpacesInTurn},
		{"ReleaseWhileRunning", testReleaseWhileRunning},
		{"SwitchAfterRelease", testSwitchAfterRelease},
		{"VDSO", testVDSO},
		{"Fork", testFork},
		{"ForkChanges", testForkChanges},
		{"Crowd", func(e *env) { testCrowd(e, cfg.Contexts) }},
		{"Killed", func(e *env) { testKilled(e, cfg.Stub) }},
		{"KilledAnytime", func(e *env) { testKilledAnytime(e, cfg.Stub) }},
		{"KilledRunning", func(e *env) { testKilledRunning(e, cfg.Stub) }},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.f(newEnv(t, p)) })
	}
}

// Benchmark measures what matters most of a platform.
func Benchmark(b *testing.B, p platform.Platform) {
	b.Run("Getpid", func(b *testing.B) {
		e := newEnv(b, p)
		s, c, r := e.newSpace(cat(iSyscall, jmpBack(2))...), e.newContext(), start()
		b.ReportAllocs()
		for b.Loop() {
			e.run(c, s, r)
			r.Rax = 1
		}
	})
	b.Run("MapUnmap64K", func(b *testing.B) {
		e := newEnv(b, p)
		s, c, r := e.newSpace(cat(iSyscall, jmpBack(2))...), e.newContext(), start()
		off := e.alloc(16)
		ops := []platform.MapOp{
			{Op: platform.OpMap, Perms: platform.ReadWrite, FD: e.fd, Addr: noAddr, Length: 65536, Offset: off},
		}
		unops := []platform.MapOp{{Op: platform.OpUnmap, Addr: noAddr, Length: 65536}}
		e.run(c, s, r)
		b.ReportAllocs()
		for b.Loop() {
			e.must(s.Apply(ops))
			e.must(s.Apply(unops))
		}
	})
	b.Run("MapBatch32x64K", func(b *testing.B) {
		e := newEnv(b, p)
		s, c, r := e.newSpace(cat(iSyscall, jmpBack(2))...), e.newContext(), start()
		off := e.alloc(16)
		var ops []platform.MapOp
		for range 16 {
			ops = append(ops, platform.MapOp{Op: platform.OpMap, Perms: platform.ReadWrite, FD: e.fd, Addr: noAddr, Length: 65536, Offset: off},
				platform.MapOp{Op: platform.OpUnmap, Addr: noAddr, Length: 65536})
		}
		e.run(c, s, r)
		for b.Loop() {
			e.must(s.Apply(ops))
		}
	})
	b.Run("AddressSpace", func(b *testing.B) {
		for b.Loop() {
			as, err := p.NewAddressSpace()
			if err != nil {
				b.Fatal(err)
			}
			as.Release()
		}
	})
	b.Run("AddressSpaceFirstSyscall", func(b *testing.B) {
		e := newEnv(b, p)
		off := e.alloc(1)
		copy(e.mem[off:], iSyscall)
		for b.Loop() {
			as, err := p.NewAddressSpace()
			e.must(err)
			e.must(as.Apply([]platform.MapOp{{Op: platform.OpMap, Perms: platform.Read | platform.Exec, FD: e.fd, Addr: codeAddr, Length: 4096, Offset: off}}))
			c := p.NewContext()
			e.run(c, as, start())
			c.Release()
			as.Release()
		}
	})
	b.Run("Fault", func(b *testing.B) {
		e := newEnv(b, p)
		s, c, r := e.newSpace(iLoad...), e.newContext(), start()
		r.Rdi = noAddr
		for b.Loop() {
			if ev := e.run(c, s, r); ev.Kind != platform.EventFault {
				b.Fatal(ev)
			}
		}
	})
}
