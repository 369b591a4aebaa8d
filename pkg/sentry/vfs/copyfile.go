package vfs

import (
	"math"

	"husk/pkg/sentry/mm"
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

// Spans tells whether count bytes may be moved at e: for pipes always, for others if neither count nor the offset behind is beyond all bounds.
func (e CopyEnd) Spans(count int64) bool {
	if _, pipe := e.FD.impl.(Pipe); pipe {
		return true
	}
	off := int64(0)
	if e.Off != nil {
		off = *e.Off
	}
	return count >= 0 && off <= math.MaxInt64-count
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

// from is e with the offset in pos, which begins as the file's own, where e has none: what was read but not written can be taken back from it
// whoever moves the file's meanwhile. As on Linux, the file's becomes what pos is in the end (to).
func (e CopyEnd) from(pos *int64) CopyEnd {
	if e.Off == nil && e.FD.reader != nil && e.FD.sreader == nil {
		*pos = e.FD.Offset()
		e.Off = pos
	}
	return e
}

// to ends the use of from's result after done bytes.
func (e CopyEnd) to(pos *int64, done int64) {
	if e.Off == pos && done > 0 {
		e.FD.offMu.Lock()
		e.FD.off = *pos
		e.FD.offMu.Unlock()
	}
}

// CopyFile moves up to count bytes from a file with offsets to any file: sendfile(2) and copy_file_range(2). It stops at the end of the
// source, and where the destination takes no more.
func (v *VFS) CopyFile(ctx Context, out, in CopyEnd, count int64, nonblock bool) (done int64, err error) {
	b := v.buffer()
	defer v.buffers.Put(b)
	var pos int64
	in = in.from(&pos)
	for done < count {
		if done >= mm.LongCopy && Killed(ctx) { // a copy of gigabytes may take minutes
			break
		}
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
			if in.Off != nil {
				*in.Off -= n - m
			}
			break
		}
	}
	in.to(&pos, done)
	if done > 0 {
		return done, nil
	}
	return 0, err
}
