package systrap

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

// addressSpace is a stub process.
type addressSpace struct {
	p     *systrap
	pid   int    // immutable once shared
	first uint32 // chunk of the ring and the first slots; immutable
	ring  *ring
	done  *done

	// lent are threads that blocked contexts could do without, the last one last; lend.
	lend sync.Mutex
	lent []*thread

	mu       sync.Mutex
	seq      uint64    // of the batch that runs; mu
	cpu      uint32    // processor that the memory thread is bound to; mu
	starting *thread   // fork's child has not said yet that it is ready, with this thread; mu
	threads  []*thread // all; changed under mu and life
	idle     []*thread // those without a context; mu
	more     []uint32  // further chunks of slots; mu
	buf      []op      // for Apply; mu
	deferred deferred  // mu

	failure atomic.Pointer[error] // why the sentry killed the process, if the application is not to blame

	patches  atomic.Pointer[patchSet]      // set under mu
	code     atomic.Pointer[platform.Text] // what Patch was called with last
	noPatch  atomic.Bool
	several  atomic.Bool // there was more than one thread
	entered  atomic.Bool // a context had a thread here: application code may have run
	freezing atomic.Bool // frozen is held, and no thread may go to application code
	frozen   sync.Mutex  // outermost

	life     sync.Mutex
	dead     atomic.Bool // set under life, before the process is killed or when found dead
	reaped   bool        // the pid may belong to another process; life
	released bool        // by the owner; life
	// refs counts the owner and the contexts that have a thread here; life. The last one gives the process to the keeper.
	refs int
}

// thread is an application thread of a stub process.
type thread struct {
	as   *addressSpace
	slot *slot
	base uintptr // sentry's address of the slot
	addr uint64  // stub's address of the slot
	tid  int
	away uint32 // processor that it must not run on, or noCPU
	spin spinState

	// Of the context that has the thread.
	seq        uint32         // of the last go
	streak     uint32         // how often it was told to go without another in between
	interrupt  *atomic.Uint32 // the context's
	word       *uint32        // what it sleeps on
	hint       uint32         // its number in hints.words, or noWord
	waker      *thread        // was asked to wake it
	cpu        uint32         // where it probably is
	owner      *context       // whose state it has while it is lent; as.lend
	fresh      bool           // it did not run since its context got it
	blocked    bool           // the sentry blocks the thread
	woken      bool           // it slept when it was told to go
	yielding   atomic.Bool    // it was told to give way
	yielded    bool           // it was when it was told to go
	mayYield   atomic.Bool    // giving way pays
	asked      patience
	wake       chan struct{} // from the reactor
	index      int           // in reactor.waiting, or negative; reactor.mu
	inside     uint32        // 1: it may be in application code
	dozing     atomic.Bool   // the goroutine sleeps on slot.stopSeq
	uctx       uint64        // offset in the slot of the frame to resume from
	live       bool          // there is no frame: the registers are in the slot, the extended state in the processor
	site       int           // live: number of the patched place
	hot        hotness
	masked     bool   // signals are blocked until rt_sigreturn from it, or it is one that frame built
	fp         uint64 // offset of its extended state, 0 if it has none
	fs, gs     uint64 // segment bases that the thread has, or will have when it resumes
	basesKnown bool
}

func (p *systrap) newSpace(chunk uint32) *addressSpace {
	off := uint64(chunk) * chunkSize
	a := &addressSpace{p: p, first: chunk, ring: (*ring)(p.mem.at(off)), done: (*done)(p.mem.at(off + chunkDone)), refs: 1, cpu: noCPU}
	return a
}

const noCPU = ^uint32(0)

// post starts a batch. The caller holds mu, and no batch runs.
func (a *addressSpace) post(ops []op) { a.postAs(a.p.seq.Add(1), ops) }

func (a *addressSpace) postAs(seq uint64, ops []op) {
	a.prepare(seq, ops)
	if atomic.LoadUint32(&a.done.sleeping) != 0 {
		a.bringMemory()
		a.wakeMemory()
	}
}

// prepare is postAs for a memory thread that somebody else wakes.
func (a *addressSpace) prepare(seq uint64, ops []op) {
	copy(a.ring.ops[:], ops)
	a.ring.n = uint32(len(ops))
	a.seq = seq
	atomic.StoreUint32(&a.done.state, donePending)
	atomic.StoreUint64(&a.ring.seq, a.seq)
}

// wakeMemory wakes the memory thread, and tells whether somebody slept there.
func (a *addressSpace) wakeMemory() bool {
	return futexWake((*uint32)(unsafe.Pointer(&a.ring.seq))) > 0
}

