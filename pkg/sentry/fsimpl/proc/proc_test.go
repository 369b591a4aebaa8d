package proc_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/proc"
	"husk/pkg/sentry/fsimpl/proctest"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

func newWorld(t testing.TB) *proctest.World {
	w := proctest.New(t, kernel.Resources{}, proc.Register)
	w.Mount(proc.WithPIDNS(w.Ctx, w.CT.PIDNS()), "proc", "/proc", "")
	return w
}

func dirOf(tg *kernel.ThreadGroup) string { return "/proc/" + strconv.Itoa(int(tg.ID())) }

// changing are files whose content is not the same at every read.
func changing(p string) bool {
	for _, s := range []string{"random/uuid", "/uptime", "/loadavg", "/stat", "cpuinfo", "status", "schedstat", "meminfo", "vmstat", "oom_score"} {
		if strings.HasSuffix(p, s) {
			return true
		}
	}
	return false
}

func TestEveryFile(t *testing.T) {
	w := newWorld(t)
	tg := w.Spawn(nil)
	n := 0
	w.Tree("/proc", func(p string, e proctest.Entry) {
		var st vfs.Stat
		if err := w.V.Stat(w.Ctx, vfs.Path{}, p, 0, unix.STATX_BASIC_STATS, &st); err != nil {
			t.Errorf("%s: stat: %v", p, err)
			return
		}
		if strings.HasPrefix(p, dirOf(tg)) && st.Ino != e.Ino {
			t.Errorf("%s: inode %#x, listed as %#x", p, st.Ino, e.Ino)
		}
		if uint8(st.Mode>>12) != e.Type {
			t.Errorf("%s: mode %o, type %d", p, st.Mode, e.Type)
		}
		if e.Type == unix.DT_LNK && !strings.HasSuffix(p, "self") {
			if _, err := w.V.Readlink(w.Ctx, vfs.Path{}, p); err != nil {
				t.Errorf("%s: readlink: %v", p, err)
			}
		}
		if e.Type != unix.DT_REG || st.Mode&0444 == 0 || strings.HasSuffix(p, "/mem") {
			return
		}
		n++
		fd, err := w.Open(w.Ctx, p, unix.O_RDONLY)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			return
		}
		defer fd.DecRef()
		whole, err := proctest.ReadAll(w.Ctx, fd, 1<<20)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			return
		}
		for _, off := range []int64{int64(len(whole)), int64(len(whole)) + 1, 1 << 40, 1<<63 - 20} {
			if k, err := fd.PRead(w.Ctx, mm.BytesSeq(make([]byte, 16)), off); k != 0 || err != nil {
				t.Errorf("%s: read at %d of %d: %d %v", p, off, len(whole), k, err)
			}
		}
		if changing(p) {
			return
		}
		for _, size := range []int{1, 7, 4096} {
			if b, err := proctest.ReadAll(w.Ctx, fd, size); string(b) != string(whole) || err != nil {
				t.Errorf("%s: reads of %d bytes give %q, %v; one read gives %q", p, size, b, err, whole)
			}
		}
	})
	if n < 200 {
		t.Errorf("only %d files", n)
	}
}

