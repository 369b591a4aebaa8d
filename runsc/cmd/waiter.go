package cmd

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"husk/runsc/boot"
	"husk/runsc/container"
	"husk/runsc/sandbox"
)

// execWaiterCommand is the process that exec --detach leaves behind.
func execWaiterCommand() command {
	return command{
		name: container.WaiterVerb, summary: "internal: stand for a process of a container", hidden: true, max: 0,
		setup: func(f *flagSet) func(*env, []string) error {
			return func(*env, []string) error { return exitCode(standIn()) }
		},
	}
}

// standIn waits for the process whose connections came at descriptor 3.
func standIn() int {
	conn := boot.NewConn(boot.BootFD)
	f, err := conn.Recv()
	if err != nil {
		return 255
	}
	var w boot.Waiter
	if err := boot.Decode(&f, boot.KindWaiter, &w); err != nil {
		return 255
	}
	go func() {
		// The process that started this one tells it to live on; if it dies before, nobody knows of this one.
		if f, err := conn.Recv(); err != nil || f.Kind != boot.KindDetach {
			os.Exit(128 + int(unix.SIGKILL))
		}
		conn.Close()
	}()
	if w.TTY >= 0 {
		// As leader of the terminal's session this process hears of its size, and of its end.
		unix.IoctlSetInt(w.TTY, unix.TIOCSCTTY, 0)
	}
	sigs := make(chan os.Signal, 64)
	signal.Notify(sigs, forwarded()...)
	go func() {
		control := sandbox.NewClient(w.Control)
		for s := range sigs {
			if s != unix.SIGWINCH {
				control.Call(boot.KindSignal, &boot.Request{Container: w.Container, PID: w.PID, Signal: int32(s.(syscall.Signal))})
			} else if ws, err := unix.IoctlGetWinsize(w.TTY, unix.TIOCGWINSZ); err == nil {
				control.Call(boot.KindResize, &boot.Request{Container: w.Container, PID: w.PID, Rows: uint32(ws.Row), Cols: uint32(ws.Col)})
			}
		}
	}()
	r, err := sandbox.NewClient(w.Wait).Call(boot.KindWait, &boot.Request{Container: w.Container, PID: w.PID})
	if err != nil {
		return 128 + int(unix.SIGKILL) // the sandbox has died, and the process with it
	}
	return boot.ExitCode(r.Status)
}
