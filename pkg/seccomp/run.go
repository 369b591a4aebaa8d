package seccomp

import "golang.org/x/sys/unix"

// Run executes prog, which Check must have accepted, and returns its action. It allocates nothing
// and ends after at most len(prog) steps, as jumps only go forward.
func Run(prog []Insn, d *Data) Action {
	var a, x uint32
	var mem [unix.BPF_MEMWORDS]uint32
	for pc := 0; pc < len(prog); pc++ {
		in := &prog[pc]
		switch in.Code {
		case ldAbs:
			a = d.word(in.K)
		case ldLen:
			a = dataSize
		case ldxLen:
			x = dataSize
		case ldImm:
			a = in.K
		case ldxImm:
			x = in.K
		case ldMem:
			a = mem[in.K]
		case ldxMem:
			x = mem[in.K]
		case st:
			mem[in.K] = a
		case stx:
			mem[in.K] = x
		case tax:
			x = a
		case txa:
			a = x
		case retK:
			return Action(in.K)
		case retA:
			return Action(a)
		case ja:
			pc += int(in.K)
		default:
			operand := in.K
			if in.Code&srcX != 0 {
				operand = x
			}
			if in.Code&7 == unix.BPF_JMP {
				if holds(in.Code&0xf0, a, operand) {
					pc += int(in.Jt)
				} else {
					pc += int(in.Jf)
				}
				continue
			}
			if in.Code&0xf0 == unix.BPF_DIV && operand == 0 {
				return KillThread // a division by zero ends a classic program with 0
			}
			a = compute(in.Code&0xf0, a, operand)
		}
	}
	return KillThread
}

func holds(op uint16, a, k uint32) bool {
	switch op {
	case unix.BPF_JEQ:
		return a == k
	case unix.BPF_JGT:
		return a > k
	case unix.BPF_JGE:
		return a >= k
	}
	return a&k != 0 // BPF_JSET
}

func compute(op uint16, a, k uint32) uint32 {
	switch op {
	case unix.BPF_ADD:
		return a + k
	case unix.BPF_SUB:
		return a - k
	case unix.BPF_MUL:
		return a * k
	case unix.BPF_DIV:
		return a / k
	case unix.BPF_OR:
		return a | k
	case unix.BPF_AND:
		return a & k
	case unix.BPF_XOR:
		return a ^ k
	case unix.BPF_LSH:
		return a << (k & 31) // the kernel's 32-bit shifts use the low five bits of X
	case unix.BPF_RSH:
		return a >> (k & 31)
	}
	return -a // BPF_NEG
}

// RunConst is Run for a program of which only the number and architecture are known: ok is false where the result
// depends on more.
func RunConst(prog []Insn, d *Data) (act Action, ok bool) {
	for _, in := range prog {
		if in.Code == ldAbs && in.K >= offIP {
			return constPath(prog, d)
		}
	}
	return Run(prog, d), true
}

// constPath runs prog until it would read an argument or the instruction pointer.
func constPath(prog []Insn, d *Data) (Action, bool) {
	pc := 0
	var a uint32
	for ; pc < len(prog); pc++ {
		in := &prog[pc]
		switch {
		case in.Code == ldAbs:
			if in.K >= offIP {
				return 0, false
			}
			a = d.word(in.K)
		case in.Code == retK:
			return Action(in.K), true
		case in.Code == ja:
			pc += int(in.K)
		case in.Code&7 == unix.BPF_JMP && in.Code&srcX == 0:
			if holds(in.Code&0xf0, a, in.K) {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		default:
			return 0, false // arithmetic is rare: not worth following
		}
	}
	return 0, false
}

// offIP is the offset of the first field of Data that differs between calls with the same number.
const offIP = 8
