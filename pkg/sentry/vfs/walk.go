package vfs

import (
	"runtime"
	"strings"

	"husk/pkg/sentry/auth"

	"golang.org/x/sys/unix"
)

// LookupFlags refine a walk.
type LookupFlags uint32

// The flags of walks.
const (
	// FollowLast follows a symlink as the last component.
	FollowLast LookupFlags = 1 << iota
	// EmptyPath makes "" mean the start (AT_EMPTY_PATH).
	EmptyPath
	// MustBeDir gives ENOTDIR for anything else.
	MustBeDir
	// NoMagicLinks to CachedOnly are the RESOLVE_* flags of openat2(2).
	NoMagicLinks
	NoSymlinks
	Beneath
	InRoot
	NoXDev
	CachedOnly

	// walkParent stops in front of the last component.
	walkParent
	scoped = Beneath | InRoot
)

const (
	nameMax  = 255
	pathMax  = 4096
	maxLinks = 40 // path_resolution(7)
)

// errRestart makes a walk start again: a place died before it could be referenced.
const errRestart = unix.Errno(0x7fff)

// lastKind is what the last component of a parent walk is.
type lastKind uint8

const (
	lastName   lastKind = iota
	lastDot             // "."
	lastDotDot          // ".."
	lastRoot            // "/" or ""
)

// walker is the state of a walk. It lives on the stack of the caller, or comes from a pool.
type walker struct {
	v     *VFS
	ctx   Context
	creds *auth.Credentials
	flags LookupFlags
	root  Path // no reference: the task's, or the start's
	start Path // no reference: the caller's

	cur     Path    // where the walk is; a reference only as far as held and heldMnt say
	held    *Dentry // nil, or cur.Dentry with a reference
	heldMnt *Mount  // nil, or a mount that a magic link led to, with a reference

	rest     string           // components still to go
	stack    [maxLinks]string // what follows after the symlinks that are being resolved
	depth    int
	links    int
	mustDir  bool // a slash followed the last component
	last     string
	lastKind lastKind
	made     CreateArgs // of what is to be made of the last component: here, it need not be allocated

	mountSeq, renameSeq uint64
}

func (w *walker) init(v *VFS, ctx Context, start Path, flags LookupFlags) {
	w.v, w.ctx, w.flags, w.start = v, ctx, flags, start
	w.creds = ctx.Credentials()
}

// walker takes a walker from a pool, for walks whose state would not stay on the stack.
func (v *VFS) walker(ctx Context, start Path, flags LookupFlags) *walker {
	w, _ := v.walkers.Get().(*walker)
	if w == nil {
		w = new(walker)
	}
	w.init(v, ctx, start, flags)
	return w
}

// done ends the use of a walker from the pool.
func (w *walker) done() {
	v := w.v
	w.drop()
	*w = walker{}
	v.walkers.Put(w)
}

// begin sets the walk to the start of path.
func (w *walker) begin(path string) error {
	w.drop()
	w.depth, w.links, w.mustDir = 0, 0, w.flags&MustBeDir != 0
	fs := w.ctx.FS()
	start := w.start
	if start.IsZero() {
		start = fs.CWD()
	}
	if w.flags&scoped != 0 {
		w.root = start
		w.mountSeq, w.renameSeq = w.v.mountSeq.Load(), w.v.renameSeq.Load()
	} else {
		w.root = fs.Root()
	}
	w.cur = start
	if len(path) >= pathMax {
		return unix.ENAMETOOLONG
	}
	if path == "" {
		if w.flags&EmptyPath == 0 {
			return unix.ENOENT
		}
	} else if path[0] == '/' {
		if w.flags&Beneath != 0 {
			return unix.EXDEV
		}
		w.cur = w.root
	}
	w.rest = path
	return nil
}

// drop lets go of what the walk holds.
func (w *walker) drop() {
	if w.held != nil {
		w.held.DecRef()
		w.held = nil
	}
	if w.heldMnt != nil {
		w.heldMnt.DecRef()
		w.heldMnt = nil
	}
}

// hold makes sure that the current dentry is referenced.
func (w *walker) hold() error {
	if w.held == w.cur.Dentry {
		return nil
	}
	if !w.cur.Dentry.TryIncRef() {
		return errRestart
	}
	if w.held != nil {
		w.held.DecRef()
	}
	w.held = w.cur.Dentry
	return nil
}

// moveTo makes d, with a reference if ref, the current dentry.
func (w *walker) moveTo(m *Mount, d *Dentry, ref bool) {
	old := w.held
	w.held = nil
	if ref {
		w.held = d
	}
	w.cur = Path{m, d}
	if old != nil {
		old.DecRef()
	}
}

