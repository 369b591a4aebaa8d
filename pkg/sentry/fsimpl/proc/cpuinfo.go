package proc

import (
	"cmp"
	"strconv"
	"strings"

	"husk/pkg/arch"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/vfs"
)

// The names of features as /proc/cpuinfo has them, by bit of a register of CPUID; "-" for bits that are not shown.
const (
	flags1EDX = "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"
	flags1ECX = "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 x2apic movbe popcnt" +
		" tsc_deadline_timer aes xsave - avx f16c rdrand hypervisor"
	flags80000001EDX = "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow"
	flags80000001ECX = "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - nodeid_msr" +
		" - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx"
	flags7EBX = "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb" +
		" intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl"
	flags7ECX = "- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid" +
		" - bus_lock_detect cldemote - movdiri movdir64b enqcmd"
	flags7EDX = "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - serialize - tsxldtrk - pconfig arch_lbr ibt - amx_bf16" +
		" avx512_fp16 amx_tile amx_int8 - - flush_l1d arch_capabilities"
	flags71EAX       = "- - - - avx_vnni avx512_bf16"
	flagsD1EAX       = "xsaveopt xsavec xgetbv1 xsaves"
	flags80000008EBX = "clzero - xsaveerptr - rdpru - - - - wbnoinvd"
	flags80000007EDX = "- - - - - - - - constant_tsc"
)

// cpuFacts is what CPUID tells of the processors, which all look alike.
type cpuFacts struct {
	vendor, model              string
	family, modelNo, stepping  uint32
	level                      uint32
	cacheKB                    uint32
	physBits, virtBits, clLine uint32
	flags                      []byte
	// Of the host's kernel only, "" without.
	bugs, bogo, tlb, power, microcode string
}

// readHost takes over what the host's kernel says of the first processor: it may use or trust less than CPUID tells, and
// programs that choose by these flags must not find others than on the host.
func (c *cpuFacts) readHost(text string) {
	first, _, whole := strings.Cut(text, "\n\n")
	if !whole {
		return
	}
	for line := range strings.SplitSeq(first, "\n") {
		name, val, _ := strings.Cut(line, ":")
		val = strings.TrimPrefix(val, " ")
		switch strings.TrimSpace(name) {
		case "model name":
			c.model = val
		case "flags":
			c.flags = []byte(val)
		case "cache size":
			if kb, err := strconv.ParseUint(strings.TrimSuffix(val, " KB"), 10, 32); err == nil {
				c.cacheKB = uint32(kb)
			}
		case "microcode":
			c.microcode = val
		case "bugs":
			c.bugs = val
		case "bogomips":
			c.bogo = val
		case "TLB size":
			c.tlb = val
		case "power management":
			c.power = val
		}
	}
}

func appendFlags(b []byte, names string, reg uint32) []byte {
	for names != "" && reg != 0 {
		var n string
		n, names, _ = strings.Cut(names, " ")
		if reg&1 != 0 && n != "-" {
			b = append(append(b, ' '), n...)
		}
		reg >>= 1
	}
	return b
}

func appendReg(s []byte, v ...uint32) []byte {
	for _, r := range v {
		s = append(s, byte(r), byte(r>>8), byte(r>>16), byte(r>>24))
	}
	return s
}

func readCPU() (c cpuFacts) {
	max, b, cx, d := arch.CPUID(0, 0)
	c.level, c.vendor = max, string(appendReg(nil, b, d, cx))
	a, b, cx, d := arch.CPUID(1, 0)
	c.stepping, c.modelNo, c.family = a&15, a>>4&15, a>>8&15
	if c.family == 15 {
		c.family += a >> 20 & 0xff
	}
	if c.family >= 6 {
		c.modelNo |= a >> 16 & 15 << 4
	}
	c.clLine = b >> 8 & 0xff * 8
	f := appendFlags(nil, flags1EDX, d)
	ext, _, _, _ := arch.CPUID(0x80000000, 0)
	var ecx81 uint32
	if ext >= 0x80000001 {
		_, _, ecx81, d = arch.CPUID(0x80000001, 0)
		f = appendFlags(f, flags80000001EDX, d)
	}
	if ext >= 0x80000007 {
		if _, _, _, d = arch.CPUID(0x80000007, 0); d&(1<<8) != 0 {
			f = append(f, " constant_tsc rep_good nopl nonstop_tsc cpuid"...)
		}
	}
	f = appendFlags(f, flags1ECX, cx)
	f = appendFlags(f, flags80000001ECX, ecx81)
	if max >= 7 {
		_, b, c7, d7 := arch.CPUID(7, 0)
		f = appendFlags(f, flags7EBX, b)
		if max >= 13 {
			a, _, _, _ = arch.CPUID(13, 1)
			f = appendFlags(f, flagsD1EAX, a)
		}
		a, _, _, _ = arch.CPUID(7, 1)
		f = appendFlags(f, flags71EAX, a)
		if ext >= 0x80000008 {
			_, b, _, _ = arch.CPUID(0x80000008, 0)
			f = appendFlags(f, flags80000008EBX, b)
		}
		f = appendFlags(appendFlags(f, flags7ECX, c7), flags7EDX, d7)
	}
	if len(f) > 0 {
		f = f[1:]
	}
	c.flags = f
	c.readExtended(ext)
	return c
}

