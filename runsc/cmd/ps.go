package cmd

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"time"

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
		if now.Sub(start) > 24*time.Hour {
			stime = start.Format("Jan02")
		}
		c := int64(0)
		if age := now.Sub(start); age > 0 {
			c = min(99, p.CPU*100/int64(age))
		}
		cpu := time.Duration(p.CPU)
		uid := strconv.Itoa(int(p.UID))
		if p.UID == 0 {
			uid = "root"
		}
		rows = append(rows, []string{
			uid, strconv.Itoa(int(p.PID)), strconv.Itoa(int(p.PPID)), strconv.Itoa(int(c)), stime, p.TTY,
			time.Unix(0, 0).UTC().Add(cpu).Format("15:04:05"), p.Args,
		})
	}
	return rows
}
