package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// runtime is an OCI runtime: its name in the tables and the start of its command line.
type runtime struct {
	name string
	args []string
}

// world is the bundle that all runtimes run.
type world struct {
	dir      string
	runtimes []runtime
	serial   int
}

// makeRootfs builds a root file system of busybox and the microbenchmark.
func (w *world) makeRootfs() error {
	root := filepath.Join(w.dir, "rootfs")
	for _, d := range []string{"bin", "proc", "dev", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	for _, name := range []string{"true", "sleep", "sh"} {
		if err := os.WriteFile(filepath.Join(root, "bin", name), busybox, 0o755); err != nil {
			return err
		}
	}
	gcc := exec.Command("gcc", "-O2", "-static", "-pthread", "-o", filepath.Join(root, "bin", "micro"), "test/perf/c/micro.c")
	if out, err := gcc.CombinedOutput(); err != nil {
		return fmt.Errorf("gcc: %v\n%s", err, out)
	}
	return nil
}

func (w *world) config(args ...string) error {
	ns := func(t string) map[string]string { return map[string]string{"type": t} }
	c := map[string]any{
		"ociVersion": "1.0.2",
		"process": map[string]any{"args": args, "cwd": "/", "env": []string{"PATH=/bin"}, "user": map[string]int{"uid": 0, "gid": 0},
			"noNewPrivileges": true},
		"root":   map[string]any{"path": "rootfs"},
		"mounts": []any{map[string]any{"destination": "/proc", "type": "proc", "source": "proc"}, map[string]any{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}},
		"linux":  map[string]any{"namespaces": []any{ns("pid"), ns("network"), ns("ipc"), ns("uts"), ns("mount")}},
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.dir, "config.json"), text, 0o644)
}

func (w *world) id() string {
	w.serial++
	return fmt.Sprintf("husk-bench-%d-%d", os.Getpid(), w.serial)
}

func (w *world) command(r runtime, args ...string) *exec.Cmd {
	return exec.Command(r.args[0], append(append([]string{}, r.args[1:]...), args...)...)
}

func (w *world) columns(first ...string) []string {
	for _, r := range w.runtimes {
		first = append(first, r.name)
	}
	return first
}

// startup interleaves the runtimes round by round, so that noise of the machine hits all alike.
func (w *world) startup(rounds int) (*table, error) {
	if err := w.config("/bin/true"); err != nil {
		return nil, err
	}
	run, life := make([][]float64, len(w.runtimes)), make([][]float64, len(w.runtimes))
	for i := range rounds + 1 {
		for j, r := range w.runtimes {
			a, err := w.timed(r, func(id string) [][]string { return [][]string{{"run", "--bundle", w.dir, id}} })
			if err != nil {
				return nil, err
			}
			b, err := w.timed(r, func(id string) [][]string {
				return [][]string{{"create", "--bundle", w.dir, id}, {"start", id}, {"delete", "--force", id}}
			})
			if err != nil {
				return nil, err
			}
			if i > 0 { // the first round only warms the caches
				run[j], life[j] = append(run[j], a), append(life[j], b)
			}
		}
	}
	t := &table{title: "Start-up", unit: fmt.Sprintf("milliseconds, median of %d interleaved rounds", rounds), columns: w.columns(),
		rows: []row{{name: "run /bin/true"}, {name: "create+start+delete"}}}
	for j := range w.runtimes {
		t.rows[0].values = append(t.rows[0].values, median(run[j]))
		t.rows[1].values = append(t.rows[1].values, median(life[j]))
	}
	return t, nil
}

