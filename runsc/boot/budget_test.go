package boot

import (
	"testing"

	"husk/pkg/gofer"
	"husk/pkg/seccomp"
)

// TestFilterBudgets holds P-8: what the filters of sentry and gofer let through, and what each system call pays for the check. A new
// call is a decision: raise a number here only together with the reason in the filter's source.
func TestFilterBudgets(t *testing.T) {
	for _, f := range []struct {
		name                string
		filter              *seccomp.Filter
		calls, instructions int
	}{
		{"sandbox", sandboxFilter(NetworkSandbox, "ptrace"), 77, 129},
		{"sandbox without a network", sandboxFilter(NetworkNone, "ptrace"), 75, 130},
		{"sandbox with the host's network", sandboxFilter(NetworkHost, "ptrace"), 83, 132},
		{"sandbox of systrap", sandboxFilter(NetworkSandbox, "systrap"), 76, 129},
		{"gofer", gofer.Filter(), 74, 134},
	} {
		prog, err := f.filter.Build()
		if err != nil {
			t.Fatal(err)
		}
		calls := map[uint32]bool{}
		for _, r := range f.filter.Rules {
			calls[r.NR] = true
		}
		if len(calls) > f.calls || len(prog) > f.instructions {
			t.Errorf("%s: %d calls in %d instructions, the budget is %d in %d", f.name, len(calls), len(prog), f.calls, f.instructions)
		}
	}
}