// finish gives the current place with a reference and ends the walk.
func (w *walker) finish() (Path, error) {
	if err := w.hold(); err != nil {
		return Path{}, err
	}
	p := w.cur
	if p.Mount == w.heldMnt {
		w.heldMnt = nil
	} else if !p.Mount.TryIncRef() {
		return Path{}, errRestart
	}
	w.held = nil
	w.drop()
	return p, nil
}

// again tells whether err asks for another attempt, and yields before it.
func again(err error) bool {
	if err != errRestart {
		return false
	}
	runtime.Gosched()
	return true
}

// Walk finds the place of path, relative to start (the zero Path: the working directory). It returns a reference.
func (v *VFS) Walk(ctx Context, start Path, path string, flags LookupFlags) (Path, error) {
	var w walker
	w.init(v, ctx, start, flags)
	for {
		p, err := w.walk(path)
		if err == nil || !again(err) {
			w.drop()
			return p, err
		}
	}
}

func (w *walker) walk(path string) (Path, error) {
	if err := w.begin(path); err != nil {
		return Path{}, err
	}
	if err := w.run(); err != nil {
		return Path{}, err
	}
	return w.finish()
}

// run walks until the end of the path, or in front of its last component with walkParent.
func (w *walker) run() error {
	for {
		name, err := w.nextName()
		if err != nil {
			return err
		}
		if name == "" {
			w.lastKind = lastRoot
			if w.mustDir && !w.cur.Dentry.inode.IsDir() {
				return unix.ENOTDIR
			}
			return nil
		}
		i := w.cur.Dentry.inode
		if !i.IsDir() {
			return unix.ENOTDIR
		}
		if i.mode.Load()&0111 != 0111 || i.Flags()&InodeCustomPermission != 0 {
			if err := checkPermission(w.ctx, w.creds, i, MayExec); err != nil {
				return err
			}
		}
		atEnd := w.rest == "" && w.depth == 0
		if atEnd && w.flags&walkParent != 0 {
			w.last = name
			switch name {
			case ".":
				w.lastKind = lastDot
			case "..":
				w.lastKind = lastDotDot
			default:
				w.lastKind = lastName
			}
			return nil
		}
		switch {
		case name == ".":
			continue
		case name == "..":
			err = w.up()
		case len(name) > nameMax:
			err = unix.ENAMETOOLONG
		default:
			err = w.step(name, !atEnd || w.flags&FollowLast != 0 || w.mustDir)
		}
		if err != nil {
			return err
		}
	}
}

// nextName takes the next component off the path; "" at the end.
func (w *walker) nextName() (string, error) {
	for {
		s := w.rest
		i := 0
		for i < len(s) && s[i] == '/' {
			i++
		}
		s = s[i:]
		if s == "" {
			if w.depth == 0 {
				w.rest = ""
				return "", nil
			}
			w.depth--
			w.rest = w.stack[w.depth]
			w.stack[w.depth] = ""
			continue
		}
		n := strings.IndexByte(s, '/')
		if n < 0 {
			w.rest = ""
			// What is below on the stack may be nothing but slashes.
			w.trimStack()
			return s, nil
		}
		name := s[:n]
		for n < len(s) && s[n] == '/' {
			n++
		}
		w.rest = s[n:]
		if w.rest == "" {
			w.trimStack()
			if w.depth == 0 {
				w.mustDir = true
			}
		}
		return name, nil
	}
}

// trimStack drops levels of the stack on which nothing is left to do.
func (w *walker) trimStack() {
	for w.depth > 0 && w.stack[w.depth-1] == "" {
		w.depth--
	}
}

// up is "..".
func (w *walker) up() error {
	if w.flags&scoped != 0 && (w.v.mountSeq.Load() != w.mountSeq || w.v.renameSeq.Load() != w.renameSeq) {
		return unix.EAGAIN
	}
	p := w.cur
	for {
		if p == w.root {
			if w.flags&Beneath != 0 {
				return unix.EXDEV
			}
			break
		}
		if p.Dentry != p.Mount.root {
			d := p.Dentry.Parent()
			if p.Mount.root != p.Mount.sb.root && !p.Mount.root.IsAncestorOf(d) {
				return unix.ENOENT // moved out of the tree that the mount shows
			}
			p.Dentry = d
			break
		}
		at := p.Mount.at.Load()
		if at == nil {
			break
		}
		if w.flags&NoXDev != 0 {
			return unix.EXDEV
		}
		p = Path{at.parent, at.dentry}
	}
	p, err := w.cross(p)
	if err != nil {
		return err
	}
	ref := false
	if w.held != nil {
		// The held dentry may be all that keeps its parent.
		ref = p.Dentry.TryIncRef()
	}
	w.moveTo(p.Mount, p.Dentry, ref)
	return nil
}

