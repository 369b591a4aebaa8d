package gofer

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	broker "husk/pkg/gofer"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// drop closes the descriptors of an inode that nobody uses, as the list of idle ones does.
func (i *inode) drop() {
	i.mu.Lock()
	i.closeLocked()
	i.mu.Unlock()
}

// TestChangedBehind: a file that somebody changes nevertheless is seen as a whole, as it is when it is opened, and one that is replaced is not taken for
// what it was.
func TestChangedBehind(t *testing.T) {
	h := frozen(t, Options{Handles: NewHandles(1000)})
	dir := h.lookup(h.root, "d1")
	f := h.lookup(dir, "f1")
	h.readFrozen(f, "d1/f1")
	h.readFrozen(f, "d1/f1") // now from a copy
	f.drop()
	h.write("d1/f1", "another text")
	h.readFrozen(f, "another text")
	if st := h.stat(f); st.Size != 12 {
		t.Errorf("size %d", st.Size)
	}
	f.drop()
	h.write("d1/new", "replaced")
	h.must(os.Rename(h.dir+"/d1/new", h.dir+"/d1/f1"))
	_, err := f.Open(h.ctx, unix.O_RDONLY)
	h.want("open of a replaced file", err, unix.ESTALE)
	g := h.lookup(dir, "f1")
	if g == f {
		t.Error("it has the inode of the old one")
	}
	h.readFrozen(g, "replaced")
	g.drop()
	h.must(os.Remove(h.dir + "/d1/f1"))
	h.must(os.Mkdir(h.dir+"/d1/f1", 0o755))
	_, err = g.Open(h.ctx, unix.O_RDONLY)
	h.want("open of what is a directory now", err, unix.ESTALE)
	for _, i := range []*inode{f, g, dir} {
		i.DecRef()
	}
}

// TestNumberAgain: the host gives the inode number of a file that was removed to another.
func TestNumberAgain(t *testing.T) {
	h := frozen(t, Options{})
	dir := h.lookup(h.root, "d1")
	f := h.lookup(dir, "f1")
	a := f.attr
	for k, change := range []func(*broker.Attr){
		func(a *broker.Attr) {},
		func(a *broker.Attr) { a.Mode = unix.S_IFIFO | 0o644 },
		func(a *broker.Attr) { a.Btime.Nsec ^= 1 },
	} {
		e := broker.Entry{Attr: a}
		change(&e.Attr)
		i := h.fs.inode(dir, fmt.Sprint(k), &e)
		if (i == f) != (k == 0) || i.Type() != e.Attr.Type() {
			t.Errorf("change %d: type %#o, old inode: %v", k, i.Type(), i == f)
		}
		i.DecRef()
	}
	f.DecRef()
	dir.DecRef()
}

// TestOpenAgain: open(2) finds what a name means by now.
func TestOpenAgain(t *testing.T) {
	h := mounted(t, Options{ReadOnly: true})
	h.write("a", "old")
	for _, change := range []struct {
		how  func()
		want string
	}{
		{func() {}, "old"},
		{func() { h.write("a", "old and more") }, "old and more"},
		{func() { h.write("b", "new"); h.must(os.Rename(h.dir+"/b", h.dir+"/a")) }, "new"},
		{func() {
			h.must(os.Remove(h.dir + "/a"))
			h.write("c", "behind a link")
			h.must(os.Symlink("c", h.dir+"/a"))
		}, "behind a link"},
		{func() { h.must(os.Remove(h.dir + "/c")) }, unix.ENOENT.Error()},
	} {
		change.how()
		if got := h.readNow("a"); got != change.want {
			t.Errorf("%q, want %q", got, change.want)
		}
	}
}

// readNow reads a file and closes its descriptor on the host.
func (h *harness) readNow(path string) string {
	fd, err := h.open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err.Error()
	}
	b := make([]byte, 100)
	n, err := fd.Read(h.ctx, mm.BytesSeq(b))
	h.must(err)
	i := fd.Path().Inode().Ops().(*inode)
	i.IncRef()
	fd.DecRef()
	i.drop()
	i.DecRef()
	return string(b[:n])
}

// TestFewHandles: a broker that has no more room than a few handles serves a tree nevertheless.
func TestFewHandles(t *testing.T) {
	h := frozen(t, Options{Handles: NewHandles(12), MaxIdle: 3}, 16)
	for range 3 {
		h.readTree()
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for k := range 100 {
				d, f := (k*(2*g+1)+g)%10, k%10
				list, err := h.root.(vfs.BatchLookup).LookupMany(h.ctx, []string{fmt.Sprintf("d%d", d), fmt.Sprintf("f%d", f)})
				if err != nil || len(list) != 2 {
					t.Error(len(list), err)
					return
				}
				i := list[1].Ops().(*inode)
				if _, err := i.GetXattr(h.ctx, "user.none"); err != unix.ENODATA {
					t.Error(err)
				}
				h.readFrozen(i, fmt.Sprintf("d%d/f%d", d, f))
				list[0].DecRef()
				list[1].DecRef()
			}
		}()
	}
	wg.Wait()
}

// TestNoHandle: a broker that gives no handle where it has to is an error.
func TestNoHandle(t *testing.T) {
	h := setup(t, Options{})
	i := h.fs.inode(h.root.(*inode), "x", &broker.Entry{Attr: broker.Attr{Mode: unix.S_IFREG, Ino: 1 << 40, Nlink: 1}})
	_, err := i.Open(h.ctx, unix.O_RDONLY)
	if err == nil {
		t.Error("opened")
	}
	_, err = i.GetXattr(h.ctx, "user.x")
	h.want("getxattr", err, unix.EIO)
	i.DecRef()
}
