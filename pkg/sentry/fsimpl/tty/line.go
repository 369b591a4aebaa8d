package tty

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/ring"
	"husk/pkg/sentry/waiter"
)

const (
	// inputMax bounds unread input, N_TTY_BUF_SIZE of Linux (MAX_CANON and MAX_INPUT behind it).
	inputMax = 4096
	// outputMax bounds output that the other end has not taken. Linux lets a pty hold some pages, too.
	outputMax = 16384
	// echoMax is what echo may add beyond outputMax before it is dropped.
	echoMax = 4096
)

// Signaler raises a signal in the foreground process group of a terminal.
type Signaler interface {
	SignalForeground(sig unix.Signal)
}

// segment is a complete canonical line: n bytes of input, and an end of file behind them.
type segment struct {
	n   int
	eof bool
}

// Line is a terminal's line discipline with its settings and queues. The application's end (slave) calls
// Read, Write and the settings; the user's end (master) calls Input and TakeOutput.
type Line struct {
	// Slave is notified about input and room for output, Master about output and room for input.
	Slave, Master waiter.Queue

	mu       sync.Mutex
	t        Termios // protected by mu, as is what follows
	win      Winsize
	in       ring.Bytes         // unread input; in canonical mode the edited line is the last part of it
	lines    ring.List[segment] // canonical mode: the complete lines in in
	lineLen  int                // sum of lines' lengths
	out      ring.Bytes         // processed output
	held     ring.Bytes         // echo that waits for the end of a stop
	col      int                // output column
	startCol int                // output column at which the edited line began
	lnext    bool               // the last character was VLNEXT
	erasing  bool               // ECHOPRT: between \ and /
	stopped  bool               // output is stopped (VSTOP, TCOOFF)
	stopCall bool               // by TCOOFF: only TCOON starts it
	hungUp   bool               // the user's end is gone
	packet   bool               // TIOCPKT
	status   byte               // TIOCPKT status to deliver
	sigs     uint64             // signals to raise after unlock, bit n is signal n
	timer    readTimer          // VTIME
}

// readTimer is the VTIME of a waiting read.
type readTimer struct {
	t     *time.Timer
	armed bool
	fired bool
}

// NewLine makes a line discipline with settings t.
func NewLine(t Termios) *Line { return &Line{t: t} }

// Termios returns the settings.
func (l *Line) Termios() Termios {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.t
}

// SetTermios changes the settings; flush drops unread input (TCSETSF).
func (l *Line) SetTermios(t Termios, flush bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.t
	l.t = t
	if flush {
		l.flushInput()
	}
	if (old.Lflag^t.Lflag)&unix.ICANON != 0 {
		l.lines = ring.List[segment]{}
		l.lineLen = 0
		if t.lflag(unix.ICANON) && l.in.Len() > 0 {
			l.pushLine(false)
		}
		l.lnext, l.erasing = false, false
	}
	if old.iflag(unix.IXON) && !t.iflag(unix.IXON) && l.stopped && !l.stopCall {
		l.start()
	}
	if l.packet {
		l.packetTermios(&old)
	}
	l.notifyInput()
	l.Slave.Notify(waiter.WritableEvents)
	l.Master.Notify(waiter.WritableEvents)
}

// packetTermios tells a packet mode master of changes it asked to hear of.
func (l *Line) packetTermios(old *Termios) {
	doStop := func(t *Termios) bool {
		return t.iflag(unix.IXON) && t.CC[unix.VSTART] == 17 && t.CC[unix.VSTOP] == 19
	}
	if was, is := doStop(old), doStop(&l.t); was != is {
		l.status &^= unix.TIOCPKT_DOSTOP | unix.TIOCPKT_NOSTOP
		if is {
			l.status |= unix.TIOCPKT_DOSTOP
		} else {
			l.status |= unix.TIOCPKT_NOSTOP
		}
	}
	if l.t.lflag(unix.EXTPROC) || old.lflag(unix.EXTPROC) {
		l.status |= unix.TIOCPKT_IOCTL
	}
	if l.status != 0 {
		l.Master.Notify(waiter.ReadableEvents | waiter.EventPri)
	}
}

// Winsize returns the window size.
func (l *Line) Winsize() Winsize {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.win
}

// SetWinsize stores the window size and tells whether it differs: then SIGWINCH is due.
func (l *Line) SetWinsize(w Winsize) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := l.win != w
	l.win = w
	return changed
}