func TestContent(t *testing.T) {
	w := newWorld(t)
	tg := w.Spawn(w.User(1000))
	d := dirOf(tg)
	for _, x := range [][2]string{
		{"/cmdline", "prog\x00arg 1\x00"}, {"/environ", "A=b\x00"}, {"/comm", "prog1\n"}, {"/cgroup", "0::/\n"}, {"/setgroups", "allow\n"},
		{"/uid_map", "         0          0 4294967295\n"}, {"/oom_score_adj", "0\n"}, {"/loginuid", "4294967295"}, {"/coredump_filter", "00000033\n"},
	} {
		if s := w.MustRead(d + x[0]); s != x[1] {
			t.Errorf("%s: %q, want %q", x[0], s, x[1])
		}
	}
	maps := w.MustRead(d + "/maps")
	if !strings.HasPrefix(maps, "00400000-00401000 r-xp 00000000 ") || !strings.Contains(maps, "                    /prog1\n") || !strings.Contains(maps, "[stack]\n") {
		t.Errorf("maps: %s", maps)
	}
	st := strings.Fields(w.MustRead(d + "/stat"))
	if len(st) != 52 || st[0] != "1" || st[1] != "(prog1)" || st[2] != "R" {
		t.Errorf("stat: %q", st)
	}
	status := w.MustRead(d + "/status")
	for _, s := range []string{"\nTgid:\t1\n", "\nPid:\t1\n", "\nPPid:\t0\n", "\nUid:\t1000\t1000\t1000\t1000\n", "\nThreads:\t1\n", "\nVmRSS:\t", "\nCpus_allowed_list:\t0-2\n", "\nCpus_allowed:\t7\n"} {
		if !strings.Contains(status, s) {
			t.Errorf("status lacks %q: %s", s, status)
		}
	}
	if s, err := w.V.Readlink(w.Ctx, vfs.Path{}, d+"/exe"); s != "/prog1" || err != nil {
		t.Errorf("exe: %q %v", s, err)
	}
	if n := strings.Count(w.MustRead("/proc/cpuinfo"), "processor\t: "); n != 3 {
		t.Errorf("cpuinfo: %d processors", n)
	}
}

// sensitive are files that only those who may look into a process can read.
var sensitive = []string{"environ", "auxv", "maps", "smaps", "smaps_rollup", "mem", "io", "syscall", "personality", "fdinfo/1", "timers"}

var links = []string{"exe", "cwd", "root", "fd/1", "ns/mnt", "ns/user", "ns/pid"}

// TestAccess looks at processes as users of several kinds, after root has filled the cache of names.
func TestAccess(t *testing.T) {
	w := newWorld(t)
	own, foreign, undumpable := w.Spawn(w.User(1000)), w.Spawn(w.User(1001)), w.Spawn(w.User(1000))
	undumpable.SetDumpable(0)
	powerful := w.User(1000)
	net := auth.Caps(unix.CAP_NET_ADMIN)
	powerful.Permitted, powerful.Effective, powerful.Inheritable, powerful.Ambient = net, net, net, net
	capable := w.Spawn(powerful)
	inner, err := w.User(1000).NewUserNamespace()
	w.Check(err)
	user, nested := w.As(w.User(1000)), w.As(inner)
	for _, x := range []struct {
		name string
		ctx  vfs.Context
		tg   *kernel.ThreadGroup
		may  bool
	}{
		{"root", w.Ctx, foreign, true}, {"root, not dumpable", w.Ctx, undumpable, true}, {"same user", user, own, true}, {"other user", user, foreign, false},
		{"not dumpable", user, undumpable, false}, {"more capable", user, capable, false}, {"user namespace", nested, own, false}, {"user namespace, other", nested, foreign, false},
	} {
		for _, f := range sensitive {
			_, err := w.Read(w.Ctx, dirOf(x.tg)+"/"+f)
			_, err = w.Read(x.ctx, dirOf(x.tg)+"/"+f)
			if f == "mem" && err == unix.EIO {
				err = nil
			}
			if (err == nil) != x.may || err != nil && err != unix.EACCES && err != unix.EPERM {
				t.Errorf("%s: %s: %v", x.name, f, err)
			}
		}
		for _, f := range links {
			p := dirOf(x.tg) + "/" + f
			var st vfs.Stat
			w.Check(w.V.Stat(w.Ctx, vfs.Path{}, p, vfs.FollowLast, 0, &st))
			_, err := w.V.Readlink(x.ctx, vfs.Path{}, p)
			serr := w.V.Stat(x.ctx, vfs.Path{}, p, vfs.FollowLast, 0, &st)
			if (err == nil) != x.may || (serr == nil) != x.may || err != nil && err != unix.EACCES || serr != nil && serr != unix.EACCES {
				t.Errorf("%s: %s: readlink %v, stat %v", x.name, f, err, serr)
			}
		}
		stat, err := w.Read(x.ctx, dirOf(x.tg)+"/stat")
		w.Check(err)
		if f := strings.Fields(stat); (f[27] != "0") != x.may || (f[25] != "1") != x.may {
			t.Errorf("%s: addresses in stat: %s", x.name, stat)
		}
	}
}

