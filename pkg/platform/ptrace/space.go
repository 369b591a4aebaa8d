package ptrace

import (
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/platform/stub"
)

// released is added to addressSpace.users at Release.
const released = 1 << 40

// addressSpace implements platform.AddressSpace and platform.Forker.
type addressSpace struct {
	p      *Platform
	leader owned // first thread, and process ID; never resumed; immutable
	slot   int32 // of the command page; immutable

	// servant is the thread that the keeper injects calls into. It is not the leader, whose death no wait
	// reports while other dead threads are not reaped. Immutable.
	servant owned

	// users counts the calls that are under way, plus released. The last one of a released space reaps
	// its threads.
	users    atomic.Int64
	reapOnce sync.Once
	reaped   chan struct{} // closed when all threads are

	mu sync.Mutex // serialises changes of the memory, and protects the command page

	threadsMu sync.Mutex
	threads   []*thread // protected by threadsMu
}

// thread is a thread of a stub that one thread of the sentry traces. While that thread of the sentry is not inside
// Switch or Apply, it is stopped.
type thread struct {
	owned
	as     *addressSpace
	tracer *tracer
	owner  *context // whose extended state is loaded, if owner.on agrees; used by the tracer thread only
	ended  bool     // evicted; used by the tracer thread only
}

// tracer is a thread of the sentry.
type tracer struct {
	tid     int
	mu      sync.Mutex
	threads []*thread // oldest first; protected by mu
}

// maxThreadsPerTracer bounds how many stub threads a thread of the sentry keeps for later. The bound holds
// the number of host threads down when an application has very many processes and threads; 64 spaces visited in
// turn by one thread is more than programs do.
const maxThreadsPerTracer = 64

// enter must succeed before the stub is used; leave follows.
func (as *addressSpace) enter() bool {
	if as.users.Add(1) >= released {
		as.leave()
		return false
	}
	return true
}

func (as *addressSpace) leave() {
	if as.users.Add(-1) == released {
		as.reapOnce.Do(as.reap)
	}
}

// Release implements platform.AddressSpace. Contexts that still run get an error.
func (as *addressSpace) Release() {
	for {
		n := as.users.Load()
		if n >= released {
			return
		}
		if as.users.CompareAndSwap(n, n+1+released) {
			break
		}
	}
	unix.Kill(int(as.leader.Tracee), unix.SIGKILL) // not reaped before reap
	as.leave()
}

// reap waits for the dead threads. Any thread of the sentry may do that.
func (as *addressSpace) reap() {
	as.threadsMu.Lock()
	threads := as.threads
	as.threads = nil
	as.threadsMu.Unlock()
	for _, t := range threads {
		t.reap()
		t.tracer.forget(t)
	}
	as.servant.reap()
	as.leader.reap()
	as.p.unregister(as)
	close(as.reaped)
}

// forget removes t from the list.
func (tr *tracer) forget(t *thread) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for i, o := range tr.threads {
		if o == t {
			tr.threads = append(tr.threads[:i], tr.threads[i+1:]...)
			return
		}
	}
}

// find gives the thread of the address space that sentry thread tid traces, or nil.
func (as *addressSpace) find(tid int) *thread {
	as.threadsMu.Lock()
	defer as.threadsMu.Unlock()
	for _, t := range as.threads {
		if t.tracer.tid == tid {
			return t
		}
	}
	return nil
}

// newThread makes a thread that the calling thread of the sentry, tid, traces.
func (as *addressSpace) newThread(tid int) (*thread, error) {
	tr := as.p.tracer(tid)
	for tr.crowded() {
		tr.evict(as)
	}
	id, err := as.cloneThread()
	for err == unix.EAGAIN && tr.evict(as) {
		id, err = as.cloneThread()
	}
	if err != nil {
		return nil, err
	}
	if err := id.Seize(0); err != nil {
		return nil, err
	}
	t := &thread{as: as, tracer: tr}
	t.Tracee = id
	if err = id.Interrupt(); err == nil {
		_, err = id.WaitStop()
	}
	if err == nil {
		err = id.SetSigMask(0)
		unbind(int(id)) // as the servant was bound
	}
	if t.note(err) != nil {
		t.reap() // it is dying
		return nil, err
	}
	as.threadsMu.Lock()
	as.threads = append(as.threads, t)
	as.threadsMu.Unlock()
	tr.mu.Lock()
	tr.threads = append(tr.threads, t)
	tr.mu.Unlock()
	return t, nil
}

// cloneThread asks the keeper to make the servant clone a thread.
func (as *addressSpace) cloneThread() (id stub.Tracee, err error) {
	as.p.onKeeper(func() {
		// A thread that is not traced yet must not take signals. The int3 at the end of injected code unblocks SIGTRAP.
		if err = as.servant.SetSigMask(^uint64(0)); err != nil {
			return
		}
		r := arch.Registers{Rip: as.p.zygote.Code + entryThread, Rax: unix.SYS_CLONE, Rdi: threadFlags}
		if err = as.serve(&r); err != nil {
			return
		}
		if e := stub.Errno(r.Rax); e != 0 {
			err = e
			return
		}
		id = stub.Tracee(r.Rax)
	})
	return id, err
}

// serve runs injected code in the servant. Keeper only.
func (as *addressSpace) serve(r *arch.Registers) error {
	bind(int(as.servant.Tracee), currentCPU())
	return as.servant.inject(r)
}

