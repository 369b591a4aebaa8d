package auth

import (
	"sync"

	"golang.org/x/sys/unix"
)

// KUID and KGID are IDs of the sandbox's root user namespace; UID and GID are IDs as a user
// namespace shows them.
type (
	KUID uint32
	KGID uint32
	UID  uint32
	GID  uint32
)

// NoID is the ID that maps to nothing; OverflowID is what an unmapped ID is shown as
// (/proc/sys/kernel/overflowuid).
const (
	NoID       = ^uint32(0)
	OverflowID = 65534
)

// CapSet is a set of capabilities: bit n is capability n of capabilities(7).
type CapSet uint64

// LastCap is the highest capability of Linux 6.x.
const LastCap = unix.CAP_CHECKPOINT_RESTORE

// AllCaps has every capability.
const AllCaps CapSet = 1<<(LastCap+1) - 1

// Caps makes a set of the given capability numbers.
func Caps(list ...int) (s CapSet) {
	for _, c := range list {
		s |= 1 << c
	}
	return s
}

// Has tells whether capability c is in the set.
func (s CapSet) Has(c int) bool { return s>>uint(c)&1 != 0 }

// IDMapEntry is a line of /proc/PID/uid_map: Length IDs from Inside on are those from Outside on in
// the parent namespace.
type IDMapEntry struct {
	Inside, Outside, Length uint32
}

// UserNamespace is a user namespace (user_namespaces(7)).
type UserNamespace struct {
	Parent *UserNamespace // immutable; nil in the root namespace
	Owner  KUID           // immutable: effective user of the creator
	Group  KGID           // immutable
	Level  int            // immutable: 0 in the root namespace, at most 32

	mu          sync.RWMutex
	uidMap      []IDMapEntry // protected by mu; Outside holds root-namespace IDs
	gidMap      []IDMapEntry // protected by mu
	denySetgrps bool         // protected by mu: /proc/PID/setgroups is "deny"
	inode       uint64       // protected by mu: 0 until somebody asks
}

// Inode identifies the namespace in /proc/PID/ns; next numbers it when it is asked for the first time.
func (ns *UserNamespace) Inode(next func() uint64) uint64 {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.inode == 0 {
		ns.inode = next()
	}
	return ns.inode
}

// NewRootUserNamespace makes the namespace in which IDs are what they are.
func NewRootUserNamespace() *UserNamespace {
	all := []IDMapEntry{{0, 0, NoID}}
	return &UserNamespace{uidMap: all, gidMap: all}
}

// mapID looks id up. toRoot maps from inside to root-namespace IDs.
func mapID(m []IDMapEntry, id uint32, toRoot bool) uint32 {
	for _, e := range m {
		from, to := e.Inside, e.Outside
		if !toRoot {
			from, to = to, from
		}
		if id >= from && id-from < e.Length {
			return to + (id - from)
		}
	}
	return NoID
}

// KUID maps a user ID of the namespace to the root namespace; ok is false if it has no mapping.
func (ns *UserNamespace) KUID(u UID) (k KUID, ok bool) {
	ns.mu.RLock()
	id := mapID(ns.uidMap, uint32(u), true)
	ns.mu.RUnlock()
	return KUID(id), id != NoID
}

// KGID maps a group ID of the namespace to the root namespace.
func (ns *UserNamespace) KGID(g GID) (k KGID, ok bool) {
	ns.mu.RLock()
	id := mapID(ns.gidMap, uint32(g), true)
	ns.mu.RUnlock()
	return KGID(id), id != NoID
}

// UID shows k in the namespace; ok is false (and the ID is OverflowID) if it has no mapping.
func (ns *UserNamespace) UID(k KUID) (u UID, ok bool) {
	ns.mu.RLock()
	id := mapID(ns.uidMap, uint32(k), false)
	ns.mu.RUnlock()
	if id == NoID {
		return OverflowID, false
	}
	return UID(id), true
}

// GID shows k in the namespace.
func (ns *UserNamespace) GID(k KGID) (g GID, ok bool) {
	ns.mu.RLock()
	id := mapID(ns.gidMap, uint32(k), false)
	ns.mu.RUnlock()
	if id == NoID {
		return OverflowID, false
	}
	return GID(id), true
}

