package proctest

import (
	"encoding/binary"
	"strconv"
	"testing"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/tmpfs"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// idlePlatform runs nothing: a thread "in user code" waits to be interrupted.
type idlePlatform struct{}

func (idlePlatform) NewAddressSpace() (platform.AddressSpace, error) { return idleSpace{}, nil }
func (idlePlatform) NewContext() platform.Context                    { return &idleThread{make(chan struct{}, 1)} }
func (idlePlatform) FPStateSize() int                                { return 832 }
func (idlePlatform) UserRange() (uint64, uint64)                     { return 0, 1<<47 - 4096 }
func (idlePlatform) VDSO() (uint64, uint64, uint64)                  { return 0, 0, 0 }
func (idlePlatform) Release()                                        {}

type idleSpace struct{}

func (idleSpace) Apply([]platform.MapOp) error { return nil }
func (idleSpace) Release()                     {}

type idleThread struct{ intr chan struct{} }

func (t *idleThread) Switch(platform.AddressSpace, *arch.Registers) (platform.Event, error) {
	<-t.intr
	return platform.Event{Kind: platform.EventInterrupt}, nil
}

func (t *idleThread) Interrupt() {
	select {
	case t.intr <- struct{}{}:
	default:
	}
}

func (*idleThread) ReadFP(b []byte) error { clear(b); return nil }
func (*idleThread) Blocked()              {}
func (*idleThread) WriteFP([]byte) error  { return nil }
func (*idleThread) Release()              {}

// World is a kernel with a container whose root is a tmpfs.
type World struct {
	T  testing.TB
	K  *kernel.Kernel
	V  *vfs.VFS
	CT *kernel.Container
	// Ctx is the sentry itself, as root in the container.
	Ctx  vfs.Context
	fs   *vfs.FSContext
	ns   *vfs.MountNamespace
	prog int
}

// New makes a world with res as the container's limits. register makes the file systems known.
func New(t testing.TB, res kernel.Resources, register func(k *kernel.Kernel, v *vfs.VFS)) *World {
	t.Helper()
	mf, err := memfile.New(memfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &World{T: t, V: vfs.New(0)}
	w.K, err = kernel.New(kernel.Config{Platform: idlePlatform{}, MemFile: mf, VFS: w.V, HostName: "box", NumCPU: 3})
	w.Check(err)
	register(w.K, w.V)
	creds := auth.NewRootCredentials(w.K.RootUserNamespace())
	sb, err := tmpfs.NewType("tmpfs", mf, 1<<30).Mount(vfs.NewKernelContext(creds, nil, nil), w.V, &vfs.MountOptions{Source: "none"})
	w.Check(err)
	w.ns = w.V.NewMountNamespace(sb, creds.UserNS, 0)
	root := w.ns.Root()
	w.fs = vfs.NewFSContext(root, root, 022)
	root.DecRef()
	w.Ctx = w.As(creds)
	w.CT, err = w.K.NewContainer(&kernel.ContainerConfig{ID: "t", MountNS: w.ns, PIDsLimit: 5000, Resources: res})
	w.Check(err)
	t.Cleanup(func() {
		for _, tg := range w.CT.Groups(nil) {
			tg.Kill()
		}
		w.K.WaitAll()
	})
	return w
}

// Check ends the test if err is not nil.
func (w *World) Check(err error) {
	if err != nil {
		w.T.Helper()
		w.T.Fatal(err)
	}
}

// As is a context with other credentials.
func (w *World) As(c *auth.Credentials) vfs.Context { return vfs.NewKernelContext(c, w.fs, w.ns) }

// User is the credentials of an ordinary user whose group has the same number.
func (w *World) User(id uint32) *auth.Credentials {
	u, g := auth.KUID(id), auth.KGID(id)
	return &auth.Credentials{RUID: u, EUID: u, SUID: u, FSUID: u, RGID: g, EGID: g, SGID: g, FSGID: g, Bounding: auth.AllCaps, UserNS: w.K.RootUserNamespace()}
}

// Mount makes a directory and mounts a file system there. The mounter is ctx.
func (w *World) Mount(ctx vfs.Context, fstype, at, data string) {
	w.T.Helper()
	w.Check(w.V.Mkdir(w.Ctx, vfs.Path{}, at, 0755))
	p, err := w.V.Walk(w.Ctx, vfs.Path{}, at, vfs.FollowLast)
	w.Check(err)
	defer p.DecRef()
	w.Check(w.V.Mount(ctx, fstype, p, fstype, 0, data))
}

// Spawn makes a process with a page of code and four pages of data, arguments "prog", "arg 1" and the environment "A=b".
func (w *World) Spawn(c *auth.Credentials) *kernel.ThreadGroup {
	w.T.Helper()
	w.prog++
	name := "/prog" + strconv.Itoa(w.prog)
	fd, err := w.V.Open(w.Ctx, vfs.Path{}, name, &vfs.OpenOptions{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0755})
	w.Check(err)
	_, err = fd.Write(w.Ctx, mm.BytesSeq(program()))
	w.Check(err)
	fd.DecRef()
	files := w.V.NewFDTable()
	for range 3 {
		f, err := w.V.Open(w.Ctx, vfs.Path{}, name, &vfs.OpenOptions{})
		w.Check(err)
		_, err = files.Install(w.Ctx, f, 0, false)
		w.Check(err)
		f.DecRef()
	}
	tg, err := w.K.CreateProcess(&kernel.CreateProcessArgs{Container: w.CT, Filename: name, Argv: []string{"prog", "arg 1"}, Envv: []string{"A=b"}, Credentials: c, FDs: files})
	w.Check(err)
	w.K.StartProcess(tg)
	return tg
}

// End kills a process and waits until it is gone.
func (w *World) End(tg *kernel.ThreadGroup) {
	tg.Kill()
	<-tg.Done()
}

// Base is where the code of programs lies, Data where their data does.
const (
	Base = 0x400000
	Data = 0x600000
)

// program is an ELF file with a segment of code and one of data.
func program() []byte {
	const data = 4 * 4096
	b := make([]byte, 0x1000+data)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], 62)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], Base)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 2)
	for i, s := range [...][4]uint64{{5, 0, Base, 0x1000}, {6, 0x1000, Data, data}} {
		at := 64 + 56*i
		le.PutUint32(b[at:], 1)
		le.PutUint32(b[at+4:], uint32(s[0]))
		le.PutUint64(b[at+8:], s[1])
		le.PutUint64(b[at+16:], s[2])
		le.PutUint64(b[at+24:], s[2])
		le.PutUint64(b[at+32:], s[3])
		le.PutUint64(b[at+40:], s[3])
		le.PutUint64(b[at+48:], 0x1000)
	}
	return b
}

