package pseudo

import (
	"sync"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// Generator makes the content of a file: it appends to buf.
type Generator interface {
	Generate(ctx vfs.Context, buf []byte) ([]byte, error)
}

// GeneratorFunc is a function as Generator.
type GeneratorFunc func(ctx vfs.Context, buf []byte) ([]byte, error)

// Generate implements Generator.
func (f GeneratorFunc) Generate(ctx vfs.Context, buf []byte) ([]byte, error) { return f(ctx, buf) }

// Bytes is fixed content.
type Bytes string

// Generate implements Generator.
func (b Bytes) Generate(_ vfs.Context, buf []byte) ([]byte, error) { return append(buf, b...), nil }

// Setter takes what is written to a file. Each write(2) is one call; data has at most MaxWrite bytes.
type Setter interface {
	Set(ctx vfs.Context, data []byte, off int64) error
}

// MaxWrite is the most that one write to a file with a Setter may hold: EINVAL beyond.
const MaxWrite = 64 << 10

// File is a file with generated content. The content is made when a read begins at offset 0 (or when an open file is first read),
// and kept for reads that go on, so that a reader sees one state. If the Generator is a Setter too, the file can be written.
type File struct {
	Node
	Gen Generator
	// OpenCheck, if set, vets each open, for rules beyond the mode bits.
	OpenCheck func(ctx vfs.Context) error
}

// NewFile makes a file of root with mode perm, with one reference.
func (f *FS) NewFile(perm uint32, gen Generator) *File {
	n := &File{Gen: gen}
	n.InitFile(n, f, perm, gen)
	return n
}

// InitFile sets up a File that is embedded in ops.
func (n *File) InitFile(ops vfs.InodeOps, f *FS, perm uint32, gen Generator) {
	n.Gen = gen
	n.Node.Init(ops, f.SB, f.NextIno(), unix.S_IFREG|perm, 0, 0, vfs.InodeNoExec)
}

// Open implements vfs.InodeOps.
func (n *File) Open(ctx vfs.Context, flags uint32) (vfs.FileImpl, error) {
	if n.OpenCheck != nil {
		if err := n.OpenCheck(ctx); err != nil {
			return nil, err
		}
	}
	return NewOpenFile(n.Gen), nil
}

// OpenFile is an open file with generated content.
type OpenFile struct {
	gen Generator

	mu   sync.Mutex
	data []byte // protected by mu: content of the last generation; dropped when a reader has come to its end
	size int64  // protected by mu: its length
	made bool   // protected by mu
}

// NewOpenFile makes one for gen.
func NewOpenFile(gen Generator) *OpenFile { return &OpenFile{gen: gen} }

// Release implements vfs.FileImpl.
func (o *OpenFile) Release() {}

// Read implements vfs.Reader.
func (o *OpenFile) Read(ctx vfs.Context, dst mm.IOSeq, off int64) (int64, error) {
	o.mu.Lock()
	data, made, size := o.data, o.made, o.size
	if made && off >= size && off > 0 {
		o.data = nil
		o.mu.Unlock()
		return 0, nil
	}
	o.mu.Unlock()
	if !made || off == 0 || data == nil {
		var err error
		if data, err = o.gen.Generate(ctx, nil); err != nil {
			return 0, err
		}
		o.mu.Lock()
		o.data, o.made, o.size = data, true, int64(len(data))
		o.mu.Unlock()
	}
	if off >= int64(len(data)) {
		return 0, nil
	}
	n, err := dst.CopyOut(data[off:])
	return int64(n), err
}

// Write implements vfs.Writer.
func (o *OpenFile) Write(ctx vfs.Context, src mm.IOSeq, off int64) (int64, error) {
	s, ok := o.gen.(Setter)
	if !ok {
		return 0, unix.EINVAL
	}
	if src.NumBytes() > MaxWrite {
		return 0, unix.EINVAL
	}
	buf := make([]byte, src.NumBytes())
	if n, err := src.CopyIn(buf); err != nil {
		return 0, err
	} else {
		buf = buf[:n]
	}
	if err := s.Set(ctx, buf, off); err != nil {
		return 0, err
	}
	return int64(len(buf)), nil
}

// InitOpenFile sets up an OpenFile that is embedded in another implementation of an open file.
func (o *OpenFile) InitOpenFile(gen Generator) { o.gen = gen }
