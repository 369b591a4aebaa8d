package proc

import (
	"strconv"

	"husk/pkg/platform"
	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// accessedMM vets an open that looks into the address space. The open file goes with the address space of this moment, which it does not keep alive: after an exit or
// exec there is nothing more to read.
func (e *env) accessedMM() (*mm.MemoryManager, error) {
	if !mayAccess(e.ctx, e.t) {
		return nil, unix.EACCES
	}
	return e.t.MM(), nil
}

// memory is accessedMM for files that a task without memory does not have: ESRCH.
func (e *env) memory() (*mm.MemoryManager, error) {
	m, err := e.accessedMM()
	if err == nil && m == nil {
		err = unix.ESRCH
	}
	return m, err
}

// mapsBatch is how many mappings are looked at with the address space locked once.
const mapsBatch = 64

// mapsSeq makes maps; positions are addresses.
type mapsSeq struct {
	taskRef
	m *mm.MemoryManager // nil: a task without memory
	// each makes the text of one mapping.
	each func(b []byte, m *mm.MemoryManager, v *mm.VMAInfo) []byte
}

// Next implements pseudo.Seq.
func (s *mapsSeq) Next(_ vfs.Context, pos uint64, b []byte) ([]byte, uint64, error) {
	if _, t := s.get(); t == nil {
		return b, pos, unix.ESRCH
	}
	if s.m == nil || pos == ^uint64(0) || !s.m.IncUsers() {
		return b, pos, nil
	}
	defer s.m.DecUsers()
	var list [mapsBatch]mm.VMAInfo
	n := 0
	s.m.ForEachVMA(pos, func(v *mm.VMAInfo) bool {
		list[n] = *v
		n++
		return n < len(list)
	})
	for i := range list[:n] {
		b = s.each(b, s.m, &list[i])
		pos = list[i].End
	}
	if n == 0 {
		pos = ^uint64(0)
	}
	return b, pos, nil
}

func openMaps(e *env, _ uint32) (vfs.FileImpl, error) { return e.openSeq(appendMap) }

func openSmaps(e *env, _ uint32) (vfs.FileImpl, error) { return e.openSeq(appendSmap) }

func (e *env) openSeq(each func([]byte, *mm.MemoryManager, *mm.VMAInfo) []byte) (vfs.FileImpl, error) {
	m, err := e.accessedMM()
	if err != nil {
		return nil, err
	}
	return pseudo.NewSeqFile(&mapsSeq{e.taskRef, m, each}), nil
}

// appendHexPadded appends v in hexadecimal, with at least width digits.
func appendHexPadded(b []byte, v uint64, width int) []byte {
	var t [16]byte
	s := strconv.AppendUint(t[:0], v, 16)
	for n := len(s); n < width; n++ {
		b = append(b, '0')
	}
	return append(b, s...)
}

// nameColumn is where the name of a mapping begins.
const nameColumn = 73

func appendMap(b []byte, _ *mm.MemoryManager, v *mm.VMAInfo) []byte {
	return appendMapLine(b, v.Start, v.End, v)
}

func appendMapLine(b []byte, start, end uint64, v *mm.VMAInfo) []byte {
	at := len(b)
	b = append(appendHexPadded(b, start, 8), '-')
	b = append(appendHexPadded(b, end, 8), ' ')
	b = appendPerms(b, v)
	b = append(appendHexPadded(append(b, ' '), v.Offset, 8), ' ')
	b = append(appendHexPadded(b, uint64(unix.Major(v.Dev)), 2), ':')
	b = append(appendHexPadded(b, uint64(unix.Minor(v.Dev)), 2), ' ')
	b = append(strconv.AppendUint(b, v.Ino, 10), ' ')
	if v.Name != "" {
		for len(b)-at < nameColumn {
			b = append(b, ' ')
		}
		for i := 0; i < len(v.Name); i++ {
			if c := v.Name[i]; c == '\n' {
				b = append(b, `\012`...)
			} else {
				b = append(b, c)
			}
		}
	}
	return append(b, '\n')
}

func appendPerms(b []byte, v *mm.VMAInfo) []byte {
	p := [4]byte{'-', '-', '-', 'p'}
	if v.Perms&platform.Read != 0 {
		p[0] = 'r'
	}
	if v.Perms&platform.Write != 0 {
		p[1] = 'w'
	}
	if v.Perms&platform.Exec != 0 {
		p[2] = 'x'
	}
	if v.Shared {
		p[3] = 's'
	}
	return append(b, p[:]...)
}

// usage is what smaps counts, in bytes.
type usage struct {
	size, locked uint64
	res          mm.Residence
}

func (u *usage) add(o usage) {
	u.size += o.size
	u.locked += o.locked
	u.res.Anon += o.res.Anon
	u.res.File += o.res.File
	u.res.Shared += o.res.Shared
}

func usageOf(m *mm.MemoryManager, v *mm.VMAInfo) usage {
	u := usage{size: v.End - v.Start, res: m.ResidentIn(v.Start, v.End)}
	if v.Locked {
		u.locked = u.res.Total()
	}
	return u
}

// appendUsage appends the lines that smaps and smaps_rollup have in common. Pages that may be shared count as private: who else has them
// is not known.
func appendUsage(b []byte, u *usage, rollup bool) []byte {
	line := func(name string, v uint64) {
		at := len(b)
		b = append(append(b, name...), ':')
		var t [20]byte
		s := strconv.AppendUint(t[:0], v>>10, 10)
		for len(b)-at+len(s) < 24 {
			b = append(b, ' ')
		}
		b = append(append(b, s...), " kB\n"...)
	}
	total := u.res.Total()
	line("Rss", total)
	line("Pss", total)
	line("Pss_Dirty", u.res.Anon+u.res.Shared)
	if rollup {
		line("Pss_Anon", u.res.Anon)
		line("Pss_File", u.res.File)
		line("Pss_Shmem", u.res.Shared)
	}
	line("Shared_Clean", 0)
	line("Shared_Dirty", u.res.Shared)
	line("Private_Clean", u.res.File)
	line("Private_Dirty", u.res.Anon)
	line("Referenced", total)
	line("Anonymous", u.res.Anon)
	for _, n := range [...]string{"KSM", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss"} {
		line(n, 0)
	}
	line("Locked", u.locked)
	return b
}

// appendSmap appends one mapping as smaps shows it (proc_pid_smaps(5)).
func appendSmap(b []byte, m *mm.MemoryManager, v *mm.VMAInfo) []byte {
	b = appendMap(b, m, v)
	u := usageOf(m, v)
	b = append(b, "Size:           "...)
	b = append(appendPadded(b, u.size>>10, 8), " kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n"...)
	b = appendUsage(b, &u, false)
	b = append(b, "THPeligible:           0\nVmFlags:"...)
	flag := func(on bool, s string) {
		if on {
			b = append(append(b, ' '), s...)
		}
	}
	flag(v.Perms&platform.Read != 0, "rd")
	flag(v.Perms&platform.Write != 0, "wr")
	flag(v.Perms&platform.Exec != 0, "ex")
	flag(v.Shared, "sh")
	flag(v.MaxPerms&platform.Read != 0, "mr")
	flag(v.MaxPerms&platform.Write != 0, "mw")
	flag(v.MaxPerms&platform.Exec != 0, "me")
	flag(v.Shared && v.MaxPerms&platform.Write != 0, "ms")
	flag(v.GrowsDown, "gd")
	flag(v.Locked, "lo")
	flag(v.DontFork, "dc")
	flag(!v.NoReserve && !v.Shared && v.Perms&platform.Write != 0, "ac")
	flag(v.NoReserve, "nr")
	flag(v.WipeOnFork, "wf")
	flag(v.DontDump, "dd")
	flag(v.HugePage, "hg")
	flag(v.NoHugePage, "nh")
	flag(v.Sealed, "sl")
	return append(b, " \n"...)
}

// rollup makes smaps_rollup.
type rollup struct {
	taskRef
	m *mm.MemoryManager
}

// Generate implements pseudo.Generator. ESRCH for a task without memory.
func (r rollup) Generate(ctx vfs.Context, b []byte) ([]byte, error) {
	var sum usage
	var first, end uint64
	s := mapsSeq{r.taskRef, r.m, func(b []byte, m *mm.MemoryManager, v *mm.VMAInfo) []byte {
		sum.add(usageOf(m, v))
		if end == 0 {
			first = v.Start
		}
		end = v.End
		return b
	}}
	for pos := uint64(0); ; {
		_, next, err := s.Next(ctx, pos, nil)
		if err != nil {
			return b, err
		}
		if next == pos || next == ^uint64(0) {
			break
		}
		pos = next
	}
	if end == 0 {
		return b, unix.ESRCH
	}
	b = appendMapLine(b, first, end, &mm.VMAInfo{Name: "[rollup]"})
	return appendUsage(b, &sum, true), nil
}

func openSmapsRollup(e *env, _ uint32) (vfs.FileImpl, error) {
	m, err := e.accessedMM()
	if err != nil {
		return nil, err
	}
	return pseudo.NewOpenFile(rollup{e.taskRef, m}), nil
}
