package cgroup

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestSystemdPath(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "/system.slice/runsc-id.scope",
		"system.slice:docker:1":      "/system.slice/docker-1.scope",
		"user-1000.slice:podman:c":   "/user.slice/user-1000.slice/podman-c.scope",
		"a-b-c.slice::x":             "/a.slice/a-b.slice/a-b-c.slice/x.scope",
		"-.slice:p:n":                "/p-n.scope",
		"kubepods.slice:cri:x.slice": "/kubepods.slice/x.slice",
	} {
		if got, err := systemdPath(in, "id"); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"a", "a:b", "noslice:p:n", "../x.slice:p:n"} {
		if got, err := systemdPath(in, "id"); err == nil {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestFindStaysInHierarchy(t *testing.T) {
	p, err := Find("/../../../../etc/x", "id", false, nil)
	if err != nil {
		t.Skip(err)
	}
	for _, d := range p.dirs() {
		if !strings.HasSuffix(d, "/etc/x") || !strings.HasPrefix(d, "/sys/fs/cgroup/") {
			t.Errorf("%s is outside", d)
		}
	}
}

func find(list []setting, file string) string {
	for _, s := range list {
		if s.file == file {
			return s.value
		}
	}
	return ""
}

func TestSettings(t *testing.T) {
	limit, swap, quota, pids := int64(64<<20), int64(96<<20), int64(50000), int64(10)
	period, shares := uint64(100000), uint64(1024)
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap},
		CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares, Cpus: "0-1"},
		Pids:   &specs.LinuxPids{Limit: &pids},
	}
	v1, err := version1(r)
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[string]string{
		"memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "100663296",
		"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000", "cpu.shares": "1024", "cpuset.cpus": "0-1", "pids.max": "532",
	} {
		if got := find(v1, f); got != want {
			t.Errorf("v1 %s=%q, want %q", f, got, want)
		}
	}
	v2, err := unified(r)
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[string]string{
		"memory.max": "67108864", "memory.swap.max": "33554432", "cpu.max": "50000 100000", "cpu.weight": "39", "cpuset.cpus": "0-1", "pids.max": "532",
	} {
		if got := find(v2, f); got != want {
			t.Errorf("v2 %s=%q, want %q", f, got, want)
		}
	}
	limit = 1
	if got := memoryValue(limit); got != "33554432" {
		t.Errorf("a limit below what the sentry needs: %s", got)
	}
	limit, swap = 100<<20, 64<<20
	if _, err := version1(r); err == nil {
		t.Error("swap below memory accepted")
	}
	pids = 1 << 40
	if v, ok := pidsLimit(r); !ok || v != "max" {
		t.Errorf("absurd pids limit: %q", v)
	}
}
