package fstest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// Options of Differ.
type Options struct {
	// Steps is the number of operations, Seed chooses them.
	Steps int
	Seed  uint64
	// Forget is after how many steps the cache of names is emptied; 0: never.
	Forget int
	// AnyDirNlink does not compare link counts of directories.
	AnyDirNlink bool
	// Prepare makes the initial contents on the host; the world has them already.
	Prepare func(root string)
}

// Differ compares the world with the host.
func (w *World) Differ(t *testing.T, o Options) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for chroot on the host")
	}
	root := t.TempDir()
	if err := os.Chmod(root, 0755); err != nil {
		t.Fatal(err)
	}
	if o.Prepare != nil {
		o.Prepare(root)
	}
	sys := w.V.Sysctl()
	for name, v := range map[string]*atomic.Int32{"symlinks": &sys.ProtectedSymlinks, "hardlinks": &sys.ProtectedHardlinks,
		"fifos": &sys.ProtectedFIFOs, "regular": &sys.ProtectedRegular} {
		if b, err := os.ReadFile("/proc/sys/fs/protected_" + name); err == nil {
			n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
			v.Store(int32(n))
		}
	}
	done := make(chan struct{})
	go func() { // a thread with a root directory of its own, which dies with the goroutine
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Chroot(root); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Chdir("/"); err != nil {
			t.Error(err)
			return
		}
		unix.Umask(022)
		d := &differ{w: w, t: t, o: o, r: rand.New(rand.NewPCG(o.Seed, 7))}
		for k := 0; k < o.Steps && !t.Failed(); k++ {
			if o.Forget > 0 && k%o.Forget == 0 {
				w.FS.Root().Dentry.ForgetTree()
			}
			d.step()
		}
	}()
	<-done
}

type differ struct {
	w   *World
	t   *testing.T
	o   Options
	r   *rand.Rand
	log []string
}

// path makes a random path of few names, so that operations meet.
func (d *differ) path() string {
	var b strings.Builder
	if d.r.IntN(4) == 0 {
		b.WriteByte('/')
	}
	n := 1 + d.r.IntN(4)
	for k := range n {
		if k > 0 {
			b.WriteByte('/')
			if d.r.IntN(12) == 0 {
				b.WriteByte('/')
			}
		}
		switch d.r.IntN(16) {
		case 0:
			b.WriteByte('.')
		case 1:
			b.WriteString("..")
		case 2:
			if d.r.IntN(8) == 0 {
				b.WriteString(strings.Repeat("x", 250+d.r.IntN(10)))
				break
			}
			fallthrough
		default:
			b.WriteByte("abcde"[d.r.IntN(5)])
		}
	}
	if d.r.IntN(10) == 0 {
		b.WriteByte('/')
	}
	if d.r.IntN(60) == 0 {
		return ""
	}
	return b.String()
}

var openModes = []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_CREAT, unix.O_RDWR | unix.O_CREAT | unix.O_EXCL,
	unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC, unix.O_RDONLY | unix.O_DIRECTORY, unix.O_RDONLY | unix.O_NOFOLLOW, unix.O_PATH,
	unix.O_PATH | unix.O_NOFOLLOW, unix.O_CREAT | unix.O_NOFOLLOW | unix.O_WRONLY, unix.O_WRONLY | unix.O_APPEND, unix.O_DIRECTORY | unix.O_NOFOLLOW,
	unix.O_RDONLY | unix.O_TRUNC, unix.O_WRONLY | unix.O_DIRECTORY}

