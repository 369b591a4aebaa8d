package security

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

// TestRandomSystemCalls runs random system calls in a sandbox (HUSK_SEED and HUSK_SECONDS override the defaults): the
// sandbox must survive. It never runs them on the host.
func TestRandomSystemCalls(t *testing.T) {
	seconds, seeds := "4", []string{"1", "2", "3"}
	if s := os.Getenv("HUSK_SECONDS"); s != "" {
		seconds = s
	}
	if s := os.Getenv("HUSK_SEED"); s != "" {
		seeds = strings.Split(s, ",")
	}
	bin := filepath.Join(t.TempDir(), "random")
	gcc := exec.Command("gcc", "-O1", "-w", "-static", "-o", bin, "c/random.c")
	if out, err := gcc.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	for _, seed := range seeds {
		t.Run("seed-"+seed, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			out, err := harness.Output(ctx, harness.Do(t, bin, seed, seconds))
			if err != nil || !strings.Contains(out, "survived") {
				t.Errorf("%v\n%s", err, clip(out))
			}
		})
	}
}

func clip(s string) string {
	if len(s) > 6000 {
		return s[:6000]
	}
	return s
}
