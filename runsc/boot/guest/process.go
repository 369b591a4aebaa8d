package guest

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/fsimpl/devpts"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
	"husk/runsc/boot"
)

// newProcess makes a process of a container, ready to run; first tells whether it is the container's first. The descriptors of spec belong to
// it from now on, also on error.
func (g *Guest) newProcess(c *container, spec *boot.Process, first bool) (*process, error) {
	creds := credentials(g.k.RootUserNamespace(), spec)
	lim, err := rlimits(spec.Rlimits)
	if err != nil {
		closeFDs(spec)
		return nil, err
	}
	ctx, done := g.rootContext(c)
	defer done()
	if err := g.checkCwd(ctx, spec.Cwd, first); err != nil {
		closeFDs(spec)
		return nil, fmt.Errorf("chdir to cwd (%q) set in config.json failed: %w", spec.Cwd, err)
	}
	files, tty, err := g.files(ctx, creds, spec)
	if err != nil {
		return nil, err
	}
	name := spec.Path
	if name == "" && len(spec.Args) > 0 {
		name = spec.Args[0]
	}
	umask := uint32(0o022)
	if spec.Umask >= 0 {
		umask = uint32(spec.Umask)
	}
	a := &kernel.CreateProcessArgs{
		Container: c.ct, Filename: name, Argv: spec.Args, Envv: withHome(ctx, g.v, spec.Env, spec.UID), WorkingDir: spec.Cwd, Credentials: creds, Limits: lim,
		FDs: files, Umask: umask, NoNewPrivs: spec.NoNewPrivs, OOMScoreAdj: spec.OOMScoreAdj, Seccomp: c.seccomp,
	}
	if tty != nil {
		a.TTY = tty.JobControl()
		if spec.Rows != 0 || spec.Cols != 0 {
			tty.Resize(spec.Rows, spec.Cols)
		}
	}
	tg, err := g.k.CreateProcess(a)
	if err != nil {
		if tty != nil {
			tty.Close()
		}
		return nil, execError(name, err)
	}
	p := &process{group: tg, tty: tty}
	if tty != nil {
		p.attend()
	}
	return p, nil
}

// credentials translates those of config.json. A user other than root has no effective capabilities beyond the ambient ones until it executes a
// program, which is what happens next; the sets given are those after it.
func credentials(ns *auth.UserNamespace, p *boot.Process) *auth.Credentials {
	uid, gid := auth.KUID(p.UID), auth.KGID(p.GID)
	c := &auth.Credentials{
		RUID: uid, EUID: uid, SUID: uid, FSUID: uid, RGID: gid, EGID: gid, SGID: gid, FSGID: gid, UserNS: ns,
		Bounding: auth.CapSet(p.Bounding) & auth.AllCaps, Permitted: auth.CapSet(p.Permitted) & auth.AllCaps, Effective: auth.CapSet(p.Effective) & auth.AllCaps,
		Inheritable: auth.CapSet(p.Inheritable) & auth.AllCaps, Ambient: auth.CapSet(p.Ambient) & auth.AllCaps,
	}
	for _, g := range p.Groups {
		c.Groups = append(c.Groups, auth.KGID(g))
	}
	return c
}

func rlimits(list []boot.Rlimit) (*limits.Set, error) {
	s := limits.New()
	for _, r := range list {
		if r.Resource >= limits.Count {
			return nil, fmt.Errorf("rlimit %d: %w", r.Resource, unix.EINVAL)
		}
		if _, err := s.Replace(int(r.Resource), limits.Limit{Cur: r.Soft, Max: r.Hard}, true); err != nil {
			return nil, fmt.Errorf("rlimit %d: soft limit %d is above hard limit %d", r.Resource, r.Soft, r.Hard)
		}
	}
	return s, nil
}

// checkCwd makes the working directory of a container's first process if it is missing, as runc does.
func (g *Guest) checkCwd(ctx vfs.Context, dir string, first bool) error {
	if dir == "" || dir == "/" {
		return nil
	}
	p, err := g.v.Walk(ctx, vfs.Path{}, dir, vfs.FollowLast|vfs.MustBeDir)
	if err == unix.ENOENT && first {
		if err = g.makeDirs(ctx, path.Clean(dir)); err == nil {
			p, err = g.v.Walk(ctx, vfs.Path{}, dir, vfs.FollowLast|vfs.MustBeDir)
		}
	}
	if err == nil {
		p.DecRef()
	}
	return err
}

// files makes the descriptor table of a process from host descriptors, and its terminal.
func (g *Guest) files(ctx vfs.Context, creds *auth.Credentials, spec *boot.Process) (*vfs.FDTable, *devpts.Terminal, error) {
	// The process owns its streams, as runc gives them to its user.
	own := vfs.NewKernelContext(creds, ctx.FS(), ctx.MountNS())
	table := g.v.NewFDTable()
	list := append(append([]int{}, spec.Stdio[:]...), spec.Extra...)
	var tty *devpts.Terminal
	var ttyFile *vfs.FileDescription
	for i, fd := range list {
		if fd < 0 {
			continue
		}
		var file *vfs.FileDescription
		var err error
		switch {
		case spec.Terminal && i < 3 && ttyFile != nil:
			unix.Close(fd)
			file = ttyFile
			file.IncRef()
		case spec.Terminal && i < 3:
			file, tty, err = g.newTerminal(own, fd)
			ttyFile = file
		default:
			file, err = g.newHostFile(own, fd)
		}
		if err != nil {
			for _, rest := range list[i+1:] {
				if rest >= 0 {
					unix.Close(rest)
				}
			}
			table.DecRef(ctx)
			return nil, nil, fmt.Errorf("descriptor %d: %w", i, err)
		}
		err = table.InstallAt(ctx, file, int32(i), false)
		file.DecRef()
		if err != nil {
			table.DecRef(ctx)
			return nil, nil, fmt.Errorf("descriptor %d: %w", i, err)
		}
	}
	return table, tty, nil
}

func closeFDs(spec *boot.Process) {
	for _, fd := range append(spec.Stdio[:], spec.Extra...) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// execError says what is wrong with a program, in the words that container engines look for.
func execError(name string, err error) error {
	switch {
	case err == unix.ENOENT && !strings.Contains(name, "/"):
		return &boot.Error{Code: boot.ErrNotFound, Text: fmt.Sprintf("exec: %q: executable file not found in $PATH", name)}
	case err == unix.ENOENT || err == unix.ENOTDIR:
		return &boot.Error{Code: boot.ErrNotFound, Text: fmt.Sprintf("exec: %q: stat %s: %v", name, name, err)}
	case err == unix.EAGAIN:
		return fmt.Errorf("exec: %q: the container's limit of processes is reached: %w", name, err)
	}
	return &boot.Error{Code: boot.ErrNotExecuted, Text: fmt.Sprintf("exec: %q: %v", name, err)}
}

// writeFile writes text to an existing file of a container.
func writeFile(ctx vfs.Context, v *vfs.VFS, name, text string) error {
	fd, err := v.Open(ctx, vfs.Path{}, name, &vfs.OpenOptions{Flags: unix.O_WRONLY})
	if err != nil {
		return err
	}
	defer fd.DecRef()
	_, err = fd.Write(ctx, mm.BytesSeq([]byte(text)))
	return err
}
