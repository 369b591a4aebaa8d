package overlay

import (
	"strings"
	"sync"
	"sync/atomic"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// part is what a layer contributes to an inode, with a reference.
type part struct {
	*vfs.Inode
	layer int // index in Layers.Lower
}

// inode is a file or directory of the overlay.
type inode struct {
	vfs.Inode
	fs *fileSystem // immutable
	// parent and name are where the inode was found, and where its lower parts are, unless redirect names another place. A move, before which an
	// inode is copied up, changes neither: immutable.
	parent   *inode
	name     string
	redirect string
	upper    atomic.Pointer[vfs.Inode] // nil until copied up; a reference; set under copyMu
	lower    []part                    // immutable; directories may have several

	copyMu  sync.Mutex
	upperMu sync.Mutex // directories: held while the directory in the upper layer is changed

	absentMu sync.Mutex
	// absent are names that are known not to be in the lower directories; protected by absentMu.
	absent map[string]struct{}

	// mappings are those that were made before a copy up.
	mappings mm.MappingSet
	lowerMap atomic.Pointer[mm.Mappable] // of the lower file, for mappings
	upperMap atomic.Pointer[mm.Mappable] // of the upper file, for mappings that were made before the copy up
}

// maxAbsent bounds the names that a directory remembers.
const maxAbsent = 1024

// newInode makes an inode, or finds the one that has the upper part already. The references pass to it, and it has one for the caller.
func (f *fileSystem) newInode(parent *inode, name, redirect string, upper *vfs.Inode, lower []part) *inode {
	top, layer := upper, -1
	if top == nil {
		top, layer = lower[0].Inode, lower[0].layer
	}
	i := &inode{fs: f, parent: parent, name: name, redirect: redirect, lower: lower}
	var flags vfs.InodeFlags
	if top.IsDir() {
		flags = vfs.InodeNegative
		for _, l := range lower {
			if l.Flags()&vfs.InodeBatch != 0 {
				flags |= vfs.InodeBatch
			}
		}
	}
	ino := f.number(layer, top.Ino())
	if upper != nil {
		i.upper.Store(upper)
		if !upper.IsDir() {
			f.mu.Lock()
			if old := f.uppers[upper]; old != nil && old.TryIncRef() {
				f.mu.Unlock()
				upper.DecRef()
				return old
			}
			i.Init(i, f.sb, ino, top.Mode(), top.UID(), top.GID(), flags)
			f.uppers[upper] = i
			f.mu.Unlock()
			return i
		}
		if len(lower) > 0 {
			ino = f.number(lower[0].layer, lower[0].Ino())
		}
	}
	i.Init(i, f.sb, ino, top.Mode(), top.UID(), top.GID(), flags)
	return i
}

// Release implements vfs.InodeOps.
func (i *inode) Release() {
	if u := i.upper.Load(); u != nil {
		if !u.IsDir() {
			i.fs.mu.Lock()
			if i.fs.uppers[u] == i {
				delete(i.fs.uppers, u)
			}
			i.fs.mu.Unlock()
		}
		u.DecRef()
	}
	for _, l := range i.lower {
		l.DecRef()
	}
}

// top is the inode that has the attributes and the data.
func (i *inode) top() *vfs.Inode {
	if u := i.upper.Load(); u != nil {
		return u
	}
	return i.lower[0].Inode
}

// knownAbsent tells whether no lower directory has name, as far as is known.
func (i *inode) knownAbsent(name string) bool {
	if len(i.lower) == 0 {
		return true
	}
	i.absentMu.Lock()
	defer i.absentMu.Unlock()
	_, ok := i.absent[name]
	return ok
}

func (i *inode) noteAbsent(name string) {
	i.absentMu.Lock()
	if i.absent == nil || len(i.absent) >= maxAbsent {
		i.absent = map[string]struct{}{}
	}
	i.absent[name] = struct{}{}
	i.absentMu.Unlock()
}

// lookupUpper finds name in the upper directory: nil if it is not there. white tells that a whiteout is.
func (i *inode) lookupUpper(ctx vfs.Context, name string) (u *vfs.Inode, white bool, err error) {
	up := i.upper.Load()
	if up == nil {
		return nil, false, nil
	}
	u, err = up.Ops().Lookup(ctx, name)
	if err == unix.ENOENT {
		return nil, false, nil
	}
	if err == nil && isWhiteout(ctx, u) {
		u.DecRef()
		return nil, true, nil
	}
	return u, false, err
}

// lowerSearch finds the lower parts of name in the directory i. dirOnly: an upper directory is there, with which only directories merge.
// found gives the results of a batch lookup for the layers in i.lower, or is nil.
func (i *inode) lowerSearch(ctx vfs.Context, name string, dirOnly bool, found []batch, depth int) ([]part, error) {
	return i.fs.search(ctx, i.lower, name, dirOnly, found, depth)
}

// search is lowerSearch in the directory that the parts in make up.
func (f *fileSystem) search(ctx vfs.Context, in []part, name string, dirOnly bool, found []batch, depth int) (parts []part, err error) {
	for k, l := range in {
		var c *vfs.Inode
		var err error
		if found != nil {
			c, err = found[k].take(depth)
		} else {
			c, err = l.Ops().Lookup(ctx, name)
		}
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue
		}
		if err != nil {
			for _, p := range parts {
				p.DecRef()
			}
			return nil, err
		}
		last := l.layer == len(f.layers.Lower)-1
		if !last && isWhiteout(ctx, c) {
			c.DecRef()
			break
		}
		if !c.IsDir() {
			if len(parts) > 0 || dirOnly {
				c.DecRef()
				break
			}
			return []part{{c, l.layer}}, nil
		}
		parts = append(parts, part{c, l.layer})
		if !last && isOpaque(ctx, c) {
			break
		}
	}
	return parts, nil
}

