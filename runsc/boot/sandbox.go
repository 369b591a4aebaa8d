package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/log"
)

// Descriptors that a fresh sandbox or gofer has.
const (
	BootFD   = 3 // the connection to the launcher
	FirstFD  = 4 // of those that it opened before it lost its privileges
	MemoryFD = 4 // sandbox: an empty file for the memory of applications, or /dev/null
	ProcFD   = 4 // gofer: /proc/self/fd
	AttachFD = 5 // gofer: the first attach point, and the others after it
)

// NewKernel makes the sentry's kernel for a sandbox.
type NewKernel func(b *Boot, l *log.Logger) (Kernel, error)

// sandbox is the running sandbox process.
type sandbox struct {
	boot     *Boot
	log      *log.Logger
	time     *Timeline
	launcher *Conn
	kernel   Kernel
	server   *Server
}

// Main is the sandbox process. It returns the exit code of the first container's first process, as
// a shell would show it, or 128 when the sandbox could not be made (the launcher knows why then).
func Main(newKernel NewKernel) int {
	start := Enter()
	setName("runsc-sandbox")
	// A goroutine that sleeps in the host keeps its right to run for a while; others must not wait for that.
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}
	c, err := NewPollConn(BootFD)
	if err != nil {
		return 128
	}
	s := &sandbox{boot: new(Boot), launcher: c}
	id, err := s.receive()
	if err != nil {
		return s.refuse(id, err)
	}
	s.time = NewTimeline("sandbox", s.boot.Epoch)
	s.boot.time = s.time
	s.time.MarkEntry(start)
	s.time.Mark("boot message received")
	if p := &s.boot.Container.Process; p.Terminal {
		// As leader of the terminal's session this process hears of its size, and of its end.
		unix.IoctlSetInt(p.Stdio[0], unix.TIOCSCTTY, 0)
	}
	if err := s.create(newKernel); err != nil {
		return s.refuse(id, err)
	}
	s.time.Print(s.log)
	go s.watchLauncher()
	go s.watchGofer()
	go s.server.Listen(s.boot.Listen)
	go s.forwardSignals()
	if err := c.SendMessage(KindReply, id, &Reply{}); err != nil {
		return 128 // the launcher is gone, and nobody else knows of this sandbox yet
	}
	return s.run()
}

// receive reads the boot message.
func (s *sandbox) receive() (id uint32, err error) {
	f, err := s.launcher.Recv()
	if err != nil {
		return 0, err
	}
	if f.Kind != KindBoot {
		return f.ID, errors.New("first message is not a boot message")
	}
	left, err := Unmarshal(s.boot, f.Data, f.FDs)
	if err == nil && len(left) > 0 {
		err = errFD
	}
	s.log = &log.Logger{FD: s.boot.Log, On: s.boot.Log >= 0, Level: log.Info}
	if s.boot.Debug {
		s.log.Level = log.Debug
	}
	return f.ID, err
}

// create confines the process and builds the container.
func (s *sandbox) create(newKernel NewKernel) (err error) {
	filter := buildFilter(sandboxFilter(s.boot.Network, s.boot.Platform))
	if err := checkConfined(0); err != nil {
		return err
	}
	s.boot.memoryFile = memoryFile()
	s.kernel, err = newKernel(s.boot, s.log)
	if err != nil {
		return err
	}
	s.server = NewServer(s.kernel)
	s.time.Mark("kernel made")
	// The platform has started its first stub process by now, which is not to inherit this filter.
	if err := filter(); err != nil {
		return err
	}
	s.time.Mark("seccomp filter installed")
	if err := s.kernel.Create(&s.boot.Container); err != nil {
		return err
	}
	s.time.Mark("container created")
	if s.boot.Start {
		if err := s.kernel.Start(s.boot.Container.ID); err != nil {
			return err
		}
		s.time.Mark("container started")
	}
	return nil
}

// refuse tells the launcher why there will be no sandbox.
func (s *sandbox) refuse(id uint32, err error) int {
	e := toError(err)
	s.log.Print(log.Error, e.Text)
	s.launcher.SendMessage(KindReply, id, &Reply{Err: e})
	return 128
}

// watchLauncher ends the sandbox when the launcher dies before it has said that the sandbox may
// live on its own.
func (s *sandbox) watchLauncher() {
	f, err := s.launcher.Recv()
	if err == nil && f.Kind == KindDetach {
		s.launcher.Close()
		return
	}
	s.log.Print(log.Error, "the launcher has died")
	os.Exit(128)
}

// watchGofer ends the sandbox when the gofer dies: files that the container believes to be written
// may never be, so going on would only spread the damage.
func (s *sandbox) watchGofer() {
	if awaitHangup(s.boot.Container.Lifeline) {
		s.log.Print(log.Error, "the gofer has died")
		fmt.Fprintln(os.Stderr, "the gofer has died")
		os.Exit(128)
	}
}

// awaitHangup waits until nobody holds the other end of a pipe any more; it owns fd. It returns
// false when it cannot tell.
func awaitHangup(fd int) bool {
	if fd < 0 || unix.SetNonblock(fd, true) != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), "lifeline")
	defer f.Close()
	var b [1]byte
	_, err := f.Read(b[:])
	return err == io.EOF
}

// forwardSignals gives the container's first process the signals that the sandbox process gets:
// on the host, the one stands for the other.
func (s *sandbox) forwardSignals() {
	ch := make(chan os.Signal, 32)
	signal.Notify(ch, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGWINCH)
	for sig := range ch {
		if sig == unix.SIGWINCH {
			s.kernel.Resize(s.boot.Container.ID, 0, 0, 0)
			continue
		}
		s.kernel.Signal(s.boot.Container.ID, 0, int32(sig.(syscall.Signal)), false)
	}
}

// run waits for the end of the first container.
func (s *sandbox) run() int {
	status, err := s.kernel.Wait(s.boot.Container.ID, 0)
	if err != nil {
		s.log.Print(log.Error, "wait: "+err.Error())
		return 128
	}
	s.server.DestroyMembers()
	s.server.Drain(time.Second)
	s.time.Mark("application exited")
	s.time.Print(s.log)
	return ExitCode(status)
}

// ExitCode is the exit code that stands for a wait status: 128 and the signal's number for a death by signal.
func ExitCode(status uint32) int {
	ws := syscall.WaitStatus(status)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
