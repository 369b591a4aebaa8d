package proc

import (
	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// NetFiles is implemented by network namespaces that have something to tell in /proc/net.
type NetFiles interface {
	// ProcNet appends the content of a file of /proc/net ("tcp", "unix", ...); false where it leaves the file to procfs, which shows an empty table.
	ProcNet(name string, buf []byte) ([]byte, bool)
}

// netFile is a file of /proc/net with what it holds when nothing is known: the heading of its table.
type netFile struct {
	name    string
	perm    uint32
	content string
}

const (
	inetHeading  = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
	inet6Heading = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
)

// netFiles are the files of /proc/net (proc_pid_net(5)).
var netFiles = [...]netFile{
	{"arp", 0444, "IP address       HW type     Flags       HW address            Mask     Device\n"},
	{"dev", 0444, "Inter-|   Receive                                                |  Transmit\n" +
		" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
		"    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n"},
	{"dev_mcast", 0444, ""},
	{"fib_trie", 0444, ""},
	{"if_inet6", 0444, "00000000000000000000000000000001 01 80 10 80       lo\n"},
	{"igmp", 0444, "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"},
	{"ip_tables_names", 0440, ""},
	{"ipv6_route", 0444, ""},
	{"netlink", 0444, "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"},
	{"netstat", 0444, "TcpExt: SyncookiesSent\nTcpExt: 0\nIpExt: InNoRoutes\nIpExt: 0\n"},
	{"packet", 0444, "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"},
	{"protocols", 0444, "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em\n"},
	{"psched", 0444, "000003e8 00000040 000f4240 3b9aca00\n"},
	{"ptype", 0444, "Type Device      Function\n"},
	{"raw", 0444, inetHeading + " ref pointer drops\n"},
	{"raw6", 0444, inet6Heading + " ref pointer drops\n"},
	{"route", 0444, "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n"},
	{"snmp", 0444, "Ip: Forwarding DefaultTTL InReceives\nIp: 2 64 0\nTcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens\nTcp: 1 200 120000 -1 0\nUdp: InDatagrams NoPorts\nUdp: 0 0\n"},
	{"sockstat", 0444, "sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\nUDP: inuse 0 mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n"},
	{"sockstat6", 0444, "TCP6: inuse 0\nUDP6: inuse 0\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n"},
	{"tcp", 0444, inetHeading + "                                                     \n"},
	{"tcp6", 0444, inet6Heading + "\n"},
	{"udp", 0444, inetHeading + " ref pointer drops             \n"},
	{"udp6", 0444, inet6Heading + " ref pointer drops\n"},
	{"udplite", 0444, inetHeading + " ref pointer drops             \n"},
	{"unix", 0444, "Num       RefCount Protocol Flags    Type St Inode Path\n"},
	{"wireless", 0444, "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n"},
}

// netDir is /proc/PID/net: the network of the task.
type netDir struct {
	dirNode
	taskRef
}

func newNetDir(r taskRef, ino uint64) *vfs.Inode {
	d := &netDir{taskRef: r}
	d.Node.Init(d, r.fs.SB, ino, unix.S_IFDIR|0555, 0, 0, vfs.InodeRevalidate)
	d.FixedAttr = true
	return &d.Inode
}

func (d *netDir) entryIno(i int) uint64 { return d.Ino()&^0xff | uint64(i+160) }

// Lookup implements vfs.InodeOps.
func (d *netDir) Lookup(_ vfs.Context, name string) (*vfs.Inode, error) {
	_, t := d.get()
	if t == nil || t.Exited() {
		return nil, unix.ENOENT
	}
	for i := range netFiles {
		if netFiles[i].name == name {
			f := &netInode{taskRef: d.taskRef, file: &netFiles[i]}
			f.Node.Init(f, d.fs.SB, d.entryIno(i), unix.S_IFREG|netFiles[i].perm, 0, 0, vfs.InodeNoExec)
			f.FixedAttr = true
			return &f.Inode, nil
		}
	}
	return nil, unix.ENOENT
}

// Revalidate implements vfs.Revalidator.
func (d *netDir) Revalidate(vfs.Context, string, *vfs.Inode) bool {
	_, t := d.get()
	return t != nil && !t.Exited()
}

// Open implements vfs.InodeOps.
func (d *netDir) Open(vfs.Context, uint32) (vfs.FileImpl, error) {
	return pseudo.DirFile{DirReader: d}, nil
}

// ReadDir implements vfs.DirReader.
func (d *netDir) ReadDir(_ vfs.Context, cookie int64, sink vfs.DirSink) error {
	for i := int(min(cookie-2, int64(len(netFiles)))); i < len(netFiles); i++ {
		if !sink.Emit(netFiles[i].name, d.entryIno(i), unix.DT_REG, int64(i)+3) {
			break
		}
	}
	return nil
}

// netInode is a file of /proc/PID/net.
type netInode struct {
	pseudo.Node
	taskRef
	file *netFile
}

// Open implements vfs.InodeOps. The file goes with the network that the task is in now.
func (f *netInode) Open(vfs.Context, uint32) (vfs.FileImpl, error) {
	_, t := f.get()
	if t == nil || t.Exited() {
		return nil, unix.EINVAL
	}
	return pseudo.NewOpenFile(&netGen{t.NetNS(), f.file}), nil
}

// netGen makes the content.
type netGen struct {
	ns   kernel.NetworkNamespace // may be nil
	file *netFile
}

// Generate implements pseudo.Generator.
func (g *netGen) Generate(_ vfs.Context, b []byte) ([]byte, error) {
	if n, ok := g.ns.(NetFiles); ok {
		if out, ok := n.ProcNet(g.file.name, b); ok {
			return out, nil
		}
	}
	return append(b, g.file.content...), nil
}
