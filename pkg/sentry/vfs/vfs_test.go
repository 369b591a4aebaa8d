package vfs

import (
	"math"
	"testing"

	"husk/pkg/sentry/auth"

	"golang.org/x/sys/unix"
)

// flatFS is a directory of n empty files that exist as long as they are looked at.
type flatFS struct {
	NoSuperblockOps
	sb   *Superblock
	live int
}

func (f *flatFS) StatFS(Context, *StatFS) error { return nil }

type flatDir struct {
	Inode
	NoOps
	fs *flatFS
}

func (d *flatDir) Stat(_ Context, _ uint32, st *Stat) error {
	st.Mode, st.Ino = d.Mode(), d.Ino()
	return nil
}

func (d *flatDir) Release() { d.fs.live-- }

func (d *flatDir) Lookup(_ Context, name string) (*Inode, error) {
	f := &flatDir{fs: d.fs}
	f.Init(f, d.fs.sb, 2, unix.S_IFDIR|0755, 0, 0, InodeNegative)
	d.fs.live++
	if name[0] == '-' {
		d.fs.live--
		return nil, unix.ENOENT
	}
	return &f.Inode, nil
}

func flatWorld(t testing.TB, cache int) (*VFS, Context, *flatFS) {
	v := New(cache)
	f := &flatFS{}
	f.sb = v.NewSuperblock(nil, f, nil, 0)
	root := &flatDir{fs: f}
	root.Init(root, f.sb, 1, unix.S_IFDIR|0755, 0, 0, InodeNegative)
	f.sb.SetRoot(&root.Inode)
	uns := auth.NewRootUserNamespace()
	ns := v.NewMountNamespace(f.sb, uns, 0)
	p := ns.Root()
	fs := NewFSContext(p, p, 022)
	p.DecRef()
	return v, NewKernelContext(auth.NewRootCredentials(uns), fs, ns), f
}

func TestCacheIsBounded(t *testing.T) {
	v, ctx, f := flatWorld(t, 1000)
	var st Stat
	for i := range 100000 {
		name := utoa(uint64(i))
		if err := v.Stat(ctx, Path{}, name+"/a/b", 0, 0, &st); err != nil {
			t.Fatal(err)
		}
		if err := v.Stat(ctx, Path{}, name+"/-none", 0, 0, &st); err != unix.ENOENT {
			t.Fatal(err)
		}
	}
	if n := v.cache.count.Load(); n > 1100 || f.live > 1100 {
		t.Fatalf("%d dentries, %d inodes", n, f.live)
	}
}

