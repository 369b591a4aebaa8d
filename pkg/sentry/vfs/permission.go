package vfs

import (
	"husk/pkg/sentry/auth"

	"golang.org/x/sys/unix"
)

// CheckPermission checks mask (MayRead, MayWrite, MayExec) on an inode by its mode bits, the caller's capabilities and the file system's own
// rules. EACCES; EPERM for immutable inodes.
func CheckPermission(ctx Context, i *Inode, mask uint32) error {
	return checkPermission(ctx, ctx.Credentials(), i, mask)
}

func checkPermission(ctx Context, c *auth.Credentials, i *Inode, mask uint32) error {
	f := i.Flags()
	if mask&MayWrite != 0 && f&InodeImmutable != 0 {
		return unix.EPERM
	}
	if f&InodeCustomPermission != 0 {
		return i.ops.(PermissionChecker).CheckPermission(ctx, mask)
	}
	return CheckMode(c, i, mask)
}

// CheckMode checks mask by mode bits and capabilities alone (path_resolution(7), "Permissions").
func CheckMode(c *auth.Credentials, i *Inode, mask uint32) error {
	mode := i.Mode()
	perm := mode
	if c.FSUID == i.UID() {
		perm >>= 6
	} else if perm>>3&7 != perm&7 && c.InGroup(i.GID()) {
		perm >>= 3
	}
	if mask&^perm&7 == 0 {
		return nil
	}
	dir := mode&unix.S_IFMT == unix.S_IFDIR
	if dir {
		if mask&MayWrite == 0 && capableWrtInode(c, i, unix.CAP_DAC_READ_SEARCH) {
			return nil
		}
		if capableWrtInode(c, i, unix.CAP_DAC_OVERRIDE) {
			return nil
		}
		return unix.EACCES
	}
	if mask&7 == MayRead && capableWrtInode(c, i, unix.CAP_DAC_READ_SEARCH) {
		return nil
	}
	// The superuser may execute a file only if somebody may.
	if (mask&MayExec == 0 || mode&0111 != 0) && capableWrtInode(c, i, unix.CAP_DAC_OVERRIDE) {
		return nil
	}
	return unix.EACCES
}

// capableWrtInode tells whether c has the capability over the inode: its owner and group must exist in c's user namespace.
func capableWrtInode(c *auth.Credentials, i *Inode, capability int) bool {
	if !c.Effective.Has(capability) {
		return false
	}
	if c.UserNS == nil || c.UserNS.Parent == nil {
		return true
	}
	_, uok := c.UserNS.UID(i.UID())
	_, gok := c.UserNS.GID(i.GID())
	return uok && gok
}

// CapableWrtInode is capableWrtInode for file systems.
func CapableWrtInode(c *auth.Credentials, i *Inode, capability int) bool {
	return capableWrtInode(c, i, capability)
}

// OwnerOrCapable tells whether the caller owns the inode or has CAP_FOWNER over it.
func OwnerOrCapable(c *auth.Credentials, i *Inode) bool {
	return c.FSUID == i.UID() || capableWrtInode(c, i, unix.CAP_FOWNER)
}

// checkSticky gives EPERM where the sticky bit of dir keeps c from removing or renaming victim.
func checkSticky(c *auth.Credentials, dir, victim *Inode) error {
	if dir.Mode()&unix.S_ISVTX == 0 || c.FSUID == victim.UID() || c.FSUID == dir.UID() {
		return nil
	}
	if capableWrtInode(c, victim, unix.CAP_FOWNER) {
		return nil
	}
	return unix.EPERM
}

// mayDelete checks that the caller may remove victim from dir. isDir says what the caller wants to remove.
func mayDelete(ctx Context, dir, victim *Inode, isDir bool) error {
	if err := CheckPermission(ctx, dir, MayWrite|MayExec); err != nil {
		return err
	}
	if dir.Flags()&InodeAppendOnly != 0 {
		return unix.EPERM
	}
	if err := checkSticky(ctx.Credentials(), dir, victim); err != nil {
		return err
	}
	if victim.Flags()&(InodeImmutable|InodeAppendOnly) != 0 {
		return unix.EPERM
	}
	if isDir && !victim.IsDir() {
		return unix.ENOTDIR
	}
	if !isDir && victim.IsDir() {
		return unix.EISDIR
	}
	return nil
}

// initMode gives the mode and group of a new inode in dir: umask, set-group-ID directories.
func initMode(ctx Context, dir *Inode, a *CreateArgs) {
	c := ctx.Credentials()
	a.UID, a.GID = c.FSUID, c.FSGID
	if dir.Mode()&unix.S_ISGID == 0 {
		return
	}
	a.GID = dir.GID()
	switch {
	case a.Mode&unix.S_IFMT == unix.S_IFDIR:
		a.Mode |= unix.S_ISGID
	case a.Mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP && !c.InGroup(a.GID) && !capableWrtInode(c, dir, unix.CAP_FSETID):
		a.Mode &^= unix.S_ISGID
	}
}
