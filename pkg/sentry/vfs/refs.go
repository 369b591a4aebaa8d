package vfs

// Refs is the number of references at this moment: for the collector of files in flight, which knows that
// nobody else can take one.
func (fd *FileDescription) Refs() int64 { return fd.refs.Load() }

// SelfOpener is implemented by inodes of special types (devices, FIFOs, sockets) that open themselves,
// whatever their type and device number would say.
type SelfOpener interface {
	OpenSelf(ctx Context, flags uint32) (FileImpl, error)
}
