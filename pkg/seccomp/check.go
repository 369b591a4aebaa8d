package seccomp

import "golang.org/x/sys/unix"

// Check reports whether Linux accepts prog as a seccomp filter: the classic BPF rules (bounded
// forward jumps, a return at the end, no scratch word read before it is written on every path, no
// constant division by zero or oversized shift) and the seccomp subset (word loads from aligned
// offsets of Data; no packet access). The error is EINVAL, as from seccomp(2).
func Check(prog []Insn) error {
	if len(prog) == 0 || len(prog) > unix.BPF_MAXINSNS {
		return unix.EINVAL
	}
	for pc := range prog {
		if !validInsn(&prog[pc], uint32(len(prog)-pc-1)) {
			return unix.EINVAL
		}
	}
	switch prog[len(prog)-1].Code {
	case retK, retA:
		return checkScratch(prog)
	}
	return unix.EINVAL
}

// validInsn checks one instruction; rest counts those after it.
func validInsn(in *Insn, rest uint32) bool {
	switch in.Code {
	case ldAbs:
		return in.K < dataSize && in.K%4 == 0
	case ldMem, ldxMem, st, stx:
		return in.K < unix.BPF_MEMWORDS
	case ldLen, ldxLen, ldImm, ldxImm, tax, txa, retK, retA,
		aluAdd, aluSub, aluMul, aluOr, aluAnd, aluXor, aluNeg,
		aluAdd | srcX, aluSub | srcX, aluMul | srcX, aluOr | srcX, aluAnd | srcX, aluXor | srcX,
		aluDiv | srcX, aluLsh | srcX, aluRsh | srcX:
		return true
	case aluDiv:
		return in.K != 0
	case aluLsh, aluRsh:
		return in.K < 32
	case ja:
		return in.K < rest
	case jeq, jgt, jge, jset, jeq | srcX, jgt | srcX, jge | srcX, jset | srcX:
		return uint32(in.Jt) < rest && uint32(in.Jf) < rest
	}
	return false
}

// checkScratch holds that no scratch word is read where some path has not written it. Jumps only go
// forward, so one pass sees every predecessor of an instruction before the instruction itself.
func checkScratch(prog []Insn) error {
	valid := make([]uint16, len(prog)) // by instruction: words written on every path to it
	for i := range valid {
		valid[i] = 0xffff
	}
	cur := uint16(0)
	for pc := range prog {
		cur &= valid[pc]
		in := &prog[pc]
		switch in.Code & 7 {
		case unix.BPF_ST, unix.BPF_STX:
			cur |= 1 << in.K
		case unix.BPF_JMP:
			if in.Code == ja {
				valid[pc+1+int(in.K)] &= cur
			} else {
				valid[pc+1+int(in.Jt)] &= cur
				valid[pc+1+int(in.Jf)] &= cur
			}
			cur = 0xffff // nothing falls through a jump
		case unix.BPF_LD, unix.BPF_LDX:
			if in.Code&0xe0 == unix.BPF_MEM && cur&(1<<in.K) == 0 {
				return unix.EINVAL
			}
		}
	}
	return nil
}
