package main

import (
	"fmt"
	"io"
)

// floors tell, of rows that have missed their targets, what stands in the way, as far as traces and prototypes have shown. The report has
// those of rows that miss theirs.
var floors = []struct{ row, text string }{
	{"touch-64k-page", "The row maps 64 KiB, touches its 16 pages and unmaps them. What a program gives up stays mapped without rights for a while, " +
		"so that it comes back without faults; but on a machine with shadow page tables to take and give the rights of 16 present pages costs half " +
		"of native's whole cycle (203 of 418 us, a C program that does only that). The rest is two stops with a change of memory each, whose wake-ups cross processors."},
	{"vfork-exec-wait", "A new program is a new stub process. Its making (a clone, 1.1 ms beside other work) and the end of the old one (0.5 ms) " +
		"share the stubs' processor with the program itself. To keep the process over execve(2) was tried: it gained nothing that could be measured, " +
		"and a hostile thread could live on in the next program."},
	{"pthread", "A cycle takes 50 us, less than native, as long as nothing else happens. But whenever a goroutine becomes ready the Go runtime wakes another thread " +
		"of its own to look for work; on two processors that one preempts the sentry's, finds the work taken, sleeps for 3 us, which timer slack makes 60, " +
		"and preempts it again: 113 us. With a single Go processor that does not happen, but a host call that blocks would hold up everything else."},
	{"futex-processes", "See pipe-ping-pong. Native takes 17 or 25 us by where it places the two."},
	{"pipe-ping-pong", "The steady state is two switches of address spaces and takes 22 to 24 us where native takes 25. A row is 1,000 round trips, " +
		"and pays for fork and exit (2 us more per round trip than native) and for the first 100, in which pages are copied and the hand-off learns who waits for whom."},
	{"unix-ping-pong", "See pipe-ping-pong."},
}

// writeFloors writes what floors has on rows that are missed.
func writeFloors(w io.Writer, s *store) {
	head := "\n## What stands in the way of missed targets\n\n"
	for _, f := range floors {
		for _, r := range s.rows("micro") {
			if r.Row == f.row && r.verdict() == "missed" {
				fmt.Fprintf(w, "%s- **%s**: %s\n", head, f.row, f.text)
				head = ""
			}
		}
	}
}
