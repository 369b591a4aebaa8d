package pseudo

import (
	"sync"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// Seq makes the content of a file piece by piece, so that neither a long file nor a small buffer of the reader costs memory.
type Seq interface {
	// Next appends the records from pos on to buf, as many as it likes, and gives the position behind them. Nothing appended is the end.
	// The first position is 0.
	Next(ctx vfs.Context, pos uint64, buf []byte) (out []byte, next uint64, err error)
}

// SeqFile is an open file with content from a Seq. Reads that go on where the last one ended are cheap; one at a lower offset starts anew.
type SeqFile struct {
	seq Seq

	mu    sync.Mutex
	buf   []byte // protected by mu: content from start on
	start int64  // protected by mu
	pos   uint64 // protected by mu: of the record behind buf
	end   bool   // protected by mu
}

// NewSeqFile makes one for s.
func NewSeqFile(s Seq) *SeqFile { return &SeqFile{seq: s} }

// Release implements vfs.FileImpl.
func (*SeqFile) Release() {}

// Read implements vfs.Reader.
func (o *SeqFile) Read(ctx vfs.Context, dst mm.IOSeq, off int64) (done int64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if off < o.start || off == 0 {
		o.buf, o.start, o.pos, o.end = o.buf[:0], 0, 0, false
	}
	for dst.NumBytes() > 0 {
		if n := int64(len(o.buf)); off-o.start >= n {
			if o.end || ctxStops(ctx) {
				return done, nil
			}
			o.start += n
			o.buf, o.pos, err = o.seq.Next(ctx, o.pos, o.buf[:0])
			if err != nil {
				if done > 0 {
					err = nil
				}
				return done, err
			}
			o.end = len(o.buf) == 0
			continue
		}
		n, err := dst.CopyOut(o.buf[off-o.start:])
		done, off = done+int64(n), off+int64(n)
		if err != nil {
			return done, err
		}
		dst = dst.DropFirst(int64(n))
	}
	return done, nil
}

// ctxStops tells whether the caller is being killed: a long file is then cut short.
func ctxStops(ctx vfs.Context) bool {
	k, ok := ctx.(interface{ Killed() bool })
	return ok && k.Killed()
}
