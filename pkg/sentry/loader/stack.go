package loader

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/mm"
)

// Types of auxiliary vector entries, getauxval(3).
const (
	atPhdr            = 3
	atPhent           = 4
	atPhnum           = 5
	atPagesz          = 6
	atBase            = 7
	atFlags           = 8
	atEntry           = 9
	atUID             = 11
	atEUID            = 12
	atGID             = 13
	atEGID            = 14
	atPlatform        = 15
	atHwcap           = 16
	atClktck          = 17
	atSecure          = 23
	atRandom          = 25
	atHwcap2          = 26
	atRseqFeatureSize = 27
	atRseqAlign       = 28
	atExecfn          = 31
	atSysinfoEhdr     = 33
	atMinsigstksz     = 51
)

// The size of struct rseq up to its last known field (mm_cid), and its alignment (rseq(2)).
const (
	rseqFeatureSize = 28
	rseqAlign       = 32
)

// platformName is AT_PLATFORM.
const platformName = "x86_64"

// Bounds of arguments and environment, execve(2).
const (
	maxArgLen    = 128 << 10 // of one string, with its terminating zero
	minArgsTotal = 128 << 10
	maxArgsTotal = 6 << 20
	stackExpand  = 128 << 10 // room for the program at the start
)

type auxEntry struct{ typ, val uint64 }

// auxv is the auxiliary vector but for what depends on the stack.
func (r *Request) auxv(prog *elfFile, base, interpBase, entry uint64, ids IDs) []auxEntry {
	var hwcap, hwcap2, minsig uint64
	if host, err := unix.Auxv(); err == nil {
		for _, e := range host {
			switch e[0] {
			case atHwcap:
				hwcap = uint64(e[1])
			case atHwcap2:
				hwcap2 = uint64(e[1])
			case atMinsigstksz:
				minsig = uint64(e[1])
			}
		}
	}
	var list []auxEntry
	if _, _, ehdr := r.Platform.VDSO(); ehdr != 0 {
		list = append(list, auxEntry{atSysinfoEhdr, ehdr})
	}
	if minsig != 0 {
		list = append(list, auxEntry{atMinsigstksz, minsig})
	}
	var secure, phdr uint64
	if ids.Secure {
		secure = 1
	}
	if prog.phdr != 0 {
		phdr = base + prog.phdr
	}
	return append(list, auxEntry{atHwcap, hwcap}, auxEntry{atPagesz, arch.PageSize}, auxEntry{atClktck, 100},
		auxEntry{atPhdr, phdr}, auxEntry{atPhent, phdrSize}, auxEntry{atPhnum, uint64(prog.phnum)}, auxEntry{atBase, interpBase},
		auxEntry{atFlags, 0}, auxEntry{atEntry, entry}, auxEntry{atUID, uint64(ids.UID)}, auxEntry{atEUID, uint64(ids.EUID)},
		auxEntry{atGID, uint64(ids.GID)}, auxEntry{atEGID, uint64(ids.EGID)}, auxEntry{atSecure, secure}, auxEntry{atHwcap2, hwcap2},
		auxEntry{atRseqFeatureSize, rseqFeatureSize}, auxEntry{atRseqAlign, rseqAlign})
}

// stack builds the initial stack, from the top down: a zero word, the program's name, environment and argument strings, the
// platform's name, random bytes, and, 16-byte aligned, the vectors that the program's first instruction finds at the stack
// pointer: argc, argv, envp, auxv.
type stack struct {
	req        *Request
	top        uint64
	argv, envv []string
	aux        []auxEntry
	exec       bool
}

