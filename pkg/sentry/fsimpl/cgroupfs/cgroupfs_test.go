package cgroupfs_test

import (
	"testing"

	"husk/pkg/sentry/fsimpl/cgroupfs"
	"husk/pkg/sentry/fsimpl/proctest"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// reader reads a file as the task does.
func reader(w *proctest.World, ctx vfs.Context) func(p string) string {
	return func(p string) string {
		w.T.Helper()
		s, err := w.Read(ctx, p)
		if err != nil {
			w.T.Errorf("%s: %v", p, err)
		}
		return s
	}
}

func TestLimits(t *testing.T) {
	res := kernel.Resources{Memory: 64 << 20, CPUQuota: 150000, CPUPeriod: 50000, CPUShares: 2048, CPUs: "0-1"}
	w := proctest.New(t, res, cgroupfs.Register)
	w.Mount(w.Ctx, "cgroup", "/v2", "")
	w.Mount(w.Ctx, "cgroup", "/mem", "memory")
	w.Mount(w.Ctx, "cgroup", "/cpu", "cpu,cpuacct")
	w.Mount(w.Ctx, "cgroup", "/pids", "pids")
	w.Mount(w.Ctx, "cgroup", "/systemd", "none,name=systemd")
	first, second := w.Spawn(nil), w.Spawn(nil)
	read := reader(w, first.Leader())
	for p, want := range map[string]string{
		"/v2/memory.max": "67108864\n", "/v2/cpu.max": "150000 50000\n", "/v2/cpu.weight": "79\n", "/v2/pids.max": "5000\n", "/v2/pids.current": "2\n", "/v2/pids.peak": "2\n",
		"/v2/cgroup.procs": "1\n2\n", "/v2/cgroup.type": "domain\n", "/v2/cpuset.cpus": "0-1\n", "/v2/cpuset.cpus.effective": "0-2\n", "/v2/cgroup.events": "populated 1\nfrozen 0\n",
		"/mem/memory.limit_in_bytes": "67108864\n", "/mem/tasks": "1\n2\n", "/cpu/cpu.cfs_quota_us": "150000\n", "/cpu/cpu.cfs_period_us": "50000\n", "/cpu/cpu.shares": "2048\n",
		"/pids/pids.max": "5000\n", "/systemd/cgroup.procs": "1\n2\n",
	} {
		if s := read(p); s != want {
			t.Errorf("%s: %q, want %q", p, s, want)
		}
	}
	if s := string(cgroupfs.AppendProc(w.K, nil)); s != "4:name=systemd:/\n3:pids:/\n2:cpu,cpuacct:/\n1:memory:/\n0::/\n" {
		t.Errorf("cgroup of a process: %q", s)
	}
	w.CT.SetResources(kernel.Resources{})
	w.CT.SetPIDsLimit(0)
	for p, want := range map[string]string{
		"/v2/memory.max": "max\n", "/v2/cpu.max": "max 100000\n", "/v2/cpu.weight": "100\n", "/v2/pids.max": "max\n", "/mem/memory.limit_in_bytes": "9223372036854771712\n",
		"/cpu/cpu.cfs_quota_us": "-1\n", "/cpu/cpu.shares": "1024\n",
	} {
		if s := read(p); s != want {
			t.Errorf("without limits: %s: %q, want %q", p, s, want)
		}
	}
	w.End(second)
	if s := read("/v2/cgroup.procs"); s != "1\n" {
		t.Errorf("processes: %q", s)
	}
	ctx := first.Leader()
	for data, want := range map[string]error{"0": nil, "1": nil, "77": unix.ESRCH, "x": unix.EINVAL} {
		if err := w.Write(ctx, "/v2/cgroup.procs", data); err != want {
			t.Errorf("move %s: %v, want %v", data, err, want)
		}
	}
}

func TestEveryFile(t *testing.T) {
	w := proctest.New(t, kernel.Resources{}, cgroupfs.Register)
	w.Mount(w.Ctx, "cgroup2", "/v2", "nsdelegate")
	w.Mount(w.Ctx, "cgroup", "/v1", "all")
	tg := w.Spawn(nil)
	n := 0
	for _, root := range []string{"/v1", "/v2"} {
		w.Tree(root, func(p string, e proctest.Entry) {
			n++
			for _, ctx := range []vfs.Context{w.Ctx, tg.Leader()} {
				fd, err := w.Open(ctx, p, unix.O_RDONLY)
				w.Check(err)
				if _, err := proctest.ReadAll(ctx, fd, 3); err != nil && p != "/v2/cgroup.kill" {
					t.Errorf("%s: %v", p, err)
				}
				fd.DecRef()
			}
		})
		if err := w.V.Mkdir(w.Ctx, vfs.Path{}, root+"/sub", 0755); err != unix.EPERM {
			t.Errorf("mkdir in %s: %v", root, err)
		}
	}
	if n < 80 {
		t.Errorf("only %d files", n)
	}
	p, err := w.V.Walk(w.Ctx, vfs.Path{}, "/", 0)
	w.Check(err)
	defer p.DecRef()
	for _, o := range []string{"bogus", "memory=1", "name=", "name=a:b"} {
		if err := w.V.Mount(w.Ctx, "cgroup", p, "cgroup", 0, o); err != unix.EINVAL {
			t.Errorf("option %q: %v", o, err)
		}
	}
}
