package guest

import (
	"strconv"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/cgroupfs"
	"husk/pkg/sentry/fsimpl/dev"
	"husk/pkg/sentry/fsimpl/mqueue"
	"husk/pkg/sentry/fsimpl/overlay"
	"husk/pkg/sentry/fsimpl/pipefs"
	"husk/pkg/sentry/fsimpl/proc"
	"husk/pkg/sentry/fsimpl/sysfs"
	"husk/pkg/sentry/fsimpl/tmpfs"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/socket"
	unixsocket "husk/pkg/sentry/socket/unix"
	"husk/pkg/sentry/vfs"
	"husk/runsc/boot"
)

// register tells the kernel of the file systems, devices and sockets that there are.
func (g *Guest) register() {
	g.v.RegisterFileSystem(tmpfs.NewType("tmpfs", g.mf, 0))
	g.v.RegisterFileSystem(overlay.Type{})
	dev.Register(g.k)
	proc.Register(g.k, g.v)
	sysfs.Register(g.k, g.v)
	cgroupfs.Register(g.k, g.v)
	g.v.RegisterFileSystem(&mqueue.Type{})
	g.v.SetFIFOOpener(pipefs.FIFOs{})
	socket.RegistryOf(g.k).Register(unix.AF_UNIX, unixsocket.NewFamily())
}

// overlay puts a layer in the memory file, or in a file of the host, over lower, whose reference passes on.
func (g *Guest) overlay(c *boot.Container, lower *vfs.Superblock, source string) (*vfs.Superblock, error) {
	upper, err := g.upper(c)
	if err != nil {
		lower.DecRef()
		return nil, err
	}
	ctx := vfs.NewKernelContext(auth.NewRootCredentials(g.k.RootUserNamespace()), nil, nil)
	return overlay.NewOver(ctx, g.v, &vfs.MountOptions{Source: source}, upper, lower)
}

// upper makes the layer for changes.
func (g *Guest) upper(c *boot.Container) (*vfs.Superblock, error) {
	mf, size := g.mf, "size=100%"
	if c.Overlay == boot.OverlayFile {
		var err error
		if mf, err = memfile.New(memfile.Options{FD: c.OverlayFile, Unmapped: true}); err != nil {
			return nil, err
		}
		size = "size=" + strconv.FormatUint(c.OverlaySize, 10)
	}
	ctx := vfs.NewKernelContext(auth.NewRootCredentials(g.k.RootUserNamespace()), nil, nil)
	return tmpfs.NewType("tmpfs", mf, 0).Mount(ctx, g.v, &vfs.MountOptions{Data: size})
}
