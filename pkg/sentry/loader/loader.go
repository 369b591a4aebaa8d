package loader

import (
	"path"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/mm"
)

// File is an open executable: a regular file that the caller may execute.
type File interface {
	// ReadAt is pread(2): it may return fewer bytes; 0 and nil is the end of the file.
	ReadAt(b []byte, off int64) (int, error)
	// Mapping is what mmap(2) of the file maps. ENODEV, EACCES where the file cannot be mapped (executable).
	Mapping() (mm.Mappable, mm.MappedFile, error)
	// DecRef drops the reference that Load got; mappings have their own.
	DecRef()
}

// Personality bits of personality(2) that matter here.
const (
	AddrNoRandomize  = 0x0040000
	AddrCompatLayout = 0x0200000
	ReadImpliesExec  = 0x0400000
)

// IDs are what the auxiliary vector says of the credentials.
type IDs struct {
	UID, EUID, GID, EGID uint32
	Secure               bool // AT_SECURE: the program gained privileges
}

// Request says what to load.
type Request struct {
	Platform platform.Platform
	Memory   *memfile.File
	Limits   *limits.Set

	// Path is the name of the program as execve(2) got it (or /dev/fd/N for execveat(2) with AT_EMPTY_PATH).
	Path string
	// File is the open program. Load owns the reference.
	File File
	// NoScript is set if a script's interpreter could not open Path (a close-on-exec descriptor): ENOENT.
	NoScript bool
	// Open opens an interpreter (of a script, or the dynamic linker) by its path in the way execve(2) opens programs,
	// and checks the right to execute it. Errors: ENOENT, EACCES, ENOEXEC and so on.
	Open func(path string) (File, error)
	// Credentials decides on the credentials of the new program, given the file that will be the
	// process' executable. It is called once, before anything is mapped.
	Credentials func(f File) (IDs, error)

	Argv, Envv []string
	// Personality has the bits of personality(2).
	Personality uint32
	// Random is the source of the layout and of AT_RANDOM.
	Random func(b []byte)
}

// Image is a loaded program.
type Image struct {
	MM *mm.MemoryManager // with one user, the caller's
	// Entry and Stack are the initial instruction and stack pointers.
	Entry, Stack uint64
	// Exe is the executable for /proc/PID/exe, with a reference that is the caller's: the interpreter of a script.
	Exe File
	// Name is the new comm name, not cut.
	Name string
}

// maxScripts is how many scripts may be interpreters of each other before ELOOP.
const maxScripts = 5

// headSize is how much is read of a file at first: the headers of most programs.
const headSize = 4096

// Load makes an address space for the program. Errors: ENOEXEC, ELIBBAD, ENOENT, EACCES, ELOOP, E2BIG, ENOMEM, EINVAL and
// what files give.
func Load(r Request) (*Image, error) {
	f := r.File
	defer func() {
		if f != nil {
			f.DecRef()
		}
	}()
	argv := r.Argv
	if len(argv) == 0 {
		argv = []string{""} // programs rely on argv[0], so that Linux gives one since 5.18
	}
	name := r.Path
	for depth := 0; ; depth++ {
		head, err := readHead(f)
		if err != nil {
			return nil, err
		}
		interp, arg, ok, err := parseScript(head)
		if err != nil {
			return nil, err
		}
		if !ok {
			img, err := r.loadELF(f, head, argv)
			if err == nil {
				img.Name = path.Base(r.Path)
				f = nil
			}
			return img, err
		}
		if r.NoScript {
			return nil, unix.ENOENT
		}
		if depth == maxScripts {
			return nil, unix.ELOOP
		}
		list := []string{interp}
		if arg != "" {
			list = append(list, arg)
		}
		argv = append(append(list, name), argv[1:]...)
		name = interp
		next, err := r.Open(interp)
		if err != nil {
			return nil, err
		}
		f.DecRef()
		f = next
	}
}

// readHead reads the first bytes of f.
func readHead(f File) ([]byte, error) {
	b := make([]byte, headSize)
	n, err := readFull(f, b, 0)
	return b[:n], err
}

// readFull reads until b is full or the file ends.
func readFull(f File, b []byte, off int64) (n int, err error) {
	for n < len(b) {
		k, err := f.ReadAt(b[n:], off+int64(n))
		if err != nil {
			return n, err
		}
		if k <= 0 {
			break
		}
		n += k
	}
	return n, nil
}

