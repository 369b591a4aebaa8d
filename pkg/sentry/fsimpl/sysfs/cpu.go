package sysfs

import (
	"strconv"

	"husk/pkg/arch"
	"husk/pkg/sentry/fsimpl/pseudo"
)

// fillCPUs is /sys/devices/system/cpu. All processors are cores of one package.
func (f *fs) fillCPUs(d *pseudo.Dir) {
	n := f.k.NumCPU()
	all := string(pseudo.AppendList(nil, n))
	for _, name := range [...]string{"online", "possible", "present"} {
		f.file(d, name, all)
	}
	for _, name := range [...]string{"isolated", "nohz_full", "offline"} {
		f.file(d, name, "")
	}
	f.file(d, "kernel_max", "8191")
	f.dir(d, "smt", func(d *pseudo.Dir) {
		f.file(d, "active", "0")
		f.file(d, "control", "notsupported")
	})
	for i := 0; i < n; i++ {
		f.dir(d, "cpu"+strconv.Itoa(i), func(d *pseudo.Dir) { f.fillCPU(d, i, n) })
	}
}

func (f *fs) fillCPU(d *pseudo.Dir, i, n int) {
	if i > 0 {
		f.file(d, "online", "1")
	}
	f.link(d, "node0", "../../node/node0")
	own, ownMask := strconv.Itoa(i), string(pseudo.AppendMask(nil, n, func(c int) bool { return c == i }))
	all, allMask := string(pseudo.AppendList(nil, n)), string(pseudo.AppendMask(nil, n, func(int) bool { return true }))
	f.dir(d, "topology", func(d *pseudo.Dir) {
		f.num(d, "cluster_id", 65535)
		f.num(d, "core_id", i)
		f.num(d, "die_id", 0)
		f.num(d, "physical_package_id", 0)
		for _, x := range [...]string{"thread_siblings", "core_cpus", "cluster_cpus"} {
			f.file(d, x, ownMask)
			f.file(d, x+"_list", own)
		}
		for _, x := range [...]string{"core_siblings", "package_cpus", "die_cpus"} {
			f.file(d, x, allMask)
			f.file(d, x+"_list", all)
		}
	})
	f.dir(d, "cache", func(d *pseudo.Dir) {
		for k, c := range readCaches() {
			f.dir(d, "index"+strconv.Itoa(k), func(d *pseudo.Dir) {
				f.num(d, "coherency_line_size", c.line)
				id := i
				list, mask := own, ownMask
				if c.level >= 3 {
					id, list, mask = 0, all, allMask
				}
				f.num(d, "id", id)
				f.num(d, "level", c.level)
				f.num(d, "number_of_sets", c.sets)
				f.num(d, "physical_line_partition", c.partitions)
				f.file(d, "shared_cpu_list", list)
				f.file(d, "shared_cpu_map", mask)
				f.file(d, "size", strconv.Itoa(c.line*c.partitions*c.ways*c.sets>>10)+"K")
				f.file(d, "type", c.kind)
				f.num(d, "ways_of_associativity", c.ways)
			})
		}
	})
}

// cache is a cache as CPUID describes it.
type cache struct {
	level, line, partitions, ways, sets int
	kind                                string
}

// readCaches asks CPUID for the caches: leaf 4 of Intel's processors, leaf 0x8000001d of AMD's, which has the same form.
func readCaches() (l []cache) {
	leaf := uint32(4)
	if _, b, _, _ := arch.CPUID(0, 0); b == 0x68747541 { // "Auth"enticAMD
		if ext, _, _, _ := arch.CPUID(0x80000000, 0); ext < 0x8000001d {
			return nil
		}
		leaf = 0x8000001d
	} else if top, _, _, _ := arch.CPUID(0, 0); top < leaf {
		return nil
	}
	const most = 8
	for i := uint32(0); i < most; i++ {
		a, b, c, _ := arch.CPUID(leaf, i)
		kind := ""
		switch a & 31 {
		case 1:
			kind = "Data"
		case 2:
			kind = "Instruction"
		case 3:
			kind = "Unified"
		default:
			return l
		}
		l = append(l, cache{int(a >> 5 & 7), int(b&0xfff) + 1, int(b>>12&0x3ff) + 1, int(b>>22&0x3ff) + 1, int(c) + 1, kind})
	}
	return l
}
