package syscalls

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"husk/test/harness"
)

// familyTimeout bounds one run of one family; its cases have limits of their own, which hold on a machine that stands still at times.
const familyTimeout = 240 * time.Second

// TestFamilies compiles every family and runs it on both kernels. HUSK_FAMILY selects families by
// name (comma separated).
func TestFamilies(t *testing.T) {
	sources, err := filepath.Glob("c/*.c")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no test programs: %v", err)
	}
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0o755)
	os.Chmod(dir, 0o755)
	only := os.Getenv("HUSK_FAMILY")
	for _, src := range sources {
		name := strings.TrimSuffix(filepath.Base(src), ".c")
		if only != "" && !strings.Contains(","+only+",", ","+name+",") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			bin := filepath.Join(dir, "test_"+name)
			gcc := exec.Command("gcc", "-O1", "-g", "-Wall", "-Wno-stringop-overread", "-Wno-stringop-overflow", "-static", "-pthread", "-o", bin, src, "-lrt")
			if out, err := gcc.CombinedOutput(); err != nil {
				t.Fatalf("gcc %s: %v\n%s", src, err, out)
			}
			native := run(t, exec.Command(bin))
			for c, res := range native {
				if strings.Contains(res, "FAIL") {
					t.Errorf("on the host: %s: %s", c, res)
				}
			}
			sandbox := run(t, harness.Do(t, bin))
			for c, res := range native {
				got, ok := sandbox[c]
				switch {
				case !ok:
					t.Errorf("in the sandbox: %s: did not run", c)
				case got != res && !strings.Contains(res, "FAIL"):
					t.Errorf("in the sandbox: %s: %s (host: %s)", c, got, res)
				}
			}
		})
	}
}

// run executes a family and returns the result of each case.
func run(t *testing.T, cmd *exec.Cmd) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), familyTimeout)
	defer cancel()
	out, err := harness.Output(ctx, cmd)
	results := map[string]string{}
	for _, line := range strings.Split(out, "\n") {
		if name, res, ok := strings.Cut(line, ": "); ok {
			results[name] = strings.TrimSpace(res)
		}
	}
	if len(results) == 0 {
		t.Fatalf("%v: no results: %v\n%s", cmd.Args, err, out)
	}
	return results
}