// build maps the stack and fills it: the stack pointer. E2BIG, ENOMEM.
func (s *stack) build(m *mm.MemoryManager, info *mm.ProcInfo) (uint64, error) {
	limit := s.req.Limits.Get(unix.RLIMIT_STACK).Cur
	strs := uint64(8 + len(s.req.Path) + 1)
	size, ok := ArgsSize(s.argv, s.envv)
	if !ok || size > ArgsLimit(limit) {
		return 0, unix.E2BIG
	}
	for _, list := range [2][]string{s.argv, s.envv} {
		for _, x := range list {
			strs += uint64(len(x)) + 1
		}
	}
	words := uint64(1 + len(s.argv) + 1 + len(s.envv) + 1 + 2*(len(s.aux)+4))
	top := s.top
	strStart := top - strs
	var skew uint64 // so that the stack pointer is not the same in every process with the same arguments
	if s.req.Personality&AddrNoRandomize == 0 {
		skew = s.req.rand(8192) &^ 15
	}
	platformAt := (strStart-skew)&^15 - uint64(len(platformName)) - 1
	randomAt := (platformAt - 16) &^ 15
	sp := (randomAt - 8*words) &^ 15
	buf := make([]byte, top-sp)
	at := func(addr uint64) []byte { return buf[addr-sp:] }
	copy(at(platformAt), platformName)
	s.req.Random(at(randomAt)[:16])

	w := sp
	put := func(v uint64) {
		binary.LittleEndian.PutUint64(at(w), v)
		w += 8
	}
	str := strStart
	putStrings := func(list []string) {
		for _, x := range list {
			put(str)
			copy(at(str), x)
			str += uint64(len(x)) + 1
		}
		put(0)
	}
	put(uint64(len(s.argv)))
	info.ArgStart = str
	putStrings(s.argv)
	info.ArgEnd, info.EnvStart = str, str
	putStrings(s.envv)
	info.EnvEnd = str
	copy(at(str), s.req.Path)
	auxAt := w
	for _, e := range append(s.aux, auxEntry{atRandom, randomAt}, auxEntry{atExecfn, str}, auxEntry{atPlatform, platformAt}, auxEntry{}) {
		put(e.typ)
		put(e.val)
	}
	info.Auxv = append([]byte(nil), buf[auxAt-sp:w-sp]...)
	info.StartStack = sp

	start := arch.PageDown(sp)
	if room := top - start; limit > room {
		start -= arch.PageDown(min(limit-room, stackExpand))
	}
	perms := platform.ReadWrite
	if s.exec {
		perms |= platform.Exec
	}
	if _, err := m.MMap(mm.MMapOpts{Addr: start, Length: top - start, Perms: perms, Fixed: true, NoReplace: true, Stack: true}); err != nil {
		return 0, unix.ENOMEM
	}
	if _, err := m.CopyOut(sp, buf); err != nil {
		return 0, unix.ENOMEM
	}
	return sp, nil
}

// ArgsSize is the size of arguments and environment as execve(2) counts it: strings and pointers. ok is false if a string is
// too long.
func ArgsSize(argv, envv []string) (n uint64, ok bool) {
	for _, list := range [2][]string{argv, envv} {
		for _, x := range list {
			if len(x)+1 > maxArgLen {
				return 0, false
			}
			n += uint64(len(x)) + 1 + 8
		}
	}
	return n, true
}

// ArgsLimit is what ArgsSize may be for a soft limit on the stack's size.
func ArgsLimit(stackLimit uint64) uint64 {
	return min(max(stackLimit/4, minArgsTotal), maxArgsTotal)
}

// ReadStrings reads a vector of pointers to strings that ends with a null pointer, as argv and envp of execve(2), whose size
// (see ArgsSize) must not exceed room. Address 0 is an empty vector. It gives what is left of room. Errors: EFAULT, E2BIG.
func ReadStrings(m *mm.MemoryManager, addr, room uint64) (list []string, left uint64, err error) {
	if addr == 0 {
		return nil, room, nil
	}
	for ; ; addr += 8 {
		p, err := m.ReadUint64(addr)
		if err != nil {
			return nil, 0, err
		}
		if p == 0 {
			return list, room, nil
		}
		s, err := m.CopyInString(p, maxArgLen)
		if err == unix.ENAMETOOLONG {
			err = unix.E2BIG
		}
		if err != nil {
			return nil, 0, err
		}
		n := uint64(len(s)) + 1 + 8
		if n > room {
			return nil, 0, unix.E2BIG
		}
		room -= n
		list = append(list, s)
	}
}
