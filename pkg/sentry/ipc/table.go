package ipc

import (
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/clock"
)

// Private is IPC_PRIVATE, the key that is no key.
const Private = 0

// Flags of shmget(2) and its like.
const (
	Create    = 0o1000
	Exclusive = 0o2000
)

// Rights for Perm.check, as the bits of a mode for others.
const (
	wantRead  = 4
	wantWrite = 2
)

// Perm is who owns an object and who may use it (struct ipc_perm).
type Perm struct {
	Key       int32
	UID, CUID auth.KUID
	GID, CGID auth.KGID
	Mode      uint16
	Seq       uint16
	id        int32 // immutable
	Changed   int64 // IPC_SET or creation, seconds since the epoch
	userNS    *auth.UserNamespace
}

// ID is the object's identifier.
func (p *Perm) ID() int32 { return p.id }

// check is the permission check of the objects: want is a combination of wantRead and wantWrite. EACCES.
func (p *Perm) check(c *auth.Credentials, want uint16) error {
	granted := p.Mode
	switch {
	case c.EUID == p.UID || c.EUID == p.CUID:
		granted >>= 6
	case inGroup(c, p.GID) || inGroup(c, p.CGID):
		granted >>= 3
	}
	if want&^granted&7 != 0 && !c.HasCapIn(unix.CAP_IPC_OWNER, p.userNS) {
		return unix.EACCES
	}
	return nil
}

func inGroup(c *auth.Credentials, g auth.KGID) bool {
	if c.EGID == g {
		return true
	}
	for _, x := range c.Groups {
		if x == g {
			return true
		}
	}
	return false
}

// own tells whether c may change or remove the object. EPERM.
func (p *Perm) own(c *auth.Credentials) error {
	if c.EUID == p.UID || c.EUID == p.CUID || c.HasCapIn(unix.CAP_SYS_ADMIN, p.userNS) {
		return nil
	}
	return unix.EPERM
}

// Owner is what IPC_SET changes.
type Owner struct {
	UID  auth.KUID
	GID  auth.KGID
	Mode uint16
}

// set is IPC_SET.
func (p *Perm) set(c *auth.Credentials, o Owner) error {
	if err := p.own(c); err != nil {
		return err
	}
	p.UID, p.GID = o.UID, o.GID
	p.Mode = p.Mode&^0o777 | o.Mode&0o777
	p.Changed = now()
	return nil
}

func now() int64 { return clock.Realtime() / 1e9 }

// object is what a table holds.
type object interface{ perm() *Perm }

// Identifiers are seq<<idShift | index, so that an old one is not soon valid again.
const (
	idShift = 15
	maxSeq  = 1<<16 - 1
)

// table is the objects of one kind in a namespace.
type table[T object] struct {
	userNS *auth.UserNamespace // immutable
	max    int                 // immutable: number of objects

	mu    sync.Mutex
	slots []slot[T] // protected by mu
	keys  map[int32]int
	count int
}

type slot[T object] struct {
	obj  T
	used bool
	seq  uint16
}

func newTable[T object](user *auth.UserNamespace, max int) table[T] {
	return table[T]{userNS: user, max: max, keys: make(map[int32]int)}
}

// find is the object with identifier id; mu is held. EINVAL for one that does not exist, EIDRM for one that no longer does.
func (t *table[T]) find(id int32) (obj T, err error) {
	i := int(id & (1<<idShift - 1))
	if id < 0 || i >= len(t.slots) || !t.slots[i].used {
		return obj, unix.EINVAL
	}
	if t.slots[i].seq != uint16(id>>idShift) {
		return obj, unix.EIDRM
	}
	return t.slots[i].obj, nil
}

// byIndex is the object in slot i, for SHM_STAT and its like; mu is held. EINVAL.
func (t *table[T]) byIndex(i int32) (obj T, err error) {
	if i < 0 || int(i) >= len(t.slots) || !t.slots[i].used {
		return obj, unix.EINVAL
	}
	return t.slots[i].obj, nil
}

// highest is the highest slot in use, or 0; mu is held.
func (t *table[T]) highest() int {
	for i := len(t.slots) - 1; i >= 0; i-- {
		if t.slots[i].used {
			return i
		}
	}
	return 0
}

// get is the common part of shmget(2), semget(2) and msgget(2): the object with the key, after check (EINVAL), or a
// new one from create. mu is held.
func (t *table[T]) get(c *auth.Credentials, key int32, flags int, check func(T) error, create func(p Perm) (T, error)) (int32, error) {
	if key != Private {
		if i, ok := t.keys[key]; ok {
			obj := t.slots[i].obj
			if flags&(Create|Exclusive) == Create|Exclusive {
				return 0, unix.EEXIST
			}
			if err := check(obj); err != nil {
				return 0, err
			}
			if err := obj.perm().check(c, uint16(flags>>6|flags>>3|flags)&7); err != nil {
				return 0, err
			}
			return obj.perm().id, nil
		}
		if flags&Create == 0 {
			return 0, unix.ENOENT
		}
	}
	if t.count >= t.max {
		return 0, unix.ENOSPC
	}
	i := 0
	for i < len(t.slots) && t.slots[i].used {
		i++
	}
	var seq uint16
	if i < len(t.slots) {
		seq = t.slots[i].seq
	}
	p := Perm{Key: key, UID: c.EUID, CUID: c.EUID, GID: c.EGID, CGID: c.EGID, Mode: uint16(flags & 0o777), Seq: seq,
		id: int32(seq)<<idShift | int32(i), Changed: now(), userNS: t.userNS}
	obj, err := create(p)
	if err != nil {
		return 0, err
	}
	if i == len(t.slots) {
		t.slots = append(t.slots, slot[T]{})
	}
	t.slots[i] = slot[T]{obj: obj, used: true, seq: seq}
	if key != Private {
		t.keys[key] = i
	}
	t.count++
	return p.id, nil
}

// hide makes the object's key free; mu is held.
func (t *table[T]) hide(p *Perm) {
	if p.Key != Private {
		delete(t.keys, p.Key)
		p.Key = Private
	}
}

// remove ends the object's life; mu is held.
func (t *table[T]) remove(p *Perm) {
	t.hide(p)
	i := p.id & (1<<idShift - 1)
	seq := t.slots[i].seq + 1
	if seq > maxSeq>>1 { // the identifier stays positive
		seq = 0
	}
	t.slots[i] = slot[T]{seq: seq}
	t.count--
}
