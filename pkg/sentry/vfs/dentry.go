package vfs

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// dentryDead is far below zero, so that stray increments cannot revive a dead dentry.
const dentryDead = -1 << 30

// Dentry is a name in the cache together with its inode: the unit of which paths are made. The inode of a dentry never
// changes; a name that comes to mean something else gets a new dentry.
//
// References: open files, working directories, mounts and walks hold them; each child holds one on its parent. A
// dentry without references stays cached until the cache shrinks, or dies at once if its name is gone.
type Dentry struct {
	sb    *Superblock // immutable
	inode *Inode      // immutable; nil: the name does not exist (negative)
	loc   atomic.Pointer[link]
	dir   *dirData // immutable; nil unless a directory
	refs  atomic.Int32
	flags atomic.Uint32

	lruNext, lruPrev *Dentry // protected by dentryCache.mu
}

const (
	dentryUnhashed   uint32 = 1 << iota // the name is gone or was never cached
	dentryMounted                       // something is, or was, mounted here: look in the mount's children
	dentryReferenced                    // used since the cache last looked
	dentryOnLRU                         // protected by dentryCache.mu for writing
	dentryRemoved                       // unlinked or removed: paths to it say " (deleted)"
	dentryNamed                         // root of an anonymous file: its link's name is shown as it is ("pipe:[5]")
)

// link is where a dentry is: parent and name never change, a rename makes a new link. It is also the node of the parent's hash table.
type link struct {
	parent *Dentry
	name   string
	hash   uint64
	d      *Dentry
	next   atomic.Pointer[link]
}

// dirData is what only directories have.
type dirData struct {
	// rw is held for reading during a Lookup of the file system, for writing during changes of the directory.
	rw sync.RWMutex
	// mu protects changes of the table; readers take no lock.
	mu    sync.Mutex
	tab   atomic.Pointer[hashTable]
	count int // protected by mu
}

type hashTable struct {
	buckets []atomic.Pointer[link] // length is a power of two
}

func newDentry(sb *Superblock, inode *Inode, parent *Dentry, name string) *Dentry {
	d := &Dentry{sb: sb, inode: inode}
	l := &link{parent: parent, name: name, d: d}
	d.loc.Store(l)
	if inode != nil && inode.IsDir() {
		d.dir = &dirData{}
	}
	d.flags.Store(dentryUnhashed)
	return d
}

// Inode is the file; nil for a negative dentry.
func (d *Dentry) Inode() *Inode { return d.inode }

// Superblock is the file system.
func (d *Dentry) Superblock() *Superblock { return d.sb }

// Name is the last component of the path; "/" for the root of a file system.
func (d *Dentry) Name() string { return d.loc.Load().name }

// Parent is the directory; the root of a file system is its own parent.
func (d *Dentry) Parent() *Dentry {
	if p := d.loc.Load().parent; p != nil {
		return p
	}
	return d
}

// isRoot tells whether d is the root of a file system.
func (d *Dentry) isRoot() bool { return d.loc.Load().parent == nil }

// Removed tells whether the name was deleted.
func (d *Dentry) Removed() bool { return d.flags.Load()&dentryRemoved != 0 }

// IsAncestorOf tells whether d is other or above it in the same file system. Stable only under renameMu.
func (d *Dentry) IsAncestorOf(other *Dentry) bool {
	for other != nil {
		if other == d {
			return true
		}
		other = other.loc.Load().parent
	}
	return false
}

// IncRef takes a reference; the caller already holds one.
func (d *Dentry) IncRef() { d.refs.Add(1) }

