package auth

import "golang.org/x/sys/unix"

// Secure bits that matter here (capabilities(7)).
const (
	secbitNoSetuidFixup = 1 << 2
	secbitKeepCaps      = 1 << 4
)

// unchanged as an ID argument leaves an ID as it is.
const unchanged = NoID

// fixup does to c's capabilities what a change of user IDs from old does (capabilities(7), "Effect of user ID changes").
func (c *Credentials) fixup(old *Credentials) {
	if c.SecureBits&secbitNoSetuidFixup != 0 {
		return
	}
	root, ok := c.UserNS.KUID(0)
	if !ok {
		return
	}
	had := old.RUID == root || old.EUID == root || old.SUID == root
	has := c.RUID == root || c.EUID == root || c.SUID == root
	if had && !has {
		if !c.KeepCaps {
			c.Permitted, c.Effective = 0, 0
		}
		c.Ambient = 0
	}
	switch {
	case old.EUID == root && c.EUID != root:
		c.Effective = 0
	case old.EUID != root && c.EUID == root:
		c.Effective = c.Permitted
	}
}

// fsCaps are the capabilities that follow the file system user ID.
var fsCaps = Caps(unix.CAP_CHOWN, unix.CAP_MKNOD, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER,
	unix.CAP_FSETID, unix.CAP_LINUX_IMMUTABLE, unix.CAP_MAC_OVERRIDE)

// kuidArg maps an argument: EINVAL for an ID without a mapping.
func (c *Credentials) kuidArg(u uint32) (KUID, error) {
	k, ok := c.UserNS.KUID(UID(u))
	if !ok {
		return 0, unix.EINVAL
	}
	return k, nil
}

func (c *Credentials) kgidArg(g uint32) (KGID, error) {
	k, ok := c.UserNS.KGID(GID(g))
	if !ok {
		return 0, unix.EINVAL
	}
	return k, nil
}

// WithUID is setuid(2): changed credentials, or EINVAL or EPERM.
func (c *Credentials) WithUID(u uint32) (*Credentials, error) {
	k, err := c.kuidArg(u)
	if err != nil {
		return nil, err
	}
	n := c.Clone()
	switch {
	case c.HasCap(unix.CAP_SETUID):
		n.RUID, n.SUID = k, k
	case k != c.RUID && k != c.SUID:
		return nil, unix.EPERM
	}
	n.EUID, n.FSUID = k, k
	n.fixup(c)
	return n, nil
}

// WithREUID is setreuid(2).
func (c *Credentials) WithREUID(r, e uint32) (*Credentials, error) {
	n := c.Clone()
	priv := c.HasCap(unix.CAP_SETUID)
	if r != unchanged {
		k, err := c.kuidArg(r)
		if err != nil {
			return nil, err
		}
		if !priv && k != c.RUID && k != c.EUID {
			return nil, unix.EPERM
		}
		n.RUID = k
	}
	if e != unchanged {
		k, err := c.kuidArg(e)
		if err != nil {
			return nil, err
		}
		if !priv && k != c.RUID && k != c.EUID && k != c.SUID {
			return nil, unix.EPERM
		}
		n.EUID = k
	}
	if r != unchanged || e != unchanged && n.EUID != c.RUID {
		n.SUID = n.EUID
	}
	n.FSUID = n.EUID
	n.fixup(c)
	return n, nil
}

// WithRESUID is setresuid(2).
func (c *Credentials) WithRESUID(r, e, s uint32) (*Credentials, error) {
	n := c.Clone()
	priv := c.HasCap(unix.CAP_SETUID)
	for _, x := range []struct {
		arg uint32
		to  *KUID
	}{{r, &n.RUID}, {e, &n.EUID}, {s, &n.SUID}} {
		if x.arg == unchanged {
			continue
		}
		k, err := c.kuidArg(x.arg)
		if err != nil {
			return nil, err
		}
		if !priv && k != c.RUID && k != c.EUID && k != c.SUID {
			return nil, unix.EPERM
		}
		*x.to = k
	}
	n.FSUID = n.EUID
	n.fixup(c)
	return n, nil
}

