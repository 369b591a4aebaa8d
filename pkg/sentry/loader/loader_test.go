package loader

import (
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/mm"
)

// noPlatform has addresses, and nothing to run.
type noPlatform struct{}

func (noPlatform) NewAddressSpace() (platform.AddressSpace, error) { return nil, unix.ENOSYS }
func (noPlatform) NewContext() platform.Context                    { return nil }
func (noPlatform) FPStateSize() int                                { return 512 }
func (noPlatform) UserRange() (uint64, uint64)                     { return 4096, 1<<47 - 4096 }
func (noPlatform) VDSO() (base, size, ehdr uint64) {
	return 0x7fffff000000, 0x6000, 0x7fffff004000
}
func (noPlatform) Release() {}

// osFile is a file of the host.
type osFile struct {
	f    *os.File
	set  mm.MappingSet
	refs int
}

func (f *osFile) ReadAt(b []byte, off int64) (int, error) { return unix.Pread(int(f.f.Fd()), b, off) }
func (f *osFile) Mapping() (mm.Mappable, mm.MappedFile, error) {
	return f, f, nil
}
func (f *osFile) IncRef()                       { f.refs++ }
func (f *osFile) DecRef()                       { f.refs-- }
func (f *osFile) MappedName() string            { return f.f.Name() }
func (f *osFile) MappedInfo() (dev, ino uint64) { return 1, 2 }
func (f *osFile) MappingSet() *mm.MappingSet    { return &f.set }
func (f *osFile) Translate(start, end, at uint64, write bool) (mm.Translation, error) {
	st, err := f.f.Stat()
	if err != nil || at >= uint64(st.Size()) {
		return mm.Translation{}, mm.ErrBus
	}
	return mm.Translation{Start: start, End: end, HostFD: int(f.f.Fd()), Offset: start, Perms: platform.Read | platform.Exec}, nil
}

func openFile(name string) (File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err.(*os.PathError).Err
	}
	return &osFile{f: f, refs: 1}, nil
}

func request(t testing.TB, name string, argv ...string) Request {
	mem, err := memfile.New(memfile.Options{Size: 1 << 32})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mem.Close)
	f, err := openFile(name)
	if err != nil {
		t.Fatal(err)
	}
	seed := byte(0)
	return Request{Platform: noPlatform{}, Memory: mem, Limits: limits.New(), Path: name, File: f, Open: openFile, Argv: argv,
		Credentials: func(File) (IDs, error) { return IDs{UID: 1, EUID: 2, GID: 3, EGID: 4}, nil },
		Random: func(b []byte) {
			for i := range b {
				seed = seed*5 + 7
				b[i] = seed
			}
		}}
}

// initial reads what the program finds on its stack.
func initial(t *testing.T, img *Image) (argv, envv []string, aux map[uint64]uint64) {
	t.Helper()
	at := img.Stack
	word := func() uint64 {
		v, err := img.MM.ReadUint64(at)
		if err != nil {
			t.Fatal(err)
		}
		at += 8
		return v
	}
	if at%16 != 0 {
		t.Fatalf("stack at %#x", at)
	}
	argc := word()
	strs := func() (list []string) {
		for {
			p := word()
			if p == 0 {
				return list
			}
			s, err := img.MM.CopyInString(p, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, s)
		}
	}
	argv = strs()
	if int(argc) != len(argv) {
		t.Fatalf("argc %d, %d arguments", argc, len(argv))
	}
	envv = strs()
	aux = map[uint64]uint64{}
	for {
		k, v := word(), word()
		if k == 0 {
			return argv, envv, aux
		}
		aux[k] = v
	}
}

func TestDynamic(t *testing.T) {
	const name = "/bin/sh"
	e, err := elf.Open(name)
	if err != nil {
		t.Skip(err)
	}
	r := request(t, name, "sh", "-c", "true")
	r.Envv = []string{"A=b", "PATH=/bin"}
	img, err := Load(r)
	if err != nil {
		t.Fatal(err)
	}
	argv, envv, aux := initial(t, img)
	if strings.Join(argv, " ") != "sh -c true" || strings.Join(envv, " ") != "A=b PATH=/bin" {
		t.Fatal(argv, envv)
	}
	if img.Name != "sh" || aux[atUID] != 1 || aux[atEGID] != 4 || aux[atPhent] != 56 || aux[atPhnum] != uint64(len(e.Progs)) || aux[atPagesz] != 4096 {
		t.Fatal(img.Name, aux)
	}
	// The program headers are where AT_PHDR says, and the code at AT_ENTRY.
	var typ uint32
	b := make([]byte, 4)
	if _, err := img.MM.CopyIn(aux[atPhdr], b); err != nil {
		t.Fatal(err)
	}
	if typ = binary.LittleEndian.Uint32(b); elf.ProgType(typ) != e.Progs[0].Type {
		t.Fatalf("AT_PHDR points to a header of type %#x", typ)
	}
	if aux[atBase] == 0 || img.Entry <= aux[atBase] || aux[atEntry] == img.Entry {
		t.Fatal(img.Entry, aux)
	}
	text := make([]byte, 16)
	if _, err := img.MM.CopyIn(aux[atEntry], text); err != nil {
		t.Fatal(err)
	}
	if s, _ := img.MM.CopyInString(aux[atExecfn], 100); s != name {
		t.Fatal(s)
	}
	if s, _ := img.MM.CopyInString(aux[atPlatform], 100); s != "x86_64" {
		t.Fatal(s)
	}
	// .bss is zero right behind .data.
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && p.Memsz > p.Filesz {
			bss := make([]byte, p.Memsz-p.Filesz)
			if _, err := img.MM.CopyIn(aux[atPhdr]-e.Progs[0].Vaddr+p.Vaddr+p.Filesz, bss); err != nil {
				t.Fatal(err)
			}
			for i, c := range bss {
				if c != 0 {
					t.Fatalf("byte %d of bss is %#x", i, c)
				}
			}
		}
	}
	info := img.MM.ProcInfo()
	args := make([]byte, info.ArgEnd-info.ArgStart)
	img.MM.CopyIn(info.ArgStart, args)
	if string(args) != "sh\x00-c\x00true\x00" {
		t.Fatalf("%q", args)
	}
	img.MM.DecUsers()
	if n := r.Memory.Allocated(); n != 0 {
		t.Fatalf("%d bytes leaked", n)
	}
	if n := img.Exe.(*osFile).refs; n != 1 {
		t.Fatalf("%d references to the program, want the caller's", n)
	}
}

