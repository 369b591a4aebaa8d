package guest

import (
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"
)

// terminal is a terminal of the host that a process has as its own.
type terminal interface {
	jobControl() *kernel.TTY
}

// newHostFile makes a file of a descriptor of the host, which belongs to it from now on, also on error.
func (g *Guest) newHostFile(ctx vfs.Context, fd int) (*vfs.FileDescription, error) {
	return g.host.New(ctx, fd)
}

func (g *Guest) newTerminal(ctx vfs.Context, fd int) (*vfs.FileDescription, terminal, error) {
	f, err := g.newHostFile(ctx, fd)
	return f, nil, err
}
