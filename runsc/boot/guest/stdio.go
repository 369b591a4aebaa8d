package guest

import (
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
