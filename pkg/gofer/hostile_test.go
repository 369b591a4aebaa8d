package gofer

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"husk/pkg/seccomp"

	"golang.org/x/sys/unix"
)

// prison makes a served directory next to a canary, with links that lead to it.
func prison(t testing.TB) (inside, canary string) {
	t.Helper()
	top := t.TempDir()
	inside, canary = top+"/inside", top+"/canary"
	os.Mkdir(canary, 0o700)
	os.WriteFile(canary+"/secret", []byte("secret"), 0o600)
	os.MkdirAll(inside+"/a/b", 0o755)
	os.WriteFile(inside+"/f", []byte("inside"), 0o600)
	os.Symlink("../canary", inside+"/rel")
	os.Symlink(canary, inside+"/abs")
	os.Symlink(canary+"/secret", inside+"/file")
	os.Symlink("/proc/self/fd", inside+"/a/magic")
	return inside, canary
}

// untouched checks that nobody changed the canary.
func untouched(t testing.TB, canary string) {
	t.Helper()
	ents, err := os.ReadDir(canary)
	if err != nil || len(ents) != 1 {
		t.Errorf("canary: %v %v", ents, err)
	}
	st, err := os.Stat(canary + "/secret")
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("canary: %v %v", st, err)
	}
	if b, _ := os.ReadFile(canary + "/secret"); string(b) != "secret" {
		t.Errorf("canary: %q", b)
	}
}

// ident finds a file by device and inode.
func ident(t testing.TB, path string) [2]uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return [2]uint64{st.Dev, st.Ino}
}

// checkFD fails where a donated descriptor is one of what lies outside, or of a directory.
func checkFD(t testing.TB, fd int, outside [2]uint64) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Error(err)
	}
	if [2]uint64{st.Dev, st.Ino} == outside || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		t.Errorf("escaped: got a descriptor of %o %d:%d", st.Mode, st.Dev, st.Ino)
	}
}

// TestSwapRace swaps a directory and a link to the outside while clients walk, open and create below.
func TestSwapRace(t *testing.T) {
	inside, canary := prison(t)
	os.Mkdir(inside+"/swap", 0o755)
	os.WriteFile(inside+"/swap/secret", []byte("inside"), 0o600)
	os.Symlink("../canary", inside+"/link")
	secret, outside := ident(t, canary+"/secret"), ident(t, canary)
	c := serve(t, Config{Attach: []AttachPoint{attach(t, inside, 0)}})
	root, _, err := c.Attach(0)
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	swapped := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			unix.Renameat2(unix.AT_FDCWD, inside+"/swap", unix.AT_FDCWD, inside+"/link", unix.RENAME_EXCHANGE)
		}
		swapped <- n
	}()
	for i := range 3000 {
		bare := With(i%2) * WithoutHandle
		ents, _ := c.Walk(root, []string{"swap", "secret"}, bare, nil)
		more, _ := c.Siblings(root, []string{"swap", "link"}, WithFD|WithList|WithTree|bare, nil)
		if len(ents) > 0 {
			more, _ = c.Siblings(ents[0].Handle, []string{"secret"}, WithFD|WithList|bare, more)
			if fd, err := c.OpenMany(Place{ents[0].Handle, "secret"}, unix.O_RDONLY, nil, nil); err == nil {
				checkFD(t, fd, secret)
				unix.Close(fd)
			}
		}
		for _, e := range more {
			if e.FD >= 0 {
				checkFD(t, e.FD, secret)
				unix.Close(e.FD)
			}
			for k := range e.Tree {
				if fd := e.Tree[k].FD; fd >= 0 {
					checkFD(t, fd, secret)
				}
				c.Drop(&e.Tree[k])
			}
			for _, d := range e.List {
				if d.Ino == secret[1] {
					t.Fatalf("escaped: %+v", e)
				}
			}
			ents = append(ents, e.Entry)
		}
		for _, e := range ents {
			if e.Attr.Ino == outside[1] || e.Attr.Ino == secret[1] {
				t.Fatalf("escaped: %+v", e)
			}
			if e.Attr.Type() != unix.S_IFDIR {
				continue
			}
			name := fmt.Sprint("n", i)
			h, _, fd, err := c.Create(e.Handle, name, unix.O_RDWR, 0o644, 1, 1)
			if err == nil {
				unix.Close(fd)
				c.Close(h)
			}
			c.Mkdir(e.Handle, name, 0o755, 1, 1)
			c.Rename(e.Handle, name, root, "moved", 0)
			c.Unlink(e.Handle, "secret2", false)
		}
		for _, e := range ents {
			c.Close(e.Handle)
		}
	}
	stop.Store(true)
	if n := <-swapped; n < 100 {
		t.Errorf("only %d swaps", n)
	}
	untouched(t, canary)
}

