package kernel

import (
	"husk/pkg/sentry/auth"

	"golang.org/x/sys/unix"
)

// MayPtrace is the access check PTRACE_MODE_ATTACH_REALCREDS of ptrace(2).
func (t *Task) MayPtrace(o *Task) bool {
	return t.group == o.group || MayLookInto(t.Credentials(), o, true)
}

// MayInspect is PTRACE_MODE_READ_FSCREDS: access to another process' /proc files.
func (t *Task) MayInspect(o *Task) bool {
	return t.group == o.group || MayLookInto(t.Credentials(), o, false)
}

// MayLookInto is the algorithm of ptrace(2), "Ptrace access mode checking", for a caller with credentials c of another process than o's: by
// its real IDs and permitted capabilities, or by the IDs and capabilities that count for files.
func MayLookInto(c *auth.Credentials, o *Task, real bool) bool {
	d := o.Credentials()
	uid, gid, caps := c.FSUID, c.FSGID, c.Effective
	if real {
		uid, gid, caps = c.RUID, c.RGID, c.Permitted
	}
	same := uid == d.RUID && uid == d.EUID && uid == d.SUID && gid == d.RGID && gid == d.EGID && gid == d.SGID
	if !same && !c.HasCapIn(unix.CAP_SYS_PTRACE, d.UserNS) {
		return false
	}
	// What a process brought along into a user namespace is none of that namespace's business before it executes a program there.
	if o.group.Dumpable() != 1 && !c.HasCapIn(unix.CAP_SYS_PTRACE, o.group.DumpUserNS()) {
		return false
	}
	// IDs that are equal by chance, as seen from outside of user namespaces, mean nothing between them.
	return c.UserNS == d.UserNS && d.Permitted&^caps == 0 || c.HasCapIn(unix.CAP_SYS_PTRACE, d.UserNS)
}

// DumpUserNS is the user namespace in which the process executed its program: a process that is not dumpable belongs to the root of it.
func (tg *ThreadGroup) DumpUserNS() *auth.UserNamespace { return tg.dumpNS.Load() }

// dumpNSFor is the user namespace that owns the memory of a program executed with credentials c: an ancestor of c's, if c cannot read the program and its
// owner does not exist there, so that nobody inside can read the memory instead.
func (img *image) dumpNSFor(c *auth.Credentials) *auth.UserNamespace {
	ns := c.UserNS
	if !img.unreadable {
		return ns
	}
	i := img.exe.Inode()
	for ns.Parent != nil {
		_, uok := ns.UID(i.UID())
		_, gok := ns.GID(i.GID())
		if uok && gok {
			break
		}
		ns = ns.Parent
	}
	return ns
}

// resetDumpable is what executing a program means for who may look into the process.
func (tg *ThreadGroup) resetDumpable(img *image) {
	c := img.creds
	tg.dumpNS.Store(img.dumpNSFor(c))
	v := int32(1)
	if img.secure || img.unreadable || c.EUID != c.RUID || c.EGID != c.RGID {
		v = 0
	}
	tg.dumpable.Store(v)
}