// child makes the inode of a name from its parts; ENOENT if there are none.
func (i *inode) child(name string, upper *vfs.Inode, lower []part) (*vfs.Inode, error) {
	if upper == nil && len(lower) == 0 {
		return nil, unix.ENOENT
	}
	return &i.fs.newInode(i, name, "", upper, lower).Inode, nil
}

// Lookup implements vfs.InodeOps.
func (i *inode) Lookup(ctx vfs.Context, name string) (*vfs.Inode, error) {
	if !i.IsDir() {
		return nil, unix.ENOTDIR
	}
	u, white, err := i.lookupUpper(ctx, name)
	if err != nil {
		return nil, err
	}
	if white {
		return nil, unix.ENOENT
	}
	if r := redirectOf(ctx, u); r != "" {
		return i.redirected(ctx, name, u, r)
	}
	var lower []part
	if (u == nil || u.IsDir() && !isOpaque(ctx, u)) && !i.knownAbsent(name) {
		if lower, err = i.lowerSearch(ctx, name, u != nil, nil, 0); err != nil {
			if u != nil {
				u.DecRef()
			}
			return nil, err
		}
		if len(lower) == 0 && u == nil {
			i.noteAbsent(name)
		}
	}
	return i.child(name, u, lower)
}

// batch is the result of a batch lookup in one layer.
type batch struct {
	inodes []*vfs.Inode // taken ones are nil
	err    error
}

// take hands out the inode at depth.
func (b *batch) take(depth int) (*vfs.Inode, error) {
	if depth < len(b.inodes) {
		c := b.inodes[depth]
		b.inodes[depth] = nil
		if c != nil {
			return c, nil
		}
		return nil, unix.ENOENT
	}
	if depth == len(b.inodes) && b.err != nil {
		return nil, b.err
	}
	return nil, unix.ENOENT
}

func (b *batch) drop() {
	for _, c := range b.inodes {
		if c != nil {
			c.DecRef()
		}
	}
}

// LookupMany implements vfs.BatchLookup: one round trip for each lower layer.
func (i *inode) LookupMany(ctx vfs.Context, names []string) (out []*vfs.Inode, err error) {
	u, white, err := i.lookupUpper(ctx, names[0])
	if err != nil {
		return nil, err
	}
	if white {
		return nil, unix.ENOENT
	}
	redirect := redirectOf(ctx, u)
	if redirect != "" || u != nil && (!u.IsDir() || isOpaque(ctx, u)) || i.knownAbsent(names[0]) || len(i.lower) == 0 {
		var c *vfs.Inode
		if redirect != "" {
			c, err = i.redirected(ctx, names[0], u, redirect)
		} else {
			c, err = i.child(names[0], u, nil)
		}
		if err != nil {
			return nil, err
		}
		return []*vfs.Inode{c}, nil
	}
	found := make([]batch, len(i.lower))
	for k, l := range i.lower {
		if b, ok := l.Ops().(vfs.BatchLookup); ok && l.Flags()&vfs.InodeBatch != 0 {
			found[k].inodes, found[k].err = b.LookupMany(ctx, names)
		} else if c, err := l.Ops().Lookup(ctx, names[0]); err == nil {
			found[k].inodes = []*vfs.Inode{c}
		} else {
			found[k].err = err
		}
	}
	defer func() {
		for k := range found {
			found[k].drop()
		}
	}()
	at := i
	for depth, name := range names {
		if depth > 0 {
			if u, white, err = at.lookupUpper(ctx, name); err != nil {
				return out, err
			}
			if white {
				return out, unix.ENOENT
			}
			if r := redirectOf(ctx, u); r != "" {
				c, err := at.redirected(ctx, name, u, r)
				if err == nil {
					out = append(out, c)
				}
				return out, err
			}
		}
		var lower []part
		if u == nil || u.IsDir() && !isOpaque(ctx, u) {
			if lower, err = at.lowerSearch(ctx, name, u != nil, found, depth); err != nil {
				if u != nil {
					u.DecRef()
				}
				return out, err
			}
			if len(lower) == 0 && u == nil {
				at.noteAbsent(name)
			}
		}
		c, err := at.child(name, u, lower)
		if err != nil {
			return out, err
		}
		out = append(out, c)
		next := c.Ops().(*inode)
		if !c.IsDir() {
			break
		}
		// Results belong to the layers of the first directory: the next one must have the same or fewer, in order.
		kept := found[:0:0]
		k := 0
		for _, l := range next.lower {
			for k < len(at.lower) && at.lower[k].layer != l.layer {
				found[k].drop()
				found[k].inodes = nil
				k++
			}
			kept = append(kept, found[k])
			found[k].inodes = nil
			k++
		}
		for k := range found {
			found[k].drop()
		}
		found = kept
		at = next
		known := false
		for k := range found {
			known = known || depth+1 < len(found[k].inodes) || found[k].err != nil
		}
		if !known && len(next.lower) > 0 || depth+1 < len(names) && !complete(found, depth+1) {
			break
		}
	}
	return out, nil
}

