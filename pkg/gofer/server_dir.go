package gofer

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
)

// stream is a directory being read: its descriptor's position is the state.
type stream struct {
	mu  sync.Mutex
	buf []byte // what the host delivered; guarded by mu
	pos int    // of the next entry in buf; guarded by mu
}

// direntSize is how much of the host's entries is read at once.
const direntSize = 32 << 10

// streamGoesOn in the place of a stream's handle: go on with that of the request. No handle has this
// value, as generations start at 1.
const streamGoesOn = 1

// Request flags of opReadDir.
const readDirAttrs = 1

// doReadDir answers a batch of entries: the handle of the stream to go on with, 0 at the end, their
// number, and the entries. Called on a directory it starts anew; a directory that fits into one
// message takes no stream and no second request.
func (w *worker) doReadDir(h Handle, o *object, r *reader) error {
	flags := r.u8()
	if err := ended(r); err != nil {
		return err
	}
	if o.typ != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	own := o.stream == nil
	if own {
		fd, err := w.reopen(o.fd, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		o = &object{fd: fd, at: o.at, typ: o.typ, stream: &stream{}}
	}
	head := len(w.out.b)
	w.out.u64(0)
	w.out.u32(0)
	n, end, err := w.readDir(o, flags&readDirAttrs != 0)
	var next Handle
	if err == nil && !end && own {
		next, err = w.table.add(o)
	}
	if own && next == 0 {
		unix.Close(o.fd)
	}
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(w.out.b[head+8:], n)
	switch {
	case end && !own:
		w.table.remove(h)
	case end:
	case own:
		binary.LittleEndian.PutUint64(w.out.b[head:], uint64(next))
	default:
		binary.LittleEndian.PutUint64(w.out.b[head:], streamGoesOn)
	}
	return nil
}

// readDir writes entries until the message is full or the directory at its end.
func (w *worker) readDir(o *object, attrs bool) (n uint32, end bool, err error) {
	s := o.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.pos >= len(s.buf) {
			if cap(s.buf) == 0 {
				s.buf = make([]byte, direntSize)
			}
			k, err := unix.Getdents(o.fd, s.buf[:cap(s.buf)])
			if err != nil {
				return n, false, err
			}
			s.buf, s.pos = s.buf[:k], 0
			if k == 0 {
				return n, true, nil
			}
		}
		// struct linux_dirent64: ino, offset, record length, type, name
		rec := s.buf[s.pos:]
		size := int(binary.LittleEndian.Uint16(rec[16:]))
		ino, typ, name := binary.LittleEndian.Uint64(rec), rec[18], rec[19:size]
		end := 0
		for end < len(name) && name[end] != 0 {
			end++
		}
		name = name[:end+1]
		if end == 1 && name[0] == '.' || end == 2 && name[0] == '.' && name[1] == '.' {
			s.pos += size
			continue
		}
		if w.out.room() < 8+1+1+2+len(name)+attrSize {
			return n, false, nil
		}
		s.pos += size
		w.out.u64(ino)
		w.out.u8(typ)
		w.out.u16(uint16(end))
		w.out.b = append(w.out.b, name...)
		if attrs {
			var a Attr
			if statName(o.fd, name, &w.st) == nil {
				a.fill(&w.st)
			}
			w.out.attr(&a)
		}
		n++
	}
}
