package vfs

// Path is a place in the tree of mounts: a dentry as seen through a mount. It is a value; who keeps one holds a
// reference on both parts.
type Path struct {
	Mount  *Mount
	Dentry *Dentry
}

// IsZero tells whether p is no place.
func (p Path) IsZero() bool { return p.Dentry == nil }

// Inode is the inode of the place.
func (p Path) Inode() *Inode { return p.Dentry.inode }

// IncRef takes a reference on both parts.
func (p Path) IncRef() {
	if p.Dentry != nil {
		p.Mount.IncRef()
		p.Dentry.IncRef()
	}
}

// TryIncRef takes a reference unless one of the parts is gone.
func (p Path) TryIncRef() bool {
	if !p.Mount.TryIncRef() {
		return false
	}
	if !p.Dentry.TryIncRef() {
		p.Mount.DecRef()
		return false
	}
	return true
}

// DecRef drops the reference.
func (p Path) DecRef() {
	if p.Dentry != nil {
		p.Dentry.DecRef()
		p.Mount.DecRef()
	}
}
