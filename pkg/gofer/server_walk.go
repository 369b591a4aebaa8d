package gofer

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// lookups reads a request for names below dir: what to send of each, of what is allowed, and the names, which end it. All is checked before
// anything is done.
func (w *worker) lookups(dir *object, r *reader, allowed With) (want With, names reader, n int, err error) {
	want = With(r.u8())
	n = int(r.u8())
	if n == 0 || n > walkMax {
		return 0, names, 0, unix.EINVAL
	}
	names = *r
	for range n {
		if name := r.cstr(); !r.bad {
			if err = name.component(); err != nil {
				return 0, names, 0, err
			}
		}
	}
	if err = ended(r); err != nil {
		return 0, names, 0, err
	}
	if want&^allowed != 0 {
		return 0, names, 0, unix.EINVAL
	}
	if dir.typ != unix.S_IFDIR {
		return 0, names, 0, unix.ENOTDIR
	}
	return want, names, n, nil
}

// doWalk resolves components one after the other and answers: how many it found, why it ended, and
// handle, attributes and link target of each found one. It ends without error at what is no
// directory: the client knows what to do with links and the like.
func (w *worker) doWalk(dir *object, r *reader) error {
	want, names, n, err := w.lookups(dir, r, WithoutHandle)
	if err != nil {
		return err
	}
	head := len(w.out.b)
	w.out.u32(0)
	found := 0
	cur := dir
	for range n {
		var next *object
		next, err = w.walkOne(cur, names.cstr(), want)
		if cur != dir {
			cur.put()
		}
		if cur = next; err != nil {
			break
		}
		if found++; cur.typ != unix.S_IFDIR {
			break
		}
	}
	if cur != nil && cur != dir {
		cur.put()
	}
	return w.found(head, found, err)
}

// found completes a reply about several names at its head: how many there are and why there are no more. Where there are none
// that is the error.
func (w *worker) found(head, n int, err error) error {
	if n == 0 {
		return err
	}
	var why unix.Errno
	if err != nil {
		why = errno(err)
	}
	binary.LittleEndian.PutUint16(w.out.b[head:], uint16(n))
	binary.LittleEndian.PutUint16(w.out.b[head+2:], uint16(why))
	return nil
}

// doSiblings looks up names that are all in the directory and answers as doWalk does. Each is followed by what else the client asked
// for and there is: a descriptor of a regular file, the entries of a small directory.
func (w *worker) doSiblings(dir *object, r *reader) error {
	want, names, n, err := w.lookups(dir, r, withAll)
	if err != nil {
		return err
	}
	head := len(w.out.b)
	w.out.u32(0)
	found := 0
	for ; found < n; found++ {
		var o *object
		if o, err = w.walkOne(dir, names.cstr(), want); err != nil {
			break
		}
		w.more(o, want, (n-found-1)*listRoom)
		o.put()
	}
	return w.found(head, found, err)
}

// more writes what comes with a sibling, and leaves room for others to follow.
func (w *worker) more(o *object, want With, room int) {
	at := len(w.out.b)
	w.out.u8(0)
	switch {
	case o.typ == unix.S_IFREG && want&WithFD != 0 && w.fds.n < min(siblingFDs, w.donate):
		if fd, err := w.reopen(o.fd, unix.O_RDONLY); err == nil {
			w.fds.add(fd)
			w.out.b[at] = withFD
		}
	case o.typ == unix.S_IFDIR && want&WithList != 0:
		names, n := w.list(o, room)
		if n < 0 {
			break
		}
		w.out.b[at] = withList
		if n > 0 && n <= treeMax && want&WithTree != 0 {
			w.out.b[at] |= withTree
			w.tree(o, names, want, room)
		}
	}
}

// tree writes the look-ups of the names in a directory's entries, as far as there is room.
func (w *worker) tree(dir *object, ents []byte, want With, room int) {
	at := len(w.out.b)
	w.out.u8(0)
	for ; len(ents) > 0 && w.out.room() > 2*entryMax+room; ents = ents[direntLen(ents):] {
		name := direntName(ents)
		if name.component() != nil { // "." and ".."
			continue
		}
		o, err := w.walkOne(dir, name, want)
		if err != nil {
			return
		}
		w.more(o, want&^(WithList|WithTree), 0)
		o.put()
		w.out.b[at]++
	}
}

func errno(err error) unix.Errno {
	if e, ok := err.(unix.Errno); ok {
		return e
	}
	return unix.EIO
}

// entryMax is what an entry takes in a reply at most, in bytes.
const entryMax = 8 + attrSize + 2 + symlinkMax + 1 + 64

// walkOne resolves one component, writes its entry and returns its object with a reference, so that
// a client that guesses the handle cannot close it under the walk. An object without a handle is good until the next one.
func (w *worker) walkOne(dir *object, name cstr, want With) (*object, error) {
	if w.out.room() < entryMax {
		return nil, unix.EMSGSIZE
	}
	bare := want&WithoutHandle != 0
	if bare && want&WithFD == 0 {
		// Attributes are all that is wanted, which need no descriptor.
		if err := statAt(dir.fd, name, &w.st); err != nil {
			return nil, err
		}
		if w.st.Mode&unix.S_IFMT != unix.S_IFDIR {
			w.entry(0, dir.fd, name)
			return w.loose(-1, dir.at), nil
		}
	}
	fd, err := openBeneath(dir.fd, name, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	if err := statFD(fd, &w.st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if bare && w.st.Mode&unix.S_IFMT != unix.S_IFDIR {
		w.entry(0, fd, cstr(emptyName[:]))
		return w.loose(fd, dir.at), nil
	}
	h, err := w.enter(fd, dir.at)
	if err != nil {
		return nil, err
	}
	o, err := w.table.get(h)
	if err != nil {
		return nil, err
	}
	w.entry(h, fd, cstr(emptyName[:]))
	return o, nil
}

// loose makes fd, whose attributes are in w.st, an object that is in no table, with one reference. It is good until the next one is made.
func (w *worker) loose(fd int, at *AttachPoint) *object {
	o := &w.bare
	o.fd, o.at, o.typ, o.dev = fd, at, uint32(w.st.Mode)&unix.S_IFMT, rdev(&w.st)
	o.refs.Store(1)
	return o
}

// entry writes an entry with the attributes in w.st; the file is called name in dir, or is dir itself.
func (w *worker) entry(h Handle, dir int, name cstr) {
	var a Attr
	a.fill(&w.st)
	w.out.u64(uint64(h))
	w.out.attr(&a)
	if a.Type() == unix.S_IFLNK {
		w.target(dir, name)
	} else {
		w.out.str("")
	}
}

// target writes the target of the link called name in dir, or dir itself; empty where it cannot be read.
func (w *worker) target(dir int, name cstr) {
	var buf [symlinkMax + 1]byte
	n, err := unix.Readlinkat(dir, name.String(), buf[:])
	if err != nil {
		n = 0
	}
	w.out.str(string(buf[:n]))
}

// at returns the object in a place, with a reference; name is empty where it is the handle's. dir is the handle's object. One that is found by name is good
// until the next one is.
func (w *worker) at(dir *object, name cstr) (*object, error) {
	if len(name) == 1 {
		dir.refs.Add(1)
		return dir, nil
	}
	if err := name.component(); err != nil {
		return nil, err
	}
	if dir.typ != unix.S_IFDIR {
		return nil, unix.ENOTDIR
	}
	fd, err := openBeneath(dir.fd, name, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	if err := statFD(fd, &w.st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return w.loose(fd, dir.at), nil
}
