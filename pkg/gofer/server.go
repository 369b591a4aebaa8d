package gofer

import (
	"encoding/binary"
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// AttachPoint is a file or directory of the host that the container sees.
type AttachPoint struct {
	FD      int // O_PATH or directory descriptor; stays the caller's
	Flags   AttachFlags
	Devices []uint64 // device nodes below that Open serves, as major<<32 | minor
}

// Config configures a server.
type Config struct {
	Attach []AttachPoint
	// ProcFD is a descriptor of the server process's own /proc/self/fd, by which O_PATH descriptors
	// are reopened. In production it belongs to a proc mount of the server's PID namespace with
	// subset=pid that is attached nowhere, so that ".." from it leads nowhere either.
	ProcFD int
	// MaxHandles bounds open handles, and with them descriptors; 0 is RLIMIT_NOFILE less some room.
	MaxHandles int
	// Workers is how many requests are served at once; 0 is 4: more cores than a container mostly
	// has, so that one slow disk access does not hold up cached ones.
	Workers int
}

// ErrProtocol is what Serve returns where the client sent what is not a message of the protocol.
var ErrProtocol = errors.New("gofer: protocol violation")

// Serve answers requests on conn, a SOCK_SEQPACKET socket, until the client closes it (nil) or breaks
// the framing (ErrProtocol). It closes all handles, but neither conn nor the descriptors in cfg.
// New files get exactly the mode that the client asks for whatever the umask; a process whose umask
// is 0 saves the correction.
func Serve(conn int, cfg Config) error {
	if cfg.Workers <= 0 {
		cfg.Workers = workers
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	handles, donate := budget(lim.Cur, cfg.Workers)
	if cfg.MaxHandles <= 0 {
		cfg.MaxHandles = handles
	}
	s := &server{conn: conn, cfg: cfg, donate: donate, uid: uint32(unix.Geteuid()), gid: uint32(unix.Getegid())}
	s.table.max = cfg.MaxHandles
	var wg sync.WaitGroup
	for range cfg.Workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s.work()
		}()
	}
	wg.Wait()
	s.table.clear()
	return s.err
}

// workers is how many requests are served at once where Config does not say it.
const workers = 4

// budget divides a limit of descriptors: how many handles there may be, and how many descriptors go with a reply. The replies of all workers have no more
// than half of it, as without handles nothing can be looked up.
func budget(nofile uint64, workers int) (handles, donate int) {
	const others = 64 // the runtime's, the attach points'
	room := max(int(min(nofile, 1<<20))-others, others)
	const own = 3 // what a worker has open for a moment
	donate = min(max(room/2/workers-own, 1), donateMax)
	return max(room-(donate+own)*workers, 16), donate
}

// HandleLimit is how many handles a server allows by default whose limit of descriptors is nofile.
func HandleLimit(nofile uint64) int {
	handles, _ := budget(nofile, workers)
	return handles
}

// server is one connection's state.
type server struct {
	conn     int // immutable, as the next three lines
	cfg      Config
	donate   int    // descriptors of a reply at most
	uid, gid uint32 // that new files get from the host

	table table

	mu    sync.Mutex
	err   error // why the connection ended; guarded by mu
	hello bool  // the version is agreed on; guarded by mu
}

// worker serves one request at a time. Its buffers are reused.
type worker struct {
	*server
	pkt packet
	in  []byte
	out writer
	fds descriptors // to donate with the reply; closed afterwards
	num decimal
	st  unix.Statx_t
	dir []byte // entries of a directory
	// bare is an object without a handle.
	bare object
}

// work receives and answers requests; all workers wait on the same socket, which wakes one for each.
func (s *server) work() {
	w := &worker{server: s, in: make([]byte, MaxMessage), out: writer{make([]byte, 0, MaxMessage)}}
	for {
		n, err := w.pkt.recv(s.conn, w.in, nil)
		if n == 0 || err != nil {
			s.fail(err)
			return
		}
		if !w.serve(w.in[:n]) {
			s.fail(ErrProtocol)
			return
		}
	}
}

// fail ends the connection for all workers; the first reason stays. A client that is gone is none.
func (s *server) fail(err error) {
	if err == unix.ECONNRESET || err == unix.EPIPE {
		err = nil
	}
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	unix.Shutdown(s.conn, unix.SHUT_RDWR)
}

// serve answers one message; false ends the connection.
func (w *worker) serve(msg []byte) bool {
	tag, code, closes, body, ok := parse(msg)
	if !ok || int(closes)*8 > len(body) || closes > closesMax {
		return false
	}
	trailer := body[len(body)-int(closes)*8:]
	body = body[:len(body)-len(trailer)]

	w.out.header(tag, 0)
	err := w.dispatch(op(code), &reader{b: body})
	for ; len(trailer) > 0; trailer = trailer[8:] {
		w.table.remove(Handle(binary.LittleEndian.Uint64(trailer)))
	}
	if op(code) == opClose {
		return err == nil
	}
	if err != nil {
		w.fds.close()
		w.out.header(tag, uint16(errno(err)))
	}
	w.out.seal(0)
	sent := w.pkt.send(w.conn, w.out.b, &w.fds)
	w.fds.close()
	if sent == unix.ETOOMANYREFS { // too many descriptors under way: the client does not take them
		if op(code) != opSiblings { // which does without
			w.out.header(tag, uint16(unix.EMFILE))
			w.out.seal(0)
		}
		sent = w.pkt.send(w.conn, w.out.b, nil)
	}
	if sent != nil {
		w.fail(sent)
	}
	return true
}