// TryIncRef takes a reference unless the dentry is dead.
func (d *Dentry) TryIncRef() bool {
	for {
		n := d.refs.Load()
		if n < 0 {
			return false
		}
		if d.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// DecRef drops a reference.
func (d *Dentry) DecRef() {
	n := d.refs.Add(-1)
	if n > 0 {
		return
	}
	if n < 0 {
		panic("vfs: dentry reference count below zero")
	}
	f := d.flags.Load()
	if f&dentryUnhashed != 0 {
		d.kill()
		return
	}
	if f&dentryReferenced == 0 {
		d.flags.Or(dentryReferenced)
	}
	if f&dentryOnLRU == 0 {
		d.sb.vfs.cache.add(d)
	}
}

// kill ends an unhashed dentry without references.
func (d *Dentry) kill() {
	if d.refs.CompareAndSwap(0, dentryDead) {
		d.bury()
	}
}

// bury lets go of what a dead dentry held: its inode and its parent, which may die of it.
func (d *Dentry) bury() {
	for {
		if d.flags.Load()&dentryOnLRU != 0 {
			d.sb.vfs.cache.remove(d)
		}
		if d.inode != nil {
			if d.inode.Flags()&inodeWatched != 0 && d.Removed() {
				d.inode.removed()
			}
			d.inode.DecRef()
		}
		p := d.loc.Load().parent
		if p == nil || p.refs.Add(-1) > 0 {
			return
		}
		if f := p.flags.Load(); f&dentryUnhashed == 0 {
			if f&dentryOnLRU == 0 {
				p.sb.vfs.cache.add(p)
			}
			return
		}
		if !p.refs.CompareAndSwap(0, dentryDead) {
			return
		}
		d = p
	}
}

// hashName hashes a component.
func (v *VFS) hashName(name string) uint64 { return maphash.String(v.seed, name) }

// cached finds a child in the cache without locks and without a reference: nil if it is not cached.
func (d *Dentry) cached(hash uint64, name string) *Dentry {
	if l := d.link(hash, name); l != nil {
		return l.d
	}
	return nil
}

// link is cached for the entry of the table.
func (d *Dentry) link(hash uint64, name string) *link {
	t := d.dir.tab.Load()
	if t == nil {
		return nil
	}
	for l := t.buckets[hash&uint64(len(t.buckets)-1)].Load(); l != nil; l = l.next.Load() {
		if l.hash == hash && l.name == name {
			return l
		}
	}
	return nil
}

// keptName is name in memory that lasts, which name need not.
func (d *Dentry) keptName(hash uint64, name string) string {
	if l := d.link(hash, name); l != nil {
		return l.name
	}
	return strings.Clone(name)
}

// insertLocked enters l. d.dir.mu is held, and no child of that name is there.
func (d *Dentry) insertLocked(l *link) {
	t := d.dir.tab.Load()
	switch {
	case t == nil:
		t = &hashTable{buckets: make([]atomic.Pointer[link], 4)}
		d.dir.tab.Store(t)
	case d.dir.count >= 2*len(t.buckets):
		t = t.rebuild(4 * len(t.buckets))
		d.dir.tab.Store(t)
	}
	b := &t.buckets[l.hash&uint64(len(t.buckets)-1)]
	l.next.Store(b.Load())
	b.Store(l)
	d.dir.count++
}

// rebuild makes a table of n buckets with new links, so that readers of the old one are not disturbed.
func (t *hashTable) rebuild(n int) *hashTable {
	u := &hashTable{buckets: make([]atomic.Pointer[link], n)}
	for i := range t.buckets {
		for l := t.buckets[i].Load(); l != nil; l = l.next.Load() {
			c := &link{parent: l.parent, name: l.name, hash: l.hash, d: l.d}
			b := &u.buckets[c.hash&uint64(n-1)]
			c.next.Store(b.Load())
			b.Store(c)
			l.d.loc.CompareAndSwap(l, c)
		}
	}
	return u
}

// removeLocked takes child out of the table. d.dir.mu is held.
func (d *Dentry) removeLocked(child *Dentry) {
	l := child.loc.Load()
	t := d.dir.tab.Load()
	if t == nil {
		return
	}
	p := &t.buckets[l.hash&uint64(len(t.buckets)-1)]
	for q := p.Load(); q != nil; q = p.Load() {
		if q.d == child {
			p.Store(q.next.Load())
			d.dir.count--
			if n := len(t.buckets); n > 16 && d.dir.count < n/8 {
				d.dir.tab.Store(t.rebuild(n / 4))
			}
			return
		}
		p = &q.next
	}
}

// addChild enters a new dentry for name, whose inode's reference passes to it, and returns it with a reference.
// If there is a child of that name already (a concurrent lookup was faster) that one is returned and inode dropped.
// d.dir.rw is held. d has a reference. With cache false the dentry is linked to its parent but not entered.
func (d *Dentry) addChild(hash uint64, name string, inode *Inode, cache bool) *Dentry {
	if !cache {
		c := newDentry(d.sb, inode, d, name)
		c.refs.Store(1)
		d.refs.Add(1)
		return c
	}
	d.dir.mu.Lock()
	for {
		old := d.cached(hash, name)
		if old == nil {
			break
		}
		if old.TryIncRef() {
			if old.inode != nil || inode == nil {
				d.dir.mu.Unlock()
				if inode != nil {
					inode.DecRef()
				}
				return old
			}
			// A negative entry that came true.
			d.unhashLocked(old)
			d.dir.mu.Unlock()
			old.DecRef()
			d.dir.mu.Lock()
			continue
		}
		d.unhashLocked(old)
	}
	c := newDentry(d.sb, inode, d, name)
	c.refs.Store(1)
	c.flags.Store(0)
	d.refs.Add(1)
	l := c.loc.Load()
	l.hash = hash
	d.insertLocked(l)
	d.dir.mu.Unlock()
	d.sb.vfs.cache.grow()
	return c
}

// unhashLocked takes child out of the cache; d.dir.mu is held. The child dies with its last reference.
func (d *Dentry) unhashLocked(child *Dentry) {
	if child.flags.Load()&dentryUnhashed != 0 {
		return
	}
	child.flags.Or(dentryUnhashed)
	d.removeLocked(child)
	d.sb.vfs.cache.count.Add(-1)
}

// unhash takes d out of its parent's table.
func (d *Dentry) unhash() {
	for {
		p := d.loc.Load().parent
		if p == nil {
			return
		}
		p.dir.mu.Lock()
		if d.loc.Load().parent == p {
			p.unhashLocked(d)
			p.dir.mu.Unlock()
			return
		}
		p.dir.mu.Unlock()
	}
}

// forget drops the cached child name of d if nobody uses it, so that the next walk looks it up again. For file systems whose
// contents change by themselves.
func (d *Dentry) forget(name string) {
	if d.dir == nil {
		return
	}
	if c := d.cached(d.sb.vfs.hashName(name), name); c != nil && c.TryIncRef() {
		c.unhash()
		c.DecRef()
	}
}

// ForgetChild drops the cached child name of the directory, as when a dynamic file system removed it.
func (d *Dentry) ForgetChild(name string) { d.forget(strings.Clone(name)) }

// children returns the cached children.
func (d *Dentry) children() (list []*Dentry) {
	if d.dir == nil {
		return nil
	}
	d.dir.mu.Lock()
	defer d.dir.mu.Unlock()
	t := d.dir.tab.Load()
	if t == nil {
		return nil
	}
	for i := range t.buckets {
		for l := t.buckets[i].Load(); l != nil; l = l.next.Load() {
			list = append(list, l.d)
		}
	}
	return list
}

// killTree throws away the dentries of a file system that nobody uses any more. d is its root, with one reference.
func (d *Dentry) killTree() {
	type frame struct {
		d    *Dentry
		todo []*Dentry
	}
	stack := []frame{{d, d.children()}}
	for len(stack) > 0 {
		f := &stack[len(stack)-1]
		if n := len(f.todo); n > 0 {
			c := f.todo[n-1]
			f.todo = f.todo[:n-1]
			if c.TryIncRef() {
				stack = append(stack, frame{c, c.children()})
			}
			continue
		}
		if f.d != d {
			f.d.unhash()
		} else {
			d.flags.Or(dentryUnhashed)
		}
		f.d.DecRef()
		stack = stack[:len(stack)-1]
	}
}

// dentryCache bounds the number of cached dentries that nobody uses.
type dentryCache struct {
	max   atomic.Int64
	count atomic.Int64 // hashed dentries, used or not

	mu         sync.Mutex
	head, tail *Dentry // protected by mu: head was added last
	length     int     // protected by mu
}

func (c *dentryCache) add(d *Dentry) {
	c.mu.Lock()
	// A dead dentry must not come back: kill removes under mu after it is dead.
	if d.flags.Load()&dentryOnLRU == 0 && d.refs.Load() >= 0 {
		d.flags.Or(dentryOnLRU)
		c.pushLocked(d)
	}
	c.mu.Unlock()
}

func (c *dentryCache) pushLocked(d *Dentry) {
	d.lruPrev, d.lruNext = nil, c.head
	if c.head != nil {
		c.head.lruPrev = d
	} else {
		c.tail = d
	}
	c.head = d
	c.length++
}

func (c *dentryCache) unlinkLocked(d *Dentry) {
	if d.lruPrev != nil {
		d.lruPrev.lruNext = d.lruNext
	} else {
		c.head = d.lruNext
	}
	if d.lruNext != nil {
		d.lruNext.lruPrev = d.lruPrev
	} else {
		c.tail = d.lruPrev
	}
	d.lruNext, d.lruPrev = nil, nil
	c.length--
}

func (c *dentryCache) remove(d *Dentry) {
	c.mu.Lock()
	if d.flags.Load()&dentryOnLRU != 0 {
		d.flags.And(^dentryOnLRU)
		c.unlinkLocked(d)
	}
	c.mu.Unlock()
}

// grow counts a new dentry and evicts when there are too many.
func (c *dentryCache) grow() {
	if c.count.Add(1) > c.max.Load() {
		c.shrink(16)
	}
}

// shrink evicts up to n unused dentries, looking at no more than 4n.
func (c *dentryCache) shrink(n int) {
	for look := 4 * n; look > 0 && n > 0; look-- {
		c.mu.Lock()
		d := c.tail
		if d == nil {
			c.mu.Unlock()
			return
		}
		c.unlinkLocked(d)
		f := d.flags.Load()
		if f&dentryReferenced != 0 && d.refs.Load() == 0 {
			d.flags.And(^dentryReferenced)
			c.pushLocked(d)
			c.mu.Unlock()
			continue
		}
		// One that is in use leaves the list; it comes back with the last DecRef.
		d.flags.And(^dentryOnLRU)
		c.mu.Unlock()
		if d.evict() {
			n--
		}
	}
}

// pinned tells whether the inode has state that would be lost with it: watches, a bound socket, an open FIFO.
func (d *Dentry) pinned() bool {
	return d.inode != nil && d.inode.Flags()&(inodeWatched|inodeSlots) != 0
}

// ForgetTree drops the cached names below d that nobody uses: the file system was changed behind the cache.
func (d *Dentry) ForgetTree() {
	for _, c := range d.children() {
		if !c.TryIncRef() {
			continue
		}
		c.ForgetTree()
		if c.refs.Load() == 1 && !c.pinned() && c.flags.Load()&dentryMounted == 0 {
			c.unhash()
		}
		c.DecRef()
	}
}

// evict drops d from the cache if it has no references. It dies before it leaves the table, so that nobody can use it and a second
// dentry of the same directory at once.
func (d *Dentry) evict() bool {
	p := d.loc.Load().parent
	if p == nil {
		return false
	}
	p.dir.mu.Lock()
	if d.loc.Load().parent != p || d.flags.Load()&(dentryUnhashed|dentryMounted) != 0 || d.pinned() || !d.refs.CompareAndSwap(0, dentryDead) {
		p.dir.mu.Unlock()
		return false
	}
	p.unhashLocked(d)
	p.dir.mu.Unlock()
	d.bury()
	return true
}
