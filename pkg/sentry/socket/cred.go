package socket

import (
	"encoding/binary"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"
)

// Ucred is struct ucred before translation to the namespaces of the receiver.
type Ucred struct {
	PID *kernel.PID // of the process; nil: none that is visible
	UID auth.KUID
	GID auth.KGID
}

// PeerCred is what SO_PEERCRED, SO_PEERGROUPS and SO_PEERPIDFD tell of the other end.
type PeerCred struct {
	Ucred
	Groups []auth.KGID // immutable
}

// PeerCredOf captures the caller for its peer.
func PeerCredOf(ctx vfs.Context) PeerCred {
	return PeerCred{CredOf(ctx), ctx.Credentials().Groups}
}

// CredOf is what the caller sends by default: its process, real IDs as unix(7) says.
func CredOf(ctx vfs.Context) Ucred {
	c := ctx.Credentials()
	u := Ucred{UID: c.EUID, GID: c.EGID}
	if t, ok := ctx.(*kernel.Task); ok {
		u.PID = t.Group().PID()
	}
	return u
}

// EncodeUcred writes u as struct ucred in the view of t: IDs of its namespaces. len(b) is 12.
func EncodeUcred(t *kernel.Task, u *Ucred, b []byte) {
	uid, gid := u.view(t)
	pid := int32(0)
	if t != nil && u.PID != nil {
		pid = u.PID.In(t.PIDNS())
	}
	binary.LittleEndian.PutUint32(b, uint32(pid))
	binary.LittleEndian.PutUint32(b[4:], uid)
	binary.LittleEndian.PutUint32(b[8:], gid)
}

// view maps the IDs; those that stand for nobody stay -1.
func (u *Ucred) view(t *kernel.Task) (uid, gid uint32) {
	uid, gid = uint32(u.UID), uint32(u.GID)
	if t == nil {
		return uid, gid
	}
	ns := t.UserNS()
	if uid != auth.NoID {
		v, _ := ns.UID(u.UID)
		uid = uint32(v)
	}
	if gid != auth.NoID {
		v, _ := ns.GID(u.GID)
		gid = uint32(v)
	}
	return uid, gid
}