// TestForeignMemory looks from a user namespace at a process that joined it and was not made in it: its memory is that of outside until it executes
// a program.
func TestForeignMemory(t *testing.T) {
	w := newWorld(t)
	inner, err := w.User(1000).NewUserNamespace()
	w.Check(err)
	w.Check(inner.UserNS.SetMappings(false, []auth.IDMapEntry{{Inside: 0, Outside: 1000, Length: 1}}, inner))
	visitor := w.Spawn(inner)
	if _, err := w.Read(w.As(inner), dirOf(visitor)+"/environ"); err != nil {
		t.Fatalf("a process of the namespace: %v", err)
	}
	joined := w.Spawn(w.User(1000))
	c := joined.Leader().Credentials().Clone()
	c.EnterUserNS(inner.UserNS)
	joined.SetDumpable(0)
	joined.Leader().SetCredentials(c)
	joined.SetDumpable(0)
	for _, f := range []string{"environ", "mem", "maps", "fdinfo/1"} {
		if _, err := w.Read(w.As(inner), dirOf(joined)+"/"+f); err != unix.EACCES {
			t.Errorf("%s of a process that joined: %v", f, err)
		}
	}
	if _, err := w.Read(w.Ctx, dirOf(joined)+"/environ"); err != nil {
		t.Errorf("root outside: %v", err)
	}
}