func TestFDTable(t *testing.T) {
	v, ctx, _ := flatWorld(t, 0)
	fd := v.NewAnonFile("x", dummyFile{}, unix.O_RDWR)
	tab := v.NewFDTable()
	for want := range int32(200) {
		if n, err := tab.Install(ctx, fd, 0, want%2 == 0); err != nil || n != want {
			t.Fatalf("%d, %v, want %d", n, err, want)
		}
	}
	if _, err := tab.Install(ctx, fd, 1024, false); err != unix.EINVAL {
		t.Fatal(err)
	}
	if n, err := tab.Install(ctx, fd, 1000, false); n != 1000 || err != nil {
		t.Fatal(n, err)
	}
	for _, n := range []int32{7, 3} {
		if err := tab.Close(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.Close(ctx, 3); err != unix.EBADF {
		t.Fatal(err)
	}
	if n, _ := tab.Install(ctx, fd, 0, true); n != 3 {
		t.Fatal(n)
	}
	if n, _ := tab.Install(ctx, fd, 5, true); n != 7 {
		t.Fatal(n)
	}
	if err := tab.InstallAt(ctx, fd, 1024, false); err != unix.EBADF {
		t.Fatal(err)
	}
	c := tab.Fork(^uint32(0))
	c.CloseOnExec(ctx)
	if n, x := c.Next(0); n != 1 || x != fd {
		t.Fatal(n)
	} else {
		x.DecRef()
	}
	tab.CloseRange(ctx, 0, math.MaxInt32)
	if open, _ := tab.Count(); open != 0 {
		t.Fatal(open)
	}
	c.DecRef(ctx)
	if n := fd.refs.Load(); n != 1 {
		t.Fatalf("%d references", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if tab.Get(5) != nil {
			t.Fatal("open")
		}
	}); n != 0 {
		t.Fatal(n)
	}
}

// TestLateLookup looks a descriptor up that has been closed meanwhile, and whose description serves another descriptor's file.
func TestLateLookup(t *testing.T) {
	v, ctx, _ := flatWorld(t, 0)
	p, err := v.Walk(ctx, Path{}, "f", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.DecRef()
	tab := v.NewFDTable()
	install := func(n int32) *FileDescription {
		fd := v.NewFile(p, dummyFile{}, unix.O_RDONLY)
		if err := tab.InstallAt(ctx, fd, n, false); err != nil {
			t.Fatal(err)
		}
		fd.DecRef()
		return fd
	}
	for try := range 100 { // the pool may lose one
		old := install(0)
		tab.Close(ctx, 0)
		if tab.hold(0, old) {
			t.Fatal("a closed file")
		}
		if try%8 == 1 {
			tab.mu.Lock()
			tab.growLocked(2 * len(tab.used) * 64)
			tab.mu.Unlock()
		}
		if install(1) != old {
			tab.Close(ctx, 1)
			continue
		}
		if tab.hold(0, old) {
			t.Fatal("the file of another descriptor")
		}
		if n := old.refs.Load(); n != 1 {
			t.Fatalf("%d references", n)
		}
		if tab.Get(1) != old {
			t.Fatal("not found")
		}
		old.DecRef()
		tab.Close(ctx, 1)
		if try > 10 {
			return
		}
	}
	t.Fatal("descriptions are not used again")
}

type dummyFile struct{}

func (dummyFile) Release() {}

func TestRecordLocks(t *testing.T) {
	v, ctx, _ := flatWorld(t, 0)
	fd, err := v.Open(ctx, Path{}, "f", &OpenOptions{Flags: unix.O_PATH})
	if err != nil {
		t.Fatal(err)
	}
	a, b := v.NewFDTable(), v.NewFDTable()
	lock := func(owner any, typ int16, start, end int64) error {
		return fd.SetLock(ctx, FileLock{Type: typ, Start: start, End: end}, owner, false)
	}
	for _, x := range []struct {
		owner      any
		typ        int16
		start, end int64
		want       error
	}{
		{a, unix.F_WRLCK, 0, 99, nil},
		{b, unix.F_RDLCK, 99, 200, unix.EAGAIN},
		{b, unix.F_RDLCK, 100, 200, nil},
		{a, unix.F_RDLCK, 150, 160, nil},
		{a, unix.F_WRLCK, 150, 160, unix.EAGAIN},
		{a, unix.F_UNLCK, 40, 59, nil},
		{b, unix.F_WRLCK, 40, 59, nil},
		{b, unix.F_WRLCK, 39, 39, unix.EAGAIN},
		{fd, unix.F_RDLCK, 300, math.MaxInt64, nil},
		{a, unix.F_WRLCK, 1000, 1000, unix.EAGAIN},
	} {
		if err := lock(x.owner, x.typ, x.start, x.end); err != x.want {
			t.Fatalf("%+v: %v", x, err)
		}
	}
	l := FileLock{Type: unix.F_WRLCK, Start: 0, End: math.MaxInt64}
	fd.TestLock(&l, b)
	if l.Start != 0 || l.End != 39 || l.Type != unix.F_WRLCK {
		t.Fatalf("%+v", l)
	}
	v.releasePosixLocks(fd, a)
	if err := lock(b, unix.F_WRLCK, 0, 250); err != nil {
		t.Fatal(err)
	}
}

func TestDeadlock(t *testing.T) {
	v, ctx, _ := flatWorld(t, 0)
	fd, _ := v.Open(ctx, Path{}, "f", &OpenOptions{Flags: unix.O_PATH})
	a, b := v.NewFDTable(), v.NewFDTable()
	l0, l1 := FileLock{Type: unix.F_WRLCK, Start: 0, End: 0}, FileLock{Type: unix.F_WRLCK, Start: 1, End: 1}
	if fd.SetLock(ctx, l0, a, false) != nil || fd.SetLock(ctx, l1, b, false) != nil {
		t.Fatal("cannot lock")
	}
	done := make(chan error)
	go func() {
		done <- fd.SetLock(NewKernelContext(ctx.Credentials(), ctx.FS(), ctx.MountNS()), l1, a, true)
	}()
	for {
		v.locks.mu.Lock()
		n := len(v.locks.waits)
		v.locks.mu.Unlock()
		if n == 1 {
			break
		}
	}
	if err := fd.SetLock(ctx, l0, b, true); err != unix.EDEADLK {
		t.Fatal(err)
	}
	v.releasePosixLocks(fd, b)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// FuzzPathWalk walks any path in a file system where every name exists: nothing may crash, and the result must not depend on
// what is cached.
func FuzzPathWalk(f *testing.F) {
	for _, s := range []string{"", "/", "a", "a/b", "/a/../b/.", "..", "../../..", "a//b/", ".", "./", "-x", "a/-b/c", "//", "\x00", "a/\xff"} {
		f.Add(s, uint32(0))
		f.Add(s, uint32(FollowLast|Beneath))
		f.Add(s, uint32(InRoot|MustBeDir))
	}
	f.Fuzz(func(t *testing.T, path string, flags uint32) {
		v, ctx, fs := flatWorld(t, 4)
		fl := LookupFlags(flags) & (FollowLast | EmptyPath | MustBeDir | NoMagicLinks | NoSymlinks | Beneath | InRoot | NoXDev)
		p, err := v.Walk(ctx, Path{}, path, fl)
		var first string
		if err == nil {
			first, _ = v.PathString(ctx, p)
			p.DecRef()
		}
		q, err2 := v.Walk(ctx, Path{}, path, fl)
		if err != err2 {
			t.Fatalf("%v, then %v", err, err2)
		}
		if err == nil {
			if again, _ := v.PathString(ctx, q); again != first {
				t.Fatalf("%q, then %q", first, again)
			}
			q.DecRef()
		}
		ctx.MountNS().DecRef()
		ctx.FS().Release()
		if fs.live > 0 {
			t.Fatalf("%d inodes left", fs.live)
		}
	})
}

// TestMountMax: binds of shared mounts, which double each time, end at the limit of a namespace, and go with it.
func TestMountMax(t *testing.T) {
	v, ctx, fs := flatWorld(t, 1000)
	root := ctx.FS().RootRef()
	if err := v.SetPropagation(ctx, root, unix.MS_SHARED|unix.MS_REC); err != nil {
		t.Fatal(err)
	}
	var err error
	n := 0
	for ; n < 40 && err == nil; n++ {
		p, werr := v.Walk(ctx, Path{}, "/m"+utoa(uint64(n)), FollowLast)
		if werr != nil {
			t.Fatal(werr)
		}
		err = v.Bind(ctx, root, p, true)
		p.DecRef()
	}
	ns := ctx.MountNS()
	if have := ns.root.Load().count(2 * mountMax); err != unix.ENOSPC || have > mountMax || have < 1000 {
		t.Errorf("%v after %d binds, %d mounts", err, n, have)
	}
	root.DecRef()
	ctx.FS().Release()
	ns.DecRef()
	if fs.live > 0 {
		t.Errorf("%d inodes left", fs.live)
	}
}
