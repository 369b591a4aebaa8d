package platformtest

import (
	"bytes"
	"debug/elf"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
)

// testVDSO calls the host's clock_gettime in an address space.
func testVDSO(e *env) {
	base, size, ehdr := e.p.VDSO()
	if ehdr == 0 {
		e.Skip("no vdso")
	}
	if size == 0 || base%4096 != 0 || size%4096 != 0 || ehdr < base || ehdr >= base+size {
		e.Fatalf("base %#x, size %#x, ehdr %#x", base, size, ehdr)
	}
	// The image is that of this process, where its symbols can be read.
	var mine uintptr
	aux, err := unix.Auxv()
	e.must(err)
	for _, kv := range aux {
		if kv[0] == 33 {
			mine = kv[1]
		}
	}
	image := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&mine))), base+size-ehdr)
	f, err := elf.NewFile(bytes.NewReader(image))
	e.must(err)
	syms, err := f.DynamicSymbols()
	e.must(err)
	var sym uint64
	for _, s := range syms {
		if s.Name == "__vdso_clock_gettime" {
			sym = s.Value
		}
	}
	if sym == 0 {
		e.Fatal("no clock_gettime")
	}
	s, c := e.newSpace(cat(iCallRax, iSyscall)...), e.newContext()
	for range 3 {
		r := start()
		r.Rax, r.Rdi, r.Rsi = ehdr+sym, unix.CLOCK_MONOTONIC, dataAddr
		ev := e.run(c, s, r)
		if ev.Kind == platform.EventSyscall && r.OrigRax == unix.SYS_CLOCK_GETTIME {
			e.Skip("the host's clock source needs system calls")
		}
		e.wantSyscall(ev, r, 0)
		var ts unix.Timespec
		e.must(unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts))
		got := time.Duration(word(s.data).Load())*time.Second + time.Duration(word(s.data[8:]).Load())
		if d := time.Duration(ts.Nano()) - got; d < 0 || d > time.Minute {
			e.Errorf("clock is off by %v", d)
		}
	}
}
