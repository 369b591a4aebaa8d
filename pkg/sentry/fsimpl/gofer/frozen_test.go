package gofer

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// frozen shows a tree of directories d0 to d9 with files f0 to f9 each, which hold their path, in an attach point that nobody changes.
func frozen(t *testing.T, o Options, handles ...int) *harness {
	dir := t.TempDir()
	for d := range 10 {
		os.Mkdir(fmt.Sprintf("%s/d%d", dir, d), 0o755)
		for f := range 10 {
			os.WriteFile(fmt.Sprintf("%s/d%d/f%d", dir, d, f), fmt.Appendf(nil, "d%d/f%d", d, f), 0o644)
		}
	}
	o.ReadOnly = true
	return setupOn(t, dir, o, handles...)
}

// readTree looks up, lists and reads all files.
func (h *harness) readTree() {
	h.t.Helper()
	for d := range 10 {
		dir := h.lookup(h.root, fmt.Sprintf("d%d", d))
		if n := h.count(dir); n != 10 {
			h.t.Errorf("%d entries", n)
		}
		for f := range 10 {
			i := h.lookup(dir, fmt.Sprintf("f%d", f))
			h.readFrozen(i, fmt.Sprintf("d%d/f%d", d, f))
			i.DecRef()
		}
		dir.DecRef()
	}
}

// count lists a directory.
func (h *harness) count(dir *inode) int {
	f, err := dir.Open(h.ctx, unix.O_RDONLY|unix.O_DIRECTORY)
	h.must(err)
	defer f.Release()
	s := &sink{max: 1000}
	h.must(f.(vfs.DirReader).ReadDir(h.ctx, 2, s))
	return len(s.names)
}

func (h *harness) readFrozen(i *inode, text string) {
	h.t.Helper()
	f, err := i.Open(h.ctx, unix.O_RDONLY)
	h.must(err)
	if s := read(h.t, f, 64, 0); s != text {
		h.t.Errorf("%q, want %q", s, text)
	}
	if s := read(h.t, f, 64, 2); s != text[2:] {
		h.t.Errorf("%q, want %q", s, text[2:])
	}
	for _, off := range []int64{int64(len(text)), 1 << 40} {
		if s := read(h.t, f, 64, off); s != "" {
			h.t.Errorf("%q behind the end", s)
		}
	}
	if n, err := f.(vfs.Sizer).Size(h.ctx); n != int64(len(text)) || err != nil {
		h.t.Errorf("size %d, %v", n, err)
	}
	f.Release()
}

// TestFrozen: files have no handles, and what needs one gets it.
func TestFrozen(t *testing.T) {
	h := frozen(t, Options{Handles: NewHandles(1000)})
	h.readTree()
	list, err := h.root.(vfs.BatchLookup).LookupMany(h.ctx, []string{"d3", "f4"})
	h.must(err)
	d, f := list[0].Ops().(*inode), list[1].Ops().(*inode)
	if f.handle() != 0 || d.handle() == 0 {
		t.Errorf("handles %#x, %#x", f.handle(), d.handle())
	}
	if kept := h.fs.handles.kept.Load(); kept != 2 {
		t.Errorf("%d handles, with the root's", kept)
	}
	if _, err := f.ListXattr(h.ctx); err != nil {
		t.Error(err)
	}
	_, err = f.GetXattr(h.ctx, "user.none")
	h.want("getxattr", err, unix.ENODATA)
	if f.handle() != 0 {
		t.Error("the handle stays")
	}
	h.readFrozen(f, "d3/f4")
	f.DecRef()
	d.DecRef()
	if kept := h.fs.handles.kept.Load(); kept != 1 {
		t.Errorf("%d handles at the end", kept)
	}
}

