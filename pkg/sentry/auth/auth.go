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
