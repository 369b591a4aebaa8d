package syscalls

import (
	"encoding/binary"

	"husk/pkg/abi/linux"
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

// pollEntries are poll(2) and select(2).
func pollEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_POLL, Name: "poll", Handler: poll, Args: "hex int int"},
		{Number: unix.SYS_PPOLL, Name: "ppoll", Handler: ppoll, Args: "hex int hex hex int"},
		{Number: unix.SYS_SELECT, Name: "select", Handler: selectCall, Args: "int hex hex hex hex"},
		{Number: unix.SYS_PSELECT6, Name: "pselect6", Handler: pselect6, Args: "int hex hex hex hex hex"},
	}
}

// pollFD is struct pollfd in work: revents are bits of poll(2).
type pollFD struct {
	fd      int32
	want    waiter.EventMask
	revents waiter.EventMask
}

// pollState is the memory of one poll or select.
type pollState struct {
	fds     []pollFD
	files   []*vfs.FileDescription
	entries []waiter.Entry
	raw     []byte
	one     waiter.Entry
}

func (s *shared) pollState() *pollState {
	if p, ok := s.polls.Get().(*pollState); ok {
		return p
	}
	return &pollState{}
}

// keepPoll is the size above which the memory of a poll is not kept for reuse.
const keepPoll = 1024

func (s *shared) putPollState(p *pollState) {
	if cap(p.fds) <= keepPoll {
		s.polls.Put(p)
	}
}

// grow makes p ready for n descriptors.
func (p *pollState) grow(n int) {
	if cap(p.fds) < n {
		p.fds = make([]pollFD, n)
		p.files = make([]*vfs.FileDescription, n)
		p.entries = make([]waiter.Entry, n)
		p.raw = make([]byte, 8*n)
	}
	p.fds, p.files, p.entries, p.raw = p.fds[:n], p.files[:n], p.entries[:n], p.raw[:8*n]
}

// pollerSetter is implemented by files whose readiness depends on who asks (signalfd).
type pollerSetter interface{ SetPoller(t *kernel.Task) }

// run polls p.fds until one is ready or the deadline (see deadlineAfter) has passed, and returns how many are ready.
func (p *pollState) run(t *kernel.Task, deadline int64) (int, error) {
	table := t.FDTable()
	ready := 0
	for i := range p.fds {
		f := &p.fds[i]
		f.revents = 0
		p.files[i] = nil
		if f.fd < 0 {
			continue
		}
		file := table.Get(f.fd)
		if file == nil || file.IsPathOnly() {
			if file != nil {
				file.DecRef()
			}
			f.revents = unix.POLLNVAL
			ready++
			continue
		}
		p.files[i] = file
		if s, ok := file.Impl().(pollerSetter); ok {
			s.SetPoller(t)
		}
		if f.revents = file.Readiness(f.want | waiter.EventErr | waiter.EventHUp); f.revents != 0 {
			ready++
		}
	}
	var err error
	if ready == 0 && deadline != 0 {
		ready, err = p.wait(t, deadline)
	}
	for i, file := range p.files {
		if file != nil {
			p.files[i] = nil
			file.DecRef()
		}
	}
	return ready, err
}

// wait is the blocking part of run.
func (p *pollState) wait(t *kernel.Task, deadline int64) (int, error) {
	s := t.Waker()
	for i, file := range p.files {
		if file != nil {
			p.entries[i].Init(s, p.fds[i].want)
			file.EventRegister(&p.entries[i])
		}
	}
	ready := 0
	var err error
	for {
		for i, file := range p.files {
			if file == nil {
				continue
			}
			if p.fds[i].revents = file.Readiness(p.entries[i].Mask()); p.fds[i].revents != 0 {
				ready++
			}
		}
		if ready > 0 || err != nil {
			break
		}
		err = t.Block(s.C, deadline)
		if err != nil && err != unix.ETIMEDOUT {
			break
		}
	}
	for i, file := range p.files {
		if file != nil {
			file.EventUnregister(&p.entries[i])
		}
	}
	if ready > 0 || err == unix.ETIMEDOUT {
		err = nil
	}
	return ready, err
}

