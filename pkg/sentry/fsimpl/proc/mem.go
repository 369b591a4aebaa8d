package proc

import (
	"bytes"
	"math"
	"sync"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// copyChunk is how much of another address space is copied at once. Both address spaces must not be locked at the same time.
const copyChunk = 16 << 10

// memFile is an open file that shows a part of an address space; it does not keep it alive.
type memFile struct {
	m *mm.MemoryManager // nil: a task without memory
	// window gives what is shown: offset 0 is start. It may be nil for all of it, with offsets as addresses.
	window func(m *mm.MemoryManager) (start, end uint64)
	pool   *sync.Pool // of *[copyChunk]byte
}

// buffer takes a buffer from the pool.
func buffer(p *sync.Pool) *[copyChunk]byte {
	if b, ok := p.Get().(*[copyChunk]byte); ok {
		return b
	}
	return new([copyChunk]byte)
}

// Release implements vfs.FileImpl.
func (*memFile) Release() {}

// span is what of the file n bytes at off are in the address space.
func (f *memFile) span(off, n int64) (addr, length uint64) {
	if f.window == nil {
		return uint64(off), uint64(n)
	}
	start, end := f.window(f.m)
	if end <= start || uint64(off) >= end-start {
		return 0, 0
	}
	return start + uint64(off), min(uint64(n), end-start-uint64(off))
}

// Read implements vfs.Reader. EIO where nothing is mapped.
func (f *memFile) Read(_ vfs.Context, dst mm.IOSeq, off int64) (done int64, err error) {
	if f.m == nil || !f.m.IncUsers() {
		return 0, nil
	}
	defer f.m.DecUsers()
	addr, n := f.span(off, dst.NumBytes())
	buf := buffer(f.pool)
	defer f.pool.Put(buf)
	for n > 0 {
		b := buf[:min(n, copyChunk)]
		got, rerr := f.m.Seq(addr, uint64(len(b))).Forced().CopyIn(b)
		out, werr := dst.CopyOut(b[:got])
		done += int64(out)
		if werr != nil {
			return done, werr
		}
		if rerr != nil || got == 0 {
			if done > 0 {
				return done, nil
			}
			return 0, unix.EIO
		}
		addr, n, dst = addr+uint64(got), n-uint64(got), dst.DropFirst(int64(got))
	}
	return done, nil
}

// memWriter is /proc/PID/mem.
type memWriter struct{ memFile }

// Write implements vfs.Writer.
func (f *memWriter) Write(_ vfs.Context, src mm.IOSeq, off int64) (done int64, err error) {
	if f.m == nil || !f.m.IncUsers() {
		return 0, nil
	}
	defer f.m.DecUsers()
	buf := buffer(f.pool)
	defer f.pool.Put(buf)
	for addr := uint64(off); src.NumBytes() > 0; {
		b := buf[:min(src.NumBytes(), copyChunk)]
		got, rerr := src.CopyIn(b)
		out, werr := f.m.Seq(addr, uint64(got)).Forced().CopyOut(b[:got])
		done += int64(out)
		switch {
		case done > 0 && (werr != nil || rerr != nil):
			return done, nil
		case rerr != nil:
			return 0, rerr
		case werr != nil || out == 0:
			return done, unix.EIO
		}
		addr, src = addr+uint64(out), src.DropFirst(int64(out))
	}
	return done, nil
}

// Seek implements vfs.Seeker: there is no end.
func (f *memWriter) Seek(_ vfs.Context, off int64, whence int32, old int64) (int64, error) {
	switch whence {
	case unix.SEEK_SET:
	case unix.SEEK_CUR:
		if off > 0 && old > math.MaxInt64-off {
			return 0, unix.EOVERFLOW
		}
		off += old
	default:
		return 0, unix.EINVAL
	}
	if off < 0 {
		return 0, unix.EINVAL
	}
	return off, nil
}

func openMem(e *env, _ uint32) (vfs.FileImpl, error) {
	m, err := e.memory()
	if err != nil {
		return nil, err
	}
	return &memWriter{memFile{m: m, pool: &e.fs.shared.buffers}}, nil
}

func openEnviron(e *env, _ uint32) (vfs.FileImpl, error) {
	m, err := e.memory()
	if err != nil {
		return nil, err
	}
	return &memFile{m: m, pool: &e.fs.shared.buffers, window: func(m *mm.MemoryManager) (uint64, uint64) {
		i := m.ProcInfo()
		return i.EnvStart, i.EnvEnd
	}}, nil
}

// auxvFile shows the auxiliary vector.
type auxvFile struct{ m *mm.MemoryManager }

// Release implements vfs.FileImpl.
func (auxvFile) Release() {}

// Read implements vfs.Reader.
func (f auxvFile) Read(_ vfs.Context, dst mm.IOSeq, off int64) (int64, error) {
	if f.m == nil {
		return 0, nil
	}
	a := f.m.ProcInfo().Auxv
	if off >= int64(len(a)) {
		return 0, nil
	}
	n, err := dst.CopyOut(a[off:])
	return int64(n), err
}

func openAuxv(e *env, _ uint32) (vfs.FileImpl, error) {
	m, err := e.memory()
	if err != nil {
		return nil, err
	}
	return auxvFile{m}, nil
}

// cmdlineFile is /proc/PID/cmdline, which everybody may read, as long as the process has not changed its address space.
type cmdlineFile struct{ taskRef }

// Release implements vfs.FileImpl.
func (*cmdlineFile) Release() {}

// Read implements vfs.Reader.
func (f *cmdlineFile) Read(ctx vfs.Context, dst mm.IOSeq, off int64) (int64, error) {
	e, err := f.env(ctx)
	if err != nil {
		return 0, err
	}
	w := memFile{m: e.t.MM(), pool: &e.fs.shared.buffers, window: argWindow}
	n, err := w.Read(ctx, dst, off)
	if err == unix.EIO {
		err = nil
	}
	return n, err
}

// argWindow is where the arguments are. A process that wrote over their end, as setproctitle(3) does, shows a string instead, which
// may go on into the environment.
func argWindow(m *mm.MemoryManager) (start, end uint64) {
	i := m.ProcInfo()
	if i.ArgEnd <= i.ArgStart {
		return 0, 0
	}
	var b [1]byte
	if n, _ := m.Seq(i.ArgEnd-1, 1).Forced().CopyIn(b[:]); n == 0 || b[0] == 0 || i.EnvStart != i.ArgEnd {
		return i.ArgStart, i.ArgEnd
	}
	title := make([]byte, min(i.EnvEnd-i.ArgStart, 4096))
	n, _ := m.Seq(i.ArgStart, uint64(len(title))).Forced().CopyIn(title)
	if z := bytes.IndexByte(title[:n], 0); z >= 0 {
		n = z + 1
	}
	return i.ArgStart, i.ArgStart + uint64(n)
}

// CommandLine is the start of a process's command line, NUL bytes and all, of at most max bytes.
func CommandLine(m *mm.MemoryManager, max int) []byte {
	start, end := argWindow(m)
	b := make([]byte, min(end-start, uint64(max)))
	n, _ := m.Seq(start, uint64(len(b))).Forced().CopyIn(b)
	return b[:n]
}

func openCmdline(e *env, _ uint32) (vfs.FileImpl, error) { return &cmdlineFile{e.taskRef}, nil }
