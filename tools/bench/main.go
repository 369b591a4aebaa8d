package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	var o options
	flag.StringVar(&o.runsc, "runsc", "bin/runsc", "the runtime to measure")
	flag.StringVar(&o.runc, "runc", "runc", "the runtime to compare with")
	flag.StringVar(&o.only, "only", "startup,memory,micro,programs", "what to measure, separated by commas, also handoff; nothing to only print or write")
	flag.StringVar(&o.rows, "rows", "", "rows of micro and programs, or settings of handoff (one-processor), to measure, separated by commas (default: all)")
	flag.StringVar(&o.policies, "policies", "", "directory for the runtimes that handoff builds; those that are there are used (default: built anew)")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds of each measurement (default: 50 for startup, 9 for micro, 5 for programs)")
	flag.StringVar(&o.store, "store", ".cache/bench", "directory where results are kept")
	flag.StringVar(&o.write, "write", "", "directory to write performance.md and performance.svg to")
	flag.Parse()
	if err := bench(&o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	runsc, runc, only, rows, store, write, policies string
	rounds                                          int
}

// parts are what can be measured, in the order of the report.
var parts = []struct {
	name    string
	measure func(w *world, o *options, s *store) error
}{
	{"startup", measureStartup},
	{"programs", measurePrograms},
	{"micro", measureMicro},
	{"memory", measureMemory},
	{"handoff", measureHandoff},
}

func bench(o *options) error {
	s, err := openStore(o.store)
	if err != nil {
		return err
	}
	if o.only != "" {
		w, err := newWorld(o.runsc, o.runc)
		if err != nil {
			return err
		}
		defer w.close()
		go w.closeOnSignal()
		for _, name := range strings.Split(o.only, ",") {
			found := false
			for _, p := range parts {
				if p.name != name {
					continue
				}
				found = true
				if err := p.measure(w, o, s); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			if !found {
				return fmt.Errorf("-only: there is no part %q", name)
			}
		}
	}
	for _, t := range s.tables() {
		t.print(os.Stdout)
	}
	if o.write == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(o.write, "performance.md"), markdown(s), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.write, "performance.svg"), chart(s), 0o644)
}

// wanted says whether -rows selects a row.
func (o *options) wanted(row string) bool {
	return o.rows == "" || strings.Contains(","+o.rows+",", ","+row+",")
}

// times is the number of rounds.
func (o *options) times(normally int) int {
	if o.rounds > 0 {
		return o.rounds
	}
	return normally
}
