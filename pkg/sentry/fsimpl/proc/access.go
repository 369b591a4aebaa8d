package proc

import (
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// taskOf is the task that ctx is; nil for the sentry itself.
func taskOf(ctx vfs.Context) *kernel.Task {
	t, _ := ctx.(*kernel.Task)
	return t
}

// mayAccess is PTRACE_MODE_READ_FSCREDS of ptrace(2): whether ctx may look into t.
func mayAccess(ctx vfs.Context, t *kernel.Task) bool {
	if me := taskOf(ctx); me != nil && me.Group() == t.Group() {
		return true
	}
	return kernel.MayLookInto(ctx.Credentials(), t, false)
}

// ownerOf is who owns the files of t: its effective user, or root where it is not dumpable. The process' directory itself
// always belongs to the user.
func ownerOf(t *kernel.Task, mode uint32) (auth.KUID, auth.KGID) {
	c := t.Credentials()
	if mode == unix.S_IFDIR|0555 || t.Group().Dumpable() == 1 {
		return c.EUID, c.EGID
	}
	return rootOf(t.Group().DumpUserNS())
}

// rootOf is ID 0 of ns, or of the root namespace where ns has none.
func rootOf(ns *auth.UserNamespace) (auth.KUID, auth.KGID) {
	u, ok := ns.KUID(0)
	if !ok {
		u = 0
	}
	g, ok := ns.KGID(0)
	if !ok {
		g = 0
	}
	return u, g
}

// shownUID and shownGID are IDs as ctx's user namespace shows them.
func shownUID(ctx vfs.Context, u auth.KUID) uint64 {
	v, _ := ctx.Credentials().UserNS.UID(u)
	return uint64(v)
}

func shownGID(ctx vfs.Context, g auth.KGID) uint64 {
	v, _ := ctx.Credentials().UserNS.GID(g)
	return uint64(v)
}
