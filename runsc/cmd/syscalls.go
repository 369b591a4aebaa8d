package cmd

import (
	"fmt"
	"strings"

	"husk/pkg/sentry/syscalls"
)

// syscallsPage is the table of system calls as docs/syscalls.md has it: what `runsc help syscalls` prints.
func syscallsPage() string {
	var b strings.Builder
	count := map[string]int{}
	var rows strings.Builder
	syscalls.New().List(func(e *syscalls.Entry) {
		count[e.Support.String()]++
		fmt.Fprintf(&rows, "| %d | %s | %s | %s |\n", e.Number, e.Name, e.Support, e.Note)
	})
	fmt.Fprintf(&b, "# System calls\n\n`runsc help syscalls` prints this page from the table that dispatches them. Of those listed, %d are full, %d partial (the note says\nwhat is missing) and %d stubs (the note says what happens). A call that is not listed fails with ENOSYS.\n\n| number | name | support | note |\n|---:|---|---|---|\n",
		count["full"], count["partial"], count["stub"])
	b.WriteString(rows.String())
	return b.String()
}