// TestBlocks: small reads that come again are the file's bytes, wherever they are, and no more blocks are kept than may be.
func TestBlocks(t *testing.T) {
	dir := t.TempDir()
	data := make([]byte, 3*blockSize+100)
	for k := range data {
		data[k] = byte(k*7 + k>>8)
	}
	os.WriteFile(dir+"/big", data, 0o644)
	os.WriteFile(dir+"/empty", nil, 0o644)
	for k := range blocksMax + 10 {
		os.WriteFile(fmt.Sprintf("%s/s%d", dir, k), fmt.Appendf(nil, "small %d", k), 0o644)
	}
	h := setupOn(t, dir, Options{ReadOnly: true})
	big := h.lookup(h.root, "big")
	f, err := big.Open(h.ctx, unix.O_RDONLY)
	h.must(err)
	for _, x := range []struct{ off, n int }{
		{0, 1}, {0, blockSize}, {1, blockSize}, {blockSize, blockSize}, {blockSize - 1, 1}, {blockSize - 1, 2}, {3*blockSize + 90, 10}, {3*blockSize + 90, 11},
		{3*blockSize + 99, 5000}, {3 * blockSize, blockSize}, {0, len(data)}, {len(data), 1}, {2*blockSize + 5, 0},
	} {
		for range 4 {
			if s, w := read(t, f, x.n, int64(x.off)), string(data[x.off:min(x.off+x.n, len(data))]); s != w {
				t.Errorf("%d bytes at %d: %q, want %q", x.n, x.off, s, w)
			}
		}
	}
	if big.recent.block.Load() == nil {
		t.Error("no block is kept")
	}
	if a := testing.AllocsPerRun(100, func() { read4(t, f) }); a > 0 {
		t.Errorf("%v allocations for a read", a)
	}
	f.Release()
	empty := h.lookup(h.root, "empty")
	if f, err = empty.Open(h.ctx, unix.O_RDONLY); err == nil {
		if s := read(t, f, 10, 0); s != "" {
			t.Errorf("%q in an empty file", s)
		}
		f.Release()
	}
	var files []*inode
	for k := range blocksMax + 10 {
		i := h.lookup(h.root, fmt.Sprintf("s%d", k))
		f, err := i.Open(h.ctx, unix.O_RDONLY)
		h.must(err)
		for range 3 {
			if s := read(t, f, 64, 0); s != fmt.Sprintf("small %d", k) {
				t.Errorf("%q", s)
			}
		}
		f.Release()
		files = append(files, i)
	}
	once, err := files[0].Open(h.ctx, unix.O_RDONLY)
	h.must(err)
	for range 2 {
		h.fs.blocks.reads.Add(blocksSpan) // others read meanwhile
		read(t, once, 64, 0)
	}
	once.Release()
	kept := 0
	for _, i := range append(files, big) {
		if i.recent.block.Load() != nil {
			kept++
		}
	}
	if kept != blocksMax || files[0].recent.block.Load() != nil {
		t.Errorf("%d blocks", kept)
	}
	for _, i := range append(files, big, empty) {
		i.DecRef()
	}
}

var readBuf [4]byte

func read4(t *testing.T, f vfs.FileImpl) {
	if n, err := f.(vfs.Reader).Read(nil, mm.BytesSeq(readBuf[:]), 8); n != 4 || err != nil {
		t.Error(n, err)
	}
}

// TestParkedHandles: with few handles directories lose theirs and get them again, while many look, list and open.
func TestParkedHandles(t *testing.T) {
	h := frozen(t, Options{Handles: NewHandles(4), MaxIdle: 3})
	var dirs, files []*inode
	for d := range 10 {
		dirs = append(dirs, h.lookup(h.root, fmt.Sprintf("d%d", d)))
		files = append(files, h.lookup(dirs[d], "f7"))
	}
	if kept := h.fs.handles.kept.Load(); kept > 4 {
		t.Errorf("%d handles", kept)
	}
	if dirs[0].handle() != 0 {
		t.Error("the first directory keeps its handle")
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for k := range 200 {
				n := (k*(g+1) + g) % 10
				if h.count(dirs[n]) != 10 {
					t.Error("entries are missing")
				}
				if _, err := dirs[n].ListXattr(h.ctx); err != nil {
					t.Error(err)
				}
				i, err := dirs[n].Lookup(h.ctx, fmt.Sprintf("f%d", k%10))
				if err != nil {
					t.Error(err)
					return
				}
				h.readFrozen(i.Ops().(*inode), fmt.Sprintf("d%d/f%d", n, k%10))
				i.DecRef()
				h.readFrozen(files[n], fmt.Sprintf("d%d/f7", n))
			}
		}()
	}
	wg.Wait()
	if kept := h.fs.handles.kept.Load(); kept > 8 {
		t.Errorf("%d handles", kept)
	}
	for k := range dirs {
		files[k].DecRef()
		dirs[k].DecRef()
	}
	if kept := h.fs.handles.kept.Load(); kept != 1 || h.fs.dirs.length != 0 {
		t.Errorf("%d handles at the end, %d directories", kept, h.fs.dirs.length)
	}
}

// TestHandlesElsewhere: where each file has a handle, too many make names leave the cache.
func TestHandlesElsewhere(t *testing.T) {
	h := mounted(t, Options{Handles: NewHandles(100)})
	for k := range 500 {
		h.write(fmt.Sprintf("f%d", k), "x")
	}
	for k := range 500 {
		fd, err := h.open(fmt.Sprintf("f%d", k), unix.O_RDONLY, 0)
		h.must(err)
		fd.DecRef()
	}
	if kept := h.fs.handles.kept.Load(); kept > 110 {
		t.Errorf("%d handles", kept)
	}
}
