package gofer

import (
	"cmp"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// names takes a listing.
type names []string

func (n *names) Emit(name string, ino uint64, typ uint8, next int64) bool {
	*n = append(*n, name)
	return true
}

// list reads the root directory.
func (h *harness) list() names {
	h.t.Helper()
	f, err := h.root.Open(h.ctx, unix.O_RDONLY)
	h.must(err)
	defer f.Release()
	var n names
	h.must(f.(vfs.DirReader).ReadDir(h.ctx, 0, &n))
	return n
}

func (h *harness) size(i vfs.InodeOps) int64 {
	h.t.Helper()
	var st vfs.Stat
	h.must(i.Stat(h.ctx, 0, &st))
	return int64(st.Size)
}

// pending are the names that the root has asked for ahead.
func (h *harness) pending() map[string]bool {
	r := h.fs.root
	r.mu.Lock()
	defer r.mu.Unlock()
	set := map[string]bool{}
	if r.ahead != nil {
		for _, e := range r.ahead.entries {
			set[r.listing.ents[e.index].Name] = true
		}
	}
	return set
}

// inOrder sorts the names of a listing.
func (h *harness) inOrder(o order, list names) names {
	list = slices.Clone(list)
	ino := map[string]uint64{}
	for _, name := range list {
		var st unix.Stat_t
		h.must(unix.Lstat(filepath.Join(h.dir, name), &st))
		ino[name] = st.Ino
	}
	switch o {
	case byName:
		slices.Sort(list)
	case byInode:
		slices.SortFunc(list, func(a, b string) int {
			if c := cmp.Compare(ino[a], ino[b]); c != 0 {
				return c
			}
			return cmp.Compare(a, b)
		})
	}
	return list
}

// TestAhead looks at a directory in each order.
func TestAhead(t *testing.T) {
	for o := range orders {
		h := setup(t, Options{})
		const files = 100
		for _, k := range rand.Perm(files) {
			h.write(fmt.Sprintf("f%d", k), string(make([]byte, k)))
		}
		h.must(os.Link(filepath.Join(h.dir, "f7"), filepath.Join(h.dir, "other")))
		most, hits := 0, 0
		for _, name := range h.inOrder(o, h.list()) {
			if h.pending()[name] {
				hits++
			}
			i := h.lookup(h.root, name)
			var k int64 = 7
			fmt.Sscanf(name, "f%d", &k)
			if n := h.size(i); n != k {
				t.Errorf("%s has %d bytes", name, n)
			}
			p := h.pending()
			if p["f7"] || p["other"] {
				t.Error("a file with two names was asked for ahead")
			}
			if p[name] {
				t.Errorf("%s is still pending", name)
			}
			most = max(most, len(p))
			i.DecRef()
		}
		if most < aheadMax/2 || most > 2*aheadMax || hits < files/2 {
			t.Errorf("order %d: at most %d names were pending, %d hits", o, most, hits)
		}
	}
}

// TestAheadDirs looks at directories only, and lists them.
func TestAheadDirs(t *testing.T) {
	h := setup(t, Options{})
	for k := range 200 {
		h.write(fmt.Sprintf("f%d", k), "")
		if k%4 == 0 {
			h.must(os.Mkdir(fmt.Sprintf("%s/d%d", h.dir, k), 0o755))
			h.write(fmt.Sprintf("d%d/in%d", k, k), "")
		}
	}
	known, others := 0, 0
	for _, name := range h.list() {
		if name[0] != 'd' {
			continue
		}
		i := h.lookup(h.root, name)
		for p := range h.pending() {
			if p[0] != 'd' {
				others++
			}
		}
		i.mu.Lock()
		if i.listing != nil {
			known++
		}
		i.mu.Unlock()
		ents, err := i.list()
		h.must(err)
		if len(ents) != 1 || ents[0].Name != "in"+name[1:] || ents[0].Type != unix.DT_REG {
			t.Errorf("%s: %v", name, ents)
		}
		i.DecRef()
	}
	if known < 20 || others > 2*aheadMax {
		t.Errorf("%d lists came ahead, %d files were pending", known, others)
	}
	// A list that came ahead is that of the directory.
	i := h.lookup(h.root, "d0")
	c, err := i.Create(h.ctx, "new", &vfs.CreateArgs{Mode: unix.S_IFREG | 0o600})
	h.must(err)
	c.DecRef()
	if ents, err := i.list(); len(ents) != 2 || err != nil {
		t.Error(ents, err)
	}
	i.DecRef()
}

// descriptors is how many the process has.
func descriptors(t *testing.T) int {
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(ents)
}

// TestAheadOpens opens what it looks up: descriptors come ahead, of regular files only, and stop coming when nobody opens any more.
func TestAheadOpens(t *testing.T) {
	h := setup(t, Options{})
	h.must(os.Mkdir(h.dir+"/sub", 0o755))
	for k := range 200 {
		h.write(fmt.Sprintf("f%d", k), fmt.Sprint(k))
		h.write(fmt.Sprintf("sub/g%d", k), fmt.Sprint(k))
		if k%10 == 0 {
			h.must(unix.Mkfifo(fmt.Sprintf("%s/p%d", h.dir, k), 0o600))
			h.must(os.Symlink("f1", fmt.Sprintf("%s/l%d", h.dir, k)))
		}
	}
	came := 0
	for _, name := range h.list() {
		i := h.lookup(h.root, name)
		if fd := i.fd(); fd >= 0 {
			came++
			if name[0] != 'f' {
				t.Errorf("%s was opened", name)
			}
		}
		if name[0] == 'f' {
			f, err := i.Open(h.ctx, unix.O_RDONLY)
			h.must(err)
			if s := read(t, f, 10, 0); s != name[1:] {
				t.Errorf("%s holds %q", name, s)
			}
			f.Release()
		}
		i.DecRef()
	}
	if came < 150 {
		t.Errorf("%d descriptors came ahead", came)
	}
	sub := h.lookup(h.root, "sub")
	ents, err := sub.list()
	h.must(err)
	came = 0
	for k, e := range ents {
		i := h.lookup(sub, e.Name)
		if i.fd() >= 0 {
			came++
			if k > 100 {
				t.Errorf("%s was opened after %d that nobody wanted", e.Name, k)
			}
		}
		if k == 0 {
			// Opened for writing, it has no other descriptor.
			f, err := i.Open(h.ctx, unix.O_RDWR)
			h.must(err)
			if i.rd.Load() >= 0 || i.rw.Load() < 0 {
				t.Error("descriptors after an open for writing", i.rd.Load(), i.rw.Load())
			}
			f.Release()
		}
		i.DecRef()
	}
	if came == 0 || came > 100 {
		t.Errorf("%d descriptors came that nobody wanted", came)
	}
	sub.DecRef()
}

// TestAheadDescriptors checks that descriptors ahead are bounded and go with the names that they are for.
func TestAheadDescriptors(t *testing.T) {
	h := setup(t, Options{})
	for d := range 2 * aheadDirs {
		h.must(os.Mkdir(fmt.Sprintf("%s/d%d", h.dir, d), 0o755))
		for k := range 60 {
			h.write(fmt.Sprintf("d%d/f%d", d, k), "x")
		}
	}
	before := descriptors(t)
	var dirs []*inode
	for d := range 2 * aheadDirs {
		i := h.lookup(h.root, fmt.Sprintf("d%d", d))
		dirs = append(dirs, i)
		ents, err := i.list()
		h.must(err)
		for _, e := range ents[:30] {
			c := h.lookup(i, e.Name)
			f, err := c.Open(h.ctx, unix.O_RDONLY)
			h.must(err)
			f.Release()
			c.DecRef()
		}
	}
	held := 0
	for _, i := range dirs {
		i.mu.Lock()
		if i.ahead != nil {
			for _, e := range i.ahead.entries {
				if e.FD >= 0 {
					held++
				}
			}
		}
		i.mu.Unlock()
	}
	if held == 0 || held > aheadDirs*2*aheadMax {
		t.Errorf("%d descriptors ahead", held)
	}
	for _, i := range dirs {
		i.changed()
		i.DecRef()
	}
	// The server, in this process, has the root and may be about to close what it sent.
	n := 0
	for range 1000 { // reads what was under way
		h.fs.root.touch()
		h.stat(h.root)
		h.c.Flush()
		if n = descriptors(t); n <= before+10 {
			break
		}
	}
	if n > before+10 {
		t.Errorf("%d descriptors are left, before %d", n, before)
	}
	small := setup(t, Options{MaxIdle: 10})
	for k := range 60 {
		small.write(fmt.Sprintf("f%d", k), "x")
	}
	for _, name := range small.list() {
		c := small.lookup(small.root, name)
		if c.fd() >= 0 {
			t.Fatal("a descriptor came ahead although few may be kept")
		}
		f, err := c.Open(small.ctx, unix.O_RDONLY)
		small.must(err)
		f.Release()
		c.DecRef()
	}
}

// TestAheadFirstUse checks that what was asked for ahead is not older than a change through an inode.
func TestAheadFirstUse(t *testing.T) {
	h := setup(t, Options{})
	for k := range 100 {
		h.write(fmt.Sprintf("f%02d", k), "x")
	}
	list := h.list()
	for n, name := range list {
		// Out of order: a name that may be in a request that is under way.
		for _, other := range []int{n, n + 20} {
			if other >= len(list) {
				continue
			}
			i := h.lookup(h.root, list[other])
			if size := h.size(i); size != 1 && size != 5 {
				t.Errorf("%s has %d bytes", name, size)
			} else if size == 1 {
				f, err := i.Open(h.ctx, unix.O_RDWR)
				h.must(err)
				_, err = f.(vfs.Writer).Write(h.ctx, mm.BytesSeq([]byte("hello")), 0)
				h.must(err)
				f.Release()
			}
			i.DecRef()
		}
		i := h.lookup(h.root, name)
		if size := h.size(i); size != 5 {
			t.Errorf("%s has %d bytes after the write", name, size)
		}
		i.DecRef()
	}
}

// TestAheadForgets checks that changes of the directory end what was asked for ahead, and that a name is asked for anew.
func TestAheadForgets(t *testing.T) {
	for _, change := range []string{"create", "unlink", "rename"} {
		h := setup(t, Options{})
		for k := range 40 {
			h.write(fmt.Sprintf("f%02d", k), "x")
		}
		list := h.list()
		for _, name := range list[:8] {
			h.lookup(h.root, name).DecRef()
		}
		if len(h.pending()) == 0 {
			t.Fatal("nothing is pending")
		}
		victim := list[10]
		switch change {
		case "create":
			i, err := h.root.Create(h.ctx, "new", &vfs.CreateArgs{Mode: unix.S_IFREG | 0o600})
			h.must(err)
			i.DecRef()
		case "unlink":
			i := h.lookup(h.root, victim)
			h.must(h.root.Unlink(h.ctx, victim, &i.Inode))
			i.DecRef()
		case "rename":
			i := h.lookup(h.root, victim)
			h.must(h.root.Rename(h.ctx, victim, &i.Inode, &h.fs.root.Inode, "moved", nil, 0))
			i.DecRef()
		}
		if p := h.pending(); len(p) != 0 {
			t.Errorf("%s: %v are pending", change, p)
		}
		_, err := h.root.Lookup(h.ctx, victim)
		if gone := change != "create"; gone != (err == unix.ENOENT) {
			t.Errorf("%s: lookup afterwards: %v", change, err)
		}
	}
}

// TestAheadBounded checks that few directories keep entries, and that a shared attach point keeps none.
func TestAheadBounded(t *testing.T) {
	for _, shared := range []bool{false, true} {
		h := setup(t, Options{Shared: shared})
		var dirs []*inode
		for d := range aheadDirs + 4 {
			name := fmt.Sprintf("d%d", d)
			h.must(os.Mkdir(filepath.Join(h.dir, name), 0o755))
			for k := range 30 {
				h.write(fmt.Sprintf("%s/f%d", name, k), "")
			}
			i := h.lookup(h.root, name)
			dirs = append(dirs, i)
			ents, err := i.list()
			h.must(err)
			for _, e := range ents[:6] {
				h.lookup(i, e.Name).DecRef()
			}
		}
		n := 0
		for _, i := range dirs {
			if i.ahead != nil && len(i.ahead.entries) > 0 {
				n++
			}
			i.DecRef()
		}
		if want := aheadDirs; shared && n != 0 || !shared && n != want {
			t.Errorf("shared %v: %d directories keep entries", shared, n)
		}
	}
}
