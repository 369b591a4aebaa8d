package tmpfs

import (
	"husk/pkg/sentry/memfile"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// Shm is the internal instance for files without names: memfd_create(2), shared memory.
type Shm struct {
	fs  *fileSystem
	mnt *vfs.Mount
	v   *vfs.VFS
}

// NewShm makes the instance; there is no limit on its size.
func NewShm(v *vfs.VFS, mf *memfile.File) *Shm {
	f := newFS(v, nil, mf, nil)
	root := f.newInode(&vfs.CreateArgs{Mode: unix.S_IFDIR | 0700})
	root.nlink = 2
	f.sb.SetRoot(&root.Inode)
	return &Shm{f, v.NewInternalMount(f.sb), v}
}

// NewFile makes an empty file, shown as name + " (deleted)" ("/memfd:x"), opened for reading and writing. mode is its permissions. The
// seals are those it has at first: F_SEAL_SEAL forbids more.
func (s *Shm) NewFile(ctx vfs.Context, name string, mode, seals, flags uint32) (*vfs.FileDescription, error) {
	c := ctx.Credentials()
	i := s.fs.newInode(&vfs.CreateArgs{Mode: unix.S_IFREG | mode, UID: c.FSUID, GID: c.FSGID})
	i.reg.seals = seals
	p := s.v.NewInodePath(s.mnt, &i.Inode, name+" (deleted)")
	fd := s.v.NewFile(p, (*regFile)(i), unix.O_RDWR|flags)
	p.DecRef()
	return fd, nil
}

// AddSeals implements vfs.Sealer.
func (f *regFile) AddSeals(seals uint32) error {
	const all = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_FUTURE_WRITE | sealExec
	if seals&^all != 0 {
		return unix.EINVAL
	}
	r := f.reg
	r.rw.Lock()
	defer r.rw.Unlock()
	mapped := r.mappings.MappedWritable()
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.seals&unix.F_SEAL_SEAL != 0 {
		return unix.EPERM
	}
	if seals&unix.F_SEAL_WRITE != 0 && r.seals&unix.F_SEAL_WRITE == 0 && mapped {
		return unix.EBUSY
	}
	if seals&sealExec != 0 && f.Inode.Mode()&0111 != 0 {
		seals |= unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_FUTURE_WRITE
	}
	r.seals |= seals
	return nil
}

// sealExec is F_SEAL_EXEC.
const sealExec = 0x20

// Seals implements vfs.Sealer.
func (f *regFile) Seals() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reg.seals
}
