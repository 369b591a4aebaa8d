package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cgroupFile reads a file of the cgroup (version 1) of a container's process.
func cgroupFile(b *bundle, id, controller, file string) string {
	b.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", b.pid(id)))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, l := range strings.Split(string(text), "\n") {
		f := strings.SplitN(l, ":", 3)
		if len(f) == 3 && f[1] == controller {
			// The mount shows the hierarchy from a cgroup of its own on.
			for dir := f[2]; ; dir = dir[strings.Index(dir[1:], "/")+1:] {
				if value, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, dir, file)); err == nil {
					return strings.TrimSpace(string(value))
				}
				if strings.Count(dir, "/") < 2 {
					break
				}
			}
		}
	}
	b.t.Fatalf("no %s of %s", file, id)
	return ""
}

// TestUpdate changes limits of a running container on the host.
func TestUpdate(t *testing.T) {
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		t.Skip("cgroups of version 1 are not mounted")
	}
	b := newBundle(t, "sleep", "1000")
	b.config["linux"].(map[string]any)["resources"] = map[string]any{"memory": map[string]any{"limit": 128 << 20, "swap": 256 << 20}}
	id := b.running()
	file := filepath.Join(b.dir, "resources.json")
	os.WriteFile(file, []byte(`{"memory":{"limit":201326592,"swap":402653184},"cpu":{"shares":333,"quota":70000,"period":100000}}`), 0o644)
	pids := "55"
	if !isRunc() {
		pids = "622" // the host's limit has room for the sandbox's own threads
	}
	for _, c := range []struct {
		flags string
		want  map[string]string // by controller/file
	}{
		{"--memory 64m", map[string]string{"memory/memory.limit_in_bytes": "67108864", "memory/memory.memsw.limit_in_bytes": "268435456"}},
		{"--memory 600m --memory-swap 700m", map[string]string{"memory/memory.limit_in_bytes": "629145600", "memory/memory.memsw.limit_in_bytes": "734003200"}},
		{"--memory 100m --memory-swap 200m", map[string]string{"memory/memory.limit_in_bytes": "104857600", "memory/memory.memsw.limit_in_bytes": "209715200"}},
		{"--memory -1", map[string]string{"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.memsw.limit_in_bytes": "9223372036854771712"}},
		{"--memory-reservation 10485760", map[string]string{"memory/memory.soft_limit_in_bytes": "10485760"}},
		{"--cpu-quota 50000", map[string]string{"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}},
		{"--cpu-period 200000 --cpu-quota 100000", map[string]string{"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "200000"}},
		{"--cpu-quota -1", map[string]string{"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "200000"}},
		{"--cpu-share 77", map[string]string{"cpu/cpu.shares": "77"}},
		{"--cpuset-cpus 0", map[string]string{"cpuset/cpuset.cpus": "0"}},
		{"--pids-limit 55", map[string]string{"pids/pids.max": pids}},
		{"--pids-limit -1", map[string]string{"pids/pids.max": "max"}},
		{"--blkio-weight 500", nil},
		{"", map[string]string{"cpu/cpu.shares": "77"}},
		{"--resources " + file + " --cpu-share 99", map[string]string{"memory/memory.limit_in_bytes": "201326592", "cpu/cpu.shares": "333", "cpu/cpu.cfs_quota_us": "70000"}},
	} {
		args := append(append([]string{"update"}, strings.Fields(c.flags)...), id)
		if r := b.call(args...); r.code != 0 {
			t.Errorf("update %s: exit code %d: %s", c.flags, r.code, r.err)
			continue
		}
		for name, want := range c.want {
			controller, f, _ := strings.Cut(name, "/")
			if got := cgroupFile(b, id, controller, f); got != want {
				t.Errorf("update %s: %s is %s, want %s", c.flags, f, got, want)
			}
		}
	}
	b.fails([]string{"1x"}, "update", "--memory", "1x", id)
	b.fails([]string{"invalid argument"}, "update", "--cpu-quota", "10", id)
	b.fails([]string{"no such file"}, "update", "--resources", "/no/such/file", id)
	os.WriteFile(file, []byte(`{"memory": 7}`), 0o644)
	b.fails(nil, "update", "-r", file, id)
	b.fails([]string{"does not exist"}, "update", "--memory", "64m", "no-such")
	b.must("kill", id, "KILL")
	b.awaitStatus(id, "stopped")
	b.fails([]string{"not running"}, "update", "--memory", "64m", id)
	b.must("delete", id)
	b.wantClean(id)
}

// TestUpdateInside wants the new limits to hold, and to show, inside the container.
func TestUpdateInside(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.config["linux"].(map[string]any)["resources"] = map[string]any{"memory": map[string]any{"limit": 128 << 20}, "pids": map[string]any{"limit": 5}}
	id := b.running()
	const many = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
	if r := b.call("exec", id, "sh", "-c", many); r.code == 0 {
		t.Errorf("nine processes in a container with five: %+v", r)
	}
	until(t, "the end of the processes", func() bool { return strings.Count(b.must("ps", id), "\n") == 2 })
	b.must("update", "--pids-limit", "100", "--memory", "512m", id)
	if r := b.call("exec", id, "sh", "-c", many); r.code != 0 {
		t.Errorf("after the update: %+v", r)
	}
	// More than the first limit of memory, in a file in memory.
	if r := b.call("exec", id, "sh", "-c", "busybox dd if=/dev/zero of=/dev/f bs=1M count=60 2>/dev/null && busybox wc -c </dev/f"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if isRunc() {
		return // on Linux, /proc/meminfo is the host's
	}
	if out := b.must("exec", id, "busybox", "grep", "MemTotal", "/proc/meminfo"); strings.Join(strings.Fields(out), " ") != "MemTotal: 524288 kB" {
		t.Errorf("after the update: %s", out)
	}
	b.must("update", "--pids-limit", "5", "--memory", "256m", id)
	if r := b.call("exec", id, "sh", "-c", many); r.code == 0 {
		t.Errorf("after the second update: %+v", r)
	}
}

// TestEventsStats wants the figures in the form of runc's events.
func TestEventsStats(t *testing.T) {
	b := newBundle(t, "sh", "-c", "sleep 1000 & exec sleep 1000")
	b.config["linux"].(map[string]any)["resources"] = map[string]any{"memory": map[string]any{"limit": 128 << 20}}
	id := b.running()
	until(t, "two processes", func() bool { return strings.Count(b.must("ps", id), "\n") == 3 })
	var e struct {
		Type, ID string
		Data     struct {
			CPU struct {
				Usage struct {
					Total, Kernel, User   int64
					Percpu, Percpu_kernel []int64
				}
			}
			Memory struct {
				Usage, Swap, Kernel, KernelTCP struct{ Limit, Usage, Max, Failcnt uint64 }
				Raw                            map[string]uint64
			}
			Pids struct{ Current int }
		}
	}
	if err := json.Unmarshal([]byte(b.must("events", "--stats", id)), &e); err != nil {
		t.Fatal(err)
	}
	d := &e.Data
	if e.Type != "stats" || e.ID != id || d.CPU.Usage.Total == 0 || len(d.CPU.Usage.Percpu) == 0 || len(d.CPU.Usage.Percpu_kernel) == 0 ||
		d.Memory.Usage.Limit != 128<<20 || d.Memory.Usage.Usage == 0 || d.Memory.KernelTCP.Limit == 0 || len(d.Memory.Raw) == 0 || d.Pids.Current != 2 {
		t.Errorf("%+v", e)
	}
	b.must("kill", id, "KILL")
	b.awaitStatus(id, "stopped")
	b.fails([]string{"not running"}, "events", "--stats", id)
}
