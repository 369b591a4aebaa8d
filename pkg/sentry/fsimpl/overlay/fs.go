package overlay

import (
	"strings"
	"sync"

	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// Magic is OVERLAYFS_SUPER_MAGIC.
const Magic = 0x794c7630

const (
	xattrPrefix = "trusted.overlay."
	xattrOpaque = xattrPrefix + "opaque"
	// xattrRedirect is the place of the lower parts of a directory that was moved, a path from the overlay's root.
	xattrRedirect = xattrPrefix + "redirect"
)

// Type is the file system type for mount(2).
type Type struct{}

// Name implements vfs.FileSystemType.
func (Type) Name() string { return "overlay" }

// NoDev implements vfs.FileSystemType.
func (Type) NoDev() bool { return true }

// UserNS implements vfs.FileSystemType.
func (Type) UserNS() bool { return true }

// Layers are the trees to merge.
type Layers struct {
	// Upper is the writable directory; nil makes a read-only overlay of at least two lower ones.
	Upper *vfs.Inode
	// Lower are the directories below, the topmost first.
	Lower []*vfs.Inode
	// Hold are superblocks that the overlay keeps a reference on; New takes over the caller's.
	Hold []*vfs.Superblock
	// OnRelease, if set, is called when the overlay is gone.
	OnRelease func()
	// Options is what /proc/PID/mounts shows.
	Options string
}

// fileSystem is one superblock.
type fileSystem struct {
	vfs.NoSuperblockOps
	sb     *vfs.Superblock // immutable
	layers Layers          // immutable
	root   *inode          // immutable
	files  sync.Pool       // of *file

	mu sync.Mutex
	// uppers finds the inodes of files by their upper parts, so that hard links share one; protected by mu.
	uppers map[*vfs.Inode]*inode
	// origin maps inode numbers of copies in the upper layer to those that the files had before; protected by mu.
	origin map[uint64]uint64
}

// New makes an overlay; the inodes' references stay the caller's.
func New(ctx vfs.Context, v *vfs.VFS, typ vfs.FileSystemType, o *vfs.MountOptions, l Layers) *vfs.Superblock {
	f := &fileSystem{layers: l, uppers: map[*vfs.Inode]*inode{}, origin: map[uint64]uint64{}}
	f.sb = v.NewSuperblock(typ, f, o, Magic)
	if l.Upper == nil {
		f.sb.SetReadOnly(true)
	}
	var lower []part
	for k, i := range l.Lower {
		i.IncRef()
		lower = append(lower, part{i, k})
	}
	if l.Upper != nil {
		l.Upper.IncRef()
	}
	root := f.newInode(nil, "", "", l.Upper, lower)
	f.root = root
	f.sb.SetRoot(&root.Inode)
	return f.sb
}

// NewOver puts an empty upper file system over lower: the usual root of a container. Both references pass to the overlay.
func NewOver(ctx vfs.Context, v *vfs.VFS, o *vfs.MountOptions, upper, lower *vfs.Superblock) (*vfs.Superblock, error) {
	u, l := upper.Root().Inode(), lower.Root().Inode()
	var st vfs.Stat
	if err := l.Ops().Stat(ctx, unix.STATX_BASIC_STATS, &st); err != nil {
		return nil, err
	}
	s := vfs.SetStat{Mask: vfs.SetMode | vfs.SetUID | vfs.SetGID | vfs.SetAtime | vfs.SetMtime, Mode: st.Mode & 07777, UID: st.UID, GID: st.GID, Atime: st.Atime, Mtime: st.Mtime}
	if err := u.Ops().SetStat(ctx, &s); err != nil {
		return nil, err
	}
	return New(ctx, v, Type{}, o, Layers{Upper: u, Lower: []*vfs.Inode{l}, Hold: []*vfs.Superblock{upper, lower}}), nil
}

// Mount implements vfs.FileSystemType: lowerdir=a:b, upperdir=, workdir= (accepted, not needed).
func (Type) Mount(ctx vfs.Context, v *vfs.VFS, o *vfs.MountOptions) (*vfs.Superblock, error) {
	var lower []string
	var upper string
	err := vfs.SplitOptions(o.Data, func(k, val string, has bool) error {
		switch k {
		case "lowerdir":
			lower = strings.Split(val, ":")
		case "upperdir":
			upper = val
		case "workdir", "index", "redirect_dir", "xino", "metacopy", "nfs_export", "userxattr", "volatile", "uuid":
		default:
			return unix.EINVAL
		}
		return nil
	})
	if err != nil || len(lower) == 0 || len(lower) > 500 || upper == "" && len(lower) < 2 {
		return nil, unix.EINVAL
	}
	var paths []vfs.Path
	drop := func() {
		for _, p := range paths {
			p.DecRef()
		}
	}
	l := Layers{Options: o.Data}
	walk := func(s string) (*vfs.Inode, error) {
		p, err := v.Walk(ctx, vfs.Path{}, s, vfs.FollowLast|vfs.MustBeDir)
		if err != nil {
			return nil, err
		}
		paths = append(paths, p)
		return p.Inode(), nil
	}
	for _, s := range lower {
		i, err := walk(s)
		if err != nil {
			drop()
			return nil, err
		}
		l.Lower = append(l.Lower, i)
	}
	if upper != "" {
		if l.Upper, err = walk(upper); err == nil && (paths[len(paths)-1].Mount.ReadOnly() || l.Upper.Superblock().Magic() == Magic) {
			err = unix.EINVAL // an overlay cannot hold another's whiteouts
		}
		if err != nil {
			drop()
			return nil, err
		}
		top := paths[len(paths)-1].Dentry
		l.OnRelease = func() {
			top.ForgetTree() // what the overlay changed behind the cache
			drop()
		}
	} else {
		l.OnRelease = drop
	}
	return New(ctx, v, Type{}, o, l), nil
}

// StatFS implements vfs.SuperblockOps: that of the upper layer.
func (f *fileSystem) StatFS(ctx vfs.Context, st *vfs.StatFS) error {
	i := f.layers.Upper
	if i == nil {
		i = f.layers.Lower[0]
	}
	err := i.Superblock().Ops().StatFS(ctx, st)
	st.Type = Magic
	return err
}

// Sync implements vfs.SuperblockOps.
func (f *fileSystem) Sync(ctx vfs.Context) error {
	if f.layers.Upper == nil {
		return nil
	}
	return f.layers.Upper.Superblock().Ops().Sync(ctx)
}

// ShowOptions implements vfs.SuperblockOps.
func (f *fileSystem) ShowOptions() string { return f.layers.Options }

// Release implements vfs.SuperblockOps.
func (f *fileSystem) Release() {
	if f.layers.OnRelease != nil {
		f.layers.OnRelease()
	}
	for _, sb := range f.layers.Hold {
		sb.DecRef()
	}
}

// number is the inode number that a file of a layer has in the overlay: those of the lowest layers as they are, others
// apart from them. layer -1 is the upper one.
func (f *fileSystem) number(layer int, ino uint64) uint64 {
	if layer < 0 {
		f.mu.Lock()
		o, ok := f.origin[ino]
		f.mu.Unlock()
		if ok {
			return o
		}
		return ino | 1<<62
	}
	return ino ^ uint64(len(f.layers.Lower)-1-layer)<<52
}

// isWhiteout tells whether an inode of a layer stands for nothing.
func isWhiteout(ctx vfs.Context, i *vfs.Inode) bool {
	if i.Type() != unix.S_IFCHR {
		return false
	}
	var st vfs.Stat
	return i.Ops().Stat(ctx, unix.STATX_BASIC_STATS, &st) == nil && st.Rdev == 0
}

// isOpaque tells whether a directory of a layer hides those below.
func isOpaque(ctx vfs.Context, i *vfs.Inode) bool {
	b, err := i.Ops().GetXattr(ctx, xattrOpaque)
	return err == nil && string(b) == "y"
}