// TestDroppedRights checks that a link which was looked up with rights leads nowhere without them.
func TestDroppedRights(t *testing.T) {
	w := newWorld(t)
	tg := w.Spawn(nil)
	fd, err := w.Open(w.Ctx, dirOf(tg)+"/fd/1", unix.O_PATH|unix.O_NOFOLLOW)
	w.Check(err)
	defer fd.DecRef()
	if _, err := w.V.ReadlinkPath(w.Ctx, fd.Path()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.V.ReadlinkPath(w.As(w.User(7)), fd.Path()); err != unix.EACCES {
		t.Fatalf("readlink of a passed-on link: %v", err)
	}
	io, err := w.Open(w.Ctx, dirOf(tg)+"/io", unix.O_RDONLY)
	w.Check(err)
	defer io.DecRef()
	if _, err := proctest.ReadAll(w.As(w.User(7)), io, 100); err != unix.EACCES {
		t.Fatalf("read of a passed-on file: %v", err)
	}
}

func TestDeath(t *testing.T) {
	w := newWorld(t)
	w.Spawn(nil)
	tg := w.Spawn(nil)
	d := dirOf(tg)
	m := tg.Leader().MM()
	open := map[string]*vfs.FileDescription{}
	for _, f := range []string{"mem", "maps", "smaps", "environ", "auxv", "cmdline", "status", "stat", "fdinfo/1", "oom_score_adj", "smaps_rollup", "mounts", "uid_map"} {
		flags := uint32(unix.O_RDONLY)
		if f == "mem" || f == "oom_score_adj" {
			flags = unix.O_RDWR
		}
		fd, err := w.Open(w.Ctx, d+"/"+f, flags)
		w.Check(err)
		defer fd.DecRef()
		open[f] = fd
	}
	var b [4]byte
	if n, err := open["mem"].PRead(w.Ctx, mm.BytesSeq(b[:]), proctest.Base); n != 4 || string(b[:]) != "\x7fELF" {
		t.Fatalf("mem: %d %v %q", n, err, b)
	}
	if n, err := open["mem"].PWrite(w.Ctx, mm.BytesSeq([]byte("code")), proctest.Base); n != 4 || err != nil {
		t.Fatalf("write to code: %d %v", n, err)
	}
	if n, err := m.CopyIn(proctest.Base, b[:]); n != 4 || err != nil || string(b[:]) != "code" {
		t.Fatalf("code after the write: %q %v", b, err)
	}
	dir, err := w.Open(w.Ctx, d, unix.O_DIRECTORY)
	w.Check(err)
	defer dir.DecRef()
	w.End(tg)
	if m.IncUsers() {
		t.Error("open files keep a dead process' memory")
	}
	want := map[string]error{"mem": nil, "environ": nil, "maps": unix.ESRCH, "smaps": unix.ESRCH, "smaps_rollup": unix.ESRCH, "cmdline": unix.ESRCH, "status": unix.ESRCH,
		"stat": unix.ESRCH, "fdinfo/1": unix.ENOENT, "oom_score_adj": unix.ESRCH}
	for f, e := range want {
		if n, err := open[f].PRead(w.Ctx, mm.BytesSeq(b[:]), 0); n != 0 || err != e {
			t.Errorf("%s of a dead process: %d %v, want %v", f, n, err, e)
		}
	}
	if _, err := w.Read(w.Ctx, d+"/stat"); err != unix.ENOENT {
		t.Errorf("open: %v", err)
	}
	if _, err := w.V.Open(w.Ctx, dir.Path(), "stat", &vfs.OpenOptions{}); err != unix.ESRCH {
		t.Errorf("open in a dead directory: %v", err)
	}
	if n, err := open["mem"].PWrite(w.Ctx, mm.BytesSeq(b[:]), proctest.Data); n != 0 || err != nil {
		t.Errorf("write: %d %v", n, err)
	}
}

func TestHidePID(t *testing.T) {
	w := newWorld(t)
	tg := w.Spawn(nil)
	ns := proc.WithPIDNS(w.Ctx, w.CT.PIDNS())
	user := w.As(w.User(1000))
	member := w.User(1001)
	member.Groups = []auth.KGID{55}
	for _, x := range []struct {
		opts                  string
		listed                bool
		stat, file, memberErr error
	}{
		{"", true, nil, nil, nil}, {"hidepid=1,gid=55", true, nil, unix.EPERM, nil}, {"hidepid=invisible,gid=55", false, unix.ENOENT, unix.ENOENT, nil},
		{"hidepid=ptraceable,gid=55", false, unix.ENOENT, unix.ENOENT, unix.ENOENT},
	} {
		at := "/p" + strconv.Itoa(len(x.opts))
		w.Mount(ns, "proc", at, x.opts)
		p := at + "/" + strconv.Itoa(int(tg.ID()))
		var st vfs.Stat
		if err := w.V.Stat(w.Ctx, vfs.Path{}, p+"/status", 0, 0, &st); err != nil {
			t.Errorf("%s: root: %v", x.opts, err)
		}
		if err := w.V.Stat(user, vfs.Path{}, p, 0, 0, &st); err != x.stat {
			t.Errorf("%s: stat: %v", x.opts, err)
		}
		if _, err := w.Read(user, p+"/status"); err != x.file {
			t.Errorf("%s: read: %v", x.opts, err)
		}
		if _, err := w.Read(w.As(member), p+"/status"); err != x.memberErr {
			t.Errorf("%s: member of the group: %v", x.opts, err)
		}
		list, err := w.List(user, at, 100)
		w.Check(err)
		found := false
		for _, e := range list {
			found = found || e.Name == strconv.Itoa(int(tg.ID()))
		}
		if found != x.listed {
			t.Errorf("%s: listed: %v", x.opts, found)
		}
	}
	for _, o := range []string{"hidepid=3", "hidepid=x", "gid=x", "subset=all", "bogus"} {
		p, err := w.V.Walk(w.Ctx, vfs.Path{}, "/proc", vfs.FollowLast)
		w.Check(err)
		if err := w.V.Mount(ns, "proc", p, "proc", 0, o); err != unix.EINVAL {
			t.Errorf("option %s: %v", o, err)
		}
		p.DecRef()
	}
	w.Mount(ns, "proc", "/sub", "subset=pid")
	if _, err := w.Read(w.Ctx, "/sub/meminfo"); err != unix.ENOENT {
		t.Errorf("subset=pid: %v", err)
	}
}

// TestListing lists many processes in small steps while others end.
func TestListing(t *testing.T) {
	w := newWorld(t)
	var all []*kernel.ThreadGroup
	for range 60 {
		all = append(all, w.Spawn(nil))
	}
	fd, err := w.Open(w.Ctx, "/proc", unix.O_DIRECTORY)
	w.Check(err)
	defer fd.DecRef()
	seen := map[string]int{}
	for i := 0; ; i++ {
		s := proctest.Sink{Room: 3}
		w.Check(fd.ReadDir(w.Ctx, &s))
		if len(s.List) == 0 {
			break
		}
		for _, e := range s.List {
			seen[e.Name]++
		}
		if i%2 == 0 && i/2*3+1 < len(all) {
			w.End(all[i/2*3+1])
		}
	}
	for i, tg := range all {
		n := seen[strconv.Itoa(int(tg.ID()))]
		if n > 1 || n == 0 && i%3 != 1 {
			t.Errorf("process %d was listed %d times", tg.ID(), n)
		}
	}
}

func TestSettings(t *testing.T) {
	w := newWorld(t)
	user := w.As(w.User(1000))
	for _, x := range []struct {
		file, val, after string
		err              error
	}{
		{"kernel/shmmax", "68719476736\n", "68719476736\n", nil}, {"kernel/shmmax", "18446744073709551615", "18446744073709551615\n", nil},
		{"kernel/shmmax", "x", "18446744073709551615\n", unix.EINVAL}, {"kernel/sem", "250 32000 32 128", "250\t32000\t32\t128\n", nil},
		{"kernel/sem", "251", "251\t32000\t32\t128\n", nil}, {"kernel/sem", "1 2 3 4 5", "251\t32000\t32\t128\n", unix.EINVAL},
		{"vm/overcommit_memory", "3", "0\n", unix.EINVAL}, {"vm/overcommit_memory", "1", "1\n", nil}, {"vm/overcommit_memory", "", "1\n", unix.EINVAL},
		{"kernel/ostype", "x", "Linux\n", unix.EACCES}, {"kernel/hostname", "new\n", "new\n", nil}, {"kernel/domainname", strings.Repeat("d", 100), strings.Repeat("d", 64) + "\n", nil},
		{"kernel/core_pattern", "|/bin/x %p\n", "|/bin/x %p\n", nil}, {"fs/pipe-max-size", "8192", "8192\n", nil}, {"fs/protected_symlinks", "2", "1\n", unix.EINVAL},
		{"kernel/pid_max", "-1", "4194304\n", unix.EINVAL}, {"kernel/core_pattern", strings.Repeat("x", 5000), "|/bin/x %p\n", unix.EINVAL},
	} {
		p := "/proc/sys/" + x.file
		if err := w.Write(user, p, x.val); err != unix.EACCES {
			t.Errorf("%s: a user: %v", x.file, err)
		}
		if err := w.Write(w.Ctx, p, x.val); err != x.err {
			t.Errorf("%s: %q: %v, want %v", x.file, x.val, err, x.err)
		}
		if s := w.MustRead(p); s != x.after {
			t.Errorf("%s is %q after %q", x.file, s, x.val)
		}
	}
	if s, ok := proc.Setting(w.K, "kernel/shmmax"); s != "18446744073709551615" || !ok {
		t.Errorf("Setting: %q %v", s, ok)
	}
	if w.K.RootUTSNamespace().HostName() != "new" || w.V.Sysctl().PipeMaxSize.Load() != 8192 {
		t.Error("settings without effect")
	}
}

func TestOOM(t *testing.T) {
	w := newWorld(t)
	tg := w.Spawn(w.User(1000))
	user := w.As(w.User(1000))
	p := dirOf(tg) + "/oom_score_adj"
	for _, x := range []struct {
		ctx vfs.Context
		val string
		err error
	}{{user, "100", nil}, {user, "50", unix.EACCES}, {w.As(w.User(9)), "500", unix.EACCES}, {w.Ctx, "-1000", nil}, {w.Ctx, "1001", unix.EINVAL}, {w.Ctx, "x", unix.EINVAL},
		{w.Ctx, "99999999999999999999", unix.ERANGE}} {
		if err := w.Write(x.ctx, p, x.val); err != x.err {
			t.Errorf("%s: %v, want %v", x.val, err, x.err)
		}
	}
	if s := w.MustRead(dirOf(tg) + "/oom_score"); s != "0\n" {
		t.Errorf("oom_score %q", s)
	}
}

// TestIDMap writes maps with the rights of the opener and of the writer.
func TestIDMap(t *testing.T) {
	w := newWorld(t)
	inner, err := w.User(1000).NewUserNamespace()
	w.Check(err)
	tg := w.Spawn(inner)
	p := dirOf(tg) + "/uid_map"
	// A descriptor that an unprivileged stranger opened for writing gains nothing from a privileged writer.
	own, err := w.Open(w.As(inner), p, unix.O_WRONLY)
	w.Check(err)
	defer own.DecRef()
	for _, bad := range []string{"0 0 65536", "0 1000 2", "0 1000", "x y z", "", "0 1000 0", "4294967295 1000 1", "0 1000 1\n0 1000 1", "0 1000 1 1", strings.Repeat("0 1000 1\n", 500)} {
		if n, err := own.PWrite(w.Ctx, mm.BytesSeq([]byte(bad)), 0); err == nil && n > 0 {
			t.Errorf("%q was accepted", bad)
		}
	}
	if _, err := own.PWrite(w.Ctx, mm.BytesSeq([]byte("0 1000 1")), 1); err != unix.EINVAL {
		t.Errorf("write at offset 1: %v", err)
	}
	if _, err := own.PWrite(w.As(inner), mm.BytesSeq([]byte("  5 1000 1\n")), 0); err != nil {
		t.Errorf("own map: %v", err)
	}
	if s := w.MustRead(p); s != "         5       1000          1\n" {
		t.Errorf("map: %q", s)
	}
	if err := w.Write(w.Ctx, p, "0 0 1"); err != unix.EPERM {
		t.Errorf("second map: %v", err)
	}
}

// TestRace reads everything of processes that come and go.
func TestRace(t *testing.T) {
	w := newWorld(t)
	w.Spawn(nil)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx := w.As(auth.NewRootCredentials(w.K.RootUserNamespace()))
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				d := fmt.Sprintf("/proc/%d", n%20+1)
				list, err := w.List(ctx, d, 10)
				if err != nil {
					continue
				}
				for _, e := range list {
					if e.Type == unix.DT_REG && e.Name != "mem" {
						w.Read(ctx, d+"/"+e.Name)
					}
				}
				for _, f := range links {
					w.V.Readlink(ctx, vfs.Path{}, d+"/"+f)
				}
				w.List(ctx, d+"/fd", 2)
				w.List(ctx, "/proc", 5)
				w.Read(ctx, "/proc/stat")
			}
		}()
	}
	for range 40 {
		tg := w.Spawn(nil)
		w.End(tg)
	}
	close(stop)
	wg.Wait()
}