// cross goes down into what is mounted at p.
func (w *walker) cross(p Path) (Path, error) {
	for p.Dentry.flags.Load()&dentryMounted != 0 {
		m := p.Mount.childAt(p.Dentry)
		if m == nil {
			break
		}
		if w.flags&NoXDev != 0 {
			return p, unix.EXDEV
		}
		p = Path{m, m.root}
	}
	return p, nil
}

// step goes to the child name.
func (w *walker) step(name string, follow bool) error {
	dir := w.cur.Dentry
	hash := w.v.hashName(name)
	child := dir.cached(hash, name)
	ref := false
	if child == nil || dir.inode.Flags()&(InodeRevalidate|InodeNoCache) != 0 {
		if w.flags&CachedOnly != 0 {
			return unix.EAGAIN
		}
		if err := w.hold(); err != nil {
			return err
		}
		var err error
		if child, err = w.v.lookupSlow(w.ctx, dir, hash, name, w.ahead()); err != nil {
			return err
		}
		ref = true
	} else if child.inode == nil {
		return unix.ENOENT
	}
	return w.enter(child, ref, follow)
}

// ahead is the part of the path behind the current component that can be looked up together with it.
func (w *walker) ahead() string {
	return w.rest
}

// enter goes to child of the current directory, which is referenced if ref, through mounts and symlinks.
func (w *walker) enter(child *Dentry, ref, follow bool) error {
	if child.flags.Load()&dentryMounted != 0 {
		p, err := w.cross(Path{w.cur.Mount, child})
		if err != nil {
			if ref {
				child.DecRef()
			}
			return err
		}
		if p.Mount != w.cur.Mount { // the root of a directory mounted on itself is the same dentry
			if ref {
				child.DecRef()
			}
			w.moveTo(p.Mount, p.Dentry, false)
			return nil
		}
	}
	if !follow || child.inode.Type() != unix.S_IFLNK {
		w.moveTo(w.cur.Mount, child, ref)
		return nil
	}
	if !ref && !child.TryIncRef() {
		return errRestart
	}
	err := w.follow(child)
	child.DecRef()
	return err
}

// follow goes on along the symlink child of the current directory.
func (w *walker) follow(child *Dentry) error {
	if w.links++; w.links > maxLinks || w.flags&NoSymlinks != 0 || w.cur.Mount.Flags()&MountNoSymfollow != 0 {
		return unix.ELOOP
	}
	i := child.inode
	dir := w.cur.Dentry.inode
	if w.v.sysctl.ProtectedSymlinks.Load() != 0 && w.rest == "" && w.depth == 0 {
		// Only as the last component, and only where others could have put it.
		if m := dir.Mode(); m&(unix.S_ISVTX|0002) == unix.S_ISVTX|0002 && i.UID() != w.creds.FSUID && i.UID() != dir.UID() {
			return unix.EACCES
		}
	}
	if i.Flags()&InodeMagicLink != 0 {
		if w.flags&NoMagicLinks != 0 {
			return unix.ELOOP
		}
		if w.flags&scoped != 0 {
			return unix.EXDEV
		}
		p, err := i.ops.(MagicLinker).FollowLink(w.ctx)
		if err != nil {
			return err
		}
		if w.flags&NoXDev != 0 && p.Mount != w.cur.Mount {
			p.DecRef()
			return unix.EXDEV
		}
		if w.heldMnt != nil {
			w.heldMnt.DecRef()
		}
		w.heldMnt = p.Mount
		w.moveTo(p.Mount, p.Dentry, true)
		return nil
	}
	target, err := i.ops.Readlink(w.ctx)
	if err != nil {
		return err
	}
	if target == "" {
		return unix.ENOENT
	}
	if w.rest != "" {
		w.stack[w.depth] = w.rest
		w.depth++
	}
	w.rest = target
	if target[0] == '/' {
		if w.flags&Beneath != 0 {
			return unix.EXDEV
		}
		if w.flags&NoXDev != 0 && w.cur.Mount != w.root.Mount {
			return unix.EXDEV
		}
		w.moveTo(w.root.Mount, w.root.Dentry, false)
	}
	return nil
}

// maxBatch is the most names that one batch lookup resolves.
const maxBatch = 16

