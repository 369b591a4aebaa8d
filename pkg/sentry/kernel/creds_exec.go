package kernel

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"husk/pkg/abi/linux"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/vfs"
)

// fileCaps is the value of security.capability (capabilities(7)).
type fileCaps struct {
	effective              bool
	permitted, inheritable auth.CapSet
	rootID                 uint32
}

// Layout of struct vfs_cap_data.
const (
	vfsCapRevisionMask = 0xff000000
	vfsCapRevision1    = 0x01000000
	vfsCapRevision2    = 0x02000000
	vfsCapRevision3    = 0x03000000
	vfsCapEffective    = 1
)

// parseFileCaps decodes the attribute; false if it is none that Linux would accept.
func parseFileCaps(b []byte) (c fileCaps, ok bool) {
	le := binary.LittleEndian
	if len(b) < 4 {
		return c, false
	}
	magic := le.Uint32(b)
	c.effective = magic&vfsCapEffective != 0
	switch {
	case magic&vfsCapRevisionMask == vfsCapRevision1 && len(b) == 12:
		c.permitted, c.inheritable = auth.CapSet(le.Uint32(b[4:])), auth.CapSet(le.Uint32(b[8:]))
		return c, true
	case magic&vfsCapRevisionMask == vfsCapRevision2 && len(b) == 20:
	case magic&vfsCapRevisionMask == vfsCapRevision3 && len(b) == 24:
		c.rootID = le.Uint32(b[20:])
	default:
		return c, false
	}
	c.permitted = auth.CapSet(le.Uint32(b[4:])) | auth.CapSet(le.Uint32(b[12:]))<<32
	c.inheritable = auth.CapSet(le.Uint32(b[8:])) | auth.CapSet(le.Uint32(b[16:]))<<32
	c.permitted &= auth.AllCaps
	c.inheritable &= auth.AllCaps
	return c, true
}

// execCredentials computes what execve(2) of the program at p makes of the task's credentials (capabilities(7), "Transformation of
// capabilities during execve()"). secure is AT_SECURE. EPERM where a program with capabilities cannot get all of them.
func (t *Task) execCredentials(p vfs.Path) (creds *auth.Credentials, secure bool, err error) {
	old := t.Credentials()
	c := old.Clone()
	ino := p.Inode()
	nnp := t.NoNewPrivs()
	maySuid := !nnp && p.Mount.Flags()&vfs.MountNoSUID == 0
	var fc fileCaps
	hasCaps := false
	if maySuid {
		mode := ino.Mode()
		_, uok := c.UserNS.UID(ino.UID())
		_, gok := c.UserNS.GID(ino.GID())
		if uok && gok {
			if mode&unix.S_ISUID != 0 {
				c.EUID = ino.UID()
			}
			if mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP {
				c.EGID = ino.GID()
			}
		}
		if b, e := ino.Ops().GetXattr(t, "security.capability"); e == nil {
			fc, hasCaps = parseFileCaps(b)
			if root, ok := c.UserNS.KUID(0); hasCaps && (!ok || fc.rootID != uint32(root) && fc.rootID != 0) {
				hasCaps = false
			}
		}
	}
	c.SUID, c.FSUID, c.SGID, c.FSGID = c.EUID, c.EUID, c.EGID, c.EGID
	if !hasCaps {
		fc = fileCaps{}
	}
	permitted := c.Bounding&fc.permitted | c.Inheritable&fc.inheritable
	if fc.effective && fc.permitted&^permitted != 0 {
		return nil, false, unix.EPERM
	}
	effective := fc.effective
	root, rootOK := c.UserNS.KUID(0)
	isRoot := func(u auth.KUID) bool { return rootOK && u == root }
	if c.SecureBits&linux.SECBIT_NOROOT == 0 && !(hasCaps && !isRoot(c.RUID) && isRoot(c.EUID)) {
		if isRoot(c.EUID) || isRoot(c.RUID) {
			permitted = c.Bounding | c.Inheritable
		}
		if isRoot(c.EUID) {
			effective = true
		}
	}
	setID := c.EUID != old.RUID || c.EGID != old.RGID
	if (setID || permitted&^old.Permitted != 0) && nnp {
		if !old.HasCap(unix.CAP_SETUID) || nnp {
			c.EUID, c.EGID = old.RUID, old.RGID
			c.SUID, c.FSUID, c.SGID, c.FSGID = c.EUID, c.EUID, c.EGID, c.EGID
		}
		permitted &= old.Permitted
	}
	if hasCaps || setID {
		c.Ambient = 0
	}
	c.Permitted = permitted | c.Ambient
	c.Effective = c.Ambient
	if effective {
		c.Effective = c.Permitted
	}
	c.KeepCaps = false
	c.SecureBits &^= linux.SECBIT_KEEP_CAPS
	secure = setID || !isRoot(c.RUID) && (effective || c.Permitted&^c.Ambient != 0)
	return c, secure, nil
}

// SetCredentials publishes changed credentials. Where they give the process other rights on files it stops being dumpable and forgets its parent death
// signal, as in Linux. Own goroutine.
func (t *Task) SetCredentials(c *auth.Credentials) {
	old := t.creds.Load()
	if old.RUID != c.RUID {
		t.k.tree.Lock()
		t.countUser(old.RUID, -1)
		t.countUser(c.RUID, 1)
		t.creds.Store(c)
		t.k.tree.Unlock()
	} else {
		t.creds.Store(c)
	}
	if old.EUID != c.EUID || old.EGID != c.EGID || old.FSUID != c.FSUID || old.FSGID != c.FSGID || gains(old, c) {
		t.group.dumpable.Store(0)
		t.SetPDeathSignal(0)
	}
}

// gains tells whether c can do more than old to what is outside of namespaces that old's user owns.
func gains(old, c *auth.Credentials) bool {
	if c.UserNS == old.UserNS {
		return c.Permitted&^old.Permitted != 0
	}
	for ns := c.UserNS; ns != nil; ns = ns.Parent {
		if ns.Parent == old.UserNS && ns.Owner == old.EUID {
			return false
		}
	}
	return true
}

// countUser adds n to the tasks of user u. The caller holds tree.
func (t *Task) countUser(u auth.KUID, n int) {
	m := t.k.uidTasks
	if m[u] += n; m[u] == 0 {
		delete(m, u)
	}
}

// SetPDeathSignal is prctl(PR_SET_PDEATHSIG); 0 is none.
func (t *Task) SetPDeathSignal(s linux.Signal) {
	t.k.tree.Lock()
	t.pdeathSignal = s
	t.k.tree.Unlock()
}

// PDeathSignal is prctl(PR_GET_PDEATHSIG).
func (t *Task) PDeathSignal() linux.Signal {
	t.k.tree.Lock()
	defer t.k.tree.Unlock()
	return t.pdeathSignal
}

// SetNoNewPrivs is prctl(PR_SET_NO_NEW_PRIVS).
func (t *Task) SetNoNewPrivs() { t.noNewPrivs.Store(true) }
