package loader

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// scriptHead is how much of a script is looked at for its first line.
const scriptHead = 256

// parseScript reads the #! line of execve(2): the interpreter and its one optional argument. ok is false if head is not
// a script. ENOEXEC for a line without an interpreter, or whose interpreter is cut off.
func parseScript(head []byte) (interp, arg string, ok bool, err error) {
	if len(head) < 2 || head[0] != '#' || head[1] != '!' {
		return "", "", false, nil
	}
	line := head[2:min(len(head), scriptHead)]
	whole := len(head) < scriptHead
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line, whole = line[:i], true
	}
	if i := bytes.IndexByte(line, 0); i >= 0 {
		line, whole = line[:i], true
	}
	line = bytes.TrimLeft(line, " \t")
	i := bytes.IndexAny(line, " \t")
	if i < 0 {
		if !whole || len(line) == 0 {
			return "", "", true, unix.ENOEXEC
		}
		return string(line), "", true, nil
	}
	return string(line[:i]), string(bytes.Trim(line[i:], " \t")), true, nil
}
