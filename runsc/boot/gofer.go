package boot

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"husk/pkg/gofer"
	"husk/pkg/log"
)

// goferCaps is what a file broker needs to act on files for every user of the container:
// capabilities(7). It makes no device nodes (CAP_MKNOD) and no mounts once it serves.
const goferCaps = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID

// GoferMain is the gofer process.
func GoferMain() int {
	start := Enter()
	setName("runsc-gofer")
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
	t.MarkEntry(start)
	cfg, err := confineGofer(g, t)
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
	if err := gofer.Serve(g.Conn, *cfg); err != nil {
		l.Print(log.Error, "gofer: "+err.Error())
		return 1
	}
	return 0
}

// confineGofer opens what the gofer serves and takes away everything else.
func confineGofer(g *GoferBoot, t *Timeline) (*gofer.Config, error) {
	unix.Umask(0)
	filter := buildFilter(gofer.Filter())
	cfg := &gofer.Config{}
	for i := range g.Attach {
		fd, err := openTree(&g.Attach[i])
		if err != nil {
			return nil, err
		}
		at := gofer.AttachPoint{FD: fd}
		if g.Attach[i].ReadOnly {
			at.Flags |= gofer.ReadOnly
		}
		cfg.Attach = append(cfg.Attach, at)
	}
	t.Mark("attach points opened")
	var err error
	if cfg.ProcFD, err = openProcFD(); err != nil {
		return nil, err
	}
	if err := enterEmptyRoot(); err != nil {
		return nil, err
	}
	t.Mark("root is empty")
	if err := setCaps(goferCaps); err != nil {
		return nil, err
	}
	t.Mark("capabilities dropped")
	if err := filter(); err != nil {
		return nil, err
	}
	t.Mark("seccomp filter installed")
	return cfg, nil
}

// openProcFD opens /proc/self/fd of a proc file system that shows nothing but this process's PID
// namespace and is mounted nowhere.
func openProcFD() (int, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen proc: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "subset", "pid"); err != nil {
		return -1, fmt.Errorf("fsconfig proc: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("fsconfig proc: %w", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsmount proc: %w", err)
	}
	defer unix.Close(mnt)
	fd, err := unix.Openat(mnt, "self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open proc: %w", err)
	}
	return fd, nil
}

// openTree clones the mount tree at a path, with attributes of its own and detached from any
// namespace: the descriptor is all that leads to it.
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
