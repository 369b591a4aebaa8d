package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// files makes a directory with files.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// firstLine is what a write left at the start of a file: unlike a cgroup's, an ordinary file keeps the rest.
func firstLine(t *testing.T, dir, file, want string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil || !strings.HasPrefix(string(text), want) {
		t.Errorf("%s: %q, %v; want %q", file, text, err, want)
	}
}

func ptr[T any](v T) *T { return &v }

// In the unified hierarchy some files hold two values: what is not to be changed stays.
func TestUpdateUnified(t *testing.T) {
	dir := files(t, map[string]string{"cpu.max": "50000 200000\n", "memory.max": "67108864\n", "memory.swap.max": "max\n", "pids.max": "max\n", "cpu.weight": "100\n"})
	p := &Paths{V2: dir}
	update := func(r *specs.LinuxResources) {
		t.Helper()
		if err := p.Update(r); err != nil {
			t.Fatal(err)
		}
	}
	update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(70000))}})
	firstLine(t, dir, "cpu.max", "70000 200000")
	update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(100000))}})
	firstLine(t, dir, "cpu.max", "70000 100000")
	update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(-1))}})
	firstLine(t, dir, "cpu.max", "max 100000")
	update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(100 << 20))}, CPU: &specs.LinuxCPU{Shares: ptr(uint64(0))}})
	firstLine(t, dir, "memory.swap.max", "37748736")
	update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}})
	firstLine(t, dir, "memory.max", "max")
	firstLine(t, dir, "memory.swap.max", "max")
	update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(0))}})
	firstLine(t, dir, "pids.max", "max")
}

// The limit of memory must never be above that of memory and swap.
func TestUpdateOrder(t *testing.T) {
	dir := files(t, map[string]string{"memory.memsw.limit_in_bytes": "200\n"})
	p := &Paths{V1: map[string]string{"memory": dir}}
	for limit, first := range map[string]string{"300": "memory.memsw.limit_in_bytes", "100": "memory.limit_in_bytes", "-1": "memory.memsw.limit_in_bytes"} {
		list := []setting{{"memory", "memory.limit_in_bytes", limit, false}, {"memory", "memory.memsw.limit_in_bytes", "400", false}}
		p.order(list)
		if list[0].file != first {
			t.Errorf("to %s: %s comes first", limit, list[0].file)
		}
	}
}
