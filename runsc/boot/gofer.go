package boot

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"husk/pkg/log"
)

// goferCaps is what a file broker needs to act on files for every user of the container:
// capabilities(7). It makes no device nodes (CAP_MKNOD) and no mounts once it serves.
const goferCaps = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID

// ServeFiles serves the attach points on a connection until it closes.
type ServeFiles func(conn int, attach []int, l *log.Logger) error

// GoferMain is the gofer process.
func GoferMain(serve ServeFiles) int {
	start := Now()
	c := NewConn(BootFD)
	f, err := c.Recv()
	if err != nil || f.Kind != KindGoferBoot {
		return 128
	}
	g := new(GoferBoot)
	left, err := Unmarshal(g, f.Data, f.FDs)
	if err != nil || len(left) > 0 {
		return 128
	}
	l := &log.Logger{FD: g.Log, On: g.Log >= 0, Level: log.Debug}
	t := NewTimeline("gofer", g.Epoch)
	t.MarkAt("main entered", start)
	attach, err := openAttach(g.Attach)
	t.Mark("attach points opened")
	if err == nil {
		if err = enterEmptyRoot(); err == nil {
			t.Mark("root is empty")
			err = setCaps(goferCaps)
		}
	}
	t.Mark("capabilities dropped")
	ready := GoferReady{}
	if err != nil {
		ready.Error = err.Error()
	}
	c.SendMessage(KindGoferReady, f.ID, &ready)
	c.Close()
	t.Print(l)
	if err != nil {
		return 128
	}
	if err := serve(g.Conn, attach, l); err != nil {
		l.Print(log.Error, "gofer: "+err.Error())
		return 1
	}
	return 0
}

// openAttach clones the mount trees that the gofer serves, with their own attributes, detached
// from any namespace: the descriptors are all that leads to them.
func openAttach(attach []Attach) ([]int, error) {
	fds := make([]int, 0, len(attach))
	for i := range attach {
		fd, err := openTree(&attach[i])
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func openTree(a *Attach) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	attrFlags := uint(unix.AT_EMPTY_PATH)
	if a.Root {
		// The bundle's root may not lead elsewhere by a symbolic link: it is writable by the container.
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	if a.Recursive {
		flags |= unix.AT_RECURSIVE
		attrFlags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, a.Path, flags)
	if err == unix.EINVAL && !a.Recursive {
		// In a user namespace, what is mounted below belongs to what it hides and comes along.
		fd, err = unix.OpenTree(unix.AT_FDCWD, a.Path, flags|unix.AT_RECURSIVE)
	}
	if err != nil {
		if a.Root {
			return -1, fmt.Errorf("rootfs %q: %w", a.Path, err)
		}
		return -1, fmt.Errorf("mount source %q: %w", a.Path, err)
	}
	// Device nodes are the sentry's business: one in a container's files must not open a host device.
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if a.ReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", attrFlags, &attr); err != nil {
		return -1, fmt.Errorf("mount %q: mount_setattr: %w", a.Path, err)
	}
	if a.Root {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return -1, errors.New("rootfs " + a.Path + " is not a directory")
		}
	}
	return fd, nil
}