// hostile sends raw messages and reads the replies.
type hostile struct {
	t    testing.TB
	conn int
	pkt  packet
	buf  []byte
	tag  uint32
	fds  descriptors
}

// raw sends one packet, and gives the reply's errno and body; ok is false when the server has ended the
// connection.
func (h *hostile) raw(b []byte, reply bool) (errno unix.Errno, body []byte, ok bool) {
	if h.pkt.send(h.conn, b, nil) != nil {
		return 0, nil, false
	}
	if !reply {
		return 0, nil, true
	}
	n, err := h.pkt.recv(h.conn, h.buf, &h.fds)
	h.fds.close()
	if err != nil || n == 0 {
		return 0, nil, false
	}
	_, code, _, body, ok := parse(h.buf[:n])
	if !ok {
		h.t.Fatal("the server sent no message")
	}
	return unix.Errno(code), body, true
}

// request sends a well-framed request.
func (h *hostile) request(o op, body []byte) (unix.Errno, []byte, bool) {
	var w writer
	h.tag++
	w.header(h.tag, uint16(o))
	w.b = append(w.b, body...)
	w.seal(0)
	return h.raw(w.b, o != opClose)
}

func newHostile(t testing.TB, inside string, ro bool) *hostile {
	flags := HostSockets | HostFIFOs
	if ro {
		flags |= ReadOnly
	}
	conn := serveRaw(t, Config{Attach: []AttachPoint{attach(t, inside, flags)}, MaxHandles: 300})
	return &hostile{t: t, conn: conn, buf: make([]byte, MaxMessage)}
}

func (h *hostile) hello() Handle {
	if e, _, ok := h.request(opHello, []byte{Version, 0, 0, 0}); e != 0 || !ok {
		h.t.Fatal(e, ok)
	}
	e, body, ok := h.request(opAttach, []byte{0, 0, 0, 0})
	if e != 0 || !ok {
		h.t.Fatal(e, ok)
	}
	return Handle(binary.LittleEndian.Uint64(body))
}

func TestFraming(t *testing.T) {
	inside, _ := prison(t)
	h := newHostile(t, inside, false)
	if e, _, ok := h.request(opAttach, []byte{0, 0, 0, 0}); e != unix.EPROTO || !ok {
		t.Error("attached before Hello", e, ok)
	}
	if e, _, ok := h.request(opHello, []byte{Version + 1, 0, 0, 0}); e != unix.EPROTONOSUPPORT || !ok {
		t.Error("other version", e, ok)
	}
	root := h.hello()
	for o := range opMax + 3 {
		if o == opClose {
			continue
		}
		if e, _, ok := h.request(o, nil); e == 0 || !ok {
			t.Errorf("empty request %d: %v %v", o, e, ok)
		}
		if e, _, ok := h.request(o, binary.LittleEndian.AppendUint64(nil, uint64(root))); !ok || e == 0 && o != opStat && o != opStatFS && o != opListXattr && o != opReadDir {
			t.Errorf("short request %d: %v %v", o, e, ok)
		}
		junk := append(binary.LittleEndian.AppendUint64(nil, uint64(root)), make([]byte, 5000)...)
		if e, _, ok := h.request(o, junk); !ok || e == 0 {
			t.Errorf("request %d with junk: %v %v", o, e, ok)
		}
	}
	for name, msg := range map[string][]byte{
		"short":           make([]byte, headerSize-1),
		"wrong length":    {200, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0},
		"too many closes": {12, 0, 0, 0, 0, 0, 0, 0, 4, 0, 9, 0},
		"too long":        make([]byte, MaxMessage+1),
		"nothing":         {},
	} {
		h := newHostile(t, inside, false)
		h.hello()
		if name == "nothing" {
			msg = []byte{0}
		}
		if _, _, ok := h.raw(msg, true); ok {
			t.Errorf("%s: the connection goes on", name)
		}
	}
}

