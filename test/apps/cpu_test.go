package apps

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"husk/test/harness"
)

// TestProcessor compares what programs learn about the processor on the host and in a sandbox: CPUID, the time stamp counter, the
// vsyscall page, /proc/cpuinfo.
func TestProcessor(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "cpu")
	if out, err := exec.Command("gcc", "-O1", "-w", "-static", "-pthread", "-o", bin, "c/cpu.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	run := func(box bool, args ...string) string {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		if box {
			cmd = harness.Do(t, args...)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		out, err := harness.Output(ctx, cmd)
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return out
	}
	for _, what := range []string{"id", "tsc", "vsyscall"} {
		host, box := run(false, bin, what), run(true, bin, what)
		if host != box {
			t.Errorf("%s in the sandbox:\n%s\non the host:\n%s", what, box, host)
		}
		t.Logf("%s: %d lines", what, strings.Count(box, "\n"))
	}
	// The counter is the host's, and runs as fast.
	var stamps [3]uint64
	var kHz [3]float64
	for i := range stamps {
		fmt.Sscan(run(i == 1, bin, "stamp"), &stamps[i], &kHz[i])
	}
	if !(stamps[0] < stamps[1] && stamps[1] < stamps[2]) {
		t.Errorf("the time stamp counter of the sandbox is %d, between %d and %d on the host", stamps[1], stamps[0], stamps[2])
	}
	if d := kHz[1]/kHz[0] - 1; d > 0.01 || d < -0.01 {
		t.Errorf("it counts at %.0f kHz, on the host at %.0f", kHz[1], kHz[0])
	}
	host, box := processors(run(false, "cat", "/proc/cpuinfo")), processors(run(true, "cat", "/proc/cpuinfo"))
	if len(host) != len(box) {
		t.Fatalf("/proc/cpuinfo has %d processors, on the host %d", len(box), len(host))
	}
	// Not: the frequency of the moment, and where in the machine a processor is.
	for _, field := range []string{"processor", "vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "cache size", "fpu",
		"fpu_exception", "cpuid level", "wp", "flags", "bugs", "bogomips", "TLB size", "clflush size", "cache_alignment", "address sizes", "power management"} {
		for i := range host {
			if host[i][field] != box[i][field] {
				t.Errorf("/proc/cpuinfo, processor %d, %s: %q, on the host %q", i, field, box[i][field], host[i][field])
			}
		}
	}
}

// processors are the fields of each processor in /proc/cpuinfo.
func processors(text string) (list []map[string]string) {
	for stanza := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		m := map[string]string{}
		for l := range strings.SplitSeq(stanza, "\n") {
			name, value, _ := strings.Cut(l, ":")
			m[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
		list = append(list, m)
	}
	return list
}
