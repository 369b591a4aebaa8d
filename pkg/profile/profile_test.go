package profile

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// top lists a profile with `go tool pprof`, the reader that counts.
func top(t *testing.T, data []byte, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "p")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", append(append([]string{"tool", "pprof", "-top", "-symbolize=none"}, args...), file)...).CombinedOutput()
	if err != nil {
		t.Fatalf("pprof: %v\n%s", err, out)
	}
	return string(out)
}

var sink uint64

//go:noinline
func spin(until <-chan struct{}) {
	for {
		select {
		case <-until:
			return
		default:
			for i := range uint64(100000) {
				sink = sink*31 + i
			}
		}
	}
}

func TestCPU(t *testing.T) {
	done := make(chan struct{})
	go spin(done)
	var c CPU
	second := make(chan error)
	go func() {
		time.Sleep(100 * time.Millisecond)
		_, err := c.Take(nil, 1<<20)
		second <- err
	}()
	data, err := c.Take(time.After(time.Second), 1<<20)
	close(done)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != ErrBusy {
		t.Errorf("a second profile meanwhile: %v", err)
	}
	if out := top(t, data); !strings.Contains(out, "husk/pkg/profile.spin") || !strings.Contains(out, "Type: cpu") {
		t.Errorf("no spin in\n%s", out)
	}
	if _, err := c.Take(time.After(100*time.Millisecond), 1<<20); err != nil {
		t.Errorf("a profile after another: %v", err)
	}
}

var keep []byte

//go:noinline
func hoard() { keep = make([]byte, 64<<20) }

func TestHeap(t *testing.T) {
	hoard()
	data, err := Heap(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if out := top(t, data); !strings.Contains(out, "husk/pkg/profile.hoard") || !strings.Contains(out, "64") || !strings.Contains(out, "Type: inuse_space") {
		t.Errorf("no hoard of 64 MB in\n%s", out)
	}
	if _, err := Heap(100); err != ErrTooLarge {
		t.Errorf("a limit of 100 bytes: %v", err)
	}
	keep = nil
}

func TestStacks(t *testing.T) {
	if s := string(Stacks(1 << 20)); !strings.Contains(s, "TestStacks") {
		t.Errorf("own stack missing in %s", s)
	}
	if n := len(Stacks(100)); n > 100 {
		t.Errorf("%d bytes with a limit of 100", n)
	}
}
