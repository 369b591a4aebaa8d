package boot

import (
	"errors"

	"golang.org/x/sys/unix"

	"husk/pkg/gofer"
	"husk/pkg/log"
)

// GoferCaps is what a file broker needs to act on files for every user of the container:
// capabilities(7). It makes no device nodes (CAP_MKNOD) and no mounts once it serves.
const GoferCaps = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID

// GoferMain is the gofer process.
func GoferMain() int {
	start := Enter()
	setName("runsc-gofer")
	c := NewConn(BootFD)
	f, err := c.Recv()
	if err != nil || f.Kind != KindGoferBoot {
		return 128
	}
	g := new(GoferBoot)
	left, err := Unmarshal(g, f.Data, f.FDs)
	if err != nil || len(left) > 0 {
		return 128
	}
	l := &log.Logger{FD: g.Log, On: g.Log >= 0, Level: log.Debug}
	t := NewTimeline("gofer", g.Epoch)
	t.MarkEntry(start)
	cfg, err := confineGofer(g, t)
	ready := GoferReady{}
	if err != nil {
		ready.Error = err.Error()
	}
	c.SendMessage(KindGoferReady, f.ID, &ready)
	c.Close()
	t.Print(l)
	if err != nil {
		return 128
	}
	if err := gofer.Serve(g.Conn, *cfg); err != nil {
		l.Print(log.Error, "gofer: "+err.Error())
		return 1
	}
	return 0
}

// confineGofer takes over what the process has opened, and takes away everything else.
func confineGofer(g *GoferBoot, t *Timeline) (*gofer.Config, error) {
	unix.Umask(0)
	filter := buildFilter(gofer.Filter())
	if err := checkConfined(GoferCaps); err != nil {
		return nil, err
	}
	cfg := &gofer.Config{ProcFD: ProcFD}
	unix.CloseOnExec(ProcFD)
	for i := range g.Attach {
		a, fd := &g.Attach[i], AttachFD+i
		unix.CloseOnExec(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || a.Root && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil, errors.New("rootfs " + a.Path + " is not a directory")
		}
		at := gofer.AttachPoint{FD: fd}
		if a.ReadOnly {
			at.Flags |= gofer.ReadOnly
		}
		cfg.Attach = append(cfg.Attach, at)
	}
	if err := filter(); err != nil {
		return nil, err
	}
	t.Mark("seccomp filter installed")
	return cfg, nil
}
