package devpts

import (
	"golang.org/x/sys/unix"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/fsimpl/tty"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/uio"
	"husk/pkg/sentry/vfs"
)

// Commands that x/sys/unix lacks.
const (
	tcgeta  = 0x5405
	tcseta  = 0x5406
	tcsetaw = 0x5407
	tcsetaf = 0x5408
	tcsbrk  = 0x5409
	tcxonc  = 0x540a
	tcsbrkp = 0x5425
	gexcl   = 0x80045440
	gptlck  = 0x80045439
	gpkt    = 0x80045438
)

// Ioctl implements vfs.Ioctler.
func (s *slave) Ioctl(ctx vfs.Context, _ *vfs.FileDescription, cmd uint32, arg uint64) (uintptr, error) {
	x := s.x
	if x.line.HungUp() {
		return 0, unix.EIO
	}
	switch cmd {
	case unix.TIOCINQ:
		return 0, uio.PutInt32(ctx, arg, int32(x.line.InputLen()))
	case unix.TIOCOUTQ:
		return 0, uio.PutInt32(ctx, arg, 0)
	}
	return x.ioctl(ctx, cmd, arg, true)
}

// changes are the commands that a background process may not use (tty_ioctl of job control).
func changes(cmd uint32) bool {
	switch cmd {
	case unix.TCSETS, unix.TCSETSW, unix.TCSETSF, unix.TCSETS2, unix.TCSETSW2, unix.TCSETSF2, tcseta, tcsetaw, tcsetaf,
		unix.TCFLSH, tcxonc, tcsbrk, tcsbrkp, unix.TIOCSETD:
		return true
	}
	return false
}

// ioctl serves both ends; fromSlave tells which.
func (x *Terminal) ioctl(ctx vfs.Context, cmd uint32, arg uint64, fromSlave bool) (uintptr, error) {
	t, _ := ctx.(*kernel.Task)
	if t != nil && fromSlave && changes(cmd) {
		if err := t.CheckTTYChange(&x.job); err != nil {
			return 0, err
		}
	}
	switch cmd {
	case unix.TCGETS, unix.TCGETS2, tcgeta:
		return 0, x.getTermios(ctx, cmd, arg)
	case unix.TCSETS, unix.TCSETSW, unix.TCSETSF, unix.TCSETS2, unix.TCSETSW2, unix.TCSETSF2, tcseta, tcsetaw, tcsetaf:
		return 0, x.setTermios(ctx, cmd, arg)
	case unix.TIOCGWINSZ:
		if x.host != nil {
			x.host.readSize()
		}
		var b [tty.WinsizeSize]byte
		x.line.Winsize().Encode(b[:])
		return 0, uio.CopyOut(ctx, arg, b[:])
	case unix.TIOCSWINSZ:
		var b [tty.WinsizeSize]byte
		if err := uio.CopyIn(ctx, arg, b[:]); err != nil {
			return 0, err
		}
		var w tty.Winsize
		w.Decode(b[:])
		if x.host != nil {
			x.host.writeSize(w)
		}
		x.setWinsize(w)
		return 0, nil
	case unix.TCFLSH:
		return 0, x.line.Flush(int(int32(arg)))
	case tcxonc:
		err := x.line.Flow(int(int32(arg)))
		x.flush()
		return 0, err
	case tcsbrk, tcsbrkp:
		return 0, nil
	case unix.TIOCGETD:
		return 0, uio.PutInt32(ctx, arg, 0)
	case unix.TIOCSETD:
		if v, err := uio.GetInt32(ctx, arg); err != nil || v == 0 {
			return 0, err
		}
		return 0, unix.EINVAL
	case unix.TIOCEXCL, unix.TIOCNXCL:
		x.mu.Lock()
		x.exclusive = cmd == unix.TIOCEXCL
		x.mu.Unlock()
		return 0, nil
	case gexcl:
		x.mu.Lock()
		v := int32(0)
		if x.exclusive {
			v = 1
		}
		x.mu.Unlock()
		return 0, uio.PutInt32(ctx, arg, v)
	case unix.TIOCSTI:
		if t == nil || !t.HasRootCap(unix.CAP_SYS_ADMIN) {
			return 0, unix.EIO // as with /proc/sys/dev/tty/legacy_tiocsti at 0
		}
		var b [1]byte
		if err := uio.CopyIn(ctx, arg, b[:]); err != nil {
			return 0, err
		}
		x.line.Input(b[:], x)
		return 0, nil
	case unix.TIOCGDEV:
		return 0, uio.PutInt32(ctx, arg, int32(encodeDev(x.job.Device)))
	case unix.TIOCVHANGUP:
		if t == nil || !t.HasCap(unix.CAP_SYS_ADMIN) {
			return 0, unix.EPERM
		}
		x.hangUp()
		return 0, nil
	}
	if t == nil {
		return 0, linux.ENOIOCTLCMD
	}
	return x.jobIoctl(t, cmd, arg, fromSlave)
}

