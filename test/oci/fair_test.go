package oci

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"husk/test/harness"
)

// TestFairness runs 32 threads that compute, make system calls, and hand over through pipes and futexes, on all processors and
// on one: no thread may starve.
func TestFairness(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "sched")
	if out, err := exec.Command("gcc", "-O1", "-w", "-static", "-pthread", "-o", bin, "../perf/c/sched.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	for _, one := range []bool{false, true} {
		cmd := harness.Do(t, bin, "1000", "8")
		if one {
			cmd = exec.Command("taskset", append([]string{"-c", "0"}, cmd.Args...)...)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		out, err := harness.Output(ctx, cmd)
		cancel()
		t.Logf("one processor: %v\n%s", one, out)
		// The program itself calls a tenth of the mean starvation, which a busy host may cause; here it is none at all.
		if strings.Count(out, "least") != 4 || strings.Contains(out, "least 0 %") {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
