package vfs

import (
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

// awaitPipe waits until a pipe can be read or written.
func awaitPipe(ctx Context, fd *FileDescription, mask waiter.EventMask, nonblock bool) error {
	if fd.Readiness(mask|waiter.EventErr|waiter.EventHUp) != 0 {
		return nil
	}
	if nonblock {
		return unix.EAGAIN
	}
	return fd.WaitFor(ctx, mask, NoDeadline)
}

// Splice is splice(2): one end is a pipe. nonblock is SPLICE_F_NONBLOCK, and is about the pipe only: another file blocks, or does not, by
// its O_NONBLOCK.
func (v *VFS) Splice(ctx Context, out, in CopyEnd, count int64, nonblock bool) (int64, error) {
	if !in.FD.Readable() || !out.FD.Writable() {
		return 0, unix.EBADF
	}
	ip, fromPipe := in.FD.impl.(Pipe)
	op, toPipe := out.FD.impl.(Pipe)
	switch {
	case fromPipe && toPipe:
		return pipeToPipe(ctx, out.FD, in.FD, count, nonblock, false)
	case fromPipe:
		return v.spliceFrom(ctx, out, in.FD, ip, count, nonblock || in.FD.Nonblocking())
	case toPipe && !in.FD.Inode().IsDir():
		return v.spliceTo(ctx, out.FD, op, in, count, nonblock || out.FD.Nonblocking())
	}
	return 0, unix.EINVAL
}

// Tee is tee(2).
func (v *VFS) Tee(ctx Context, out, in *FileDescription, count int64, nonblock bool) (int64, error) {
	if in.IsPathOnly() || out.IsPathOnly() {
		return 0, unix.EBADF
	}
	return pipeToPipe(ctx, out, in, count, nonblock, true)
}

// pipeToPipe moves or copies what fits: it waits until that is not nothing.
func pipeToPipe(ctx Context, out, in *FileDescription, count int64, nonblock, keep bool) (int64, error) {
	ip, ok1 := in.impl.(Pipe)
	op, ok2 := out.impl.(Pipe)
	if !ok1 || !ok2 {
		return 0, unix.EINVAL
	}
	if !in.Readable() || !out.Writable() {
		return 0, unix.EBADF
	}
	nonblock = nonblock || in.Nonblocking() || out.Nonblocking()
	for {
		n, err := ip.Move(ctx, op, count, keep)
		if err != unix.EAGAIN {
			return n, err
		}
		if err = awaitPipe(ctx, in, waiter.ReadableEvents, nonblock); err == nil {
			err = awaitPipe(ctx, out, waiter.WritableEvents, nonblock)
		}
		if err != nil {
			return 0, err
		}
	}
}

// spliceFrom moves bytes from a pipe until it is empty. The pipe keeps them while they are written, so that nothing is lost, or read
// by two; the pipe is not held while out has no room.
func (v *VFS) spliceFrom(ctx Context, out CopyEnd, in *FileDescription, p Pipe, count int64, nonblock bool) (done int64, err error) {
	b := v.buffer()
	defer v.buffers.Put(b)
	w := ctx.Waker()
	var e *waiter.Entry // registered with out since that had no room
	var deadline int64
	for done < count {
		var n int
		n, err = p.Claim(b[:min(count-done, copyChunk)])
		if err == unix.EAGAIN && done == 0 {
			if err = awaitPipe(ctx, in, waiter.ReadableEvents, nonblock); err == nil {
				continue
			}
		}
		if n == 0 || err != nil {
			break
		}
		var m int64
		m, err = out.write(ctx, b[:n], true)
		m = max(m, 0)
		p.Settle(ctx, int(m))
		done += m
		if err == nil && m > 0 {
			continue
		}
		if err != unix.EAGAIN || out.FD.Nonblocking() || out.FD.waitable == nil {
			break
		}
		if e == nil {
			e = v.entry(w, waiter.WritableEvents)
			out.FD.waitable.EventRegister(e)
			deadline = out.FD.deadline(true)
			continue // there may have been room before that
		}
		if err = BlockError(ctx.Block(w.C, deadline), deadline); err != nil {
			break
		}
	}
	if e != nil {
		out.FD.waitable.EventUnregister(e)
		v.entries.Put(e)
	}
	if done > 0 {
		return done, nil
	}
	return 0, err
}

// spliceTo moves bytes to a pipe as far as it has room: of a file until its end, of a stream what it gives at once.
func (v *VFS) spliceTo(ctx Context, out *FileDescription, p Pipe, in CopyEnd, count int64, nonblock bool) (done int64, err error) {
	if err := awaitPipe(ctx, out, waiter.WritableEvents, nonblock); err != nil {
		return 0, err
	}
	if _, err := p.Put(ctx, mm.BytesSeq(nil), true); err != nil { // without readers nothing is taken from in
		return 0, err
	}
	// What others write meanwhile does not matter: what was read has to go somewhere.
	count = min(count, max(p.PipeSize()-p.PipeReadable(), 1))
	b := v.buffer()
	defer v.buffers.Put(b)
	var pos int64
	in = in.from(&pos)
	for done < count {
		var n int64
		s := mm.BytesSeq(b[:min(count-done, copyChunk)])
		switch {
		case in.FD.sreader != nil && nonblock:
			n, err = in.FD.ReadNonblock(ctx, s)
		default:
			n, err = in.read(ctx, b[:s.NumBytes()])
		}
		if n <= 0 {
			break
		}
		if _, err = p.Put(ctx, mm.BytesSeq(b[:n]), true); err != nil {
			if in.Off != nil {
				*in.Off -= n
			}
			break
		}
		done += n
		if in.FD.sreader != nil {
			break
		}
	}
	in.to(&pos, done)
	if done > 0 {
		return done, nil
	}
	return 0, err
}

// Vmsplice is vmsplice(2): it writes as much as the pipe has room for, or reads what is there. O_NONBLOCK of the pipe does not matter.
func (v *VFS) Vmsplice(ctx Context, fd *FileDescription, seq mm.IOSeq, nonblock bool) (int64, error) {
	p, ok := fd.impl.(Pipe)
	if !ok {
		return 0, unix.EBADF
	}
	mask := waiter.ReadableEvents
	if fd.Writable() {
		mask = waiter.WritableEvents
	}
	for {
		var n int64
		var err error
		if fd.Writable() {
			n, err = p.Put(ctx, seq, false)
		} else {
			n, err = fd.readOn(ctx, seq)
		}
		if err != unix.EAGAIN {
			return n, err
		}
		if err = awaitPipe(ctx, fd, mask, nonblock); err != nil {
			return 0, err
		}
	}
}

// readOn reads what is there, beyond the end of a packet, too.
func (fd *FileDescription) readOn(ctx Context, seq mm.IOSeq) (done int64, err error) {
	for done < seq.NumBytes() {
		var n int64
		if n, err = fd.ReadNonblock(ctx, seq.DropFirst(done)); n <= 0 {
			break
		}
		done += n
	}
	if done > 0 {
		return done, nil
	}
	return 0, err
}
