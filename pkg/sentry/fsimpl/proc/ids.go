package proc

import (
	"bytes"
	"strconv"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// idMap is an open uid_map or gid_map (user_namespaces(7)). It goes with the user namespace that the task was in when it was opened, and with the
// credentials of who opened it: who is tricked into writing to a descriptor lends no rights.
type idMap struct {
	ns     *auth.UserNamespace
	opener *auth.Credentials
	gid    bool
}

func openUIDMap(e *env, _ uint32) (vfs.FileImpl, error) {
	return pseudo.NewOpenFile(&idMap{e.t.UserNS(), e.ctx.Credentials(), false}), nil
}

func openGIDMap(e *env, _ uint32) (vfs.FileImpl, error) {
	return pseudo.NewOpenFile(&idMap{e.t.UserNS(), e.ctx.Credentials(), true}), nil
}

// Generate implements pseudo.Generator.
func (m *idMap) Generate(_ vfs.Context, b []byte) ([]byte, error) {
	for _, e := range m.ns.Mappings(m.gid, m.opener.UserNS) {
		b = append(appendPadded(b, uint64(e.Inside), 10), ' ')
		b = append(appendPadded(b, uint64(e.Outside), 10), ' ')
		b = append(appendPadded(b, uint64(e.Length), 10), '\n')
	}
	return b, nil
}

// maxIDMapWrite is the most that one write may hold: less than a page.
const maxIDMapWrite = 4095

// Set implements pseudo.Setter. EINVAL for bad lines; EPERM as user_namespaces(7) has it.
func (m *idMap) Set(ctx vfs.Context, data []byte, off int64) error {
	if off != 0 || len(data) > maxIDMapWrite {
		return unix.EINVAL
	}
	if m.opener.UserNS != m.ns && m.opener.UserNS != m.ns.Parent {
		return unix.EPERM
	}
	list, err := parseIDMap(data)
	if err != nil {
		return err
	}
	// What the opener could not have done alone, the writer must be able to do as well.
	if c := ctx.Credentials(); c != m.opener && m.ns.Parent != nil {
		cp := unix.CAP_SETUID
		if m.gid {
			cp = unix.CAP_SETGID
		}
		single := len(list) == 1 && list[0].Length == 1 && m.opener.EUID == m.ns.Owner
		if !single && !c.HasCapIn(cp, m.ns.Parent) {
			return unix.EPERM
		}
	}
	return m.ns.SetMappings(m.gid, list, m.opener)
}

func parseIDMap(data []byte) (list []auth.IDMapEntry, err error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		data = data[:i]
	}
	for len(data) > 0 {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte{'\n'})
		f := bytes.Fields(line)
		if len(f) != 3 {
			return nil, unix.EINVAL
		}
		var v [3]uint32
		for i := range v {
			n, err := strconv.ParseUint(string(f[i]), 10, 32)
			if err != nil {
				return nil, unix.EINVAL
			}
			v[i] = uint32(n)
		}
		list = append(list, auth.IDMapEntry{Inside: v[0], Outside: v[1], Length: v[2]})
	}
	return list, nil
}

// projIDMap is projid_map: there are no project IDs to map.
type projIDMap struct{}

// Generate implements pseudo.Generator.
func (projIDMap) Generate(_ vfs.Context, b []byte) ([]byte, error) {
	return append(b, "         0          0 4294967295\n"...), nil
}

// Set implements pseudo.Setter.
func (projIDMap) Set(vfs.Context, []byte, int64) error { return unix.EPERM }

func openProjIDMap(*env, uint32) (vfs.FileImpl, error) { return pseudo.NewOpenFile(projIDMap{}), nil }

// setgroupsFile is an open setgroups file.
type setgroupsFile struct{ ns *auth.UserNamespace }

func openSetgroups(e *env, flags uint32) (vfs.FileImpl, error) {
	ns := e.t.UserNS()
	if flags&unix.O_ACCMODE != unix.O_RDONLY && !e.ctx.Credentials().HasCapIn(unix.CAP_SYS_ADMIN, ns) {
		return nil, unix.EACCES
	}
	return pseudo.NewOpenFile(setgroupsFile{ns}), nil
}

// Generate implements pseudo.Generator.
func (f setgroupsFile) Generate(_ vfs.Context, b []byte) ([]byte, error) {
	if f.ns.SetgroupsDenied() {
		return append(b, "deny\n"...), nil
	}
	return append(b, "allow\n"...), nil
}

// Set implements pseudo.Setter.
func (f setgroupsFile) Set(_ vfs.Context, data []byte, off int64) error {
	if off != 0 || len(data) >= 8 {
		return unix.EINVAL
	}
	switch string(bytes.TrimRight(data, " \t\n\x00")) {
	case "allow":
		return f.ns.SetSetgroups(true)
	case "deny":
		return f.ns.SetSetgroups(false)
	}
	return unix.EINVAL
}
