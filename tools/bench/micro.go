package main

import (
	"fmt"
	"path/filepath"
	"strconv"
)

// microRows are the rows of test/perf/c/micro.c with what they promise, in times native; 0 promises nothing.
var microRows = []struct {
	name   string
	target float64
}{
	{"getpid-patched", 5}, {"getpid-unpatched", 20}, {"clock_gettime", 1.2}, {"read-zero-1", 5},
	{"pread-4k", 2}, {"image-pread-4k", 2}, {"fstat", 4}, {"stat", 1.3}, {"open-close", 1.6}, {"create-unlink", 1},
	{"mmap-munmap-64k", 4}, {"touch-128m-page", 0.5}, {"touch-64k-page", 1.2}, {"file-touch-page", 2}, {"image-touch-page", 2},
	{"fork-wait", 3.5}, {"vfork-exec-wait", 2.2}, {"pthread", 1.3},
	{"futex-ping-pong", 0}, {"futex-processes", 1}, {"pipe-ping-pong", 1}, {"unix-ping-pong", 1}, {"pipe-64k", 0.5}, {"epoll-cycle", 4},
	{"signal-self", 3}, {"sleep-100us", 1.5}, {"read-16m", 1.5}, {"image-read-16m", 1.5},
}

// ptraceRounds bounds the rounds of the slowest column, which promises nothing.
const ptraceRounds = 3

// measureMicro asks a server process per column for one row at a time.
func measureMicro(w *world, o *options, s *store) error {
	if err := w.config("small", "/bin/micro", "-serve", "/image.16m"); err != nil {
		return err
	}
	root := filepath.Join(w.dir, "small", "rootfs")
	var sessions []*session
	for _, column := range []string{native, systrap, runc, ptrace} {
		x, err := w.open(column, "small", filepath.Join(root, "bin", "micro"), "-serve", filepath.Join(root, "image.16m"))
		if err != nil {
			return err
		}
		defer x.close()
		sessions = append(sessions, x)
	}
	rounds := o.times(9)
	for _, row := range microRows {
		if !o.wanted(row.name) {
			continue
		}
		c := newCollector("micro", row.name, "us", native, row.target)
		for i := range rounds {
			for _, x := range sessions {
				if x.column == ptrace && i >= ptraceRounds {
					continue
				}
				answer, err := x.ask(row.name)
				if err != nil {
					return err
				}
				v, err := strconv.ParseFloat(answer, 64)
				if err != nil {
					return fmt.Errorf("%s: %w", x.column, err)
				}
				c.add(x.column, v)
			}
		}
		if err := s.put(c.result()); err != nil {
			return err
		}
	}
	return nil
}
