package kernel

// UnshareFiles gives the task a descriptor table of its own (CLONE_FILES of unshare(2), CLOSE_RANGE_UNSHARE). Own goroutine.
func (t *Task) UnshareFiles() {
	if f := t.FDTable(); f.Shared() {
		t.files.Store(f.Fork(^uint32(0)))
		f.DecRef(t)
	}
}
