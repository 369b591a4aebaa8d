package gofer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serve starts a server in this process and returns its client.
func serve(t testing.TB, cfg Config) *Client {
	t.Helper()
	conn := serveRaw(t, cfg)
	c, err := NewClient(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Shutdown)
	return c
}

// serveRaw starts a server and returns the other end of its connection. The test waits for the server to
// end.
func serveRaw(t testing.TB, cfg Config) int {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	proc, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ProcFD = proc
	done := make(chan error, 1)
	go func() { done <- Serve(fds[0], cfg) }()
	t.Cleanup(func() {
		unix.Shutdown(fds[1], unix.SHUT_RDWR)
		unix.Close(fds[1])
		if err := <-done; err != nil && err != ErrProtocol {
			t.Errorf("Serve: %v", err)
		}
		unix.Close(fds[0])
		unix.Close(proc)
	})
	return fds[1]
}

func attach(t testing.TB, dir string, flags AttachFlags) AttachPoint {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return AttachPoint{FD: fd, Flags: flags}
}

// setup serves a fresh directory read-write and returns the handle of its root.
func setup(t testing.TB) (c *Client, root Handle, dir string) {
	t.Helper()
	dir = t.TempDir()
	c = serve(t, Config{Attach: []AttachPoint{attach(t, dir, HostSockets|HostFIFOs), attach(t, dir, ReadOnly)}})
	root, a, err := c.Attach(0)
	if err != nil || a.Type() != unix.S_IFDIR {
		t.Fatal(err, a)
	}
	return c, root, dir
}

