package tmpfs

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

const (
	pageSize  = 4096
	pageShift = 12
	pageMask  = pageSize - 1

	nameMax = 255
)

// Type is the file system type.
type Type struct {
	name string
	mf   *memfile.File
	// total is the number of bytes of memory that sizes in percent and the default size (half of it) refer to.
	total uint64
}

// NewType makes the type known to mount(2) as name ("tmpfs"). Data goes to mf. total is the machine's memory in bytes (0: what the
// host says): the default size is half of it.
func NewType(name string, mf *memfile.File, total uint64) *Type {
	if total == 0 {
		var si unix.Sysinfo_t
		if unix.Sysinfo(&si) == nil {
			total = si.Totalram * uint64(si.Unit)
		}
	}
	return &Type{name, mf, total}
}

// Name implements vfs.FileSystemType.
func (t *Type) Name() string { return t.name }

// NoDev implements vfs.FileSystemType.
func (t *Type) NoDev() bool { return true }

// UserNS implements vfs.FileSystemType.
func (t *Type) UserNS() bool { return true }

// fileSystem is one superblock.
type fileSystem struct {
	sb      *vfs.Superblock // immutable
	mf      *memfile.File   // immutable
	typ     *Type           // immutable; nil for internal instances
	lastIno atomic.Uint64

	pages     atomic.Int64 // in use
	inodes    atomic.Int64 // in use
	maxPages  atomic.Int64 // 0: no limit
	maxInodes atomic.Int64 // 0: no limit

	mu   sync.Mutex
	show options // protected by mu: what ShowOptions tells
}

// options are the mount options.
type options struct {
	size, inodes       uint64
	hasSize, hasInodes bool
	mode               uint32
	hasMode            bool
	uid                auth.KUID
	gid                auth.KGID
	hasUID, hasGID     bool
}

// parse reads the data of mount(2). EINVAL.
func (t *Type) parse(ctx vfs.Context, data string) (o options, err error) {
	o.mode = 01777
	err = vfs.SplitOptions(data, func(k, v string, has bool) error {
		switch k {
		case "size":
			o.hasSize = true
			if p, ok := strings.CutSuffix(v, "%"); ok {
				n, err := strconv.ParseUint(p, 10, 16)
				if err != nil {
					return unix.EINVAL
				}
				o.size = t.total / 100 * n
				return nil
			}
			return parseSize(v, &o.size)
		case "nr_blocks":
			o.hasSize = true
			if err := parseSize(v, &o.size); err != nil || o.size > 1<<50 {
				return unix.EINVAL
			}
			o.size *= pageSize
			return nil
		case "nr_inodes":
			o.hasInodes = true
			return parseSize(v, &o.inodes)
		case "mode":
			n, err := strconv.ParseUint(v, 8, 16)
			if err != nil || n > 07777 {
				return unix.EINVAL
			}
			o.mode, o.hasMode = uint32(n), true
			return nil
		case "uid":
			n, err := strconv.ParseUint(v, 10, 32)
			if err != nil {
				return unix.EINVAL
			}
			o.hasUID = true
			var ok bool
			if o.uid, ok = ctx.Credentials().UserNS.KUID(auth.UID(n)); !ok {
				return unix.EINVAL
			}
			return nil
		case "gid":
			n, err := strconv.ParseUint(v, 10, 32)
			if err != nil {
				return unix.EINVAL
			}
			o.hasGID = true
			var ok bool
			if o.gid, ok = ctx.Credentials().UserNS.KGID(auth.GID(n)); !ok {
				return unix.EINVAL
			}
			return nil
		case "huge", "mpol", "inode32", "inode64", "noswap", "ro", "rw", "relatime", "noatime", "strictatime", "nosuid", "nodev", "noexec", "seclabel", "context":
			return nil
		}
		return unix.EINVAL
	})
	return o, err
}

