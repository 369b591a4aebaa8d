package gofer

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func (w *worker) doStat(o *object, r *reader) error {
	if err := ended(r); err != nil {
		return err
	}
	return w.stat(o.fd)
}

// stat writes the attributes of fd.
func (w *worker) stat(fd int) error {
	if err := statFD(fd, &w.st); err != nil {
		return err
	}
	var a Attr
	a.fill(&w.st)
	w.out.attr(&a)
	return nil
}

// doSetAttr changes attributes in the order that keeps Linux from undoing a part: a new owner clears
// set-ID bits, a new size clears them and sets times. It answers the new attributes.
func (w *worker) doSetAttr(o *object, r *reader) error {
	a := SetAttr{Mask: SetMask(r.u32()), Mode: r.u32(), UID: r.u32(), GID: r.u32(), Size: r.u64(), Atime: r.time(), Mtime: r.time()}
	if err := ended(r); err != nil {
		return err
	}
	if a.Mask&^setAll != 0 || a.Mode&^0o7777 != 0 || int64(a.Size) < 0 {
		return unix.EINVAL
	}
	if err := o.writable(); err != nil {
		return err
	}
	if a.Mask&SetSize != 0 {
		if err := w.truncate(o, int64(a.Size)); err != nil {
			return err
		}
	}
	if a.Mask&(SetUID|SetGID) != 0 {
		uid, gid := -1, -1
		if a.Mask&SetUID != 0 {
			uid = int(a.UID)
		}
		if a.Mask&SetGID != 0 {
			gid = int(a.GID)
		}
		if err := unix.Fchownat(o.fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	if a.Mask&SetMode != 0 {
		if err := w.chmod(o.fd, a.Mode); err != nil {
			return err
		}
	}
	if a.Mask&(SetAtime|SetAtimeNow|SetMtime|SetMtimeNow) != 0 {
		ts := [2]unix.Timespec{timespec(a.Mask, SetAtime, SetAtimeNow, a.Atime), timespec(a.Mask, SetMtime, SetMtimeNow, a.Mtime)}
		if err := unix.UtimesNanoAt(o.fd, "", ts[:], unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	return w.stat(o.fd)
}

func timespec(mask, set, now SetMask, t Time) unix.Timespec {
	switch {
	case mask&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case mask&set != 0 && t.Nsec < 1e9:
		return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
	}
	return unix.Timespec{Nsec: unix.UTIME_OMIT}
}

// chmod changes the mode of the object itself: O_PATH descriptors do not take fchmod.
func (w *worker) chmod(fd int, mode uint32) error {
	return unix.Fchmodat(w.cfg.ProcFD, w.num.set(fd).String(), mode, 0)
}

func (w *worker) truncate(o *object, size int64) error {
	switch o.typ {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return unix.EISDIR
	default:
		return unix.EINVAL
	}
	fd, err := w.reopen(o.fd, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Ftruncate(fd, size)
}

// doOpen donates a descriptor, and answers which of the further files there is one of, too. Directories are never donated, nor
// what policy does not list.
func (w *worker) doOpen(dir *object, r *reader) error {
	flags, name, n := r.u32(), r.cstr(), int(r.u8())
	more := *r
	for range n {
		r.u64()
		r.cstr()
	}
	if err := ended(r); err != nil {
		return err
	}
	if flags&^uint32(OpenFlags) != 0 || n > donateMax-1 {
		return unix.EINVAL
	}
	o, err := w.at(dir, name)
	if err != nil {
		return err
	}
	err = w.open(o, flags)
	o.put()
	if err == nil {
		w.openMore(flags, more, n)
	}
	return err
}

// open opens what may be donated, and donates it.
func (w *worker) open(o *object, flags uint32) error {
	if flags&(unix.O_ACCMODE|unix.O_TRUNC) != unix.O_RDONLY {
		if err := o.writable(); err != nil {
			return err
		}
	}
	extra := unix.O_NOCTTY
	switch o.typ {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return unix.EISDIR
	case unix.S_IFLNK:
		return unix.ELOOP
	case unix.S_IFIFO:
		if o.at.Flags&HostFIFOs == 0 {
			return unix.EPERM
		}
		extra |= unix.O_NONBLOCK
	case unix.S_IFCHR, unix.S_IFBLK:
		if !o.at.serves(o.dev) {
			return unix.EPERM
		}
		extra |= unix.O_NONBLOCK
	default:
		return unix.ENXIO
	}
	fd, err := w.reopen(o.fd, int(flags)|extra)
	if err != nil {
		return err
	}
	w.fds.add(fd)
	return nil
}

// openMore opens the regular files in n places for reading, if that is what flags asks for, and writes for each whether it could.
func (w *worker) openMore(flags uint32, places reader, n int) {
	for range n {
		h, name := Handle(places.u64()), places.cstr()
		fd := -1
		if flags&(unix.O_ACCMODE|unix.O_TRUNC) == unix.O_RDONLY && w.fds.n < w.donate {
			fd = w.openRegular(h, name, flags)
		}
		if fd < 0 {
			w.out.u8(0)
			continue
		}
		w.fds.add(fd)
		w.out.u8(1)
	}
}

// openRegular opens the regular file in a place for reading; -1 where there is none.
func (w *worker) openRegular(h Handle, name cstr, flags uint32) int {
	dir, err := w.table.get(h)
	if err != nil {
		return -1
	}
	defer dir.put()
	if dir.stream != nil {
		return -1
	}
	if len(name) > 1 && dir.at.Flags&ReadOnly != 0 && dir.typ == unix.S_IFDIR && name.component() == nil {
		return w.openLooked(dir, name, flags)
	}
	o, err := w.at(dir, name)
	if err != nil {
		return -1
	}
	defer o.put()
	if o.typ != unix.S_IFREG {
		return -1
	}
	fd, err := w.reopen(o.fd, int(flags)|unix.O_NOCTTY)
	if err != nil {
		return -1
	}
	return fd
}

// openLooked opens a component of dir that is a regular file. It looks first, since to open a device can have effects. Below a read-only attach point the
// client cannot replace the file by another between the two, and if somebody else does, the descriptor is not given out.
func (w *worker) openLooked(dir *object, name cstr, flags uint32) int {
	if statAt(dir.fd, name, &w.st) != nil || w.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1
	}
	ino := w.st.Ino
	fd, err := openBeneath(dir.fd, name, uint64(flags)|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1
	}
	if statFD(fd, &w.st) != nil || w.st.Mode&unix.S_IFMT != unix.S_IFREG || w.st.Ino != ino {
		unix.Close(fd)
		return -1
	}
	return fd
}

func (a *AttachPoint) serves(dev uint64) bool {
	for _, d := range a.Devices {
		if d == dev {
			return true
		}
	}
	return false
}

// owner is who a new object belongs to and its mode.
type owner struct{ mode, uid, gid uint32 }

func (r *reader) owner() owner { return owner{r.u32(), r.u32(), r.u32()} }

func (o owner) valid() error {
	if o.mode&^0o7777 != 0 || o.uid == ^uint32(0) || o.gid == ^uint32(0) {
		return unix.EINVAL
	}
	return nil
}

// settle gives the object just created, open as fd, its owner and mode where the host's defaults
// (server's own IDs, group of a set-group-ID directory, umask) differ. A change of owner clears set-ID bits, so
// the mode is last.
func (w *worker) settle(fd int, want owner) error {
	if err := statFD(fd, &w.st); err != nil {
		return err
	}
	link := uint32(w.st.Mode)&unix.S_IFMT == unix.S_IFLNK
	chown := w.st.Uid != want.uid || w.st.Gid != want.gid
	if chown {
		if err := unix.Fchownat(fd, "", int(want.uid), int(want.gid), unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	if !link && (uint32(w.st.Mode)&0o7777 != want.mode || chown && want.mode&0o6000 != 0) {
		return w.chmod(fd, want.mode)
	}
	return nil
}

// doCreate makes a regular file and donates a descriptor of it. The name must not exist. With an
// empty name the file is made without one, as by O_TMPFILE.
func (w *worker) doCreate(dir *object, r *reader) error {
	name, flags, want := r.cstr(), r.u32(), r.owner()
	if err := ended(r); err != nil {
		return err
	}
	if err := want.valid(); err != nil {
		return err
	}
	if flags&^uint32(OpenFlags) != 0 {
		return unix.EINVAL
	}
	if err := w.mayCreate(dir); err != nil {
		return err
	}
	var fd int
	var err error
	if len(name) == 1 {
		if flags&unix.O_ACCMODE == unix.O_RDONLY {
			return unix.EINVAL
		}
		fd, err = unix.Openat(dir.fd, ".", int(flags)&^unix.O_TRUNC|unix.O_TMPFILE|unix.O_CLOEXEC, want.mode)
	} else {
		if err := name.component(); err != nil {
			return err
		}
		fd, err = openBeneath(dir.fd, name, uint64(flags)|unix.O_CREAT|unix.O_EXCL|unix.O_NOCTTY, uint64(want.mode&0o777))
	}
	if err != nil {
		return err
	}
	if err = w.settle(fd, want); err == nil {
		var path int
		if path, err = w.reopen(fd, unix.O_PATH); err == nil {
			err = w.adopt(path, dir.at)
		}
	}
	if err != nil {
		unix.Close(fd)
		if len(name) > 1 {
			unix.Unlinkat(dir.fd, name.String(), 0)
		}
		return err
	}
	w.fds.add(fd)
	return nil
}

// mayCreate checks that entries can be made in dir at all.
func (w *worker) mayCreate(dir *object) error {
	if dir.typ != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	return dir.writable()
}

// made opens what was just created as name, gives it its owner and answers its handle and attributes. The host
// may have replaced it meanwhile, so it is only touched where it is still of the type and owner
// that the creation gave it.
func (w *worker) made(dir *object, name cstr, typ uint32, want owner) error {
	fd, err := openBeneath(dir.fd, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	if err = statFD(fd, &w.st); err == nil && (uint32(w.st.Mode)&unix.S_IFMT != typ || w.st.Uid != w.uid && w.st.Uid != want.uid) {
		err = unix.EIO
	}
	if err == nil {
		err = w.settle(fd, want)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	return w.adopt(fd, dir.at)
}

func (w *worker) doMkdir(dir *object, r *reader) error {
	name, want := r.cstr(), r.owner()
	if err := component(r, name); err != nil {
		return err
	}
	if err := want.valid(); err != nil {
		return err
	}
	if err := w.mayCreate(dir); err != nil {
		return err
	}
	if err := unix.Mkdirat(dir.fd, name.String(), want.mode); err != nil {
		return err
	}
	if err := w.made(dir, name, unix.S_IFDIR, want); err != nil {
		unix.Unlinkat(dir.fd, name.String(), unix.AT_REMOVEDIR)
		return err
	}
	return nil
}

func (w *worker) doSymlink(dir *object, r *reader) error {
	name, target, want := r.cstr(), r.cstr(), r.owner()
	if err := component(r, name); err != nil {
		return err
	}
	if len(target) == 1 {
		return unix.ENOENT
	}
	if len(target)-1 > symlinkMax {
		return unix.ENAMETOOLONG
	}
	want.mode = 0o777
	if err := want.valid(); err != nil {
		return err
	}
	if err := w.mayCreate(dir); err != nil {
		return err
	}
	if err := unix.Symlinkat(target.String(), dir.fd, name.String()); err != nil {
		return err
	}
	if err := w.made(dir, name, unix.S_IFLNK, want); err != nil {
		unix.Unlinkat(dir.fd, name.String(), 0)
		return err
	}
	return nil
}

// doMknod makes FIFOs, sockets, empty regular files and whiteouts (character device 0:0), which no
// privilege on the host follows from. Other devices are EPERM.
func (w *worker) doMknod(dir *object, r *reader) error {
	name, typ, want, major, minor := r.cstr(), r.u32(), r.owner(), r.u32(), r.u32()
	if err := component(r, name); err != nil {
		return err
	}
	if err := want.valid(); err != nil {
		return err
	}
	switch typ {
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	case unix.S_IFCHR, unix.S_IFBLK:
		if typ == unix.S_IFBLK || major != 0 || minor != 0 {
			return unix.EPERM
		}
	default:
		return unix.EINVAL
	}
	if err := w.mayCreate(dir); err != nil {
		return err
	}
	if err := unix.Mknodat(dir.fd, name.String(), typ|want.mode, 0); err != nil {
		return err
	}
	if err := w.made(dir, name, typ, want); err != nil {
		unix.Unlinkat(dir.fd, name.String(), 0)
		return err
	}
	return nil
}

// pair reads the two handles that Link and Rename start with.
func (w *worker) pair(r *reader) (a, b *object, err error) {
	ha, hb := Handle(r.u64()), Handle(r.u64())
	if a, err = w.table.get(ha); err != nil {
		return nil, nil, err
	}
	if b, err = w.table.get(hb); err != nil {
		a.put()
		return nil, nil, err
	}
	return a, b, nil
}

func (w *worker) doLink(r *reader) error {
	o, dir, err := w.pair(r)
	if err != nil {
		return err
	}
	defer o.put()
	defer dir.put()
	name := r.cstr()
	if err := component(r, name); err != nil {
		return err
	}
	if err := w.mayCreate(dir); err != nil {
		return err
	}
	switch {
	case o.stream != nil || dir.stream != nil:
		return unix.EBADF
	case o.at != dir.at:
		return unix.EXDEV
	case o.typ == unix.S_IFDIR:
		return unix.EPERM
	}
	if err := unix.Linkat(w.cfg.ProcFD, w.num.set(o.fd).String(), dir.fd, name.String(), unix.AT_SYMLINK_FOLLOW); err != nil {
		return err
	}
	return w.stat(o.fd)
}

func (w *worker) doRename(r *reader) error {
	from, to, err := w.pair(r)
	if err != nil {
		return err
	}
	defer from.put()
	defer to.put()
	oldName, newName, flags := r.cstr(), r.cstr(), r.u32()
	if err := component(r, oldName); err != nil {
		return err
	}
	if err := newName.component(); err != nil {
		return err
	}
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL
	}
	switch {
	case from.stream != nil || to.stream != nil:
		return unix.EBADF
	case from.at != to.at:
		return unix.EXDEV
	}
	if err := w.mayCreate(from); err != nil {
		return err
	}
	if err := w.mayCreate(to); err != nil {
		return err
	}
	return unix.Renameat2(from.fd, oldName.String(), to.fd, newName.String(), uint(flags))
}

func (w *worker) doUnlink(dir *object, r *reader) error {
	name, isDir := r.cstr(), r.u8()
	if err := component(r, name); err != nil {
		return err
	}
	if err := w.mayCreate(dir); err != nil {
		return err
	}
	flags := 0
	if isDir != 0 {
		flags = unix.AT_REMOVEDIR
	}
	return unix.Unlinkat(dir.fd, name.String(), flags)
}

func (w *worker) doReadlink(o *object, r *reader) error {
	if err := ended(r); err != nil {
		return err
	}
	if o.typ != unix.S_IFLNK {
		return unix.EINVAL
	}
	w.target(o.fd, cstr(emptyName[:]))
	return nil
}

func (w *worker) doStatFS(o *object, r *reader) error {
	if err := ended(r); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(o.fd, &st); err != nil {
		return err
	}
	for _, v := range [...]uint64{uint64(st.Type), uint64(st.Bsize), uint64(st.Frsize), uint64(st.Flags), st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree, uint64(st.Namelen)} {
		w.out.u64(v)
	}
	return nil
}

func (w *worker) doFsync(o *object, r *reader) error {
	dataOnly := r.u8()
	if err := ended(r); err != nil {
		return err
	}
	if o.typ != unix.S_IFREG && o.typ != unix.S_IFDIR {
		return unix.EINVAL
	}
	fd, err := w.reopen(o.fd, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if dataOnly != 0 {
		return unix.Fdatasync(fd)
	}
	return unix.Fsync(fd)
}

// doConnect donates a socket connected to the host socket o, where policy allows it. Socket
// addresses have no descriptor form, so a thread of its own goes to /proc/self/fd and names the
// socket from there; the thread ends with its goroutine.
func (w *worker) doConnect(o *object, r *reader) error {
	typ := r.u32()
	if err := ended(r); err != nil {
		return err
	}
	switch {
	case o.at.Flags&HostSockets == 0:
		return unix.EPERM
	case o.typ != unix.S_IFSOCK:
		return unix.ECONNREFUSED
	}
	switch typ {
	case unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET:
	default:
		return unix.EINVAL
	}
	fd, err := unix.Socket(unix.AF_UNIX, int(typ)|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Fchdir(w.cfg.ProcFD)
		}
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: w.num.set(o.fd).String()})
		}
		done <- err
	}()
	if err := <-done; err != nil {
		unix.Close(fd)
		return err
	}
	w.fds.add(fd)
	return nil
}

// openAt opens a name relative to dir, following it: for names of /proc/self/fd only.
func openAt(dir int, name cstr, flags int) (int, error) {
	for {
		fd, _, e := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(flags), 0, 0, 0)
		switch e {
		case 0:
			return int(fd), nil
		case unix.EINTR:
			continue
		}
		return -1, e
	}
}
