package boot

import (
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"husk/pkg/log"
)

// Timeline notes when phases of the start end; with --debug it prints them. All processes of a
// start share the launcher's epoch, so their lines can be read together.
type Timeline struct {
	who   string
	epoch int64 // CLOCK_MONOTONIC, nanoseconds

	mu    sync.Mutex
	marks []mark // guarded by mu
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
	t.mu.Lock()
	t.marks = append(t.marks, mark{what, at})
	t.mu.Unlock()
}

// Print writes the marks since the last Print, in microseconds after the epoch, and the time since the previous mark.
func (t *Timeline) Print(l *log.Logger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.Enabled(log.Debug) {
		prev := t.epoch
		for _, m := range t.marks {
			l.Print(log.Debug, t.who+": "+strconv.FormatInt((m.at-t.epoch)/1000, 10)+" us (+"+
				strconv.FormatInt((m.at-prev)/1000, 10)+"): "+m.what)
			prev = m.at
		}
	}
	t.marks = t.marks[:0]
}
