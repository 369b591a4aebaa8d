package clock

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Timers calls functions at given times, as precisely as the host's timers. The Go runtime's own are rounded up to whole milliseconds
// while it sleeps: a sleep of 100 us took 1300.
//
// One timerfd stands for all: it is set when the first timer comes earlier than it would wake, and not when timers are stopped, as most
// are that bound a wait. Only a wait that is shorter than all before costs a call of the host.
type Timers struct {
	file *os.File
	conn syscall.RawConn
	fd   int

	mu     sync.Mutex
	queue  []*Timer // mu: a heap, the earliest first
	wake   int64    // mu: when the timerfd wakes next, in ns of CLOCK_MONOTONIC; 0: it does not
	closed bool     // mu
}

// Timer is one of them. Its zero value with F set is ready for use.
type Timer struct {
	// F is called once for each Set that is not stopped before, on a goroutine that all timers share: it must not wait for anything but
	// locks that are held for a short time.
	F func()

	at    int64 // Timers.mu: ns of CLOCK_MONOTONIC
	index int   // Timers.mu: place in the queue, from 1; 0: not there
}

// NewTimers makes an empty set, with a timerfd of the host.
func NewTimers() (*Timers, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	s := &Timers{fd: fd, file: os.NewFile(uintptr(fd), "timers")}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		return nil, err
	}
	go s.run()
	return s, nil
}

// Close ends the set; timers do not fire any more.
func (s *Timers) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.file.Close()
}

// Set has the timer fire at a time of CLOCK_MONOTONIC in nanoseconds, and not at one that was set before.
func (s *Timers) Set(t *Timer, at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.at = max(at, 1)
	if t.index == 0 {
		s.queue = append(s.queue, t)
		t.index = len(s.queue)
	}
	s.fix(t)
	s.arm()
}

// Stop has the timer not fire any more; F may be running, or about to.
func (s *Timers) Stop(t *Timer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.index != 0 {
		s.remove(t)
	}
}

// arm makes the timerfd wake for the first timer. The caller holds mu.
func (s *Timers) arm() {
	if s.closed || len(s.queue) == 0 || s.wake != 0 && s.wake <= s.queue[0].at {
		return
	}
	s.wake = s.queue[0].at
	setting := [4]int64{2: s.wake / 1e9, 3: s.wake % 1e9} // struct itimerspec
	// It neither blocks nor fails for a valid setting.
	syscall.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(s.fd), unix.TFD_TIMER_ABSTIME, uintptr(unsafe.Pointer(&setting)), 0, 0, 0)
}

// run is the goroutine.
func (s *Timers) run() {
	for {
		err := s.conn.Read(func(fd uintptr) bool {
			var n [8]byte
			_, _, e := syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&n)), uintptr(len(n)))
			return e != unix.EAGAIN
		})
		if err != nil {
			return // closed
		}
		s.fire()
	}
}

// fire calls the functions of timers that are due. The earliest is first, so that one that is set again and again holds up nobody.
func (s *Timers) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake = 0
	for len(s.queue) != 0 && s.queue[0].at <= Monotonic() {
		t := s.queue[0]
		s.remove(t)
		s.mu.Unlock()
		t.F()
		s.mu.Lock()
	}
	s.arm()
}

// remove takes t out of the queue. The caller holds mu.
func (s *Timers) remove(t *Timer) {
	last := s.queue[len(s.queue)-1]
	s.queue[len(s.queue)-1] = nil
	s.queue = s.queue[:len(s.queue)-1]
	if last != t {
		s.put(last, t.index)
		s.fix(last)
	}
	t.index = 0
}

// fix moves t to where it belongs. The caller holds mu.
func (s *Timers) fix(t *Timer) {
	i := t.index
	for i > 1 && t.at < s.queue[i/2-1].at {
		s.put(s.queue[i/2-1], i)
		i /= 2
	}
	for 2*i <= len(s.queue) {
		child := 2 * i
		if child < len(s.queue) && s.queue[child].at < s.queue[child-1].at {
			child++
		}
		if t.at <= s.queue[child-1].at {
			break
		}
		s.put(s.queue[child-1], i)
		i = child
	}
	s.put(t, i)
}

func (s *Timers) put(t *Timer, i int) {
	s.queue[i-1] = t
	t.index = i
}
