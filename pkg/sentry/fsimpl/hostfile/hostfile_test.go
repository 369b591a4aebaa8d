package hostfile

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

func setup() (*Host, vfs.Context) {
	return NewHost(vfs.New(0)), vfs.NewKernelContext(auth.NewRootCredentials(auth.NewRootUserNamespace()), nil, nil)
}

func read(f *vfs.FileDescription, ctx vfs.Context, n int) (string, error) {
	b := make([]byte, n)
	k, err := f.Read(ctx, mm.BytesSeq(b))
	return string(b[:k]), err
}

func TestStreams(t *testing.T) {
	h, ctx := setup()
	var p, s [2]int
	if err := unix.Pipe2(p[:], 0); err != nil {
		t.Fatal(err)
	}
	var err error
	if s, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); err != nil {
		t.Fatal(err)
	}
	for name, fds := range map[string][2]int{"pipe": p, "socket": s} {
		r, err := h.New(ctx, fds[0])
		if err != nil {
			t.Fatal(err)
		}
		w, err := h.New(ctx, fds[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReadNonblock(ctx, mm.BytesSeq(make([]byte, 1))); err != unix.EAGAIN {
			t.Fatal(name, err)
		}
		go func() {
			time.Sleep(20 * time.Millisecond)
			w.Write(ctx, mm.BytesSeq([]byte("hello")))
		}()
		if s, err := read(r, ctx, 10); s != "hello" || err != nil {
			t.Fatal(name, s, err)
		}
		done := make(chan int64)
		big := make([]byte, 1<<20)
		wctx := vfs.NewKernelContext(ctx.Credentials(), nil, nil)
		go func() {
			n, _ := w.Write(wctx, mm.BytesSeq(big))
			done <- n
		}()
		total := 0
		for total < len(big) {
			s, err := read(r, ctx, 100000)
			if err != nil {
				t.Fatal(name, err)
			}
			total += len(s)
		}
		if n := <-done; n != int64(len(big)) {
			t.Fatal(name, n)
		}
		w.DecRef()
		if s, err := read(r, ctx, 10); s != "" || err != nil {
			t.Fatal(name, s, err)
		}
		if m := r.Readiness(waiter.AllEvents); m&waiter.EventHUp == 0 {
			t.Fatalf("%s: %x", name, m)
		}
		r.DecRef()
	}
}

func TestRegular(t *testing.T) {
	h, ctx := setup()
	of, err := os.CreateTemp(t.TempDir(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer of.Close()
	of.WriteString("0123456789")
	of.Seek(2, 0)
	fd, _ := unix.Dup(int(of.Fd()))
	f, err := h.New(ctx, fd)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := read(f, ctx, 3); s != "234" || err != nil {
		t.Fatal(s, err)
	}
	if n, err := f.Write(ctx, mm.BytesSeq([]byte("ab"))); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	// Opened again, as through /proc/self/fd, and closed.
	again, err := f.Path().Inode().Ops().(vfs.SelfOpener).OpenSelf(ctx, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	again.Release()
	var st vfs.Stat
	if err := f.Stat(ctx, ^uint32(0), &st); err != nil || st.Size != 10 || st.Mode&unix.S_IFMT != unix.S_IFREG {
		t.Fatal(err, st)
	}
	f.DecRef()
	if off, _ := of.Seek(0, 1); off != 7 {
		t.Fatal("offset of the host's file:", off)
	}
	if b, _ := os.ReadFile(of.Name()); string(b) != "01234ab789" {
		t.Fatalf("%q", b)
	}
}

// Two descriptors of one open file of the host, as sh -c 'a; b' >file 2>&1 has them, share its offset.
func TestSharedOffset(t *testing.T) {
	h, ctx := setup()
	of, err := os.CreateTemp(t.TempDir(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer of.Close()
	var f [2]*vfs.FileDescription
	for i := range f {
		fd, _ := unix.Dup(int(of.Fd()))
		if f[i], err = h.New(ctx, fd); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range []string{"one", "two", "three", "four"} {
		if n, err := f[i%2].Write(ctx, mm.BytesSeq([]byte(s))); int(n) != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	of.WriteString("outside")
	f[0].Write(ctx, mm.BytesSeq([]byte("!")))
	if b, _ := os.ReadFile(of.Name()); string(b) != "onetwothreefouroutside!" {
		t.Fatalf("%q", b)
	}
	if pos, err := f[1].Seek(ctx, 3, unix.SEEK_SET); pos != 3 || err != nil {
		t.Fatal(pos, err)
	}
	if s, err := read(f[1], ctx, 3); s != "two" || err != nil {
		t.Fatal(s, err)
	}
}