// readExtended reads name, sizes of addresses and of the cache.
func (c *cpuFacts) readExtended(ext uint32) {
	c.physBits, c.virtBits = 36, 48
	if ext >= 0x80000004 {
		var s []byte
		for l := uint32(0x80000002); l <= 0x80000004; l++ {
			s = appendReg(s, regs(arch.CPUID(l, 0))...)
		}
		c.model = strings.TrimSpace(strings.TrimRight(string(s), "\x00"))
	}
	if ext >= 0x80000006 {
		_, _, cx, _ := arch.CPUID(0x80000006, 0)
		c.cacheKB = cx >> 16
	}
	if ext >= 0x80000008 {
		a, _, _, _ := arch.CPUID(0x80000008, 0)
		c.physBits, c.virtBits = a&0xff, a>>8&0xff
	}
}

func regs(a, b, c, d uint32) []uint32 { return []uint32{a, b, c, d} }

// tscClock measures the time stamp counter against the clock, from its making on.
type tscClock struct {
	tsc  uint64
	mono int64
}

func newTSCClock() tscClock { return tscClock{arch.TSC(), clock.Monotonic()} }

// kHz is the frequency so far; 0 before there is enough time to tell.
func (c tscClock) kHz() uint64 {
	dt := clock.Monotonic() - c.mono
	if dt < 1e6 {
		return 0
	}
	// Microseconds keep the product within 64 bits for years.
	return (arch.TSC() - c.tsc) / uint64(dt/1000) * 1000
}

// genCPUInfo is proc_cpuinfo(5).
func genCPUInfo(f *FS, _ vfs.Context, b []byte) ([]byte, error) {
	f.shared.cpuOnce.Do(func() {
		f.shared.cpu = readCPU()
		f.shared.cpu.readHost(f.k.HostCPU())
	})
	c := &f.shared.cpu
	khz := f.shared.tsc.kHz()
	n := f.k.NumCPU()
	row := func(name, val string) { b = append(append(append(append(b, name...), ": "...), val...), '\n') }
	num := func(name string, v uint32) { row(name, strconv.FormatUint(uint64(v), 10)) }
	mhz := strconv.FormatFloat(float64(khz)/1000, 'f', 3, 64)
	bogo := cmp.Or(c.bogo, strconv.FormatFloat(float64(khz)/500, 'f', 2, 64))
	for i := 0; i < n; i++ {
		num("processor\t", uint32(i))
		row("vendor_id\t", c.vendor)
		num("cpu family\t", c.family)
		num("model\t\t", c.modelNo)
		row("model name\t", c.model)
		num("stepping\t", c.stepping)
		if c.microcode != "" {
			row("microcode\t", c.microcode)
		}
		row("cpu MHz\t\t", mhz)
		if c.cacheKB != 0 {
			row("cache size\t", strconv.FormatUint(uint64(c.cacheKB), 10)+" KB")
		}
		num("physical id\t", 0)
		num("siblings\t", uint32(n))
		num("core id\t\t", uint32(i))
		num("cpu cores\t", uint32(n))
		num("apicid\t\t", uint32(i))
		num("initial apicid\t", uint32(i))
		row("fpu\t\t", "yes")
		row("fpu_exception\t", "yes")
		num("cpuid level\t", c.level)
		row("wp\t\t", "yes")
		row("flags\t\t", string(c.flags))
		row("bugs\t\t", c.bugs)
		row("bogomips\t", bogo)
		if c.tlb != "" {
			row("TLB size\t", c.tlb)
		}
		num("clflush size\t", c.clLine)
		num("cache_alignment\t", c.clLine)
		row("address sizes\t", strconv.FormatUint(uint64(c.physBits), 10)+" bits physical, "+strconv.FormatUint(uint64(c.virtBits), 10)+" bits virtual")
		b = append(b, "power management:"...)
		if c.power != "" {
			b = append(append(b, ' '), c.power...)
		}
		b = append(b, '\n')
		b = append(b, '\n')
	}
	return b, nil
}
