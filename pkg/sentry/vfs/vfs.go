package vfs

import (
	"hash/maphash"
	"sort"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// VFS is everything that file systems of one kernel share.
type VFS struct {
	cache       dentryCache
	seed        maphash.Seed // immutable: of the names' hash
	nextAnonDev atomic.Uint32
	nextMountID atomic.Int64
	nextGroupID atomic.Int64
	moveCookie  atomic.Uint32 // joins the two events of a rename
	sysctl      Sysctls

	// mountMu serialises all changes of mount trees. mountSeq is odd while one is under way.
	mountMu     sync.Mutex
	mountSeq    atomic.Uint64
	mountpoints map[*Dentry][]*Mount     // protected by mountMu: what is mounted at a dentry, in all namespaces
	allFS       func(f func(*FSContext)) // set at start
	// renameSeq counts moves of directories: a walk with ".." under RESOLVE_BENEATH checks it.
	renameSeq atomic.Uint64

	mu         sync.RWMutex
	types      []FileSystemType     // protected by mu
	devices    map[deviceKey]Device // protected by mu
	fifo       FIFOOpener           // set at start
	anon       *Superblock          // immutable: what anonymous inodes belong to
	anonMnt    *Mount               // immutable
	anonShared *anonInode           // immutable: the inode of eventfds and the like
	anonIno    atomic.Uint64

	locks   lockTable
	entries sync.Pool // of *waiter.Entry
	buffers sync.Pool // of *[copyChunk]byte
	paths   sync.Pool // of *PathBuffer
	walkers sync.Pool // of *walker
	files   sync.Pool // of *FileDescription
}

// Sysctls are the settings of /proc/sys/fs.
type Sysctls struct {
	ProtectedSymlinks  atomic.Int32 // default 1, as Debian has it
	ProtectedHardlinks atomic.Int32 // default 1
	ProtectedFIFOs     atomic.Int32 // default 1
	ProtectedRegular   atomic.Int32 // default 2
	NrOpen             atomic.Int32 // most descriptors of a process
	PipeMaxSize        atomic.Int32
}

// New makes a VFS that caches about maxDentries unused names (0: the default, 64 Ki).
func New(maxDentries int) *VFS {
	v := &VFS{seed: maphash.MakeSeed(), devices: map[deviceKey]Device{}, mountpoints: map[*Dentry][]*Mount{}}
	if maxDentries <= 0 {
		maxDentries = 64 << 10
	}
	v.cache.max.Store(int64(maxDentries))
	v.nextAnonDev.Store(20)
	v.sysctl.ProtectedSymlinks.Store(1)
	v.sysctl.ProtectedHardlinks.Store(1)
	v.sysctl.ProtectedFIFOs.Store(1)
	v.sysctl.ProtectedRegular.Store(2)
	v.sysctl.NrOpen.Store(1 << 20)
	v.sysctl.PipeMaxSize.Store(1 << 20)
	v.initAnon()
	return v
}

// Sysctl gives the settings.
func (v *VFS) Sysctl() *Sysctls { return &v.sysctl }

// newAnonDev gives a device number of major 0.
func (v *VFS) newAnonDev() uint64 { return unix.Mkdev(0, v.nextAnonDev.Add(1)) }

// RegisterFileSystem makes a type known to mount(2).
func (v *VFS) RegisterFileSystem(t FileSystemType) {
	v.mu.Lock()
	v.types = append(v.types, t)
	v.mu.Unlock()
}

// FileSystemType finds a type by name; nil if unknown.
func (v *VFS) FileSystemType(name string) FileSystemType {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, t := range v.types {
		if t.Name() == name {
			return t
		}
	}
	return nil
}

// FileSystemTypes lists the types, sorted by name.
func (v *VFS) FileSystemTypes() []FileSystemType {
	v.mu.RLock()
	l := append([]FileSystemType(nil), v.types...)
	v.mu.RUnlock()
	sort.Slice(l, func(i, j int) bool { return l[i].Name() < l[j].Name() })
	return l
}

// Device opens a device special file.
type Device interface {
	// Open is called with the inode of the device node.
	Open(ctx Context, node *Inode, flags uint32) (FileImpl, error)
}

type deviceKey struct {
	block        bool
	major, minor uint32
}

// RegisterDevice serves a device number; minor ^uint32(0) stands for all minors of the major that have no
// device of their own. EBUSY if it is taken.
func (v *VFS) RegisterDevice(block bool, major, minor uint32, d Device) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := deviceKey{block, major, minor}
	if v.devices[k] != nil {
		return unix.EBUSY
	}
	v.devices[k] = d
	return nil
}

// openDevice opens the device of rdev; ENXIO if there is none.
func (v *VFS) openDevice(ctx Context, node *Inode, block bool, rdev uint64, flags uint32) (FileImpl, error) {
	v.mu.RLock()
	d := v.devices[deviceKey{block, unix.Major(rdev), unix.Minor(rdev)}]
	if d == nil {
		d = v.devices[deviceKey{block, unix.Major(rdev), ^uint32(0)}]
	}
	v.mu.RUnlock()
	if d == nil {
		return nil, unix.ENXIO
	}
	return d.Open(ctx, node, flags)
}

// FIFOOpener opens a FIFO (fifo(7)): pipefs implements it, and keeps its state in Inode.Slot. It blocks by ctx.Block.
type FIFOOpener interface {
	OpenFIFO(ctx Context, node *Inode, flags uint32) (FileImpl, error)
}

// SetFIFOOpener is called once at start.
func (v *VFS) SetFIFOOpener(f FIFOOpener) { v.fifo = f }

// PathBuffer is where a system call copies a path, so that it need not allocate.
type PathBuffer struct {
	B []byte
	// Stat is room for the attributes that the call asks for.
	Stat Stat
}

// PathBuffer takes a buffer from a pool; PutPathBuffer gives it back. Nothing in vfs or file systems keeps a path.
func (v *VFS) PathBuffer() *PathBuffer {
	if b, ok := v.paths.Get().(*PathBuffer); ok {
		return b
	}
	return &PathBuffer{B: make([]byte, 0, 256)}
}

// PutPathBuffer gives b back.
func (v *VFS) PutPathBuffer(b *PathBuffer) { v.paths.Put(b) }

// ShrinkCache makes about n names that nobody uses leave the cache.
func (v *VFS) ShrinkCache(n int) { v.cache.shrink(n) }

// SetCacheSize changes about how many unused names are cached.
func (v *VFS) SetCacheSize(n int) { v.cache.max.Store(int64(n)) }
