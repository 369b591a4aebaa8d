package gofer

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Attach returns the handle and attributes of the attach point with the given index.
func (c *Client) Attach(index int) (h Handle, a Attr, err error) {
	k := c.begin(opAttach)
	k.out.u32(uint32(index))
	r, err := c.do(k)
	h = Handle(r.u64())
	r.attr(&a)
	return h, a, c.end(k, &r, err)
}

// Walk resolves names one below the other starting at the directory dir and appends an entry for
// each that it finds to out. It stops without an error at an entry that is no directory: a symbolic
// link comes with its target. With an error the entries found before it are valid, and ENOENT or
// whatever it is belongs to the next name. The caller closes the handles. Names are single
// components, 128 at most. with is WithoutHandle or nothing.
func (c *Client) Walk(dir Handle, names []string, with With, out []Entry) ([]Entry, error) {
	k := c.beginOn(opWalk, dir)
	k.out.u8(uint8(with))
	if err := k.names(names); err != nil {
		return out, c.end(k, nil, err)
	}
	r, err := c.do(k)
	if err != nil {
		return out, c.end(k, nil, err)
	}
	n, why := int(r.u16()), r.u16()
	for range min(n, len(names)) {
		out = append(out, Entry{})
		r.entry(&out[len(out)-1])
	}
	if err = c.end(k, &r, nil); err == nil && why != 0 {
		err = unix.Errno(why)
	}
	return out, err
}

// names writes the names that end a request.
func (k *call) names(names []string) error {
	if len(names) == 0 || len(names) > walkMax {
		return unix.EINVAL
	}
	k.out.u8(uint8(len(names)))
	for _, name := range names {
		if len(name) > nameMax {
			return unix.ENAMETOOLONG
		}
		k.out.str(name)
	}
	return nil
}

func (r *reader) entry(e *Entry) {
	e.Handle = Handle(r.u64())
	r.attr(&e.Attr)
	e.Target = r.cstr().String()
}

// Stat reads the attributes of h into a.
func (c *Client) Stat(h Handle, a *Attr) error {
	k := c.beginOn(opStat, h)
	r, err := c.do(k)
	if err == nil {
		r.attr(a)
	}
	return c.end(k, &r, err)
}

// SetAttr changes what set.Mask selects and stores the attributes that result in a. The caller has
// checked the permission.
func (c *Client) SetAttr(h Handle, set *SetAttr, a *Attr) error {
	k := c.beginOn(opSetAttr, h)
	w := &k.out
	w.u32(uint32(set.Mask))
	w.u32(set.Mode)
	w.u32(set.UID)
	w.u32(set.GID)
	w.u64(set.Size)
	w.time(set.Atime)
	w.time(set.Mtime)
	r, err := c.do(k)
	if err == nil {
		r.attr(a)
	}
	return c.end(k, &r, err)
}

// Open returns a host descriptor of h, opened with flags out of OpenFlags. Directories (EISDIR) and
// links (ELOOP) have none, nor has what policy refuses (EPERM). FIFOs and devices are opened with O_NONBLOCK.
func (c *Client) Open(h Handle, flags uint32) (fd int, err error) {
	return c.OpenMany(Place{Handle: h}, flags, nil, nil)
}

// OpenMany is Open for any place, and opens the regular files more for reading as well, if flags asks for no more than that: fds gets their descriptors, -1 where
// one cannot be opened. There are fewer of them than MaxDonated, and fds is as long at least.
func (c *Client) OpenMany(p Place, flags uint32, more []Place, fds []int) (fd int, err error) {
	k := c.beginOn(opOpen, p.Handle)
	k.out.u32(flags)
	k.out.str(p.Name)
	k.out.u8(uint8(len(more)))
	for _, m := range more {
		k.out.u64(uint64(m.Handle))
		k.out.str(m.Name)
	}
	r, err := c.do(k)
	if err == nil && k.fds.n == 0 {
		err = unix.EPROTO
	}
	fd = -1
	if err == nil {
		fd = k.takeFD()
		donated := 1
		for n := range more {
			fds[n] = -1
			if r.u8() != 0 {
				fds[n] = k.fds.take(donated)
				donated++
			}
		}
	}
	return fd, c.end(k, &r, err)
}

// entry decodes a handle and attributes.
func (c *Client) entry(k *call) (h Handle, a Attr, err error) {
	r, err := c.do(k)
	if err == nil {
		h = Handle(r.u64())
		r.attr(&a)
	}
	return h, a, c.end(k, &r, err)
}

func (w *writer) owner(mode, uid, gid uint32) {
	w.u32(mode)
	w.u32(uid)
	w.u32(gid)
}