// pollAt polls the array of n struct pollfd at addr and stores the results.
func pollAt(t *kernel.Task, addr uint64, n uint32, deadline int64) (uintptr, error) {
	if uint64(n) > t.Limits().Get(unix.RLIMIT_NOFILE).Cur {
		return 0, unix.EINVAL
	}
	sh := sharedOf(t)
	p := sh.pollState()
	defer sh.putPollState(p)
	p.grow(int(n))
	if n > 0 {
		if _, err := t.MM().CopyIn(addr, p.raw); err != nil {
			return 0, err
		}
	}
	for i := range p.fds {
		b := p.raw[8*i:]
		p.fds[i].fd = int32(binary.LittleEndian.Uint32(b))
		p.fds[i].want = waiter.EventMask(binary.LittleEndian.Uint16(b[4:]))
	}
	ready, err := p.run(t, deadline)
	if err != nil {
		return 0, err
	}
	for i := range p.fds {
		binary.LittleEndian.PutUint16(p.raw[8*i+6:], uint16(p.fds[i].revents))
	}
	if n > 0 {
		if _, err := t.MM().CopyOut(addr, p.raw); err != nil {
			return 0, err
		}
	}
	return uintptr(ready), nil
}

func poll(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	deadline := vfs.NoDeadline
	if ms := a[2].Int(); ms >= 0 {
		deadline = deadlineAfter(int64(ms) * 1e6)
	}
	b := kernel.RestartBlock{Fn: pollRestart, Args: [6]uint64{a[0].Pointer(), uint64(a[1].Uint()), uint64(deadline)}}
	return pollRestart(t, &b)
}

// pollRestart is poll with the deadline in Args[2].
func pollRestart(t *kernel.Task, b *kernel.RestartBlock) (uintptr, error) {
	n, err := pollAt(t, b.Args[0], uint32(b.Args[1]), int64(b.Args[2]))
	if err == vfs.ErrInterrupted {
		err = t.SetRestart(*b)
	}
	return n, err
}

// readTimeout is the deadline for a struct timespec at addr; addr 0 is no limit.
func readTimeout(t *kernel.Task, addr uint64) (deadline int64, err error) {
	if addr == 0 {
		return vfs.NoDeadline, nil
	}
	ns, err := readTimespec(t, addr)
	return deadlineAfter(ns), err
}

// setTempMask installs the signal mask at addr for the time of the call; addr 0 is none.
func setTempMask(t *kernel.Task, addr, size uint64) error {
	if addr == 0 {
		return nil
	}
	if size != linux.SignalSetSize {
		return unix.EINVAL
	}
	m, err := t.MM().ReadUint64(addr)
	if err != nil {
		return err
	}
	t.SetTempMask(linux.SignalSet(m))
	return nil
}

// finishTimed stores the time that is left at addr (unless 0) and turns an interruption into ERESTARTNOHAND.
func finishTimed(t *kernel.Task, addr uint64, deadline int64, err error) error {
	restart := unix.Errno(linux.ERESTARTNOHAND)
	if addr != 0 {
		if werr := storeTimespec(t, addr, remaining(deadline)); werr != nil {
			// As on Linux: a call that cannot be restarted with the time that is left is not restarted.
			restart = unix.EINTR
		}
	}
	if err == vfs.ErrInterrupted {
		return restart
	}
	return err
}

func ppoll(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	deadline, err := readTimeout(t, a[2].Pointer())
	if err != nil {
		return 0, err
	}
	if err := setTempMask(t, a[3].Pointer(), a[4].Uint64()); err != nil {
		return 0, err
	}
	n, err := pollAt(t, a[0].Pointer(), a[1].Uint(), deadline)
	return n, finishTimed(t, a[2].Pointer(), deadline, err)
}

// What select(2) means by readable, writable and exceptional.
const (
	selectIn  = waiter.ReadableEvents | waiter.EventRdBand | waiter.EventHUp | waiter.EventErr
	selectOut = waiter.WritableEvents | 0x200 | waiter.EventErr
	selectExc = waiter.EventPri
)

// selectMax bounds descriptors of select(2): no table is larger.
const selectMax = 1 << 20

