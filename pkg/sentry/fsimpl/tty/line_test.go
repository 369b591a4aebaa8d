package tty

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type sigs []unix.Signal

func (s *sigs) SignalForeground(sig unix.Signal) { *s = append(*s, sig) }

func out(l *Line) string {
	b := make([]byte, 1000)
	n, _ := l.TakeOutput(b)
	return string(b[:n])
}

func in(t *testing.T, l *Line) string {
	t.Helper()
	b := make([]byte, 1000)
	n, err := l.Read(b, false)
	if err != nil {
		return err.(unix.Errno).Error()
	}
	return string(b[:n])
}

func TestCanonical(t *testing.T) {
	l := NewLine(PtyTermios())
	for _, c := range []struct{ typed, echo, read string }{
		{"abc\r", "abc\r\n", "abc\n"},
		{"abd\x7fc\n", "abd\b \bc\r\n", "abc\n"},
		{"one two\x17x\n", "one two\b \b\b \b\b \bx\r\n", "one x\n"},
		{"junk\x15ok\n", "junk\b \b\b \b\b \b\b \bok\r\n", "ok\n"},
		{"a\x01\x7f\n", "a^A\b \b\b \b\r\n", "a\n"},
		{"a\tb\x7f\x7f\n", "a\tb\b \b\b\b\b\b\b\b\b\r\n", "a\n"},
		{"a\x16\x03\n", "a^\b^C\r\n", "a\x03\n"},
		{"ab\x12c\n", "ab^R\r\nabc\r\n", "abc\n"},
		{"\x7f\n", "\r\n", "\n"},
		{"eof\x04", "eof", "eof"},
		{"\x04", "", ""},
	} {
		if n, err := l.Input([]byte(c.typed), nil); n != len(c.typed) || err != nil {
			t.Fatalf("input %q: %d %v", c.typed, n, err)
		}
		if e := out(l); e != c.echo {
			t.Errorf("typed %q: echo %q, want %q", c.typed, e, c.echo)
		}
		if r := in(t, l); r != c.read {
			t.Errorf("typed %q: read %q, want %q", c.typed, r, c.read)
		}
		out(l)
	}
	if r := in(t, l); r != unix.EAGAIN.Error() {
		t.Errorf("read of nothing: %q", r)
	}
}

func TestPartialLineReads(t *testing.T) {
	l := NewLine(PtyTermios())
	l.Input([]byte("hello\nworld\n"), nil)
	b := make([]byte, 3)
	var got []string
	for {
		n, err := l.Read(b, false)
		if err != nil {
			break
		}
		got = append(got, string(b[:n]))
	}
	want := []string{"hel", "lo\n", "wor", "ld\n"}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("got %q", got)
		}
	}
}

func TestSignals(t *testing.T) {
	l := NewLine(PtyTermios())
	var s sigs
	l.Input([]byte("abc\x03"), &s)
	l.Input([]byte("\x1c"), &s)
	l.Input([]byte("\x1a"), &s)
	if len(s) != 3 || s[0] != unix.SIGINT || s[1] != unix.SIGQUIT || s[2] != unix.SIGTSTP {
		t.Fatal(s)
	}
	if l.InputLen() != 0 {
		t.Fatal("input was not flushed")
	}
}

func TestRaw(t *testing.T) {
	tm := PtyTermios()
	tm.Lflag &^= unix.ICANON | unix.ECHO | unix.ISIG
	tm.Iflag &^= unix.ICRNL
	l := NewLine(tm)
	l.Input([]byte("\x03\r"), nil)
	if r := in(t, l); r != "\x03\r" {
		t.Fatalf("%q", r)
	}
	tm.CC[unix.VMIN] = 3
	l.SetTermios(tm, false)
	l.Input([]byte("ab"), nil)
	if r := in(t, l); r != unix.EAGAIN.Error() {
		t.Fatalf("VMIN=3 gave %q", r)
	}
	l.Input([]byte("cd"), nil)
	if r := in(t, l); r != "abcd" {
		t.Fatalf("%q", r)
	}
	tm.CC[unix.VMIN], tm.CC[unix.VTIME] = 0, 1
	l.SetTermios(tm, false)
	if r := in(t, l); r != unix.EAGAIN.Error() {
		t.Fatalf("VTIME gave %q at once", r)
	}
	for i := 0; i < 100 && l.Readiness()&unix.POLLIN == 0; i++ {
		time.Sleep(10 * time.Millisecond)
	}
	if r := in(t, l); r != "" {
		t.Fatalf("after VTIME %q", r)
	}
}

func TestOutput(t *testing.T) {
	l := NewLine(PtyTermios())
	l.Write([]byte("a\nb"))
	if s := out(l); s != "a\r\nb" {
		t.Fatalf("%q", s)
	}
	l.Input([]byte{19}, nil)
	if n, err := l.Write([]byte("x")); n != 0 || err != unix.EAGAIN {
		t.Fatal("write while stopped", n, err)
	}
	l.Input([]byte("e"), nil)
	if s := out(l); s != "" {
		t.Fatalf("echo while stopped: %q", s)
	}
	l.Input([]byte{17}, nil)
	if s := out(l); s != "e" {
		t.Fatalf("held echo: %q", s)
	}
	big := make([]byte, 100000)
	for i := range big {
		big[i] = 'x'
	}
	total := 0
	for total < len(big) {
		n, err := l.Write(big[total:])
		total += n
		if err == unix.EAGAIN && out(l) == "" {
			t.Fatal("stuck")
		}
	}
}

func TestCanonicalOverflow(t *testing.T) {
	l := NewLine(PtyTermios())
	long := make([]byte, 5000)
	for i := range long {
		long[i] = 'x'
	}
	if n, _ := l.Input(long, nil); n != len(long) {
		t.Fatalf("took %d", n)
	}
	l.Input([]byte("\n"), nil)
	if n := l.InputLen(); n != inputMax {
		t.Fatalf("line of %d", n)
	}
}

func TestCoding(t *testing.T) {
	x := DefaultTermios()
	var b [Termios2Size]byte
	x.Encode(b[:])
	var y Termios
	y.Decode(b[:])
	if x != y || get32(b[36:]) != 38400 {
		t.Fatal(x, y)
	}
	w := Winsize{24, 80, 1, 2}
	w.Encode(b[:])
	var v Winsize
	v.Decode(b[:])
	if v != w {
		t.Fatal(v)
	}
}

// Whatever is typed and set, nothing panics and the invariants hold.
func FuzzLine(f *testing.F) {
	f.Add([]byte("abc\x7f\x17\t\x15\n\x04"), uint32(0x8a3b), uint32(0x500))
	f.Fuzz(func(t *testing.T, data []byte, lflag, iflag uint32) {
		tm := PtyTermios()
		l := NewLine(tm)
		for i, c := range data {
			if c == 0x80 {
				tm.Lflag, tm.Iflag = lflag, iflag
				if i&1 == 0 {
					tm = PtyTermios()
				}
				l.SetTermios(tm, i&2 == 0)
			}
			l.Input(data[i:i+1], nil)
			if c&0x1f == 7 {
				l.Read(make([]byte, int(c)), true)
				l.Write(data[:i])
				l.TakeOutput(make([]byte, int(c)*8))
			}
			if l.lineLen > l.in.Len() || l.in.Len() > 2*inputMax {
				t.Fatal("lengths")
			}
		}
	})
}