// Contains tells whether ns is other or an ancestor of it.
func (ns *UserNamespace) Contains(other *UserNamespace) bool {
	for ; other != nil; other = other.Parent {
		if other == ns {
			return true
		}
	}
	return false
}

// Credentials are those of a task (credentials(7)). They are immutable once published: a change
// makes a copy (Clone) and swaps the task's pointer, so readers need no lock.
type Credentials struct {
	RUID, EUID, SUID, FSUID KUID
	RGID, EGID, SGID, FSGID KGID
	Groups                  []KGID

	Permitted, Inheritable, Effective, Bounding, Ambient CapSet
	// KeepCaps is PR_SET_KEEPCAPS; SecureBits are those of prctl(PR_SET_SECUREBITS).
	KeepCaps   bool
	SecureBits uint32

	UserNS *UserNamespace
}

// NewRootCredentials is the superuser of ns with every capability.
func NewRootCredentials(ns *UserNamespace) *Credentials {
	return &Credentials{Permitted: AllCaps, Effective: AllCaps, Bounding: AllCaps, UserNS: ns}
}

// Clone copies c for a change.
func (c *Credentials) Clone() *Credentials {
	d := *c
	return &d
}

// HasCapIn tells whether c has capability cp in ns: by its effective set if ns is its own
// namespace, and all capabilities in namespaces that its user owns below its own (user_namespaces(7)).
func (c *Credentials) HasCapIn(cp int, ns *UserNamespace) bool {
	for ; ns != nil; ns = ns.Parent {
		if ns == c.UserNS {
			return c.Effective.Has(cp)
		}
		if ns.Parent == c.UserNS && ns.Owner == c.EUID {
			return true
		}
	}
	return false
}

// HasCap tells whether c has capability cp in its own user namespace.
func (c *Credentials) HasCap(cp int) bool { return c.Effective.Has(cp) }

// InGroup tells whether g is the file system group or a supplementary group.
func (c *Credentials) InGroup(g KGID) bool {
	if c.FSGID == g {
		return true
	}
	for _, x := range c.Groups {
		if x == g {
			return true
		}
	}
	return false
}

// maxUserNSLevel is the deepest nesting of user_namespaces(7).
const maxUserNSLevel = 32

// NewUserNamespace is CLONE_NEWUSER: credentials with every capability in a new child namespace of c's, owned by c's effective
// user. EPERM where c's IDs have no mapping in c's own namespace, ENOSPC where nesting is too deep.
func (c *Credentials) NewUserNamespace() (*Credentials, error) {
	p := c.UserNS
	if p.Level >= maxUserNSLevel {
		return nil, unix.ENOSPC
	}
	if _, ok := p.UID(c.EUID); !ok {
		return nil, unix.EPERM
	}
	if _, ok := p.GID(c.EGID); !ok {
		return nil, unix.EPERM
	}
	p.mu.RLock()
	deny := p.denySetgrps
	p.mu.RUnlock()
	ns := &UserNamespace{Parent: p, Owner: c.EUID, Group: c.EGID, Level: p.Level + 1, denySetgrps: deny}
	n := c.Clone()
	n.EnterUserNS(ns)
	return n, nil
}

// EnterUserNS makes c, which is not published yet, a member of ns with every capability, as clone(2), unshare(2) and setns(2) do.
func (c *Credentials) EnterUserNS(ns *UserNamespace) {
	c.UserNS = ns
	c.Permitted, c.Effective, c.Bounding = AllCaps, AllCaps, AllCaps
	c.Inheritable, c.Ambient = 0, 0
	c.SecureBits, c.KeepCaps = 0, false
}

// Mappings are the lines of uid_map (or gid_map) as a reader in namespace viewer sees them: Outside is in viewer's IDs, or,
// where ns is viewer itself, in its parent's.
func (ns *UserNamespace) Mappings(gid bool, viewer *UserNamespace) []IDMapEntry {
	ns.mu.RLock()
	m := ns.uidMap
	if gid {
		m = ns.gidMap
	}
	out := append([]IDMapEntry(nil), m...)
	ns.mu.RUnlock()
	if viewer == ns && ns.Parent != nil {
		viewer = ns.Parent
	}
	if viewer == ns {
		return out
	}
	for i := range out {
		if gid {
			g, _ := viewer.GID(KGID(out[i].Outside))
			out[i].Outside = uint32(g)
		} else {
			u, _ := viewer.UID(KUID(out[i].Outside))
			out[i].Outside = uint32(u)
		}
	}
	return out
}

