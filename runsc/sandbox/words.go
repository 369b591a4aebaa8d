package sandbox

import (
	"bytes"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"husk/runsc/boot"
)

// wordsSize bounds what a process can leave behind: the head of a Go panic message, which says
// what and where.
const wordsSize = 64 << 10

// lastWords is the standard error of a sandbox or gofer: a memory file whose size is sealed, so
// that a hostile process cannot fill anything, and that vanishes with its last user.
type lastWords struct{ fd int }

func newLastWords() (lastWords, error) {
	fd, err := unix.MemfdCreate("last-words", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return lastWords{-1}, fmt.Errorf("memfd_create: %w", err)
	}
	if err := unix.Ftruncate(fd, wordsSize); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
		if err == nil {
			return lastWords{fd}, nil
		}
	}
	unix.Close(fd)
	return lastWords{-1}, fmt.Errorf("seal memfd: %w", err)
}

// openLastWords finds the standard error of a running sandbox.
func openLastWords(pid int) lastWords {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/fd/2", pid), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return lastWords{-1}
	}
	return lastWords{fd}
}

func (w lastWords) close() {
	if w.fd >= 0 {
		unix.Close(w.fd)
	}
}

// read returns what was written, made printable and cut to what fits into an error message.
func (w lastWords) read() string {
	if w.fd < 0 {
		return ""
	}
	buf := make([]byte, 4096)
	n, err := unix.Pread(w.fd, buf, 0)
	if err != nil || n <= 0 {
		return ""
	}
	return printable(buf[:n])
}

// printable cuts b at the first NUL and keeps the lines that tell most: the first three of a goroutine
// dump and everything before it.
func printable(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	clean := harmless(string(b))
	var out []string
	left := -1
	for _, line := range strings.Split(clean, "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if left < 0 && strings.HasPrefix(line, "goroutine ") {
			left = 12
		}
		if left == 0 || len(out) == 24 {
			break
		}
		left--
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

// harmless replaces what could control a terminal.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r == '\n' || r >= ' ' && (r < 0x7f || r >= 0xa0) && r != 0xfffd {
			return r
		}
		return '?'
	}, s)
}

// maxError bounds the text of an error, in bytes: a path and what is wrong with it.
const maxError = 8 << 10

// sandboxError is an error that a sandbox answered, whose text is the sandbox's, and goes to terminals and logs.
func sandboxError(e *boot.Error) error {
	return &boot.Error{Code: e.Code, Text: harmless(e.Text[:min(len(e.Text), maxError)])}
}
