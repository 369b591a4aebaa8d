package ipc

import (
	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/mm"
)

// Flags of shmat(2), and bits of a segment's mode.
const (
	ShmReadOnly = 0o10000
	ShmRound    = 0o20000
	ShmRemap    = 0o40000
	ShmExec     = 0o100000
	shmDest     = 0o1000 // destroyed when the last attachment goes
	shmLocked   = 0o2000
)

// Limits of shared memory, as /proc/sys/kernel/shm* shows them.
const (
	ShmMax = ^uint64(0) - 1<<24
	ShmAll = ^uint64(0) - 1<<24
	ShmMin = 1
	ShmMni = 4096
)

// Shms is the shared memory segments of a namespace.
type Shms struct {
	table[*Segment]
	file  *memfile.File // immutable
	pages uint64        // in all segments; protected by mu
}

// Segment is a shared memory segment; the table's mu protects it.
type Segment struct {
	Perm
	shms          *Shms // immutable
	mem           *mm.Shared
	size          uint64 // as asked for; immutable
	attaches      int64  // attachments: mappings made by shmat(2), counted for each address space
	holds         int    // of shmat(2) calls under way
	destroyed     bool
	Attached      int64 // seconds since the epoch
	Detached      int64
	Creator, Last int32 // process IDs
}

func (s *Segment) perm() *Perm { return &s.Perm }

func newShms(user *auth.UserNamespace, f *memfile.File) *Shms {
	return &Shms{table: newTable[*Segment](user, ShmMni), file: f}
}

// Get is shmget(2) by process pid.
func (s *Shms) Get(c *auth.Credentials, pid, key int32, size uint64, flags int) (int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(c, key, flags, func(g *Segment) error {
		if size > g.size {
			return unix.EINVAL
		}
		return nil
	}, func(p Perm) (*Segment, error) {
		pages, ok := arch.PageUp(size)
		if size < ShmMin || size > ShmMax || !ok {
			return nil, unix.EINVAL
		}
		if pages > s.file.Size() {
			return nil, unix.ENOMEM
		}
		s.pages += pages >> arch.PageShift
		return &Segment{Perm: p, shms: s, mem: mm.NewSegment(s.file, pages), size: size, Creator: pid}, nil
	})
}

// Attachment keeps a segment that shmat(2) mapped; it is the mm.MappedFile of the mapping.
type Attachment struct {
	seg *Segment
	pid int32
}

// IncRef implements mm.MappedFile.
func (a *Attachment) IncRef() {
	a.seg.shms.mu.Lock()
	a.seg.attaches++
	a.seg.shms.mu.Unlock()
}

// DecRef implements mm.MappedFile.
func (a *Attachment) DecRef() {
	s := a.seg
	s.shms.mu.Lock()
	s.attaches--
	s.Detached = now()
	s.reap()
	s.shms.mu.Unlock()
}

// MappedName implements mm.MappedFile.
func (a *Attachment) MappedName() string {
	const hex = "0123456789abcdef"
	b := []byte("/SYSV00000000 (deleted)")
	for i, k := 12, uint32(a.seg.Key); i > 4; i, k = i-1, k>>4 {
		b[i] = hex[k&15]
	}
	return string(b)
}

// MappedInfo implements mm.MappedFile.
func (a *Attachment) MappedInfo() (dev, ino uint64) { return 1, uint64(a.seg.id) }

// reap frees a destroyed segment that nobody has attached; the table's mu is held.
func (s *Segment) reap() {
	if s.destroyed && s.attaches == 0 && s.holds == 0 {
		s.shms.pages -= s.mem.Size() >> arch.PageShift
		s.shms.remove(&s.Perm)
		s.mem.Release()
		s.destroyed = false
	}
}