// maxIDMapEntries is the most lines of a map.
const maxIDMapEntries = 340

// SetMappings is a write to uid_map (or gid_map) by a process with credentials c: the rules of user_namespaces(7). EPERM
// where a map is set already or the writer may not, EINVAL for bad ranges. Outside is in the parent's IDs.
func (ns *UserNamespace) SetMappings(gid bool, list []IDMapEntry, c *Credentials) error {
	if ns.Parent == nil {
		return unix.EPERM
	}
	if len(list) == 0 || len(list) > maxIDMapEntries {
		return unix.EINVAL
	}
	for i, e := range list {
		if e.Length == 0 || e.Inside+e.Length-1 < e.Inside || e.Outside+e.Length-1 < e.Outside ||
			e.Inside+e.Length-1 == NoID || e.Outside+e.Length-1 == NoID {
			return unix.EINVAL
		}
		for _, f := range list[:i] {
			if overlap(e.Inside, f.Inside, e.Length, f.Length) || overlap(e.Outside, f.Outside, e.Length, f.Length) {
				return unix.EINVAL
			}
		}
	}
	if !c.HasCapIn(unix.CAP_SYS_ADMIN, ns) {
		return unix.EPERM
	}
	if err := ns.mayMap(gid, list, c); err != nil {
		return err
	}
	out := make([]IDMapEntry, 0, len(list))
	for _, e := range list {
		ns.Parent.mu.RLock()
		pm := ns.Parent.uidMap
		if gid {
			pm = ns.Parent.gidMap
		}
		root, ok := mapRange(pm, e.Outside, e.Length)
		ns.Parent.mu.RUnlock()
		if !ok {
			return unix.EPERM
		}
		out = append(out, IDMapEntry{e.Inside, root, e.Length})
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	at := &ns.uidMap
	if gid {
		at = &ns.gidMap
	}
	if len(*at) != 0 {
		return unix.EPERM
	}
	*at = out
	return nil
}

// mayMap checks who may map what: a lone ID of the writer itself, or a writer with CAP_SETUID (CAP_SETGID) in the parent.
func (ns *UserNamespace) mayMap(gid bool, list []IDMapEntry, c *Credentials) error {
	if len(list) == 1 && list[0].Length == 1 && c.EUID == ns.Owner {
		if gid {
			k, ok := ns.Parent.KGID(GID(list[0].Outside))
			if ok && k == c.EGID && ns.SetgroupsDenied() {
				return nil
			}
		} else if k, ok := ns.Parent.KUID(UID(list[0].Outside)); ok && k == c.EUID {
			return nil
		}
	}
	cp := unix.CAP_SETUID
	if gid {
		cp = unix.CAP_SETGID
	}
	if c.HasCapIn(cp, ns.Parent) {
		return nil
	}
	return unix.EPERM
}

func overlap(a, b, la, lb uint32) bool { return a < b+lb && b < a+la }

// mapRange maps a whole range, which must lie in one entry.
func mapRange(m []IDMapEntry, id, n uint32) (uint32, bool) {
	for _, e := range m {
		if id >= e.Inside && id-e.Inside < e.Length && n <= e.Length-(id-e.Inside) {
			return e.Outside + (id - e.Inside), true
		}
	}
	return 0, false
}

// SetgroupsDenied tells whether /proc/PID/setgroups is "deny".
func (ns *UserNamespace) SetgroupsDenied() bool {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return ns.denySetgrps
}

// SetSetgroups is a write to /proc/PID/setgroups: EPERM once gid_map is set, or for allowing again.
func (ns *UserNamespace) SetSetgroups(allow bool) error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if allow {
		if ns.denySetgrps {
			return unix.EPERM
		}
		return nil
	}
	if len(ns.gidMap) != 0 && !ns.denySetgrps {
		return unix.EPERM
	}
	ns.denySetgrps = true
	return nil
}

// MaySetgroups tells whether setgroups(2) is allowed in ns: a gid_map is set and it is not denied.
func (ns *UserNamespace) MaySetgroups() bool {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return len(ns.gidMap) != 0 && !ns.denySetgrps
}
