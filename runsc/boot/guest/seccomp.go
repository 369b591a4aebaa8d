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
func compileSeccomp(s *boot.Seccomp) ([][]unix.SockFilter, error) {
	if s == nil {
		return nil, nil
	}
	def, err := seccompAction(s.DefaultAction, s.DefaultErrno)
	if err != nil {
		return nil, err
	}
	numbers := syscalls.Numbers()
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
	out := make([]unix.SockFilter, len(prog))
	for i, in := range prog {
		out[i] = unix.SockFilter(in)
	}
	return [][]unix.SockFilter{out}, nil
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
		return seccomp.Trap, nil
	case "SCMP_ACT_LOG":
		return seccomp.Log, nil
	}
	return 0, fmt.Errorf("linux.seccomp: action %q is not supported", name)
}

func seccompConditions(args []boot.SeccompArg) (out []seccomp.Cond, err error) {
	for _, a := range args {
		var c seccomp.Cond
		i := int(a.Index)
		switch a.Op {
		case "SCMP_CMP_EQ":
			c = seccomp.Equal(i, a.Value)
		case "SCMP_CMP_NE":
			c = seccomp.NotEqual(i, a.Value)
		case "SCMP_CMP_GE":
			c = seccomp.GreaterEqual(i, a.Value)
		case "SCMP_CMP_GT":
			c = seccomp.Greater(i, a.Value)
		case "SCMP_CMP_LE":
			c = seccomp.LessEqual(i, a.Value)
		case "SCMP_CMP_LT":
			c = seccomp.Less(i, a.Value)
		case "SCMP_CMP_MASKED_EQ":
			c = seccomp.MaskedEqual(i, a.Value, a.ValueTwo)
		default:
			return nil, fmt.Errorf("linux.seccomp: operator %q is not supported", a.Op)
		}
		out = append(out, c)
	}
	return out, nil
}
