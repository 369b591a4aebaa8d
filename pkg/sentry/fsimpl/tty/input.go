package tty

import (
	"golang.org/x/sys/unix"

	"husk/pkg/sentry/waiter"
)

// Input gives what the user typed to the line discipline. It returns how much was taken, and raises the
// signals that control characters asked for through s (which may be nil). EAGAIN if nothing could be taken.
func (l *Line) Input(p []byte, s Signaler) (int, error) {
	l.mu.Lock()
	n := 0
	for n < len(p) && l.inputRoom() {
		l.inputChar(p[n])
		n++
	}
	l.notifyInput()
	if l.timer.armed && l.t.CC[unix.VMIN] > 0 && n > 0 {
		// The time between bytes begins again.
		l.timer.stop()
		l.Slave.Notify(waiter.ReadableEvents)
	}
	if l.out.Len() > 0 {
		l.Master.Notify(waiter.ReadableEvents)
	}
	sigs := l.takeSignals()
	l.mu.Unlock()
	if s != nil {
		for sig := 1; sigs>>sig != 0; sig++ {
			if sigs>>sig&1 != 0 {
				s.SignalForeground(unix.Signal(sig))
			}
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, unix.EAGAIN
	}
	return n, nil
}

// inputRoom tells whether more input is taken. In canonical mode the user must always be able to end
// or erase a line, so a full buffer drops characters instead, unless there are unread lines.
func (l *Line) inputRoom() bool {
	return l.in.Len() < inputMax-1 || l.canon() && l.lines.Len() == 0
}

// inputChar processes one character.
func (l *Line) inputChar(c byte) {
	t := &l.t
	if t.iflag(unix.ISTRIP) {
		c &= 0x7f
	}
	if t.lflag(unix.EXTPROC) {
		l.put(c)
		return
	}
	if t.iflag(unix.IUCLC) && t.lflag(unix.IEXTEN) && c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	if l.lnext {
		l.lnext = false
		l.ordinary(c)
		return
	}
	if l.flowChar(c) || l.signalChar(c) {
		return
	}
	switch {
	case c == '\r' && t.iflag(unix.IGNCR):
		return
	case c == '\r' && t.iflag(unix.ICRNL):
		c = '\n'
	case c == '\n' && t.iflag(unix.INLCR):
		c = '\r'
	}
	if l.canon() && l.editChar(c) {
		return
	}
	l.ordinary(c)
}

// flowChar handles VSTART and VSTOP.
func (l *Line) flowChar(c byte) bool {
	t := &l.t
	if !t.iflag(unix.IXON) {
		return false
	}
	switch {
	case t.is(c, unix.VSTART):
		if !l.stopCall {
			l.start()
		}
		return true
	case t.is(c, unix.VSTOP):
		l.stop()
		return true
	case l.stopped && !l.stopCall && t.iflag(unix.IXANY):
		l.start()
	}
	return false
}

// signalChar handles VINTR, VQUIT and VSUSP.
func (l *Line) signalChar(c byte) bool {
	t := &l.t
	if !t.lflag(unix.ISIG) {
		return false
	}
	var sig unix.Signal
	switch {
	case t.is(c, unix.VINTR):
		sig = unix.SIGINT
	case t.is(c, unix.VQUIT):
		sig = unix.SIGQUIT
	case t.is(c, unix.VSUSP):
		sig = unix.SIGTSTP
	default:
		return false
	}
	l.sigs |= 1 << uint(sig)
	if !t.lflag(unix.NOFLSH) {
		l.flushInput()
		l.flushOutput()
		l.Slave.Notify(waiter.WritableEvents)
	}
	if t.iflag(unix.IXON) && !l.stopCall {
		l.start()
	}
	if t.lflag(unix.ECHO) {
		l.echoChar(c)
	}
	return true
}

// editChar handles the characters of canonical mode; false for those of the text.
func (l *Line) editChar(c byte) bool {
	t := &l.t
	ext := t.lflag(unix.IEXTEN)
	switch {
	case t.is(c, unix.VERASE), t.is(c, unix.VKILL), t.is(c, unix.VWERASE) && ext:
		l.erase(c)
	case t.is(c, unix.VLNEXT) && ext:
		l.lnext = true
		if t.lflag(unix.ECHO) {
			l.finishErasing()
			if t.lflag(unix.ECHOCTL) {
				l.emit('^')
				l.emit('\b')
			}
		}
	case t.is(c, unix.VREPRINT) && ext && t.lflag(unix.ECHO):
		l.finishErasing()
		l.echoChar(c)
		l.putOut('\n')
		for i := l.lineLen; i < l.in.Len(); i++ {
			x, _ := l.in.Peek(i, 1)
			l.echoChar(x[0])
		}
	case c == '\n':
		if t.lflag(unix.ECHO | unix.ECHONL) {
			l.putOut('\n')
		}
		l.endLine(c)
	case t.is(c, unix.VEOF):
		l.pushLine(true)
	case t.is(c, unix.VEOL), t.is(c, unix.VEOL2) && ext:
		if t.lflag(unix.ECHO) {
			l.markStart()
			l.echoChar(c)
		}
		l.endLine(c)
	default:
		return false
	}
	return true
}

// endLine puts the delimiter c, for which there is always room, and completes the line.
func (l *Line) endLine(c byte) {
	one := [1]byte{c}
	l.in.Append(one[:], 2*inputMax)
	l.pushLine(false)
}

// ordinary handles a character of the text: echo and store.
func (l *Line) ordinary(c byte) {
	if l.in.Len() >= inputMax-1 {
		if l.t.iflag(unix.IMAXBEL) {
			l.emit('\a')
		}
		return
	}
	if l.t.lflag(unix.ECHO) {
		l.finishErasing()
		if c == '\n' {
			l.putOut('\n')
		} else {
			l.markStart()
			l.echoChar(c)
		}
	}
	if c == 0xff && l.t.iflag(unix.PARMRK) {
		l.put(c)
	}
	l.put(c)
}

// markStart remembers where the edited line begins on the screen.
func (l *Line) markStart() {
	if l.in.Len() == l.lineLen {
		l.startCol = l.col
	}
}

// put stores one character if there is room.
func (l *Line) put(c byte) {
	if l.in.Len() < inputMax {
		one := [1]byte{c}
		l.in.Append(one[:], 2*inputMax)
	}
}

// echoChar shows c, as ^X if it is a control character and ECHOCTL is set.
func (l *Line) echoChar(c byte) {
	if l.t.lflag(unix.ECHOCTL) && control(c) && c != '\t' {
		l.emit('^')
		l.emit(c ^ 0x40)
		l.col += 2
		return
	}
	l.putOut(c)
}

// finishErasing closes the \.../ of ECHOPRT.
func (l *Line) finishErasing() {
	if l.erasing {
		l.erasing = false
		l.putOut('/')
	}
}

// erase handles VERASE, VWERASE and VKILL on the edited line.
func (l *Line) erase(c byte) {
	if l.in.Len() == l.lineLen {
		return
	}
	t := &l.t
	kill, word := t.is(c, unix.VKILL), t.is(c, unix.VWERASE)
	if t.is(c, unix.VERASE) {
		kill, word = false, false
	}
	if kill {
		if !t.lflag(unix.ECHO) {
			l.in.Unwrite(l.in.Len() - l.lineLen)
			return
		}
		if !t.lflag(unix.ECHOK) || !t.lflag(unix.ECHOKE) || !t.lflag(unix.ECHOE) {
			l.in.Unwrite(l.in.Len() - l.lineLen)
			l.finishErasing()
			l.echoChar(c)
			if t.lflag(unix.ECHOK) {
				l.putOut('\n')
			}
			return
		}
	}
	l.eraseChars(c, kill, word)
	if l.in.Len() == l.lineLen && t.lflag(unix.ECHO) {
		l.finishErasing()
	}
}

// eraseChars removes one character, a word, or the line from the end of the edited line.
func (l *Line) eraseChars(c byte, kill, word bool) {
	seen := false
	for l.in.Len() > l.lineLen {
		n, ch := l.lastChar()
		if n == 0 {
			return
		}
		if word {
			if alnum(ch) {
				seen = true
			} else if seen {
				return
			}
		}
		l.unecho(c, ch, n, !kill && !word)
		if !kill && !word {
			return
		}
	}
}

func alnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

// lastChar is the length and the first byte of the last character of the edited line; 0 if there is
// no complete one.
func (l *Line) lastChar() (n int, first byte) {
	for i := l.in.Len() - 1; i >= l.lineLen; i-- {
		x, _ := l.in.Peek(i, 1)
		n++
		if !l.t.iflag(unix.IUTF8) || !continuation(x[0]) {
			return n, x[0]
		}
	}
	return 0, 0
}

// unecho removes the last character (n bytes, the first is ch) and its echo; by is the erase character.
func (l *Line) unecho(by, ch byte, n int, single bool) {
	t := &l.t
	if !t.lflag(unix.ECHO) {
		l.in.Unwrite(n)
		return
	}
	switch {
	case t.lflag(unix.ECHOPRT):
		if !l.erasing {
			l.putOut('\\')
			l.erasing = true
		}
		l.echoChar(ch)
		for i := l.in.Len() - n + 1; i < l.in.Len(); i++ {
			x, _ := l.in.Peek(i, 1)
			l.emit(x[0])
		}
		l.in.Unwrite(n)
	case single && !t.lflag(unix.ECHOE):
		l.in.Unwrite(n)
		l.echoChar(by)
	case ch == '\t':
		l.in.Unwrite(n)
		for w := l.col - l.lineCol(); w > 0; w-- {
			l.emit('\b')
			l.col--
		}
	default:
		l.in.Unwrite(n)
		if control(ch) && t.lflag(unix.ECHOCTL) {
			l.backspace()
		}
		if !control(ch) || t.lflag(unix.ECHOCTL) {
			l.backspace()
		}
	}
}

func (l *Line) backspace() {
	l.emit('\b')
	l.emit(' ')
	l.emit('\b')
	if l.col > 0 {
		l.col--
	}
}

// lineCol is the column behind the echo of the edited line.
func (l *Line) lineCol() int {
	col := l.startCol
	for i := l.lineLen; i < l.in.Len(); i++ {
		x, _ := l.in.Peek(i, 1)
		switch c := x[0]; {
		case c == '\t':
			col += 8 - col&7
		case control(c):
			if l.t.lflag(unix.ECHOCTL) {
				col += 2
			}
		case !l.t.iflag(unix.IUTF8) || !continuation(c):
			col++
		}
	}
	return col
}
