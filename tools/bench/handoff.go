package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// policies are the hand-offs to compare with the one that adapts: microseconds that a stub thread and the sentry always spin before
// they sleep.
var policies = []struct {
	name         string
	stub, sentry int
}{{"sleep", 0, 0}, {"spin 20", 20, 20}, {"spin 100", 100, 100}, {"spin 500", 500, 500}, {"stub spins 100", 100, 0}, {"sentry spins 100", 0, 100}}

// handoffTarget is what the best of them may be better than the one that adapts.
const handoffTarget = 1.5

// settings are where it has to adapt to, with the loads of test/perf/c/pace.c: kind, threads, milliseconds.
var settings = []struct {
	name  string
	pin   []string // before the command
	quota bool     // half a processor
	loads []string
}{
	{"all processors", nil, false, []string{"getpid 1 100", "getpid 2 100", "mixed 2 100", "mixed 4 100", "pipe 2 100", "getpid 64 200", "mixed 64 200", "pipe 64 200"}},
	{"one processor", []string{"taskset", "-c", "0"}, false, []string{"getpid 1 100", "mixed 4 100", "pipe 2 100", "mixed 64 200"}},
	{"half a processor", nil, true, []string{"getpid 1 400", "mixed 4 400", "pipe 2 400"}},
}

// measureHandoff prints how the hand-off compares with fixed policies; it is no part of the report. The runtimes with fixed ones are
// built from this directory's source.
func measureHandoff(w *world, o *options, _ *store) error {
	gcc := exec.Command("gcc", "-O2", "-static", "-pthread", "-o", filepath.Join(w.dir, "small", "rootfs", "bin", "pace"), "test/perf/c/pace.c")
	if out, err := gcc.CombinedOutput(); err != nil {
		return fmt.Errorf("gcc: %v\n%s", err, out)
	}
	columns := []string{systrap}
	dir := o.policies
	if dir == "" {
		dir = filepath.Join(w.dir, "policies")
	}
	for i, p := range policies {
		path, err := buildPolicy(dir, i, p.stub, p.sentry)
		if err != nil {
			return err
		}
		w.runtimes[p.name] = runtime{p.name, []string{path, "--root", filepath.Join(w.dir, "s", "p"+strconv.Itoa(i)), "--platform=systrap"}}
		columns = append(columns, p.name)
	}
	for _, s := range settings {
		if !o.wanted(strings.ReplaceAll(s.name, " ", "-")) {
			continue
		}
		t := table{title: "Hand-off: " + s.name, note: "Thousand steps per second, and times the adaptive hand-off.", cells: [][]string{append(append([]string{""}, columns...), "best", "")}}
		if err := w.config("small", "/bin/pace"); err != nil {
			return err
		}
		if s.quota {
			if err := w.limit("small"); err != nil {
				return err
			}
		}
		if err := w.compareHandoffs(&t, columns, s.pin, s.loads, o.times(5)); err != nil {
			return err
		}
		t.print(os.Stdout)
	}
	return nil
}

// compareHandoffs measures the loads of a setting, in turns.
func (w *world) compareHandoffs(t *table, columns, pin, loads []string, rounds int) error {
	var sessions []*session
	for _, c := range columns {
		r := w.runtimes[c]
		pinned := c + " pinned"
		w.runtimes[pinned] = runtime{pinned, append(append([]string{}, pin...), r.args...)}
		x, err := w.open(pinned, "small")
		if err != nil {
			return err
		}
		defer x.close()
		x.column = c
		sessions = append(sessions, x)
	}
	for _, load := range loads {
		c := newCollector("handoff", load, "", systrap, 0)
		for range rounds {
			for _, x := range sessions {
				answer, err := x.ask(load)
				if err != nil {
					return err
				}
				v, err := strconv.ParseFloat(answer, 64)
				if err != nil {
					return fmt.Errorf("%s: %w", x.column, err)
				}
				c.add(x.column, v/1000)
			}
		}
		r := c.result()
		line, best := []string{load}, ""
		for _, column := range columns {
			line = append(line, r.cell(column))
			if column != systrap && (best == "" || r.Ratios[column] > r.Ratios[best]) {
				best = column
			}
		}
		verdict := "met"
		if r.Ratios[best] > handoffTarget {
			verdict = "missed"
		}
		t.cells = append(t.cells, append(line, fmt.Sprintf("%.2fx", r.Ratios[best]), verdict))
	}
	return nil
}

// buildPolicy builds the runtime with a hand-off that does not adapt: another version of the constants of policy.go.
func buildPolicy(dir string, i, stub, sentry int) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("runsc%d", i))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	source, err := filepath.Abs("pkg/platform/systrap/policy.go")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, fmt.Sprintf("policy%d.go", i))
	text := fmt.Sprintf("package systrap\n\nconst (\n\tfixedPace = true\n\tfixedStub = %d\n\tfixedSentry = %d\n)\n", stub, sentry)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: file}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return "", err
	}
	if err := os.WriteFile(file+".json", overlay, 0o644); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-overlay", file+".json", "-o", path, "./runsc")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %v\n%s", err, out)
	}
	return path, nil
}

// limit adds a quota of half a processor to a bundle's configuration.
func (w *world) limit(bundle string) error {
	path := filepath.Join(w.dir, bundle, "config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var c map[string]any
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	c["linux"].(map[string]any)["resources"] = map[string]any{"cpu": map[string]any{"quota": 50000, "period": 100000}}
	if text, err = json.Marshal(c); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
