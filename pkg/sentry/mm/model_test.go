package mm

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
	"husk/pkg/sentry/limits"
)

// modelMap is a mapped page of a process: where its data is, and how it is mapped.
type modelMap struct {
	data   *uint64
	perms  platform.Perms
	shared bool
	cow    bool // data is the file's until the first write
	anon   bool
}

type process struct {
	m     *MemoryManager
	pages map[uint64]modelMap
}

const (
	arena      = uint64(0x10000000)
	arenaPages = 96
)

type world struct {
	t     *testing.T
	r     *rand.Rand
	file  *hostFile
	words []*uint64 // of file
	// shared is whether the file is mapped shared, otherwise private.
	shared bool
	// spare is whether all memory is kept that is given up.
	spare  bool
	spares int // how many there were
	procs  []*process
}

func (w *world) addr() uint64 { return arena + w.r.Uint64N(arenaPages)<<12 }

func (w *world) perms() platform.Perms {
	return []platform.Perms{platform.None, platform.Read, platform.ReadWrite, platform.ReadWrite, platform.Write}[w.r.IntN(5)]
}

func (w *world) mmap(p *process) {
	a, n := w.addr(), 1+w.r.Uint64N(24)
	o := MMapOpts{Addr: a, Length: n << 12, Perms: w.perms(), Fixed: true, Shared: w.r.IntN(3) == 0}
	if w.r.IntN(2) == 0 {
		n = min(n, uint64(len(w.words)))
		o.Length = n << 12
		o.Mappable, o.File = w.file, w.file
		o.Shared = w.shared // both at once would show when the neighbours of a written page are copied
		o.Prefault, o.Image = w.r.IntN(2) == 0, w.r.IntN(2) == 0
		o.Offset = w.r.Uint64N(uint64(len(w.words))-n+1) << 12
	}
	mustMap(w.t, p.m, o)
	for i := range n {
		pg := modelMap{perms: o.Perms, shared: o.Shared, anon: o.Mappable == nil}
		if o.Mappable == nil {
			pg.data = new(uint64)
		} else {
			pg.data, pg.cow = w.words[o.Offset>>12+i], !o.Shared
		}
		p.pages[a+i<<12] = pg
	}
}

func (w *world) access(p *process) { w.accessAt(p, w.addr(), w.r.IntN(6)) }

func (w *world) accessAt(p *process, a uint64, mode int) {
	pg, ok := p.pages[a]
	at := a + 64
	c := cpu{w.t, p.m}
	var got uint64
	var err error
	v := w.r.Uint64()
	var b [8]byte
	switch mode {
	case 0:
		got, err = c.load(at)
	case 1:
		got, err = p.m.ReadUint64(at)
	case 2:
		err = c.store(at, v)
	case 3:
		err = p.m.WriteUint64(at, v)
	case 4, 5: // as the other side of a pipe does, which may leave it to the process
		binary.LittleEndian.PutUint64(b[:], v)
		from, to := BytesSeq(b[:]), p.m.Seq(at, 8)
		if mode == 5 {
			from, to = to, from
		}
		if !CopyResident(to, from, 8) {
			return
		}
		if mode -= 2; mode == 3 {
			mode, got = 1, binary.LittleEndian.Uint64(b[:])
		}
	}
	want := ok && pg.perms != platform.None
	if mode >= 2 {
		want = ok && pg.perms&platform.Write != 0
	}
	if (err == nil) != want {
		w.t.Fatalf("access %d at %#x of %+v (mapped %v): %v", mode, a, pg, ok, err)
	}
	if err != nil {
		return
	}
	if mode < 2 {
		if got != *pg.data {
			w.t.Fatalf("word at %#x is %#x, want %#x (mode %d, %+v)", at, got, *pg.data, mode, pg)
		}
		return
	}
	if pg.cow {
		pg.data, pg.cow = new(uint64), false
		p.pages[a] = pg
	}
	*pg.data = v
}

func (w *world) fork(p *process) {
	if len(w.procs) >= 5 {
		return
	}
	m, err := p.m.Fork(limits.New())
	if err != nil {
		w.t.Fatal(err)
	}
	c := &process{m, map[uint64]modelMap{}}
	for a, pg := range p.pages {
		if !pg.shared && !pg.cow {
			v := *pg.data
			pg.data = &v
		}
		c.pages[a] = pg
	}
	w.procs = append(w.procs, c)
}