// Attach is shmat(2) into m by process pid: the address.
func (s *Shms) Attach(c *auth.Credentials, m *mm.MemoryManager, pid, id int32, addr uint64, flags int) (uint64, error) {
	o := mm.MMapOpts{Addr: addr, Shared: true, Perms: platform.Read}
	if addr != 0 {
		o.Fixed, o.NoReplace = true, flags&ShmRemap == 0
		if addr&arch.PageMask != 0 {
			if flags&ShmRound == 0 {
				return 0, unix.EINVAL
			}
			if o.Addr = arch.PageDown(addr); o.Addr == 0 && flags&ShmRemap != 0 {
				return 0, unix.EINVAL
			}
		}
	} else if flags&ShmRemap != 0 {
		return 0, unix.EINVAL
	}
	want := uint16(wantRead)
	o.MaxPerms = platform.Read | platform.Exec
	if flags&ShmReadOnly == 0 {
		want |= wantWrite
		o.Perms |= platform.Write
		o.MaxPerms |= platform.Write
	}
	if flags&ShmExec != 0 {
		want |= 1
		o.Perms |= platform.Exec
	}
	s.mu.Lock()
	seg, err := s.find(id)
	if err == nil {
		err = seg.check(c, want)
	}
	if err != nil {
		s.mu.Unlock()
		return 0, err
	}
	seg.holds++
	s.mu.Unlock()
	o.Length, o.Mappable, o.File = seg.mem.Size(), seg.mem, &Attachment{seg, pid}
	at, err := m.MMap(o)
	if err == unix.EEXIST {
		err = unix.EINVAL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seg.holds--
	if err == nil {
		seg.Attached, seg.Last = now(), pid
	}
	seg.reap()
	return at, err
}

// Detach is shmdt(2) by process pid. EINVAL.
func Detach(m *mm.MemoryManager, pid int32, addr uint64) error {
	f, start, _, off, ok := m.NextFile(addr)
	a, isShm := f.(*Attachment)
	if !ok || !isShm || start != addr || off != 0 {
		return unix.EINVAL
	}
	a.seg.shms.mu.Lock()
	a.seg.Last = pid
	limit := addr + a.seg.mem.Size()
	a.seg.shms.mu.Unlock()
	for at := addr; at < limit; { // the attachment may have been cut, and other things mapped between
		f, start, end, off, ok := m.NextFile(at)
		if !ok || start >= limit {
			break
		}
		if f == mm.MappedFile(a) && start-addr == off {
			if err := m.Munmap(start, end-start); err != nil {
				return err
			}
		}
		at = end
	}
	return nil
}

// ShmStat is what shmctl(2) tells of a segment.
type ShmStat struct {
	Perm
	Size                        uint64
	Attached, Detached, Changed int64
	Creator, Last               int32
	Attaches                    int64
	Resident                    uint64
}

func (s *Segment) stat() ShmStat {
	return ShmStat{Perm: s.Perm, Size: s.size, Attached: s.Attached, Detached: s.Detached, Changed: s.Perm.Changed, Creator: s.Creator, Last: s.Last,
		Attaches: s.attaches, Resident: s.mem.Resident()}
}

// Stat is IPC_STAT of an identifier, or with index set SHM_STAT of a slot; any is SHM_STAT_ANY. EINVAL, EIDRM, EACCES.
func (s *Shms) Stat(c *auth.Credentials, id int32, index, any bool) (ShmStat, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	find := s.find
	if index {
		find = s.byIndex
	}
	seg, err := find(id)
	if err != nil {
		return ShmStat{}, err
	}
	if !any {
		if err := seg.check(c, wantRead); err != nil {
			return ShmStat{}, err
		}
	}
	return seg.stat(), nil
}

// Set is IPC_SET. EPERM, EINVAL, EIDRM.
func (s *Shms) Set(c *auth.Credentials, id int32, o Owner) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	seg, err := s.find(id)
	if err != nil {
		return err
	}
	return seg.set(c, o)
}

// Remove is IPC_RMID: the segment goes with its last attachment. EPERM, EINVAL, EIDRM.
func (s *Shms) Remove(c *auth.Credentials, id int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	seg, err := s.find(id)
	if err != nil {
		return err
	}
	if err := seg.own(c); err != nil {
		return err
	}
	s.hide(&seg.Perm)
	seg.destroyed = true
	seg.Mode |= shmDest
	seg.reap()
	return nil
}

// Lock is SHM_LOCK and SHM_UNLOCK, which only show in the mode. EPERM, EINVAL, EIDRM.
func (s *Shms) Lock(c *auth.Credentials, id int32, on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	seg, err := s.find(id)
	if err != nil {
		return err
	}
	if !c.HasCapIn(unix.CAP_IPC_LOCK, s.userNS) && c.EUID != seg.UID && c.EUID != seg.CUID {
		return unix.EPERM
	}
	if seg.Mode &^= shmLocked; on {
		seg.Mode |= shmLocked
	}
	return nil
}

// Info is the counts of SHM_INFO: segments, pages in all, and of these resident; highest is the highest slot in use.
func (s *Shms) Info() (segments int, pages, resident uint64, highest int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if s.slots[i].used {
			resident += s.slots[i].obj.mem.Resident() >> arch.PageShift
		}
	}
	return s.count, s.pages, resident, s.highest()
}

// ForEach calls f for all segments (/proc/sysvipc/shm).
func (s *Shms) ForEach(f func(ShmStat)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if s.slots[i].used {
			f(s.slots[i].obj.stat())
		}
	}
}
