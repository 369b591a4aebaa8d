package container

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// openPTY makes a pseudo-terminal of the host.
func openPTY() (master, slave int, err error) {
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	if err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err == nil {
		// By descriptor and not by name: the name depends on where devpts is mounted.
		slave, err = getPeer(master)
	}
	if err != nil {
		unix.Close(master)
		return -1, -1, fmt.Errorf("pseudo-terminal: %w", err)
	}
	return master, slave, nil
}

// sendConsole sends a terminal's master to whoever listens on a UNIX socket, with its name as the message.
func sendConsole(path string, master int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("connect to the console socket %s: %w", path, err)
	}
	name := "/dev/ptmx"
	if n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN); err == nil {
		name = "/dev/pts/" + strconv.Itoa(int(n))
	}
	if err := unix.Sendmsg(fd, []byte(name), unix.UnixRights(master), nil, 0); err != nil {
		return fmt.Errorf("send the terminal to the console socket: %w", err)
	}
	return nil
}

// checkConsole says whether the terminal that a process wants and the means to hand it out fit together.
func checkConsole(terminal, detach bool, socket string) error {
	if detach && terminal && socket == "" {
		return errors.New("cannot allocate tty if runsc will detach without setting console socket")
	}
	if (!detach || !terminal) && socket != "" {
		return errors.New("cannot use console socket if runsc will not detach or allocate tty")
	}
	return nil
}

// getPeer opens the slave of a terminal, ioctl_tty(2).
func getPeer(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