// badName reports names that do not fit a message; the server checks the rest.
func badName(name string, max int) bool { return len(name) > max }

// Create makes a regular file, which must not exist (EEXIST), with exactly this mode and owner, and
// opens it with flags out of OpenFlags. An empty name makes a file without a name, as O_TMPFILE does.
func (c *Client) Create(dir Handle, name string, flags, mode, uid, gid uint32) (h Handle, a Attr, fd int, err error) {
	if badName(name, nameMax) {
		return 0, a, -1, unix.ENAMETOOLONG
	}
	k := c.beginOn(opCreate, dir)
	k.out.str(name)
	k.out.u32(flags)
	k.out.owner(mode, uid, gid)
	r, err := c.do(k)
	fd = -1
	if err == nil {
		h = Handle(r.u64())
		r.attr(&a)
		if fd = k.takeFD(); fd < 0 {
			err = unix.EPROTO
		}
	}
	return h, a, fd, c.end(k, &r, err)
}

// Mkdir makes a directory with exactly this mode and owner.
func (c *Client) Mkdir(dir Handle, name string, mode, uid, gid uint32) (Handle, Attr, error) {
	if badName(name, nameMax) {
		return 0, Attr{}, unix.ENAMETOOLONG
	}
	k := c.beginOn(opMkdir, dir)
	k.out.str(name)
	k.out.owner(mode, uid, gid)
	return c.entry(k)
}

// Symlink makes a symbolic link.
func (c *Client) Symlink(dir Handle, name, target string, uid, gid uint32) (Handle, Attr, error) {
	if badName(name, nameMax) || badName(target, symlinkMax) {
		return 0, Attr{}, unix.ENAMETOOLONG
	}
	k := c.beginOn(opSymlink, dir)
	k.out.str(name)
	k.out.str(target)
	k.out.owner(0, uid, gid)
	return c.entry(k)
}

// Mknod makes a regular file, FIFO, socket or whiteout (S_IFCHR with rdev 0); typ is the S_IFMT part.
// Other device nodes are EPERM. rdev is major<<32 | minor.
func (c *Client) Mknod(dir Handle, name string, typ, mode, uid, gid uint32, rdev uint64) (Handle, Attr, error) {
	if badName(name, nameMax) {
		return 0, Attr{}, unix.ENAMETOOLONG
	}
	k := c.beginOn(opMknod, dir)
	k.out.str(name)
	k.out.u32(typ)
	k.out.owner(mode, uid, gid)
	k.out.u32(uint32(rdev >> 32))
	k.out.u32(uint32(rdev))
	return c.entry(k)
}

// Link gives h another name in dir and stores its new attributes in a.
func (c *Client) Link(h, dir Handle, name string, a *Attr) error {
	if badName(name, nameMax) {
		return unix.ENAMETOOLONG
	}
	k := c.beginOn(opLink, h)
	k.out.u64(uint64(dir))
	k.out.str(name)
	r, err := c.do(k)
	if err == nil {
		r.attr(a)
	}
	return c.end(k, &r, err)
}

// Rename is renameat2(2); flags may be RENAME_NOREPLACE or RENAME_EXCHANGE.
func (c *Client) Rename(oldDir Handle, oldName string, newDir Handle, newName string, flags uint32) error {
	if badName(oldName, nameMax) || badName(newName, nameMax) {
		return unix.ENAMETOOLONG
	}
	k := c.beginOn(opRename, oldDir)
	k.out.u64(uint64(newDir))
	k.out.str(oldName)
	k.out.str(newName)
	k.out.u32(flags)
	r, err := c.do(k)
	return c.end(k, &r, err)
}

// Unlink removes a name, with dir set that of an empty directory.
func (c *Client) Unlink(h Handle, name string, dir bool) error {
	if badName(name, nameMax) {
		return unix.ENAMETOOLONG
	}
	k := c.beginOn(opUnlink, h)
	k.out.str(name)
	k.out.flag(dir)
	r, err := c.do(k)
	return c.end(k, &r, err)
}

func (w *writer) flag(v bool) {
	if v {
		w.u8(1)
	} else {
		w.u8(0)
	}
}

// Readlink returns the target of a symbolic link.
func (c *Client) Readlink(h Handle) (target string, err error) {
	k := c.beginOn(opReadlink, h)
	r, err := c.do(k)
	if err == nil {
		target = r.cstr().String()
	}
	return target, c.end(k, &r, err)
}

