package guest

import (
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
	"husk/pkg/sentry/socket"
	unixsocket "husk/pkg/sentry/socket/unix"
	"husk/pkg/sentry/vfs"
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

// overlay puts a layer in the memory file over lower, whose reference passes on.
func (g *Guest) overlay(lower *vfs.Superblock, source string) (*vfs.Superblock, error) {
	ctx := vfs.NewKernelContext(auth.NewRootCredentials(g.k.RootUserNamespace()), nil, nil)
	upper, err := tmpfs.NewType("tmpfs", g.mf, 0).Mount(ctx, g.v, &vfs.MountOptions{Data: "size=100%"})
	if err != nil {
		lower.DecRef()
		return nil, err
	}
	return overlay.NewOver(ctx, g.v, &vfs.MountOptions{Source: source}, upper, lower)
}
