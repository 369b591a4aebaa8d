package syscalls_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"husk/pkg/platform"
)

// TestFamilies runs the programs of test/syscalls that need nothing but processes and an empty root. HUSK_FAMILY selects some, HUSK_CASE one case.
func TestFamilies(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for many seconds")
	}
	want := os.Getenv("HUSK_FAMILY")
	for _, name := range []string{"process", "signal", "futex", "time", "cred", "misc", "pipe", "event"} {
		if want != "" && want != name {
			continue
		}
		t.Run(name, func(t *testing.T) {
			bin := filepath.Join(t.TempDir(), name)
			if out, err := exec.Command("gcc", "-O1", "-g", "-w", "-static", "-pthread", "-o", bin, "../../../test/syscalls/c/"+name+".c", "-lrt").CombinedOutput(); err != nil {
				t.Skipf("%v %s", err, out)
			}
			prog, err := os.ReadFile(bin)
			if err != nil {
				t.Fatal(err)
			}
			eachPlatform(t, func(t *testing.T, p platform.Platform) {
				s := newSandbox(t, p)
				s.populate()
				s.put("/p", prog)
				argv := []string{"/p"}
				if c := os.Getenv("HUSK_CASE"); c != "" {
					argv = append(argv, c)
				}
				st, out := s.run(argv...)
				for _, l := range strings.Split(out, "\n") {
					if strings.Contains(l, "FAIL") {
						t.Error(l)
					}
				}
				t.Logf("status %#x, %d cases", st, strings.Count(out, "\n"))
			})
		})
	}
}
