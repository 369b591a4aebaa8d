package vfs

import (
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rename is renameat2(2).
func (v *VFS) Rename(ctx Context, oldStart Path, old string, newStart Path, new string, flags uint32) error {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE|unix.RENAME_WHITEOUT) != 0 {
		return unix.EINVAL
	}
	if flags&unix.RENAME_EXCHANGE != 0 && flags&(unix.RENAME_NOREPLACE|unix.RENAME_WHITEOUT) != 0 {
		return unix.EINVAL
	}
	if flags&unix.RENAME_WHITEOUT != 0 && !ctx.Credentials().HasCap(unix.CAP_MKNOD) {
		return unix.EPERM
	}
	return v.inParent(ctx, oldStart, old, func(w *walker, from Path) error {
		r := renamer{v: v, ctx: ctx, from: from, flags: flags, slashOld: w.mustDir, oldKind: w.lastKind}
		if w.lastKind == lastName {
			r.oldName = strings.Clone(w.last)
		}
		return v.inParent(ctx, newStart, new, func(w *walker, to Path) error {
			r.to, r.slashNew = to, w.mustDir
			if from.Mount != to.Mount {
				return unix.EXDEV
			}
			if r.oldKind != lastName {
				return unix.EBUSY
			}
			if w.lastKind != lastName {
				if flags&unix.RENAME_NOREPLACE != 0 {
					return unix.EEXIST
				}
				return unix.EBUSY
			}
			if from.Mount.ReadOnly() {
				return unix.EROFS
			}
			r.newName = strings.Clone(w.last)
			return r.run()
		})
	})
}

// renamer is the state of a rename.
type renamer struct {
	v                  *VFS
	ctx                Context
	from, to           Path // the directories
	oldName, newName   string
	slashOld, slashNew bool
	oldKind            lastKind
	flags              uint32
	src, dst           *Dentry // dst is nil if there is none
}

// lockDirs locks two directories of a file system, the ancestor first, and returns what unlocks them.
func lockDirs(a, b *Dentry) (unlock func()) {
	if a == b {
		a.dir.rw.Lock()
		return a.dir.rw.Unlock
	}
	mu := &a.sb.renameMu
	mu.Lock()
	x, y := a, b
	switch {
	case a.IsAncestorOf(b):
	case b.IsAncestorOf(a):
		x, y = b, a
	case uintptr(unsafe.Pointer(a)) > uintptr(unsafe.Pointer(b)):
		x, y = b, a
	}
	x.dir.rw.Lock()
	y.dir.rw.Lock()
	return func() {
		y.dir.rw.Unlock()
		x.dir.rw.Unlock()
		mu.Unlock()
	}
}

func (r *renamer) run() error {
	from, to := r.from.Dentry, r.to.Dentry
	unlock := lockDirs(from, to)
	defer unlock()
	src, err := r.v.lookupLocked(r.ctx, from, r.v.hashName(r.oldName), r.oldName)
	if err != nil {
		return err
	}
	defer src.DecRef()
	hash := r.v.hashName(r.newName)
	dst, err := r.v.lookupLocked(r.ctx, to, hash, r.newName)
	if err == nil {
		defer dst.DecRef()
	} else if err != unix.ENOENT {
		return err
	} else {
		dst = nil
	}
	r.src, r.dst = src, dst
	if err := r.check(); err != nil {
		return err
	}
	if dst != nil && dst.inode == src.inode {
		return nil
	}
	if err := r.permit(); err != nil {
		return err
	}
	ns := r.ctx.MountNS()
	if src.isMountpoint(ns) || dst != nil && dst.isMountpoint(ns) {
		return unix.EBUSY
	}
	var victim *Inode
	var victimLock *sync.RWMutex
	if dst != nil {
		victim = dst.inode
		if dst.dir != nil && r.flags&unix.RENAME_EXCHANGE == 0 {
			victimLock = &dst.dir.rw
			victimLock.Lock()
			defer victimLock.Unlock()
		}
	}
	if err := from.inode.ops.Rename(r.ctx, r.oldName, src.inode, to.inode, r.newName, victim, r.flags); err != nil {
		return err
	}
	r.moved(hash)
	return nil
}

