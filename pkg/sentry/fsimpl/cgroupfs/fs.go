package cgroupfs

import (
	"strconv"
	"strings"
	"sync"

	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// fsType is "cgroup2", or "cgroup" of version 1.
type fsType struct {
	k  *kernel.Kernel
	v1 *hierarchies // nil: cgroup2
	v2 *fsType      // of version 1: what a mount without controllers shows
}

// hierarchies are those of version 1 that have been mounted: /proc/PID/cgroup lists them.
type hierarchies struct {
	mu    sync.Mutex
	names []string // protected by mu
}

func (h *hierarchies) add(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.names {
		if n == name {
			return
		}
	}
	h.names = append(h.names, name)
}

type hierarchiesKey struct{}

// Register makes "cgroup" and "cgroup2" known to v.
func Register(k *kernel.Kernel, v *vfs.VFS) {
	h := &hierarchies{}
	k.SetValue(hierarchiesKey{}, h)
	v2 := &fsType{k: k}
	v.RegisterFileSystem(v2)
	v.RegisterFileSystem(&fsType{k: k, v1: h, v2: v2})
}

// AppendProc appends /proc/PID/cgroup.
func AppendProc(k *kernel.Kernel, b []byte) []byte {
	if h, ok := k.Value(hierarchiesKey{}).(*hierarchies); ok {
		h.mu.Lock()
		for i := len(h.names) - 1; i >= 0; i-- {
			b = strconv.AppendInt(b, int64(i+1), 10)
			b = append(append(append(b, ':'), h.names[i]...), ":/\n"...)
		}
		h.mu.Unlock()
	}
	return append(b, "0::/\n"...)
}

// Name implements vfs.FileSystemType.
func (t *fsType) Name() string {
	if t.v1 != nil {
		return "cgroup"
	}
	return "cgroup2"
}

// NoDev implements vfs.FileSystemType.
func (*fsType) NoDev() bool { return true }

// UserNS implements vfs.FileSystemType.
func (*fsType) UserNS() bool { return true }

// fs is an instance.
type fs struct {
	*pseudo.FS
	k       *kernel.Kernel
	options string
}

// ShowOptions implements vfs.SuperblockOps.
func (f *fs) ShowOptions() string { return f.options }

// flagOptions are options without a meaning here.
var flagOptions = [...]string{"nsdelegate", "memory_recursiveprot", "memory_localevents", "memory_hugetlb_accounting", "favordynmods", "pids_localevents",
	"xattr", "noprefix", "clone_children", "cpuset_v2_mode", "none"}

// controllers are those of version 1.
var controllers = [...]string{"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "misc", "net_cls", "net_prio", "perf_event", "pids", "rdma"}

func oneOf(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// Mount implements vfs.FileSystemType. EINVAL for unknown options.
func (t *fsType) Mount(ctx vfs.Context, v *vfs.VFS, o *vfs.MountOptions) (*vfs.Superblock, error) {
	var names []string
	err := vfs.SplitOptions(o.Data, func(key, val string, has bool) error {
		switch {
		case oneOf(flagOptions[:], key) && !has:
		case t.v1 != nil && oneOf(controllers[:], key) && !has:
			names = append(names, key)
		case t.v1 != nil && key == "name" && val != "" && strings.IndexByte(val, ':') < 0:
			names = append(names, "name="+val)
		case t.v1 != nil && key == "release_agent":
		case t.v1 != nil && key == "all" && !has:
			names = append(names, controllers[:]...)
		default:
			return unix.EINVAL
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if t.v1 != nil && len(names) == 0 {
		return t.v2.Mount(ctx, v, o)
	}
	magic := uint64(unix.CGROUP2_SUPER_MAGIC)
	f := &fs{FS: &pseudo.FS{}, k: t.k, options: "nsdelegate,memory_recursiveprot"}
	if t.v1 != nil {
		magic = unix.CGROUP_SUPER_MAGIC
		f.options = strings.Join(names, ",")
		t.v1.add(f.options)
	}
	f.SB = v.NewSuperblock(t, f, o, magic)
	root := f.NewLazyDir(0755, func(d *pseudo.Dir) { f.fill(d, names) })
	f.SB.SetRoot(&root.Inode)
	return f.SB, nil
}

// fill enters the files: those of version 2 if there are no controllers.
func (f *fs) fill(d *pseudo.Dir, names []string) {
	if len(names) == 0 {
		for i := range filesV2 {
			f.add(d, &filesV2[i])
		}
		return
	}
	for i := range filesV1 {
		x := &filesV1[i]
		if x.controller == "" || oneOf(names, x.controller) {
			f.add(d, x)
		}
	}
}

// file is a file of a cgroup.
type file struct {
	controller string // of version 1; "" for files of all
	name       string
	perm       uint32 // 0: 0444
	text       string // content, if it is always the same
	gen        func(e *env, b []byte) []byte
	set        func(e *env, data string) error
}

// env is what a generator works with.
type env struct {
	k   *kernel.Kernel
	ctx vfs.Context
	t   *kernel.Task      // nil: the sentry itself reads
	ct  *kernel.Container // the reader's; nil with t
	res kernel.Resources
}

func (f *fs) env(ctx vfs.Context) *env {
	e := &env{k: f.k, ctx: ctx}
	if t, ok := ctx.(*kernel.Task); ok {
		e.t, e.ct = t, t.Container()
		e.res = e.ct.Resources()
	}
	return e
}

// generator makes a file's content for its reader.
type generator struct {
	f    *fs
	file *file
}

// Generate implements pseudo.Generator.
func (g generator) Generate(ctx vfs.Context, b []byte) ([]byte, error) {
	if g.file.perm&0444 == 0 && g.file.perm != 0 {
		return b, unix.EINVAL
	}
	if g.file.gen == nil {
		return append(b, g.file.text...), nil
	}
	return g.file.gen(g.f.env(ctx), b), nil
}

// setter is a generator that takes writes.
type setter struct{ generator }

// Set implements pseudo.Setter.
func (s setter) Set(ctx vfs.Context, data []byte, _ int64) error {
	return s.file.set(s.f.env(ctx), strings.TrimSpace(string(data)))
}

func (f *fs) add(d *pseudo.Dir, x *file) {
	var g pseudo.Generator = generator{f, x}
	if x.set != nil {
		g = setter{generator{f, x}}
	}
	perm := x.perm
	if perm == 0 {
		perm = 0444
	}
	d.Add(x.name, &f.NewFile(perm, g).Inode)
}
