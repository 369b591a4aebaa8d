package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/runsc/boot"
)

// nobody is the host user and group that a sandbox of a privileged launcher runs as.
const nobody = 65534

// Numbers of descriptors of a child while its script runs, relative to the script's base.
const (
	slotNull = iota
	slotWords
	slotConn
	slotExe
	slotFS
	slotMount
	slotFile
	slotTree // and those that follow
)

// newFS begins a file system for fsmount; its descriptor is in slotFS.
func (c *childScript) newFS(kind string, options ...[2]string) {
	c.do("fsopen "+kind, unix.SYS_FSOPEN, c.str(kind), unix.FSOPEN_CLOEXEC)
	c.into(c.base + slotFS)
	for _, o := range options {
		c.do("fsconfig "+kind, unix.SYS_FSCONFIG, c.base+slotFS, unix.FSCONFIG_SET_STRING, c.str(o[0]), c.str(o[1]), 0)
	}
	c.do("fsconfig "+kind, unix.SYS_FSCONFIG, c.base+slotFS, unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
}

// mountFS makes a mount of the file system that is in no namespace; its descriptor is in slotMount.
func (c *childScript) mountFS(kind string, attrs uintptr) {
	c.do("fsmount "+kind, unix.SYS_FSMOUNT, c.base+slotFS, unix.FSMOUNT_CLOEXEC, attrs)
	c.into(c.base + slotMount)
}

// emptyRoot gives the process's mount namespace an empty, read-only root and nothing else: every path, absolute or
// relative, ends at once. It needs CAP_SYS_ADMIN in the namespace's owner.
func (c *childScript) emptyRoot() {
	root, dot, none := c.str("/"), c.str("."), c.str("")
	// Nothing that is mounted from here on may show up in the namespace that this one is a copy of.
	c.do("make mounts private", unix.SYS_MOUNT, none, root, none, unix.MS_REC|unix.MS_PRIVATE, 0)
	c.newFS("tmpfs", [2]string{"size", "4096"}, [2]string{"mode", "0555"})
	c.mountFS("tmpfs", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	// Mounted over "/", it is reached through its descriptor, as paths still start below it.
	c.do("move_mount", unix.SYS_MOVE_MOUNT, c.base+slotMount, none, at(unix.AT_FDCWD), root, unix.MOVE_MOUNT_F_EMPTY_PATH)
	c.do("fchdir", unix.SYS_FCHDIR, c.base+slotMount)
	c.do("pivot_root", unix.SYS_PIVOT_ROOT, dot, dot)
	c.do("umount old root", unix.SYS_UMOUNT2, dot, unix.MNT_DETACH)
	c.do("chdir", unix.SYS_CHDIR, root)
}

// at is a directory descriptor as a system call's argument.
func at(fd int) uintptr { return uintptr(fd) }

// memoryFile makes a file without a name on a tmpfs of its own that prefers huge pages: touching memory for the first
// time costs a tenth then, and changing its protection a fiftieth. Where the host has no huge pages or refuses, the
// descriptor is /dev/null: a memfd serves as well.
func (c *childScript) memoryFile() {
	c.inherit(c.base+slotNull, boot.MemoryFD)
	first := len(c.steps)
	// The size is bounded by the container's memory limits, as a memfd's.
	c.newFS("tmpfs", [2]string{"huge", "always"}, [2]string{"size", "0"})
	c.mountFS("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV) // applications execute from their memory
	// O_EXCL: it can never be linked to a name.
	c.do("memory file", unix.SYS_OPENAT, c.base+slotMount, c.str("."), unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	c.into(c.base + slotFile)
	c.inherit(c.base+slotFile, boot.MemoryFD)
	for i := first; i < len(c.steps); i++ {
		c.steps[i].flags |= stepTry
	}
}

// procFD opens /proc/self/fd of a proc file system that shows nothing but this process's PID namespace and is mounted nowhere.
func (c *childScript) procFD() {
	c.newFS("proc", [2]string{"subset", "pid"})
	c.mountFS("proc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	c.do("open proc", unix.SYS_OPENAT, c.base+slotMount, c.str("self/fd"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	c.into(c.base + slotFile)
	c.inherit(c.base+slotFile, boot.ProcFD)
}

// tree clones the mount tree at a path, with attributes of its own and detached from any namespace: the descriptor is all
// that leads to it.
func (c *childScript) tree(a *boot.Attach, i int) {
	fd, path := c.base+slotTree+uintptr(i), c.str(a.Path)
	what, flags, attrFlags := "mount source", uintptr(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), uintptr(unix.AT_EMPTY_PATH)
	if a.Root {
		// The bundle's root may not lead elsewhere by a symbolic link: it is writable by the container.
		what, flags = "rootfs", flags|unix.AT_SYMLINK_NOFOLLOW
	}
	var once *step
	if a.Recursive {
		flags, attrFlags = flags|unix.AT_RECURSIVE, attrFlags|unix.AT_RECURSIVE
	} else {
		once = c.try(unix.SYS_OPEN_TREE, at(unix.AT_FDCWD), path, flags)
	}
	last := c.do(what, unix.SYS_OPEN_TREE, at(unix.AT_FDCWD), path, flags|unix.AT_RECURSIVE)
	c.on(a.Path)
	c.into(fd)
	if once != nil {
		// In a user namespace, what is mounted below belongs to what it hides and comes along: hence a second attempt.
		last.flags, once.to = stepElse, last.to
	}
	// Device nodes are the sentry's business: one in a container's files must not open a host device.
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if a.ReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	c.do("mount_setattr", unix.SYS_MOUNT_SETATTR, fd, c.str(""), attrFlags, keepAt(c.script, attr), unsafe.Sizeof(*attr))
	c.on(a.Path)
	c.inherit(fd, uintptr(boot.AttachFD+i))
}

// capBits is how many capabilities a set can hold; those that the kernel does not know cannot be dropped, nor had.
const capBits = 64

// caps reduces the process to the capabilities of mask and forbids it to ever gain any by execve(2). It keeps them in the program that
// it executes as ambient ones: with an empty bounding set even root has no others, capabilities(7).
func (c *childScript) caps(mask uint64) {
	set := func(have uint64) (hdr, data uintptr) {
		sets := new([2]unix.CapUserData)
		for i := range sets {
			half := uint32(have >> (32 * i))
			sets[i] = unix.CapUserData{Effective: half, Permitted: half, Inheritable: uint32(mask >> (32 * i))}
		}
		return keepAt(c.script, &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}), keepAt(c.script, sets)
	}
	// What is not in the bounding set cannot become inheritable later. A launcher without CAP_SETPCAP leaves the set as it is.
	hdr, data := set(mask | 1<<unix.CAP_SETPCAP)
	c.try(unix.SYS_CAPSET, hdr, data)
	for i := range uintptr(capBits) {
		c.try(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, i, 0, 0, 0)
	}
	hdr, data = set(mask)
	c.do("capset", unix.SYS_CAPSET, hdr, data)
	for i := range uintptr(capBits) {
		if mask>>i&1 != 0 {
			c.do("ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, i, 0, 0)
		}
	}
	c.do("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}