// timed is the time of the command lines together, in milliseconds.
func (w *world) timed(r runtime, lines func(id string) [][]string) (float64, error) {
	begin := time.Now()
	for _, args := range lines(w.id()) {
		cmd := w.command(r, args...)
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

// memory is the private and proportional memory of an idle container over all its processes.
func (w *world) memory() (*table, error) {
	if err := w.config("/bin/sleep", "1000"); err != nil {
		return nil, err
	}
	t := &table{title: "Idle container", unit: "MB", columns: w.columns(), rows: []row{{name: "private"}, {name: "PSS"}}}
	for _, r := range w.runtimes {
		id := w.id()
		before := processes()
		if err := w.command(r, "run", "--detach", "--bundle", w.dir, id).Run(); err != nil {
			return nil, fmt.Errorf("%s: %v", r.name, err)
		}
		time.Sleep(2 * time.Second)
		private, pss := 0.0, 0.0
		for pid := range descendants(w, r, id, before) {
			a, b := rollup(pid)
			private, pss = private+a, pss+b
		}
		w.command(r, "delete", "--force", id).Run()
		t.rows[0].values = append(t.rows[0].values, private)
		t.rows[1].values = append(t.rows[1].values, pss)
	}
	return t, nil
}

func processes() map[string]bool {
	list, _ := filepath.Glob("/proc/[0-9]*")
	set := map[string]bool{}
	for _, p := range list {
		set[filepath.Base(p)] = true
	}
	return set
}

// descendants are the processes of a container: the trees of its pid and its gofer's, and processes that appeared with
// it and whose command line names its state directory or ID.
func descendants(w *world, r runtime, id string, before map[string]bool) map[string]bool {
	set := map[string]bool{}
	var s struct{ Pid int }
	out, _ := w.command(r, "state", id).Output()
	json.Unmarshal(out, &s)
	queue := []string{fmt.Sprint(s.Pid)}
	var state struct{ GoferPid int }
	if text, err := os.ReadFile(filepath.Join(w.dir, r.name, id, "state.json")); err == nil && json.Unmarshal(text, &state) == nil {
		queue = append(queue, fmt.Sprint(state.GoferPid))
	}
	for p := range processes() {
		cmdline, _ := os.ReadFile("/proc/" + p + "/cmdline")
		if !before[p] && (bytes.Contains(cmdline, []byte(id)) || bytes.Contains(cmdline, []byte(filepath.Join(w.dir, r.name)))) {
			queue = append(queue, p)
		}
	}
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		if set[p] || p == "0" {
			continue
		}
		set[p] = true
		kids, _ := filepath.Glob("/proc/" + p + "/task/*/children")
		for _, k := range kids {
			text, _ := os.ReadFile(k)
			queue = append(queue, strings.Fields(string(text))...)
		}
	}
	return set
}

// rollup reads private memory and PSS of a process in MB.
func rollup(pid string) (private, pss float64) {
	f, err := os.Open("/proc/" + pid + "/smaps_rollup")
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kb float64
		name, rest, _ := strings.Cut(s.Text(), ":")
		fmt.Sscan(rest, &kb)
		switch name {
		case "Private_Clean", "Private_Dirty":
			private += kb / 1024
		case "Pss":
			pss = kb / 1024
		}
	}
	return private, pss
}

// syscalls runs the microbenchmarks natively and in every runtime.
func (w *world) syscalls() (*table, error) {
	t := &table{title: "System calls", unit: "microseconds per operation, medians", columns: w.columns("native")}
	if err := w.config("/bin/micro"); err != nil {
		return nil, err
	}
	index := map[string]int{}
	for col := range t.columns {
		cmd := exec.Command(filepath.Join(w.dir, "rootfs", "bin", "micro"))
		if col > 0 {
			cmd = w.command(w.runtimes[col-1], "run", "--bundle", w.dir, w.id())
		}
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %v %s%s", t.columns[col], err, errs.String(), out)
		}
		for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			var name string
			var v float64
			if _, err := fmt.Sscan(line, &name, &v); err != nil {
				return nil, fmt.Errorf("%s: %q: %v", t.columns[col], line, err)
			}
			if _, ok := index[name]; !ok {
				index[name] = len(t.rows)
				r := row{name: name, values: make([]float64, len(t.columns))}
				for i := range r.values {
					r.values[i] = -1
				}
				t.rows = append(t.rows, r)
			}
			t.rows[index[name]].values[col] = v
		}
	}
	return t, nil
}