// WithFSUID is setfsuid(2): c itself where the change is not allowed.
func (c *Credentials) WithFSUID(u uint32) *Credentials {
	k, err := c.kuidArg(u)
	if err != nil || !c.HasCap(unix.CAP_SETUID) && k != c.RUID && k != c.EUID && k != c.SUID && k != c.FSUID {
		return c
	}
	n := c.Clone()
	n.FSUID = k
	if root, ok := c.UserNS.KUID(0); ok && c.SecureBits&secbitNoSetuidFixup == 0 {
		switch {
		case c.FSUID == root && k != root:
			n.Effective &^= fsCaps
		case c.FSUID != root && k == root:
			n.Effective |= fsCaps & n.Permitted
		}
	}
	return n
}

// WithGID is setgid(2).
func (c *Credentials) WithGID(g uint32) (*Credentials, error) {
	k, err := c.kgidArg(g)
	if err != nil {
		return nil, err
	}
	n := c.Clone()
	switch {
	case c.HasCap(unix.CAP_SETGID):
		n.RGID, n.SGID = k, k
	case k != c.RGID && k != c.SGID:
		return nil, unix.EPERM
	}
	n.EGID, n.FSGID = k, k
	return n, nil
}

// WithREGID is setregid(2).
func (c *Credentials) WithREGID(r, e uint32) (*Credentials, error) {
	n := c.Clone()
	priv := c.HasCap(unix.CAP_SETGID)
	if r != unchanged {
		k, err := c.kgidArg(r)
		if err != nil {
			return nil, err
		}
		if !priv && k != c.RGID && k != c.EGID {
			return nil, unix.EPERM
		}
		n.RGID = k
	}
	if e != unchanged {
		k, err := c.kgidArg(e)
		if err != nil {
			return nil, err
		}
		if !priv && k != c.RGID && k != c.EGID && k != c.SGID {
			return nil, unix.EPERM
		}
		n.EGID = k
	}
	if r != unchanged || e != unchanged && n.EGID != c.RGID {
		n.SGID = n.EGID
	}
	n.FSGID = n.EGID
	return n, nil
}

// WithRESGID is setresgid(2).
func (c *Credentials) WithRESGID(r, e, s uint32) (*Credentials, error) {
	n := c.Clone()
	priv := c.HasCap(unix.CAP_SETGID)
	for _, x := range []struct {
		arg uint32
		to  *KGID
	}{{r, &n.RGID}, {e, &n.EGID}, {s, &n.SGID}} {
		if x.arg == unchanged {
			continue
		}
		k, err := c.kgidArg(x.arg)
		if err != nil {
			return nil, err
		}
		if !priv && k != c.RGID && k != c.EGID && k != c.SGID {
			return nil, unix.EPERM
		}
		*x.to = k
	}
	n.FSGID = n.EGID
	return n, nil
}

// WithFSGID is setfsgid(2): c itself where the change is not allowed.
func (c *Credentials) WithFSGID(g uint32) *Credentials {
	k, err := c.kgidArg(g)
	if err != nil || !c.HasCap(unix.CAP_SETGID) && k != c.RGID && k != c.EGID && k != c.SGID && k != c.FSGID {
		return c
	}
	n := c.Clone()
	n.FSGID = k
	return n
}

// WithCaps is capset(2). EPERM.
func (c *Credentials) WithCaps(effective, permitted, inheritable CapSet) (*Credentials, error) {
	effective &= AllCaps
	permitted &= AllCaps
	inheritable &= AllCaps
	switch {
	case !c.HasCap(unix.CAP_SETPCAP) && inheritable&^(c.Inheritable|c.Permitted) != 0,
		inheritable&^(c.Inheritable|c.Bounding) != 0,
		permitted&^c.Permitted != 0,
		effective&^permitted != 0:
		return nil, unix.EPERM
	}
	n := c.Clone()
	n.Effective, n.Permitted, n.Inheritable = effective, permitted, inheritable
	n.Ambient &= permitted & inheritable
	return n, nil
}