// check finds what forbids the rename whoever asks.
func (r *renamer) check() error {
	src, dst := r.src, r.dst
	exchange := r.flags&unix.RENAME_EXCHANGE != 0
	if dst != nil && r.flags&unix.RENAME_NOREPLACE != 0 {
		return unix.EEXIST
	}
	if exchange {
		if dst == nil {
			return unix.ENOENT
		}
		if !dst.inode.IsDir() && r.slashNew {
			return unix.ENOTDIR
		}
	}
	if !src.inode.IsDir() && (r.slashOld || !exchange && r.slashNew) {
		return unix.ENOTDIR
	}
	// Neither may be moved below itself.
	if src.IsAncestorOf(r.to.Dentry) {
		return unix.EINVAL
	}
	if dst != nil && dst.IsAncestorOf(r.from.Dentry) {
		if exchange {
			return unix.EINVAL
		}
		return unix.ENOTEMPTY
	}
	return nil
}

// permit checks permissions and types.
func (r *renamer) permit() error {
	from, to := r.from.Dentry.inode, r.to.Dentry.inode
	src, dst := r.src, r.dst
	isDir := src.inode.IsDir()
	if err := mayDelete(r.ctx, from, src.inode, isDir); err != nil {
		return err
	}
	exchange := r.flags&unix.RENAME_EXCHANGE != 0
	if dst == nil {
		if err := mayCreate(r.ctx, r.to.Dentry); err != nil {
			return err
		}
	} else {
		asDir := isDir
		if exchange {
			asDir = dst.inode.IsDir()
		}
		if err := mayDelete(r.ctx, to, dst.inode, asDir); err != nil {
			return err
		}
	}
	if from != to {
		// ".." of a directory changes.
		if isDir {
			if err := CheckPermission(r.ctx, src.inode, MayWrite); err != nil {
				return err
			}
		}
		if exchange && dst.inode.IsDir() {
			if err := CheckPermission(r.ctx, dst.inode, MayWrite); err != nil {
				return err
			}
		}
	}
	return nil
}

// moved updates the cache and tells watchers.
func (r *renamer) moved(hash uint64) {
	from, to := r.from.Dentry, r.to.Dentry
	src, dst := r.src, r.dst
	exchange := r.flags&unix.RENAME_EXCHANGE != 0
	if src.inode.IsDir() || exchange && dst.inode.IsDir() {
		r.v.renameSeq.Add(1)
	}
	if dst != nil {
		dst.unhash()
	}
	src.unhash()
	if stale := to.cached(hash, r.newName); stale != nil && stale.TryIncRef() { // a negative entry
		stale.unhash()
		stale.DecRef()
	}
	src.relocate(to, r.newName, hash)
	if exchange {
		dst.relocate(from, r.oldName, r.v.hashName(r.oldName))
	} else if dst != nil {
		dst.flags.Or(dentryRemoved)
		if dst.inode.IsDir() {
			dst.inode.SetFlags(inodeDead)
		}
		r.v.detachMountsOn(dst)
	}
	r.notify(src, r.oldName, r.newName, from, to)
	if exchange {
		r.notify(dst, r.newName, r.oldName, to, from)
	} else if dst != nil && !dst.inode.IsDir() {
		dst.inode.notify(unix.IN_ATTRIB, 0, "", true)
	}
}

func (r *renamer) notify(d *Dentry, oldName, newName string, from, to *Dentry) {
	var dir uint32
	if d.inode.IsDir() {
		dir = inIsDir
	}
	cookie := r.v.moveCookie.Add(1)
	from.inode.notify(unix.IN_MOVED_FROM|dir, cookie, oldName, false)
	to.inode.notify(unix.IN_MOVED_TO|dir, cookie, newName, false)
	d.inode.notify(unix.IN_MOVE_SELF|dir, 0, "", false)
}

// relocate makes an unhashed, referenced dentry the child name of to. Both directories are locked.
func (d *Dentry) relocate(to *Dentry, name string, hash uint64) {
	old := d.loc.Load().parent
	l := &link{parent: to, name: name, hash: hash, d: d}
	if old != to {
		to.IncRef()
	}
	d.loc.Store(l)
	if to.inode.Flags()&InodeNoCache == 0 {
		to.dir.mu.Lock()
		to.insertLocked(l)
		d.flags.And(^dentryUnhashed)
		to.dir.mu.Unlock()
		d.sb.vfs.cache.grow()
	}
	if old != to {
		old.DecRef()
	}
}
