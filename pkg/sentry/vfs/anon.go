package vfs

import (
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/waiter"

	"sync"

	"golang.org/x/sys/unix"
)

const enoioctlcmd = linux.ENOIOCTLCMD

// Magic of anon_inodefs, statfs(2).
const anonMagic = 0x09041934

// anonFS is the internal file system of files that have no name: pipes, sockets, eventfds.
type anonFS struct{ NoSuperblockOps }

// StatFS implements SuperblockOps.
func (anonFS) StatFS(_ Context, st *StatFS) error {
	st.Type, st.Bsize, st.Frsize, st.Namelen = anonMagic, 4096, 4096, nameMax
	return nil
}

// anonInode is an inode with attributes in memory.
type anonInode struct {
	Inode
	NoOps
	mu                  sync.Mutex
	atime, mtime, ctime int64 // protected by mu
}

// Stat implements InodeOps.
func (i *anonInode) Stat(_ Context, _ uint32, st *Stat) error {
	st.Mode, st.UID, st.GID, st.Ino, st.Nlink = i.Mode(), i.UID(), i.GID(), i.ino, 1
	st.Dev, st.Blksize = i.sb.dev, 4096
	i.mu.Lock()
	st.Atime, st.Mtime, st.Ctime = i.atime, i.mtime, i.ctime
	i.mu.Unlock()
	return nil
}

// SetStat implements InodeOps.
func (i *anonInode) SetStat(_ Context, s *SetStat) error {
	if s.Mask&SetSize != 0 {
		return unix.EINVAL
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if s.Mask&SetMode != 0 {
		i.Inode.SetMode(i.Type() | s.Mode)
	}
	if s.Mask&SetUID != 0 {
		i.Inode.SetUID(s.UID)
	}
	if s.Mask&SetGID != 0 {
		i.Inode.SetGID(s.GID)
	}
	if s.Mask&SetAtime != 0 {
		i.atime = s.Atime
	}
	if s.Mask&SetMtime != 0 {
		i.mtime = s.Mtime
	}
	i.ctime = clock.Realtime()
	return nil
}

func (v *VFS) initAnon() {
	v.anon = v.NewSuperblock(nil, anonFS{}, nil, anonMagic)
	root := v.newAnonInode(unix.S_IFDIR|0500, 0, 0)
	v.anon.SetRoot(&root.Inode)
	v.anonMnt = v.newMount(v.anon, v.anon.root, MountNoExec)
	v.anonShared = v.newAnonInode(0600, 0, 0)
}

func (v *VFS) newAnonInode(mode uint32, uid auth.KUID, gid auth.KGID) *anonInode {
	i := &anonInode{}
	i.mtime = clock.Realtime()
	i.atime, i.ctime = i.mtime, i.mtime
	i.Init(i, v.anon, v.anonIno.Add(1), mode, uid, gid, 0)
	return i
}

// NewAnonFile makes a description of a file that has no place in a file system and shares its inode with all such: eventfds, epolls and the
// like. name is what /proc/PID/fd/N shows: "anon_inode:[eventfd]".
func (v *VFS) NewAnonFile(name string, impl FileImpl, flags uint32) *FileDescription {
	v.anonShared.IncRef()
	p := v.anonPath(&v.anonShared.Inode, name)
	fd := v.NewFile(p, impl, flags)
	p.DecRef()
	return fd
}

// NewAnonPath makes a place with an inode of its own, of the type and permissions in mode, owned by ctx: for pipes and
// sockets. It is shown as "kind:[ino]". The caller has the reference; NewFile makes files of it.
func (v *VFS) NewAnonPath(ctx Context, kind string, mode uint32) Path {
	c := ctx.Credentials()
	i := v.newAnonInode(mode, c.FSUID, c.FSGID)
	return v.anonPath(&i.Inode, kind+":["+utoa(i.ino)+"]")
}

// NewInodePath makes a nameless place for an inode of another internal file system (memfd, shared memory), whose reference passes to it.
// It is shown as name.
func (v *VFS) NewInodePath(m *Mount, i *Inode, name string) Path {
	d := newDentry(i.sb, i, nil, name)
	d.flags.Or(dentryNamed)
	d.refs.Store(1)
	m.IncRef()
	return Path{m, d}
}

// NewInternalMount makes a mount of sb, whose reference passes to it, that is in no namespace: for NewInodePath.
func (v *VFS) NewInternalMount(sb *Superblock) *Mount { return v.newMount(sb, sb.root, 0) }

func (v *VFS) anonPath(i *Inode, name string) Path { return v.NewInodePath(v.anonMnt, i, name) }

// Owner is who gets SIGIO (F_SETOWN, F_SETOWN_EX, F_SETSIG of fcntl(2)).
type Owner struct {
	Type  int32 // F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP
	ID    int32 // as set, in the PID namespace of the one who set it; 0: nobody
	Sig   int32 // F_SETSIG; 0: SIGIO
	FD    int32 // descriptor that siginfo tells
	Creds *auth.Credentials
	// Send delivers the signal: the kernel sets it. code is POLL_IN and the like, band the events.
	Send func(o *Owner, code int32, band waiter.EventMask)
}

// Owner gives the owner of the file.
func (fd *FileDescription) Owner() Owner {
	fd.mu.Lock()
	defer fd.mu.Unlock()
	return fd.owner
}

// SetOwner changes it.
func (fd *FileDescription) SetOwner(o Owner) {
	fd.mu.Lock()
	fd.owner = o
	fd.mu.Unlock()
}

// asyncNotify turns events into signals (O_ASYNC).
type asyncNotify struct {
	fd    *FileDescription
	entry waiter.Entry
}

// NotifyEvent implements waiter.Listener. It may run with locks of the file held: the signal is sent by a goroutine.
func (a *asyncNotify) NotifyEvent(mask waiter.EventMask) { go a.send(mask) }

func (a *asyncNotify) send(mask waiter.EventMask) {
	o := a.fd.Owner()
	if o.Send == nil || o.ID == 0 {
		return
	}
	var code int32
	switch {
	case mask&waiter.EventIn != 0:
		code = 1 // POLL_IN
	case mask&waiter.EventOut != 0:
		code = 2 // POLL_OUT
	case mask&waiter.EventErr != 0:
		code = 4 // POLL_ERR
	case mask&waiter.EventPri != 0:
		code = 5 // POLL_PRI
	default:
		code = 6 // POLL_HUP
	}
	o.Send(&o, code, mask)
}

func (fd *FileDescription) setAsync(on bool) {
	if fd.waitable == nil {
		return
	}
	if !on {
		fd.stopAsync()
		return
	}
	a := &asyncNotify{fd: fd}
	a.entry.Init(a, waiter.ReadableEvents|waiter.WritableEvents|waiter.EventPri)
	fd.mu.Lock()
	old := fd.async
	fd.async = a
	fd.mu.Unlock()
	if old != nil {
		fd.waitable.EventUnregister(&old.entry)
	}
	fd.waitable.EventRegister(&a.entry)
}

func (fd *FileDescription) stopAsync() {
	fd.mu.Lock()
	a := fd.async
	fd.async = nil
	fd.mu.Unlock()
	if a != nil {
		fd.waitable.EventUnregister(&a.entry)
	}
}
