package kernel

import "golang.org/x/sys/unix"

// Random fills b with random bytes of the host, getrandom(2). crypto/rand would do the same behind a megabyte of
// code that takes part of each start.
func Random(b []byte) {
	for len(b) > 0 {
		n, err := unix.Getrandom(b, 0)
		if err != nil && err != unix.EINTR {
			panic("getrandom: " + err.Error()) // cannot fail with valid arguments
		}
		b = b[max(n, 0):]
	}
}
