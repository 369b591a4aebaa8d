package mm

import (
	"husk/pkg/platform"
	"husk/pkg/sentry/memfile"
)

// heldMax is how many bytes of memory a process may have given up that are still held for the platform. Chosen to cover what
// allocators give back at a time.
const heldMax = 256 << 10

// deferRuns is up to how many runs of pages, each of which is a mapping of the host or some, changes are put off. The host refuses more than 65530
// mappings by default; the application is told ENOMEM then, which a change that was put off can tell nobody.
const deferRuns = 32 << 10

// held are references to pages that the platform may have mapped until a change with this ticket is done.
type held struct {
	r      memfile.Range
	ticket uint64
}

// flush has the collected changes made before the application runs on, and drops references when the platform cannot
// use them any more. pagesMu is held.
func (m *MemoryManager) flush() (err error) {
	d, ok := m.as.(platform.Deferrer)
	if !ok || m.pages.Count() > deferRuns {
		return m.flushNow()
	}
	if len(m.ops) > 0 {
		m.ticket, err = d.Defer(m.ops)
		m.ops = m.ops[:0]
	}
	if err != nil {
		m.keep()
	}
	if len(m.drops)+len(m.held) == 0 {
		return err
	}
	for _, r := range m.drops {
		m.held = append(m.held, held{r, m.ticket})
		m.heldBytes.Add(r.Len)
	}
	m.drops = m.drops[:0]
	if m.dropHeld(d.Done()); m.heldBytes.Load() > heldMax {
		m.settle()
	}
	return err
}

// flushNow makes the collected changes, and drops all references that were collected. For changes that other processes
// rely on.
func (m *MemoryManager) flushNow() (err error) {
	if len(m.ops) > 0 {
		err = m.as.Apply(m.ops)
		m.ops = m.ops[:0]
	}
	if err != nil {
		m.keep()
	}
	m.settle()
	for _, r := range m.drops {
		m.file.DecRef(r)
	}
	m.drops = m.drops[:0]
	return err
}

// keep is for when the host refused a change, as it does with too many mappings: of what was to go the application may have anything, and
// nobody else gets it before the process has ended. That goes for the spares, too, and there are going to be none.
func (m *MemoryManager) keep() {
	m.spares.none = true
	for _, s := range m.spares.list {
		m.stuck = append(m.stuck, memfile.Range{Off: s.off, Len: s.end - s.start})
	}
	m.spares.list, m.spares.bytes = m.spares.list[:0], 0
	m.stuck = append(m.stuck, m.drops...)
	m.drops = m.drops[:0]
}

// settle makes the changes that the platform has put off. A platform that cannot has killed the process.
func (m *MemoryManager) settle() {
	if d, ok := m.as.(platform.Deferrer); ok && m.ticket > d.Done() {
		d.Settle()
	}
	m.dropHeld(^uint64(0))
}

// Rest is for a process that is going to do nothing for a while: it keeps no memory that it has given up.
func (m *MemoryManager) Rest() {
	if m.heldBytes.Load() == 0 {
		return
	}
	m.pagesMu.Lock()
	defer m.pagesMu.Unlock()
	if d, ok := m.as.(platform.Deferrer); ok {
		m.dropHeld(d.Done())
	}
}

// dropHeld drops the references that were held for changes up to a ticket.
func (m *MemoryManager) dropHeld(done uint64) {
	n := 0
	for n < len(m.held) && m.held[n].ticket <= done {
		m.file.DecRef(m.held[n].r)
		m.heldBytes.Add(-m.held[n].r.Len)
		n++
	}
	m.held = m.held[:copy(m.held, m.held[n:])]
}

// dropRef drops the references on the run s when the changes so far have been applied.
func (m *MemoryManager) dropRef(s *pageSeg) {
	if s.Val.fd != MemoryFile {
		return
	}
	if n := len(m.drops); n > 0 && m.drops[n-1].End() == s.Val.off {
		m.drops[n-1].Len += s.Len()
		return
	}
	m.drops = append(m.drops, memfile.Range{Off: s.Val.off, Len: s.Len()})
}