// loadELF builds the address space of the ELF program f.
func (r *Request) loadELF(f File, head []byte, argv []string) (*Image, error) {
	prog, err := parse(f, head)
	if err != nil {
		return nil, err
	}
	var interp *elfFile
	if prog.interp != "" {
		g, err := r.Open(prog.interp)
		if err != nil {
			return nil, err
		}
		defer g.DecRef()
		if head, err = readHead(g); err != nil {
			return nil, err
		}
		if interp, err = parse(g, head); err != nil {
			if err == unix.ENOEXEC {
				err = unix.ELIBBAD
			}
			return nil, err
		}
	}
	ids, err := r.Credentials(f)
	if err != nil {
		return nil, err
	}
	m := mm.New(r.Platform, r.Memory, r.Limits)
	img := &Image{MM: m, Exe: f}
	if err := r.build(img, prog, interp, ids, argv); err != nil {
		m.DecUsers()
		return nil, err
	}
	return img, nil
}

// build maps the program and its interpreter and makes the stack.
func (r *Request) build(img *Image, prog, interp *elfFile, ids IDs, argv []string) error {
	m := img.MM
	lay := r.chooseLayout(m)
	m.SetLayout(lay.Layout)
	var base uint64
	if prog.dynamic {
		at := lay.pieBase &^ (prog.align - 1)
		if interp == nil {
			var err error
			if at, err = m.FindFree(prog.end-prog.first(), prog.align); err != nil {
				return err
			}
		}
		base = at - prog.first()
	}
	info := mm.ProcInfo{}
	if err := prog.mapSegments(m, base, &info); err != nil {
		return err
	}
	end := base + prog.end
	if prog.dynamic && interp == nil {
		end = lay.pieBase // a loader that is run directly must not have the heap grow into other mappings
	}
	if r.Personality&AddrNoRandomize == 0 {
		end, _ = arch.PageUp(end)
		end += r.rand(32<<20) &^ arch.PageMask
	}
	m.SetBrk(end)
	img.Entry = base + prog.entry
	auxEntry := img.Entry
	var interpBase uint64
	if interp != nil {
		if interp.dynamic {
			at, err := m.FindFree(interp.end-interp.first(), interp.align)
			if err != nil {
				return err
			}
			interpBase = at - interp.first()
		}
		if err := interp.mapSegments(m, interpBase, nil); err != nil {
			return err
		}
		img.Entry = interpBase + interp.entry
	}
	s := stack{req: r, top: lay.StackTop, argv: argv, envv: r.Envv, exec: prog.execStack || r.Personality&ReadImpliesExec != 0}
	s.aux = r.auxv(prog, base, interpBase, auxEntry, ids)
	sp, err := s.build(m, &info)
	if err != nil {
		return err
	}
	img.Stack = sp
	m.SetProcInfo(info)
	return nil
}

// rand is a random number below n, a power of two.
func (r *Request) rand(n uint64) uint64 {
	var b [8]byte
	r.Random(b[:])
	return (uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40) & (n - 1)
}

// addresses is where things go.
type addresses struct {
	mm.Layout
	pieBase uint64
}

// chooseLayout picks the addresses in the way Linux does on x86-64: the stack below the end of user space, up to 16 GiB
// lower; mappings below the room that the stack may take, up to 1 TiB lower; programs that are position independent from two
// thirds of user space on, up to 1 TiB higher.
func (r *Request) chooseLayout(m *mm.MemoryManager) addresses {
	const maxStackRandom = 16 << 30
	_, top := r.Platform.UserRange()
	if base, size, _ := r.Platform.VDSO(); size != 0 && base < top && top-base < 2*maxStackRandom {
		top = base - 16*arch.PageSize
	}
	var stackRnd, mmapRnd, pieRnd uint64
	if r.Personality&AddrNoRandomize == 0 {
		stackRnd, mmapRnd, pieRnd = r.rand(maxStackRandom), r.rand(1<<40), r.rand(1<<40)
	}
	gap := r.Limits.Get(unix.RLIMIT_STACK).Cur
	l := addresses{pieBase: arch.PageDown(top/3*2 + pieRnd)}
	l.StackTop = arch.PageDown(top - stackRnd)
	if gap == limits.Infinity || r.Personality&AddrCompatLayout != 0 {
		l.BottomUp = true
		l.MmapBase = arch.PageDown(top/3 + mmapRnd)
		return l
	}
	gap = min(max(gap, 128<<20), top/6*5)
	l.MmapBase = arch.PageDown(top - maxStackRandom - min(gap, top/2) - mmapRnd)
	return l
}