func want(t *testing.T, what string, err, want error) {
	t.Helper()
	if err != want && !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (c *Client) walk1(dir Handle, name string) (Entry, error) {
	e, err := c.Walk(dir, []string{name}, 0, nil)
	if err != nil {
		return Entry{}, err
	}
	return e[0], nil
}

func TestWalk(t *testing.T) {
	c, root, dir := setup(t)
	os.MkdirAll(dir+"/a/b/c", 0o755)
	os.WriteFile(dir+"/a/b/c/f", []byte("hello"), 0o640)
	os.Symlink("../x", dir+"/a/l")

	e, err := c.Walk(root, []string{"a", "b", "c", "f"}, 0, nil)
	want(t, "walk", err, nil)
	if len(e) != 4 || e[3].Attr.Size != 5 || e[3].Attr.Mode != unix.S_IFREG|0o640 || e[0].Attr.Type() != unix.S_IFDIR {
		t.Fatalf("%+v", e)
	}
	var st unix.Stat_t
	unix.Stat(dir+"/a/b/c/f", &st)
	if a := e[3].Attr; a.Ino != st.Ino || a.Dev != uint64(unix.Major(st.Dev))<<32|uint64(unix.Minor(st.Dev)) || a.Mtime.Sec != st.Mtim.Sec || a.Btime.Sec == 0 {
		t.Errorf("attributes %+v", a)
	}
	var a Attr
	want(t, "stat", c.Stat(e[3].Handle, &a), nil)
	if a != e[3].Attr {
		t.Errorf("stat %+v", a)
	}

	e, err = c.Walk(root, []string{"a", "b", "x", "y"}, 0, e[:0])
	want(t, "missing", err, unix.ENOENT)
	if len(e) != 2 {
		t.Errorf("missing: %d entries", len(e))
	}
	e, err = c.Walk(root, []string{"nope", "y"}, 0, e[:0])
	want(t, "missing at once", err, unix.ENOENT)
	e, err = c.Walk(root, []string{"a", "l", "y"}, 0, e[:0])
	want(t, "through a link", err, nil)
	if len(e) != 2 || e[1].Target != "../x" {
		t.Errorf("link: %+v", e)
	}
	target, err := c.Readlink(e[1].Handle)
	if err != nil || target != "../x" {
		t.Error(target, err)
	}
	e, err = c.Walk(root, []string{"a", "b", "c", "f", "g"}, 0, e[:0])
	if err != nil || len(e) != 4 {
		t.Errorf("through a file: %d, %v", len(e), err)
	}
	_, err = c.Walk(e[3].Handle, []string{"x"}, 0, nil)
	want(t, "from a file", err, unix.ENOTDIR)

	for _, h := range e {
		c.Close(h.Handle)
	}
	c.Flush()
	want(t, "closed", c.Stat(e[0].Handle, &a), unix.EBADF)
	want(t, "no handle", c.Stat(0, &a), unix.EBADF)
	_, _, err = c.Attach(7)
	want(t, "attach", err, unix.ENODEV)
}

func TestSiblings(t *testing.T) {
	c, root, dir := setup(t)
	os.MkdirAll(dir+"/a/b", 0o755)
	os.WriteFile(dir+"/f", []byte("hello"), 0o640)
	os.Symlink("/etc", dir+"/l")
	e, err := c.Siblings(root, []string{"a", "f", "l", "a"}, 0, nil)
	want(t, "siblings", err, nil)
	if len(e) != 4 || e[0].Attr.Type() != unix.S_IFDIR || e[1].Attr.Size != 5 || e[2].Target != "/etc" || e[3].Attr != e[0].Attr || e[3].Handle == e[0].Handle {
		t.Errorf("%+v", e)
	}
	e, err = c.Siblings(root, []string{"f", "b", "a"}, 0, nil)
	want(t, "one missing", err, unix.ENOENT)
	if len(e) != 1 || e[0].Attr.Size != 5 {
		t.Errorf("one missing: %+v", e)
	}
	for _, name := range []string{"..", ".", "a/b", ""} {
		if e, err = c.Siblings(root, []string{"f", name}, 0, nil); err == nil || len(e) != 0 {
			t.Errorf("%q: %d entries, %v", name, len(e), err)
		}
	}
	long := strings.Repeat("x", 4000)
	var names []string
	for i := range 60 { // more than a reply holds
		names = append(names, fmt.Sprint("l", i))
		os.Symlink(long, dir+"/"+names[i])
	}
	e, err = c.Siblings(root, names, 0, nil)
	if len(e) == 0 || len(e) >= 60 || err == nil || e[len(e)-1].Target != long {
		t.Errorf("long links: %d entries, %v", len(e), err)
	}
}

// TestSiblingsWith asks for descriptors and lists with the names.
func TestSiblingsWith(t *testing.T) {
	c, root, dir := setup(t)
	os.MkdirAll(dir+"/d", 0o755)
	os.MkdirAll(dir+"/empty", 0o755)
	os.MkdirAll(dir+"/large", 0o755)
	for i := range 500 {
		os.WriteFile(fmt.Sprintf("%s/large/file-%d", dir, i), nil, 0o600)
	}
	var inside []string
	for i := range 50 {
		inside = append(inside, fmt.Sprintf("f%02d", i))
		os.WriteFile(dir+"/d/"+inside[i], []byte(inside[i]), 0o600)
	}
	os.WriteFile(dir+"/f", []byte("hello"), 0o640)
	os.Symlink("f", dir+"/l")
	unix.Mkfifo(dir+"/p", 0o600)
	names := []string{"d", "f", "l", "p", "empty", "large", "f"}
	for with := range With(withAll + 1) {
		e, err := c.Siblings(root, names, with, nil)
		if want(t, "siblings", err, nil); len(e) != len(names) {
			t.Fatalf("%d: %d entries", with, len(e))
		}
		for i, e := range e {
			if (e.FD >= 0) != (with&WithFD != 0 && names[i] == "f") {
				t.Errorf("%d: %s has descriptor %d", with, names[i], e.FD)
			}
			if (e.List != nil) != (with&WithList != 0 && (names[i] == "d" || names[i] == "empty")) {
				t.Errorf("%d: %s has a list of %d", with, names[i], len(e.List))
			}
			if e.FD >= 0 {
				var b [9]byte
				if n, err := unix.Pread(e.FD, b[:], 0); n != 5 || err != nil {
					t.Error(n, err)
				}
				if flags, err := unix.FcntlInt(uintptr(e.FD), unix.F_GETFL, 0); flags&unix.O_ACCMODE != unix.O_RDONLY || err != nil {
					t.Error("not for reading only", flags, err)
				}
				if flags, err := unix.FcntlInt(uintptr(e.FD), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 || err != nil {
					t.Error("not close-on-exec", flags, err)
				}
				unix.Close(e.FD)
			}
		}
		if with&WithList != 0 {
			var got []string
			for _, d := range e[0].List {
				got = append(got, d.Name)
				if d.Type != unix.DT_REG || d.Ino == 0 {
					t.Errorf("%+v", d)
				}
			}
			if slices.Sort(got); !slices.Equal(got, inside) {
				t.Errorf("list: %v", got)
			}
		}
	}
	if _, err := c.Siblings(root, names, withAll+1, nil); err != unix.EINVAL {
		t.Error("unknown flag:", err)
	}
	e, err := c.Siblings(e0(c, root, "d"), inside, WithFD, nil)
	want(t, "more files than descriptors", err, nil)
	got := 0
	for i := range e {
		if e[i].FD >= 0 {
			if got++; i >= siblingFDs {
				t.Errorf("entry %d has a descriptor", i)
			}
			unix.Close(e[i].FD)
		}
	}
	if len(e) != 50 || got != siblingFDs {
		t.Errorf("%d entries, %d descriptors", len(e), got)
	}
}

// TestSiblingsTree asks for what is in small directories.
func TestSiblingsTree(t *testing.T) {
	c, root, dir := setup(t)
	os.MkdirAll(dir+"/small/sub/deep", 0o755)
	os.MkdirAll(dir+"/nine", 0o755)
	for i := range 9 {
		os.WriteFile(fmt.Sprint(dir, "/nine/f", i), nil, 0o600)
	}
	os.WriteFile(dir+"/small/f", []byte("hello"), 0o600)
	os.WriteFile(dir+"/small/g", []byte("hello!"), 0o600)
	os.Symlink("f", dir+"/small/l")
	unix.Mkfifo(dir+"/small/p", 0o600)
	before := openFiles(t)
	for _, with := range []With{WithTree, WithList | WithTree, WithFD | WithList | WithTree} {
		e, err := c.Siblings(root, []string{"small", "nine", "small"}, with, nil)
		if want(t, "siblings", err, nil); len(e) != 3 || e[1].Tree != nil {
			t.Fatalf("%d: %+v", with, e)
		}
		for _, s := range []int{0, 2} {
			if with&WithList == 0 {
				if e[s].Tree != nil {
					t.Error("a tree without a list")
				}
				continue
			}
			if len(e[s].Tree) != 5 || len(e[s].List) != 5 {
				t.Fatalf("%d: %+v", with, e[s])
			}
			for k, x := range e[s].Tree {
				name := e[s].List[k].Name
				if (x.FD >= 0) != (with&WithFD != 0 && (name == "f" || name == "g")) || x.List != nil || x.Tree != nil || x.Attr.Ino != e[s].List[k].Ino {
					t.Errorf("%d: %s: %+v", with, name, x)
				}
				if x.FD >= 0 {
					var st unix.Stat_t
					if err := unix.Fstat(x.FD, &st); err != nil || st.Ino != x.Attr.Ino {
						t.Errorf("%s has a descriptor of another file, %v", name, err)
					}
				}
				if name == "l" && x.Target != "f" || name == "g" && x.Attr.Size != 6 {
					t.Errorf("%s: %+v", name, x)
				}
			}
		}
		for k := range e {
			c.Drop(&e[k])
		}
	}
	var a Attr
	n := 0
	for range 1000 { // a worker may be about to close what it has sent
		want(t, "the request that closes", c.Stat(root, &a), nil)
		if n = openFiles(t); n <= before {
			return
		}
	}
	t.Errorf("%d descriptors, before %d", n, before)
}

// TestLyingServer gives the client replies that do not keep to the protocol.
func TestLyingServer(t *testing.T) {
	entry := func(w *writer, more uint8) {
		w.u64(7)
		w.attr(&Attr{Mode: unix.S_IFDIR})
		w.str("")
		w.u8(more)
	}
	deep := func(w *writer) {
		w.u32(1)
		for w.room() > 400 {
			entry(w, withList|withTree)
			w.u32(1)
			w.u64(1)
			w.u8(4)
			w.str("x")
			w.u8(1)
		}
		entry(w, 0)
	}
	for name, f := range map[string]func(w *writer){
		"empty":               func(w *writer) {},
		"short":               func(w *writer) { w.u32(1); w.u64(7) },
		"more than asked for": func(w *writer) { w.u32(9); entry(w, 0) },
		"no descriptor":       func(w *writer) { w.u32(1); entry(w, withFD) },
		"long list":           func(w *writer) { w.u32(1); entry(w, withList); w.u32(1 << 31) },
		"short list": func(w *writer) {
			w.u32(1)
			entry(w, withList)
			w.u32(2)
			w.u64(1)
			w.u8(1)
			w.str("x")
		},
		"tree without list":     func(w *writer) { w.u32(1); entry(w, withTree); w.u8(3); entry(w, 0) },
		"everything, all bits":  func(w *writer) { w.u32(1); entry(w, 255) },
		"a tree without an end": deep,
	} {
		for _, drop := range []bool{false, true} {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan bool)
			go func() {
				defer close(done)
				var p packet
				b := make([]byte, MaxMessage)
				for {
					n, err := p.recv(fds[0], b, nil)
					if n == 0 || err != nil {
						return
					}
					tag, code, _, _, _ := parse(b[:n])
					w := writer{}
					w.header(tag, 0)
					switch op(code) {
					case opHello:
						w.u32(Version)
						w.u32(0)
					case opSiblings:
						f(&w)
					case opStat:
						w.attr(&Attr{})
					}
					w.seal(0)
					d := &descriptors{}
					d.fd[0], d.n = int32(fds[1]), 1 // one that nobody asked for
					if op(code) != opClose {
						p.send(fds[0], w.b, d)
					}
				}
			}()
			c, err := NewClient(fds[1])
			if err != nil {
				t.Fatal(err)
			}
			before := openFiles(t)
			s := c.Start(1, []string{"a", "b"}, withAll)
			var a Attr
			if drop {
				s.Drop()
			} else if list, err := s.Collect(nil); name != "no descriptor" && name != "a tree without an end" && err == nil {
				t.Errorf("%s: %d siblings", name, len(list))
			} else {
				for k := range list {
					c.Drop(&list[k])
				}
			}
			want(t, name+": afterwards", c.Stat(1, &a), nil)
			c.mu.Lock()
			if c.used != 0 || c.started != 0 {
				t.Errorf("%s: slots %x are in use", name, c.used)
			}
			c.mu.Unlock()
			if n := openFiles(t); n > before {
				t.Errorf("%s: %d descriptors, before %d", name, n, before)
			}
			c.Shutdown()
			<-done
			unix.Close(fds[0])
			unix.Close(fds[1])
		}
	}
}

func e0(c *Client, dir Handle, name string) Handle {
	e, _ := c.walk1(dir, name)
	return e.Handle
}

// TestStart checks that replies that nobody waits for are kept or given up.
func TestStart(t *testing.T) {
	c, root, dir := setup(t)
	for i := range 10 {
		os.WriteFile(fmt.Sprint(dir, "/f", i), []byte("hello"), 0o640)
	}
	names := []string{"f0", "f1", "f2"}
	var a Attr
	want(t, "stat", c.Stat(root, &a), nil)
	before := openFiles(t)
	for round := range 50 {
		var list []*Started
		for len(list) < 5 {
			s := c.Start(root, names, WithFD)
			if s == nil {
				break
			}
			list = append(list, s)
		}
		// The replies to what was dropped may still be on their way.
		if len(list) > sentMax || round == 0 && len(list) != sentMax {
			t.Fatalf("round %d: %d requests were started", round, len(list))
		}
		if round%3 == 0 { // else they are dropped or collected before the reply is read
			want(t, "stat", c.Stat(root, &a), nil)
		}
		for i, s := range list {
			if (round+i)%2 == 0 {
				s.Drop()
				continue
			}
			e, err := s.Collect(nil)
			if want(t, "collect", err, nil); len(e) != len(names) {
				t.Fatalf("%d entries", len(e))
			}
			for _, e := range e {
				if e.FD < 0 || e.Attr.Size != 5 {
					t.Errorf("%+v", e)
				}
				unix.Close(e.FD)
				c.Close(e.Handle)
			}
		}
		for range sentMax + 1 { // reads what was dropped
			want(t, "stat", c.Stat(root, &a), nil)
		}
		c.Flush()
	}
	pending := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.started > 0
	}
	for n := 0; n < 1000 && pending(); n++ {
		want(t, "stat", c.Stat(root, &a), nil)
	}
	c.Flush()
	want(t, "stat", c.Stat(root, &a), nil)
	if n := openFiles(t); n > before+3 {
		t.Errorf("%d descriptors, before %d", n, before)
	}
	c.mu.Lock()
	if c.started != 0 || c.sent != 0 || c.used != 0 {
		t.Errorf("%d started, %d sent, slots %x", c.started, c.sent, c.used)
	}
	c.mu.Unlock()
	c.Shutdown()
	if c.Start(root, names, 0) != nil {
		t.Error("started without a server")
	}
}