// mutate draws a request that is near to a sensible one.
func mutate(r *rand.Rand, handles []Handle) (op, []byte) {
	names := []string{"f", "a", "b", "rel", "abs", "file", "magic", "..", ".", "/", "", "a/b", "../canary", "x\x00y", "secret", "/etc/passwd", string(make([]byte, r.Intn(300))), "n1", "n2"}
	var w writer
	o := op(r.Intn(int(opMax) + 2))
	handle := func() {
		switch r.Intn(12) {
		case 0:
			w.u64(r.Uint64())
		case 1:
			w.u64(uint64(1+r.Intn(3))<<32 | uint64(r.Intn(40)))
		default:
			w.u64(uint64(handles[r.Intn(len(handles))]))
		}
	}
	if o != opHello && o != opAttach {
		handle()
	}
	name := func() { w.str(names[r.Intn(len(names))]) }
	owner := func() { w.owner(uint32(r.Intn(0o10000)), uint32(r.Intn(3)), uint32(r.Intn(3))) }
	flag := func() {
		w.u32([]uint32{0, 1, 2, 3, unix.O_TRUNC, unix.O_CREAT, unix.O_PATH, unix.O_DIRECTORY, r.Uint32()}[r.Intn(9)])
	}
	switch o {
	case opHello:
		w.u32(Version)
	case opAttach:
		w.u32(uint32(r.Intn(3)))
	case opWalk:
		n := r.Intn(6)
		w.u8(uint8(n))
		for range n {
			name()
		}
	case opSiblings:
		n := r.Intn(30)
		w.u8(uint8(r.Intn(withAll + 2)))
		w.u8(uint8(n))
		for range n {
			name()
		}
	case opSetAttr:
		w.u32(uint32(r.Intn(1 << 9)))
		owner()
		w.u64(uint64(r.Intn(1 << 20)))
		w.time(Time{int64(r.Uint64()), r.Uint32()})
		w.time(Time{int64(r.Intn(1 << 30)), uint32(r.Intn(1e9))})
	case opOpen:
		flag()
		n := r.Intn(donateMax + 1)
		w.u8(uint8(n))
		for range n {
			handle()
		}
	case opConnect:
		flag()
	case opCreate:
		name()
		flag()
		owner()
	case opMkdir:
		name()
		owner()
	case opSymlink:
		name()
		name()
		owner()
	case opLink:
		handle()
		name()
	case opMknod:
		name()
		w.u32(uint32(r.Intn(16)) << 12)
		owner()
		w.u32(uint32(r.Intn(2)))
		w.u32(uint32(r.Intn(2)))
	case opRename:
		handle()
		name()
		name()
		w.u32(uint32(r.Intn(5)))
	case opUnlink:
		name()
		w.u8(uint8(r.Intn(2)))
	case opFsync:
		w.u8(uint8(r.Intn(2)))
	case opGetXattr:
		name()
		flag()
	case opSetXattr:
		w.str("user.a")
		w.bytes(make([]byte, r.Intn(100)))
		flag()
	case opRemoveXattr:
		w.str("user.a")
	}
	switch r.Intn(8) {
	case 0: // cut
		w.b = w.b[:r.Intn(len(w.b)+1)]
	case 1: // flip
		if len(w.b) > 0 {
			w.b[r.Intn(len(w.b))] ^= byte(1 << r.Intn(8))
		}
	case 2: // lengthen
		w.b = append(w.b, make([]byte, r.Intn(20))...)
	}
	return o, w.b
}

