package vfs

import (
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

// copyChunk is how much the copies between files move at once.
const copyChunk = 64 << 10

// buffer takes a copy buffer from the pool.
func (v *VFS) buffer() *[copyChunk]byte {
	if b, ok := v.buffers.Get().(*[copyChunk]byte); ok {
		return b
	}
	return new([copyChunk]byte)
}

// CopyEnd is one side of a copy: a file, and an offset that is used instead of the file's own if not nil, and is moved.
type CopyEnd struct {
	FD  *FileDescription
	Off *int64
}

func (e CopyEnd) read(ctx Context, b []byte) (int64, error) {
	if e.Off == nil {
		return e.FD.Read(ctx, mm.BytesSeq(b))
	}
	n, err := e.FD.PRead(ctx, mm.BytesSeq(b), *e.Off)
	*e.Off += n
	return n, err
}

func (e CopyEnd) write(ctx Context, b []byte, nonblock bool) (int64, error) {
	if e.Off == nil {
		if nonblock {
			return e.FD.WriteNonblock(ctx, mm.BytesSeq(b))
		}
		return e.FD.Write(ctx, mm.BytesSeq(b))
	}
	n, err := e.FD.PWrite(ctx, mm.BytesSeq(b), *e.Off)
	*e.Off += n
	return n, err
}

// back takes n bytes that were read but not written back: files with an offset only.
func (e CopyEnd) back(n int64) {
	if e.Off != nil {
		*e.Off -= n
		return
	}
	e.FD.offMu.Lock()
	e.FD.off -= n
	e.FD.offMu.Unlock()
}

// CopyFile moves up to count bytes from a file with offsets to any file: sendfile(2), copy_file_range(2), and splice(2) into a pipe. It stops at
// the end of the source, and where the destination takes no more.
func (v *VFS) CopyFile(ctx Context, out, in CopyEnd, count int64, nonblock bool) (done int64, err error) {
	b := v.buffer()
	defer v.buffers.Put(b)
	for done < count {
		var n, m int64
		if n, err = in.read(ctx, b[:min(count-done, copyChunk)]); n <= 0 {
			break
		}
		m, err = out.write(ctx, b[:n], nonblock)
		if m < 0 {
			m = 0
		}
		done += m
		if m < n {
			in.back(n - m)
			break
		}
		if in.FD.sreader != nil { // a stream gives what it has
			break
		}
	}
	if done > 0 {
		return done, nil
	}
	return 0, err
}

// waitPipe waits until a pipe can be read or written.
func waitPipe(ctx Context, fd *FileDescription, mask waiter.EventMask, nonblock bool) error {
	if fd.Readiness(mask|waiter.EventErr|waiter.EventHUp) != 0 {
		return nil
	}
	if nonblock || fd.Nonblocking() {
		return unix.EAGAIN
	}
	return fd.WaitFor(ctx, mask, NoDeadline)
}

// Splice is splice(2): one end is a pipe. flags has SPLICE_F_NONBLOCK.
func (v *VFS) Splice(ctx Context, out, in CopyEnd, count int64, nonblock bool) (int64, error) {
	ip, fromPipe := in.FD.impl.(Pipe)
	op, toPipe := out.FD.impl.(Pipe)
	switch {
	case fromPipe:
		if toPipe && ip == op {
			return 0, unix.EINVAL
		}
		return v.spliceFrom(ctx, out, in.FD, ip, count, nonblock, true)
	case toPipe:
		if in.FD.sreader == nil {
			return v.spliceFile(ctx, out.FD, op, in, count, nonblock)
		}
		return v.spliceStream(ctx, out.FD, op, in.FD, count, nonblock)
	}
	return 0, unix.EINVAL
}

// spliceFrom moves or copies bytes from a pipe.
func (v *VFS) spliceFrom(ctx Context, out CopyEnd, in *FileDescription, p Pipe, count int64, nonblock, consume bool) (done int64, err error) {
	if !in.Readable() || !out.FD.Writable() {
		return 0, unix.EBADF
	}
	b := v.buffer()
	defer v.buffers.Put(b)
	for done < count {
		n, err := p.Peek(b[:min(count-done, copyChunk)])
		if err == unix.EAGAIN && done == 0 {
			if err = waitPipe(ctx, in, waiter.ReadableEvents, nonblock); err == nil {
				continue
			}
		}
		if n == 0 || err != nil {
			if done > 0 {
				err = nil
			}
			return done, err
		}
		m, err := out.write(ctx, b[:n], nonblock || done > 0)
		if m <= 0 {
			if done > 0 {
				err = nil
			}
			return done, err
		}
		done += m
		if !consume {
			return done, nil
		}
		if _, err := in.sreader.ReadStream(ctx, mm.BytesSeq(b[:m])); err != nil {
			return done, nil
		}
	}
	return done, nil
}

// room waits until the pipe has room, and says how much.
func room(ctx Context, fd *FileDescription, p Pipe, nonblock bool) (int64, error) {
	if !fd.Writable() {
		return 0, unix.EBADF
	}
	if err := waitPipe(ctx, fd, waiter.WritableEvents, nonblock); err != nil {
		return 0, err
	}
	return max(p.PipeSize()-p.PipeReadable(), 1), nil
}

func (v *VFS) spliceFile(ctx Context, out *FileDescription, p Pipe, in CopyEnd, count int64, nonblock bool) (done int64, err error) {
	for done < count {
		var n, m int64
		if n, err = room(ctx, out, p, nonblock || done > 0); err != nil {
			break
		}
		if m, err = v.CopyFile(ctx, CopyEnd{FD: out}, in, min(n, count-done), nonblock || done > 0); m <= 0 {
			break
		}
		done += m
	}
	if done > 0 {
		return done, nil
	}
	return 0, err
}

func (v *VFS) spliceStream(ctx Context, out *FileDescription, p Pipe, in *FileDescription, count int64, nonblock bool) (int64, error) {
	n, err := room(ctx, out, p, nonblock)
	if err != nil {
		return 0, err
	}
	b := v.buffer()
	defer v.buffers.Put(b)
	if n, err = in.Read(ctx, mm.BytesSeq(b[:min(n, count, copyChunk)])); n <= 0 {
		return 0, err
	}
	return out.Write(ctx, mm.BytesSeq(b[:n]))
}

// Tee is tee(2).
func (v *VFS) Tee(ctx Context, out, in *FileDescription, count int64, nonblock bool) (int64, error) {
	ip, ok1 := in.impl.(Pipe)
	op, ok2 := out.impl.(Pipe)
	if !ok1 || !ok2 || ip == op {
		return 0, unix.EINVAL
	}
	n, err := room(ctx, out, op, nonblock)
	if err != nil {
		return 0, err
	}
	return v.spliceFrom(ctx, CopyEnd{FD: out}, in, ip, min(count, n), nonblock, false)
}