// TestStartMany leaves large replies unread while others make requests.
func TestStartMany(t *testing.T) {
	c, root, dir := setup(t)
	var names []string
	for i := range 15 {
		names = append(names, fmt.Sprint("l", i))
		os.Symlink(strings.Repeat("x", 4000), dir+"/"+names[i])
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var mine []*Started
			for range 30 {
				if s := c.Start(root, names, WithFD); s != nil {
					mine = append(mine, s)
				}
				if e, err := c.walk1(root, "l1"); err != nil {
					t.Error(err)
				} else {
					c.Close(e.Handle)
				}
			}
			for i, s := range mine {
				if i%2 == 0 {
					s.Drop()
				} else if e, err := s.Collect(nil); err != nil || len(e) != len(names) {
					t.Error(len(e), err)
				}
			}
		}()
	}
	wg.Wait()
}

func openFiles(t *testing.T) int {
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(ents)
}

// TestOpenMany: further regular files come with the one that is opened for reading, and nothing else does.
func TestOpenMany(t *testing.T) {
	c, root, dir := setup(t)
	names := []string{"f0", "f1", "d", "p", "l", "f2", "f3"}
	for _, name := range names {
		if name[0] == 'f' {
			os.WriteFile(dir+"/"+name, []byte(name), 0o644)
		}
	}
	os.Mkdir(dir+"/d", 0o755)
	unix.Mkfifo(dir+"/p", 0o600)
	os.Symlink("f0", dir+"/l")
	e, err := c.Siblings(root, names, 0, nil)
	want(t, "siblings", err, nil)
	more := []Place{{Handle: 1 << 40}, {}, {Handle: root}}
	for _, s := range e[1:] {
		more = append(more, Place{Handle: s.Handle})
	}
	fds := make([]int, len(more))
	fd, err := c.OpenMany(Place{Handle: e[0].Handle}, unix.O_RDONLY, more, fds)
	want(t, "open", err, nil)
	for k, fd := range append([]int{fd}, fds[3:]...) {
		if (fd >= 0) != (names[k][0] == 'f') {
			t.Errorf("%s: descriptor %d", names[k], fd)
		}
		if fd < 0 {
			continue
		}
		var b [8]byte
		if n, err := unix.Pread(fd, b[:], 0); err != nil || string(b[:n]) != names[k] {
			t.Errorf("%s holds %q, %v", names[k], b[:n], err)
		}
		if _, err := unix.Pwrite(fd, b[:1], 0); k > 0 && err != unix.EBADF {
			t.Errorf("%s can be written: %v", names[k], err)
		}
		unix.Close(fd)
	}
	if fds[0] >= 0 || fds[1] >= 0 || fds[2] >= 0 {
		t.Errorf("descriptors for no files: %v", fds[:3])
	}
	for _, flags := range []uint32{unix.O_RDWR, unix.O_WRONLY, unix.O_RDONLY | unix.O_TRUNC} {
		fd, err := c.OpenMany(Place{Handle: e[0].Handle}, flags, more, fds)
		want(t, "open for writing", err, nil)
		unix.Close(fd)
		for k := range fds {
			if fds[k] >= 0 {
				t.Errorf("flags %#x: descriptor %d for the %dth", flags, fds[k], k)
			}
		}
	}
	more = make([]Place, MaxDonated)
	_, err = c.OpenMany(Place{Handle: e[0].Handle}, unix.O_RDONLY, more, make([]int, len(more)))
	want(t, "too many", err, unix.EINVAL)
	more = more[:MaxDonated-1]
	for k := range more {
		more[k] = Place{Handle: e[1].Handle}
	}
	fds = make([]int, len(more))
	fd, err = c.OpenMany(Place{Handle: e[0].Handle}, unix.O_RDONLY, more, fds)
	want(t, "as many as there may be", err, nil)
	for k, fd := range append(fds, fd) {
		if fd < 0 {
			t.Errorf("no descriptor for the %dth", k)
		}
		unix.Close(fd)
	}
}