// selectAt is the common part of select(2) and pselect(2).
func selectAt(t *kernel.Task, n int32, sets [3]uint64, deadline int64) (uintptr, error) {
	if n < 0 {
		return 0, unix.EINVAL
	}
	if _, size := t.FDTable().Count(); int(n) > size {
		n = int32(min(size, selectMax))
	}
	words := (int(n) + 63) / 64
	var bits [3][]uint64
	for i, addr := range sets {
		bits[i] = make([]uint64, words)
		if addr == 0 {
			continue
		}
		for w := range bits[i] {
			v, err := t.MM().ReadUint64(addr + uint64(8*w))
			if err != nil {
				return 0, err
			}
			bits[i][w] = v
		}
	}
	sh := sharedOf(t)
	p := sh.pollState()
	defer sh.putPollState(p)
	p.grow(0)
	count := 0
	wants := [3]waiter.EventMask{selectIn, selectOut, selectExc}
	each := func(f func(fd int, want waiter.EventMask)) {
		for fd := range int(n) {
			var want waiter.EventMask
			for i := range bits {
				if bits[i][fd/64]>>(fd%64)&1 != 0 {
					want |= wants[i]
				}
			}
			if want != 0 {
				f(fd, want)
			}
		}
	}
	each(func(int, waiter.EventMask) { count++ })
	p.grow(count)
	count = 0
	each(func(fd int, want waiter.EventMask) {
		p.fds[count] = pollFD{fd: int32(fd), want: want}
		count++
	})
	if _, err := p.run(t, deadline); err != nil {
		return 0, err
	}
	total := 0
	in := bits
	for i := range bits {
		bits[i] = make([]uint64, words)
	}
	for k := range p.fds {
		f := &p.fds[k]
		if f.revents == unix.POLLNVAL {
			return 0, unix.EBADF
		}
		for i := range bits {
			if bit := uint64(1) << (f.fd % 64); in[i][f.fd/64]&bit != 0 && f.revents&wants[i] != 0 {
				bits[i][f.fd/64] |= bit
				total++
			}
		}
	}
	for i, addr := range sets {
		for w := 0; w < words && addr != 0; w++ {
			if err := t.MM().WriteUint64(addr+uint64(8*w), bits[i][w]); err != nil {
				return 0, err
			}
		}
	}
	return uintptr(total), nil
}

func selectCall(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	deadline, tv := vfs.NoDeadline, a[4].Pointer()
	if tv != 0 {
		var b [16]byte
		if _, err := t.MM().CopyIn(tv, b[:]); err != nil {
			return 0, err
		}
		sec, usec := int64(binary.LittleEndian.Uint64(b[:])), int64(binary.LittleEndian.Uint64(b[8:]))
		if sec < 0 || usec < 0 {
			return 0, unix.EINVAL
		}
		const most = 1 << 32
		deadline = deadlineAfter(min(sec, most)*1e9 + min(usec, most)*1e3)
	}
	n, err := selectAt(t, a[0].Int(), [3]uint64{a[1].Pointer(), a[2].Pointer(), a[3].Pointer()}, deadline)
	restart := unix.Errno(linux.ERESTARTNOHAND)
	if tv != 0 {
		ns := remaining(deadline)
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], uint64(ns/1e9))
		binary.LittleEndian.PutUint64(b[8:], uint64(ns%1e9/1e3))
		if _, werr := t.MM().CopyOut(tv, b[:]); werr != nil {
			restart = unix.EINTR
		}
	}
	if err == vfs.ErrInterrupted {
		err = restart
	}
	return n, err
}

func pselect6(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	deadline, err := readTimeout(t, a[4].Pointer())
	if err != nil {
		return 0, err
	}
	if arg := a[5].Pointer(); arg != 0 {
		mask, err := t.MM().ReadUint64(arg)
		if err != nil {
			return 0, err
		}
		size, err := t.MM().ReadUint64(arg + 8)
		if err != nil {
			return 0, err
		}
		if err := setTempMask(t, mask, size); err != nil {
			return 0, err
		}
	}
	n, err := selectAt(t, a[0].Int(), [3]uint64{a[1].Pointer(), a[2].Pointer(), a[3].Pointer()}, deadline)
	return n, finishTimed(t, a[4].Pointer(), deadline, err)
}
