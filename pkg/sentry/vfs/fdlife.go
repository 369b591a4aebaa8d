package vfs

import (
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

// release lets go of everything when the last reference is gone.
func (fd *FileDescription) release() {
	fd.mu.Lock()
	x := fd.extra
	fd.extra = nil
	fd.mu.Unlock()
	if x != nil {
		for _, l := range x.listeners {
			l.FileReleased(fd)
		}
	}
	i := fd.Inode()
	if i.ext.Load() != nil {
		fd.vfs.releaseFileLocks(fd)
	}
	fd.stopAsync()
	if !fd.IsPathOnly() {
		if fd.Writable() {
			fd.path.Dentry.Notify(unix.IN_CLOSE_WRITE)
		} else {
			fd.path.Dentry.Notify(unix.IN_CLOSE_NOWRITE)
		}
	}
	if fd.impl != nil {
		fd.impl.Release()
	}
	if fd.writer1 {
		i.putWrite()
		fd.path.Mount.writers.Add(-1)
	}
	fd.AllowWrite()
	fd.path.DecRef()
	fd.recycle()
}

// recycle lets another file use the description, unless somebody may know it without a reference: pollable files tell others of
// themselves (FileBinder, epoll(7), O_ASYNC).
func (fd *FileDescription) recycle() {
	if fd.waitable != nil {
		return
	}
	v := fd.vfs
	fd.fileState = fileState{}
	v.files.Put(fd)
}

// closed is the close of one descriptor of table t: it drops the table's reference.
func (fd *FileDescription) closed(ctx Context, t *FDTable) (err error) {
	if f, ok := fd.impl.(Flusher); ok {
		err = f.Flush(ctx)
	}
	if fd.impl != nil && fd.Inode().ext.Load() != nil {
		fd.vfs.releasePosixLocks(fd, t)
	}
	fd.DecRef()
	return err
}

// ReleaseListener is told of the end of a file.
type ReleaseListener interface {
	// FileReleased is called once, before Release of the implementation. It must not keep the file.
	FileReleased(fd *FileDescription)
}

// AddReleaseListener makes l hear of the file's release; adding it again does nothing.
func (fd *FileDescription) AddReleaseListener(l ReleaseListener) {
	fd.mu.Lock()
	defer fd.mu.Unlock()
	if fd.extra == nil {
		fd.extra = &fileExtra{}
	}
	for _, x := range fd.extra.listeners {
		if x == l {
			return
		}
	}
	fd.extra.listeners = append(fd.extra.listeners, l)
}

// RemoveReleaseListener undoes AddReleaseListener.
func (fd *FileDescription) RemoveReleaseListener(l ReleaseListener) {
	fd.mu.Lock()
	defer fd.mu.Unlock()
	if fd.extra == nil {
		return
	}
	list := fd.extra.listeners
	for i, x := range list {
		if x == l {
			list[i] = list[len(list)-1]
			list[len(list)-1] = nil
			fd.extra.listeners = list[:len(list)-1]
			return
		}
	}
}

// MappedName implements mm.MappedFile.
func (fd *FileDescription) MappedName() string { return fd.vfs.ShownPath(fd.path) }

// MappedInfo implements mm.MappedFile.
func (fd *FileDescription) MappedInfo() (dev, ino uint64) {
	i := fd.Inode()
	return i.sb.dev, i.ino
}

var _ mm.MappedFile = (*FileDescription)(nil)

// Readiness implements waiter.Waitable; a file that cannot be polled is always ready.
func (fd *FileDescription) Readiness(mask waiter.EventMask) waiter.EventMask {
	if fd.waitable == nil {
		return mask & waiter.AllEvents &^ (waiter.EventPri | waiter.EventErr | waiter.EventHUp | waiter.EventRdBand | waiter.EventRdHUp)
	}
	return fd.waitable.Readiness(mask)
}

// EventRegister implements waiter.Waitable.
func (fd *FileDescription) EventRegister(e *waiter.Entry) {
	if fd.waitable != nil {
		fd.waitable.EventRegister(e)
	}
}

// EventUnregister implements waiter.Waitable.
func (fd *FileDescription) EventUnregister(e *waiter.Entry) {
	if fd.waitable != nil {
		fd.waitable.EventUnregister(e)
	}
}

// Pollable tells whether epoll_ctl(2) takes the file (EPERM).
func (fd *FileDescription) Pollable() bool { return fd.waitable != nil }

// Seekable tells whether the file has an offset.
func (fd *FileDescription) Seekable() bool {
	return fd.sreader == nil && fd.swriter == nil
}
