package tty

import "golang.org/x/sys/unix"

// ncc is the number of control characters in the kernel's struct termios.
const ncc = 19

// Termios is struct termios as TCGETS gives it (36 bytes).
type Termios struct {
	Iflag, Oflag, Cflag, Lflag uint32
	Line                       uint8
	CC                         [ncc]uint8
}

// TermiosSize and Termios2Size are the sizes of struct termios and struct termios2 in bytes.
const (
	TermiosSize  = 36
	Termios2Size = 44
)

// disabled is _POSIX_VDISABLE: a control character with this value does not exist.
const disabled = 0

// DefaultTermios is what a new terminal has: the values of Linux's tty_std_termios.
func DefaultTermios() Termios {
	t := Termios{
		Iflag: unix.ICRNL | unix.IXON,
		Oflag: unix.OPOST | unix.ONLCR,
		Cflag: unix.B38400 | unix.CS8 | unix.CREAD | unix.HUPCL,
		Lflag: unix.ISIG | unix.ICANON | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHOCTL | unix.ECHOKE | unix.IEXTEN,
	}
	cc := &t.CC
	cc[unix.VINTR], cc[unix.VQUIT], cc[unix.VERASE], cc[unix.VKILL] = 3, 28, 127, 21
	cc[unix.VEOF], cc[unix.VMIN], cc[unix.VSTART], cc[unix.VSTOP], cc[unix.VSUSP] = 4, 1, 17, 19, 26
	cc[unix.VREPRINT], cc[unix.VDISCARD], cc[unix.VWERASE], cc[unix.VLNEXT] = 18, 15, 23, 22
	return t
}

// PtyTermios is what a new pseudo-terminal slave has.
func PtyTermios() Termios {
	t := DefaultTermios()
	t.Cflag = unix.B38400 | unix.CS8 | unix.CREAD
	return t
}

func (t *Termios) iflag(f uint32) bool { return t.Iflag&f != 0 }
func (t *Termios) oflag(f uint32) bool { return t.Oflag&f != 0 }
func (t *Termios) lflag(f uint32) bool { return t.Lflag&f != 0 }

// is tells whether c is the control character with index i.
func (t *Termios) is(c byte, i int) bool { return t.CC[i] == c && c != disabled }

// Encode writes t in the layout of TCGETS; len(b) >= TermiosSize. With len(b) >= Termios2Size the two speeds
// of struct termios2 follow.
func (t *Termios) Encode(b []byte) {
	put32(b, t.Iflag)
	put32(b[4:], t.Oflag)
	put32(b[8:], t.Cflag)
	put32(b[12:], t.Lflag)
	b[16] = t.Line
	copy(b[17:17+ncc], t.CC[:])
	if len(b) >= Termios2Size {
		put32(b[36:], speed(t.Cflag))
		put32(b[40:], speed(t.Cflag))
	}
}

// Decode reads the layout of TCSETS; len(b) >= TermiosSize.
func (t *Termios) Decode(b []byte) {
	t.Iflag, t.Oflag, t.Cflag, t.Lflag = get32(b), get32(b[4:]), get32(b[8:]), get32(b[12:])
	t.Line = b[16]
	copy(t.CC[:], b[17:17+ncc])
}

// Struct termio of System V (TCGETA): four 16-bit flag words, the line and eight control characters.
const TermioSize = 18

// EncodeTermio writes the layout of TCGETA.
func (t *Termios) EncodeTermio(b []byte) {
	for i, f := range [4]uint32{t.Iflag, t.Oflag, t.Cflag, t.Lflag} {
		b[2*i], b[2*i+1] = byte(f), byte(f>>8)
	}
	b[8] = t.Line
	copy(b[9:17], t.CC[:8])
	b[17] = 0
}

// DecodeTermio reads the layout of TCSETA; the high halves of the flags stay as they are.
func (t *Termios) DecodeTermio(b []byte) {
	for i, f := range [4]*uint32{&t.Iflag, &t.Oflag, &t.Cflag, &t.Lflag} {
		*f = *f&^0xffff | uint32(b[2*i]) | uint32(b[2*i+1])<<8
	}
	t.Line = b[8]
	copy(t.CC[:8], b[9:17])
}

// speed is the bit rate that the CBAUD bits stand for.
func speed(cflag uint32) uint32 {
	low := [...]uint32{0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400}
	high := [...]uint32{0, 57600, 115200, 230400, 460800, 500000, 576000, 921600, 1000000, 1152000, 1500000,
		2000000, 2500000, 3000000, 3500000, 4000000}
	i := cflag & 0xf
	if cflag&unix.CBAUDEX != 0 {
		return high[i]
	}
	return low[i]
}

func put32(b []byte, v uint32) {
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}
func get32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// Winsize is struct winsize of TIOCGWINSZ.
type Winsize struct {
	Rows, Cols, XPixel, YPixel uint16
}

// WinsizeSize is its size in bytes.
const WinsizeSize = 8

// Encode writes w in the layout of TIOCGWINSZ.
func (w Winsize) Encode(b []byte) {
	for i, v := range [4]uint16{w.Rows, w.Cols, w.XPixel, w.YPixel} {
		b[2*i], b[2*i+1] = byte(v), byte(v>>8)
	}
}

// Decode reads the layout of TIOCSWINSZ.
func (w *Winsize) Decode(b []byte) {
	for i, v := range [4]*uint16{&w.Rows, &w.Cols, &w.XPixel, &w.YPixel} {
		*v = uint16(b[2*i]) | uint16(b[2*i+1])<<8
	}
}
