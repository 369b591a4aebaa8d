package devpts

import (
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/tty"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/uio"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// fakePlatform runs nothing.
type fakePlatform struct{ platform.Platform }

func (fakePlatform) FPStateSize() int { return 512 }

// fakeCtx is a caller whose memory is a byte slice.
type fakeCtx struct {
	vfs.Context
	mem fakeMemory
}

type fakeMemory []byte

func (m fakeMemory) CopyIn(addr uint64, dst []byte) (int, error)  { return copy(dst, m[addr:]), nil }
func (m fakeMemory) CopyOut(addr uint64, src []byte) (int, error) { return copy(m[addr:], src), nil }

func (c *fakeCtx) UserMemory() uio.Memory { return c.mem }

func setup(t *testing.T) (*fakeCtx, *vfs.VFS, *kernel.Kernel) {
	v := vfs.New(0)
	k, err := kernel.New(kernel.Config{VFS: v, Platform: fakePlatform{}})
	if err != nil {
		t.Fatal(err)
	}
	creds := auth.NewRootCredentials(k.RootUserNamespace())
	return &fakeCtx{vfs.NewKernelContext(creds, nil, nil), make([]byte, 256)}, v, k
}

func instance(t *testing.T, ctx vfs.Context, v *vfs.VFS, k *kernel.Kernel) *Instance {
	sb, err := NewType(k).Mount(ctx, v, &vfs.MountOptions{Data: "newinstance,ptmxmode=0666,mode=0620,gid=5"})
	if err != nil {
		t.Fatal(err)
	}
	return sb.Ops().(*Instance)
}

func read(ctx vfs.Context, r vfs.StreamReader) (string, error) {
	b := make([]byte, 1000)
	n, err := r.ReadStream(ctx, mm.BytesSeq(b))
	return string(b[:n]), err
}

func TestPty(t *testing.T) {
	ctx, v, k := setup(t)
	i := instance(t, ctx, v, k)
	if s := i.ShowOptions(); s != "gid=5,mode=620,ptmxmode=666" {
		t.Fatal(s)
	}
	impl, err := i.OpenMaster(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m := impl.(*master)
	node, err := i.root.Lookup(ctx, "0")
	if err != nil || node.GID() != 5 || node.Mode() != unix.S_IFCHR|0620 {
		t.Fatal(err, node.GID(), node.Mode())
	}
	open := node.Ops().(vfs.SelfOpener).OpenSelf
	if _, err := open(ctx, unix.O_RDWR); err != unix.EIO {
		t.Fatal("locked:", err)
	}
	if _, err := m.Ioctl(ctx, nil, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := read(ctx, m); err != unix.EAGAIN {
		t.Fatal(err)
	}
	impl, err = open(ctx, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	s := impl.(*slave)
	m.WriteStream(ctx, mm.BytesSeq([]byte("hi\r")))
	if got, err := read(ctx, s); got != "hi\n" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	s.WriteStream(ctx, mm.BytesSeq([]byte("out\n")))
	if got, err := read(ctx, m); got != "hi\r\nout\r\n" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	tty.Winsize{Rows: 24, Cols: 80}.Encode(ctx.mem)
	m.Ioctl(ctx, nil, unix.TIOCSWINSZ, 0)
	s.Ioctl(ctx, nil, unix.TIOCGWINSZ, 100)
	if ctx.mem[100] != 24 || ctx.mem[102] != 80 {
		t.Fatal(ctx.mem[100:108])
	}
	s.Release()
	if _, err := read(ctx, m); err != unix.EIO {
		t.Fatal("slave closed:", err)
	}
	if r := m.Readiness(waiter.AllEvents); r&waiter.EventHUp == 0 {
		t.Fatalf("%x", r)
	}
	impl, _ = open(ctx, unix.O_RDWR)
	s = impl.(*slave)
	if _, err := read(ctx, m); err != unix.EAGAIN {
		t.Fatal("slave open again:", err)
	}
	m.Release()
	if got, err := read(ctx, s); got != "" || err != nil {
		t.Fatal(got, err)
	}
	if _, err := s.WriteStream(ctx, mm.BytesSeq([]byte("x"))); err != unix.EIO {
		t.Fatal(err)
	}
	if _, err := i.root.Lookup(ctx, "0"); err != unix.ENOENT {
		t.Fatal(err)
	}
	s.Release()
	if len(i.used) != 0 {
		t.Fatal("index still in use")
	}
}

func TestHostTerminal(t *testing.T) {
	ctx, _, k := setup(t)
	mfd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(mfd)
	var lock int32
	unix.Syscall(unix.SYS_IOCTL, uintptr(mfd), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&lock)))
	sfd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(mfd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY)
	if errno != 0 {
		t.Skip(errno)
	}
	unix.IoctlSetWinsize(mfd, unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100})
	f, x, err := OpenHost(ctx, k, int(sfd))
	if err != nil {
		t.Fatal(err)
	}
	if w := x.line.Winsize(); w.Rows != 30 || w.Cols != 100 {
		t.Fatal(w)
	}
	host := func() string {
		b := make([]byte, 10000)
		p := []unix.PollFd{{Fd: int32(mfd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(p, 2000); n == 0 {
			t.Fatal("no output at the host")
		}
		n, _ := unix.Read(mfd, b)
		return string(b[:n])
	}
	unix.Write(mfd, []byte("hello\r"))
	b := make([]byte, 100)
	if n, err := f.Read(ctx, mm.BytesSeq(b)); string(b[:n]) != "hello\n" || err != nil {
		t.Fatal(n, err)
	}
	if s := host(); s != "hello\r\n" {
		t.Fatalf("echo %q", s)
	}
	f.Write(ctx, mm.BytesSeq([]byte("out\n")))
	if s := host(); s != "out\r\n" {
		t.Fatalf("%q", s)
	}
	big := make([]byte, 200000)
	for i := range big {
		big[i] = 'x'
	}
	done := make(chan bool)
	go func() {
		n, err := f.Write(ctx, mm.BytesSeq(big))
		if n != int64(len(big)) || err != nil {
			t.Error(n, err)
		}
		x.Drain(time.Second)
		close(done)
	}()
	for total := 0; total < len(big); {
		total += len(host())
	}
	<-done
	unix.IoctlSetWinsize(mfd, unix.TIOCSWINSZ, &unix.Winsize{Row: 31, Col: 101})
	x.Resize(0, 0)
	if w := x.line.Winsize(); w.Rows != 31 {
		t.Fatal(w)
	}
	x.Close()
	if n, err := f.Read(ctx, mm.BytesSeq(b)); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}