// complete tells whether the results answer for the given depth in every layer.
func complete(found []batch, depth int) bool {
	for k := range found {
		if b := &found[k]; depth > len(b.inodes) || depth == len(b.inodes) && b.err == nil {
			return false
		}
	}
	return true
}

// Readlink implements vfs.InodeOps.
func (i *inode) Readlink(ctx vfs.Context) (string, error) { return i.top().Ops().Readlink(ctx) }

// Stat implements vfs.InodeOps.
func (i *inode) Stat(ctx vfs.Context, mask uint32, st *vfs.Stat) error {
	if err := i.top().Ops().Stat(ctx, mask, st); err != nil {
		return err
	}
	st.Ino, st.Dev = i.Ino(), i.fs.sb.Dev()
	if i.IsDir() && len(i.lower) > 0 && (len(i.lower) > 1 || i.upper.Load() != nil) {
		st.Nlink = 1
	}
	return nil
}

// TouchAtime implements vfs.AtimeToucher: reading does not copy up.
func (i *inode) TouchAtime(relatime bool) {
	if u := i.upper.Load(); u != nil {
		if a, ok := u.Ops().(vfs.AtimeToucher); ok {
			a.TouchAtime(relatime)
		}
	}
}

// SetStat implements vfs.InodeOps.
func (i *inode) SetStat(ctx vfs.Context, s *vfs.SetStat) error {
	if err := i.copyUp(ctx, s.Mask&vfs.SetSize == 0 || s.Size != 0); err != nil {
		return err
	}
	u := i.upper.Load()
	if err := u.Ops().SetStat(ctx, s); err != nil {
		return err
	}
	i.publish(u)
	if s.Mask&vfs.SetSize != 0 {
		i.invalidate(uint64(s.Size), 0, true)
	}
	return nil
}

// invalidate makes mappings that were made before the copy up forget pages.
func (i *inode) invalidate(off, n uint64, private bool) {
	const mask = 4095
	start := (off + mask) &^ mask
	if n != 0 {
		if end := (off + n) &^ mask; end > start {
			n = end - start
		} else {
			return
		}
	}
	i.mappings.Invalidate(i, start, n, private)
}

// publish takes over the attributes that vfs checks.
func (i *inode) publish(u *vfs.Inode) {
	i.SetMode(u.Mode())
	i.SetUID(u.UID())
	i.SetGID(u.GID())
}

// GetXattr implements vfs.InodeOps.
func (i *inode) GetXattr(ctx vfs.Context, name string) ([]byte, error) {
	if strings.HasPrefix(name, xattrPrefix) {
		return nil, unix.EOPNOTSUPP
	}
	return i.top().Ops().GetXattr(ctx, name)
}

// ListXattr implements vfs.InodeOps.
func (i *inode) ListXattr(ctx vfs.Context) ([]string, error) {
	l, err := i.top().Ops().ListXattr(ctx)
	out := l[:0:0]
	for _, n := range l {
		if !strings.HasPrefix(n, xattrPrefix) {
			out = append(out, n)
		}
	}
	return out, err
}

// SetXattr implements vfs.InodeOps.
func (i *inode) SetXattr(ctx vfs.Context, name string, value []byte, flags uint32) error {
	if strings.HasPrefix(name, xattrPrefix) {
		return unix.EOPNOTSUPP
	}
	if err := i.copyUp(ctx, true); err != nil {
		return err
	}
	return i.upper.Load().Ops().SetXattr(ctx, name, value, flags)
}

// RemoveXattr implements vfs.InodeOps.
func (i *inode) RemoveXattr(ctx vfs.Context, name string) error {
	if strings.HasPrefix(name, xattrPrefix) {
		return unix.EOPNOTSUPP
	}
	if _, err := i.GetXattr(ctx, name); err != nil {
		return err
	}
	if err := i.copyUp(ctx, true); err != nil {
		return err
	}
	return i.upper.Load().Ops().RemoveXattr(ctx, name)
}
