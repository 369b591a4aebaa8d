package vfs

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of xattr(7).
const (
	XattrNameMax = 255
	XattrSizeMax = 65536
	XattrListMax = 65536
)

// checkXattr vets the access to an attribute by its namespace.
func checkXattr(ctx Context, p Path, name string, write bool) error {
	i := p.Dentry.inode
	if write {
		if p.Mount.ReadOnly() {
			return unix.EROFS
		}
		if i.Flags()&(InodeImmutable|InodeAppendOnly) != 0 {
			return unix.EPERM
		}
	}
	ns, rest, ok := strings.Cut(name, ".")
	if !ok || rest == "" {
		return unix.EOPNOTSUPP
	}
	switch ns {
	case "security":
		if !write {
			return nil
		}
		if rest == "capability" {
			if !capableWrtInode(ctx.Credentials(), i, unix.CAP_SETFCAP) {
				return unix.EPERM
			}
			return nil
		}
		if !ctx.Credentials().HasCap(unix.CAP_SYS_ADMIN) {
			return unix.EPERM
		}
		return nil
	case "system":
		// Access control lists (acl(5)) are not supported by any file system here; programs then use the mode.
		return unix.EOPNOTSUPP
	case "trusted":
		c := ctx.Credentials()
		if c.HasCap(unix.CAP_SYS_ADMIN) && (c.UserNS == nil || c.UserNS.Parent == nil) {
			return nil
		}
		if write {
			return unix.EPERM
		}
		return unix.ENODATA
	case "user":
		switch i.Type() {
		case unix.S_IFREG, unix.S_IFDIR:
		default:
			if write {
				return unix.EPERM
			}
			return unix.ENODATA
		}
		if write && i.IsDir() && i.Mode()&unix.S_ISVTX != 0 && !OwnerOrCapable(ctx.Credentials(), i) {
			return unix.EPERM
		}
		if write {
			return CheckPermission(ctx, i, MayWrite)
		}
		return CheckPermission(ctx, i, MayRead)
	}
	return unix.EOPNOTSUPP
}

// GetXattr is getxattr(2) of a place.
func (v *VFS) GetXattr(ctx Context, p Path, name string) ([]byte, error) {
	if err := checkXattr(ctx, p, name, false); err != nil {
		return nil, err
	}
	return p.Dentry.inode.ops.GetXattr(ctx, name)
}

// SetXattr is setxattr(2) of a place.
func (v *VFS) SetXattr(ctx Context, p Path, name string, value []byte, flags uint32) error {
	if err := checkXattr(ctx, p, name, true); err != nil {
		return err
	}
	err := p.Dentry.inode.ops.SetXattr(ctx, name, value, flags)
	if err == nil {
		if name == fileCapability {
			p.Dentry.inode.ClearFlags(inodeNoCaps)
		}
		p.Dentry.Notify(unix.IN_ATTRIB)
	}
	return err
}

// RemoveXattr is removexattr(2) of a place.
func (v *VFS) RemoveXattr(ctx Context, p Path, name string) error {
	if err := checkXattr(ctx, p, name, true); err != nil {
		return err
	}
	err := p.Dentry.inode.ops.RemoveXattr(ctx, name)
	if err == nil {
		p.Dentry.Notify(unix.IN_ATTRIB)
	}
	return err
}

// ListXattr is listxattr(2) of a place: names of the trusted namespace are shown to the superuser only.
func (v *VFS) ListXattr(ctx Context, p Path) ([]string, error) {
	l, err := p.Dentry.inode.ops.ListXattr(ctx)
	if err != nil {
		return nil, err
	}
	c := ctx.Credentials()
	trusted := c.HasCap(unix.CAP_SYS_ADMIN) && (c.UserNS == nil || c.UserNS.Parent == nil)
	out := l[:0:0]
	for _, n := range l {
		if !strings.HasPrefix(n, "system.") && (trusted || !strings.HasPrefix(n, "trusted.")) {
			out = append(out, n)
		}
	}
	return out, nil
}

// fileCapability is the attribute with the capabilities of a program (capabilities(7)).
const fileCapability = "security.capability"

// dropFileCaps takes the capabilities of a file away, as each change of its contents or owner does.
func dropFileCaps(ctx Context, i *Inode) {
	if i.Flags()&inodeNoCaps != 0 || i.Type() != unix.S_IFREG {
		return
	}
	if _, err := i.ops.GetXattr(ctx, fileCapability); err == nil {
		_ = i.ops.RemoveXattr(ctx, fileCapability)
	}
	i.SetFlags(inodeNoCaps)
}
