package vfs

// Refs is the number of references at this moment: for the collector of files in flight, which knows that
// nobody else can take one.
func (fd *FileDescription) Refs() int64 { return fd.refs.Load() }