// TestWithoutHandle: what is no directory comes without a handle and costs the server nothing, and is opened by its name.
func TestWithoutHandle(t *testing.T) {
	c, root, dir := setup(t)
	os.WriteFile(dir+"/f", []byte("file"), 0o640)
	os.Mkdir(dir+"/d", 0o755)
	os.WriteFile(dir+"/d/g", []byte("deep"), 0o644)
	unix.Mkfifo(dir+"/p", 0o600)
	os.Symlink("d/g", dir+"/l")
	before := openFiles(t)
	for _, with := range []With{0, WithFD, WithFD | WithList | WithTree} {
		names := []string{"f", "d", "p", "l"}
		list, err := c.Siblings(root, names, with|WithoutHandle, nil)
		want(t, "siblings", err, nil)
		if len(list) != len(names) {
			t.Fatalf("%d siblings", len(list))
		}
		for k, e := range list {
			var st unix.Stat_t
			unix.Lstat(dir+"/"+names[k], &st)
			if e.Attr.Ino != st.Ino || e.Attr.Mode != st.Mode {
				t.Errorf("%s: attributes %+v", names[k], e.Attr)
			}
			if (e.Handle != 0) != (names[k] == "d") {
				t.Errorf("%s: handle %#x", names[k], e.Handle)
			}
			if (e.FD >= 0) != (names[k] == "f" && with&WithFD != 0) {
				t.Errorf("%s: descriptor %d", names[k], e.FD)
			}
		}
		if list[3].Target != "d/g" {
			t.Errorf("link to %q", list[3].Target)
		}
		if with&WithTree != 0 && (len(list[1].Tree) != 1 || list[1].Tree[0].Handle != 0 || list[1].Tree[0].FD < 0) {
			t.Errorf("tree %+v", list[1].Tree)
		}
		for k := range list {
			c.Drop(&list[k])
		}
		c.Flush()
	}
	e, err := c.Walk(root, []string{"d", "g"}, WithoutHandle, nil)
	want(t, "walk", err, nil)
	if e[0].Handle == 0 || e[1].Handle != 0 {
		t.Errorf("walk: %+v", e)
	}
	more := []Place{{e[0].Handle, "g"}, {root, "d"}, {root, "l"}, {root, "p"}, {root, "../f"}, {root, ".."}, {1 << 40, "f"}, {root, "f"}}
	fds := make([]int, len(more))
	fd, err := c.OpenMany(Place{root, "f"}, unix.O_RDONLY, more, fds)
	want(t, "open", err, nil)
	for k, fd := range append(fds, fd) {
		if (fd >= 0) != (k == 0 || k >= len(more)-1) {
			t.Errorf("descriptor %d of the %dth", fd, k)
		}
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	for _, x := range []struct {
		Place
		flags uint32
		err   unix.Errno
	}{
		{Place{root, "d"}, unix.O_RDONLY, unix.EISDIR}, {Place{root, ""}, unix.O_RDONLY, unix.EISDIR}, {Place{root, "l"}, unix.O_RDONLY, unix.ELOOP},
		{Place{root, ".."}, unix.O_RDONLY, unix.EINVAL}, {Place{root, "d/g"}, unix.O_RDONLY, unix.EINVAL},
		{Place{root, "x"}, unix.O_RDONLY, unix.ENOENT}, {Place{e[0].Handle, "f"}, unix.O_RDONLY, unix.ENOENT}, {Place{root, "f"}, unix.O_CREAT, unix.EINVAL},
	} {
		_, err := c.OpenMany(x.Place, x.flags, nil, nil)
		want(t, "open of "+x.Name, err, x.err)
	}
	c.Close(e[0].Handle)
	c.Flush()
	_, err = c.Walk(root, []string{"x"}, WithFD, nil)
	want(t, "walk with what it has not", err, unix.EINVAL)
	for try := 0; openFiles(t) != before; try++ {
		if try == 100 {
			t.Fatalf("%d descriptors open, %d before", openFiles(t), before)
		}
		time.Sleep(10 * time.Millisecond) // other workers close what was left
	}
}

func TestNames(t *testing.T) {
	c, root, _ := setup(t)
	long := string(make([]byte, 256))
	for name, errno := range map[string]error{"": unix.ENOENT, ".": unix.EINVAL, "..": unix.EINVAL, "a/b": unix.EINVAL, "/": unix.EINVAL, "/etc": unix.EINVAL, "a\x00b": unix.EBADMSG, long: unix.ENAMETOOLONG} {
		_, err := c.walk1(root, name)
		want(t, fmt.Sprintf("walk %q", name), err, errno)
		if name != "" {
			_, _, _, err = c.Create(root, name, unix.O_RDWR, 0o600, 0, 0)
			want(t, fmt.Sprintf("create %q", name), err, errno)
		}
		_, _, err = c.Mkdir(root, name, 0o700, 0, 0)
		want(t, fmt.Sprintf("mkdir %q", name), err, errno)
		want(t, fmt.Sprintf("unlink %q", name), c.Unlink(root, name, true), errno)
		want(t, fmt.Sprintf("rename from %q", name), c.Rename(root, name, root, "x", 0), errno)
		want(t, fmt.Sprintf("rename to %q", name), c.Rename(root, "x", root, name, 0), errno)
		_, _, err = c.Symlink(root, name, "x", 0, 0)
		want(t, fmt.Sprintf("symlink %q", name), err, errno)
		_, _, err = c.Mknod(root, name, unix.S_IFIFO, 0o600, 0, 0, 0)
		want(t, fmt.Sprintf("mknod %q", name), err, errno)
	}
}

func TestCreate(t *testing.T) {
	c, root, dir := setup(t)
	old := unix.Umask(0o77)
	defer unix.Umask(old)
	h, a, fd, err := c.Create(root, "f", unix.O_RDWR, 0o4755, 1000, 1001)
	if err != nil || a.Mode != unix.S_IFREG|0o4755 || a.UID != 1000 || a.GID != 1001 {
		t.Fatalf("%+v %v", a, err)
	}
	if n, err := unix.Write(fd, []byte("data")); n != 4 || err != nil {
		t.Error(n, err)
	}
	if f, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); f&unix.FD_CLOEXEC == 0 {
		t.Error("donated descriptor survives exec")
	}
	unix.Close(fd)
	_, _, _, err = c.Create(root, "f", unix.O_RDWR, 0o755, 0, 0)
	want(t, "again", err, unix.EEXIST)
	want(t, "stat", c.Stat(h, &a), nil)
	if a.Size != 4 {
		t.Error(a.Size)
	}
	_, err = c.Open(h, unix.O_RDWR|unix.O_CREAT)
	want(t, "open with O_CREAT", err, unix.EINVAL)
	fd = must(c.Open(h, unix.O_WRONLY|unix.O_TRUNC|unix.O_APPEND))(t)
	unix.Close(fd)
	c.Stat(h, &a)
	if a.Size != 0 {
		t.Error("not truncated")
	}

	d, a, err := c.Mkdir(root, "d", 0o2775, 5, 6)
	if err != nil || a.Mode != unix.S_IFDIR|0o2775 || a.UID != 5 || a.GID != 6 {
		t.Fatalf("%+v %v", a, err)
	}
	// below a set-group-ID directory the client decides, too
	_, a, fd, err = c.Create(d, "g", unix.O_RDONLY, 0o666, 7, 8)
	if err != nil || a.Mode != unix.S_IFREG|0o666 || a.UID != 7 || a.GID != 8 {
		t.Fatalf("%+v %v", a, err)
	}
	unix.Close(fd)
	_, err = c.Open(d, unix.O_RDONLY)
	want(t, "open directory", err, unix.EISDIR)

	l, a, err := c.Symlink(root, "l", "/etc/passwd", 9, 10)
	if err != nil || a.UID != 9 || a.GID != 10 {
		t.Fatalf("%+v %v", a, err)
	}
	_, err = c.Open(l, unix.O_RDONLY)
	want(t, "open link", err, unix.ELOOP)

	for _, typ := range []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFREG, unix.S_IFCHR} {
		name := fmt.Sprint("n", typ)
		_, a, err := c.Mknod(root, name, typ, 0o622, 11, 12, 0)
		if err != nil || a.Mode != typ|0o622 || a.UID != 11 || a.Rdev != 0 {
			t.Errorf("mknod %o: %+v %v", typ, a, err)
		}
	}
	_, _, err = c.Mknod(root, "null", unix.S_IFCHR, 0o666, 0, 0, 1<<32|3)
	want(t, "device", err, unix.EPERM)
	_, _, err = c.Mknod(root, "disk", unix.S_IFBLK, 0o666, 0, 0, 0)
	want(t, "block device", err, unix.EPERM)

	h, a, fd, err = c.Create(root, "", unix.O_RDWR, 0o640, 13, 14)
	if err != nil || a.UID != 13 || a.Nlink != 0 {
		t.Fatalf("%+v %v", a, err)
	}
	unix.Close(fd)
	want(t, "link", c.Link(h, d, "named", &a), nil)
	if a.Nlink != 1 {
		t.Errorf("%+v", a)
	}
	if _, err := os.Stat(dir + "/d/named"); err != nil {
		t.Error(err)
	}
}

