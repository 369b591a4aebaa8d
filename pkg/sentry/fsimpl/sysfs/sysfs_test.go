package sysfs_test

import (
	"testing"

	"husk/pkg/sentry/fsimpl/proctest"
	"husk/pkg/sentry/fsimpl/sysfs"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

func TestFiles(t *testing.T) {
	w := proctest.New(t, kernel.Resources{}, sysfs.Register)
	w.Mount(w.Ctx, "sysfs", "/sys", "")
	n := 0
	w.Tree("/sys", func(p string, e proctest.Entry) {
		var st vfs.Stat
		if err := w.V.Stat(w.Ctx, vfs.Path{}, p, vfs.FollowLast, 0, &st); err != nil {
			t.Errorf("%s: %v", p, err)
		}
		if e.Type != unix.DT_REG {
			return
		}
		n++
		fd, err := w.Open(w.Ctx, p, unix.O_RDONLY)
		w.Check(err)
		defer fd.DecRef()
		whole, err := proctest.ReadAll(w.Ctx, fd, 4096)
		w.Check(err)
		if b, err := proctest.ReadAll(w.Ctx, fd, 1); string(b) != string(whole) || err != nil {
			t.Errorf("%s: bytes %q %v, whole %q", p, b, err, whole)
		}
		if k, err := fd.PRead(w.Ctx, mm.BytesSeq(make([]byte, 1)), 1<<40); k != 0 || err != nil {
			t.Errorf("%s: beyond the end: %d %v", p, k, err)
		}
		if err := w.Write(w.As(w.User(1)), p, "1"); err != unix.EACCES {
			t.Errorf("%s: write: %v", p, err)
		}
	})
	if n < 100 {
		t.Errorf("only %d files", n)
	}
	for p, want := range map[string]string{
		"/sys/devices/system/cpu/online": "0-2\n", "/sys/devices/system/cpu/cpu1/topology/thread_siblings": "2\n", "/sys/devices/system/cpu/cpu2/topology/core_siblings": "7\n",
		"/sys/devices/system/node/node0/cpulist": "0-2\n", "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size": "2097152\n", "/sys/class/net/lo/address": "00:00:00:00:00:00\n",
	} {
		if s := w.MustRead(p); s != want {
			t.Errorf("%s: %q, want %q", p, s, want)
		}
	}
	if err := w.V.Mkdir(w.Ctx, vfs.Path{}, "/sys/x", 0755); err != unix.EPERM {
		t.Errorf("mkdir: %v", err)
	}
}
