package container

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"husk/runsc/boot"
	"husk/runsc/sandbox"
)

// Annotations by which Kubernetes' runtimes say that a container belongs to a pod.
const (
	containerdType    = "io.kubernetes.cri.container-type"
	containerdSandbox = "io.kubernetes.cri.sandbox-id"
	crioType          = "io.kubernetes.cri-o.ContainerType"
	crioSandbox       = "io.kubernetes.cri-o.SandboxID"
)

// holder is what this process has of a new container: its sandbox, or its place in that of another container.
type holder interface {
	PID() int
	GoferPID() int
	// Detach lets the container live without this process, Kill ends it, Wait waits for its end.
	Detach() error
	Kill()
	Wait() unix.WaitStatus
	LastWords() string
}

// findSandbox finds the container whose sandbox a new container is to live in, nil for one of its
// own, and the namespaces that it shares with others in there. A pod's annotations say so, or a
// namespace that is that of another container: sharing it takes sharing the kernel.
func findSandbox(root string, s *specs.Spec) (*Container, []boot.Join, error) {
	var host *Container
	a := s.Annotations
	for _, k := range [][2]string{{containerdType, containerdSandbox}, {crioType, crioSandbox}} {
		if a[k[0]] == "container" && a[k[1]] != "" {
			c, err := Load(root, a[k[1]], false)
			if err != nil {
				return nil, nil, fmt.Errorf("sandbox %s: %w", a[k[1]], err)
			}
			host = c
		}
	}
	var all []*Container
	var joins []boot.Join
	for _, ns := range s.Linux.Namespaces {
		kind := string(ns.Type)
		if ns.Path == "" || ns.Type == specs.MountNamespace || ns.Type == specs.UserNamespace || ns.Type == specs.CgroupNamespace || ns.Type == specs.TimeNamespace {
			continue
		}
		if all == nil {
			all, _ = List(root)
		}
		owner := namespaceOwner(all, ns)
		if owner == nil {
			if ns.Type != specs.NetworkNamespace {
				return nil, nil, fmt.Errorf("the %s namespace %s is not that of a container", kind, ns.Path)
			}
			continue
		}
		if host != nil && host.Sandbox != owner.Sandbox {
			return nil, nil, fmt.Errorf("the namespaces are those of containers in different sandboxes (%s, %s)", host.ID, owner.ID)
		}
		host = owner
		joins = append(joins, boot.Join{Namespace: kind, Container: owner.ID})
	}
	if host != nil {
		if st := host.CurrentStatus(); st != Created && st != Running {
			return nil, nil, fmt.Errorf("container %s, whose sandbox is to be joined, is %s", host.ID, st)
		}
	}
	return host, joins, nil
}

// namespaceOwner finds the container whose host process is in the namespace of the host at a path.
// Where several are, the one that the path names or else the first of a sandbox is meant.
func namespaceOwner(all []*Container, ns specs.LinuxNamespace) *Container {
	var want unix.Stat_t
	if unix.Stat(ns.Path, &want) != nil {
		return nil
	}
	file := string(ns.Type)
	if ns.Type == specs.NetworkNamespace {
		file = "net"
	}
	var found *Container
	for _, c := range all {
		if c.PID == 0 || !alive(c.PID, c.StartTime) {
			continue
		}
		path := fmt.Sprintf("/proc/%d/ns/%s", c.PID, file)
		if path == ns.Path {
			return c
		}
		var st unix.Stat_t
		if c.Sandbox == c.ID && unix.Stat(path, &st) == nil && st.Ino == want.Ino && st.Dev == want.Dev {
			found = c
		}
	}
	if found != nil && inOwnNamespace(found.PID, file) {
		return nil // the host's own namespace is nobody's
	}
	return found
}

// inOwnNamespace says whether a process is in this process's own namespace.
func inOwnNamespace(pid int, file string) bool {
	var a, b unix.Stat_t
	return unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, file), &a) == nil && unix.Stat("/proc/self/ns/"+file, &b) == nil && a.Ino == b.Ino
}

// member is a container in the sandbox of another one. A process on the host stands for it, and
// keeps the connection open with which the container goes.
type member struct {
	*sandbox.Member
	waiter waiter
}

// join creates the container in the sandbox of host.
func (n *Launched) join(host *Container, l *sandbox.Launch) (holder, error) {
	n.Sandbox = host.Sandbox
	if l.Ready != nil {
		if err := l.Ready(host.PID); err != nil {
			return nil, err
		}
	}
	client, err := n.connectTo(host.PID)
	if err != nil {
		return nil, err
	}
	m, err := sandbox.Join(l, client)
	if err != nil {
		return nil, err
	}
	tty := -1
	if p := &l.Boot.Container.Process; p.Terminal {
		tty = p.Stdio[0]
	}
	w, err := n.spawnWaiter(m.Client(), 0, tty, n.place)
	if err != nil {
		m.Kill()
		return nil, err
	}
	return &member{Member: m, waiter: w}, nil
}

func (m *member) PID() int          { return m.waiter.pid }
func (m *member) LastWords() string { return "" }

func (m *member) Detach() error {
	m.waiter.detach()
	m.Member.Detach()
	return nil
}

func (m *member) Kill() {
	m.waiter.kill()
	m.Member.Kill()
}

func (m *member) Wait() unix.WaitStatus {
	m.Client().Close() // the waiting process has it too
	ws := m.waiter.wait()
	m.Reap()
	return ws
}