func TestSetAttr(t *testing.T) {
	c, root, _ := setup(t)
	h, _, fd, err := c.Create(root, "f", unix.O_RDWR, 0o644, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	var a Attr
	set := SetAttr{Mask: SetMode | SetUID | SetGID | SetSize | SetAtime | SetMtime, Mode: 0o6711, UID: 3, GID: 4, Size: 1 << 20, Atime: Time{5, 6}, Mtime: Time{7, 8}}
	want(t, "set", c.SetAttr(h, &set, &a), nil)
	if a.Mode != unix.S_IFREG|0o6711 || a.UID != 3 || a.GID != 4 || a.Size != 1<<20 || a.Atime != (Time{5, 6}) || a.Mtime != (Time{7, 8}) {
		t.Errorf("%+v", a)
	}
	want(t, "one time", c.SetAttr(h, &SetAttr{Mask: SetMtimeNow}, &a), nil)
	if a.Atime != (Time{5, 6}) || a.Mtime.Sec < 1e9 {
		t.Errorf("%+v", a)
	}
	want(t, "negative size", c.SetAttr(h, &SetAttr{Mask: SetSize, Size: 1 << 63}, &a), unix.EINVAL)
	want(t, "unknown bit", c.SetAttr(h, &SetAttr{Mask: 1 << 20}, &a), unix.EINVAL)
	want(t, "type in mode", c.SetAttr(h, &SetAttr{Mask: SetMode, Mode: unix.S_IFLNK}, &a), unix.EINVAL)
	want(t, "size of directory", c.SetAttr(root, &SetAttr{Mask: SetSize}, &a), unix.EISDIR)
	l, _, _ := c.Symlink(root, "l", "f", 0, 0)
	want(t, "chown link", c.SetAttr(l, &SetAttr{Mask: SetUID | SetMtime, UID: 9, Mtime: Time{1, 2}}, &a), nil)
	if a.Type() != unix.S_IFLNK || a.UID != 9 || a.Mtime != (Time{1, 2}) {
		t.Errorf("%+v", a)
	}
	want(t, "chmod link", c.SetAttr(l, &SetAttr{Mask: SetMode, Mode: 0o600}, &a), unix.EOPNOTSUPP)
}

func TestNamespace(t *testing.T) {
	c, root, dir := setup(t)
	d, _, _ := c.Mkdir(root, "d", 0o755, 0, 0)
	os.WriteFile(dir+"/f", []byte("f"), 0o644)
	os.WriteFile(dir+"/g", []byte("gg"), 0o644)
	f := must(c.walk1(root, "f"))(t)
	var a Attr
	want(t, "link", c.Link(f.Handle, d, "f2", &a), nil)
	if a.Nlink != 2 || a.Ino != f.Attr.Ino {
		t.Errorf("%+v", a)
	}
	want(t, "link again", c.Link(f.Handle, d, "f2", &a), unix.EEXIST)
	want(t, "link directory", c.Link(d, root, "d2", &a), unix.EPERM)
	want(t, "noreplace", c.Rename(root, "f", root, "g", unix.RENAME_NOREPLACE), unix.EEXIST)
	want(t, "exchange", c.Rename(root, "f", root, "g", unix.RENAME_EXCHANGE), nil)
	if e := must(c.walk1(root, "g"))(t); e.Attr.Ino != f.Attr.Ino {
		t.Error("not exchanged")
	}
	want(t, "whiteout", c.Rename(root, "f", root, "g", unix.RENAME_WHITEOUT), unix.EINVAL)
	want(t, "rename", c.Rename(root, "g", d, "h", 0), nil)
	want(t, "rename into itself", c.Rename(root, "d", d, "x", 0), unix.EINVAL)
	want(t, "rmdir full", c.Unlink(root, "d", true), unix.ENOTEMPTY)
	want(t, "unlink dir", c.Unlink(root, "d", false), unix.EISDIR)
	want(t, "unlink", c.Unlink(d, "h", false), nil)
	want(t, "unlink", c.Unlink(d, "f2", false), nil)
	want(t, "rmdir", c.Unlink(root, "d", true), nil)
	// the handle outlives the names
	want(t, "stat", c.Stat(f.Handle, &a), nil)
	if a.Nlink != 0 {
		t.Errorf("%+v", a)
	}
	unix.Close(must(c.Open(f.Handle, unix.O_RDONLY))(t))
	var s StatFS
	want(t, "statfs", c.StatFS(root, &s), nil)
	if s.Bsize == 0 || s.Namelen == 0 {
		t.Errorf("%+v", s)
	}
	want(t, "fsync", c.Fsync(root, false), nil)
	want(t, "fdatasync", c.Fsync(f.Handle, true), nil)
	l, _, _ := c.Symlink(root, "l", "f", 0, 0)
	want(t, "link of link", c.Link(l, root, "l2", &a), nil)
	if a.Type() != unix.S_IFLNK || a.Nlink != 2 {
		t.Errorf("%+v", a)
	}
}

func TestReadDir(t *testing.T) {
	c, root, dir := setup(t)
	ents, next, err := c.ReadDir(root, nil)
	if len(ents) != 0 || next != 0 || err != nil {
		t.Fatal(ents, next, err)
	}
	const n = 6000
	var names []string
	for i := range n {
		name := fmt.Sprintf("file-%d-%s", i, string(make([]byte, 0)))
		names = append(names, name)
		os.WriteFile(filepath.Join(dir, name), nil, 0o600)
	}
	slices.Sort(names)
	ents = ents[:0]
	batches := 0
	for h := root; h != 0; h = next {
		if ents, next, err = c.ReadDir(h, ents); err != nil {
			t.Fatal(err)
		}
		batches++
	}
	var got []string
	for _, e := range ents {
		got = append(got, e.Name)
		if e.Type != unix.DT_REG || e.Ino == 0 {
			t.Fatalf("%+v", e)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, names) || batches < 2 {
		t.Errorf("%d names in %d batches", len(got), batches)
	}
	_, s, err := c.ReadDir(root, nil)
	if s == 0 || err != nil {
		t.Fatal(s, err)
	}
	_, err = c.walk1(s, "file-1-")
	want(t, "walk from a stream", err, unix.EBADF)
	want(t, "rename in a stream", c.Rename(s, "a", root, "b", 0), unix.EBADF)
	c.Close(s)
	want(t, "the request that closes it", c.Stat(root, new(Attr)), nil)
	_, _, err = c.ReadDir(s, nil)
	want(t, "closed stream", err, unix.EBADF)
	f := must(c.walk1(root, "file-1-"))(t)
	_, _, err = c.ReadDir(f.Handle, nil)
	want(t, "file", err, unix.ENOTDIR)
}

func TestXattr(t *testing.T) {
	c, root, _ := setup(t)
	h, _, fd, err := c.Create(root, "f", unix.O_RDWR, 0o644, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if err := c.SetXattr(h, "user.a", []byte("value"), 0); err != nil {
		t.Skip("no extended attributes here:", err)
	}
	want(t, "create", c.SetXattr(h, "user.a", []byte("x"), unix.XATTR_CREATE), unix.EEXIST)
	want(t, "replace", c.SetXattr(h, "user.b", []byte("x"), unix.XATTR_REPLACE), unix.ENODATA)
	want(t, "empty", c.SetXattr(h, "user.empty", nil, 0), nil)
	want(t, "trusted", c.SetXattr(h, "trusted.x", nil, 0), unix.EOPNOTSUPP)
	want(t, "selinux", c.SetXattr(h, "security.selinux", nil, 0), unix.EOPNOTSUPP)
	var b [64]byte
	n, err := c.GetXattr(h, "user.a", b[:])
	if string(b[:n]) != "value" || err != nil {
		t.Error(n, err)
	}
	if n, err = c.GetXattr(h, "user.a", nil); n != 5 || err != nil {
		t.Error(n, err)
	}
	_, err = c.GetXattr(h, "user.a", b[:2])
	want(t, "small", err, unix.ERANGE)
	if n, err = c.GetXattr(h, "user.empty", b[:]); n != 0 || err != nil {
		t.Error(n, err)
	}
	if n, err = c.GetXattr(h, "user.a", make([]byte, 1<<20)); n != 5 || err != nil {
		t.Error(n, err)
	}
	names, err := c.ListXattr(h)
	if s := string(names); err != nil || s != "user.a\x00user.empty\x00" && s != "user.empty\x00user.a\x00" {
		t.Errorf("%q %v", names, err)
	}
	want(t, "remove", c.RemoveXattr(h, "user.a"), nil)
	_, err = c.GetXattr(h, "user.a", b[:])
	want(t, "removed", err, unix.ENODATA)
	_, err = c.GetXattr(h, "user."+string(make([]byte, 300)), b[:])
	want(t, "long name", err, unix.ERANGE)
	p, _, _ := c.Mknod(root, "p", unix.S_IFIFO, 0o600, 0, 0, 0)
	want(t, "user on a FIFO", c.SetXattr(p, "user.x", []byte("x"), 0), unix.EPERM)
}

func TestReadOnly(t *testing.T) {
	c, rw, dir := setup(t)
	os.WriteFile(dir+"/f", []byte("x"), 0o644)
	os.Mkdir(dir+"/d", 0o755)
	root, _, err := c.Attach(1)
	if err != nil {
		t.Fatal(err)
	}
	f := must(c.walk1(root, "f"))(t)
	rwf := must(c.walk1(rw, "f"))(t)
	d := must(c.walk1(root, "d"))(t)
	var a Attr
	refused := func(what string, err error) { t.Helper(); want(t, what, err, unix.EROFS) }
	_, _, _, err = c.Create(root, "x", unix.O_RDONLY, 0o600, 0, 0)
	refused("create", err)
	_, _, _, err = c.Create(root, "", unix.O_RDWR, 0o600, 0, 0)
	refused("temporary", err)
	_, _, err = c.Mkdir(root, "x", 0o700, 0, 0)
	refused("mkdir", err)
	_, _, err = c.Symlink(d.Handle, "x", "y", 0, 0)
	refused("symlink", err)
	_, _, err = c.Mknod(root, "x", unix.S_IFIFO, 0o600, 0, 0, 0)
	refused("mknod", err)
	refused("link", c.Link(f.Handle, root, "x", &a))
	refused("link from elsewhere", c.Link(rwf.Handle, root, "x", &a))
	refused("rename", c.Rename(root, "f", root, "x", 0))
	want(t, "rename out", c.Rename(root, "f", rw, "x", 0), unix.EXDEV)
	want(t, "rename in", c.Rename(rw, "f", root, "x", 0), unix.EXDEV)
	want(t, "link out", c.Link(f.Handle, rw, "x", &a), unix.EXDEV)
	refused("unlink", c.Unlink(root, "f", false))
	for mask := SetMask(1); mask < setAll; mask <<= 1 {
		refused(fmt.Sprint("setattr ", mask), c.SetAttr(f.Handle, &SetAttr{Mask: mask}, &a))
	}
	refused("setxattr", c.SetXattr(f.Handle, "user.x", nil, 0))
	refused("removexattr", c.RemoveXattr(f.Handle, "user.x"))
	for _, flags := range []uint32{unix.O_WRONLY, unix.O_RDWR, unix.O_RDONLY | unix.O_TRUNC, unix.O_ACCMODE} {
		_, err = c.Open(f.Handle, flags)
		refused(fmt.Sprintf("open %#x", flags), err)
	}
	fd := must(c.Open(f.Handle, unix.O_RDONLY))(t)
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("y")); err == nil {
		t.Error("wrote to a read-only attach point")
	}
	if b, _ := os.ReadFile(dir + "/f"); string(b) != "x" {
		t.Error("changed")
	}
}

func TestSpecialFiles(t *testing.T) {
	c, root, dir := setup(t)
	unix.Mkfifo(dir+"/p", 0o600)
	p := must(c.walk1(root, "p"))(t)
	_, err := c.Open(p.Handle, unix.O_WRONLY)
	want(t, "FIFO without a reader", err, unix.ENXIO)
	unix.Close(must(c.Open(p.Handle, unix.O_RDONLY))(t))

	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	t.Chdir(dir)
	if err := unix.Bind(l, &unix.SockaddrUnix{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	unix.Listen(l, 1)
	s := must(c.walk1(root, "s"))(t)
	_, err = c.Open(s.Handle, unix.O_RDONLY)
	want(t, "open socket", err, unix.ENXIO)
	fd := must(c.Connect(s.Handle, unix.SOCK_STREAM))(t)
	defer unix.Close(fd)
	conn, _, err := unix.Accept(l)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(conn)
	unix.Write(fd, []byte("hi"))
	var b [4]byte
	if n, err := unix.Read(conn, b[:]); n != 2 || err != nil {
		t.Error(n, err)
	}
	_, err = c.Connect(s.Handle, 77)
	want(t, "socket type", err, unix.EINVAL)
	_, err = c.Connect(p.Handle, unix.SOCK_STREAM)
	want(t, "connect to FIFO", err, unix.ECONNREFUSED)

	ro, _, _ := c.Attach(1)
	s = must(c.walk1(ro, "s"))(t)
	_, err = c.Connect(s.Handle, unix.SOCK_STREAM)
	want(t, "connect without policy", err, unix.EPERM)
	p = must(c.walk1(ro, "p"))(t)
	_, err = c.Open(p.Handle, unix.O_RDONLY)
	want(t, "FIFO without policy", err, unix.EPERM)
}

func TestDevices(t *testing.T) {
	at := attach(t, "/dev", 0)
	at.Devices = []uint64{1<<32 | 3}
	c := serve(t, Config{Attach: []AttachPoint{at, attach(t, "/dev/null", 0)}})
	root, _, _ := c.Attach(0)
	null := must(c.walk1(root, "null"))(t)
	unix.Close(must(c.Open(null.Handle, unix.O_RDWR))(t))
	zero := must(c.walk1(root, "zero"))(t)
	_, err := c.Open(zero.Handle, unix.O_RDONLY)
	want(t, "device that is not listed", err, unix.EPERM)
	file, a, err := c.Attach(1)
	if err != nil || a.Type() != unix.S_IFCHR {
		t.Error(a, err)
	}
	_, err = c.Open(file, unix.O_RDONLY)
	want(t, "attached device without policy", err, unix.EPERM)
}

func TestHandleLimit(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(dir+"/f", nil, 0o600)
	c := serve(t, Config{Attach: []AttachPoint{attach(t, dir, 0)}, MaxHandles: 4})
	root, _, err := c.Attach(0)
	if err != nil {
		t.Fatal(err)
	}
	var e []Entry
	for range 3 {
		if e, err = c.Walk(root, []string{"f"}, 0, e); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.Walk(root, []string{"f"}, 0, nil)
	want(t, "table full", err, unix.EMFILE)
	_, _, _, err = c.Create(root, "g", unix.O_RDWR, 0o600, 0, 0)
	want(t, "create with the table full", err, unix.EMFILE)
	if _, err := os.Stat(dir + "/g"); err == nil {
		t.Error("the file that failed stayed")
	}
	c.Close(e[1].Handle)
	c.Flush()
	again, err := c.walk1(root, "f")
	want(t, "after a close", err, nil)
	if again.Handle == e[1].Handle {
		t.Error("handle used again")
	}
}

func TestConcurrent(t *testing.T) {
	c, root, dir := setup(t)
	for i := range 100 {
		os.WriteFile(fmt.Sprintf("%s/f%d", dir, i), make([]byte, i), 0o600)
	}
	var wg sync.WaitGroup
	for g := range 100 { // more than there are slots
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 50 {
				n := (g + i) % 100
				e, err := c.Siblings(root, []string{fmt.Sprint("f", n)}, WithFD, nil)
				if err != nil || e[0].Attr.Size != uint64(n) || e[0].FD < 0 {
					t.Errorf("%d: %v %v", n, e, err)
					return
				}
				var st unix.Stat_t
				if unix.Fstat(e[0].FD, &st); st.Ino != e[0].Attr.Ino {
					t.Error("descriptor of another file")
				}
				unix.Close(e[0].FD)
				c.Close(e[0].Handle)
			}
		}()
	}
	wg.Wait()
}

func TestServerDies(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	// A server that answers Hello, takes requests and dies.
	go func() {
		var p packet
		b := make([]byte, MaxMessage)
		n, _ := p.recv(fds[0], b, nil)
		tag, _, _, _, _ := parse(b[:n])
		w := writer{}
		w.header(tag, 0)
		w.u32(Version)
		w.u32(0)
		w.seal(0)
		p.send(fds[0], w.b, nil)
		for range 3 {
			p.recv(fds[0], b, nil)
		}
		unix.Close(fds[0])
	}()
	c, err := NewClient(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	var wg sync.WaitGroup
	for range 10 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var a Attr
			want(t, "call", c.Stat(1, &a), ErrExited)
		}()
	}
	wg.Wait()
	var a Attr
	want(t, "later call", c.Stat(1, &a), ErrExited)
	c.Close(5)
	c.Flush()
}

func TestAllocations(t *testing.T) {
	c, root, dir := setup(t)
	os.MkdirAll(dir+"/a/b", 0o755)
	var a Attr
	if n := testing.AllocsPerRun(50, func() { c.Stat(root, &a) }); n > 0 {
		t.Errorf("Stat: %v allocations, both sides", n)
	}
	names := []string{"a", "b"}
	var out []Entry
	if n := testing.AllocsPerRun(50, func() {
		out, _ = c.Walk(root, names, 0, out[:0])
		for i := range out {
			c.Close(out[i].Handle)
		}
	}); n > 3 { // the server's objects
		t.Errorf("Walk: %v allocations, both sides", n)
	}
}

func BenchmarkStat(b *testing.B) {
	c, root, _ := setup(b)
	var a Attr
	for b.Loop() {
		c.Stat(root, &a)
	}
}

func BenchmarkWalk5(b *testing.B) {
	c, root, dir := setup(b)
	os.MkdirAll(dir+"/a/b/c/d", 0o755)
	os.WriteFile(dir+"/a/b/c/d/f", nil, 0o600)
	names := []string{"a", "b", "c", "d", "f"}
	var out []Entry
	for b.Loop() {
		var err error
		if out, err = c.Walk(root, names, 0, out[:0]); err != nil {
			b.Fatal(err)
		}
		for i := range out {
			c.Close(out[i].Handle)
		}
	}
}

func BenchmarkOpenClose(b *testing.B) {
	c, root, dir := setup(b)
	os.WriteFile(dir+"/f", nil, 0o600)
	e, err := c.walk1(root, "f")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		fd, err := c.Open(e.Handle, unix.O_RDONLY)
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
	}
}