// bringMemory moves the memory thread to the processor that the caller is on. Handing over to it then is two switches
// of threads, about 3 us, where waking another processor that idles costs 50 us, twice.
func (a *addressSpace) bringMemory() { a.placeMemory(cpuNumber()) }

func (a *addressSpace) placeMemory(cpu uint32) {
	if cpu != a.cpu && a.pid != 0 {
		var set unix.CPUSet
		set.Set(int(cpu))
		if unix.SchedSetaffinity(a.pid, &set) == nil {
			a.cpu = cpu
		}
	}
}

// Limits of await.
const (
	// How often to yield to the memory thread before sleeping. The first time mostly suffices where the processor has
	// nothing else to do; where it has, sleeping is better than to be put behind all others each time.
	awaitYields = 3
	// How much longer to wait for a memory thread than for an application thread, before its silence is taken for a
	// hostile application's doing: it may have much to map.
	awaitPatience = 6
	// How often a memory thread that does not answer is found asleep before that is taken for the same. It was woken the first time, and would
	// not sleep again before it has answered.
	awaitAsleep = 2
)

// await waits for the batch that post started and returns its result, a system call's. It kills the process if
// the application tampers with the answer, or hides it. Where no application code ever ran, silence only means that the host is slow.
func (a *addressSpace) await() (int64, error) {
	var asked patience
	var looked uint64 // time stamp of the last look whether the memory thread sleeps
	asleep := 0       // how often it did
	for yields := 0; ; {
		if atomic.LoadUint32(&a.done.state) == doneReady {
			d := *a.done
			if d.tag == siphash(a.p.key[0], a.p.key[1], a.seq, d.result) {
				return int64(d.result), nil
			}
			a.kill()
			return 0, errDead
		}
		if a.dead.Load() {
			return 0, errDead
		}
		if yields < awaitYields {
			yields++
			schedYield()
			continue
		}
		if !atomic.CompareAndSwapUint32(&a.done.state, donePending, doneWaiter) && atomic.LoadUint32(&a.done.state) == doneReady {
			continue
		}
		poll := a.p.pace.poll
		if looked == 0 {
			looked = rdtsc()
		}
		silent := !futexWait(&a.done.state, doneWaiter, &poll)
		if now := rdtsc(); silent || now-looked > uint64(poll.Nano())/1000*a.p.pace.ticks {
			looked = now
			if a.wakeMemory() && atomic.LoadUint32(&a.done.state) != doneReady {
				asleep++
			}
		}
		if a.entered.Load() && (asleep >= awaitAsleep || asked.over(&a.p.pace, awaitPatience)) || silent && a.isDead() {
			a.kill()
			return 0, errDead
		}
	}
}

// run executes a batch of at most ringOps calls, after what has been put off, and waits for it.
func (a *addressSpace) run(ops []op) (int64, error) {
	if a.dead.Load() {
		return 0, errDead
	}
	if err := a.settle(); err != nil {
		return 0, err
	}
	a.post(ops)
	r, err := a.await()
	if err == nil && r < 0 && r > -4096 {
		return 0, unix.Errno(-r)
	}
	return r, err
}

