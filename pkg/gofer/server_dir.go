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

// doReadDir answers a batch of entries: the handle of the stream to go on with, 0 at the end, their
// number, and the entries. Called on a directory it starts anew; a directory that fits into one
// message takes no stream and no second request.
func (w *worker) doReadDir(h Handle, o *object, r *reader) error {
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
	n, end, err := w.readDir(o)
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
func (w *worker) readDir(o *object) (n uint32, end bool, err error) {
	s := o.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.pos >= len(s.buf) {
			if cap(s.buf) == 0 {
				s.buf = make([]byte, direntSize)
			}
			k, err := getdents(o.fd, s.buf[:cap(s.buf)])
			if err != nil {
				return n, false, err
			}
			s.buf, s.pos = s.buf[:k], 0
			if k == 0 {
				return n, true, nil
			}
		}
		size, wrote := w.dirent(s.buf[s.pos:], 0)
		if size == 0 {
			return n, false, nil
		}
		s.pos += size
		if wrote {
			n++
		}
	}
}

// dirent writes the first of the host's entries in b, unless it is "." or "..", and returns how long it is there; 0 where the message has no room for
// it that leaves more.
func (w *worker) dirent(b []byte, more int) (size int, wrote bool) {
	size = direntLen(b)
	ino, typ, name := binary.LittleEndian.Uint64(b), b[18], direntName(b)
	end := len(name) - 1
	if end == 1 && name[0] == '.' || end == 2 && name[0] == '.' && name[1] == '.' {
		return size, false
	}
	if w.out.room() < 8+1+2+len(name)+more {
		return 0, false
	}
	w.out.u64(ino)
	w.out.u8(typ)
	w.out.u16(uint16(end))
	w.out.b = append(w.out.b, name...)
	return size, true
}

// direntLen is the length of the first entry in b, a struct linux_dirent64: inode, offset, length of the record, type, name.
func direntLen(b []byte) int { return int(binary.LittleEndian.Uint16(b[16:])) }

// direntName is its name.
func direntName(b []byte) cstr {
	name := b[19:direntLen(b)]
	end := 0
	for end < len(name)-1 && name[end] != 0 {
		end++
	}
	return cstr(name[:end+1])
}

const (
	// treeMax is how many entries a directory may have to be looked up with it.
	treeMax = 8
	// listMax is how long a directory may be whose entries come with its lookup, in bytes of the host's form: some 200 entries. Most directories are
	// smaller, and 16 of them fit into a message.
	listMax = 8 << 10
	// listRoom is left for each name that is still to be looked up: few links are longer.
	listRoom = 256
)

// list writes the number of entries of the directory o and the entries, and returns them in the host's form, with their number; -1 where it did not. It
// does so for small ones, where room stays for what is to follow.
func (w *worker) list(o *object, room int) ([]byte, int) {
	fd, err := w.reopen(o.fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, -1
	}
	defer unix.Close(fd)
	if w.dir == nil {
		w.dir = make([]byte, listMax)
	}
	have := 0
	for {
		k, err := getdents(fd, w.dir[have:])
		if err != nil {
			return nil, -1
		}
		if k == 0 {
			break
		}
		if have += k; have == len(w.dir) {
			return nil, -1
		}
	}
	head := len(w.out.b)
	room += entryMax
	if w.out.room() < 4+room {
		return nil, -1
	}
	w.out.u32(0)
	n := uint32(0)
	for b := w.dir[:have]; len(b) > 0; {
		size, wrote := w.dirent(b, room)
		if size == 0 {
			w.out.b = w.out.b[:head]
			return nil, -1
		}
		b = b[size:]
		if wrote {
			n++
		}
	}
	binary.LittleEndian.PutUint32(w.out.b[head:], n)
	return w.dir[:have], int(n)
}

// getdents is getdents64(2).
func getdents(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Getdents(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}
