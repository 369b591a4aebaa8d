package systrap

import (
	"encoding/binary"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// Hot system call instructions are replaced by a jump to a trampoline, which leads to the stub's code without a signal. The
// jump is indirect through a table at an address below 2 GiB, so that it needs 7 bytes and no register or stack:
//
//	ff 24 25 a0 a1 0f 05    jmp *0x050f_a1a0
//
// Two kinds of places have room for it:
//
//   - An instruction of 5 bytes that the trampoline can execute instead (mov $nr,%eax; or a load of the sixth argument),
//     with the system call behind it. The table lies so that the last two bytes of the jump are a system call instruction
//     again: whoever goes there directly finds what was there before.
//   - mov $nr,%rax, of 7 bytes, with the system call behind it, which stays.
//   - The system call and a comparison of rax of 6 bytes behind it (glibc, Go). The trampoline's tail makes the
//     comparison. When a thread is to go on between the two, the sentry sends it to the tail instead, and it
//     reports the place between the two for an interrupt in the tail; but nothing may be on its way there when the code
//     is replaced, so all threads are stopped for that.
//
// A table entry can be turned to the slow variant of the trampoline, which uses a system call instruction as before. That
// is done for all, and for good, when a thread uses the gs base, which trampolines need, or is single-stepped.
//
// The mapping of the table and trampolines is shared with forks of the process, and what is in them is bound to
// addresses in the code, which forks share, too.

const (
	tableLow   = 0x050f0000
	maxSites   = 512
	trampSize  = 64
	trampTail  = 24 // offsets in a trampoline
	trampSlow  = 32
	trampSlow2 = 48
	trampEnd   = trampAddr + maxSites*trampSize

	patchTable = 0 // offsets in the chunk
	patchTramp = 0x10000

	// hotCount is how often a place must trap before it is replaced: that costs about 50 us, and saves 1.5 us each time.
	hotCount = 64
	hotSlots = 64 // direct-mapped counters
)

type siteKind uint8

const (
	siteMoved siteKind = iota // an instruction of 5 bytes was moved to the trampoline
	siteLong                  // one of 7 bytes was
	siteTail                  // the comparison behind the system call was
)

// site is a replaced place; immutable.
type site struct {
	kind siteKind
	len  uint8
	old  [8]byte // what was there, len bytes
	addr uint64  // of the first replaced byte
	ret  uint64  // behind the system call
}

// hopeless is what patchSet.known says of places that cannot be replaced.
const hopeless = -1

// patchSet is what the forks of one program share.
type patchSet struct {
	p     *systrap
	chunk uint32

	refs atomic.Int32

	mu    sync.Mutex
	known map[uint64]int // sites, or hopeless, by return address; mu

	slow  atomic.Bool  // no trampoline is in use any more
	n     atomic.Int32 // sites in use; grows under mu
	sites [maxSites]site
	tails atomic.Pointer[map[uint64]int] // those of kind siteTail by return address; immutable, replaced under mu
}

// hotness counts traps by return address.
type hotness [hotSlots]struct {
	ret uint64
	n   uint8
}

// hit counts a trap that returns to ret; true if the place is worth replacing.
func (h *hotness) hit(ret uint64) bool {
	e := &h[(ret^ret>>8)%hotSlots]
	if e.ret != ret {
		e.ret, e.n = ret, 0
	}
	e.n++
	return e.n == hotCount
}

// Patch implements platform.Patcher.
func (a *addressSpace) Patch(t platform.Text, regs *arch.Registers) {
	ps, err := a.patchable(t)
	if err != nil {
		a.noPatch.Store(true)
		return
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.slow.Load() {
		return
	}
	k, seen := ps.known[regs.Rip]
	if seen && k == hopeless || !seen && len(ps.known) > 16*maxSites {
		return
	}
	s, ok := findSite(t, regs)
	if !seen {
		k = ps.add(s, ok)
	}
	if k == hopeless || ps.sites[k] != s {
		return
	}
	if s.kind == siteTail {
		defer a.thaw()
		if !a.freeze() {
			return
		}
	}
	if t.ReplaceText(s.addr, s.old[:s.len], s.jump(k)) != nil {
		ps.known[regs.Rip] = hopeless
	}
}

// add gives a new site a number and a trampoline. The caller holds mu.
func (ps *patchSet) add(s site, ok bool) (k int) {
	k = int(ps.n.Load())
	if !ok || k == maxSites {
		ps.known[s.ret] = hopeless
		return hopeless
	}
	ps.known[s.ret] = k
	ps.sites[k] = s
	ps.trampoline(k, s)
	if s.kind == siteTail {
		tails := make(map[uint64]int)
		if old := ps.tails.Load(); old != nil {
			maps.Copy(tails, *old)
		}
		tails[s.ret] = k
		ps.tails.Store(&tails)
	}
	ps.n.Store(int32(k + 1))
	return k
}

// jump is what replaces site k.
func (s *site) jump(k int) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{0xff, 0x24, 0x25}, uint32(tableLow+8*k))
	if s.kind == siteTail {
		b = append(b, 0xf4) // hlt: nobody should get here
	}
	return b
}

