package eventfd

import (
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

func TestCounter(t *testing.T) {
	v := vfs.New(0)
	ctx := vfs.NewKernelContext(auth.NewRootCredentials(auth.NewRootUserNamespace()), nil, nil)
	put := func(f *vfs.FileDescription, b0 byte, rest byte) error {
		b := []byte{b0, rest, rest, rest, rest, rest, rest, rest}
		_, err := f.Write(ctx, mm.BytesSeq(b))
		return err
	}
	get := func(f *vfs.FileDescription) (byte, error) {
		b := make([]byte, 8)
		_, err := f.Read(ctx, mm.BytesSeq(b))
		return b[0], err
	}
	f := New(v, 3, unix.EFD_NONBLOCK)
	put(f, 4, 0)
	if n, err := get(f); n != 7 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := get(f); err != unix.EAGAIN {
		t.Fatal(err)
	}
	if err := put(f, 0xff, 0xff); err != unix.EINVAL {
		t.Fatal(err)
	}
	if err := put(f, 0xfe, 0xff); err != nil {
		t.Fatal(err)
	}
	if err := put(f, 1, 0); err != unix.EAGAIN {
		t.Fatal("overflow:", err)
	}
	if m := f.Readiness(waiter.AllEvents); m&waiter.EventOut != 0 || m&waiter.EventIn == 0 {
		t.Fatalf("%x", m)
	}
	s := New(v, 2, unix.EFD_NONBLOCK|unix.EFD_SEMAPHORE)
	for range 2 {
		if n, err := get(s); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if _, err := get(s); err != unix.EAGAIN {
		t.Fatal(err)
	}
	if _, err := s.Read(ctx, mm.BytesSeq(make([]byte, 7))); err != unix.EINVAL {
		t.Fatal(err)
	}
	buf := make([]byte, 8)
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	if n := testing.AllocsPerRun(100, func() {
		s.Write(ctx, mm.BytesSeq(one))
		s.Read(ctx, mm.BytesSeq(buf))
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
