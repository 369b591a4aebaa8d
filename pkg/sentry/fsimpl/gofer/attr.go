package gofer

import (
	"golang.org/x/sys/unix"

	broker "husk/pkg/gofer"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/vfs"
)

func kuid(id uint32) auth.KUID { return auth.KUID(id) }
func kgid(id uint32) auth.KGID { return auth.KGID(id) }

// setAttr publishes fresh attributes.
func (i *inode) setAttr(a *broker.Attr) {
	i.mu.Lock()
	i.setAttrLocked(a)
	i.mu.Unlock()
}

func (i *inode) setAttrLocked(a *broker.Attr) {
	i.attr = *a
	// The type never changes; the key pins it.
	if i.Mode() != a.Mode {
		i.SetMode(a.Mode)
	}
	if i.UID() != kuid(a.UID) {
		i.SetUID(kuid(a.UID))
	}
	if i.GID() != kgid(a.GID) {
		i.SetGID(kgid(a.GID))
	}
}

// touch says that the host changes attributes by itself (size and times) through a descriptor, or by a request
// on another inode.
func (i *inode) touch() {
	if !i.fs.frozen && !i.touched.Load() {
		i.touched.Store(true)
	}
}

// refresh makes i.attr true, if it may not be; i.mu is held. It asks a descriptor where there is one. The host does not
// tell the sandbox's user namespace who the owner is, but a change of owner shows in the ctime.
func (i *inode) refresh() error {
	if i.fs.frozen || !i.fs.shared && !i.touched.Load() && !(i.rw.Load() >= 0 && i.maps.Mapped()) {
		return nil
	}
	i.touched.Store(false) // first, so that what happens meanwhile counts
	var a broker.Attr
	known := false
	if fd := i.fd(); fd >= 0 {
		if err := broker.StatFD(fd, &a); err != nil {
			return err
		}
		a.UID, a.GID = i.attr.UID, i.attr.GID
		known = !i.fs.shared || a.Ctime == i.attr.Ctime
	}
	if !known {
		if err := i.fs.client.Stat(i.handle(), &a); err != nil {
			i.touch()
			return hostError(err)
		}
	}
	i.setAttrLocked(&a)
	return nil
}

// Stat implements vfs.InodeOps.
func (i *inode) Stat(_ vfs.Context, _ uint32, st *vfs.Stat) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.refresh(); err != nil {
		return err
	}
	a := &i.attr
	*st = vfs.Stat{
		Mode: a.Mode, Nlink: a.Nlink, UID: kuid(a.UID), GID: kgid(a.GID), Ino: i.Ino(),
		Size: int64(a.Size), Blocks: a.Blocks, Blksize: a.Blksize,
		Dev: i.fs.sb.Dev(), Rdev: unix.Mkdev(uint32(a.Rdev>>32), uint32(a.Rdev)),
		Atime: nanos(a.Atime), Mtime: nanos(a.Mtime), Ctime: nanos(a.Ctime), Btime: nanos(a.Btime),
		Attributes:     a.Flags & shownAttributes,
		AttributesMask: shownAttributes,
	}
	return nil
}

// shownAttributes are the STATX_ATTR_* that mean the same in the sandbox.
const shownAttributes = unix.STATX_ATTR_COMPRESSED | unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND | unix.STATX_ATTR_NODUMP

func nanos(t broker.Time) int64 { return t.Sec*1e9 + int64(t.Nsec) }

func hostTime(ns int64) broker.Time {
	sec := ns / 1e9
	if ns -= sec * 1e9; ns < 0 {
		sec--
		ns += 1e9
	}
	return broker.Time{Sec: sec, Nsec: uint32(ns)}
}

// SetStat implements vfs.InodeOps.
func (i *inode) SetStat(ctx vfs.Context, s *vfs.SetStat) error {
	if s.Mask&vfs.SetSize != 0 {
		if err := i.truncate(s.Size); err != nil {
			return err
		}
	}
	var set broker.SetAttr
	for _, m := range [...]struct {
		in  vfs.SetMask
		out broker.SetMask
	}{
		{vfs.SetMode, broker.SetMode}, {vfs.SetUID, broker.SetUID}, {vfs.SetGID, broker.SetGID},
		{vfs.SetAtime, broker.SetAtime}, {vfs.SetMtime, broker.SetMtime},
	} {
		if s.Mask&m.in != 0 {
			set.Mask |= m.out
		}
	}
	if set.Mask == 0 {
		return nil
	}
	set.Mode, set.UID, set.GID = s.Mode&0o7777, uint32(s.UID), uint32(s.GID)
	set.Atime, set.Mtime = hostTime(s.Atime), hostTime(s.Mtime)
	h, err := i.use()
	if err != nil {
		return err
	}
	defer i.done()
	i.mu.Lock()
	defer i.mu.Unlock()
	var a broker.Attr
	if err := i.fs.client.SetAttr(h, &set, &a); err != nil {
		return hostError(err)
	}
	i.setAttrLocked(&a)
	return nil
}

// truncate changes the size through a descriptor, which the caller mostly needs next.
func (i *inode) truncate(size int64) error {
	if err := i.acquire(true); err != nil {
		return err
	}
	defer i.release()
	i.touch()
	if err := unix.Ftruncate(int(i.rw.Load()), size); err != nil {
		return err
	}
	i.resized(size)
	return nil
}
