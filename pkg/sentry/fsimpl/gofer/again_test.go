package gofer

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openAll opens and reads the files in an order, and returns how many had a descriptor when they were opened.
func (h *harness) openAll(files []*inode, order func(k int) int) (had int) {
	h.t.Helper()
	for k := range files {
		n := order(k)
		i := files[n]
		if i.fd() >= 0 {
			had++
		}
		f, err := i.Open(h.ctx, unix.O_RDONLY)
		h.must(err)
		if s := read(h.t, f, 10, 0); s != fmt.Sprint(n) {
			h.t.Fatalf("file %d holds %q", n, s)
		}
		f.Release()
	}
	return had
}

// TestAgain opens more files than descriptors are kept, again and again: in the same order the descriptors come ahead, and are
// not more than are kept otherwise; in another they do not.
func TestAgain(t *testing.T) {
	h := setup(t, Options{})
	var files []*inode
	const n = 1500
	for k := range n {
		h.write(fmt.Sprintf("f%d", k), fmt.Sprint(k))
		files = append(files, h.lookup(h.root, fmt.Sprintf("f%d", k)))
	}
	same := func(k int) int { return k }
	if had := h.openAll(files, same); had > n/10 {
		t.Fatalf("%d descriptors before the first open", had)
	}
	before := descriptors(t)
	for range 2 {
		if had := h.openAll(files, same); had < n*9/10 {
			t.Errorf("%d of %d descriptors came ahead", had, n)
		}
	}
	for try := 0; descriptors(t) > before+8; try++ {
		if try == 100 {
			t.Errorf("%d descriptors, %d before", descriptors(t), before)
			break
		}
		time.Sleep(10 * time.Millisecond) // the broker, in this process, closes what it has sent
	}
	step := func(k int) int { return k * 701 % n }
	if had := h.openAll(files, step); had > n/2 {
		t.Errorf("%d descriptors for an order that was never seen", had)
	}
	if had := h.openAll(files, step); had < n*9/10 {
		t.Errorf("%d of %d descriptors came ahead in the second order", had, n)
	}

	// What was written through another descriptor is what is read.
	f, err := files[1].Open(h.ctx, unix.O_RDWR)
	h.must(err)
	f.Release()
	h.openAll(files, same)

	// Released files lead nowhere.
	for _, i := range files[:n/2] {
		i.DecRef()
	}
	for k := range n / 2 {
		if files[k].after.Load() != nil {
			t.Fatalf("released file %d leads to another", k)
		}
	}
	for k := n / 2; k < n; k++ {
		f, err := files[k].Open(h.ctx, unix.O_RDONLY)
		h.must(err)
		f.Release()
		files[k].DecRef()
	}
}

// TestAgainShared: where others change the files, nothing is opened before it is needed.
func TestAgainShared(t *testing.T) {
	h := setup(t, Options{Shared: true})
	var files []*inode
	for k := range 600 {
		h.write(fmt.Sprintf("f%d", k), fmt.Sprint(k))
		files = append(files, h.lookup(h.root, fmt.Sprintf("f%d", k)))
	}
	for range 2 {
		h.openAll(files, func(k int) int { return k })
	}
	for _, i := range files {
		if i.after.Load() != nil {
			t.Fatal("an order is kept")
		}
		i.DecRef()
	}
}
