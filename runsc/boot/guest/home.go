package guest

import (
	"bytes"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"
)

// maxPasswd bounds how much of a container's /etc/passwd is read, in bytes: some ten thousand users.
const maxPasswd = 1 << 20

// withHome gives a process' environment the HOME of its user where it has none, as runc does: engines leave that to the runtime, because
// only the container's /etc/passwd tells.
func withHome(ctx vfs.Context, v *vfs.VFS, env []string, uid uint32) []string {
	home := ""
	rest := make([]string, 0, len(env)+1)
	for _, e := range env {
		if s, ok := strings.CutPrefix(e, "HOME="); ok {
			home = s
			if s == "" {
				continue
			}
		}
		rest = append(rest, e)
	}
	if home != "" {
		return env
	}
	return append(rest, "HOME="+homeOf(readSmall(ctx, v, "/etc/passwd", maxPasswd), uid))
}

// homeOf is the home directory of a user by passwd(5), and / if that does not say.
func homeOf(passwd []byte, uid uint32) string {
	for len(passwd) > 0 {
		var line []byte
		line, passwd, _ = bytes.Cut(passwd, []byte("\n"))
		f := strings.Split(string(line), ":")
		if len(f) < 6 {
			continue
		}
		if id, err := strconv.ParseUint(f[2], 10, 32); err == nil && uint32(id) == uid && strings.HasPrefix(f[5], "/") && !strings.Contains(f[5], "\x00") {
			return f[5]
		}
	}
	return "/"
}

// readSmall reads the first limit bytes of a regular file of the container; nil if there is none.
func readSmall(ctx vfs.Context, v *vfs.VFS, name string, limit int) []byte {
	fd, err := v.Open(ctx, vfs.Path{}, name, &vfs.OpenOptions{Flags: unix.O_RDONLY | unix.O_NONBLOCK})
	if err != nil {
		return nil
	}
	defer fd.DecRef()
	var st vfs.Stat
	if err := fd.Stat(ctx, unix.STATX_TYPE, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	var data []byte
	for buf := make([]byte, 4096); len(data) < limit; {
		n, err := fd.PRead(ctx, mm.BytesSeq(buf), int64(len(data)))
		if err != nil || n <= 0 {
			break
		}
		data = append(data, buf[:n]...)
	}
	return data
}
