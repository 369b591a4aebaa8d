package guest

import (
	"strconv"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/fsimpl/devpts"
	"husk/pkg/sentry/vfs"
)

// newHostFile makes a file of a descriptor of the host, which belongs to it from now on, also on error.
func (g *Guest) newHostFile(ctx vfs.Context, fd int) (*vfs.FileDescription, error) {
	return g.host.New(ctx, fd)
}

// newTerminal makes the terminal of a process of a descriptor of the host, which belongs to it from now on, also on error.
func (g *Guest) newTerminal(ctx vfs.Context, fd int) (*vfs.FileDescription, *devpts.Terminal, error) {
	return devpts.OpenHost(ctx, g.k, fd)
}

// attend ends the terminal with its process: output is out before anybody hears of the exit.
func (p *process) attend() {
	p.drained = make(chan struct{})
	go func() {
		<-p.group.Done()
		p.tty.Finish()
		close(p.drained)
	}()
}

// mountConsole shows a container's terminal as /dev/console, as runc does.
func (g *Guest) mountConsole(c *container, tty *devpts.Terminal) error {
	ctx, done := g.rootContext(c)
	defer done()
	slave, err := g.v.Walk(ctx, vfs.Path{}, "/dev/pts/"+strconv.Itoa(int(tty.Index())), 0)
	if err != nil {
		return ignoreMissing(err)
	}
	defer slave.DecRef()
	if err := g.v.Mknod(ctx, vfs.Path{}, "/dev/console", unix.S_IFREG|0o600, 0); err != nil && err != unix.EEXIST {
		return err
	}
	at, err := g.v.Walk(ctx, vfs.Path{}, "/dev/console", vfs.FollowLast)
	if err != nil {
		return err
	}
	defer at.DecRef()
	return g.v.Bind(ctx, slave, at, false)
}