// Open opens a file.
func (w *World) Open(ctx vfs.Context, path string, flags uint32) (*vfs.FileDescription, error) {
	return w.V.Open(ctx, vfs.Path{}, path, &vfs.OpenOptions{Flags: flags})
}

// ReadAll reads an open file from the start in pieces of n bytes.
func ReadAll(ctx vfs.Context, fd *vfs.FileDescription, n int) ([]byte, error) {
	var out []byte
	for buf := make([]byte, n); ; {
		k, err := fd.PRead(ctx, mm.BytesSeq(buf), int64(len(out)))
		if err != nil || k == 0 {
			return out, err
		}
		out = append(out, buf[:k]...)
	}
}

// Read is the content of a file.
func (w *World) Read(ctx vfs.Context, path string) (string, error) {
	fd, err := w.Open(ctx, path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer fd.DecRef()
	b, err := ReadAll(ctx, fd, 64<<10)
	return string(b), err
}

// MustRead is the content of a file that can be read.
func (w *World) MustRead(path string) string {
	w.T.Helper()
	s, err := w.Read(w.Ctx, path)
	if err != nil {
		w.T.Fatalf("%s: %v", path, err)
	}
	return s
}

// Write writes to a file.
func (w *World) Write(ctx vfs.Context, path, data string) error {
	fd, err := w.Open(ctx, path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer fd.DecRef()
	_, err = fd.Write(ctx, mm.BytesSeq([]byte(data)))
	return err
}

// Entry is a directory entry.
type Entry struct {
	Name string
	Ino  uint64
	Type uint8
}

// Sink takes up to Room entries at a time.
type Sink struct {
	Room int
	List []Entry
}

// Emit implements vfs.DirSink.
func (s *Sink) Emit(name string, ino uint64, typ uint8, _ int64) bool {
	if s.Room == 0 {
		return false
	}
	s.Room--
	s.List = append(s.List, Entry{name, ino, typ})
	return true
}

// List lists a directory without "." and "..", room entries at a time.
func (w *World) List(ctx vfs.Context, path string, room int) ([]Entry, error) {
	fd, err := w.Open(ctx, path, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer fd.DecRef()
	var out []Entry
	for {
		s := Sink{Room: room}
		if err := fd.ReadDir(ctx, &s); err != nil || len(s.List) == 0 {
			return out, err
		}
		for _, e := range s.List {
			if e.Name != "." && e.Name != ".." {
				out = append(out, e)
			}
		}
	}
}

// Tree calls f for everything below path.
func (w *World) Tree(path string, f func(path string, e Entry)) {
	w.T.Helper()
	list, err := w.List(w.Ctx, path, 1000)
	if err != nil {
		w.T.Fatalf("%s: %v", path, err)
	}
	for _, e := range list {
		p := path + "/" + e.Name
		f(p, e)
		if e.Type == unix.DT_DIR {
			w.Tree(p, f)
		}
	}
}