// Apply implements platform.AddressSpace.
func (a *addressSpace) Apply(ops []platform.MapOp) error {
	if !validOps(ops) {
		return unix.EINVAL
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.start() != nil || a.settle() != nil {
		return unix.ESRCH
	}
	return a.apply(ops)
}

// apply is Apply, for valid operations. The caller holds mu.
func (a *addressSpace) apply(ops []platform.MapOp) error {
	for len(ops) > 0 {
		n := min(len(ops), ringOps)
		a.buf = a.buf[:0]
		for i := range ops[:n] {
			a.buf = append(a.buf, mapCall(&ops[i]))
		}
		if _, err := a.run(a.buf); err != nil {
			if err == errDead {
				return unix.ESRCH
			}
			return err
		}
		ops = ops[n:]
	}
	return nil
}

func validOps(ops []platform.MapOp) bool {
	for i := range ops {
		if ops[i].Op > platform.OpProtect || !validRange(ops[i].Addr, ops[i].Length) {
			return false
		}
	}
	return true
}

// validRange tells whether the application may have something at [addr, addr+length).
func validRange(addr, length uint64) bool {
	return (addr|length)&arch.PageMask == 0 && length != 0 && addr < maxUser && length <= maxUser-addr
}

// mapCall is the system call for an operation.
func mapCall(m *platform.MapOp) op {
	switch m.Op {
	case platform.OpMap:
		flags := uint64(unix.MAP_SHARED | unix.MAP_FIXED)
		if m.Populate {
			flags |= unix.MAP_POPULATE
		}
		return op{nr: unix.SYS_MMAP, args: [6]uint64{m.Addr, m.Length, prot(m.Perms), flags, uint64(uint32(m.FD)), m.Offset}}
	case platform.OpProtect:
		return op{nr: unix.SYS_MPROTECT, args: [6]uint64{m.Addr, m.Length, prot(m.Perms)}}
	default:
		return op{nr: unix.SYS_MUNMAP, args: [6]uint64{m.Addr, m.Length}}
	}
}

func prot(p platform.Perms) uint64 {
	var r uint64
	if p&platform.Read != 0 {
		r |= unix.PROT_READ
	}
	if p&platform.Write != 0 {
		r |= unix.PROT_WRITE
	}
	if p&platform.Exec != 0 {
		r |= unix.PROT_EXEC
	}
	return r
}

// Fork implements platform.Forker.
func (a *addressSpace) Fork(own, copy []platform.MapOp) (platform.AddressSpace, error) {
	if !validOps(own) || !validOps(copy) {
		return nil, unix.EINVAL
	}
	n := min(len(copy), forkOps)
	b, err := a.fork(own, copy[:n])
	if err != nil {
		return nil, err
	}
	if n < len(copy) {
		if err := b.Apply(copy[n:]); err != nil {
			b.Release()
			return nil, err
		}
	}
	return b, nil
}

// forkOps is how many changes of either side are part of the batch that forks.
const forkOps = (ringOps - 8) / 2

// fork forks the stub process after the changes own; the child, which has one thread without a context, gets changes of its own.
// The changes are valid.
func (a *addressSpace) fork(own, changes []platform.MapOp) (*addressSpace, error) {
	p := a.p
	chunk, ok := p.mem.alloc(chunkSpace)
	if !ok {
		return nil, unix.ENOMEM
	}
	b := p.newSpace(chunk)
	t := b.makeThread()
	off := uint64(chunk) * chunkSize
	shared := func(addr, size, off, prot uint64) op {
		return op{nr: unix.SYS_MMAP, args: p.mapShared(addr, size, off, prot)}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.start() != nil || a.dead.Load() || a.settle() != nil {
		t.freeWord()
		p.mem.release(chunk, 1, chunkSpace)
		return nil, unix.ESRCH
	}
	if n := len(own); n > forkOps {
		if err := a.apply(own[:n-forkOps]); err != nil {
			t.freeWord()
			p.mem.release(chunk, 1, chunkSpace)
			return nil, err
		}
		own = own[n-forkOps:]
	}
	ops := a.buf[:0]
	for i := range own {
		ops = append(ops, mapCall(&own[i]))
	}
	ops = append(ops,
		op{kind: opFork, nr: unix.SYS_CLONE, args: [6]uint64{forkFlags, 0,
			doneAddr + uint64(unsafe.Offsetof(a.done.child)), 0, uint64(p.mem.fd), off / arch.PageSize}},
		op{nr: unix.SYS_MUNMAP, args: [6]uint64{slotsAddr, slotSize * maxThreads}},
		shared(doneAddr, doneSize, off+chunkDone, unix.PROT_READ|unix.PROT_WRITE),
		shared(slotsAddr, firstSlots*slotSize, off+chunkSlots, unix.PROT_READ|unix.PROT_WRITE))
	for i := range changes {
		ops = append(ops, mapCall(&changes[i]))
	}
	ops = append(ops, t.cloneOp())
	a.buf = ops
	// The child goes on with the same batch in its own ring.
	copy(b.ring.ops[:], ops)
	b.ring.n = uint32(len(ops))
	b.seq = p.seq.Add(1)
	b.ring.seq = b.seq
	atomic.StoreUint32(&a.done.child, 0)
	a.postAs(b.seq, ops)
	r, err := a.await()
	if err != nil {
		a.abandon(b)
		return nil, err
	}
	if r < 0 {
		t.freeWord()
		p.mem.release(chunk, 1, chunkSpace)
		return nil, unix.Errno(-r)
	}
	b.pid = int(r)
	if err := p.add(b); err != nil {
		b.kill()
		b.reap()
		return nil, err
	}
	b.starting = t
	b.patches.Store(a.patches.Load().ref())
	b.noPatch.Store(a.noPatch.Load())
	return b, nil
}

// abandon ends the child that fork may have made though the answer never came, as the process was killed or died. The child's
// chunk is lost: nobody can tell for sure that no process has it.
func (a *addressSpace) abandon(b *addressSpace) {
	a.reap() // so that there will be no child any more
	b.post([]op{{nr: unix.SYS_EXIT_GROUP}})
	b.wakeMemory()
	for _, t := range b.threads {
		t.freeWord()
	}
	// The application may have changed the number: never kill by it, and only wait for what nobody else waits for.
	p, pid := a.p, int(int32(atomic.LoadUint32(&a.done.child)))
	if pid <= 1 || pid == p.zygote.pid || p.knows(pid) {
		return
	}
	go func() {
		for range 100 {
			if got, err := unix.Wait4(pid, nil, unix.WALL|unix.WNOHANG, nil); got == pid || err == unix.ECHILD {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
}

// knows tells whether a process is an address space.
func (p *systrap) knows(pid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a := range p.spaces {
		if a.pid == pid {
			return true
		}
	}
	return false
}

// start waits for the end of what fork left to the child. The caller holds mu.
func (a *addressSpace) start() error {
	t := a.starting
	if t == nil {
		return nil
	}
	a.starting = nil
	r, err := a.await()
	if err != nil || r < 0 {
		a.kill()
		return errDead
	}
	a.started(t, int(r))
	a.idle = append(a.idle, t)
	return nil
}

// started notes a new application thread, and unbinds it from the memory thread's processor.
func (a *addressSpace) started(t *thread, tid int) {
	t.tid = tid
	unix.SchedSetaffinity(tid, &a.p.pace.affinity)
}

// add enters an address space into the list that Release goes through.
func (p *systrap) add(a *addressSpace) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released {
		return errDead
	}
	p.spaces[a] = struct{}{}
	return nil
}

// Release implements platform.AddressSpace.
func (a *addressSpace) Release() {
	a.kill()
	a.life.Lock()
	again := a.released
	a.released = true
	a.life.Unlock()
	if !again {
		a.unref()
	}
}

// ref is for a context that gets a thread; ok is false if it is too late for that.
func (a *addressSpace) ref() (ok bool) {
	a.life.Lock()
	defer a.life.Unlock()
	if a.dead.Load() {
		return false
	}
	a.refs++
	a.entered.Store(true)
	return true
}

func (a *addressSpace) unref() {
	a.life.Lock()
	a.refs--
	last := a.refs == 0
	a.life.Unlock()
	if last {
		select {
		case a.p.keeper.queue <- a:
		case <-a.p.keeper.done:
		}
	}
}

// kill kills the process; nothing of it runs on when the host has delivered the signal.
func (a *addressSpace) kill() {
	a.life.Lock()
	defer a.life.Unlock()
	if a.dead.Swap(true) || a.reaped {
		return
	}
	unix.Kill(a.pid, unix.SIGKILL)
	a.wakeAll()
}

// wakeAll makes all waits for the dead process's threads end. The caller holds life.
func (a *addressSpace) wakeAll() {
	for _, t := range a.threads {
		atomic.StoreUint32(&t.slot.stopSeq, killedSeq)
		if t.dozing.Load() {
			futexWake(&t.slot.stopSeq)
		}
	}
	a.p.reactor.ring()
	atomic.StoreUint32(&a.done.state, doneReady)
	futexWake(&a.done.state)
}

// isDead finds out whether the process died by itself (the host's out-of-memory killer, or a
// hostile application made the host kill it).
func (a *addressSpace) isDead() bool {
	if a.dead.Load() {
		return true
	}
	a.life.Lock()
	defer a.life.Unlock()
	if a.reaped {
		return true
	}
	pid, err := unix.Wait4(a.pid, nil, unix.WNOHANG|unix.WALL, nil)
	if pid != a.pid && err != unix.ECHILD {
		return false
	}
	a.reaped = true
	if !a.dead.Swap(true) {
		a.wakeAll()
	}
	return true
}

// reap waits for the killed process.
func (a *addressSpace) reap() {
	a.life.Lock()
	defer a.life.Unlock()
	for !a.reaped {
		if _, err := unix.Wait4(a.pid, nil, unix.WALL, nil); err != unix.EINTR {
			a.reaped = true
		}
	}
}

// destroy reaps the process and frees its memory.
func (a *addressSpace) destroy() {
	a.reap()
	a.p.mu.Lock()
	delete(a.p.spaces, a)
	a.p.mu.Unlock()
	a.patches.Load().unref()
	used := len(a.threads)
	for _, t := range a.threads {
		t.freeWord()
	}
	a.p.mem.release(a.first, min(used, firstSlots), chunkSpace)
	for _, c := range a.more {
		a.p.mem.release(c, slotsAtOnce, chunkThreads)
	}
}

// makeThread adds the thread's record and prepares its slot. The caller holds mu, or nobody else knows a.
func (a *addressSpace) makeThread() *thread {
	i := len(a.threads)
	chunk, at := a.first, uint64(chunkSlots)+uint64(i)*slotSize
	if i >= firstSlots {
		n := i - firstSlots
		chunk, at = a.more[n/slotsAtOnce], uint64(n%slotsAtOnce)*slotSize
	}
	s := a.p.mem.at(uint64(chunk)*chunkSize + at)
	t := &thread{as: a, slot: (*slot)(s), base: uintptr(s), addr: slotsAddr + uint64(i)*slotSize,
		wake: make(chan struct{}, 1), index: -1, away: noCPU}
	t.slot.self, t.slot.signal = t.addr, sigSaved
	t.masked, t.fresh = true, true
	t.makeWord()
	a.life.Lock()
	a.threads = append(a.threads, t)
	a.life.Unlock()
	if i > 0 {
		a.several.Store(true)
	}
	return t
}

const noWord = ^uint32(0)

// makeWord gives the thread a word to sleep on: one that threads of other processes can wake or, if there is none
// left, one of its own slot.
func (t *thread) makeWord() {
	n, ok := t.as.p.mem.allocWord()
	if !ok {
		t.hint, t.word = noWord, &t.slot.ownWord
		t.slot.futex = t.addr + uint64(unsafe.Offsetof(t.slot.ownWord))
		return
	}
	t.hint, t.word = n, &t.as.p.reactor.hints.words[n]
	t.slot.futex = t.wordAddr()
}

// wordAddr is the stub address of a word of hints.
func (t *thread) wordAddr() uint64 {
	return hintAddr + uint64(unsafe.Offsetof(hints{}.words)) + 4*uint64(t.hint)
}

func (t *thread) freeWord() {
	if t.hint != noWord {
		t.as.p.mem.freeWord(t.hint)
	}
}

// cloneOp is the operation that starts the thread.
func (t *thread) cloneOp() op {
	return op{kind: opThread, nr: unix.SYS_CLONE, args: [6]uint64{threadFlags, t.addr + slotFrame}}
}

// Flags of the two uses of clone(2); the stubs' filter knows no others.
const (
	threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	forkFlags   = unix.CLONE_FILES | unix.CLONE_PARENT | unix.CLONE_PARENT_SETTID
)

// take returns a thread without a context, a new one if need be.
func (a *addressSpace) take() (*thread, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.start(); err != nil {
		return nil, err
	}
	if n := len(a.idle); n > 0 {
		t := a.idle[n-1]
		a.idle = a.idle[:n-1]
		return t, nil
	}
	if a.dead.Load() {
		return nil, errDead
	}
	n := len(a.threads)
	if n >= lendThreads*int(a.p.pace.cpus) {
		if t := a.steal(false); t != nil {
			return t, nil
		}
	}
	if n == maxThreads {
		return nil, unix.EAGAIN
	}
	ops := a.buf[:0]
	if n >= firstSlots && (n-firstSlots)/slotsAtOnce == len(a.more) {
		chunk, ok := a.p.mem.alloc(chunkThreads)
		if !ok {
			return nil, unix.ENOMEM
		}
		a.more = append(a.more, chunk)
		ops = append(ops, op{nr: unix.SYS_MMAP, args: a.p.mapShared(slotsAddr+uint64(n)*slotSize, chunkSize,
			uint64(chunk)*chunkSize, unix.PROT_READ|unix.PROT_WRITE)})
	}
	t := a.makeThread()
	ops = append(ops, t.cloneOp())
	a.buf = ops
	tid, err := a.run(ops)
	if err != nil {
		a.life.Lock()
		a.threads = a.threads[:n]
		a.life.Unlock()
		t.freeWord()
		return nil, err
	}
	a.started(t, int(tid))
	return t, nil
}

// give returns a thread that no context needs, and the context's reference.
func (a *addressSpace) give(t *thread) {
	a.putIdle(t)
	a.unref()
}

func (a *addressSpace) putIdle(t *thread) {
	a.mu.Lock()
	a.idle = append(a.idle, t)
	a.mu.Unlock()
}
