package hostfile

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Host makes files from host descriptors; one per sandbox.
type Host struct {
	v   *vfs.VFS
	sb  *vfs.Superblock
	mnt *vfs.Mount

	mu    sync.Mutex
	ep    int             // protected by mu: the epoll instance; -1 until it is needed. Host resource
	nodes map[int32]*node // protected by mu: registered streams by descriptor
	ino   uint64          // protected by mu
}

type superblockOps struct{ vfs.NoSuperblockOps }

// magic is what statfs(2) shows: that of anon_inodefs.
const magic = 0x09041934

// StatFS implements vfs.SuperblockOps.
func (superblockOps) StatFS(_ vfs.Context, st *vfs.StatFS) error {
	st.Type, st.Bsize, st.Frsize, st.Namelen = magic, 4096, 4096, 255
	return nil
}

// NewHost makes the factory.
func NewHost(v *vfs.VFS) *Host {
	h := &Host{v: v, ep: -1, nodes: make(map[int32]*node)}
	h.sb = v.NewSuperblock(nil, superblockOps{}, nil, magic)
	root := &node{host: h, fd: -1}
	root.Init(root, h.sb, 1, unix.S_IFDIR|0500, 0, 0, 0)
	h.sb.SetRoot(&root.Inode)
	h.mnt = v.NewInternalMount(h.sb)
	h.ino = 1
	return h
}

// watch registers n for events; false if the host's file cannot be polled.
func (h *Host) watch(n *node) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ep < 0 {
		ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return false
		}
		h.ep = ep
		go h.run(ep)
	}
	const edge = 1 << 31
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | edge, Fd: int32(n.fd)}
	if unix.EpollCtl(h.ep, unix.EPOLL_CTL_ADD, n.fd, &ev) != nil {
		return false
	}
	h.nodes[int32(n.fd)] = n
	return true
}

// unwatch undoes watch, before the descriptor is closed: others may hold the same file open.
func (h *Host) unwatch(n *node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.nodes, int32(n.fd))
	unix.EpollCtl(h.ep, unix.EPOLL_CTL_DEL, n.fd, nil)
}

// run passes events on, for the life of the sandbox.
func (h *Host) run(ep int) {
	var events [32]unix.EpollEvent
	for {
		// epoll_pwait: it is the one that the sandbox's filter allows.
		k, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return
		}
		for i := range int(k) {
			m := waiter.EventMask(events[i].Events)
			if m&waiter.EventIn != 0 {
				m |= waiter.ReadableEvents
			}
			if m&waiter.EventOut != 0 {
				m |= waiter.WritableEvents
			}
			h.mu.Lock()
			n := h.nodes[events[i].Fd]
			h.mu.Unlock()
			if n != nil {
				n.queue.Notify(m)
			}
		}
	}
}

// Readiness asks poll(2) of a host descriptor.
func Readiness(fd int, mask waiter.EventMask) waiter.EventMask {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: int16(mask)}}
	var ts unix.Timespec
	if k, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p[0])), 1, uintptr(unsafe.Pointer(&ts)), 0, 0, 0); errno != 0 || k == 0 {
		return 0
	}
	return waiter.EventMask(uint16(p[0].Revents)) & (mask | waiter.EventErr | waiter.EventHUp)
}
