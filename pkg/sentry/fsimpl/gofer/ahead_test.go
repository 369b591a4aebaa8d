package gofer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

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
			set[e.name] = true
		}
	}
	return set
}

// TestAhead looks at a directory in the order of its listing.
func TestAhead(t *testing.T) {
	h := setup(t, Options{})
	const files = 100
	for k := range files {
		h.write(fmt.Sprintf("f%d", k), string(make([]byte, k)))
	}
	h.must(os.Link(filepath.Join(h.dir, "f7"), filepath.Join(h.dir, "other")))
	list := h.list()
	most := 0
	for _, name := range list {
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
	if most < aheadMax/2 {
		t.Errorf("at most %d names were pending", most)
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
