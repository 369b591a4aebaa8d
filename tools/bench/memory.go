package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// What memory promises: MB, and bytes of the sentry's heap per file.
const (
	privateTarget = 8
	pssTarget     = 16
	manyTarget    = 9
	many          = 50
	fileTarget    = 700
	fileCount     = 100000
)

func measureMemory(w *world, o *options, s *store) error {
	if err := w.config("small", "/bin/sleep", "1000"); err != nil {
		return err
	}
	private := newCollector("memory", "idle container: private", "MB", "", privateTarget)
	pss := newCollector("memory", "idle container: PSS", "MB", "", pssTarget)
	for _, column := range []string{runc, systrap, ptrace} {
		sum, err := w.idle(column, 1)
		if err != nil {
			return err
		}
		private.add(column, sum.private)
		pss.add(column, sum.pss)
	}
	if err := errors.Join(s.put(private.result()), s.put(pss.result())); err != nil {
		return err
	}
	each := newCollector("memory", fmt.Sprintf("%d idle containers: PSS of each", many), "MB", "", manyTarget)
	for _, column := range []string{runc, systrap} {
		sum, err := w.idle(column, many)
		if err != nil {
			return err
		}
		each.add(column, sum.pss/many)
	}
	if err := s.put(each.result()); err != nil {
		return err
	}
	perFile, err := w.heapPerFile()
	if err != nil {
		return err
	}
	files := newCollector("memory", fmt.Sprintf("heap per empty file, %d in a tmpfs", fileCount), "bytes", "", fileTarget)
	files.add(systrap, perFile)
	return s.put(files.result())
}

// memory is in MB.
type memory struct{ private, pss float64 }

// idle starts n containers side by side and sums the memory of their processes on the host.
func (w *world) idle(column string, n int) (sum memory, err error) {
	var ids []string
	defer w.deleteDetached()
	for range n {
		id := w.id()
		ids = append(ids, id)
		w.detach(column, id)
		cmd := w.command(column, "run", "--detach", "--bundle", filepath.Join(w.dir, "small"), id)
		if err := cmd.Run(); err != nil {
			return sum, fmt.Errorf("%v: %w", cmd.Args, err)
		}
	}
	time.Sleep(3 * time.Second)
	for _, id := range ids {
		for pid := range w.processes(column, id) {
			m := rollup(pid)
			sum.private, sum.pss = sum.private+m.private, sum.pss+m.pss
		}
	}
	return sum, nil
}

// processes are those of a container on the host: the trees of the process that stands for it and of its gofer.
func (w *world) processes(column, id string) map[string]bool {
	set := map[string]bool{}
	var s struct{ Pid int }
	out, _ := w.command(column, "state", id).Output()
	json.Unmarshal(out, &s)
	queue := []string{fmt.Sprint(s.Pid)}
	var state struct{ GoferPid int }
	if text, err := os.ReadFile(filepath.Join(w.dir, "s", column, id, "state.json")); err == nil && json.Unmarshal(text, &state) == nil {
		queue = append(queue, fmt.Sprint(state.GoferPid))
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

// rollup reads the memory of a process.
func rollup(pid string) (m memory) {
	f, err := os.Open("/proc/" + pid + "/smaps_rollup")
	if err != nil {
		return m
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kb float64
		name, rest, _ := strings.Cut(s.Text(), ":")
		fmt.Sscan(rest, &kb)
		switch name {
		case "Private_Clean", "Private_Dirty":
			m.private += kb / 1024
		case "Pss":
			m.pss = kb / 1024
		}
	}
	return m
}

// heapPerFile is what the Go heap of a sandbox grows by for each file of a tmpfs, in bytes, by its own profile.
func (w *world) heapPerFile() (float64, error) {
	var heap [2]float64
	for i, n := range []int{1, fileCount} {
		if err := w.config("small", "/bin/micro", "-files", "/dev", strconv.Itoa(n)); err != nil {
			return 0, err
		}
		var err error
		if heap[i], err = w.heapOf(); err != nil {
			return 0, err
		}
	}
	return (heap[1] - heap[0]) / fileCount, nil
}

// heapOf runs the container until it has made its files, and returns the heap in bytes.
func (w *world) heapOf() (float64, error) {
	id := w.id()
	cmd := w.command(systrap, "run", "--bundle", filepath.Join(w.dir, "small"), id)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer cmd.Wait()
	w.detach(systrap, id)
	defer w.deleteDetached()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return 0, fmt.Errorf("files: %w", err)
	}
	profile := filepath.Join(w.dir, "heap")
	if text, err := w.command(systrap, "debug", "--profile-heap", profile, id).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("debug: %w: %s", err, text)
	}
	text, err := exec.Command("go", "tool", "pprof", "-top", "-unit=B", profile).Output()
	if err != nil {
		return 0, fmt.Errorf("pprof: %w", err)
	}
	m := regexp.MustCompile(`of ([0-9]+)B total`).FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("pprof: no total in %s", text)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
