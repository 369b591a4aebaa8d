package gofer

import (
	"golang.org/x/sys/unix"

	broker "husk/pkg/gofer"
)

// acquire makes sure that the inode has a host descriptor that can read, and with write one that can
// write as well, and counts a user of it. The descriptors stay until release.
func (i *inode) acquire(write bool) error {
	if !write && i.fd() < 0 {
		return i.acquireMany()
	}
	return i.acquireWith(write, nil, nil)
}

// acquireMany is acquire for reading that opens the files that are likely to follow as well.
func (i *inode) acquireMany() error {
	var buf [againMax]*inode
	var fds [againMax]int
	files := i.fs.next(i, buf[:0])
	for k := range files {
		fds[k] = -1
	}
	err := i.acquireWith(false, files, fds[:])
	openNext(files, fds[:]) // without the lock: it takes theirs
	return err
}

func (i *inode) acquireWith(write bool, files []*inode, fds []int) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.openLocked(write, files, fds); err != nil {
		return err
	}
	i.users++
	i.used(&i.fs.habit.opens)
	return nil
}

// adopt takes over a descriptor for reading that came with a look-up.
func (i *inode) adopt(fd int) {
	i.mu.Lock()
	have := i.fd() >= 0 || i.fs.frozen && !i.current(fd)
	if !have {
		i.install(fd, false)
	}
	unused := i.users == 0
	i.mu.Unlock()
	switch {
	case have:
		unix.Close(fd)
	case unused:
		i.fs.addIdle(i)
	}
}

// openLocked opens i, and for reading the files that are likely to follow.
func (i *inode) openLocked(write bool, files []*inode, fds []int) error {
	if i.rw.Load() >= 0 || !write && i.rd.Load() >= 0 {
		return nil
	}
	flags := uint32(unix.O_RDONLY)
	if write {
		flags = unix.O_RDWR
	}
	var places [againMax]broker.Place
	at, err := i.place()
	if err != nil {
		return err
	}
	for k, n := range files {
		if places[k], err = n.place(); err != nil {
			files = files[:k]
			break
		}
	}
	fd, err := i.fs.client.OpenMany(at, flags, places[:len(files)], fds)
	if err == unix.EMFILE && len(files) > 0 {
		fd, err = i.fs.client.OpenMany(at, flags, nil, nil)
	}
	i.unplace(at)
	for k, n := range files {
		n.unplace(places[k])
	}
	if i.fs.frozen {
		switch err {
		case unix.ENOENT, unix.EISDIR, unix.ELOOP, unix.ENXIO, unix.EPERM:
			err = unix.ESTALE // a regular file was there
		case nil:
			if !i.current(fd) {
				unix.Close(fd)
				err = unix.ESTALE
			}
		}
	}
	if err != nil {
		return hostError(err)
	}
	i.install(fd, write)
	return nil
}

// current tells whether fd, which was opened by the name of a file in a frozen attach point, is that file. Somebody may change the host's files nevertheless
// (the root of "runsc do" is the host's own): a file that was replaced is another one, and one that was changed is seen as it is now, with its size, and not
// as a part of it. i.mu is held.
func (i *inode) current(fd int) bool {
	var a broker.Attr
	if broker.StatFD(fd, &a) != nil || i.fs.keyOf(&a) != i.key {
		return false
	}
	if a.Size != i.attr.Size || a.Mtime != i.attr.Mtime || a.Ctime != i.attr.Ctime {
		a.UID, a.GID, a.Ino, a.Dev = i.attr.UID, i.attr.GID, i.attr.Ino, i.attr.Dev // see refresh
		i.setAttrLocked(&a)
		i.size.Store(int64(a.Size))
		i.recent.block.Store(nil)
	}
	return true
}

// install makes fd the inode's descriptor; i.mu is held. From the first descriptor for writing on,
// it also serves reads and new mappings: on overlayfs an older one for reading may still show the file
// as it was before it was copied up. The older one stays open for mappings that use it.
func (i *inode) install(fd int, write bool) {
	if !write {
		i.rd.Store(int32(fd))
		return
	}
	i.rw.Store(int32(fd))
	if old := i.rd.Swap(-1); old >= 0 {
		if i.users > 0 {
			i.old = append(i.old, old)
			i.maps.Invalidate(i, 0, 0, false)
		} else {
			unix.Close(int(old))
		}
	}
}

// release drops a user. The descriptors of a file without users stay open for the next one, while there are
// not too many of them.
func (i *inode) release() {
	i.mu.Lock()
	i.users--
	last := i.users == 0
	if last {
		i.closeOld()
		if i.fs.shared && i.rw.Load() >= 0 {
			// The host must see that nobody writes any more, and needs to unmount.
			i.closeLocked()
			last = false
		}
	}
	i.mu.Unlock()
	if last {
		i.fs.addIdle(i)
	}
}

func (i *inode) closeOld() {
	for _, fd := range i.old {
		unix.Close(int(fd))
	}
	i.old = nil
}

// closeLocked closes the descriptors, which have no users; i.mu is held. What they changed is yet to be
// asked for.
func (i *inode) closeLocked() {
	i.closeOld()
	if fd := i.rd.Swap(-1); fd >= 0 {
		unix.Close(int(fd))
	}
	if fd := i.rw.Swap(-1); fd >= 0 {
		unix.Close(int(fd))
	}
}

// fd is a descriptor for reading; -1 if there is none. The caller is a user, or holds i.mu.
func (i *inode) fd() int {
	for {
		if fd := i.rw.Load(); fd >= 0 {
			return int(fd)
		}
		if fd := i.rd.Load(); fd >= 0 {
			return int(fd)
		}
		if i.rw.Load() < 0 { // not just replaced
			return -1
		}
	}
}

// idleLink is an inode's place in a list.
type idleLink struct{ next, prev *inode }

// idleList is inodes that keep something open of which there may not be too many, the one that was used longest ago first. filesystem.idleMu guards it. An
// inode is in one list: regular files have host descriptors, directories handles.
type idleList struct {
	first, last *inode
	length      int
}

// add puts i at the end.
func (l *idleList) add(i *inode) {
	l.drop(i)
	i.idle.prev = l.last
	if l.last != nil {
		l.last.idle.next = i
	} else {
		l.first = i
	}
	l.last = i
	l.length++
}

// drop takes i off the list if it is there.
func (l *idleList) drop(i *inode) {
	next, prev := i.idle.next, i.idle.prev
	if next == nil && prev == nil && l.first != i {
		return
	}
	if prev != nil {
		prev.idle.next = next
	} else {
		l.first = next
	}
	if next != nil {
		next.idle.prev = prev
	} else {
		l.last = prev
	}
	i.idle = idleLink{}
	l.length--
}

// addIdle puts i at the end of the list of descriptors, and closes those of the first where there are too
// many. An inode stays on the list when it gets users again.
func (fs *filesystem) addIdle(i *inode) {
	var victim *inode
	fs.idleMu.Lock()
	fs.idle.add(i)
	for fs.idle.length > fs.maxIdle && victim == nil {
		first := fs.idle.first
		fs.idle.drop(first)
		if first.TryIncRef() {
			victim = first
		}
	}
	fs.idleMu.Unlock()
	if victim == nil {
		return
	}
	victim.mu.Lock()
	if victim.users == 0 {
		victim.closeLocked()
	}
	victim.mu.Unlock()
	victim.DecRef()
}
