package guest

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	gofs "husk/pkg/sentry/fsimpl/gofer"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"
	"husk/runsc/boot"
)

// goferType marks mounts that the gofer serves.
const goferType = "gofer"

// mountContext makes the mounts of a container's configuration: it has the namespaces that file systems of the
// kernel's objects show.
type mountContext struct {
	vfs.Context
	pid *kernel.PIDNamespace
	ipc *kernel.IPCNamespace
}

// PIDNS is what proc shows.
func (m *mountContext) PIDNS() *kernel.PIDNamespace { return m.pid }

// IPCNamespace is what mqueue shows.
func (m *mountContext) IPCNamespace() *kernel.IPCNamespace { return m.ipc }

// mountAll makes the container's mount namespace: the root, the mounts of its configuration in their
// order, devices, settings of the kernel, masked and read-only paths.
func (g *Guest) mountAll(c *container, pidns *kernel.PIDNamespace, ipc *kernel.IPCNamespace) error {
	spec := c.spec
	if len(spec.Mounts) == 0 || spec.Mounts[0].Type != goferType {
		return errors.New("the first mount is not the root")
	}
	root := &spec.Mounts[0]
	sb, err := g.rootSuperblock(c, root)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	// A read-only root is made so at the end, since mount points may have to be created.
	c.ns = g.v.NewMountNamespace(sb, g.k.RootUserNamespace(), mountFlags(root.Flags&^unix.MS_RDONLY))
	ctx, done := g.rootContext(c)
	defer done()
	ctx = &mountContext{ctx, pidns, ipc}
	for i := 1; i < len(spec.Mounts); i++ {
		if err := g.mountOne(ctx, c, &spec.Mounts[i]); err != nil {
			m := &spec.Mounts[i]
			return fmt.Errorf("mount %s (type %s) at %s: %w", m.Source, m.Type, m.Destination, err)
		}
	}
	if err := g.makeDevices(ctx, spec); err != nil {
		return err
	}
	if err := g.applySysctls(ctx, spec); err != nil { // before /proc/sys becomes read-only, as it does in most containers
		return err
	}
	for _, p := range spec.ReadonlyPaths {
		if err := g.readonlyPath(ctx, p); err != nil {
			return fmt.Errorf("read-only path %s: %w", p, err)
		}
	}
	for _, p := range spec.MaskedPaths {
		if err := g.maskPath(ctx, p); err != nil {
			return fmt.Errorf("masked path %s: %w", p, err)
		}
	}
	if root.Flags&unix.MS_RDONLY != 0 {
		p := c.ns.Root()
		defer p.DecRef()
		return g.v.SetMountFlags(ctx, p, vfs.MountReadOnly, 0, false)
	}
	return nil
}

// rootSuperblock is the root: what the gofer serves, under an overlay unless changes are to go through.
func (g *Guest) rootSuperblock(c *container, m *boot.Mount) (*vfs.Superblock, error) {
	lower, err := gofs.New(g.v, c.gofer, int(m.Attach), gofs.Options{Source: m.Source, Handles: c.handles, MaxIdle: g.maxIdle, ReadOnly: c.spec.Overlay != boot.OverlayNone})
	if err != nil {
		return nil, err
	}
	if c.spec.Overlay == boot.OverlayNone {
		return lower, nil
	}
	return g.overlay(c.spec, lower, m.Source)
}

// mountFlags translates flags of mount(2) into those of a mount.
func mountFlags(ms uint64) (f vfs.MountFlags) {
	for _, x := range [...]struct {
		ms uint64
		f  vfs.MountFlags
	}{
		{unix.MS_RDONLY, vfs.MountReadOnly}, {unix.MS_NOSUID, vfs.MountNoSUID}, {unix.MS_NODEV, vfs.MountNoDev}, {unix.MS_NOEXEC, vfs.MountNoExec},
		{unix.MS_NOATIME, vfs.MountNoAtime}, {unix.MS_NODIRATIME, vfs.MountNoDirAtime}, {unix.MS_RELATIME, vfs.MountRelatime},
	} {
		if ms&x.ms != 0 {
			f |= x.f
		}
	}
	return f
}

