package gofer

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Version is the protocol's version; both sides must agree.
const Version = 7

// MaxMessage bounds a message in bytes: the largest extended attribute (XATTR_SIZE_MAX, 64 KiB) and
// its surroundings, and well below the default send buffer of a socket (208 KiB).
const MaxMessage = 72 << 10

// MaxDonated is how many descriptors a reply has at most; the kernel allows 253. A request costs 100 us, a descriptor 12 us.
const MaxDonated = 96

const (
	nameMax     = 255      // NAME_MAX
	symlinkMax  = 4095     // PATH_MAX without the NUL
	xattrMax    = 64 << 10 // XATTR_SIZE_MAX
	walkMax     = 128      // components in one Walk
	closesMax   = 64       // handles in one trailer
	donateMax   = MaxDonated
	siblingFDs  = 32 // descriptors that come with Siblings
	headerSize  = 12
	replyHeader = headerSize
)

// op is the operation of a request.
type op uint16

const (
	opHello op = iota + 1
	opAttach
	opWalk
	opSiblings
	opStat
	opSetAttr
	opOpen
	opCreate
	opMkdir
	opSymlink
	opLink
	opMknod
	opRename
	opUnlink
	opReadlink
	opReadDir
	opStatFS
	opFsync
	opGetXattr
	opSetXattr
	opListXattr
	opRemoveXattr
	opConnect
	opClose // has no reply: its work is in the trailer
	opMax
)

// What comes with a sibling in a reply.
const (
	withFD   = 1 // the next of the reply's descriptors is the file, open for reading
	withList = 2 // the directory's entries follow
	withTree = 4 // and their look-ups: the number, and siblings
)

// writer appends fields to a message.
type writer struct{ b []byte }

func (w *writer) u8(v uint8)   { w.b = append(w.b, v) }
func (w *writer) u16(v uint16) { w.b = binary.LittleEndian.AppendUint16(w.b, v) }
func (w *writer) u32(v uint32) { w.b = binary.LittleEndian.AppendUint32(w.b, v) }
func (w *writer) u64(v uint64) { w.b = binary.LittleEndian.AppendUint64(w.b, v) }

// str writes a length, the bytes and a NUL, so that the receiver can pass the bytes to the host in place.
func (w *writer) str(s string) {
	w.u16(uint16(len(s)))
	w.b = append(w.b, s...)
	w.b = append(w.b, 0)
}

// bytes writes a length and the bytes.
func (w *writer) bytes(p []byte) {
	w.u32(uint32(len(p)))
	w.b = append(w.b, p...)
}

// room is how many bytes the message may still take.
func (w *writer) room() int { return MaxMessage - len(w.b) }

// reader takes fields off a message. A field that is not there sets bad and reads as zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.bad = true
		r.b = nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) u8() uint8 {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if p := r.take(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if p := r.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if p := r.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// cstr reads a string of writer.str: NUL-terminated, with no other NUL. The result includes the NUL
// and lies in the message.
func (r *reader) cstr() cstr {
	n := int(r.u16())
	p := r.take(n + 1)
	if p == nil {
		return nil
	}
	for i, c := range p {
		if (c == 0) != (i == n) {
			r.bad = true
			return nil
		}
	}
	return p
}

// bytes reads a byte string; it lies in the message.
func (r *reader) bytes() []byte { return r.take(int(r.u32())) }

// end reports whether everything was there and nothing is left.
func (r *reader) end() bool { return !r.bad && len(r.b) == 0 }

// cstr is a NUL-terminated string.
type cstr []byte

func (s cstr) String() string {
	if len(s) == 0 {
		return ""
	}
	return string(s[:len(s)-1])
}

// component checks that s is a name that can be looked up in a directory: one component, and not one
// that leads elsewhere.
func (s cstr) component() error {
	n := len(s) - 1
	switch {
	case n <= 0:
		return unix.ENOENT
	case n > nameMax:
		return unix.ENAMETOOLONG
	case s[0] == '.' && (n == 1 || n == 2 && s[1] == '.'):
		return unix.EINVAL
	}
	for _, c := range s[:n] {
		if c == '/' {
			return unix.EINVAL
		}
	}
	return nil
}

// attrSize is what an Attr takes in a message, in bytes.
const attrSize = 120

func (w *writer) time(t Time) { w.u64(uint64(t.Sec)); w.u32(t.Nsec) }
func (r *reader) time() Time  { return Time{int64(r.u64()), r.u32()} }

func (w *writer) attr(a *Attr) {
	w.u64(a.Ino)
	w.u64(a.Dev)
	w.u64(a.Rdev)
	w.u64(a.Size)
	w.u64(a.Blocks)
	w.u64(a.Flags)
	w.u32(a.Mode)
	w.u32(a.Nlink)
	w.u32(a.UID)
	w.u32(a.GID)
	w.u32(a.Blksize)
	w.u32(a.Mask)
	w.time(a.Atime)
	w.time(a.Mtime)
	w.time(a.Ctime)
	w.time(a.Btime)
}

func (r *reader) attr(a *Attr) {
	a.Ino = r.u64()
	a.Dev = r.u64()
	a.Rdev = r.u64()
	a.Size = r.u64()
	a.Blocks = r.u64()
	a.Flags = r.u64()
	a.Mode = r.u32()
	a.Nlink = r.u32()
	a.UID = r.u32()
	a.GID = r.u32()
	a.Blksize = r.u32()
	a.Mask = r.u32()
	a.Atime = r.time()
	a.Mtime = r.time()
	a.Ctime = r.time()
	a.Btime = r.time()
}

// header starts a message; seal completes it.
func (w *writer) header(tag uint32, code uint16) {
	w.b = w.b[:0]
	w.u32(0)
	w.u32(tag)
	w.u16(code)
	w.u16(0)
}

// seal stores the length and the header's count: trailing handles in a request.
func (w *writer) seal(count int) {
	binary.LittleEndian.PutUint32(w.b, uint32(len(w.b)))
	binary.LittleEndian.PutUint16(w.b[10:], uint16(count))
}

// parse splits a message; ok is false where it is no message at all.
func parse(msg []byte) (tag uint32, code, count uint16, body []byte, ok bool) {
	if len(msg) < headerSize || binary.LittleEndian.Uint32(msg) != uint32(len(msg)) {
		return
	}
	return binary.LittleEndian.Uint32(msg[4:]), binary.LittleEndian.Uint16(msg[8:]), binary.LittleEndian.Uint16(msg[10:]), msg[headerSize:], true
}
