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

// TestHostilePrograms attacks the platform from inside: its stub's memory and code, patched call sites, flags, signals,
// storms of threads and processes (HUSK_HOSTILE_MS is how long each attack lasts). It never runs them on the host.
func TestHostilePrograms(t *testing.T) {
	ms := "100"
	if s := os.Getenv("HUSK_HOSTILE_MS"); s != "" {
		ms = s
	}
	bin := filepath.Join(t.TempDir(), "hostile")
	gcc := exec.Command("gcc", "-O1", "-w", "-static", "-pthread", "-o", bin, "c/hostile.c")
	if out, err := gcc.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := harness.Output(ctx, harness.Do(t, bin, ms))
	if err != nil || !strings.Contains(out, "survived") {
		t.Errorf("%v\n%s", err, clip(out))
	}
	t.Log(clip(out))
}
