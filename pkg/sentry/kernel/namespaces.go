package kernel

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"husk/pkg/sentry/auth"
)

// firstNSInode is where inode numbers of namespaces start, as in Linux (PROC_DYNAMIC_FIRST).
const firstNSInode = 0xf0000000

const clockBoottime = unix.CLOCK_BOOTTIME

// UTSNamespace holds the host name (uts_namespaces(7)).
type UTSNamespace struct {
	user  *auth.UserNamespace // immutable
	inode uint64              // immutable

	mu           sync.RWMutex
	host, domain string // protected by mu
}

func newUTSNamespace(k *Kernel, user *auth.UserNamespace, host, domain string) *UTSNamespace {
	if domain == "" {
		domain = "(none)"
	}
	return &UTSNamespace{user: user, inode: k.newNSInode(), host: host, domain: domain}
}

// NewUTSNamespace makes a namespace with the given names, for a container.
func (k *Kernel) NewUTSNamespace(user *auth.UserNamespace, host, domain string) *UTSNamespace {
	return newUTSNamespace(k, user, host, domain)
}

// UserNS owns the namespace.
func (u *UTSNamespace) UserNS() *auth.UserNamespace { return u.user }

// Inode identifies the namespace in /proc/PID/ns.
func (u *UTSNamespace) Inode() uint64 { return u.inode }

// HostName is the node name of uname(2).
func (u *UTSNamespace) HostName() string {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.host
}

// DomainName is the NIS domain name of uname(2).
func (u *UTSNamespace) DomainName() string {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.domain
}

// SetHostName replaces the node name; the caller has checked capability and length.
func (u *UTSNamespace) SetHostName(s string) {
	u.mu.Lock()
	u.host = s
	u.mu.Unlock()
}

// SetDomainName replaces the domain name.
func (u *UTSNamespace) SetDomainName(s string) {
	u.mu.Lock()
	u.domain = s
	u.mu.Unlock()
}

// IPCNamespace isolates System V IPC and POSIX message queues (ipc_namespaces(7)). The registries
// themselves are made by upper layers and kept here by key.
type IPCNamespace struct {
	user  *auth.UserNamespace // immutable
	inode uint64              // immutable
	extra sync.Map
	refs  atomic.Int64
}

func newIPCNamespace(k *Kernel, user *auth.UserNamespace) *IPCNamespace {
	return &IPCNamespace{user: user, inode: k.newNSInode()}
}

// NewIPCNamespace makes an empty namespace, for a container.
func (k *Kernel) NewIPCNamespace(user *auth.UserNamespace) *IPCNamespace {
	return newIPCNamespace(k, user)
}

// UserNS owns the namespace.
func (n *IPCNamespace) UserNS() *auth.UserNamespace { return n.user }

// Inode identifies the namespace in /proc/PID/ns.
func (n *IPCNamespace) Inode() uint64 { return n.inode }

// Registry returns the value stored under key, calling make for the first use.
func (n *IPCNamespace) Registry(key any, make func() any) any {
	if v, ok := n.extra.Load(key); ok {
		return v
	}
	v, _ := n.extra.LoadOrStore(key, make())
	return v
}
