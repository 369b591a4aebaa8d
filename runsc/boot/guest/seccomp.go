package guest

import (
	"fmt"

	"golang.org/x/sys/unix"

	"husk/pkg/seccomp"
	"husk/pkg/sentry/syscalls"
	"husk/runsc/boot"
)

// compileSeccomp makes the container's own filter from config.json's linux.seccomp. Rules for system calls that Linux
// has on other architectures only are left out, as runc does.
func (g *Guest) compileSeccomp(s *boot.Seccomp) ([][]unix.SockFilter, error) {
	if s == nil {
		return nil, nil
	}
	def, err := seccompAction(s.DefaultAction, s.DefaultErrno)
	if err != nil {
		return nil, err
	}
	numbers := map[string]uint32{}
	g.table.List(func(e *syscalls.Entry) { numbers[e.Name] = uint32(e.Number) })
	f := seccomp.Filter{Default: def, BadArch: def}
	for i := range s.Rules {
		r := &s.Rules[i]
		do, err := seccompAction(r.Action, r.Errno)
		if err != nil {
			return nil, err
		}
		when, err := seccompConditions(r.Args)
		if err != nil {
			return nil, err
		}
		for _, name := range r.Names {
			if nr, ok := numbers[name]; ok {
				f.Rules = append(f.Rules, seccomp.Rule{NR: nr, When: when, Do: do})
			}
		}
	}
	prog, err := f.Build()
	if err != nil {
		return nil, fmt.Errorf("linux.seccomp: %w", err)
	}
	return [][]unix.SockFilter{prog}, nil
}

func seccompAction(name string, errno uint32) (seccomp.Action, error) {
	switch name {
	case "SCMP_ACT_ALLOW":
		return seccomp.Allow, nil
	case "SCMP_ACT_ERRNO":
		return seccomp.Errno(unix.Errno(errno)), nil
	case "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD":
		return seccomp.KillThread, nil
	case "SCMP_ACT_KILL_PROCESS":
		return seccomp.KillProcess, nil
	case "SCMP_ACT_TRAP":
		return seccomp.Trap(0), nil
	case "SCMP_ACT_LOG":
		return seccomp.Log, nil
	}
	return 0, fmt.Errorf("linux.seccomp: action %q is not supported", name)
}

func seccompConditions(args []boot.SeccompArg) (out []seccomp.Cond, err error) {
	for _, a := range args {
		var c seccomp.Cond
		i := uint8(min(a.Index, 6)) // Build refuses 6
		switch a.Op {
		case "SCMP_CMP_EQ":
			c = seccomp.Equal(i, a.Value)
		case "SCMP_CMP_NE":
			c = seccomp.NotEqual(i, a.Value)
		case "SCMP_CMP_GE":
			c = seccomp.GreaterEqual(i, a.Value)
		case "SCMP_CMP_GT":
			if a.Value == ^uint64(0) {
				return nil, fmt.Errorf("linux.seccomp: nothing is greater than %d", a.Value)
			}
			c = seccomp.GreaterEqual(i, a.Value+1)
		case "SCMP_CMP_LE":
			c = seccomp.LessEqual(i, a.Value)
		case "SCMP_CMP_LT":
			if a.Value == 0 {
				return nil, fmt.Errorf("linux.seccomp: nothing is less than 0")
			}
			c = seccomp.LessEqual(i, a.Value-1)
		case "SCMP_CMP_MASKED_EQ":
			c = seccomp.MaskedEqual(i, a.Value, a.ValueTwo)
		default:
			return nil, fmt.Errorf("linux.seccomp: operator %q is not supported", a.Op)
		}
		out = append(out, c)
	}
	return out, nil
}
