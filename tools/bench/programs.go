package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// program is a real program: shell scripts that run in a fresh directory. Only run is timed.
type program struct{ name, prepare, run string }

// What programs promise, in times runc.
const (
	programTarget = 3.5
	meanTarget    = 2.0
)

var programs = []program{
	{"200 x fork+exec of /bin/true", ``, `i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done`},
	{"python3 start", ``, `/usr/bin/python3 -c 'import json, re, os, subprocess'`},
	{"node start", ``, `node -e 0`},
	{"gcc of 10 small files", `for i in 0 1 2 3 4 5 6 7 8 9; do printf '#include <stdio.h>\n#include <stdlib.h>\nint f'$i'(int x) { printf("%%d", x); return x * '$i'; }\n' >f$i.c; done`,
		`for i in 0 1 2 3 4 5 6 7 8 9; do gcc -O1 -c f$i.c || exit 1; done`},
	{"git add of 1000 files", `git init -q . && for i in $(seq 1000); do echo $i >f$i; done`, `git add .`},
	{"find /usr", ``, `find /usr | wc -l`},
	{"tar of /usr/share", ``, `tar -cf - /usr/share | cat`},
	{"sqlite 20000 inserts", `(echo 'create table t(a, b); begin;'; for i in $(seq 20000); do echo "insert into t values($i, 'text $i');"; done; echo 'commit;') >in.sql`,
		`sqlite3 t.db <in.sql`},
	{"sqlite 200 transactions", `(echo 'create table t(a, b);'; for i in $(seq 200); do echo "insert into t values($i, 'text $i');"; done) >in.sql`,
		`sqlite3 t.db <in.sql`},
}

// short is a program's name on the command line.
func (p *program) short() string { return strings.ReplaceAll(p.name, " ", "-") }

// measurePrograms has a shell per column, in a container that lives through all rounds, run one program at a time.
func measurePrograms(w *world, o *options, s *store) error {
	if err := w.mountImage(); err != nil {
		return err
	}
	if err := w.config("image", "/bin/sh"); err != nil {
		return err
	}
	var sessions []*session
	for _, column := range []string{runc, systrap} {
		x, err := w.open(column, "image")
		if err != nil {
			return err
		}
		defer x.close()
		sessions = append(sessions, x)
	}
	for i := range programs {
		p := &programs[i]
		if !o.wanted(p.short()) {
			continue
		}
		if err := p.measure(sessions, o, s); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

func (p *program) measure(sessions []*session, o *options, s *store) error {
	c := newCollector("programs", p.name, "ms", runc, programTarget)
	for i := range o.times(5) + 1 {
		for _, x := range sessions {
			if err := x.script("rm -rf /tmp/w && mkdir /tmp/w && cd /tmp/w && " + orTrue(p.prepare)); err != nil {
				return err
			}
			begin := time.Now()
			if err := x.script(p.run); err != nil {
				return err
			}
			if i > 0 { // the first round only warms the caches
				c.add(x.column, float64(time.Since(begin).Microseconds())/1000)
			}
		}
	}
	return s.put(c.result())
}

func orTrue(script string) string {
	if script == "" {
		return "true"
	}
	return script
}

// script runs a script in the session's shell, which reads no input and keeps its output for errors.
func (x *session) script(text string) error {
	answer, err := x.ask("cd /tmp/w 2>/dev/null; (" + text + "\n) </dev/null >/dev/null; echo $?")
	if err != nil {
		return err
	}
	if answer != "0" {
		errs, _ := os.ReadFile(x.errs.Name())
		return fmt.Errorf("%s: exit code %s of %s: %s", x.column, answer, text, errs[max(0, len(errs)-500):])
	}
	return nil
}
