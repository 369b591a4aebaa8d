package log

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Level is the importance of a line.
type Level uint8

// The levels, most important first.
const (
	Error Level = iota
	Warning
	Info
	Debug
)

var names = [...]string{"error", "warning", "info", "debug"}

// Logger writes lines to a file descriptor. The zero value discards everything. It is immutable,
// hence safe for concurrent use.
type Logger struct {
	FD    int
	On    bool
	JSON  bool
	Level Level // the least important level that is written
}

// Enabled says whether lines of a level are written.
func (l *Logger) Enabled(v Level) bool { return l != nil && l.On && v <= l.Level }

// Print writes a line. Times are UTC: a sandboxed process cannot read the time zone.
func (l *Logger) Print(v Level, msg string) {
	if l.Enabled(v) {
		l.write(Format(l.JSON, v, msg, time.Now().UTC()))
	}
}

// Printf writes a formatted line.
func (l *Logger) Printf(v Level, format string, args ...any) {
	if l.Enabled(v) {
		l.Print(v, fmt.Sprintf(format, args...))
	}
}

func (l *Logger) write(b []byte) {
	for len(b) > 0 {
		n, err := unix.Write(l.FD, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return // there is nobody to tell
		}
		b = b[n:]
	}
}

// Format renders a line with its newline.
func Format(json bool, v Level, msg string, now time.Time) []byte {
	b := make([]byte, 0, len(msg)+80)
	if json {
		b = append(b, `{"level":"`...)
		b = append(b, names[v]...)
		b = append(b, `","msg":`...)
		b = AppendJSON(b, msg)
		b = append(b, `,"time":"`...)
		b = now.AppendFormat(b, time.RFC3339)
		return append(b, "\"}\n"...)
	}
	b = append(b, `time="`...)
	b = now.AppendFormat(b, time.RFC3339)
	b = append(b, `" level=`...)
	b = append(b, names[v]...)
	b = append(b, ` msg=`...)
	b = strconv.AppendQuote(b, msg)
	return append(b, '\n')
}

// AppendJSON appends s as a JSON string; bytes that are not UTF-8 become the replacement character.
func AppendJSON(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\t':
			b = append(b, '\\', 't')
		case r < 0x20 || r == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
