package proc

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// sysctl is a file below /proc/sys.
type sysctl struct {
	path string
	perm uint32
	// val is the value at start. A writable setting without set takes numbers, as many as val has, of [min, max] (0, 0: of 32 bits); with str, any line.
	val      string
	min, max int64
	str      bool
	// get and set replace the stored value; data ends without a line feed.
	get func(f *FS, ctx vfs.Context) string
	set func(f *FS, ctx vfs.Context, data string) error
	// vfs is for settings that vfs has.
	vfs func(*vfs.Sysctls) *atomic.Int32
}

// sysVars is the values of the settings that have been changed.
type sysVars struct {
	mu  sync.RWMutex
	val map[string]string // protected by mu: by path
}

func (v *sysVars) get(s *sysctl) string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if x, ok := v.val[s.path]; ok {
		return x
	}
	return s.val
}

func (v *sysVars) set(path, val string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.val == nil {
		v.val = map[string]string{}
	}
	v.val[path] = val
}

// Setting is the value of a setting by its path below /proc/sys, such as "kernel/shmmax", for those that act on it; false if there is none.
func Setting(k *kernel.Kernel, path string) (string, bool) {
	sh := sharedOf(k)
	if sh == nil {
		return "", false
	}
	for _, l := range sysctls() {
		for i := range l {
			if l[i].path == path && l[i].get == nil {
				return sh.vars.get(&l[i]), true
			}
		}
	}
	return "", false
}

// sysDir is /proc/sys, which is filled when it is used first: a container's start need not wait for it.
type sysDir struct {
	pseudo.Dir
	fs   *FS
	once sync.Once
}

// addSys enters /proc/sys.
func (f *FS) addSys(r *pseudo.Dir) {
	d := &sysDir{fs: f}
	d.InitDir(d, &f.FS, 0555)
	d.FixedAttr = true
	r.Add("sys", &d.Inode)
}

// Lookup implements vfs.InodeOps.
func (d *sysDir) Lookup(ctx vfs.Context, name string) (*vfs.Inode, error) {
	d.once.Do(d.fill)
	return d.Dir.Lookup(ctx, name)
}

// Stat implements vfs.InodeOps.
func (d *sysDir) Stat(ctx vfs.Context, mask uint32, st *vfs.Stat) error {
	err := d.Dir.Stat(ctx, mask, st)
	st.Nlink = 1
	return err
}

// Open implements vfs.InodeOps.
func (d *sysDir) Open(vfs.Context, uint32) (vfs.FileImpl, error) {
	d.once.Do(d.fill)
	return pseudo.DirFile{DirReader: &d.Dir}, nil
}

func (d *sysDir) fill() {
	for _, l := range sysctls() {
		for i := range l {
			d.add(&l[i])
		}
	}
	d.fs.subDir(&d.Dir, "fs/binfmt_misc")
	d.fs.subDir(&d.Dir, "dev")
	d.fs.subDir(&d.Dir, "debug")
}

// subDir finds or makes the directory at path below d.
func (f *FS) subDir(d *pseudo.Dir, path string) *pseudo.Dir {
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		if c := d.Child(name); c != nil {
			d = c.Ops().(*pseudo.Dir)
		} else {
			d = f.addDir(d, name)
		}
	}
	return d
}

func (d *sysDir) add(s *sysctl) {
	at, name := &d.Dir, s.path
	if i := strings.LastIndexByte(s.path, '/'); i >= 0 {
		at, name = d.fs.subDir(at, s.path[:i]), s.path[i+1:]
	}
	n := &sysFile{fs: d.fs, s: s}
	n.InitFile(n, &d.fs.FS, s.perm, n)
	n.SetFlags(vfs.InodeCustomPermission)
	n.FixedAttr = true
	at.Add(name, &n.Inode)
}

// sysFile is a setting as a file.
type sysFile struct {
	pseudo.File
	fs *FS
	s  *sysctl
}

