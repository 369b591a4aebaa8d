package platformtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"

	"husk/pkg/platform"
)

// Offsets in the standard XSAVE area that the SDM fixes.
const (
	offMXCSR   = 24
	offXMM     = 160
	offXHeader = 512
)

// xstateOffset asks the program's processor where a component of the XSAVE area is.
func (e *env) xstateOffset(component uint64) int {
	e.Helper()
	s, c, r := e.newSpace(0x0f, 0xa2, 0x0f, 0x05), e.newContext(), start() // cpuid; syscall
	r.Rax, r.Rcx = 0xd, component
	e.run(c, s, r)
	return int(uint32(r.Rbx))
}

func testFPInitial(e *env) {
	s, c, r := e.newSpace(cat(iStoreX0, iSyscall)...), e.newContext(), start()
	fp := make([]byte, e.p.FPStateSize())
	e.must(c.ReadFP(fp))
	check := func() {
		e.Helper()
		if fcw, mxcsr := binary.LittleEndian.Uint16(fp), binary.LittleEndian.Uint32(fp[offMXCSR:]); fcw != 0x37f || mxcsr != 0x1f80 {
			e.Errorf("FCW %#x, MXCSR %#x", fcw, mxcsr)
		}
		if !bytes.Equal(fp[offXMM:offXMM+256], make([]byte, 256)) {
			e.Error("xmm registers are not zero")
		}
	}
	check()
	copy(s.data, "xxxxxxxxxxxxxxxx")
	e.run(c, s, r)
	if !bytes.Equal(s.data[:16], make([]byte, 16)) {
		e.Errorf("xmm0 of a new context is %q", s.data[:16])
	}
	e.must(c.ReadFP(fp))
	check()
	if err := c.ReadFP(fp[:100]); err != unix.EINVAL {
		e.Errorf("ReadFP of a short buffer: %v", err)
	}
	if err := c.WriteFP(fp[:100]); err != unix.EINVAL {
		e.Errorf("WriteFP of a short buffer: %v", err)
	}
}

// vectors are the register classes that the processor has.
func (e *env) vectors() (load, store []byte, check func(fp, pattern []byte) error, width int) {
	switch {
	case cpu.X86.HasAVX512F:
		off := e.xstateOffset(7) + 64 // Hi16_ZMM: zmm16 first
		return iLoadZ17, iStoreZ17, func(fp, p []byte) error {
			if got := fp[off : off+64]; !bytes.Equal(got, p) {
				return fmt.Errorf("zmm17 is %q", got)
			}
			return nil
		}, 64
	case cpu.X86.HasAVX:
		off := e.xstateOffset(2) + 16
		return iLoadY1, iStoreY1, func(fp, p []byte) error {
			if got := cat(fp[offXMM+16:offXMM+32], fp[off:off+16]); !bytes.Equal(got, p) {
				return fmt.Errorf("ymm1 is %q", got)
			}
			return nil
		}, 32
	}
	e.Skip("no AVX")
	return
}

func testFPVectors(e *env) {
	load, store, check, width := e.vectors()
	s, c, r := e.newSpace(cat(load, iSyscall, store, iSyscall)...), e.newContext(), start()
	fp := make([]byte, e.p.FPStateSize())
	pattern := bytes.Repeat([]byte("husk"), width/4)
	copy(s.data[512:], pattern)
	r.Rsi = dataAddr + 512
	e.run(c, s, r)
	e.must(c.ReadFP(fp))
	if err := check(fp, pattern); err != nil {
		e.Error(err)
	}
	// Whole area there and back, with another context in between on the same address space.
	s2 := &space{AddressSpace: s.AddressSpace}
	other, ro := e.newContext(), start()
	copy(s.data[1024:], bytes.Repeat([]byte("evil"), width/4))
	ro.Rsi = dataAddr + 1024
	e.run(other, s2, ro)
	e.must(c.WriteFP(fp))
	e.run(c, s, r)
	if !bytes.Equal(s.data[:width], pattern) {
		e.Errorf("the program stored %q", s.data[:width])
	}
}

func testFPWrite(e *env) {
	s, c, r := e.newSpace(cat(iStoreX0, iSyscall, iFldpi, iSyscall, jmpBack(8))...), e.newContext(), start()
	fp := make([]byte, e.p.FPStateSize())
	e.must(c.ReadFP(fp))
	copy(fp[offXMM:], "sixteen bytes...")
	binary.LittleEndian.PutUint64(fp[offXHeader:], binary.LittleEndian.Uint64(fp[offXHeader:])|3)
	e.must(c.WriteFP(fp))
	e.run(c, s, r)
	if string(s.data[:16]) != "sixteen bytes..." {
		e.Errorf("xmm0 is %q", s.data[:16])
	}
	e.run(c, s, r)
	e.must(c.ReadFP(fp))
	if pi := fp[32:42]; !bytes.Equal(pi, []byte{0x35, 0xc2, 0x68, 0x21, 0xa2, 0xda, 0x0f, 0xc9, 0x00, 0x40}) {
		e.Errorf("st0 is % x", pi)
	}
}

func testFPHostile(e *env) {
	s, c, r := e.newSpace(cat(iSyscall, jmpBack(2))...), e.newContext(), start()
	fp := make([]byte, e.p.FPStateSize())
	e.must(c.ReadFP(fp))
	for name, change := range map[string]func(b []byte){
		"compacted":      func(b []byte) { b[offXHeader+15] = 0x80 },
		"reserved":       func(b []byte) { b[offXHeader+20] = 1 },
		"reserved end":   func(b []byte) { b[offXHeader+63] = 1 },
		"unknown":        func(b []byte) { b[offXHeader+7] = 0x40 },
		"supervisor":     func(b []byte) { b[offXHeader+1] |= 1 },
		"reserved MXCSR": func(b []byte) { b[offMXCSR+3] = 1 },
	} {
		b := bytes.Clone(fp)
		change(b)
		if err := c.WriteFP(b); err != unix.EINVAL {
			e.Errorf("%s: WriteFP: %v, want EINVAL", name, err)
		}
		e.run(c, s, r)
	}
	// Whatever else is in it, it is accepted or refused, and the context lives on.
	for i := range fp {
		b := bytes.Clone(fp)
		b[i] ^= 0xff
		if err := c.WriteFP(b); err == nil {
			e.run(c, s, r)
		}
	}
}

// testFPManyContexts runs contexts from many goroutines, each with its own registers.
func testFPManyContexts(e *env) {
	load, store, _, width := e.vectors()
	const n, rounds = 16, 100
	code := cat(load, iSyscall, store, iSyscall)
	s := e.newSpace(cat(code, jmpBack(len(code)-len(load)-2))...) // the loop only stores
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		c, r := e.newContext(), start()
		go func() {
			defer wg.Done()
			mine := s.data[128*i:]
			pattern := bytes.Repeat([]byte{byte('a' + i)}, width)
			copy(mine[64:], pattern)
			r.Rdi, r.Rsi, r.Rbx = dataAddr+128*uint64(i), dataAddr+128*uint64(i)+64, uint64(i)
			for round := range rounds {
				if ev, err := c.Switch(s.AddressSpace, r); err != nil || ev.Kind != platform.EventSyscall {
					e.Errorf("Switch: %+v %v", ev, err)
					return
				}
				if round > 0 && (!bytes.Equal(mine[:width], pattern) || r.Rbx != uint64(i)) {
					e.Errorf("context %d stored %q in round %d", i, mine[:width], round)
					return
				}
				clear(mine[:width])
			}
		}()
	}
	wg.Wait()
}
