package sysfs

import (
	"strconv"

	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// fsType is the file system type.
type fsType struct{ k *kernel.Kernel }

// Register makes "sysfs" known to v.
func Register(k *kernel.Kernel, v *vfs.VFS) { v.RegisterFileSystem(&fsType{k}) }

// Name implements vfs.FileSystemType.
func (*fsType) Name() string { return "sysfs" }

// NoDev implements vfs.FileSystemType.
func (*fsType) NoDev() bool { return true }

// UserNS implements vfs.FileSystemType.
func (*fsType) UserNS() bool { return true }

// Mount implements vfs.FileSystemType. There are no options.
func (t *fsType) Mount(_ vfs.Context, v *vfs.VFS, o *vfs.MountOptions) (*vfs.Superblock, error) {
	f := &fs{FS: pseudo.NewFS(v, t, o, unix.SYSFS_MAGIC), k: t.k}
	root := f.NewLazyDir(0555, f.fill)
	root.FixedAttr = true
	f.SB.SetRoot(&root.Inode)
	return f.SB, nil
}

// fs is an instance.
type fs struct {
	*pseudo.FS
	k *kernel.Kernel
}

// dir enters a directory that is filled when it is used.
func (f *fs) dir(d *pseudo.Dir, name string, fill func(d *pseudo.Dir)) {
	if fill == nil {
		n := f.NewDir(0555)
		n.FixedAttr = true
		d.Add(name, &n.Inode)
		return
	}
	n := f.NewLazyDir(0555, fill)
	n.FixedAttr = true
	d.Add(name, &n.Inode)
}

// dirs enters empty directories.
func (f *fs) dirs(d *pseudo.Dir, names ...string) {
	for _, n := range names {
		f.dir(d, n, nil)
	}
}

// gen enters a file that g makes.
func (f *fs) gen(d *pseudo.Dir, name string, g pseudo.Generator) {
	n := f.NewFile(0444, g)
	n.FixedAttr, n.Size = true, 4096
	d.Add(name, &n.Inode)
}

// file enters a file of one line.
func (f *fs) file(d *pseudo.Dir, name, line string) { f.gen(d, name, pseudo.Bytes(line+"\n")) }

func (f *fs) num(d *pseudo.Dir, name string, v int) { f.file(d, name, strconv.Itoa(v)) }

// link enters a symlink.
func (f *fs) link(d *pseudo.Dir, name, target string) {
	l := f.NewSymlink(target)
	l.FixedAttr = true
	d.Add(name, &l.Inode)
}

// fill makes the root.
func (f *fs) fill(d *pseudo.Dir) {
	f.dirs(d, "block", "firmware", "hypervisor", "module")
	f.dir(d, "bus", func(d *pseudo.Dir) {
		for _, n := range [...]string{"cpu", "node", "pci", "usb"} {
			f.dir(d, n, func(d *pseudo.Dir) { f.dirs(d, "devices", "drivers") })
		}
	})
	f.dir(d, "class", f.fillClass)
	f.dir(d, "dev", func(d *pseudo.Dir) { f.dirs(d, "block", "char") })
	f.dir(d, "devices", f.fillDevices)
	f.dir(d, "fs", func(d *pseudo.Dir) {
		f.dirs(d, "bpf", "cgroup")
		f.dir(d, "fuse", func(d *pseudo.Dir) { f.dirs(d, "connections") })
		f.dirs(d, "pstore")
	})
	f.dir(d, "kernel", f.fillKernel)
	f.dir(d, "power", func(d *pseudo.Dir) { f.file(d, "state", "") })
}

func (f *fs) fillClass(d *pseudo.Dir) {
	f.dirs(d, "block", "dmi", "hwmon", "mem", "misc", "power_supply", "thermal", "tty")
	f.dir(d, "net", func(d *pseudo.Dir) { f.link(d, "lo", "../../devices/virtual/net/lo") })
}

func (f *fs) fillDevices(d *pseudo.Dir) {
	f.dirs(d, "pci0000:00", "platform")
	f.dir(d, "system", func(d *pseudo.Dir) {
		f.dir(d, "cpu", f.fillCPUs)
		f.dir(d, "memory", func(d *pseudo.Dir) { f.file(d, "block_size_bytes", "8000000") })
		f.dir(d, "node", f.fillNodes)
	})
	f.dir(d, "virtual", func(d *pseudo.Dir) {
		f.dirs(d, "block", "mem", "misc", "tty")
		f.dir(d, "net", func(d *pseudo.Dir) { f.dir(d, "lo", f.fillLoopback) })
	})
}

// fillLoopback is the loopback device.
func (f *fs) fillLoopback(d *pseudo.Dir) {
	for _, x := range [...][2]string{
		{"addr_assign_type", "0"}, {"addr_len", "6"}, {"address", "00:00:00:00:00:00"}, {"broadcast", "00:00:00:00:00:00"}, {"carrier", "1"},
		{"dev_id", "0x0"}, {"dev_port", "0"}, {"dormant", "0"}, {"flags", "0x9"}, {"gro_flush_timeout", "0"}, {"ifalias", ""}, {"ifindex", "1"}, {"iflink", "1"},
		{"link_mode", "0"}, {"mtu", "65536"}, {"netdev_group", "0"}, {"operstate", "unknown"}, {"proto_down", "0"}, {"tx_queue_len", "1000"}, {"type", "772"},
		{"uevent", "INTERFACE=lo\nIFINDEX=1"},
	} {
		f.file(d, x[0], x[1])
	}
	f.link(d, "subsystem", "../../../../class/net")
	f.dir(d, "statistics", func(d *pseudo.Dir) {
		for _, n := range [...]string{"collisions", "multicast", "rx_bytes", "rx_dropped", "rx_errors", "rx_packets", "tx_bytes", "tx_dropped", "tx_errors", "tx_packets"} {
			f.file(d, n, "0")
		}
	})
}

func (f *fs) fillKernel(d *pseudo.Dir) {
	f.file(d, "address_bits", "64")
	f.file(d, "cpu_byteorder", "little")
	f.file(d, "fscaps", "1")
	f.file(d, "uevent_seqnum", "1")
	f.dirs(d, "config", "debug", "security", "tracing")
	f.dir(d, "mm", func(d *pseudo.Dir) {
		f.dir(d, "hugepages", func(d *pseudo.Dir) { f.dir(d, "hugepages-2048kB", f.fillHugePages) })
		f.dir(d, "transparent_hugepage", func(d *pseudo.Dir) {
			f.file(d, "defrag", "always defer defer+madvise [madvise] never")
			f.file(d, "enabled", "always [madvise] never")
			f.num(d, "hpage_pmd_size", 2<<20)
			f.file(d, "shmem_enabled", "always within_size advise [never] deny force")
			f.file(d, "use_zero_page", "1")
		})
		f.dir(d, "ksm", func(d *pseudo.Dir) { f.file(d, "run", "0") })
	})
}

func (f *fs) fillHugePages(d *pseudo.Dir) {
	for _, n := range [...]string{"free_hugepages", "nr_hugepages", "nr_overcommit_hugepages", "resv_hugepages", "surplus_hugepages"} {
		f.file(d, n, "0")
	}
}

// fillNodes is the one memory node.
func (f *fs) fillNodes(d *pseudo.Dir) {
	for _, n := range [...]string{"has_cpu", "has_memory", "has_normal_memory", "online", "possible"} {
		f.file(d, n, "0")
	}
	f.dir(d, "node0", func(d *pseudo.Dir) {
		n := f.k.NumCPU()
		f.file(d, "cpulist", string(pseudo.AppendList(nil, n)))
		f.file(d, "cpumap", string(pseudo.AppendMask(nil, n, func(int) bool { return true })))
		f.file(d, "distance", "10")
		f.gen(d, "meminfo", pseudo.GeneratorFunc(f.nodeMemory))
		f.file(d, "numastat", "numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\nlocal_node 0\nother_node 0")
		for i := 0; i < n; i++ {
			f.link(d, "cpu"+strconv.Itoa(i), "../../cpu/cpu"+strconv.Itoa(i))
		}
		f.dir(d, "hugepages", func(d *pseudo.Dir) { f.dir(d, "hugepages-2048kB", f.fillHugePages) })
	})
}

func (f *fs) nodeMemory(_ vfs.Context, b []byte) ([]byte, error) {
	total, free := f.k.Memory()
	row := func(name string, v uint64) {
		b = append(append(append(b, "Node 0 "...), name...), ':')
		s := strconv.FormatUint(v>>10, 10)
		for n := len(name) + len(s); n < 24; n++ {
			b = append(b, ' ')
		}
		b = append(append(b, s...), " kB\n"...)
	}
	row("MemTotal", total)
	row("MemFree", free)
	row("MemUsed", total-free)
	row("Active", total-free)
	row("Inactive", 0)
	row("FilePages", 0)
	row("AnonPages", total-free)
	return b, nil
}