// step does one operation on both sides.
func (d *differ) step() {
	uid := uint32(0)
	if d.r.IntN(3) == 0 {
		uid = 1000 + uint32(d.r.IntN(2))
	}
	ctx := d.w.As(uid)
	p, q := d.path(), d.path()
	v, at := d.w.V, vfs.Path{}
	x := d.r.Uint32()
	var name string
	var host, ours func() (string, error)
	plain := func(f func() error) func() (string, error) {
		return func() (string, error) { return "", f() }
	}
	switch d.r.IntN(19) {
	case 0, 1:
		mode := []uint32{0777, 0755, 0700, 01777, 02775, 0}[x%6]
		name = fmt.Sprintf("mkdir(%q, %o)", p, mode)
		host = plain(func() error { return unix.Mkdir(p, mode) })
		ours = plain(func() error { return v.Mkdir(ctx, at, p, mode) })
	case 2:
		name = fmt.Sprintf("rmdir(%q)", p)
		host = plain(func() error { return unix.Rmdir(p) })
		ours = plain(func() error { return v.Rmdir(ctx, at, p) })
	case 3:
		name = fmt.Sprintf("unlink(%q)", p)
		host = plain(func() error { return unix.Unlink(p) })
		ours = plain(func() error { return v.Unlink(ctx, at, p) })
	case 4:
		name = fmt.Sprintf("symlink(%q, %q)", q, p)
		host = plain(func() error { return unix.Symlink(q, p) })
		ours = plain(func() error { return v.Symlink(ctx, q, at, p) })
	case 5:
		follow := x%2 == 0
		name = fmt.Sprintf("link(%q, %q, %v)", q, p, follow)
		host = plain(func() error {
			f := 0
			if follow {
				f = unix.AT_SYMLINK_FOLLOW
			}
			return unix.Linkat(unix.AT_FDCWD, q, unix.AT_FDCWD, p, f)
		})
		ours = plain(func() error {
			f := vfs.LookupFlags(0)
			if follow {
				f = vfs.FollowLast
			}
			return v.Link(ctx, at, q, at, p, f)
		})
	case 6, 7:
		flags := []uint32{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[x%5]
		name = fmt.Sprintf("rename(%q, %q, %d)", p, q, flags)
		host = plain(func() error { return unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, q, uint(flags)) })
		ours = plain(func() error { return v.Rename(ctx, at, p, at, q, flags) })
	case 8, 9, 10, 11:
		mode := openModes[x%uint32(len(openModes))]
		name = fmt.Sprintf("open(%q, %#x)", p, mode)
		data := strings.Repeat("z", int(x>>8%100))
		host = func() (string, error) { return hostOpen(p, mode, data) }
		ours = func() (string, error) { return d.open(ctx, p, mode, data) }
	case 12:
		mode := x % 010000
		name = fmt.Sprintf("chmod(%q, %o)", p, mode)
		host = plain(func() error { return unix.Chmod(p, mode) })
		ours = plain(func() error {
			return v.SetStat(ctx, at, p, vfs.FollowLast, &vfs.SetStat{Mask: vfs.SetMode, Mode: mode})
		})
	case 13:
		u, g := 1000+x%2, 1000+x/2%2
		name = fmt.Sprintf("lchown(%q, %d, %d)", p, u, g)
		host = plain(func() error { return unix.Lchown(p, int(u), int(g)) })
		ours = plain(func() error {
			return v.SetStat(ctx, at, p, 0, &vfs.SetStat{Mask: vfs.SetUID | vfs.SetGID, UID: auth.KUID(u), GID: auth.KGID(g)})
		})
	case 14:
		size := int64(x % 10000)
		name = fmt.Sprintf("truncate(%q, %d)", p, size)
		host = plain(func() error { return unix.Truncate(p, size) })
		ours = plain(func() error {
			return v.SetStat(ctx, at, p, vfs.FollowLast, &vfs.SetStat{Mask: vfs.SetSize, Size: size})
		})
	case 15:
		name = fmt.Sprintf("mkfifo(%q)", p)
		host = plain(func() error { return unix.Mkfifo(p, 0644) })
		ours = plain(func() error { return v.Mknod(ctx, at, p, unix.S_IFIFO|0644, 0) })
	case 16:
		name = fmt.Sprintf("readlink(%q)", p)
		host = func() (string, error) {
			b := make([]byte, 4096)
			n, err := unix.Readlink(p, b)
			return string(b[:max(n, 0)]), err
		}
		ours = func() (string, error) {
			if p == "" {
				return "", unix.ENOENT
			}
			return v.Readlink(ctx, at, p)
		}
	case 17:
		name = fmt.Sprintf("list(%q)", p)
		host = func() (string, error) { return hostList(p) }
		ours = func() (string, error) {
			l, err := list(v, ctx, p)
			slices.Sort(l)
			return strings.Join(l, " "), err
		}
	default:
		follow := x%2 == 0
		name = fmt.Sprintf("stat(%q, %v)", p, follow)
		host = func() (string, error) {
			var st unix.Stat_t
			var err error
			if follow {
				err = unix.Stat(p, &st)
			} else {
				err = unix.Lstat(p, &st)
			}
			return d.show(st.Mode, uint32(st.Nlink), st.Uid, st.Gid, st.Size), err
		}
		ours = func() (string, error) {
			var st vfs.Stat
			f := vfs.LookupFlags(0)
			if follow {
				f = vfs.FollowLast
			}
			err := v.Stat(ctx, at, p, f, unix.STATX_BASIC_STATS, &st)
			return d.show(st.Mode, st.Nlink, uint32(st.UID), uint32(st.GID), st.Size), err
		}
	}
	d.compare(fmt.Sprintf("%d: %s", uid, name), asUser(uid, host), ours)
}

