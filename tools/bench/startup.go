package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"time"
)

// startupTarget is what a start promises, in times runc.
const startupTarget = 1.0

// measureStartup takes turns between the runtimes, so that noise of the machine hits all alike.
func measureStartup(w *world, o *options, s *store) error {
	if err := w.config("small", "/bin/true"); err != nil {
		return err
	}
	bundle := filepath.Join(w.dir, "small")
	run := newCollector("startup", "run /bin/true", "ms", runc, startupTarget)
	life := newCollector("startup", "create+start+delete", "ms", runc, startupTarget)
	for i := range o.times(50) + 1 {
		for _, column := range []string{runc, systrap, ptrace} {
			if column == ptrace && i > ptraceRounds {
				continue
			}
			a, err := w.timed(column, func(id string) [][]string { return [][]string{{"run", "--bundle", bundle, id}} })
			if err != nil {
				return err
			}
			b, err := w.timed(column, func(id string) [][]string {
				return [][]string{{"create", "--bundle", bundle, id}, {"start", id}, {"delete", "--force", id}}
			})
			if err != nil {
				return err
			}
			if i > 0 { // the first round only warms the caches
				run.add(column, a)
				life.add(column, b)
			}
		}
	}
	if err := s.put(run.result()); err != nil {
		return err
	}
	return s.put(life.result())
}

// timed is the time of the command lines together, in milliseconds.
func (w *world) timed(column string, lines func(id string) [][]string) (float64, error) {
	begin := time.Now()
	for _, args := range lines(w.id()) {
		cmd := w.command(column, args...)
		var errs bytes.Buffer
		if args[0] == "run" { // a detached container would keep a pipe open
			cmd.Stderr = &errs
		}
		if err := cmd.Run(); err != nil {
			return 0, fmt.Errorf("%v: %v %s", cmd.Args, err, errs.String())
		}
	}
	return float64(time.Since(begin).Microseconds()) / 1000, nil
}
