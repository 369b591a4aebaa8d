package systrap

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// xstate describes the extended state as the kernel puts it into signal frames: the standard format of XSAVE.
type xstate struct {
	size      int
	features  uint64
	mxcsrMask uint32
}

// Layout of the legacy region and the XSAVE header.
const (
	fpMXCSR     = 24
	fpMXCSRMask = 28
	fpSoftware  = 464 // struct _fpx_sw_bytes
	fpHeader    = 512
	fpHeaderEnd = 576

	magic1 = 0x46505853
	magic2 = 0x46505845

	featureAMX = 3 << 17 // not in frames unless the process asks for it

	defaultMXCSRMask = 0xffff
	initMXCSR        = 0x1f80
	initFCW          = 0x37f
)

// hasFSGSBASE tells whether the host lets applications write the segment bases (the kernel's fsgs documentation).
func hasFSGSBASE() bool {
	const atHWCAP2, hwcap2FSGSBASE = 26, 2
	aux, err := unix.Auxv()
	if err != nil {
		return false
	}
	for _, v := range aux {
		if v[0] == atHWCAP2 {
			return v[1]&hwcap2FSGSBASE != 0
		}
	}
	return false
}

func findXstate() (x xstate, err error) {
	_, _, c, _ := cpuid(1, 0)
	if c&(1<<27) == 0 {
		return x, errors.New("systrap: the processor or the host has no XSAVE")
	}
	lo, hi := xgetbv()
	x.features = (uint64(hi)<<32 | uint64(lo)) &^ featureAMX
	x.size = fpHeaderEnd
	for i := uint32(2); i < 63; i++ {
		if x.features&(1<<i) != 0 {
			size, off, _, _ := cpuid(0xd, i)
			x.size = max(x.size, int(off+size))
		}
	}
	x.mxcsrMask = defaultMXCSRMask
	if x.size+4 > slotFPSize {
		return x, errors.New("systrap: extended state too large")
	}
	return x, nil
}

// init writes the processor's initial state, with the legacy parts marked as present, so that whoever changes them
// need not mark them.
func (x *xstate) init(buf []byte) {
	clear(buf)
	binary.LittleEndian.PutUint16(buf, initFCW)
	binary.LittleEndian.PutUint32(buf[fpMXCSR:], initMXCSR)
	binary.LittleEndian.PutUint32(buf[fpMXCSRMask:], x.mxcsrMask)
	binary.LittleEndian.PutUint64(buf[fpHeader:], 3)
}

// check refuses what XRSTOR would fault on.
func (x *xstate) check(buf []byte) error {
	if binary.LittleEndian.Uint64(buf[fpHeader:])&^x.features != 0 {
		return unix.EINVAL
	}
	for _, b := range buf[fpHeader+8 : fpHeaderEnd] {
		if b != 0 {
			return unix.EINVAL
		}
	}
	if binary.LittleEndian.Uint32(buf[fpMXCSR:])&^x.mxcsrMask != 0 {
		return unix.EINVAL
	}
	return nil
}

// read copies a frame's state, which is hostile, without the kernel's own words.
func (x *xstate) read(buf, fp []byte) {
	copy(buf, fp)
	clear(buf[fpSoftware:fpHeader])
	h := binary.LittleEndian.Uint64(buf[fpHeader:]) & x.features
	binary.LittleEndian.PutUint64(buf[fpHeader:], h)
	clear(buf[fpHeader+8 : fpHeaderEnd])
	m := binary.LittleEndian.Uint32(buf[fpMXCSR:]) & x.mxcsrMask
	binary.LittleEndian.PutUint32(buf[fpMXCSR:], m)
}

// write replaces a frame's state but for the kernel's own words.
func (x *xstate) write(fp, buf []byte) {
	copy(fp[:fpSoftware], buf)
	copy(fp[fpHeader:], buf[fpHeader:])
}

// frame writes a state as the kernel wants to find it in a frame; fp has 4 more bytes than buf.
func (x *xstate) frame(fp, buf []byte) {
	copy(fp, buf)
	sw := fp[fpSoftware:fpHeader]
	clear(sw)
	binary.LittleEndian.PutUint32(sw, magic1)
	binary.LittleEndian.PutUint32(sw[4:], uint32(x.size+4))
	binary.LittleEndian.PutUint64(sw[8:], x.features)
	binary.LittleEndian.PutUint32(sw[16:], uint32(x.size))
	binary.LittleEndian.PutUint32(fp[x.size:], magic2)
}
