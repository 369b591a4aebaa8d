package sandbox

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// end waits for a script's process and returns its exit code.
func end(t *testing.T, s *script) int {
	t.Helper()
	pid, err := s.start(0)
	if err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	if !ws.Exited() {
		t.Fatalf("wait status %#x", ws)
	}
	return ws.ExitStatus()
}

func exit(s *script, code uintptr) { s.do("exit", unix.SYS_EXIT_GROUP, code) }

func TestScript(t *testing.T) {
	t.Run("results reach later steps", func(t *testing.T) {
		s := newScript(8)
		s.do("memfd", unix.SYS_MEMFD_CREATE, s.str("x"), 0)
		s.into(200)
		s.do("write", unix.SYS_WRITE, 200, s.str("abc"), 3).flags = stepResult
		exit(s, 7)
		if code := end(t, s); code != 7 || s.failure() != nil {
			t.Errorf("exit code %d, %v", code, s.failure())
		}
	})
	t.Run("an error ends it and is told", func(t *testing.T) {
		s := newScript(8)
		s.try(unix.SYS_CLOSE, 1<<20)
		s.do("go to", unix.SYS_CHDIR, s.str("/does/not/exist"))
		s.on("/does/not/exist")
		exit(s, 7)
		code, err := end(t, s), s.failure()
		if code != 1 || !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), `go to "/does/not/exist"`) {
			t.Errorf("exit code %d, %v", code, err)
		}
	})
	t.Run("an end of file is an error if asked", func(t *testing.T) {
		s := newScript(8)
		s.do("open", unix.SYS_OPEN, s.str("/dev/null"), unix.O_RDONLY)
		s.into(200)
		s.do("read", unix.SYS_READ, 200, keepAt(s, new([8]byte)), 1).flags = stepResult
		exit(s, 7)
		if code, err := end(t, s), s.failure(); code != 1 || err == nil {
			t.Errorf("exit code %d, %v", code, err)
		}
	})
	t.Run("else", func(t *testing.T) {
		for path, want := range map[string]int{"/": 7, "/does/not/exist": 8} {
			s := newScript(8)
			s.try(unix.SYS_CHDIR, s.str(path))
			s.do("else", unix.SYS_EXIT_GROUP, 8).flags = stepElse
			exit(s, 7)
			if code := end(t, s); code != want {
				t.Errorf("%s: exit code %d, want %d", path, code, want)
			}
		}
	})
	t.Run("a failed attempt moves no descriptor", func(t *testing.T) {
		s := newScript(8)
		s.try(unix.SYS_OPEN, s.str("/does/not/exist"), unix.O_RDONLY)
		s.into(200)
		s.try(unix.SYS_FCNTL, 200, unix.F_GETFD)
		s.do("else", unix.SYS_EXIT_GROUP, 8).flags = stepElse
		exit(s, 7)
		if code := end(t, s); code != 8 {
			t.Errorf("exit code %d", code)
		}
	})
}