// CheckPermission implements vfs.PermissionChecker: the bits of root count for the superuser of the root user namespace alone, whatever capabilities others have.
func (n *sysFile) CheckPermission(ctx vfs.Context, mask uint32) error {
	c, m := ctx.Credentials(), n.Mode()
	switch {
	case c.EUID == 0:
		m >>= 6
	case inGroup(c, auth.KGID(0)):
		m >>= 3
	}
	if mask&^m&7 != 0 {
		return unix.EACCES
	}
	return nil
}

// Generate implements pseudo.Generator.
func (n *sysFile) Generate(ctx vfs.Context, b []byte) ([]byte, error) {
	if n.s.perm&0444 == 0 {
		return b, unix.EINVAL
	}
	v := ""
	switch {
	case n.s.vfs != nil:
		v = strconv.Itoa(int(n.s.vfs(n.fs.k.VFS().Sysctl()).Load()))
	case n.s.get != nil:
		v = n.s.get(n.fs, ctx)
	default:
		v = n.fs.shared.vars.get(n.s)
	}
	return append(append(b, v...), '\n'), nil
}

// maxSysctl is the longest value that a setting takes.
const maxSysctl = 4096

// Set implements pseudo.Setter. A write behind the start changes nothing, as in Linux' default mode for numbers.
func (n *sysFile) Set(ctx vfs.Context, data []byte, off int64) error {
	if n.s.perm&0222 == 0 {
		return unix.EPERM
	}
	if off != 0 {
		return nil
	}
	if len(data) >= maxSysctl {
		return unix.EINVAL
	}
	if i := bytes.IndexAny(data, "\x00\n"); i >= 0 {
		data = data[:i]
	}
	v := string(data)
	if n.s.vfs != nil {
		return n.setVFS(v)
	}
	if n.s.set != nil {
		return n.s.set(n.fs, ctx, v)
	}
	if !n.s.str {
		var err error
		if v, err = n.s.numbers(v, n.fs.shared.vars.get(n.s)); err != nil {
			return err
		}
	}
	n.fs.shared.vars.set(n.s.path, v)
	return nil
}

// numbers checks a list of numbers, of which those that are left out stay as they are in old, and gives it as it is shown.
func (s *sysctl) numbers(v, old string) (string, error) {
	lo, hi := s.min, s.max
	if lo == 0 && hi == 0 {
		lo, hi = -1<<31, 1<<31-1
	}
	f := strings.Fields(v)
	want := strings.Fields(old)
	if len(f) == 0 || len(f) > len(want) {
		return "", unix.EINVAL
	}
	for i, x := range f {
		if u, err := strconv.ParseUint(x, 0, 64); err == nil && hi < 0 {
			want[i] = strconv.FormatUint(u, 10) // an unsigned value of 64 bits
			continue
		}
		k, err := strconv.ParseInt(x, 0, 64)
		if err != nil || k < lo || k > hi {
			return "", unix.EINVAL
		}
		want[i] = strconv.FormatInt(k, 10)
	}
	return strings.Join(want, "\t"), nil
}

// setVFS changes a setting of vfs.
func (n *sysFile) setVFS(data string) error {
	v, err := strconv.ParseInt(strings.TrimSpace(data), 0, 32)
	if err != nil || v < n.s.min || v > n.s.max {
		return unix.EINVAL
	}
	n.s.vfs(n.fs.k.VFS().Sysctl()).Store(int32(v))
	return nil
}

// utsOf is the UTS namespace whose names ctx sees.
func utsOf(f *FS, ctx vfs.Context) *kernel.UTSNamespace {
	if t := taskOf(ctx); t != nil {
		return t.UTSNamespace()
	}
	return f.k.RootUTSNamespace()
}

// maxUTSName is the longest host or domain name.
const maxUTSName = 64

func setHostname(f *FS, ctx vfs.Context, data string) error {
	utsOf(f, ctx).SetHostName(data[:min(len(data), maxUTSName)])
	return nil
}

func setDomainname(f *FS, ctx vfs.Context, data string) error {
	utsOf(f, ctx).SetDomainName(data[:min(len(data), maxUTSName)])
	return nil
}
