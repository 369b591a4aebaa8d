package kernel

// UseCPU is as if the process had used processors for ns more nanoseconds since its CPU timers were last looked at.
func (tg *ThreadGroup) UseCPU(ns int64) {
	tg.mu.Lock()
	tg.deadAcct.utime += ns
	tg.mu.Unlock()
	tg.cpuFired()
}