// encodeDev is the 32-bit form of a device number.
func encodeDev(dev uint64) uint32 {
	major, minor := unix.Major(dev), unix.Minor(dev)
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// jobIoctl serves sessions and process groups.
func (x *Terminal) jobIoctl(t *kernel.Task, cmd uint32, arg uint64, fromSlave bool) (uintptr, error) {
	switch cmd {
	case unix.TIOCSCTTY:
		if !fromSlave {
			return 0, unix.EINVAL
		}
		return 0, t.SetControllingTTY(&x.job, int32(arg) == 1)
	case unix.TIOCNOTTY:
		if !fromSlave {
			return 0, unix.ENOTTY
		}
		return 0, t.ReleaseControllingTTY(&x.job)
	case unix.TIOCGPGRP:
		id := int32(0)
		if fromSlave {
			v, err := t.ForegroundID(&x.job)
			if err != nil {
				return 0, err
			}
			id = v
		} else if fg := x.job.Foreground(); fg != nil {
			id = fg.ID(t.PIDNS())
		}
		return 0, uio.PutInt32(t, arg, id)
	case unix.TIOCSPGRP:
		id, err := uio.GetInt32(t, arg)
		if err != nil {
			return 0, err
		}
		return 0, t.SetForeground(&x.job, id)
	case unix.TIOCGSID:
		s := x.job.Session()
		if s == nil || fromSlave && t.ControllingTTY() != &x.job {
			return 0, unix.ENOTTY
		}
		return 0, uio.PutInt32(t, arg, s.ID(t.PIDNS()))
	}
	return 0, linux.ENOIOCTLCMD
}

func (x *Terminal) getTermios(ctx vfs.Context, cmd uint32, arg uint64) error {
	set := x.line.Termios()
	var b [tty.Termios2Size]byte
	switch cmd {
	case unix.TCGETS:
		set.Encode(b[:tty.TermiosSize])
		return uio.CopyOut(ctx, arg, b[:tty.TermiosSize])
	case unix.TCGETS2:
		set.Encode(b[:])
		return uio.CopyOut(ctx, arg, b[:])
	}
	set.EncodeTermio(b[:])
	return uio.CopyOut(ctx, arg, b[:tty.TermioSize])
}

func (x *Terminal) setTermios(ctx vfs.Context, cmd uint32, arg uint64) error {
	set := x.line.Termios()
	var b [tty.Termios2Size]byte
	switch cmd {
	case tcseta, tcsetaw, tcsetaf:
		if err := uio.CopyIn(ctx, arg, b[:tty.TermioSize]); err != nil {
			return err
		}
		set.DecodeTermio(b[:])
	default:
		size := tty.TermiosSize
		if cmd == unix.TCSETS2 || cmd == unix.TCSETSW2 || cmd == unix.TCSETSF2 {
			size = tty.Termios2Size
		}
		if err := uio.CopyIn(ctx, arg, b[:size]); err != nil {
			return err
		}
		set.Decode(b[:])
	}
	flush := cmd == unix.TCSETSF || cmd == unix.TCSETSF2 || cmd == tcsetaf
	x.line.SetTermios(set, flush)
	x.flush()
	return nil
}
