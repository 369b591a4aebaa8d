package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"husk/pkg/log"
	"husk/runsc/container"
)

func listCommand() command {
	return command{
		name: "list", summary: "lists containers started by runsc with the given root", max: 0,
		text: `Where the given root is specified via the global option "--root".`,
		setup: func(f *flagSet) func(*env, []string) error {
			format, quiet := "table", false
			f.str(&format, "format,f", "select one of: table or json (default: \"table\")")
			f.boolean(&quiet, "quiet,q", "display only container IDs")
			return func(e *env, args []string) error { return list(e, format, quiet) }
		},
	}
}

func list(e *env, format string, quiet bool) error {
	all, errs := container.List(e.conf.Root)
	for _, err := range errs {
		e.log.Print(log.Error, err.Error())
	}
	if quiet {
		for _, c := range all {
			fmt.Println(c.ID)
		}
		return nil
	}
	out := make([]*stateOutput, 0, len(all))
	for _, c := range all {
		s := newStateOutput(c)
		s.Owner = ownerName(c.Owner)
		out = append(out, s)
	}
	switch format {
	case "table":
		rows := [][]string{{"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"}}
		for _, s := range out {
			rows = append(rows, []string{s.ID, strconv.Itoa(s.PID), string(s.Status), s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner})
		}
		printTable(rows, 12, 3)
		return nil
	case "json":
		if len(out) == 0 {
			out = nil // as runc prints it
		}
		return json.NewEncoder(os.Stdout).Encode(out)
	}
	return errors.New("invalid format option")
}

// printTable prints rows with columns of at least a width, and at least pad blanks between them.
func printTable(rows [][]string, minWidth, pad int) {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], len(cell)+pad, minWidth)
		}
	}
	for _, r := range rows {
		line := ""
		for i, cell := range r {
			if i == len(r)-1 {
				line += cell
			} else {
				line += fmt.Sprintf("%-*s", widths[i], cell)
			}
		}
		fmt.Println(line)
	}
}
