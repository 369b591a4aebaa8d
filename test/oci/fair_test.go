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

// buildSched builds the load.
func buildSched(t *testing.T, bin string) {
	t.Helper()
	if out, err := exec.Command("gcc", "-O1", "-w", "-static", "-pthread", "-o", bin, "../perf/c/sched.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
}

// starves tells whether a thread did nothing. The program itself calls a tenth of the mean starvation, which a busy host
// may cause; here it is none at all.
func starves(out string) bool {
	return strings.Count(out, "least") != 4 || strings.Contains(out, "least 0 %")
}

// TestFairness runs 32 threads that compute, make system calls, and hand over through pipes and futexes, on all processors and
// on one: no thread may starve.
func TestFairness(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "sched")
	buildSched(t, bin)
	for _, one := range []bool{false, true} {
		cmd := harness.Do(t, bin, "1000", "8")
		if one {
			cmd = exec.Command("taskset", append([]string{"-c", "0"}, cmd.Args...)...)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		out, err := harness.Output(ctx, cmd)
		cancel()
		t.Logf("one processor: %v\n%s", one, out)
		if starves(out) {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// TestFairnessQuota runs fewer of them with half a processor's time: what spins must not use up the quota of what works.
func TestFairnessQuota(t *testing.T) {
	b := newBundle(t, "/sched", "1000", "2")
	buildSched(t, filepath.Join(b.dir, "rootfs", "sched"))
	b.config["linux"].(map[string]any)["resources"] = map[string]any{"cpu": map[string]any{"quota": 50000, "period": 100000}}
	b.write()
	r := b.call("run", "--bundle", b.dir, newID())
	t.Logf("%s%s", r.out, r.err)
	if starves(r.out) {
		t.Errorf("exit code %d", r.code)
	}
}
