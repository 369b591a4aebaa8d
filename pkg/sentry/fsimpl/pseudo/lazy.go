package pseudo

import (
	"sync"

	"husk/pkg/sentry/vfs"
)

// LazyDir is a Dir that is filled when it is used for the first time, so that mounting a file system costs nothing for what nobody looks at.
type LazyDir struct {
	Dir
	fill func(d *Dir)
	once sync.Once
}

// NewLazyDir makes a directory of root that fill enters the children of, with one reference.
func (f *FS) NewLazyDir(perm uint32, fill func(d *Dir)) *LazyDir {
	d := &LazyDir{fill: fill}
	d.InitDir(d, f, perm)
	return d
}

func (d *LazyDir) ready() { d.once.Do(func() { d.fill(&d.Dir) }) }

// Lookup implements vfs.InodeOps.
func (d *LazyDir) Lookup(ctx vfs.Context, name string) (*vfs.Inode, error) {
	d.ready()
	return d.Dir.Lookup(ctx, name)
}

// Stat implements vfs.InodeOps.
func (d *LazyDir) Stat(ctx vfs.Context, mask uint32, st *vfs.Stat) error {
	d.ready()
	return d.Dir.Stat(ctx, mask, st)
}

// Open implements vfs.InodeOps.
func (d *LazyDir) Open(vfs.Context, uint32) (vfs.FileImpl, error) {
	d.ready()
	return DirFile{&d.Dir}, nil
}

// AppendList appends the processors 0 to n-1 as a list: "0-3".
func AppendList(b []byte, n int) []byte {
	b = append(b, '0')
	if n > 1 {
		b = appendInt(append(b, '-'), n-1)
	}
	return b
}

func appendInt(b []byte, n int) []byte {
	if n >= 10 {
		b = appendInt(b, n/10)
	}
	return append(b, '0'+byte(n%10))
}

// AppendMask appends a set of n processors, of which has tells the members, as comma-separated groups of 32 bits.
func AppendMask(b []byte, n int, has func(i int) bool) []byte {
	const digits = "0123456789abcdef"
	for i := (max(n, 1)+3)/4 - 1; i >= 0; i-- {
		d := 0
		for k := 0; k < 4; k++ {
			if c := i*4 + k; c < n && has(c) {
				d |= 1 << k
			}
		}
		b = append(b, digits[d])
		if i%8 == 0 && i > 0 {
			b = append(b, ',')
		}
	}
	return b
}