// dispatch performs a request and appends its results to w.out.
func (w *worker) dispatch(o op, r *reader) error {
	w.mu.Lock()
	hello := w.hello
	w.mu.Unlock()
	if !hello && o != opHello {
		return unix.EPROTO
	}
	switch o {
	case opHello:
		return w.doHello(r)
	case opAttach:
		return w.doAttach(r)
	case opClose:
		return ended(r)
	case opLink:
		return w.doLink(r)
	case opRename:
		return w.doRename(r)
	case 0, opMax:
		return unix.EOPNOTSUPP
	}
	if o > opMax {
		return unix.EOPNOTSUPP
	}
	h := Handle(r.u64())
	obj, err := w.table.get(h)
	if err != nil {
		if r.bad {
			return unix.EBADMSG
		}
		return err
	}
	defer obj.put()
	if obj.stream != nil && o != opReadDir {
		return unix.EBADF
	}
	switch o {
	case opWalk:
		return w.doWalk(obj, r)
	case opSiblings:
		return w.doSiblings(obj, r)
	case opStat:
		return w.doStat(obj, r)
	case opSetAttr:
		return w.doSetAttr(obj, r)
	case opOpen:
		return w.doOpen(obj, r)
	case opCreate:
		return w.doCreate(obj, r)
	case opMkdir:
		return w.doMkdir(obj, r)
	case opSymlink:
		return w.doSymlink(obj, r)
	case opMknod:
		return w.doMknod(obj, r)
	case opUnlink:
		return w.doUnlink(obj, r)
	case opReadlink:
		return w.doReadlink(obj, r)
	case opReadDir:
		return w.doReadDir(h, obj, r)
	case opStatFS:
		return w.doStatFS(obj, r)
	case opFsync:
		return w.doFsync(obj, r)
	case opGetXattr:
		return w.doGetXattr(obj, r)
	case opSetXattr:
		return w.doSetXattr(obj, r)
	case opListXattr:
		return w.doListXattr(obj, r)
	case opRemoveXattr:
		return w.doRemoveXattr(obj, r)
	case opConnect:
		return w.doConnect(obj, r)
	}
	return unix.EOPNOTSUPP
}

// ended checks that a request has been read to its end and held what it should.
func ended(r *reader) error {
	if !r.end() {
		return unix.EBADMSG
	}
	return nil
}

// component checks the end of the request and the name.
func component(r *reader, name cstr) error {
	if err := ended(r); err != nil {
		return err
	}
	return name.component()
}

func (o *object) writable() error {
	if o.at.Flags&ReadOnly != 0 {
		return unix.EROFS
	}
	return nil
}

// reopen opens the object itself, whatever its names are by now.
func (w *worker) reopen(fd int, flags int) (int, error) {
	return openAt(w.cfg.ProcFD, w.num.set(fd), flags|unix.O_CLOEXEC)
}

func (w *worker) doHello(r *reader) error {
	v := r.u32()
	if err := ended(r); err != nil {
		return err
	}
	if v != Version {
		return unix.EPROTONOSUPPORT
	}
	w.mu.Lock()
	w.hello = true
	w.mu.Unlock()
	w.out.u32(Version)
	w.out.u32(uint32(len(w.cfg.Attach)))
	for i := range w.cfg.Attach {
		w.out.u32(uint32(w.cfg.Attach[i].Flags))
	}
	return nil
}

func (w *worker) doAttach(r *reader) error {
	i := r.u32()
	if err := ended(r); err != nil {
		return err
	}
	if uint64(i) >= uint64(len(w.cfg.Attach)) {
		return unix.ENODEV
	}
	at := &w.cfg.Attach[i]
	// Not reopened by name: an attach point may be a symbolic link or anything else.
	fd, err := unix.FcntlInt(uintptr(at.FD), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	return w.adopt(fd, at)
}

// adopt makes fd, an O_PATH descriptor, a handle and writes the handle and the attributes to the
// reply. It takes fd over in any case.
func (w *worker) adopt(fd int, at *AttachPoint) error {
	if err := statFD(fd, &w.st); err != nil {
		unix.Close(fd)
		return err
	}
	h, err := w.enter(fd, at)
	if err != nil {
		return err
	}
	var a Attr
	a.fill(&w.st)
	w.out.u64(uint64(h))
	w.out.attr(&a)
	return nil
}

// enter makes fd, whose attributes are in w.st, a handle. It takes fd over in any case.
func (w *worker) enter(fd int, at *AttachPoint) (Handle, error) {
	h, err := w.table.add(&object{fd: fd, at: at, typ: uint32(w.st.Mode) & unix.S_IFMT, dev: rdev(&w.st)})
	if err != nil {
		unix.Close(fd)
	}
	return h, err
}

func rdev(st *unix.Statx_t) uint64 { return uint64(st.Rdev_major)<<32 | uint64(st.Rdev_minor) }