// parseSize reads a number with a suffix k, m, g, t, p or e.
func parseSize(s string, out *uint64) error {
	shift := 0
	if s != "" {
		if i := strings.IndexByte("kmgtpe", s[len(s)-1]|0x20); i >= 0 {
			shift = 10 * (i + 1)
			s = s[:len(s)-1]
		}
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil || n > 1<<63>>shift {
		return unix.EINVAL
	}
	*out = n << shift
	return nil
}

func (f *fileSystem) setLimits(o *options, total uint64) {
	size := total / 2
	if o.hasSize {
		size = o.size
	}
	f.maxPages.Store(int64(min((size+pageMask)/pageSize, 1<<50)))
	n := total / 2 / pageSize
	if o.hasInodes {
		n = o.inodes
	}
	f.maxInodes.Store(int64(min(n, 1<<50)))
}

// Mount implements vfs.FileSystemType.
func (t *Type) Mount(ctx vfs.Context, v *vfs.VFS, mo *vfs.MountOptions) (*vfs.Superblock, error) {
	o, err := t.parse(ctx, mo.Data)
	if err != nil {
		return nil, err
	}
	c := ctx.Credentials()
	if !o.hasUID {
		o.uid = c.FSUID
	}
	if !o.hasGID {
		o.gid = c.FSGID
	}
	f := newFS(v, t, t.mf, mo)
	f.show = o
	f.setLimits(&o, t.total)
	root := f.newInode(&vfs.CreateArgs{Mode: unix.S_IFDIR | o.mode, UID: o.uid, GID: o.gid})
	root.nlink = 2
	f.sb.SetRoot(&root.Inode)
	return f.sb, nil
}

func newFS(v *vfs.VFS, t *Type, mf *memfile.File, mo *vfs.MountOptions) *fileSystem {
	f := &fileSystem{mf: mf, typ: t}
	var ft vfs.FileSystemType
	if t != nil {
		ft = t
	}
	f.sb = v.NewSuperblock(ft, f, mo, unix.TMPFS_MAGIC)
	return f
}

// StatFS implements vfs.SuperblockOps.
func (f *fileSystem) StatFS(_ vfs.Context, st *vfs.StatFS) error {
	st.Type, st.Bsize, st.Frsize, st.Namelen = unix.TMPFS_MAGIC, pageSize, pageSize, nameMax
	if m := f.maxPages.Load(); m != 0 {
		st.Blocks = uint64(m)
		st.Bfree = uint64(max(m-f.pages.Load(), 0))
		st.Bavail = st.Bfree
	}
	if m := f.maxInodes.Load(); m != 0 {
		st.Files = uint64(m)
		st.Ffree = uint64(max(m-f.inodes.Load(), 0))
	}
	return nil
}

// Sync implements vfs.SuperblockOps.
func (f *fileSystem) Sync(vfs.Context) error { return nil }

// Remount implements vfs.SuperblockOps: sizes may change, to no less than is used.
func (f *fileSystem) Remount(ctx vfs.Context, mo *vfs.MountOptions) error {
	o, err := f.typ.parse(ctx, mo.Data)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if o.hasSize {
		pages := int64(min((o.size+pageMask)/pageSize, 1<<50))
		if pages != 0 && pages < f.pages.Load() || f.maxPages.Load() == 0 && pages != 0 {
			return unix.EINVAL
		}
		f.maxPages.Store(pages)
		f.show.size, f.show.hasSize = o.size, true
	}
	if o.hasInodes {
		if o.inodes != 0 && int64(min(o.inodes, 1<<50)) < f.inodes.Load() {
			return unix.EINVAL
		}
		f.maxInodes.Store(int64(min(o.inodes, 1<<50)))
		f.show.inodes, f.show.hasInodes = o.inodes, true
	}
	return nil
}

// ShowOptions implements vfs.SuperblockOps.
func (f *fileSystem) ShowOptions() string {
	f.mu.Lock()
	o := f.show
	f.mu.Unlock()
	var b []byte
	add := func(k string, n uint64, base int, suffix string) {
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = append(b, k...)
		b = strconv.AppendUint(b, n, base)
		b = append(b, suffix...)
	}
	if o.hasSize {
		add("size=", o.size>>10, 10, "k")
	}
	if o.hasInodes {
		add("nr_inodes=", o.inodes, 10, "")
	}
	if o.mode != 01777 {
		add("mode=", uint64(o.mode), 8, "")
	}
	if o.uid != 0 {
		add("uid=", uint64(o.uid), 10, "")
	}
	if o.gid != 0 {
		add("gid=", uint64(o.gid), 10, "")
	}
	if len(b) > 0 {
		b = append(b, ',')
	}
	return string(append(b, "inode64"...))
}

// Release implements vfs.SuperblockOps: what names still hold is freed.
func (f *fileSystem) Release() {
	root, ok := f.sb.Root().Inode().Ops().(*inode)
	if !ok {
		return
	}
	todo := []*inode{root}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if i.dir != nil {
			for _, e := range i.dir.entries {
				if e != nil {
					todo = append(todo, e.inode)
				}
			}
			i.dir = &dirData{}
		}
		if i.reg != nil {
			i.mu.Lock()
			i.reg.free(f)
			i.mu.Unlock()
		}
	}
}

// charge counts n more pages; ENOSPC.
func (f *fileSystem) charge(n int64) error {
	m := f.maxPages.Load()
	if f.pages.Add(n) > m && m != 0 {
		f.pages.Add(-n)
		return unix.ENOSPC
	}
	return nil
}