// lookupSlow finds the child name of dir, which is referenced, by asking the file system. It returns a reference. rest is the path behind
// name: its components are looked up in the same round trip, where the file system can, and enter the cache.
func (v *VFS) lookupSlow(ctx Context, dir *Dentry, hash uint64, name, rest string) (*Dentry, error) {
	name = strings.Clone(name)
	if dir.inode.Flags()&(InodeBatch|InodeNoCache|InodeRevalidate) == InodeBatch && rest != "" && rest[0] != '.' {
		return v.lookupBatch(ctx, dir, hash, name, rest)
	}
	dir.dir.rw.RLock()
	defer dir.dir.rw.RUnlock()
	return v.lookupLocked(ctx, dir, hash, name)
}

// lookupLocked is lookupSlow for one name; dir.dir.rw is held. name may be kept. ENOENT, ENAMETOOLONG.
func (v *VFS) lookupLocked(ctx Context, dir *Dentry, hash uint64, name string) (*Dentry, error) {
	return v.lookupFor(ctx, dir, hash, name, false)
}

// lookupFor is lookupLocked; create tells that the name will be made if it does not exist, so that its absence is not cached.
func (v *VFS) lookupFor(ctx Context, dir *Dentry, hash uint64, name string, create bool) (*Dentry, error) {
	if len(name) > nameMax {
		return nil, unix.ENAMETOOLONG
	}
	i := dir.inode
	f := i.Flags()
	if f&InodeNoCache == 0 {
		for {
			c := dir.cached(hash, name)
			if c == nil {
				break
			}
			if !c.TryIncRef() {
				return nil, errRestart
			}
			if f&InodeRevalidate == 0 || i.ops.(Revalidator).Revalidate(ctx, name, c.inode) {
				if c.inode == nil {
					c.DecRef()
					return nil, unix.ENOENT
				}
				return c, nil
			}
			c.unhash()
			c.DecRef()
		}
	}
	if f&inodeDead != 0 {
		return nil, unix.ENOENT
	}
	child, err := i.ops.Lookup(ctx, name)
	if err != nil {
		if err == unix.ENOENT && f&InodeNegative != 0 && f&InodeNoCache == 0 && !create {
			c := dir.addChild(hash, name, nil, true)
			if c.inode != nil { // a concurrent lookup found it after all
				return c, nil
			}
			c.DecRef()
		}
		return nil, err
	}
	c := dir.addChild(hash, name, child, f&InodeNoCache == 0)
	if c.inode == nil {
		c.DecRef()
		return nil, unix.ENOENT
	}
	return c, nil
}

// lookupBatch resolves name and what follows together. dir.dir.rw is taken exclusively: while name is not in the cache nobody else
// can be below it, so that nothing that the answer says can have changed before it is entered.
func (v *VFS) lookupBatch(ctx Context, dir *Dentry, hash uint64, name, rest string) (*Dentry, error) {
	var buf [maxBatch]string
	names := append(buf[:0], name)
	for rest != "" && len(names) < maxBatch {
		n := strings.IndexByte(rest, '/')
		part := rest
		if n >= 0 {
			part = rest[:n]
			for n < len(rest) && rest[n] == '/' {
				n++
			}
			rest = rest[n:]
		} else {
			rest = ""
		}
		if part == "." || part == ".." || len(part) > nameMax {
			break
		}
		names = append(names, strings.Clone(part))
	}
	dir.dir.rw.Lock()
	defer dir.dir.rw.Unlock()
	if len(names) == 1 || dir.cached(hash, name) != nil || dir.inode.Flags()&inodeDead != 0 {
		return v.lookupLocked(ctx, dir, hash, name)
	}
	inodes, err := dir.inode.ops.(BatchLookup).LookupMany(ctx, append([]string(nil), names...))
	if len(inodes) == 0 {
		if err == nil {
			err = unix.ENOENT
		}
		if err == unix.ENOENT && dir.inode.Flags()&InodeNegative != 0 {
			dir.addChild(hash, name, nil, true).DecRef()
		}
		return nil, err
	}
	var first, at *Dentry
	at = dir
	for k, i := range inodes {
		if k > 0 {
			hash = v.hashName(names[k])
		}
		if at.dir == nil {
			i.DecRef() // the file system must not do that
			continue
		}
		c := at.addChild(hash, names[k], i, true)
		if first == nil {
			first = c
		} else {
			at.DecRef()
		}
		if at = c; k == 0 {
			at.IncRef()
		}
	}
	if k := len(inodes); err == unix.ENOENT && k < len(names) && at.dir != nil && at.inode != nil && at.inode.Flags()&InodeNegative != 0 {
		at.addChild(v.hashName(names[k]), names[k], nil, true).DecRef()
	}
	at.DecRef()
	if first.inode == nil {
		first.DecRef()
		return nil, unix.ENOENT
	}
	return first, nil
}
