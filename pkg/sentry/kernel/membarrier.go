package kernel

import "time"

// MemoryBarrier is membarrier(2): when it returns, every thread that runs application code (of the process' address space only, if private) has
// passed a full barrier since the call.
func (t *Task) MemoryBarrier(private bool) {
	k := t.k
	m := t.MM()
	var list []*Task
	k.tree.Lock()
	for _, p := range k.rootPIDNS.pids {
		if o := p.task; o != nil && o != t && o.where.Load() == inUser && (!private || o.MM() == m) {
			list = append(list, o)
		}
	}
	k.tree.Unlock()
	for _, o := range list {
		o.setWork(workBarrier)
		// The thread has left its code when it clears the bit. That takes microseconds.
		for wait := time.Microsecond; o.where.Load() == inUser && o.work.Load()&workBarrier != 0; wait = min(2*wait, time.Millisecond) {
			time.Sleep(wait)
		}
	}
}

// Membarriers are the registrations of membarrier(2) of the process: MEMBARRIER_CMD_REGISTER_* bits.
func (tg *ThreadGroup) Membarriers() uint32 { return tg.membarriers.Load() }

// RegisterMembarrier adds a registration.
func (tg *ThreadGroup) RegisterMembarrier(bit uint32) { tg.membarriers.Or(bit) }
