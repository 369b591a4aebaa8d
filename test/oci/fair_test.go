package oci

import (
	"context"
	"fmt"
	"os"
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

// progress is what a kind of thread did: times per second, and what the slowest had of the mean, in percent.
type progress struct{ rate, least int }

// kinds are those of sched.c, with how many times as much the host's threads may do. Measured on two quiet processors: 1/1 to 1/4 of
// the host's rate for those that only compute; beside them the others, which need the sentry for each step and so wait for their turn
// twice, have 1/4 to 1/73 (syscall), 1/16 to 1/35 (pipe), and 1/5 to 1/18 (futex). The rest is for a busy host.
var kinds = []struct {
	name string
	most int
}{{"compute", 10}, {"syscall", 200}, {"pipe", 90}, {"futex", 50}}

// parseSched reads the program's output.
func parseSched(out string) map[string]progress {
	m := map[string]progress{}
	for l := range strings.SplitSeq(out, "\n") {
		var name string
		var p progress
		if n, _ := fmt.Sscanf(l, "%s %d per second, least %d", &name, &p.rate, &p.least); n == 3 {
			m[name] = p
		}
	}
	return m
}

// compareSched runs the load natively and in a sandbox, at most three times: in each kind the slowest thread must have an eighth of the
// share of the mean that the slowest has on the host, and no kind may starve beside the others.
func compareSched(t *testing.T, native, box func() string) {
	t.Helper()
	for try := 1; ; try++ {
		var wrong []string
		host, out := parseSched(native()), box()
		got := parseSched(out)
		for _, k := range kinds {
			h, g := host[k.name], got[k.name]
			t.Logf("%-8s host %8d/s, least %3d %%; sandbox %8d/s, least %3d %%", k.name, h.rate, h.least, g.rate, g.least)
			if 8*g.least < h.least {
				wrong = append(wrong, fmt.Sprintf("the slowest %s thread has %d %% of the mean, on the host %d %%", k.name, g.least, h.least))
			}
			if g.rate == 0 || k.most*g.rate < h.rate {
				wrong = append(wrong, fmt.Sprintf("%s: %d per second, on the host %d", k.name, g.rate, h.rate))
			}
		}
		if len(wrong) == 0 && len(host) == len(kinds) {
			return
		}
		t.Logf("try %d: %s", try, strings.Join(wrong, "; "))
		if try == 3 {
			t.Errorf("%s\n%s", strings.Join(wrong, "; "), out)
			return
		}
	}
}

// output is that of a command within 90 s.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	out, err := harness.Output(ctx, cmd)
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Errorf("%v\n%s", err, out)
	}
	return out
}

// TestFairness runs 32 threads that compute, make system calls, and hand over through pipes and futexes, on all processors and
// on one.
func TestFairness(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "sched")
	buildSched(t, bin)
	for _, one := range []bool{false, true} {
		pin := func(cmd *exec.Cmd) *exec.Cmd {
			if one {
				return exec.Command("taskset", append([]string{"-c", "0"}, cmd.Args...)...)
			}
			return cmd
		}
		t.Logf("one processor: %v", one)
		compareSched(t, func() string { return output(t, pin(exec.Command(bin, "700", "8"))) },
			func() string { return output(t, pin(harness.Do(t, bin, "700", "8"))) })
	}
}

// TestFairnessQuota runs fewer of them with half a processor's time: what spins must not use up the quota of what works.
func TestFairnessQuota(t *testing.T) {
	b := newBundle(t, "/sched", "1000", "2")
	bin := filepath.Join(b.dir, "rootfs", "sched")
	buildSched(t, bin)
	b.config["linux"].(map[string]any)["resources"] = map[string]any{"cpu": map[string]any{"quota": 50000, "period": 100000}}
	b.write()
	group := quotaGroup(t, "50000", "100000")
	compareSched(t, func() string {
		return output(t, exec.Command("sh", "-c", `echo $$ >"$0"/cgroup.procs && exec "$@"`, group, bin, "1000", "2"))
	}, func() string {
		return b.call("run", "--bundle", b.dir, newID()).out
	})
}

// quotaGroup is a cgroup with a quota of processor time, in microseconds; it is removed at the end.
func quotaGroup(t *testing.T, quota, period string) (dir string) {
	t.Helper()
	files := [][2]string{{"cpu.cfs_period_us", period}, {"cpu.cfs_quota_us", quota}}
	parent := "/sys/fs/cgroup/cpu"
	if _, err := os.Stat(parent); err != nil {
		parent, files = "/sys/fs/cgroup", [][2]string{{"cpu.max", quota + " " + period}}
	}
	dir = filepath.Join(parent, newID())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no cgroup for the host's run: %v", err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f[0]), []byte(f[1]), 0); err != nil {
			t.Skipf("no quota for the host's run: %v", err)
		}
	}
	return dir
}