// TestHostileClient sends thousands of requests between sensible and nonsense. Whatever comes, nothing outside
// may be given out or touched, and the server goes on.
func TestHostileClient(t *testing.T) {
	for _, ro := range []bool{false, true} {
		inside, canary := prison(t)
		secret := ident(t, canary+"/secret")
		h := newHostile(t, inside, ro)
		handles := []Handle{h.hello()}
		r := rand.New(rand.NewSource(4))
		n := 20000
		if testing.Short() {
			n = 4000
		}
		results := map[unix.Errno]int{}
		var more func(rd *reader, handles *[]Handle)
		more = func(rd *reader, handles *[]Handle) {
			flags := rd.u8()
			if flags&withList != 0 {
				for _, d := range rd.dirents(nil) {
					if d.Ino == secret[1] {
						t.Fatal("listed outside")
					}
				}
			}
			if flags&withTree != 0 {
				for range rd.u8() {
					var e Entry
					if rd.entry(&e); e.Attr.Ino == secret[1] {
						t.Fatal("walked outside")
					}
					*handles = append(*handles, e.Handle)
					more(rd, handles)
				}
			}
		}
		for i := range n {
			o, body := mutate(r, handles)
			if o == opClose {
				continue
			}
			var w writer
			w.header(uint32(i), uint16(o))
			w.b = append(w.b, body...)
			closes := 0
			if len(handles) > 3 && r.Intn(6) == 0 { // also of handles that are in use in the same request
				j := 1 + r.Intn(len(handles)-1)
				w.u64(uint64(handles[j]))
				if closes = 1; r.Intn(3) > 0 {
					handles = append(handles[:j], handles[j+1:]...)
				}
			}
			w.seal(closes)
			if err := h.pkt.send(h.conn, w.b, nil); err != nil {
				t.Fatal(err)
			}
			k, err := h.pkt.recv(h.conn, h.buf, &h.fds)
			if err != nil || k == 0 {
				t.Fatalf("message %d (op %d): the server is gone: %v", i, o, err)
			}
			for _, fd := range h.fds.fd[:h.fds.n] {
				checkFD(t, int(fd), secret)
			}
			h.fds.close()
			_, code, _, reply, _ := parse(h.buf[:k])
			results[unix.Errno(code)]++
			if code != 0 {
				continue
			}
			rd := reader{b: reply}
			switch o {
			case opWalk, opSiblings:
				for range rd.u32() & 0xffff {
					var e Entry
					if rd.entry(&e); e.Attr.Ino == secret[1] {
						t.Fatal("walked outside")
					}
					handles = append(handles, e.Handle)
					if o == opSiblings {
						more(&rd, &handles)
					}
				}
				if !rd.end() {
					t.Fatalf("a reply to %d with junk", o)
				}
			case opCreate, opMkdir, opSymlink, opMknod, opAttach:
				handles = append(handles, Handle(rd.u64()))
			}
			if len(handles) > 100 {
				copy(handles[1:], handles[50:])
				handles = handles[:51]
				root := handles[0]
				if e, body, ok := h.request(opAttach, make([]byte, 4)); e == 0 && ok {
					root = Handle(binary.LittleEndian.Uint64(body))
				}
				handles[0] = root
			}
		}
		if results[0] < n/20 || results[unix.EBADMSG] < n/50 {
			t.Errorf("the requests were too uniform: %v", results)
		}
		untouched(t, canary)
		if ro {
			if ents, _ := os.ReadDir(inside); len(ents) != 5 {
				t.Errorf("a read-only directory changed: %v", ents)
			}
		}
	}
}

// TestDescriptorFlood sends descriptors along with requests; the server's process must not keep any.
func TestDescriptorFlood(t *testing.T) {
	inside, _ := prison(t)
	h := newHostile(t, inside, false)
	h.hello()
	count := func() int {
		ents, _ := os.ReadDir("/proc/self/fd")
		return len(ents)
	}
	before := count()
	var w writer
	w.header(1, uint16(opStat))
	w.u64(0)
	w.seal(0)
	for range 100 {
		fds := make([]int, 200)
		for i := range fds {
			fds[i] = h.conn
		}
		if err := unix.Sendmsg(h.conn, w.b, unix.UnixRights(fds...), nil, 0); err != nil {
			t.Fatal(err)
		}
		if n, err := h.pkt.recv(h.conn, h.buf, nil); n == 0 || err != nil {
			t.Fatal(n, err)
		}
	}
	if n := count(); n > before+2 {
		t.Errorf("%d descriptors, before %d", n, before)
	}
}