// findSite recognises the place before regs.Rip. The site has its return address in any case.
func findSite(t platform.Text, regs *arch.Registers) (s site, ok bool) {
	const before, behind = 9, 6
	s.ret = regs.Rip
	var b [before + behind]byte
	if t.ReadText(s.ret-before, b[:]) != nil {
		clear(b[before:])
		if t.ReadText(s.ret-before, b[:before]) != nil {
			return s, false
		}
	}
	if b[7] != 0x0f || b[8] != 0x05 {
		return s, false
	}
	nr := uint32(regs.OrigRax)
	switch {
	case b[0] == 0x48 && b[1] == 0xc7 && b[2] == 0xc0 && binary.LittleEndian.Uint32(b[3:]) == nr: // mov $nr,%rax
		s.set(siteLong, b[0:7], s.ret-before)
	case b[2] == 0xb8 && binary.LittleEndian.Uint32(b[3:]) == nr, // mov $nr,%eax
		[5]byte(b[2:7]) == [5]byte{0x4c, 0x8b, 0x4c, 0x24, 0x08}: // mov 8(%rsp),%r9
		s.set(siteMoved, b[2:9], s.ret-before+2)
	case b[9] == 0x48 && b[10] == 0x3d: // cmp $imm,%rax
		s.set(siteTail, b[7:15], s.ret-before+7)
	default:
		return s, false
	}
	return s, s.addr/arch.PageSize == (s.addr+uint64(s.len)-1)/arch.PageSize
}

func (s *site) set(kind siteKind, old []byte, addr uint64) {
	s.kind, s.len, s.addr = kind, uint8(copy(s.old[:], old)), addr
}

// trampoline writes the trampoline for a site and its table entry.
func (ps *patchSet) trampoline(k int, s site) {
	off := uint64(ps.chunk) * chunkSize
	at := uint64(trampAddr + k*trampSize)
	b := ps.p.mem.bytes(off+patchTramp+uint64(k)*trampSize, trampSize)
	clear(b)
	fast := b[:0]
	if s.kind == siteTail {
		jumpAbs(append(b[trampTail:trampTail], s.old[2:8]...), s.addr+8)
		copy(b[trampSlow2:], []byte{0x0f, 0x05, 0xeb, byte(256 + trampTail - trampSlow2 - 4)})
	} else {
		moved := s.old[:5]
		if s.kind == siteLong {
			moved = s.old[:7]
		}
		fast = append(fast, moved...)
		jumpAbs(append(b[trampSlow:trampSlow], moved...), s.ret-2)
	}
	fast = binary.LittleEndian.AppendUint64(append(fast, 0x48, 0xb9), s.ret)     // mov $ret,%rcx
	fast = binary.LittleEndian.AppendUint32(append(fast, 0x41, 0xbb), uint32(k)) // mov $k,%r11d
	jumpRel(fast, at, ps.p.text.label[labelPatched])
	atomic.StoreUint64(ps.entry(k), at)
}

// entry is the table entry of a site.
func (ps *patchSet) entry(k int) *uint64 {
	return (*uint64)(ps.p.mem.at(uint64(ps.chunk)*chunkSize + patchTable + 8*uint64(k)))
}

func jumpRel(b []byte, at, to uint64) []byte {
	b = append(b, 0xe9)
	return binary.LittleEndian.AppendUint32(b, uint32(to-(at+uint64(len(b))+4)))
}

func jumpAbs(b []byte, to uint64) []byte {
	return binary.LittleEndian.AppendUint64(append(b, 0xff, 0x25, 0, 0, 0, 0), to)
}

// goSlow turns all trampolines to their slow variants.
func (ps *patchSet) goSlow() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.slow.Swap(true) {
		return
	}
	for k := range int(ps.n.Load()) {
		slow := uint64(trampSlow)
		if ps.sites[k].kind == siteTail {
			slow = trampSlow2
		}
		atomic.StoreUint64(ps.entry(k), trampAddr+uint64(k)*trampSize+slow)
	}
}

