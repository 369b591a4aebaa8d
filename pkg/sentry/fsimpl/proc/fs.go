package proc

import (
	"strconv"
	"sync/atomic"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/nsfs"
	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// Values of hidepid= (proc(5)).
const (
	hideNothing     = 0
	hideNoAccess    = 1
	hideInvisible   = 2
	hidePtraceable  = 4
	firstPIDCookie  = 1 << 12 // of directory listings: what has no number comes before
	inoThread       = 1 << 48 // inode numbers of what belongs to tasks are made of their numbers
	inoFD           = 1 << 49
	inoFDInfo       = 1 << 50
	inoEntryBits    = 8
	inoFDNumberBits = 24
)

// fsType is the file system type.
type fsType struct {
	k *kernel.Kernel
}

// Register makes "proc" known to v.
func Register(k *kernel.Kernel, v *vfs.VFS) {
	nsfs.Of(k)
	k.SetValue(sharedKey{}, &shared{tsc: newTSCClock(), bootID: newUUID()})
	v.RegisterFileSystem(&fsType{k})
}

// Name implements vfs.FileSystemType.
func (*fsType) Name() string { return "proc" }

// NoDev implements vfs.FileSystemType.
func (*fsType) NoDev() bool { return true }

// UserNS implements vfs.FileSystemType.
func (*fsType) UserNS() bool { return true }

// pidNSContext is a context that says whose processes a mount shows.
type pidNSContext struct {
	vfs.Context
	ns *kernel.PIDNamespace
}

// PIDNS is the namespace that is shown.
func (c *pidNSContext) PIDNS() *kernel.PIDNamespace { return c.ns }

// WithPIDNS makes a mount by ctx show the processes of ns, for mounts that the sandbox makes before a container has processes.
func WithPIDNS(ctx vfs.Context, ns *kernel.PIDNamespace) vfs.Context { return &pidNSContext{ctx, ns} }

// Mount implements vfs.FileSystemType. EPERM where the caller has no rights over the PID namespace.
func (t *fsType) Mount(ctx vfs.Context, v *vfs.VFS, o *vfs.MountOptions) (*vfs.Superblock, error) {
	ns := t.k.RootPIDNamespace()
	if c, ok := ctx.(interface{ PIDNS() *kernel.PIDNamespace }); ok {
		ns = c.PIDNS()
	}
	if !ctx.Credentials().HasCapIn(unix.CAP_SYS_ADMIN, ns.UserNS()) {
		return nil, unix.EPERM
	}
	f := &FS{k: t.k, ns: ns, shared: sharedOf(t.k)}
	if err := f.parse(ctx, o.Data); err != nil {
		return nil, err
	}
	f.SB = v.NewSuperblock(t, f, o, unix.PROC_SUPER_MAGIC)
	f.SB.SetRoot(newRoot(f))
	return f.SB, nil
}

// FS is an instance.
type FS struct {
	pseudo.FS
	k      *kernel.Kernel       // immutable
	ns     *kernel.PIDNamespace // immutable: whose processes are shown
	shared *shared              // immutable

	hide    atomic.Int32  // hidepid=
	gid     atomic.Uint32 // gid=: group that hidepid= does not hold for
	hasGID  atomic.Bool
	pidOnly atomic.Bool // subset=pid
}

// parse applies mount options. EINVAL.
func (f *FS) parse(ctx vfs.Context, data string) error {
	return vfs.SplitOptions(data, func(key, val string, has bool) error {
		switch key {
		case "hidepid":
			n, ok := hideValue(val)
			if !ok {
				return unix.EINVAL
			}
			f.hide.Store(n)
		case "gid":
			n, err := strconv.ParseUint(val, 10, 32)
			if err != nil {
				return unix.EINVAL
			}
			g, ok := ctx.Credentials().UserNS.KGID(auth.GID(n))
			if !ok {
				return unix.EINVAL
			}
			f.gid.Store(uint32(g))
			f.hasGID.Store(true)
		case "subset":
			if val != "pid" {
				return unix.EINVAL
			}
			f.pidOnly.Store(true)
		default:
			return unix.EINVAL
		}
		return nil
	})
}

func hideValue(s string) (int32, bool) {
	switch s {
	case "0", "off":
		return hideNothing, true
	case "1", "noaccess":
		return hideNoAccess, true
	case "2", "invisible":
		return hideInvisible, true
	case "4", "ptraceable":
		return hidePtraceable, true
	}
	return 0, false
}

// Remount implements vfs.SuperblockOps.
func (f *FS) Remount(ctx vfs.Context, o *vfs.MountOptions) error { return f.parse(ctx, o.Data) }

// ShowOptions implements vfs.SuperblockOps.
func (f *FS) ShowOptions() string {
	var b []byte
	if f.hasGID.Load() {
		b = strconv.AppendUint(append(b, ",gid="...), uint64(f.gid.Load()), 10)
	}
	switch f.hide.Load() {
	case hideNoAccess:
		b = append(b, ",hidepid=noaccess"...)
	case hideInvisible:
		b = append(b, ",hidepid=invisible"...)
	case hidePtraceable:
		b = append(b, ",hidepid=ptraceable"...)
	}
	if f.pidOnly.Load() {
		b = append(b, ",subset=pid"...)
	}
	if len(b) == 0 {
		return ""
	}
	return string(b[1:])
}

// hidden tells whether hidepid= keeps ctx from a process, at hide level least or above.
func (f *FS) hidden(ctx vfs.Context, t *kernel.Task, least int32) bool {
	h := f.hide.Load()
	if h < least {
		return false
	}
	if h != hidePtraceable && f.hasGID.Load() && inGroup(ctx.Credentials(), auth.KGID(f.gid.Load())) {
		return false
	}
	return !mayAccess(ctx, t)
}

func inGroup(c *auth.Credentials, g auth.KGID) bool { return c.EGID == g || c.InGroup(g) }