// ReadDir appends a batch of the entries of h to out. A directory
// is read from its start; next is a stream to pass to the next call as h, or zero after the last
// entry. The caller closes a stream that it does not read to the end; at the end it is closed already.
func (c *Client) ReadDir(h Handle, out []Dirent) (ents []Dirent, next Handle, err error) {
	k := c.beginOn(opReadDir, h)
	r, err := c.do(k)
	if err != nil {
		return out, 0, c.end(k, nil, err)
	}
	next = Handle(r.u64())
	out = r.dirents(out)
	if next == streamGoesOn {
		next = h
	}
	return out, next, c.end(k, &r, nil)
}

// dirents appends a list of entries to out. Their names share one string.
func (r *reader) dirents(out []Dirent) []Dirent {
	n := int(r.u32())
	const least = 8 + 1 + 2 + 1 // what an entry takes
	if n > len(r.b)/least {
		r.bad = true
		return out
	}
	out = slices.Grow(out, n)
	first, size := len(out), 0
	begin := r.b
	for range n {
		e := Dirent{Ino: r.u64(), Type: r.u8()}
		size += len(r.cstr())
		out = append(out, e)
	}
	if r.bad {
		return out[:first]
	}
	var names strings.Builder
	names.Grow(size)
	again := reader{b: begin}
	for range n {
		again.take(9)
		names.Write(again.cstr())
	}
	all := names.String()
	again.b = begin
	for k := range n {
		again.take(9)
		e := len(again.cstr())
		out[first+k].Name, all = all[:e-1], all[e:]
	}
	return out
}

// StatFS describes the file system that h is on.
func (c *Client) StatFS(h Handle, s *StatFS) error {
	k := c.beginOn(opStatFS, h)
	r, err := c.do(k)
	if err == nil {
		for _, f := range [...]*uint64{&s.Type, &s.Bsize, &s.Frsize, &s.Flags, &s.Blocks, &s.Bfree, &s.Bavail, &s.Files, &s.Free, &s.Namelen} {
			*f = r.u64()
		}
	}
	return c.end(k, &r, err)
}

// Fsync makes a file or directory durable. Files with a donated descriptor need no help for that.
func (c *Client) Fsync(h Handle, dataOnly bool) error {
	k := c.beginOn(opFsync, h)
	k.out.flag(dataOnly)
	r, err := c.do(k)
	return c.end(k, &r, err)
}

// GetXattr returns the length of an extended attribute and copies it to value; with an empty value only
// the length is asked for. A value too small is ERANGE; a namespace that is not served EOPNOTSUPP.
func (c *Client) GetXattr(h Handle, name string, value []byte) (int, error) {
	if badName(name, nameMax) {
		return 0, unix.ERANGE
	}
	k := c.beginOn(opGetXattr, h)
	k.out.str(name)
	k.out.u32(uint32(min(len(value), xattrMax)))
	r, err := c.do(k)
	n := 0
	if err == nil {
		n = int(r.u32())
		if len(value) > 0 {
			copy(value, r.take(n))
		}
	}
	return n, c.end(k, &r, err)
}

// SetXattr sets an extended attribute; flags are XATTR_CREATE or XATTR_REPLACE.
func (c *Client) SetXattr(h Handle, name string, value []byte, flags uint32) error {
	if badName(name, nameMax) {
		return unix.ERANGE
	}
	if len(value) > xattrMax {
		return unix.E2BIG
	}
	k := c.beginOn(opSetXattr, h)
	k.out.str(name)
	k.out.bytes(value)
	k.out.u32(flags)
	r, err := c.do(k)
	return c.end(k, &r, err)
}

// ListXattr returns the names of the extended attributes that are served, each ended by a NUL.
func (c *Client) ListXattr(h Handle) (names []byte, err error) {
	k := c.beginOn(opListXattr, h)
	r, err := c.do(k)
	if err == nil {
		names = append(names, r.bytes()...)
	}
	return names, c.end(k, &r, err)
}

// RemoveXattr removes an extended attribute.
func (c *Client) RemoveXattr(h Handle, name string) error {
	if badName(name, nameMax) {
		return unix.ERANGE
	}
	k := c.beginOn(opRemoveXattr, h)
	k.out.str(name)
	r, err := c.do(k)
	return c.end(k, &r, err)
}

// Connect returns a non-blocking socket of type typ (SOCK_STREAM, ...) connected to the host socket h,
// where the attach point allows that (EPERM).
func (c *Client) Connect(h Handle, typ uint32) (fd int, err error) {
	k := c.beginOn(opConnect, h)
	k.out.u32(typ)
	r, err := c.do(k)
	if err == nil && k.fds.n == 0 {
		err = unix.EPROTO
	}
	fd = -1
	if err == nil {
		fd = k.takeFD()
	}
	return fd, c.end(k, &r, err)
}
