package kernel

// exitAction is a function to run at a process' end.
type exitAction struct {
	key any
	f   func(*ThreadGroup)
}

// AtExit makes f run when the last thread of the process exits, before anybody can wait for the process (adjustments of System V
// semaphores). Of several functions with the same key the first counts. Any goroutine.
func (tg *ThreadGroup) AtExit(key any, f func(*ThreadGroup)) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	for _, a := range tg.atExit {
		if a.key == key {
			return
		}
	}
	tg.atExit = append(tg.atExit, exitAction{key, f})
}

// runAtExit runs what AtExit collected if all threads are on their way out. It is called by each that exits, after that shows in
// its exit.done, so that the last one finds all done.
func (tg *ThreadGroup) runAtExit() {
	tg.mu.Lock()
	list := tg.atExit
	for _, o := range tg.tasks {
		if !o.exit.done.Load() {
			list = nil
		}
	}
	if list != nil {
		tg.atExit = nil
	}
	tg.mu.Unlock()
	for _, a := range list {
		a.f(tg)
	}
}
