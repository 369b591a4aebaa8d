package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	runsc := flag.String("runsc", "bin/runsc", "the runtime to measure")
	runc := flag.String("runc", "runc", "the runtime to compare with")
	rounds := flag.Int("rounds", 20, "rounds of the start-up measurement")
	only := flag.String("only", "startup,memory,syscalls", "what to measure")
	platforms := flag.String("platforms", "systrap,ptrace", "platforms to measure")
	write := flag.String("write", "", "file to write the tables to, as Markdown")
	flag.Parse()
	if err := bench(*runsc, *runc, *only, strings.Split(*platforms, ","), *rounds, *write); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(runsc, runc, only string, platforms []string, rounds int, write string) error {
	runsc, err := filepath.Abs(runsc)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hb")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w := &world{dir: dir, runtimes: []runtime{{"runc", []string{runc, "--root", filepath.Join(dir, "runc")}}}}
	for _, p := range platforms {
		w.runtimes = append(w.runtimes, runtime{p, []string{runsc, "--root", filepath.Join(dir, p), "--platform=" + p}})
	}
	if err := w.makeRootfs(); err != nil {
		return err
	}
	var tables []*table
	for _, part := range strings.Split(only, ",") {
		var t *table
		switch part {
		case "startup":
			t, err = w.startup(rounds)
		case "memory":
			t, err = w.memory()
		case "syscalls":
			t, err = w.syscalls()
		default:
			err = fmt.Errorf("-only: %q is not one of startup, memory, syscalls", part)
		}
		if err != nil {
			return err
		}
		t.print(os.Stdout)
		tables = append(tables, t)
	}
	if write == "" {
		return nil
	}
	f, err := os.Create(write)
	if err != nil {
		return err
	}
	fmt.Fprintf(f, "# Performance\n\nWritten by `go run ./tools/bench -write %s`; every column of a table was measured in the same run.\nHost: %s.\n", write, hostName())
	for _, t := range tables {
		t.markdown(f)
	}
	return f.Close()
}

func hostName() string {
	out, _ := exec.Command("uname", "-srm").Output()
	return strings.TrimSpace(string(out))
}
