package guest

import (
	"golang.org/x/sys/unix"

	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// terminal is a terminal of the host that a process has as its own.
type terminal interface {
	jobControl() *kernel.TTY
}

type hostFile struct{ fd int }

func (h *hostFile) Release() { unix.Close(h.fd) }
func (h *hostFile) ReadStream(ctx vfs.Context, dst mm.IOSeq) (int64, error) {
	n, err := dst.CopyOutFrom(func(b []byte) (int, error) { return unix.Read(h.fd, b) })
	return int64(n), err
}
func (h *hostFile) WriteStream(ctx vfs.Context, src mm.IOSeq) (int64, error) {
	n, err := src.CopyInTo(func(b []byte) (int, error) { return unix.Write(h.fd, b) })
	return int64(n), err
}

func (g *Guest) newHostFile(ctx vfs.Context, fd int) (*vfs.FileDescription, error) {
	return g.v.NewAnonFile("host", &hostFile{fd}, unix.O_RDWR), nil
}

func (g *Guest) newTerminal(ctx vfs.Context, fd int) (*vfs.FileDescription, terminal, error) {
	f, err := g.newHostFile(ctx, fd)
	return f, nil, err
}