// asUser runs f with the thread's file system IDs.
func asUser(uid uint32, f func() (string, error)) func() (string, error) {
	if uid == 0 {
		return f
	}
	return func() (string, error) {
		unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		unix.RawSyscall(unix.SYS_SETFSGID, uintptr(uid), 0, 0)
		unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
		s, err := f()
		unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
		unix.RawSyscall(unix.SYS_SETFSGID, 0, 0, 0)
		return s, err
	}
}

// rename compares where the world may refuse to move directories: then the host does not do it either.
func (d *differ) show(mode, nlink, uid, gid uint32, size int64) string {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		if d.o.AnyDirNlink {
			nlink = 0
		}
		size = 0 // differs between file systems
	}
	return fmt.Sprintf("mode %o nlink %d uid %d gid %d size %d", mode, nlink, uid, gid, size)
}

func (d *differ) compare(name string, host, ours func() (string, error)) {
	hs, herr := host()
	os, oerr := ours()
	d.log = append(d.log, fmt.Sprintf("%s: %v", name, herr))
	if herr != oerr || herr == nil && hs != os {
		from := max(len(d.log)-400, 0)
		d.t.Errorf("%s\nhost: %q %v\nours: %q %v\nafter:\n%s", name, hs, herr, os, oerr, strings.Join(d.log[from:], "\n"))
	}
}

// hostOpen opens, and writes or reads.
func hostOpen(p string, mode int, data string) (string, error) {
	fd, err := unix.Open(p, mode|unix.O_CLOEXEC|unix.O_NONBLOCK, 0666)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || mode&unix.O_PATH != 0 {
		return fmt.Sprintf("mode %o", st.Mode), nil
	}
	if mode&unix.O_ACCMODE != unix.O_RDONLY {
		n, err := unix.Write(fd, []byte(data))
		return fmt.Sprint("wrote ", n), err
	}
	b := make([]byte, 1<<16)
	n, err := unix.Read(fd, b)
	return string(b[:max(n, 0)]), err
}

func (d *differ) open(ctx vfs.Context, p string, mode int, data string) (string, error) {
	fd, err := d.w.V.Open(ctx, vfs.Path{}, p, &vfs.OpenOptions{Flags: uint32(mode) | unix.O_NONBLOCK, Mode: 0666})
	if err != nil {
		return "", err
	}
	defer fd.DecRef()
	var st vfs.Stat
	if err := fd.Stat(ctx, unix.STATX_BASIC_STATS, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || mode&unix.O_PATH != 0 {
		return fmt.Sprintf("mode %o", st.Mode), nil
	}
	if mode&unix.O_ACCMODE != unix.O_RDONLY {
		n, err := fd.Write(ctx, mm.BytesSeq([]byte(data)))
		return fmt.Sprint("wrote ", n), err
	}
	b := make([]byte, 1<<16)
	n, err := fd.Read(ctx, mm.BytesSeq(b))
	return string(b[:n]), err
}

func hostList(p string) (string, error) {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var l []string
	b := make([]byte, 8192)
	for {
		n, err := unix.Getdents(fd, b)
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
		for r := b[:n]; len(r) > 0; {
			e := (*unix.Dirent)(unsafe.Pointer(&r[0]))
			name := r[19:e.Reclen]
			l = append(l, string(name[:slices.Index(name, 0)]))
			r = r[e.Reclen:]
		}
	}
	slices.Sort(l)
	return strings.Join(l, " "), nil
}

// dummyFIFO is what FIFOs open as.
type dummyFIFO struct{}

// Release implements vfs.FileImpl.
func (dummyFIFO) Release() {}

// FIFOs opens FIFOs as far as Differ needs it: without blocking, nobody at the other end.
type FIFOs struct{}

// OpenFIFO implements vfs.FIFOOpener.
func (FIFOs) OpenFIFO(_ vfs.Context, _ *vfs.Inode, flags uint32) (vfs.FileImpl, error) {
	if flags&unix.O_ACCMODE == unix.O_WRONLY {
		return nil, unix.ENXIO
	}
	return dummyFIFO{}, nil
}
