package gofer

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// xattrArgs is struct xattr_args of setxattrat(2). The value it points to must be on the heap, as the
// buffers of messages are.
type xattrArgs struct {
	value       uint64
	size, flags uint32
}

// servedXattr reports whether an attribute is the container's business. trusted and the rest of
// security belong to the host.
func servedXattr(name string) bool {
	return strings.HasPrefix(name, "user.") && len(name) > len("user.") || name == "security.capability" ||
		name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// xattrName checks an attribute's name after the request is read.
func xattrName(r *reader, name cstr) error {
	if err := ended(r); err != nil {
		return err
	}
	switch n := len(name) - 1; {
	case n <= 0 || n > nameMax:
		return unix.ERANGE
	case !servedXattr(name.String()):
		return unix.EOPNOTSUPP
	}
	return nil
}

// withFile calls f with a descriptor open on o, for hosts older than the *xattrat calls (Linux 6.13).
// Only files and directories can be opened for it; others have no attributes there.
func (w *worker) withFile(o *object, f func(fd int) (int, error)) (int, error) {
	if o.typ != unix.S_IFREG && o.typ != unix.S_IFDIR {
		return 0, unix.EOPNOTSUPP
	}
	fd, err := w.reopen(o.fd, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return f(fd)
}

// xattrAt makes an *xattrat call on o by its name in /proc/self/fd. args may be nil.
func (w *worker) xattrAt(nr uintptr, o *object, name cstr, args *xattrArgs) (int, unix.Errno) {
	path := w.num.set(o.fd)
	n, _, e := unix.Syscall6(nr, uintptr(w.cfg.ProcFD), uintptr(unsafe.Pointer(&path[0])), 0,
		uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	return int(n), e
}

func (w *worker) doGetXattr(o *object, r *reader) error {
	name, size := r.cstr(), r.u32()
	if err := xattrName(r, name); err != nil {
		return err
	}
	if size > xattrMax {
		size = xattrMax
	}
	// The value goes to its place in the reply; with size 0 only its length is asked for.
	head := len(w.out.b)
	w.out.u32(0)
	buf := w.out.b[len(w.out.b) : len(w.out.b)+int(size)]
	args := &xattrArgs{size: size}
	if size > 0 {
		args.value = uint64(uintptr(unsafe.Pointer(&buf[0])))
	}
	n, e := w.xattrAt(unix.SYS_GETXATTRAT, o, name, args)
	err := error(e)
	if e == 0 {
		err = nil
	} else if e == unix.ENOSYS {
		n, err = w.withFile(o, func(fd int) (int, error) { return unix.Fgetxattr(fd, name.String(), buf) })
	}
	if err != nil {
		return err
	}
	w.xattrReply(head, n, int(size))
	return nil
}

// xattrReply completes a reply whose value of n bytes already lies behind its length field.
func (w *worker) xattrReply(head, n, size int) {
	out := writer{w.out.b[:head]}
	out.u32(uint32(n))
	if size > 0 {
		out.b = out.b[:len(out.b)+n]
	}
	w.out.b = out.b
}

func (w *worker) doSetXattr(o *object, r *reader) error {
	name, value, flags := r.cstr(), r.bytes(), r.u32()
	if err := xattrName(r, name); err != nil {
		return err
	}
	if len(value) > xattrMax {
		return unix.E2BIG
	}
	if flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0 {
		return unix.EINVAL
	}
	if err := o.writable(); err != nil {
		return err
	}
	args := &xattrArgs{size: uint32(len(value)), flags: flags}
	if len(value) > 0 {
		args.value = uint64(uintptr(unsafe.Pointer(&value[0])))
	}
	_, e := w.xattrAt(unix.SYS_SETXATTRAT, o, name, args)
	if e == unix.ENOSYS {
		_, err := w.withFile(o, func(fd int) (int, error) { return 0, unix.Fsetxattr(fd, name.String(), value, int(flags)) })
		return err
	}
	if e != 0 {
		return e
	}
	return nil
}

// doListXattr answers the names that are served, each with its NUL.
func (w *worker) doListXattr(o *object, r *reader) error {
	if err := ended(r); err != nil {
		return err
	}
	buf := make([]byte, xattrMax)
	path := w.num.set(o.fd)
	r1, _, e := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(w.cfg.ProcFD), uintptr(unsafe.Pointer(&path[0])), 0,
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0)
	n := int(r1)
	if e == unix.ENOSYS {
		var err error
		if n, err = w.withFile(o, func(fd int) (int, error) { return unix.Flistxattr(fd, buf) }); err != nil {
			return err
		}
	} else if e != 0 {
		return e
	}
	var served []byte
	for name := range strings.SplitAfterSeq(string(buf[:n]), "\x00") {
		if len(name) > 1 && servedXattr(name[:len(name)-1]) {
			served = append(served, name...)
		}
	}
	w.out.bytes(served)
	return nil
}

func (w *worker) doRemoveXattr(o *object, r *reader) error {
	name := r.cstr()
	if err := xattrName(r, name); err != nil {
		return err
	}
	if err := o.writable(); err != nil {
		return err
	}
	_, e := w.xattrAt(unix.SYS_REMOVEXATTRAT, o, name, nil)
	if e == unix.ENOSYS {
		_, err := w.withFile(o, func(fd int) (int, error) { return 0, unix.Fremovexattr(fd, name.String()) })
		return err
	}
	if e != 0 {
		return e
	}
	return nil
}
