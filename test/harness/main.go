package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Main is TestMain of tests that share a daemon: it runs them after setup, which gets a directory of its own, and calls stop after
// them, or after a setup that failed. It exits.
func Main(m *testing.M, what string, setup func(dir string) (stop func(), err error)) {
	code, err := run(m, setup)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s tests: %v\n", what, err)
	}
	os.Exit(code)
}

func run(m *testing.M, setup func(dir string) (stop func(), err error)) (code int, err error) {
	dir, err := os.MkdirTemp("", "h") // short, for the paths of sockets
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	stop, err := setup(dir)
	if stop != nil {
		defer stop()
	}
	if err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// Image is the tar file of the Debian image that containers of the tests run; it is made if need be.
func Image() (tar string, err error) {
	out, err := exec.Command(filepath.Join(Top(), "tools", "image.sh")).Output()
	if err != nil {
		return "", fmt.Errorf("image.sh: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
