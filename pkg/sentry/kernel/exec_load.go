package kernel

import (
	"strings"

	"golang.org/x/sys/unix"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/loader"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// execFile is an open program; it implements loader.File for task t.
type execFile struct {
	t  *Task
	fd *vfs.FileDescription
}

// ReadAt implements loader.File.
func (f *execFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.fd.PRead(f.t, mm.BytesSeq(b), off)
	return int(n), err
}

// Mapping implements loader.File.
func (f *execFile) Mapping() (mm.Mappable, mm.MappedFile, error) {
	m, ok := f.fd.Impl().(vfs.Mapper)
	if !ok {
		return nil, nil, unix.ENODEV
	}
	mp, err := m.Mappable(f.t)
	if err != nil {
		return nil, nil, err
	}
	return mp, f.fd, nil
}

// DecRef implements loader.File: for scripts and interpreters of ELF files, which may be written once the program runs.
func (f *execFile) DecRef() {
	f.fd.AllowWrite()
	f.fd.DecRef()
}

// openExec opens a program for execution.
func (t *Task) openExec(start vfs.Path, path string, noFollow bool) (*execFile, error) {
	o := vfs.OpenOptions{Flags: unix.O_RDONLY | unix.O_LARGEFILE, Exec: true}
	if noFollow {
		o.Flags |= unix.O_NOFOLLOW
	}
	fd, err := t.k.vfs.Open(t, start, path, &o)
	if err != nil {
		return nil, err
	}
	return &execFile{t, fd}, nil
}

// openProgram finds the program of a.
func (t *Task) openProgram(a *ExecArgs) (*execFile, error) {
	switch {
	case a.File != nil:
		// The descriptor may be open in another way: open the place again, with execve's checks.
		fd, err := t.k.vfs.OpenPath(t, a.File.Path(), &vfs.OpenOptions{Flags: unix.O_RDONLY | unix.O_LARGEFILE, Exec: true})
		if err != nil {
			return nil, err
		}
		return &execFile{t, fd}, nil
	case a.Create && !strings.Contains(a.Path, "/"):
		return t.searchPath(a)
	}
	return t.openExec(a.Start, a.Path, a.NoFollow)
}

// searchPath looks for the program in the PATH of its environment, as execvp(3) does, and stores what it finds in a.
func (t *Task) searchPath(a *ExecArgs) (*execFile, error) {
	if a.Path == "" {
		return nil, unix.ENOENT
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range a.Envv {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
			break
		}
	}
	var firstErr error = unix.ENOENT
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		name := strings.TrimSuffix(dir, "/") + "/" + a.Path
		f, err := t.openExec(vfs.Path{}, name, false)
		if err == nil {
			a.Path, a.Name = name, name
			return f, nil
		}
		if err == unix.EACCES && firstErr == unix.ENOENT {
			firstErr = err
		}
	}
	return nil, firstErr
}

// loadImage loads the program of a into a new address space.
func (t *Task) loadImage(a *ExecArgs) (*image, error) {
	f, err := t.openProgram(a)
	if err != nil {
		return nil, err
	}
	lim := t.newLimits
	if lim == nil {
		lim = t.Limits()
	}
	img := &image{}
	res, err := loader.Load(loader.Request{
		Platform: t.k.platform, Memory: t.k.memFile, Limits: lim,
		Path: a.Name, File: f, NoScript: a.Hidden,
		Open: func(path string) (loader.File, error) {
			f, err := t.openExec(vfs.Path{}, path, false)
			if err != nil {
				return nil, err
			}
			return f, nil
		},
		Credentials: func(f loader.File) (loader.IDs, error) { return t.imageCredentials(img, f.(*execFile)) },
		Argv:        a.Argv, Envv: a.Envv,
		Personality: t.Personality(),
		Random:      Random,
	})
	if err != nil {
		return nil, err
	}
	img.mm, img.entry, img.sp, img.name = res.MM, res.Entry, res.Stack, res.Name
	img.exe = res.Exe.(*execFile).fd
	return img, nil
}

// imageCredentials decides on the credentials of the program f.
func (t *Task) imageCredentials(img *image, f *execFile) (loader.IDs, error) {
	c, secure, err := t.execCredentials(f.fd.Path())
	if err != nil {
		return loader.IDs{}, err
	}
	img.creds, img.secure = c, secure
	img.unreadable = vfs.CheckPermission(t, f.fd.Inode(), vfs.MayRead) != nil
	return idsOf(c, secure), nil
}

// idsOf are the IDs for the auxiliary vector, in the program's user namespace.
func idsOf(c *auth.Credentials, secure bool) loader.IDs {
	ru, _ := c.UserNS.UID(c.RUID)
	eu, _ := c.UserNS.UID(c.EUID)
	rg, _ := c.UserNS.GID(c.RGID)
	eg, _ := c.UserNS.GID(c.EGID)
	return loader.IDs{UID: uint32(ru), EUID: uint32(eu), GID: uint32(rg), EGID: uint32(eg), Secure: secure}
}

// Exe is the program file that the process runs, with a reference; nil if there is none. Any goroutine.
func (tg *ThreadGroup) Exe() *vfs.FileDescription {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	if tg.exe == nil || !tg.exe.TryIncRef() {
		return nil
	}
	return tg.exe
}

// setExe replaces the program file; it takes over the caller's reference.
func (tg *ThreadGroup) setExe(fd *vfs.FileDescription) {
	tg.mu.Lock()
	old := tg.exe
	tg.exe = fd
	tg.mu.Unlock()
	if old != nil {
		old.DecRef()
	}
}

// ReplaceExe is prctl(PR_SET_MM_EXE_FILE); it takes a reference of its own.
func (tg *ThreadGroup) ReplaceExe(fd *vfs.FileDescription) {
	fd.IncRef()
	tg.setExe(fd)
}
