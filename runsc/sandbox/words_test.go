package sandbox

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLastWordsAreBounded(t *testing.T) {
	w, err := newLastWords()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	f := os.NewFile(uintptr(w.fd), "words")
	if w.read() != "" {
		t.Errorf("fresh words: %q", w.read())
	}
	f.WriteString("panic: oops\n\ngoroutine 1 [running]:\nmain.main()\n\t/src/main.go:1\n")
	if got := w.read(); got != "panic: oops; goroutine 1 [running]:; main.main(); /src/main.go:1" {
		t.Errorf("%q", got)
	}
	if _, err := f.Write(make([]byte, 2*wordsSize)); err == nil {
		t.Error("the file can grow")
	}
	if err := unix.Ftruncate(w.fd, 1<<30); err == nil {
		t.Error("the file can be grown")
	}
}

func TestPrintable(t *testing.T) {
	if got := printable([]byte("a\x1b[2Jb\xff\tc\x00d")); got != "a?[2Jb? c" {
		t.Errorf("%q", got)
	}
	if got := printable([]byte("a\u009b2Jb\u00e4")); got != "a?2Jb\u00e4" {
		t.Errorf("%q", got)
	}
	if got := printable([]byte(strings.Repeat("line\n", 1000))); len(got) > 200 {
		t.Errorf("%d bytes of a flood are left", len(got))
	}
}
