package mqueue

import (
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/vfs"
)

func TestQueue(t *testing.T) {
	v := vfs.New(0)
	user := auth.NewRootUserNamespace()
	ctx := vfs.NewKernelContext(auth.NewRootCredentials(user), nil, nil)
	f := newFS(v)
	if _, err := f.Open(ctx, "q", unix.O_RDWR, 0, nil); err != unix.ENOENT {
		t.Fatal(err)
	}
	file, err := f.Open(ctx, "q", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0600, &Attr{MaxMsg: 3, MsgSize: 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Open(ctx, "q", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0600, nil); err != unix.EEXIST {
		t.Fatal(err)
	}
	nobody := &auth.Credentials{FSUID: 5, EUID: 5, UserNS: user}
	if _, err := f.Open(vfs.NewKernelContext(nobody, nil, nil), "q", unix.O_RDONLY, 0, nil); err != unix.EACCES {
		t.Fatal(err)
	}
	for _, a := range []Attr{{0, 1, 0}, {1, 0, 0}, {MaxMessages + 1, 1, 0}, {1, MaxSize + 1, 0}, {1 << 62, 1 << 62, 0}} {
		if _, err := f.Open(vfs.NewKernelContext(nobody, nil, nil), "bad", unix.O_RDWR|unix.O_CREAT, 0600, &a); err != unix.EINVAL {
			t.Fatal(a, err)
		}
	}
	q := QueueOf(file)
	send := func(s string, prio uint32) error { return q.Send(nil, []byte(s), prio, true, 0) }
	send("low", 1)
	send("high", 7)
	send("low2", 1)
	if err := send("full", 1); err != unix.EAGAIN {
		t.Fatal(err)
	}
	if err := send("longer than ten", 1); err != unix.EMSGSIZE {
		t.Fatal(err)
	}
	if err := send("x", maxPriority); err != unix.EINVAL {
		t.Fatal(err)
	}
	if _, _, err := q.Receive(nil, 9, true, 0); err != unix.EMSGSIZE {
		t.Fatal(err)
	}
	for _, want := range []string{"high", "low", "low2"} {
		if b, _, err := q.Receive(nil, 10, true, 0); string(b) != want || err != nil {
			t.Fatal(string(b), err)
		}
	}
	if _, _, err := q.Receive(nil, 10, true, 0); err != unix.EAGAIN {
		t.Fatal(err)
	}
	if err := f.Unlink(ctx, "q"); err != nil {
		t.Fatal(err)
	}
	if f.Unlink(ctx, "q") != unix.ENOENT || send("still works", 0) != unix.EMSGSIZE || send("open", 0) != nil {
		t.Fatal("after unlink")
	}
	file.DecRef()
	if len(f.bytes) != 0 {
		t.Fatal("memory is still counted:", f.bytes)
	}
}
