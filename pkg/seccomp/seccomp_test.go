package seccomp

import (
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// matches is the meaning of a condition, written down independently of the compiler.
func (c Cond) matches(d *Data) bool {
	a := d.Args[c.arg]
	switch c.op {
	case opEqual:
		return a&c.mask == c.value
	case opNotEqual:
		return a&c.mask != c.value
	case opGreaterEqual:
		return a >= c.value
	}
	return a <= c.value
}

func (f *Filter) decide(d *Data) Action {
	if d.Arch != hostArch || uint32(d.NR) >= x32Bit {
		return f.BadArch
	}
next:
	for _, r := range f.Rules {
		if r.NR != uint32(d.NR) {
			continue
		}
		for _, c := range r.When {
			if !c.matches(d) {
				continue next
			}
		}
		if r.Do == 0 {
			return Allow
		}
		return r.Do
	}
	return f.Default
}

// value picks from few values, so that conditions are met and halves collide.
func value(r *rand.Rand) uint64 {
	halves := [...]uint64{0, 1, 2, 3, 0x7fffffff, 0x80000000, 0xffffffff}
	return halves[r.Intn(len(halves))]<<32 | halves[r.Intn(len(halves))]
}

func randomFilter(r *rand.Rand, rules int) *Filter {
	actions := []Action{0, Allow, Errno(unix.EPERM), Trap(7), Log, KillProcess}
	f := &Filter{Default: Errno(unix.ENOSYS), BadArch: KillProcess}
	for range rules {
		rule := Rule{NR: uint32(r.Intn(rules/2 + 2)), Do: actions[r.Intn(len(actions))]}
		for range r.Intn(4) {
			arg := uint8(r.Intn(6))
			switch r.Intn(7) {
			case 0:
				rule.When = append(rule.When, Equal(arg, value(r)))
			case 1:
				rule.When = append(rule.When, Equal32(arg, uint32(value(r))))
			case 2:
				rule.When = append(rule.When, MaskedEqual(arg, value(r), value(r)))
			case 3:
				rule.When = append(rule.When, NotEqual(arg, value(r)))
			case 4:
				rule.When = append(rule.When, MaskedNotEqual(arg, value(r), value(r)))
			case 5:
				rule.When = append(rule.When, GreaterEqual(arg, value(r)))
			case 6:
				rule.When = append(rule.When, LessEqual(arg, value(r)))
			}
		}
		f.Rules = append(f.Rules, rule)
	}
	for range r.Intn(5) {
		f.Hot = append(f.Hot, uint32(r.Intn(rules/2+4)))
	}
	return f
}

func TestBuildMeansTheRules(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for i := range 400 {
		rules := r.Intn(40)
		if i%50 == 0 {
			rules = 500 // beyond the reach of short jumps
		}
		f := randomFilter(r, rules)
		prog, err := f.Build()
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(prog); err != nil {
			t.Fatalf("filter %d: built program does not pass: %v", i, err)
		}
		for range 2000 {
			d := Data{NR: int32(r.Intn(rules/2 + 6)), Arch: hostArch, IP: r.Uint64()}
			for a := range d.Args {
				d.Args[a] = value(r)
			}
			switch r.Intn(50) {
			case 0:
				d.Arch = unix.AUDIT_ARCH_I386
			case 1:
				d.NR |= x32Bit
			case 2:
				d.NR = -1
			}
			if got, want := Run(prog, &d), f.decide(&d); got != want {
				t.Fatalf("filter %d on %+v: %#x, want %#x", i, d, got, want)
			}
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, f := range []Filter{
		{Rules: []Rule{{NR: 1, When: []Cond{Equal(6, 0)}}}},
		{Rules: []Rule{{NR: x32Bit}}},
	} {
		if _, err := f.Build(); err != unix.EINVAL {
			t.Errorf("%+v: %v", f, err)
		}
	}
	var long Filter
	for i := range uint32(3000) {
		long.Rules = append(long.Rules, Rule{NR: i, When: []Cond{Equal(0, uint64(i))}})
	}
	if _, err := long.Build(); err != ErrTooLong {
		t.Errorf("long filter: %v", err)
	}
}

func TestBuildSize(t *testing.T) {
	f := Filter{Default: KillProcess, BadArch: KillProcess}
	for nr := range uint32(300) {
		f.Rules = append(f.Rules, Rule{NR: nr})
	}
	prog, err := f.Build()
	if err != nil || len(prog) > 8 {
		t.Errorf("300 allowed calls in a row take %d instructions, %v", len(prog), err)
	}
	// The second rule must not load what the first one has loaded.
	f.Rules = []Rule{{NR: 1, When: []Cond{Equal32(0, 1)}}, {NR: 1, When: []Cond{Equal32(0, 2)}}}
	if prog, err = f.Build(); err != nil {
		t.Fatal(err)
	}
	loads := 0
	for _, in := range prog {
		if in.Code == ldAbs {
			loads++
		}
	}
	if loads != 3 {
		t.Errorf("%d loads, want arch, number and one argument: %v", loads, prog)
	}
}

func TestCheck(t *testing.T) {
	ret := Insn{Code: retK}
	for _, c := range []struct {
		name string
		ok   bool
		prog []Insn
	}{
		{"empty", false, nil},
		{"return", true, []Insn{ret}},
		{"return A", true, []Insn{{Code: retA}}},
		{"return X", false, []Insn{{Code: unix.BPF_RET | unix.BPF_X}}},
		{"no return", false, []Insn{{Code: ldImm}}},
		{"too long", false, make([]Insn, unix.BPF_MAXINSNS+1)},
		{"load", true, []Insn{{Code: ldAbs, K: 60}, ret}},
		{"unaligned load", false, []Insn{{Code: ldAbs, K: 2}, ret}},
		{"load behind the data", false, []Insn{{Code: ldAbs, K: 64}, ret}},
		{"negative load", false, []Insn{{Code: ldAbs, K: 0xfffff000}, ret}},
		{"half word load", false, []Insn{{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS}, ret}},
		{"indirect load", false, []Insn{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_IND}, ret}},
		{"modulo", false, []Insn{{Code: unix.BPF_ALU | unix.BPF_MOD, K: 3}, ret}},
		{"division by 0", false, []Insn{{Code: aluDiv}, ret}},
		{"division by X", true, []Insn{{Code: aluDiv | srcX}, ret}},
		{"shift 31", true, []Insn{{Code: aluLsh, K: 31}, ret}},
		{"shift 32", false, []Insn{{Code: aluRsh, K: 32}, ret}},
		{"scratch 16", false, []Insn{{Code: st, K: 16}, ret}},
		{"scratch unwritten", false, []Insn{{Code: ldMem, K: 1}, ret}},
		{"scratch written", true, []Insn{{Code: st, K: 1}, {Code: ldMem, K: 1}, ret}},
		{"scratch written on one path", false, []Insn{{Code: jeq, Jt: 1}, {Code: stx, K: 1}, {Code: ldxMem, K: 1}, ret}},
		{"scratch written on both", true, []Insn{{Code: jeq, Jt: 2}, {Code: st, K: 1}, {Code: ja, K: 1}, {Code: st, K: 1}, {Code: ldMem, K: 1}, ret}},
		{"jump to the end", false, []Insn{{Code: ja, K: 1}, ret}},
		{"jump far", false, []Insn{{Code: ja, K: 0xffffffff}, ret}},
		{"branch far", false, []Insn{{Code: jeq, Jf: 1}, ret}},
		{"jump", true, []Insn{{Code: ja, K: 0}, ret}},
	} {
		if err := Check(c.prog); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestRunInstructions(t *testing.T) {
	d := &Data{NR: 5, Arch: 6, IP: 0x1122334455667788, Args: [6]uint64{0xaabbccdd00112233}}
	alu := func(op uint16, a, b uint32) []Insn {
		return []Insn{{Code: ldxImm, K: b}, {Code: ldImm, K: a}, {Code: op | srcX}, {Code: retA}}
	}
	for _, c := range []struct {
		prog []Insn
		want Action
	}{
		{[]Insn{{Code: ldAbs, K: 8}, {Code: retA}}, 0x55667788},
		{[]Insn{{Code: ldAbs, K: 20}, {Code: retA}}, 0xaabbccdd},
		{[]Insn{{Code: ldLen}, {Code: retA}}, 64},
		{[]Insn{{Code: ldxLen}, {Code: txa}, {Code: retA}}, 64},
		{[]Insn{{Code: ldImm, K: 9}, {Code: tax}, {Code: stx, K: 3}, {Code: ldImm}, {Code: ldxMem, K: 3}, {Code: txa}, {Code: retA}}, 9},
		{[]Insn{{Code: ldImm, K: 1}, {Code: aluNeg}, {Code: retA}}, 0xffffffff},
		{alu(aluAdd, 0xffffffff, 2), 1},
		{alu(aluSub, 1, 2), 0xffffffff},
		{alu(aluMul, 0x10000, 0x10001), 0x10000},
		{alu(aluDiv, 7, 2), 3},
		{alu(aluDiv, 7, 0), 0},
		{alu(aluLsh, 1, 33), 2},
		{alu(aluRsh, 8, 2), 2},
		{alu(aluXor, 6, 3), 5},
		{alu(aluOr, 6, 3), 7},
		{alu(aluAnd, 6, 3), 2},
		{[]Insn{{Code: ldImm, K: 6}, {Code: jset, K: 2, Jf: 1}, {Code: retK, K: 1}, {Code: retK, K: 2}}, 1},
		{[]Insn{{Code: ldImm, K: 6}, {Code: jgt, K: 6, Jf: 1}, {Code: retK, K: 1}, {Code: retK, K: 2}}, 2},
	} {
		if err := Check(c.prog); err != nil {
			t.Errorf("%v: %v", c.prog, err)
		}
		if got := Run(c.prog, d); got != c.want {
			t.Errorf("%v: %#x, want %#x", c.prog, got, c.want)
		}
	}
}

func TestPrecedes(t *testing.T) {
	order := []Action{KillProcess, KillThread, Trap(0), Errno(0), UserNotif, Trace(0), Log, Allow}
	for i, a := range order {
		for j, b := range order {
			if a.Precedes(b) != (i < j) {
				t.Errorf("%#x before %#x: %v", a, b, a.Precedes(b))
			}
		}
	}
	if Errno(5).Precedes(Errno(7)) || Errno(7).Precedes(Errno(5)) {
		t.Error("data counts in the precedence")
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	prog, _ := randomFilter(rand.New(rand.NewSource(3)), 50).Build()
	d := &Data{NR: 3, Arch: hostArch}
	if n := testing.AllocsPerRun(100, func() { Run(prog, d) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestInstall loads one filter into a child process: getppid is denied there, on every thread.
func TestInstall(t *testing.T) {
	const env = "SECCOMP_TEST_CHILD"
	if os.Getenv(env) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestInstall$")
		cmd.Env = append(os.Environ(), env+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	f := Filter{
		Rules: []Rule{
			{NR: unix.SYS_GETPPID, Do: Errno(unix.EXDEV)},
			{NR: unix.SYS_DUP3, When: []Cond{Equal32(0, 0xffffffff)}, Do: Errno(unix.EXFULL)},
		},
		Hot:     []uint32{unix.SYS_GETPPID},
		Default: Allow,
		BadArch: KillProcess,
	}
	prog, err := f.Build()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan string)
	start := make(chan bool)
	for range 8 {
		go func() {
			<-start
			_, _, e1 := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
			_, _, e2 := unix.RawSyscall(unix.SYS_DUP3, ^uintptr(0), 1, 0)
			_, _, e3 := unix.RawSyscall(unix.SYS_DUP3, 1<<20, 1, 0)
			if e1 != unix.EXDEV || e2 != unix.EXFULL || e3 != unix.EBADF {
				done <- fmt.Sprint(e1, e2, e3)
				return
			}
			done <- ""
		}()
	}
	if err := Install(prog, unix.SECCOMP_FILTER_FLAG_TSYNC); err != nil {
		t.Fatal(err)
	}
	close(start)
	for range 8 {
		if s := <-done; s != "" {
			t.Error(s)
		}
	}
}

// FuzzBPF runs whatever Check accepts; neither may panic, and a built filter is accepted.
func FuzzBPF(f *testing.F) {
	encode := func(prog []Insn) []byte {
		var b []byte
		for _, in := range prog {
			b = append(b, byte(in.Code), byte(in.Code>>8), in.Jt, in.Jf, byte(in.K), byte(in.K>>8), byte(in.K>>16), byte(in.K>>24))
		}
		return b
	}
	r := rand.New(rand.NewSource(2))
	for range 5 {
		prog, _ := randomFilter(r, 6).Build()
		f.Add(encode(prog))
	}
	f.Add(encode([]Insn{{Code: st, K: 1}, {Code: ldMem, K: 1}, {Code: retA}}))
	f.Add(encode([]Insn{{Code: ldxLen}, {Code: aluDiv | srcX}, {Code: retA}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var prog []Insn
		for ; len(b) >= 8; b = b[8:] {
			prog = append(prog, Insn{
				Code: uint16(b[0]) | uint16(b[1])<<8, Jt: b[2], Jf: b[3],
				K: uint32(b[4]) | uint32(b[5])<<8 | uint32(b[6])<<16 | uint32(b[7])<<24,
			})
		}
		if Check(prog) == nil {
			Run(prog, &Data{NR: 1, Arch: hostArch, Args: [6]uint64{1, 2, 3}})
		}
	})
}

func BenchmarkRun(b *testing.B) {
	prog, _ := randomFilter(rand.New(rand.NewSource(3)), 200).Build()
	d := &Data{NR: 50, Arch: hostArch}
	for b.Loop() {
		Run(prog, d)
	}
}