func FuzzReads(f *testing.F) {
	w := newWorld(f)
	tg := w.Spawn(nil)
	files := []string{dirOf(tg) + "/maps", dirOf(tg) + "/mem", dirOf(tg) + "/smaps", dirOf(tg) + "/status", dirOf(tg) + "/cmdline", "/proc/meminfo", "/proc/sys/kernel/ostype"}
	f.Add(uint8(0), int64(0), uint16(1))
	f.Add(uint8(1), int64(proctest.Base), uint16(5000))
	f.Fuzz(func(t *testing.T, i uint8, off int64, n uint16) {
		fd, err := w.Open(w.Ctx, files[int(i)%len(files)], unix.O_RDONLY)
		w.Check(err)
		defer fd.DecRef()
		if k, _ := fd.PRead(w.Ctx, mm.BytesSeq(make([]byte, n)), off); k < 0 || k > int64(n) {
			t.Errorf("%d bytes of %d", k, n)
		}
	})
}

func FuzzWrites(f *testing.F) {
	w := newWorld(f)
	inner, err := w.User(1000).NewUserNamespace()
	w.Check(err)
	d := dirOf(w.Spawn(inner))
	files := []string{d + "/uid_map", d + "/oom_score_adj", d + "/setgroups", d + "/oom_adj", d + "/coredump_filter", d + "/timerslack_ns", "/proc/sys/kernel/sem", "/proc/sys/kernel/shmmax",
		"/proc/sys/kernel/hostname", "/proc/sys/fs/pipe-max-size"}
	f.Add(uint8(0), "0 1000 1", int64(0))
	f.Fuzz(func(t *testing.T, i uint8, data string, off int64) {
		fd, err := w.Open(w.Ctx, files[int(i)%len(files)], unix.O_RDWR)
		w.Check(err)
		defer fd.DecRef()
		fd.PWrite(w.Ctx, mm.BytesSeq([]byte(data)), off)
		proctest.ReadAll(w.Ctx, fd, 100)
	})
}
