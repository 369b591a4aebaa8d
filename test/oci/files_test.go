package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFewDescriptors looks at more files than the host allows descriptors: the cache of names must not use them up.
func TestFewDescriptors(t *testing.T) {
	const files = 5000
	b := newBundle(t, "sh", "-c", "busybox find /data -type f -size -1 | busybox wc -l; cat /data/*1 | busybox wc -c; echo x >/data/new && cat /data/new")
	data := filepath.Join(b.dir, "rootfs", "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range files {
		if err := os.WriteFile(filepath.Join(data, fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.write()
	cmd := b.command("run", "--bundle", b.dir, newID())
	limited := exec.Command("sh", append([]string{"-c", `ulimit -n 2048; exec "$@"`, "sh"}, cmd.Args...)...)
	out, err := limited.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != fmt.Sprintf("%d\n0\nx", files) {
		t.Errorf("%v: %s", err, got[:min(len(got), 1000)])
	}
}