// mountOne makes a mount of the configuration, and its mount point where there is none.
func (g *Guest) mountOne(ctx vfs.Context, c *container, m *boot.Mount) error {
	var sb *vfs.Superblock
	isDir := true
	if m.Attach >= 0 {
		var err error
		if sb, err = gofs.New(g.v, c.gofer, int(m.Attach), gofs.Options{Source: m.Source, Handles: c.handles, MaxIdle: g.maxIdle, Shared: true, ReadOnly: m.Flags&unix.MS_RDONLY != 0}); err != nil {
			return err
		}
		isDir = sb.Root().Inode().Mode()&unix.S_IFMT == unix.S_IFDIR
	}
	target, err := g.mountPoint(ctx, m.Destination, isDir)
	if err != nil {
		if sb != nil {
			sb.DecRef()
		}
		return fmt.Errorf("mount point: %w", err)
	}
	defer target.DecRef()
	if sb != nil {
		err = g.v.MountSuperblock(ctx, sb, target, mountFlags(m.Flags))
	} else {
		err = g.v.Mount(ctx, m.Source, target, m.Type, m.Flags, m.Data)
	}
	if err != nil || m.Propagation == 0 {
		return err
	}
	top, err := g.v.Walk(ctx, vfs.Path{}, m.Destination, vfs.FollowLast|vfs.InRoot)
	if err != nil {
		return err
	}
	defer top.DecRef()
	return g.v.SetPropagation(ctx, top, m.Propagation)
}

// mountPoint finds a mount point in the container, creating what is missing of its path; symbolic links cannot lead out
// of the container's root, which is the only file system there is.
func (g *Guest) mountPoint(ctx vfs.Context, dest string, isDir bool) (vfs.Path, error) {
	dest = path.Clean("/" + dest)
	p, err := g.v.Walk(ctx, vfs.Path{}, dest, vfs.FollowLast)
	if err != unix.ENOENT {
		return p, err
	}
	if err := g.makeDirs(ctx, path.Dir(dest)); err != nil {
		return vfs.Path{}, err
	}
	if isDir {
		err = g.v.Mkdir(ctx, vfs.Path{}, dest, 0o755)
	} else {
		err = g.v.Mknod(ctx, vfs.Path{}, dest, unix.S_IFREG|0o644, 0)
	}
	if err != nil && err != unix.EEXIST {
		return vfs.Path{}, err
	}
	return g.v.Walk(ctx, vfs.Path{}, dest, vfs.FollowLast)
}

// makeDirs makes a directory and its parents.
func (g *Guest) makeDirs(ctx vfs.Context, dir string) error {
	for i := 1; i <= len(dir); i++ {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		if err := g.v.Mkdir(ctx, vfs.Path{}, dir[:i], 0o755); err != nil && err != unix.EEXIST && err != unix.EISDIR {
			if p, e := g.v.Walk(ctx, vfs.Path{}, dir[:i], vfs.FollowLast|vfs.MustBeDir); e == nil {
				p.DecRef()
				continue
			}
			return err
		}
	}
	return nil
}

// readonlyPath makes a path read-only, if it is there (config-linux.md, readonlyPaths).
func (g *Guest) readonlyPath(ctx vfs.Context, name string) error {
	p, err := g.v.Walk(ctx, vfs.Path{}, name, vfs.FollowLast)
	if err != nil {
		return ignoreMissing(err)
	}
	defer p.DecRef()
	if err := g.v.Bind(ctx, p, p, true); err != nil {
		return err
	}
	top, err := g.v.Walk(ctx, vfs.Path{}, name, vfs.FollowLast)
	if err != nil {
		return err
	}
	defer top.DecRef()
	return g.v.SetMountFlags(ctx, top, vfs.MountReadOnly, 0, false)
}

