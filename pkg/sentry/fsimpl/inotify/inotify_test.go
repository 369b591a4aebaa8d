package inotify

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

func setup(t *testing.T) (*vfs.FileDescription, *Instance, vfs.Context) {
	v := vfs.New(0)
	ctx := vfs.NewKernelContext(auth.NewRootCredentials(auth.NewRootUserNamespace()), nil, nil)
	f, err := New(ctx, v, &Users{}, unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	return f, f.Impl().(*Instance), ctx
}

// inode is a file that can be watched.
func inode(ctx vfs.Context, f *vfs.FileDescription) *vfs.Inode {
	return f.VFS().NewAnonPath(ctx, "x", unix.S_IFREG|0600).Inode()
}

func events(t *testing.T, f *vfs.FileDescription, ctx vfs.Context) (list []event) {
	b := make([]byte, 4096)
	n, err := f.Read(ctx, mm.BytesSeq(b))
	if err == unix.EAGAIN {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	for b = b[:n]; len(b) > 0; {
		le := binary.LittleEndian
		e := event{wd: int32(le.Uint32(b)), mask: le.Uint32(b[4:]), cookie: le.Uint32(b[8:])}
		size := le.Uint32(b[12:])
		for _, c := range b[header : header+size] {
			if c != 0 {
				e.name += string(rune(c))
			}
		}
		list = append(list, e)
		b = b[header+size:]
	}
	return list
}

func TestWatches(t *testing.T) {
	f, i, ctx := setup(t)
	n := inode(ctx, f)
	wd, err := i.AddWatch(n, unix.IN_MODIFY)
	if wd != 1 || err != nil {
		t.Fatal(wd, err)
	}
	if wd, err := i.AddWatch(n, unix.IN_ATTRIB|unix.IN_MASK_ADD); wd != 1 || err != nil {
		t.Fatal(wd, err)
	}
	if _, err := i.AddWatch(n, unix.IN_ATTRIB|unix.IN_MASK_CREATE); err != unix.EEXIST {
		t.Fatal(err)
	}
	w := n.FindWatch(i)
	if w.Mask.Load() != unix.IN_MODIFY|unix.IN_ATTRIB {
		t.Fatalf("%x", w.Mask.Load())
	}
	i.Notify(w, unix.IN_MODIFY, 0, "", false)
	i.Notify(w, unix.IN_MODIFY, 0, "", false) // joined with the first
	i.Notify(w, unix.IN_CREATE, 5, "sixteen-bytes-16", false)
	got := events(t, f, ctx)
	if len(got) != 2 || got[0] != (event{1, unix.IN_MODIFY, 0, ""}) || got[1] != (event{1, unix.IN_CREATE, 5, "sixteen-bytes-16"}) {
		t.Fatal(got)
	}
	if err := i.RemoveWatch(1); err != nil {
		t.Fatal(err)
	}
	if i.RemoveWatch(1) != unix.EINVAL || n.FindWatch(i) != nil {
		t.Fatal("still there")
	}
	if got := events(t, f, ctx); len(got) != 1 || got[0].mask != unix.IN_IGNORED {
		t.Fatal(got)
	}
	// The next descriptor is a fresh one.
	if wd, _ := i.AddWatch(n, unix.IN_MODIFY|unix.IN_ONESHOT); wd != 2 {
		t.Fatal(wd)
	}
	w = n.FindWatch(i)
	i.Notify(w, unix.IN_MODIFY, 0, "", false)
	i.Notify(w, unix.IN_MODIFY, 0, "", false)
	if got := events(t, f, ctx); len(got) != 2 || got[1].mask != unix.IN_IGNORED {
		t.Fatal(got)
	}
	if i.RemoveWatch(2) != unix.EINVAL {
		t.Fatal("a fired oneshot watch is still there")
	}
}

func TestOverflow(t *testing.T) {
	f, i, ctx := setup(t)
	n := inode(ctx, f)
	i.AddWatch(n, unix.IN_MODIFY)
	w := n.FindWatch(i)
	for k := range MaxQueuedEvents + 10 {
		i.Notify(w, unix.IN_MODIFY, uint32(k), "", false)
	}
	total := 0
	var last event
	for {
		l := events(t, f, ctx)
		if len(l) == 0 {
			break
		}
		total += len(l)
		last = l[len(l)-1]
	}
	if total != MaxQueuedEvents+1 || last.wd != -1 || last.mask != unix.IN_Q_OVERFLOW {
		t.Fatal(total, last)
	}
	if _, err := f.Read(ctx, mm.BytesSeq(make([]byte, 4))); err != unix.EAGAIN {
		t.Fatal(err)
	}
	i.Notify(w, unix.IN_MODIFY, 0, "", false)
	if _, err := f.Read(ctx, mm.BytesSeq(make([]byte, 4))); err != unix.EINVAL {
		t.Fatal("short buffer:", err)
	}
	f.DecRef()
	if len(i.users.m) != 0 {
		t.Fatal("usage is left:", i.users.m)
	}
}