// patchable gives the set of a, and makes it if there is none.
func (a *addressSpace) patchable(t platform.Text) (*patchSet, error) {
	a.code.Store(&t)
	if ps := a.patches.Load(); ps != nil {
		return ps, nil
	}
	// Not with mu held: mm calls Apply with its locks held.
	if err := t.ReserveText(tableLow, arch.PageSize); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if ps := a.patches.Load(); ps != nil {
		return ps, nil
	}
	if err := a.start(); err != nil {
		return nil, err
	}
	chunk, ok := a.p.mem.alloc(chunkPatch)
	if !ok {
		return nil, unix.ENOMEM
	}
	ps := &patchSet{p: a.p, chunk: chunk, known: make(map[uint64]int)}
	ps.refs.Store(1)
	off := uint64(chunk) * chunkSize
	_, err := a.run([]op{
		{nr: unix.SYS_MMAP, args: a.p.mapShared(tableLow, arch.PageSize, off+patchTable, unix.PROT_READ)},
		{nr: unix.SYS_MMAP, args: a.p.mapShared(trampAddr, maxSites*trampSize, off+patchTramp, unix.PROT_READ|unix.PROT_EXEC)},
	})
	if err != nil {
		ps.unref()
		return nil, err
	}
	a.patches.Store(ps)
	return ps, nil
}

// ref must not lock: fork calls it with locks of mm held, for which holders of mu wait.
func (ps *patchSet) ref() *patchSet {
	if ps != nil {
		ps.refs.Add(1)
	}
	return ps
}

func (ps *patchSet) unref() {
	if ps != nil && ps.refs.Add(-1) == 0 {
		ps.p.mem.release(ps.chunk, slotsAtOnce, chunkPatch)
	}
}

// freeze keeps all contexts out of application code but the caller's, which is not there; false if some
// thread could not be stopped in time.
func (a *addressSpace) freeze() bool {
	a.frozen.Lock()
	a.freezing.Store(true)
	deadline := time.Now().Add(freezeTime)
	for {
		busy := false
		a.life.Lock()
		threads := a.threads
		a.life.Unlock()
		for _, t := range threads {
			if atomic.LoadUint32(&t.inside) != 0 {
				busy = true
				t.kick()
			}
		}
		if !busy {
			return true
		}
		if time.Now().After(deadline) || a.dead.Load() {
			return false
		}
		time.Sleep(20 * time.Microsecond)
	}
}

// freezeTime is how long to wait for threads that are busy in the host kernel or have no processor.
const freezeTime = 5 * time.Millisecond

func (a *addressSpace) thaw() {
	a.freezing.Store(false)
	a.frozen.Unlock()
}

// awaitThaw waits for the end of a freeze.
func (a *addressSpace) awaitThaw() {
	a.frozen.Lock()
	a.frozen.Unlock()
}

// forward is where a thread must really go to continue at rip: not into the middle of a jump.
func (a *addressSpace) forward(rip uint64) uint64 {
	ps := a.patches.Load()
	if ps == nil {
		return rip
	}
	tails := ps.tails.Load()
	if tails == nil {
		return rip
	}
	k, ok := (*tails)[rip]
	if !ok {
		return rip
	}
	s := &ps.sites[k]
	if t := a.code.Load(); t != nil {
		// The application may have something else there by now, or the place is replaced in a fork only.
		var b [8]byte
		if (*t).ReadText(s.addr, b[:]) != nil || [8]byte(s.jump(k)) != b {
			return rip
		}
	}
	return tailOf(k)
}

// tailOf is the tail of trampoline k.
func tailOf(k int) uint64 { return trampAddr + uint64(k)*trampSize + trampTail }

// stopPatching is for threads that trampolines would disturb.
func (a *addressSpace) stopPatching() {
	a.noPatch.Store(true)
	if ps := a.patches.Load(); ps != nil {
		ps.goSlow()
	}
}

// backward undoes what trampolines did to the registers of a thread that was interrupted in one.
func (a *addressSpace) backward(r *arch.Registers) {
	ps := a.patches.Load()
	if ps == nil || r.Rip < trampAddr || r.Rip >= trampEnd {
		return
	}
	k, off := (r.Rip-trampAddr)/trampSize, (r.Rip-trampAddr)%trampSize
	if k >= uint64(ps.n.Load()) {
		return
	}
	s := &ps.sites[k]
	switch {
	case off == 0 || s.kind != siteTail && off == trampSlow:
		r.Rip = s.addr
	case s.kind != siteTail:
		r.Rip = s.ret - 2 // the system call; it will overwrite rcx and r11 anyway
	case off == trampTail || off == trampSlow2+2:
		r.Rip = s.ret
	case off > trampTail && off < trampSlow2:
		r.Rip = s.addr + 8
	default:
		r.Rip = s.addr
	}
}