func TestStatic(t *testing.T) {
	r := request(t, "/proc/self/exe", "x")
	r.Personality = AddrNoRandomize
	img, err := Load(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _, aux := initial(t, img)
	if aux[atEntry] != img.Entry || aux[atBase] != 0 {
		t.Fatal(img.Entry, aux)
	}
	if start, end := img.MM.Heap(); start == 0 || start != end {
		t.Fatal(start, end)
	}
}

func TestScripts(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
	one := write("one", "#! /bin/sh  -e -x \t\nexit 0\n")
	img, err := Load(request(t, one, "argv0", "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	argv, _, aux := initial(t, img)
	if strings.Join(argv, "|") != "/bin/sh|-e -x|"+one+"|a|b" || img.Name != "one" {
		t.Fatal(argv, img.Name)
	}
	if s, _ := img.MM.CopyInString(aux[atExecfn], 1000); s != one {
		t.Fatal(s)
	}
	prev := one
	for i := 2; i <= 6; i++ {
		prev = write(strings.Repeat("n", i), "#!"+prev)
		_, err := Load(request(t, prev, "x"))
		if want := error(nil); i == 6 {
			if err != unix.ELOOP {
				t.Fatalf("six scripts: %v", err)
			}
		} else if err != want {
			t.Fatalf("%d scripts: %v", i, err)
		}
	}
	for text, want := range map[string]error{
		"":                                      unix.ENOEXEC,
		"#!":                                    unix.ENOEXEC,
		"#!\n":                                  unix.ENOEXEC,
		"#!  \t \n":                             unix.ENOEXEC,
		"echo\n":                                unix.ENOEXEC,
		"#!/no/such":                            unix.ENOENT,
		"#!/" + strings.Repeat("x", 300):        unix.ENOEXEC,
		"\x7fELF":                               unix.ENOEXEC,
		"#!/bin/sh " + strings.Repeat("x", 300): nil,
	} {
		if _, err := Load(request(t, write("bad", text), "x")); err != want {
			t.Errorf("%.20q: %v, want %v", text, err, want)
		}
	}
}

func TestArgumentLimits(t *testing.T) {
	r := request(t, "/bin/sh", strings.Repeat("x", maxArgLen))
	if _, err := Load(r); err != unix.E2BIG {
		t.Fatal(err)
	}
	var many []string
	for range 20 {
		many = append(many, strings.Repeat("x", maxArgLen-1))
	}
	if _, err := Load(request(t, "/bin/sh", many...)); err != unix.E2BIG {
		t.Fatal(err)
	}
	if _, err := Load(request(t, "/bin/sh", many[:15]...)); err != nil {
		t.Fatal(err)
	}
}

// bytesFile is a file in the sentry, mapped from the memory file.
type bytesFile struct {
	data []byte
	mem  *mm.Shared
}

func (f *bytesFile) ReadAt(b []byte, off int64) (int, error) {
	if off >= int64(len(f.data)) {
		return 0, nil
	}
	return copy(b, f.data[off:]), nil
}
func (f *bytesFile) Mapping() (mm.Mappable, mm.MappedFile, error) { return f.mem, nil, nil }
func (f *bytesFile) DecRef()                                      {}

func FuzzELF(f *testing.F) {
	for _, name := range []string{"/bin/true", "/bin/sh", "/lib64/ld-linux-x86-64.so.2", "/bin/busybox"} {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b[:min(len(b), 8192)])
		}
	}
	f.Add([]byte("#!/bin/sh\n"))
	f.Add([]byte("#! \t/a b c\x00"))
	mem, err := memfile.New(memfile.Options{Size: 1 << 40})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		prog := &bytesFile{b, mm.NewShared(mem, uint64(len(b)+4095)&^4095)}
		r := Request{Platform: noPlatform{}, Memory: mem, Limits: limits.New(), Path: "/x", File: prog, Argv: []string{"x"},
			Open:        func(string) (File, error) { return prog, nil },
			Credentials: func(File) (IDs, error) { return IDs{}, nil }, Random: func(b []byte) {}}
		img, err := Load(r)
		if err == nil {
			img.MM.DecUsers()
		}
		if n := mem.Allocated(); n != 0 {
			t.Fatalf("%d bytes leaked", n)
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	name, err := exec.LookPath("true")
	if err != nil {
		b.Skip(err)
	}
	r := request(b, name, "true")
	for range b.N {
		f, _ := openFile(name)
		r.File = f
		img, err := Load(r)
		if err != nil {
			b.Fatal(err)
		}
		img.MM.DecUsers()
		f.(*osFile).f.Close()
	}
}
