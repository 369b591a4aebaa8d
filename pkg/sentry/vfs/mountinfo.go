package vfs

import (
	"sort"
	"strconv"

	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

// mounts lists the mounts of the namespace in the order they were made.
func (ns *MountNamespace) mounts() (l []*Mount) {
	ns.vfs.mountMu.Lock()
	defer ns.vfs.mountMu.Unlock()
	if m := ns.root.Load(); m != nil {
		m.walkTree(func(x *Mount) bool {
			l = append(l, x)
			return true
		})
	}
	sort.Slice(l, func(i, j int) bool { return l[i].id < l[j].id })
	return l
}

// appendEscaped appends s with the characters that would break the line as octal escapes.
func appendEscaped(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ' ', '\t', '\n', '\\', '#':
			b = append(b, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
		default:
			b = append(b, c)
		}
	}
	return b
}

var mountFlagNames = [...]struct {
	f MountFlags
	s string
}{
	{MountNoSUID, ",nosuid"}, {MountNoDev, ",nodev"}, {MountNoExec, ",noexec"}, {MountNoAtime, ",noatime"},
	{MountNoDirAtime, ",nodiratime"}, {MountRelatime, ",relatime"}, {MountNoSymfollow, ",nosymfollow"},
}

func appendFlags(b []byte, ro bool, f MountFlags) []byte {
	if ro {
		b = append(b, "ro"...)
	} else {
		b = append(b, "rw"...)
	}
	for _, x := range mountFlagNames {
		if f&x.f != 0 {
			b = append(b, x.s...)
		}
	}
	return b
}

func (sb *Superblock) typeName() string {
	if sb.typ == nil {
		return "none"
	}
	return sb.typ.Name()
}

func appendSource(b []byte, s string) []byte {
	if s == "" {
		s = "none"
	}
	return appendEscaped(b, s)
}

// each calls f for the mounts that can be seen from root with their paths.
func (ns *MountNamespace) each(root Path, f func(m *Mount, path string)) {
	for _, m := range ns.mounts() {
		path, ok := pathFrom(root, Path{m, m.root})
		if ok {
			f(m, path)
		}
	}
}

// MountInfo is /proc/PID/mountinfo as seen from root (proc_pid_mountinfo(5)).
func (ns *MountNamespace) MountInfo(root Path) (b []byte) {
	ns.each(root, func(m *Mount, path string) {
		b = strconv.AppendInt(b, m.id, 10)
		b = append(b, ' ')
		parent := m.id
		if at := m.at.Load(); at != nil {
			parent = at.parent.id
		}
		b = strconv.AppendInt(b, parent, 10)
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(unix.Major(m.sb.dev)), 10)
		b = append(b, ':')
		b = strconv.AppendUint(b, uint64(unix.Minor(m.sb.dev)), 10)
		b = append(b, ' ')
		inside := dentryPath(m.root)
		b = appendEscaped(b, inside)
		b = append(b, ' ')
		b = appendEscaped(b, path)
		b = append(b, ' ')
		b = appendFlags(b, m.Flags()&MountReadOnly != 0, m.Flags())
		b = m.appendPropagation(b)
		b = append(b, " - "...)
		b = append(b, m.sb.typeName()...)
		b = append(b, ' ')
		b = appendSource(b, m.sb.source)
		b = append(b, ' ')
		b = m.sb.appendOptions(b)
		b = append(b, '\n')
	})
	return b
}

// dentryPath is the path from the root of the file system.
func dentryPath(d *Dentry) string {
	s := ""
	for l := d.loc.Load(); l.parent != nil; l = l.parent.loc.Load() {
		s = "/" + l.name + s
	}
	if s == "" {
		return "/"
	}
	return s
}

func (m *Mount) appendPropagation(b []byte) []byte {
	m.vfs.mountMu.Lock()
	defer m.vfs.mountMu.Unlock()
	if m.shared != nil {
		b = strconv.AppendInt(append(b, " shared:"...), m.shared.id, 10)
	}
	if m.master != nil {
		b = strconv.AppendInt(append(b, " master:"...), m.master.id, 10)
	}
	if m.unbindable {
		b = append(b, " unbindable"...)
	}
	return b
}

func (sb *Superblock) appendOptions(b []byte) []byte {
	b = appendFlags(b, sb.ReadOnly(), 0)
	if o := sb.ops.ShowOptions(); o != "" {
		b = append(append(b, ','), o...)
	}
	return b
}

// Mounts is /proc/PID/mounts as seen from root (fstab(5)).
func (ns *MountNamespace) Mounts(root Path) (b []byte) {
	ns.each(root, func(m *Mount, path string) {
		b = appendSource(b, m.sb.source)
		b = append(b, ' ')
		b = appendEscaped(b, path)
		b = append(b, ' ')
		b = append(b, m.sb.typeName()...)
		b = append(b, ' ')
		b = appendFlags(b, m.ReadOnly(), m.Flags())
		if o := m.sb.ops.ShowOptions(); o != "" {
			b = append(append(b, ','), o...)
		}
		b = append(b, " 0 0\n"...)
	})
	return b
}

// MountStats is /proc/PID/mountstats.
func (ns *MountNamespace) MountStats(root Path) (b []byte) {
	ns.each(root, func(m *Mount, path string) {
		b = append(b, "device "...)
		b = appendSource(b, m.sb.source)
		b = append(b, " mounted on "...)
		b = appendEscaped(b, path)
		b = append(b, " with fstype "...)
		b = append(b, m.sb.typeName()...)
		b = append(b, '\n')
	})
	return b
}

// Events counts changes of the namespace; EventRegister and EventUnregister let a poll on /proc/PID/mounts wait for one.
func (ns *MountNamespace) Events() int64 { return ns.events.Load() }

// EventRegister adds e.
func (ns *MountNamespace) EventRegister(e *waiter.Entry) { ns.queue.EventRegister(e) }

// EventUnregister removes e.
func (ns *MountNamespace) EventUnregister(e *waiter.Entry) { ns.queue.EventUnregister(e) }
