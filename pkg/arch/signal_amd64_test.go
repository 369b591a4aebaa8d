package arch

import (
	"testing"
	"unsafe"
)

func TestFrameLayout(t *testing.T) {
	var f SignalFrame
	if n := unsafe.Sizeof(f); n != SignalFrameSize {
		t.Errorf("frame has %d bytes, want %d", n, SignalFrameSize)
	}
	if o := unsafe.Offsetof(f.UC); o != ucontextOffset {
		t.Errorf("ucontext at %d", o)
	}
	if o := unsafe.Offsetof(f.Info); o != siginfoOffset {
		t.Errorf("siginfo at %d", o)
	}
	if o := unsafe.Offsetof(f.UC.MContext.Fpstate); o != 184 {
		t.Errorf("fpstate at %d", o)
	}
}

func TestPlaceFrame(t *testing.T) {
	for sp := uint64(0x7ffff0000000); sp < 0x7ffff0000000+128; sp += 8 {
		at := PlaceFrame(sp, false, 832)
		if (at.Frame+8)%16 != 0 || at.FP%64 != 0 {
			t.Fatalf("misaligned %+v", at)
		}
		if at.FP+832+4 > sp-128 || at.Frame+SignalFrameSize > at.FP {
			t.Fatalf("overlap %+v for sp %#x", at, sp)
		}
	}
}

func TestSealAndCheck(t *testing.T) {
	const size = 832
	buf := make([]byte, FrameFPSize(size))
	InitFP(buf[:size])
	SealFP(buf, size, 7)
	if !CheckFP(buf, size) {
		t.Fatal("sealed state does not check")
	}
	buf[size] ^= 1
	buf[600] = 1
	if CheckFP(buf, size) || buf[600] != 0 || buf[512] != 3 {
		t.Fatal("state without the second magic number passes")
	}
	if XCR0()&3 != 3 {
		t.Fatalf("XCR0 is %#x", XCR0())
	}
}
