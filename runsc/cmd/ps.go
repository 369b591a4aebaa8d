package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"husk/runsc/boot"
	"husk/runsc/container"
)

func psCommand() command {
	return command{
		name: "ps", args: "<container-id> [ps options]", summary: "ps displays the processes running inside a container", min: 1, max: -1, stop: false,
		text: `The table shows the processes with their ids inside the container. JSON is for
container engines, which know processes of the host only: it holds the id of the
one that stands for the container. Options of ps(1) have no effect.
`,
		setup: func(f *flagSet) func(*env, []string) error {
			format := "table"
			f.str(&format, "format,f", "select one of: table or json (default: \"table\")")
			f.loose = true
			return func(e *env, args []string) error { return ps(e, args[0], format) }
		},
	}
}

func ps(e *env, id, format string) error {
	if format != "table" && format != "json" {
		return errors.New("invalid format option")
	}
	c, err := container.Load(e.conf.Root, id, false)
	if err != nil {
		return err
	}
	if format == "json" {
		pids := make([]int, 0, 1)
		if c.CurrentStatus() != container.Stopped {
			pids = append(pids, c.PID)
		}
		return json.NewEncoder(os.Stdout).Encode(pids)
	}
	list, err := c.Processes()
	if err != nil {
		return err
	}
	printTable(psRows(list, time.Now()), 0, 2)
	return nil
}

// psRows renders processes as ps -f does.
func psRows(list []boot.ProcessInfo, now time.Time) [][]string {
	rows := [][]string{{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}}
	for _, p := range list {
		start := time.Unix(0, p.Start)
		stime := start.Format("15:04")
		if start.Year() != now.Year() {
			stime = start.Format("2006")
		} else if now.Sub(start) > 24*time.Hour {
			stime = start.Format("Jan02")
		}
		c := int64(0)
		if age := now.Sub(start); age > 0 {
			c = min(99, p.CPU*100/int64(age))
		}
		rows = append(rows, []string{
			strings.TrimPrefix(ownerName(int(p.UID)), "#"), strconv.Itoa(int(p.PID)), strconv.Itoa(int(p.PPID)), strconv.Itoa(int(c)), stime, plain(p.TTY),
			cpuTime(time.Duration(p.CPU)), plain(p.Args),
		})
	}
	return rows
}

// cpuTime is [days-]hours:minutes:seconds.
func cpuTime(d time.Duration) string {
	s := int64(d / time.Second)
	out := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if days := s / 86400; days > 0 {
		out = strconv.FormatInt(days, 10) + "-" + out
	}
	return out
}

// plain replaces what could control a terminal: an application chooses its own command line.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}
