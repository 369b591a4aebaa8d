package ptrace

import (
	"errors"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/platform/stub"
)

// maxSpaces bounds how many address spaces exist at a time: pid_max of a 64-bit Linux would allow more, but
// no container has that many processes. Each costs a page of the command file while it lives.
const maxSpaces = 32768

// errGone is what everything gives once the stub of an address space died or was released.
var errGone = errors.New("ptrace: the stub process is gone")

// Platform implements platform.Platform.
type Platform struct {
	zygote *stub.Zygote // only the keeper uses its methods
	origin owned        // the zygote, as what stubs are cloned from; keeper only
	keeper chan job
	gate   gate

	// The command pages: page i belongs to the address space of slot i. Immutable.
	cmdFD int
	cmd   []byte

	mu      sync.Mutex
	slots   []int32                    // free ones; protected by mu
	unused  int32                      // slots from here on were never used; protected by mu
	spaces  map[*addressSpace]struct{} // protected by mu
	dead    bool                       // protected by mu
	tracers sync.Map                   // thread ID of a sentry thread -> *tracer

	mxcsrMask uint32
	xcr0      uint64
	vdso      []byte // immutable
}

// job is a request to the keeper.
type job struct {
	f    func()
	done chan struct{}
}

// New makes the platform, with its zygote; see package stub for when it may be called.
func New() (*Platform, error) {
	if err := stub.QuietChildren(); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("stub-commands", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	p := &Platform{cmdFD: fd, keeper: make(chan job), spaces: make(map[*addressSpace]struct{})}
	if err = unix.Ftruncate(fd, maxSpaces*arch.PageSize); err == nil {
		p.cmd, err = unix.Mmap(fd, 0, maxSpaces*arch.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	p.gate.init()
	ready := make(chan error)
	go p.keep(ready)
	if err := <-ready; err != nil {
		unix.Munmap(p.cmd)
		unix.Close(fd)
		return nil, err
	}
	p.vdso = stub.VDSOText()
	xs := p.zygote.XState
	p.mxcsrMask = *(*uint32)(unsafe.Pointer(&xs[28]))
	if p.mxcsrMask == 0 {
		p.mxcsrMask = 0xffbf
	}
	p.xcr0 = *(*uint64)(unsafe.Pointer(&xs[464]))
	return p, nil
}

// keep is the keeper. It does not unlock its thread at the end, which then ends too, and with it what is left of the
// stubs.
func (p *Platform) keep(ready chan<- error) {
	runtime.LockOSThread()
	z, err := stub.NewZygote(stub.Config{Code: stubCode(), Pages: 2, Pause: entryPause, Call: entryCall, Filter: stubFilter()})
	if p.zygote = z; err == nil {
		p.origin.Tracee = z.Tracee
	}
	ready <- err
	if err != nil {
		return
	}
	for j := range p.keeper {
		j.f()
		close(j.done)
	}
	z.Kill()
}

// keep runs f on the keeper's thread.
func (p *Platform) onKeeper(f func()) {
	j := job{f, make(chan struct{})}
	p.keeper <- j
	<-j.done
}

// FPStateSize implements platform.Platform.
func (p *Platform) FPStateSize() int { return len(p.zygote.XState) }

// UserRange implements platform.Platform.
func (p *Platform) UserRange() (lo, hi uint64) { return stub.Min, stub.Max }

// VDSO implements platform.Platform.
func (p *Platform) VDSO() (base, size, ehdr uint64) {
	return p.zygote.VDSOBase, p.zygote.VDSOSize, p.zygote.VDSOEhdr
}

// VDSOText implements platform.VDSOReader.
func (p *Platform) VDSOText() []byte { return p.vdso }

// Release implements platform.Platform.
func (p *Platform) Release() {
	p.mu.Lock()
	if p.dead {
		p.mu.Unlock()
		return
	}
	p.dead = true
	var all []*addressSpace
	for as := range p.spaces {
		all = append(all, as)
	}
	p.mu.Unlock()
	for _, as := range all {
		as.Release()
	}
	for _, as := range all {
		<-as.reaped
	}
	p.gate.close()
	close(p.keeper)
	unix.Munmap(p.cmd)
	unix.Close(p.cmdFD)
}

// NewAddressSpace implements platform.Platform. EAGAIN where there are too many.
func (p *Platform) NewAddressSpace() (platform.AddressSpace, error) {
	return p.newSpace(&p.origin)
}

// newSpace clones a stub process whose first thread the keeper traces.
func (p *Platform) newSpace(from *owned) (*addressSpace, error) {
	as := &addressSpace{p: p, reaped: make(chan struct{})}
	if err := p.register(as); err != nil {
		return nil, err
	}
	var err error
	p.onKeeper(func() { err = p.bear(as, from) })
	if err != nil {
		p.unregister(as)
		return nil, err
	}
	return as, nil
}

// bear clones the stub of a new address space from another one, and the servant in it. Both children stay on the
// processor of the keeper: the host's choice, the least busy one, made this three times slower under load.
func (p *Platform) bear(as *addressSpace, from *owned) error {
	bind(int(from.Tracee), currentCPU())
	r := arch.Registers{Rip: p.zygote.Code + entryFork, Rax: unix.SYS_CLONE, Rdi: spaceFlags,
		R12: uint64(p.cmdFD), R13: uint64(as.slot) * arch.PageSize, R14: p.zygote.Code + arch.PageSize, R15: servantFlags}
	if err := from.inject(&r); err != nil {
		return err
	}
	if e := stub.Errno(r.Rax); e != 0 {
		return e
	}
	as.leader.Tracee = stub.Tracee(r.Rax)
	_, err := as.leader.WaitStop()
	if err == nil {
		err = as.leader.Finish(&r)
	}
	if e := stub.Errno(r.Rax); err == nil && e != 0 {
		err = e
	}
	if as.leader.note(err) == nil {
		as.servant.Tracee = stub.Tracee(r.Rax)
		_, err = as.servant.WaitStop()
		as.servant.note(err)
	}
	if err == nil {
		return nil
	}
	if !as.leader.reaped.Load() {
		unix.Kill(int(as.leader.Tracee), unix.SIGKILL)
	}
	// Somebody killed it just now. Where there is a servant that is not known yet nothing can wait for the leader,
	// so the keeper does not.
	go func() {
		if as.servant.Tracee != 0 {
			as.servant.reap()
		}
		as.leader.reap()
	}()
	return err
}

// register gives as a command page.
func (p *Platform) register(as *addressSpace) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch n := len(p.slots); {
	case p.dead:
		return errGone
	case n > 0:
		as.slot, p.slots = p.slots[n-1], p.slots[:n-1]
	case p.unused < maxSpaces:
		as.slot = p.unused
		p.unused++
	default:
		return unix.EAGAIN
	}
	p.spaces[as] = struct{}{}
	return nil
}

func (p *Platform) unregister(as *addressSpace) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.spaces, as)
	clear(p.cmd[int(as.slot)*arch.PageSize:][:arch.PageSize]) // the next owner may read it
	p.slots = append(p.slots, as.slot)
}

// NewContext implements platform.Platform.
func (p *Platform) NewContext() platform.Context {
	c := &context{p: p, fp: make([]byte, len(p.zygote.XState)), wake: make(chan struct{}, 1)}
	copy(c.fp, p.zygote.XState)
	return c
}