// TestFiltered runs the server under its own filter in a child process, with the functional tests' calls as
// the load.
func TestFiltered(t *testing.T) {
	const env = "GOFER_TEST_CHILD"
	if dir := os.Getenv(env); dir != "" {
		at, err1 := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
		proc, err2 := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_CLOEXEC, 0)
		prog, err3 := Filter().Build()
		if err1 != nil || err2 != nil || err3 != nil {
			fmt.Println(err1, err2, err3)
			os.Exit(2)
		}
		if err := seccomp.Install(prog, unix.SECCOMP_FILTER_FLAG_TSYNC); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		if err := Serve(3, Config{Attach: []AttachPoint{{FD: at, Flags: HostSockets | HostFIFOs}}, ProcFD: proc}); err != nil {
			os.Exit(4)
		}
		os.Exit(0)
	}
	dir := t.TempDir()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFiltered$")
	cmd.Env = append(os.Environ(), env+"="+dir)
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fds[0]), "conn")}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles[0].Close()
	c, err := NewClient(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := c.Attach(0)
	if err != nil {
		t.Fatal(err)
	}
	ok := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	var a Attr
	var s StatFS
	h, _, fd, err := c.Create(root, "f", unix.O_RDWR, 0o644, 3, 4)
	ok("create", err)
	unix.Close(fd)
	d, _, err := c.Mkdir(root, "d", 0o700, 3, 4)
	ok("mkdir", err)
	l, _, err := c.Symlink(root, "l", "f", 3, 4)
	ok("symlink", err)
	_, err = c.Readlink(l)
	ok("readlink", err)
	sock, _, err := c.Mknod(root, "s", unix.S_IFSOCK, 0o600, 3, 4, 0)
	ok("mknod", err)
	ok("setattr", c.SetAttr(h, &SetAttr{Mask: setAll &^ (SetAtimeNow | SetMtimeNow), Mode: 0o600, Size: 5}, &a))
	ok("link", c.Link(h, d, "f2", &a))
	ok("rename", c.Rename(d, "f2", root, "f3", 0))
	ok("unlink", c.Unlink(root, "f3", false))
	_, _, err = c.ReadDir(root, nil)
	ok("readdir", err)
	ok("statfs", c.StatFS(root, &s))
	ok("fsync", c.Fsync(h, false))
	ok("fdatasync", c.Fsync(h, true))
	if err := c.SetXattr(h, "user.a", []byte("b"), 0); err != unix.EOPNOTSUPP {
		ok("setxattr", err)
		_, err = c.GetXattr(h, "user.a", make([]byte, 9))
		ok("getxattr", err)
		_, err = c.ListXattr(h)
		ok("listxattr", err)
		ok("removexattr", c.RemoveXattr(h, "user.a"))
	}
	_, err = c.Connect(sock, unix.SOCK_STREAM)
	want(t, "connect", err, unix.ECONNREFUSED)
	var e []Sibling
	for range 2000 { // enough for the runtime's collector and new threads
		if e, err = c.Siblings(root, []string{"f"}, WithFD, e[:0]); err != nil {
			t.Fatal(err)
		}
		unix.Close(e[0].FD)
		c.Close(e[0].Handle)
	}
	c.Shutdown()
	if err := cmd.Wait(); err != nil {
		t.Errorf("server: %v", err)
	}
	unix.Close(fds[1])
}

// FuzzServer feeds a sequence of messages to one server's workers, without the socket.
func FuzzServer(f *testing.F) {
	r := rand.New(rand.NewSource(5))
	for range 10 {
		var seed []byte
		for range 8 {
			o, body := mutate(r, []Handle{1 << 32, 1<<32 | 1, 1<<32 | 2})
			seed = append(seed, byte(o), byte(len(body)), byte(len(body)>>8))
			seed = append(seed, body...)
		}
		f.Add(seed)
	}
	inside, canary := prison(f)
	secret := ident(f, canary+"/secret")
	proc, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	at := attach(f, inside, HostFIFOs)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &server{conn: -1, cfg: Config{Attach: []AttachPoint{at}, ProcFD: proc}, hello: true}
		s.table.max = 200
		defer s.table.clear()
		w := &worker{server: s, out: writer{make([]byte, 0, MaxMessage)}}
		w.dispatch(opAttach, &reader{b: make([]byte, 4)})
		for len(b) >= 3 {
			o, n := op(b[0]), int(b[1])|int(b[2])<<8
			b = b[3:]
			n = min(n, len(b))
			w.out.header(0, 0)
			w.dispatch(o, &reader{b: append([]byte(nil), b[:n]...)})
			b = b[n:]
			if len(w.out.b) > MaxMessage {
				t.Fatal("reply too long")
			}
			for _, fd := range w.fds.fd[:w.fds.n] {
				checkFD(t, int(fd), secret)
			}
			w.fds.close()
		}
		untouched(t, canary)
		if ents, _ := filepath.Glob(inside + "/*"); len(ents) > 500 {
			t.Skip("directory full")
		}
	})
}

// TestBudget: what replies bring and what handles need is within the limit of descriptors, however small.
func TestBudget(t *testing.T) {
	for _, limit := range []uint64{0, 64, 200, 256, 400, 1024, 4096, 1 << 20, ^uint64(0)} {
		handles, donate := budget(limit, workers)
		if donate < 1 || donate > donateMax || handles < 16 || limit >= 128 && handles+(donate+3)*workers > int(min(limit, 1<<20))-64 || limit == 256 && handles < 90 {
			t.Errorf("limit %d: %d handles, %d descriptors", limit, handles, donate)
		}
	}
}