// maskPath hides a path, if it is there (config-linux.md, maskedPaths).
func (g *Guest) maskPath(ctx vfs.Context, name string) error {
	p, err := g.v.Walk(ctx, vfs.Path{}, name, vfs.FollowLast)
	if err != nil {
		return ignoreMissing(err)
	}
	defer p.DecRef()
	if p.Inode().Mode()&unix.S_IFMT == unix.S_IFDIR {
		return g.v.Mount(ctx, "tmpfs", p, "tmpfs", unix.MS_RDONLY, "")
	}
	null, err := g.v.Walk(ctx, vfs.Path{}, "/dev/null", vfs.FollowLast)
	if err != nil {
		return ignoreMissing(err)
	}
	defer null.DecRef()
	return g.v.Bind(ctx, null, p, false)
}

func ignoreMissing(err error) error {
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	return err
}

// defaultDevices are those of config-linux.md, "Default Devices".
var defaultDevices = [...]boot.Device{
	{Path: "/dev/null", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 3}, {Path: "/dev/zero", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 5},
	{Path: "/dev/full", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 7}, {Path: "/dev/random", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 8},
	{Path: "/dev/urandom", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 9}, {Path: "/dev/tty", Mode: unix.S_IFCHR | 0o666, Major: 5, Minor: 0},
}

// defaultLinks are the symbolic links of runtime-linux.md, "Dev symbolic links", and the multiplexer of pseudo-terminals.
var defaultLinks = [...][2]string{
	{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
	{"pts/ptmx", "/dev/ptmx"},
}

// makeDevices fills /dev. Where the file system of /dev refuses device nodes (a root served without an overlay), what is not there stays away.
func (g *Guest) makeDevices(ctx vfs.Context, spec *boot.Container) error {
	for i := range defaultDevices {
		if err := g.makeDevice(ctx, &defaultDevices[i]); err != nil && err != unix.EPERM && err != unix.EROFS && err != unix.ENOENT {
			return fmt.Errorf("device %s: %w", defaultDevices[i].Path, err)
		}
	}
	for _, l := range defaultLinks {
		if err := g.v.Symlink(ctx, l[0], vfs.Path{}, l[1]); err != nil && err != unix.EEXIST && err != unix.EROFS && err != unix.ENOENT {
			return fmt.Errorf("%s: %w", l[1], err)
		}
	}
	for i := range spec.Devices {
		if err := g.makeDevice(ctx, &spec.Devices[i]); err != nil {
			return fmt.Errorf("device %s: %w", spec.Devices[i].Path, err)
		}
	}
	return nil
}

func (g *Guest) makeDevice(ctx vfs.Context, d *boot.Device) error {
	if dir := path.Dir(d.Path); dir != "/dev" {
		if err := g.makeDirs(ctx, dir); err != nil {
			return err
		}
	}
	err := g.v.Mknod(ctx, vfs.Path{}, d.Path, d.Mode, unix.Mkdev(d.Major, d.Minor))
	if err == unix.EEXIST {
		return nil
	}
	if err != nil || d.UID|d.GID == 0 {
		return err
	}
	return g.v.SetStat(ctx, vfs.Path{}, d.Path, 0, &vfs.SetStat{Mask: vfs.SetUID | vfs.SetGID, UID: auth.KUID(d.UID), GID: auth.KGID(d.GID)})
}

// applySysctls writes the settings of config.json's linux.sysctl through procfs, but for those of the UTS namespace; see applyNames.
func (g *Guest) applySysctls(ctx vfs.Context, spec *boot.Container) error {
	for _, kv := range spec.Sysctls {
		if kv.Key == "kernel.hostname" || kv.Key == "kernel.domainname" {
			continue
		}
		if strings.HasPrefix(kv.Key, "net.") {
			continue // they belong to the network, which has none to set
		}
		if err := writeFile(ctx, g.v, "/proc/sys/"+strings.ReplaceAll(kv.Key, ".", "/"), kv.Value); err != nil {
			return fmt.Errorf("sysctl %s=%s: %w", kv.Key, kv.Value, err)
		}
	}
	return nil
}

// applyNames sets what of linux.sysctl belongs to the UTS namespace.
func applyNames(uts *kernel.UTSNamespace, list []boot.KeyValue) {
	for _, kv := range list {
		switch kv.Key {
		case "kernel.hostname":
			uts.SetHostName(kv.Value)
		case "kernel.domainname":
			uts.SetDomainName(kv.Value)
		}
	}
}