// takeSignals returns and clears the signals that input raised: bit n is signal n. The caller of Input sends
// them to the foreground process group.
func (l *Line) takeSignals() uint64 {
	s := l.sigs
	l.sigs = 0
	return s
}

// Hangup marks the user's end as gone: reads find the end of file, writes fail.
func (l *Line) Hangup() {
	l.mu.Lock()
	l.hungUp = true
	l.mu.Unlock()
	l.Slave.Notify(waiter.AllEvents)
	l.Master.Notify(waiter.AllEvents)
}

// HungUp tells whether Hangup was called.
func (l *Line) HungUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hungUp
}

// Reopen undoes Hangup (a pty slave that was opened again).
func (l *Line) Reopen() {
	l.mu.Lock()
	l.hungUp = false
	l.mu.Unlock()
}

// canon tells whether input is canonical.
func (l *Line) canon() bool { return l.t.lflag(unix.ICANON) }

// pushLine completes the edited line.
func (l *Line) pushLine(eof bool) {
	n := l.in.Len() - l.lineLen
	l.lines.Push(segment{n, eof})
	l.lineLen += n
}

// readable tells whether a read would not block.
func (l *Line) readable() bool {
	if l.canon() {
		return l.lines.Len() > 0
	}
	need := 1
	if l.t.CC[unix.VTIME] == 0 && l.t.CC[unix.VMIN] > 1 {
		need = int(l.t.CC[unix.VMIN])
	}
	return l.in.Len() >= need || l.timer.fired
}

// notifyInput wakes readers if there is something to read.
func (l *Line) notifyInput() {
	if l.readable() {
		l.Slave.Notify(waiter.ReadableEvents)
	}
}

// Read takes input into dst. nonblock is O_NONBLOCK of the caller, which is satisfied with less than
// VMIN bytes. EAGAIN says that there is not enough yet; 0 is the end of file.
func (l *Line) Read(dst []byte, nonblock bool) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.read(dst, nonblock)
	if n > 0 {
		l.Master.Notify(waiter.WritableEvents)
	}
	return n, err
}

func (l *Line) read(dst []byte, nonblock bool) (int, error) {
	if len(dst) == 0 {
		return 0, nil
	}
	if l.canon() {
		return l.readLine(dst)
	}
	have, want := l.in.Len(), int(l.t.CC[unix.VMIN])
	vtime := time.Duration(l.t.CC[unix.VTIME]) * (time.Second / 10)
	if want > len(dst) {
		want = len(dst)
	}
	switch {
	case have >= want && have > 0, have > 0 && (nonblock || l.timer.fired || l.hungUp):
		l.timer.stop()
		return l.takeInput(dst), nil
	case l.hungUp, want == 0 && vtime == 0, want == 0 && l.timer.fired:
		l.timer.stop()
		return 0, nil
	case vtime > 0 && !nonblock && (want == 0 || have > 0) && !l.timer.armed:
		l.timer.start(l, vtime)
	}
	return 0, unix.EAGAIN
}

// readLine reads in canonical mode: up to one line.
func (l *Line) readLine(dst []byte) (int, error) {
	if l.lines.Len() == 0 {
		if l.hungUp {
			return 0, nil
		}
		return 0, unix.EAGAIN
	}
	s := l.lines.At(0)
	if len(dst) > s.n {
		dst = dst[:s.n]
	}
	n := l.takeInput(dst)
	s.n -= n
	l.lineLen -= n
	if s.n == 0 {
		l.lines.Pop()
	}
	return n, nil
}

func (l *Line) takeInput(dst []byte) int {
	n := min(len(dst), l.in.Len())
	x, y := l.in.Peek(0, n)
	copy(dst[copy(dst, x):], y)
	l.in.Consume(n)
	return n
}

func (t *readTimer) start(l *Line, d time.Duration) {
	t.armed, t.fired = true, false
	if t.t != nil {
		t.t.Reset(d)
		return
	}
	t.t = time.AfterFunc(d, func() {
		l.mu.Lock()
		if t.armed {
			t.armed, t.fired = false, true
			l.Slave.Notify(waiter.ReadableEvents)
		}
		l.mu.Unlock()
	})
}

func (t *readTimer) stop() {
	if t.t != nil {
		t.t.Stop()
	}
	t.armed, t.fired = false, false
}

