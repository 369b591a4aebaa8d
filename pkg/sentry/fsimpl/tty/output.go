package tty

import (
	"golang.org/x/sys/unix"

	"husk/pkg/sentry/waiter"
)

// Write processes output of the application and returns how much was taken; EAGAIN if there is no
// room (or output is stopped), EIO after a hangup.
func (l *Line) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hungUp {
		return 0, unix.EIO
	}
	if len(p) == 0 {
		return 0, nil
	}
	if l.stopped {
		return 0, unix.EAGAIN
	}
	n := l.process(p)
	if n == 0 {
		return 0, unix.EAGAIN
	}
	l.Master.Notify(waiter.ReadableEvents)
	if n < len(p) {
		return n, unix.EAGAIN
	}
	return n, nil
}

// process appends p to the output as Oflag says, as far as there is room.
func (l *Line) process(p []byte) int {
	room := outputMax - l.out.Len()
	if !l.t.oflag(unix.OPOST) {
		n := min(len(p), max(room, 0))
		l.out.Append(p[:n], outputMax)
		return n
	}
	for i := 0; i < len(p); {
		run := i
		for run < len(p) && plain(p[run]) {
			run++
		}
		if l.t.oflag(unix.OLCUC) {
			run = i
		}
		if n := run - i; n > 0 {
			n = min(n, outputMax-l.out.Len())
			if n <= 0 {
				return i
			}
			l.out.Append(p[i:i+n], outputMax)
			l.advance(p[i : i+n])
			i += n
			continue
		}
		// A tab is the longest: up to 8 bytes.
		if outputMax-l.out.Len() < 8 {
			return i
		}
		l.putOut(p[i])
		i++
	}
	return len(p)
}

// plain tells whether output processing never changes c.
func plain(c byte) bool { return c >= ' ' && c != 0x7f }

// advance moves the column past plain characters.
func (l *Line) advance(p []byte) {
	if !l.t.iflag(unix.IUTF8) {
		l.col += len(p)
		return
	}
	for _, c := range p {
		if !continuation(c) {
			l.col++
		}
	}
}

// continuation tells whether c is a second or later byte of a UTF-8 sequence.
func continuation(c byte) bool { return c&0xc0 == 0x80 }

func control(c byte) bool { return c < ' ' || c == 0x7f }

// putOut outputs one character with output processing.
func (l *Line) putOut(c byte) {
	if !l.t.oflag(unix.OPOST) {
		l.emit(c)
		return
	}
	switch c {
	case '\n':
		if l.t.oflag(unix.ONLRET) {
			l.col = 0
		}
		if l.t.oflag(unix.ONLCR) {
			l.col, l.startCol = 0, 0
			l.emit('\r')
			l.emit('\n')
			return
		}
		l.startCol = l.col
	case '\r':
		if l.t.oflag(unix.ONOCR) && l.col == 0 {
			return
		}
		if l.t.oflag(unix.OCRNL) {
			c = '\n'
			if l.t.oflag(unix.ONLRET) {
				l.col, l.startCol = 0, 0
			}
			break
		}
		l.col, l.startCol = 0, 0
	case '\t':
		spaces := 8 - l.col&7
		l.col += spaces
		if l.t.Oflag&unix.TABDLY == unix.XTABS {
			for ; spaces > 0; spaces-- {
				l.emit(' ')
			}
			return
		}
	case '\b':
		if l.col > 0 {
			l.col--
		}
	default:
		if !control(c) {
			if l.t.oflag(unix.OLCUC) && c >= 'a' && c <= 'z' {
				c -= 'a' - 'A'
			}
			if !l.t.iflag(unix.IUTF8) || !continuation(c) {
				l.col++
			}
		}
	}
	l.emit(c)
}

// emit appends one byte to the output, or to the held echo while output is stopped. What exceeds the
// limits is dropped: only echo can.
func (l *Line) emit(c byte) {
	b, limit := &l.out, outputMax+echoMax
	if l.stopped {
		b, limit = &l.held, echoMax
	}
	if b.Len() >= limit {
		return
	}
	one := [1]byte{c}
	b.Append(one[:], limit)
}

// TakeOutput moves output to dst. In packet mode the first byte is the status. EAGAIN if there is none.
func (l *Line) TakeOutput(dst []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(dst) == 0 {
		return 0, nil
	}
	head := 0
	if l.packet {
		if l.status != 0 {
			dst[0] = l.status
			l.status = 0
			return 1, nil
		}
		dst[0] = unix.TIOCPKT_DATA
		head = 1
	}
	n := min(len(dst)-head, l.out.Len())
	if l.out.Len() == 0 {
		return 0, unix.EAGAIN
	}
	x, y := l.out.Peek(0, n)
	copy(dst[head+copy(dst[head:], x):], y)
	l.out.Consume(n)
	if l.out.Len() < outputMax/2 {
		l.Slave.Notify(waiter.WritableEvents)
	}
	return head + n, nil
}