func (w *world) mremap(p *process) {
	a, n, to, k := w.addr(), 1+w.r.Uint64N(8), w.addr(), 1+w.r.Uint64N(8)
	_, ok := p.pages[a]
	if a < to+k<<12 && to < a+n<<12 {
		return
	}
	_, err := p.m.Mremap(a, n<<12, k<<12, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, to)
	if !ok && err == nil {
		w.t.Fatal("moved nothing")
	}
	if err != nil {
		// The target and the tail may be gone already, as on Linux; only the checks at the start leave all as it was.
		if err != unix.EFAULT && err != unix.EINVAL {
			w.t.Fatalf("mremap: %v", err)
		}
		return
	}
	moved := make([]modelMap, 0, n)
	for i := range n {
		if i < k {
			moved = append(moved, p.pages[a+i<<12])
		}
		delete(p.pages, a+i<<12)
	}
	for i := range k {
		if i < uint64(len(moved)) {
			p.pages[to+i<<12] = moved[i]
		} else {
			delete(p.pages, to+i<<12)
		}
	}
	if k > n { // what grew is not modelled
		if err := p.m.Munmap(to+n<<12, (k-n)<<12); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) step() {
	p := w.procs[w.r.IntN(len(w.procs))]
	if w.spare {
		p.m.spares.credit = maxCredit
		if w.r.IntN(50) == 0 {
			p.m.expireSpares()
		}
	}
	a, n := w.addr(), 1+w.r.Uint64N(24)
	switch w.r.IntN(12) {
	case 0:
		w.mmap(p)
	case 1:
		if w.r.IntN(3) != 0 {
			return
		}
		for i := range n { // what was not written is not kept
			if pg := p.pages[a+i<<12]; w.spare && pg.anon && !pg.shared && pg.perms&platform.Write != 0 {
				w.accessAt(p, a+i<<12, 2)
			}
		}
		if err := p.m.Munmap(a, n<<12); err != nil {
			w.t.Fatal(err)
		}
		for i := range n {
			delete(p.pages, a+i<<12)
		}
		w.spares += len(p.m.spares.list)
	case 2:
		perms := w.perms()
		err := p.m.Mprotect(a, n<<12, perms, 0)
		for i := range n {
			pg, ok := p.pages[a+i<<12]
			if !ok {
				if err != unix.ENOMEM {
					w.t.Fatalf("mprotect of a hole: %v", err)
				}
				break
			}
			pg.perms = perms
			p.pages[a+i<<12] = pg
		}
	case 3:
		if w.r.IntN(4) == 0 {
			w.fork(p)
		} else if len(w.procs) > 1 && w.r.IntN(4) == 0 {
			i := w.r.IntN(len(w.procs))
			w.procs[i].m.DecUsers()
			w.procs = append(w.procs[:i], w.procs[i+1:]...)
		}
	case 4:
		w.mremap(p)
	case 5:
		p.m.Madvise(a, n<<12, unix.MADV_DONTNEED)
		for i := range n {
			pg, ok := p.pages[a+i<<12]
			if ok && !pg.shared && pg.anon {
				pg.data = new(uint64)
				p.pages[a+i<<12] = pg
			} else if ok && !pg.shared && !pg.cow {
				delete(p.pages, a+i<<12) // back to the file's contents: not modelled
				p.m.Munmap(a+i<<12, 4096)
			}
		}
	default:
		w.access(p)
	}
}

// TestModel compares random operations of several processes with a model of words.
func TestModel(t *testing.T) {
	for seed := range uint64(30) {
		m := newMM(t, seed%2 == 0)
		w := &world{t: t, r: rand.New(rand.NewPCG(seed, 7)), file: newHostFile(t, 40<<12), spare: seed/2%2 == 1}
		w.shared = seed%3 == 0
		for i := range 40 {
			v := w.r.Uint64()
			w.words = append(w.words, &v)
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], v)
			unix.Pwrite(w.file.fd, b[:], int64(i<<12+64))
		}
		w.procs = []*process{{m, map[uint64]modelMap{}}}
		steps := 2000
		if testing.Short() {
			steps = 800
		}
		for i := range steps {
			w.step()
			if i%20 == 0 {
				for _, p := range w.procs {
					checkInvariants(t, p.m)
				}
			}
			if t.Failed() {
				t.Fatalf("seed %d step %d", seed, i)
			}
		}
		if w.spare && seed%2 == 0 && w.spares < steps/200 {
			t.Errorf("seed %d: %d spares", seed, w.spares)
		}
		f := m.file
		for _, p := range w.procs {
			p.m.DecUsers()
		}
		if n := f.Allocated(); n != 0 {
			t.Fatalf("seed %d: %d bytes leaked", seed, n)
		}
		if w.file.refs != 0 || w.file.set.Mapped() {
			t.Fatalf("seed %d: %d references to the file leaked", seed, w.file.refs)
		}
	}
}
