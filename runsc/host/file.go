package host

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// ReadFile returns what a file holds. Errors are *os.PathError.
func ReadFile(path string) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	data := make([]byte, 0, 4096)
	for {
		if len(data) == cap(data) {
			data = slices.Grow(data, cap(data))
		}
		n, err := unix.Read(fd, data[len(data):cap(data)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return data, nil
		default:
			data = data[:len(data)+n]
		}
	}
}

// WriteFile makes a file of the data, or replaces what is in it. Errors are *os.PathError.
func WriteFile(path string, data []byte, mode uint32) error {
	return write(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, data, mode)
}

// Put writes text to a file that exists, with one write(2), as the kernel's own files want it. Errors are *os.PathError.
func Put(path, text string) error { return write(path, unix.O_WRONLY, []byte(text), 0) }

func write(path string, flags int, data []byte, mode uint32) error {
	fd, err := open(path, flags, mode)
	if err != nil {
		return err
	}
	for {
		var n int
		if n, err = unix.Write(fd, data); err == unix.EINTR {
			continue
		}
		if err != nil || n == len(data) {
			break
		}
		data = data[n:]
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func open(path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR {
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}