// tracer gives the description of a thread of the sentry.
func (p *Platform) tracer(tid int) *tracer {
	if tr, ok := p.tracers.Load(tid); ok {
		return tr.(*tracer)
	}
	tr, _ := p.tracers.LoadOrStore(tid, &tracer{tid: tid})
	return tr.(*tracer)
}

func (tr *tracer) crowded() bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.threads) >= maxThreadsPerTracer
}

// evict ends the oldest thread that the calling thread of the sentry traces, but none of keep.
func (tr *tracer) evict(keep *addressSpace) bool {
	tr.mu.Lock()
	var t *thread
	for i, o := range tr.threads {
		if o.as != keep {
			t = o
			tr.threads = append(tr.threads[:i], tr.threads[i+1:]...)
			break
		}
	}
	tr.mu.Unlock()
	if t == nil {
		return false
	}
	t.ended = true
	if !t.as.enter() {
		return true // it is being reaped
	}
	defer t.as.leave()
	t.as.threadsMu.Lock()
	for i, o := range t.as.threads {
		if o == t {
			t.as.threads = append(t.as.threads[:i], t.as.threads[i+1:]...)
			break
		}
	}
	t.as.threadsMu.Unlock()
	r := arch.Registers{Rip: t.as.p.zygote.Code + entryCall, Rax: unix.SYS_EXIT}
	if err := t.inject(&r); err != stub.ErrEnded && err != stub.ErrGone {
		unix.Kill(int(t.as.leader.Tracee), unix.SIGKILL) // cannot be; do not wait for it for ever
	}
	t.reap()
	return true
}

// record translates a change into a system call.
func (as *addressSpace) record(op *platform.MapOp) (batchRecord, error) {
	if (op.Addr|op.Length)%arch.PageSize != 0 || op.Length == 0 || op.Addr < stub.Min || op.Addr > stub.Max || op.Length > stub.Max-op.Addr {
		return batchRecord{}, unix.EINVAL
	}
	prot := uint64(op.Perms) // the bits of Perms are those of PROT_READ, PROT_WRITE and PROT_EXEC
	if op.Perms&^(platform.Read|platform.Write|platform.Exec) != 0 {
		return batchRecord{}, unix.EINVAL
	}
	switch op.Op {
	case platform.OpMap:
		if op.Offset%arch.PageSize != 0 || op.FD < 0 {
			return batchRecord{}, unix.EINVAL
		}
		flags := uint64(mapFlags)
		if op.Populate {
			flags = mapPopulateFlags
		}
		return batchRecord{unix.SYS_MMAP, op.Addr, op.Length, prot, flags, uint64(op.FD), op.Offset}, nil
	case platform.OpUnmap:
		return batchRecord{nr: unix.SYS_MUNMAP, a0: op.Addr, a1: op.Length}, nil
	case platform.OpProtect:
		return batchRecord{nr: unix.SYS_MPROTECT, a0: op.Addr, a1: op.Length, a2: prot}, nil
	}
	return batchRecord{}, unix.EINVAL
}

// Apply implements platform.AddressSpace. Where one change fails, those before it have been made.
func (as *addressSpace) Apply(ops []platform.MapOp) error {
	if !as.enter() {
		return errGone
	}
	defer as.leave()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t := as.find(unix.Gettid())
	as.mu.Lock()
	defer as.mu.Unlock()
	for len(ops) > 0 {
		n := min(len(ops), arch.PageSize/batchRecordSize)
		list := unsafe.Slice((*batchRecord)(unsafe.Pointer(&as.p.cmd[int(as.slot)*arch.PageSize])), n)
		for i := range n {
			rec, err := as.record(&ops[i])
			if err != nil {
				return err
			}
			list[i] = rec
		}
		if err := as.runBatch(t, n); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}

// runBatch executes n calls of the command page, in t or else in the servant.
func (as *addressSpace) runBatch(t *thread, n int) error {
	cmd := as.p.zygote.Code + arch.PageSize
	end := cmd + uint64(n)*batchRecordSize
	r := arch.Registers{Rip: as.p.zygote.Code + entryBatch, Rbx: cmd, Rbp: end}
	var err error
	if t != nil {
		err = t.inject(&r)
	} else {
		err = as.onServant(&r)
	}
	if err != nil {
		return err
	}
	if r.Rbx != end {
		if e := stub.Errno(r.Rax); e != 0 {
			return e
		}
		return errGone
	}
	return nil
}

// onServant runs injected code in the servant.
func (as *addressSpace) onServant(r *arch.Registers) (err error) {
	regs := *r
	as.p.onKeeper(func() { err = as.serve(&regs) })
	*r = regs
	return err
}

// Fork implements platform.Forker.
func (as *addressSpace) Fork(own, copy []platform.MapOp) (platform.AddressSpace, error) {
	if len(own) > 0 {
		if err := as.Apply(own); err != nil {
			return nil, err
		}
	}
	child, err := as.fork()
	if err != nil {
		return nil, err
	}
	if len(copy) > 0 {
		if err := child.Apply(copy); err != nil {
			child.Release()
			return nil, err
		}
	}
	return child, nil
}

func (as *addressSpace) fork() (*addressSpace, error) {
	if !as.enter() {
		return nil, errGone
	}
	defer as.leave()
	as.mu.Lock()
	defer as.mu.Unlock()
	return as.p.newSpace(&as.servant)
}
