package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// table is a section as text: the first row is the heading.
type table struct {
	title, note string
	cells       [][]string
}

// sections are the tables of the report.
var sections = []struct {
	name, title, note string
	columns           []string
}{
	{"startup", "Start-up", "Milliseconds, and times runc.", []string{runc, systrap, ptrace}},
	{"programs", "Real programs", "Milliseconds, and times runc, without the start of the container.", []string{runc, systrap}},
	{"micro", "System calls", "Microseconds per operation, and times native.", []string{native, runc, systrap, ptrace}},
	{"memory", "Memory", "Over all processes of a container on the host.", []string{runc, systrap, ptrace}},
}

// tables makes the tables of what is in the store.
func (s *store) tables() (out []table) {
	for _, sec := range sections {
		rows := s.rows(sec.name)
		if len(rows) == 0 {
			continue
		}
		t := table{title: sec.title, note: sec.note, cells: [][]string{append(append([]string{""}, sec.columns...), "target", "")}}
		for i := range rows {
			r := &rows[i]
			line := []string{r.Row}
			for _, c := range sec.columns {
				line = append(line, r.cell(c))
			}
			t.cells = append(t.cells, append(line, r.target(), r.verdict()))
		}
		if sec.name == "programs" {
			mean, n := geomean(rows)
			verdict := "met"
			if mean > meanTarget {
				verdict = "missed"
			}
			t.cells = append(t.cells, []string{fmt.Sprintf("geometric mean of %d", n), "", fmt.Sprintf("%.2fx", mean), fmt.Sprintf("%.1fx", meanTarget), verdict})
		}
		out = append(out, t)
	}
	return out
}

func (r *result) cell(column string) string {
	v, ok := r.Values[column]
	if !ok {
		return "-"
	}
	text := number(v)
	if r.Base == "" {
		text += " " + r.Unit
	}
	if x, ok := r.Ratios[column]; ok {
		text += fmt.Sprintf(" (%.2fx)", x)
	}
	return text
}

// number has about three digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func (r *result) target() string {
	switch {
	case r.Target == 0:
		return ""
	case r.Base == "":
		return fmt.Sprintf("%v %s", r.Target, r.Unit)
	}
	return fmt.Sprintf("%vx", r.Target)
}

func (r *result) verdict() string {
	v, ok := r.judged()
	switch {
	case !ok:
		return ""
	case v <= r.Target:
		return "met"
	}
	return "missed"
}

func (t *table) print(w io.Writer) {
	width := make([]int, len(t.cells[0]))
	for _, line := range t.cells {
		for i, c := range line {
			width[i] = max(width[i], len(c))
		}
	}
	fmt.Fprintf(w, "\n%s. %s\n", t.title, t.note)
	for _, line := range t.cells {
		for i, c := range line {
			if i == 0 || i == len(line)-1 {
				fmt.Fprintf(w, "%-*s  ", width[i], c)
			} else {
				fmt.Fprintf(w, "%*s  ", width[i], c)
			}
		}
		fmt.Fprintln(w)
	}
}

func (t *table) markdown(w io.Writer) {
	fmt.Fprintf(w, "\n## %s\n\n%s\n\n", t.title, t.note)
	for i, line := range t.cells {
		fmt.Fprintf(w, "|%s|\n", strings.Join(line, "|"))
		if i == 0 {
			fmt.Fprintf(w, "|---|%s---|\n", strings.Repeat("---:|", len(line)-2))
		}
	}
}

const method = `
` + "`make bench`" + ` writes this page. Whatever is compared is measured in turns, several short rounds of each, because the speed of a machine changes
from minute to minute: the ratios are medians over the rounds of the ratio within a round, so they are not quotients of the times beside them.

- **Start-up**: from the start of the command to its end, in turns; create, start and delete are three commands.
- **Real programs** run in a shell of a container that lives through all rounds. The root is this machine's, under an overlay in memory for
  both runtimes. A first round is not counted.
- **System calls**: test/perf/c/micro.c, a static program, answers a row at a time; rows "image-" use a file of the image, the others files
  that the program has made. "getpid-patched" is a system call instruction of the program's text, "getpid-unpatched" one on a page that is
  writable and executable, which can never be replaced. The target of ping-pongs is that of processes.
- **Memory** is private memory and PSS (smaps_rollup) of all host processes of a container that sleeps; heap per file is from the sandbox's heap profile.
- runc runs without a seccomp profile. Targets are for systrap, the default platform.
`

// markdown is docs/performance.md.
func markdown(s *store) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Performance\n\nOn %s.\n\n![ratios](performance.svg)\n", machine())
	for _, t := range s.tables() {
		t.markdown(&b)
	}
	writeFloors(&b, s)
	fmt.Fprintf(&b, "\n## Method\n%s", method)
	return b.Bytes()
}

// machine describes where the figures come from.
func machine() string {
	out, _ := exec.Command("uname", "-srm").Output()
	model, cpus := "", 0
	text, _ := os.ReadFile("/proc/cpuinfo")
	for _, l := range strings.Split(string(text), "\n") {
		name, value, _ := strings.Cut(l, ":")
		switch strings.TrimSpace(name) {
		case "processor":
			cpus++
		case "model name":
			model = strings.TrimSpace(value)
		}
	}
	kind := ""
	if strings.Contains(string(text), " hypervisor") {
		kind = " of a virtual machine"
	}
	var kb int
	text, _ = os.ReadFile("/proc/meminfo")
	fmt.Sscanf(string(text), "MemTotal: %d kB", &kb)
	return fmt.Sprintf("%d processors%s (%s), %d GB of memory, %s", cpus, kind, model, (kb+1<<19)>>20, strings.TrimSpace(string(out)))
}