// CancelRead forgets the VTIME of a read that was interrupted.
func (l *Line) CancelRead() {
	l.mu.Lock()
	l.timer.stop()
	l.mu.Unlock()
}

// Readiness is what poll(2) says at the application's end.
func (l *Line) Readiness() waiter.EventMask {
	l.mu.Lock()
	defer l.mu.Unlock()
	var m waiter.EventMask
	if l.readable() || l.hungUp {
		m |= waiter.ReadableEvents
	}
	if l.hungUp {
		m |= waiter.EventHUp | waiter.EventErr | waiter.WritableEvents
	} else if !l.stopped && l.out.Len() < outputMax/2 {
		m |= waiter.WritableEvents
	}
	return m
}

// MasterReadiness is what poll(2) says at the user's end; whether the slave is open is the caller's to add.
func (l *Line) MasterReadiness() waiter.EventMask {
	l.mu.Lock()
	defer l.mu.Unlock()
	var m waiter.EventMask
	if l.out.Len() > 0 {
		m |= waiter.ReadableEvents
	}
	if l.packet && l.status != 0 {
		m |= waiter.ReadableEvents | waiter.EventPri
	}
	if l.inputRoom() {
		m |= waiter.WritableEvents
	}
	return m
}

// InputLen is FIONREAD at the application's end, OutputLen that at the user's end.
func (l *Line) InputLen() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.canon() {
		return l.lineLen
	}
	return l.in.Len()
}

// OutputLen is the number of bytes of processed output.
func (l *Line) OutputLen() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Len()
}

// Flush is TCFLSH: which is TCIFLUSH, TCOFLUSH or TCIOFLUSH. EINVAL for anything else.
func (l *Line) Flush(which int) error {
	if which < unix.TCIFLUSH || which > unix.TCIOFLUSH {
		return unix.EINVAL
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if which != unix.TCOFLUSH {
		l.flushInput()
		l.Master.Notify(waiter.WritableEvents)
	}
	if which != unix.TCIFLUSH {
		l.flushOutput()
		l.Slave.Notify(waiter.WritableEvents)
	}
	return nil
}

func (l *Line) flushInput() {
	l.in.Reset()
	l.lines = ring.List[segment]{}
	l.lineLen = 0
	l.lnext, l.erasing = false, false
	l.setStatus(unix.TIOCPKT_FLUSHREAD)
}

func (l *Line) flushOutput() {
	l.out.Reset()
	l.held.Reset()
	l.setStatus(unix.TIOCPKT_FLUSHWRITE)
}

// setStatus records an event for a master in packet mode.
func (l *Line) setStatus(bits byte) {
	if !l.packet {
		return
	}
	l.status |= bits
	l.Master.Notify(waiter.ReadableEvents | waiter.EventPri)
}

// Flow is TCXONC. EINVAL for an unknown action.
func (l *Line) Flow(action int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch action {
	case unix.TCOOFF:
		l.stop()
		l.stopCall = true
	case unix.TCOON:
		if l.stopCall {
			l.start()
		}
	case unix.TCIOFF, unix.TCION:
		c := l.t.CC[unix.VSTOP]
		if action == unix.TCION {
			c = l.t.CC[unix.VSTART]
		}
		if c != disabled {
			l.emit(c)
			l.Master.Notify(waiter.ReadableEvents)
		}
	default:
		return unix.EINVAL
	}
	return nil
}

func (l *Line) stop() {
	if l.stopped {
		return
	}
	l.stopped = true
	l.status &^= unix.TIOCPKT_START
	l.setStatus(unix.TIOCPKT_STOP)
}

func (l *Line) start() {
	if !l.stopped {
		return
	}
	l.stopped, l.stopCall = false, false
	l.status &^= unix.TIOCPKT_STOP
	l.setStatus(unix.TIOCPKT_START)
	if n := l.held.Len(); n > 0 {
		x, y := l.held.Peek(0, n)
		l.out.Append(x, outputMax+2*echoMax)
		l.out.Append(y, outputMax+2*echoMax)
		l.held.Reset()
		l.Master.Notify(waiter.ReadableEvents)
	}
	l.Slave.Notify(waiter.WritableEvents)
}

// SetPacket is TIOCPKT.
func (l *Line) SetPacket(on bool) {
	l.mu.Lock()
	if on && !l.packet {
		l.status = 0
	}
	l.packet = on
	l.mu.Unlock()
}

// Packet is TIOCGPKT.
func (l *Line) Packet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.packet
}
