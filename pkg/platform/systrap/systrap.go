package systrap

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
)

// errDead is what Switch returns when the stub process is gone.
var errDead = errors.New("systrap: the stub process died")

// systrap is the platform.
type systrap struct {
	mem    *stubMemory
	text   *text
	zygote *addressSpace
	secret secret    // immutable; cleared once the zygote has it
	key    [2]uint64 // immutable
	seq    atomic.Uint64
	xstate xstate
	// The host lets applications write the segment bases, so that threads tell theirs when they stop; immutable.
	fsgsbase bool
	vdso     vdso
	keeper   keeper
	ready    chan *addressSpace // empty address spaces for NewAddressSpace
	pace     pace
	reactor  reactor

	mu       sync.Mutex
	spaces   map[*addressSpace]struct{} // all that live, but the zygote; mu
	released bool                       // mu
}

// New starts the zygote. It must be called before the caller installs its own seccomp filter, which stub processes
// would inherit.
// The calling process becomes the parent of all stub processes; they need no privilege. The thread that New is called on
// must live as long as the platform, as it does if no goroutine locks it and exits.
func New() (platform.Platform, error) {
	p := &systrap{spaces: make(map[*addressSpace]struct{}), ready: make(chan *addressSpace, readySpaces)}
	var random [28]byte
	if _, err := unix.Getrandom(random[:], 0); err != nil {
		return nil, err
	}
	p.key[0] = binary.LittleEndian.Uint64(random[0:])
	p.key[1] = binary.LittleEndian.Uint64(random[8:])
	for i := range p.secret {
		p.secret[i] = binary.LittleEndian.Uint32(random[16+4*i:])
	}
	var err error
	if p.xstate, err = findXstate(); err != nil {
		return nil, err
	}
	p.fsgsbase = hasFSGSBASE()
	if p.text, err = makeText(); err != nil {
		return nil, err
	}
	if p.mem, err = newStubMemory(); err != nil {
		return nil, err
	}
	p.pace.calibrate()
	if err = p.reactor.init(&p.pace, (*hints)(p.mem.at(offHints))); err != nil {
		return nil, err
	}
	copy(p.mem.bytes(offText, textSize), p.text.code)
	*(*table)(p.mem.at(offTable)) = p.text.table(unix.Getpid(), p.reactor.fd, p.fsgsbase)
	p.keeper.start(p)
	go p.reactor.run()
	if err := p.startZygote(); err != nil {
		p.Release()
		return nil, err
	}
	p.keeper.refill()
	return p, nil
}

// NewAddressSpace implements platform.Platform.
func (p *systrap) NewAddressSpace() (platform.AddressSpace, error) {
	for {
		select {
		case a := <-p.ready:
			p.keeper.taken()
			if a.isDead() {
				a.Release()
				continue
			}
			return a, nil
		default:
		}
		a, err := p.zygote.fork(nil, nil)
		if err != nil {
			return nil, err
		}
		p.keeper.taken()
		return a, nil
	}
}

// NewContext implements platform.Platform.
func (p *systrap) NewContext() platform.Context { return &context{p: p} }

// FPStateSize implements platform.Platform.
func (p *systrap) FPStateSize() int { return p.xstate.size }

// UserRange implements platform.Platform.
func (p *systrap) UserRange() (min, max uint64) { return minUser, maxUser }

// VDSO implements platform.Platform. The pages are outside UserRange.
func (p *systrap) VDSO() (base, size, ehdr uint64) { return p.vdso.base, p.vdso.size, p.vdso.ehdr }

// VDSOText implements platform.VDSOReader.
func (p *systrap) VDSOText() []byte { return p.vdso.text }

// Release implements platform.Platform. It kills all stub processes. Contexts in Switch return an error.
func (p *systrap) Release() {
	p.mu.Lock()
	p.released = true
	all := make([]*addressSpace, 0, len(p.spaces)+1)
	for a := range p.spaces {
		all = append(all, a)
	}
	p.mu.Unlock()
	if p.zygote != nil {
		all = append(all, p.zygote)
	}
	for _, a := range all {
		a.kill()
	}
	for _, a := range all {
		a.reap()
	}
	p.keeper.stop()
	p.reactor.stop()
	// The memory stays mapped: a context may still look into its slot.
}

// readySpaces is how many stub processes wait for NewAddressSpace. Each saves 0.3 ms of an execve(2) and costs about
// 100 KB of the host's memory; two last for a shell that starts a pipeline. Before a second program is executed there is
// only the one that the first program gets, made while the container is: many containers execute no other.
const readySpaces = 2

// keeper does what nobody should wait for: it waits for killed stub processes and frees their memory, and
// makes processes for NewAddressSpace.
type keeper struct {
	p     *systrap
	queue chan *addressSpace
	fill  chan struct{}
	took  atomic.Uint64 // calls of taken
	quit  chan struct{}
	done  chan struct{}
}

func (k *keeper) start(p *systrap) {
	*k = keeper{p: p, queue: make(chan *addressSpace, 256), fill: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(k.done)
		for {
			select {
			case a := <-k.queue:
				a.destroy()
			case <-k.fill:
				k.make()
			case <-k.quit:
				return
			}
		}
	}()
}

// taken says that a process was taken. It does not wait.
func (k *keeper) taken() {
	if k.took.Add(1) > 1 {
		k.refill()
	}
}

// refill asks for ready processes; it does not wait.
func (k *keeper) refill() {
	select {
	case k.fill <- struct{}{}:
	default:
	}
}

// make makes one ready process, and asks for more if some are missing: processes to be freed get their turn in between.
func (k *keeper) make() {
	want := readySpaces
	if took := k.took.Load(); took < 2 {
		want = 1 - int(took)
	}
	if len(k.p.ready) >= want {
		return
	}
	a, err := k.p.zygote.fork(nil, nil)
	if err != nil {
		return
	}
	a.mu.Lock()
	err = a.start()
	a.mu.Unlock()
	if err != nil {
		a.Release()
		return
	}
	k.p.ready <- a
	k.refill()
}

func (k *keeper) stop() {
	close(k.quit)
	<-k.done
}
