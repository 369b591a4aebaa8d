package boot

import (
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/log"
)

// Timeline notes when phases of a container's life end; with --debug it prints them. All processes of a
// start share the launcher's epoch, and lines sort by time. A nil Timeline notes nothing.
type Timeline struct {
	who   string
	epoch int64 // CLOCK_MONOTONIC, nanoseconds

	mu    sync.Mutex
	marks []mark // guarded by mu
	last  int64  // the last mark printed; guarded by mu
}

type mark struct {
	what string
	at   int64
}

// Now is CLOCK_MONOTONIC in nanoseconds.
func Now() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// NewTimeline starts a timeline of a process at the launcher's epoch.
func NewTimeline(who string, epoch int64) *Timeline { return &Timeline{who: who, epoch: epoch} }

// Epoch is the time that marks count from.
func (t *Timeline) Epoch() int64 { return t.epoch }

// Mark notes that a phase has ended now.
func (t *Timeline) Mark(what string) { t.MarkAt(what, Now()) }

// MarkAt notes that a phase ended at a time of Now.
func (t *Timeline) MarkAt(what string, at int64) {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.marks = append(t.marks, mark{what, at})
	t.mu.Unlock()
}

// Entry is when a process entered main: the time of Now, and the processor time that executing the program and
// starting the Go runtime took before.
type Entry struct{ At, CPU int64 }

// Enter returns this moment.
func Enter() Entry {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts)
	return Entry{Now(), ts.Nano()}
}

// MarkEntry notes that main was entered.
func (t *Timeline) MarkEntry(e Entry) {
	t.MarkAt("main entered, after "+strconv.FormatInt(e.CPU/1000, 10)+" us of processor time", e.At)
}

// Print writes the marks since the last Print, in microseconds after the epoch, and the time since the process's previous mark.
func (t *Timeline) Print(l *log.Logger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.Enabled(log.Debug) {
		for _, m := range t.marks {
			if t.last == 0 {
				t.last = m.at
			}
			l.Print(log.Debug, "timeline "+pad(strconv.FormatInt((m.at-t.epoch)/1000, 10), 9)+" us "+
				pad("+"+strconv.FormatInt((m.at-t.last)/1000, 10), 8)+" "+t.who+": "+m.what)
			t.last = m.at
		}
	}
	t.marks = t.marks[:0]
}

// pad right-aligns s.
func pad(s string, width int) string { return strings.Repeat(" ", max(0, width-len(s))) + s }
