package ptrace

import (
	"sync/atomic"

	"husk/pkg/arch"
	"husk/pkg/platform/stub"
)

// owned is a traced thread that has to be reaped exactly once: the first thread of a process cannot be
// reaped before all others are, and the ID of a thread that was may belong to another.
type owned struct {
	stub.Tracee
	reaped atomic.Bool
}

// note remembers that err reports the end of the thread.
func (o *owned) note(err error) error {
	if err == stub.ErrEnded {
		o.reaped.Store(true)
	}
	return err
}

// inject runs injected code. Tracer only.
func (o *owned) inject(r *arch.Registers) error {
	if o.reaped.Load() {
		return errGone
	}
	return o.note(o.Run(r))
}

// reap waits until a thread that was killed, or told to exit, is gone. Any thread of the sentry may do that, while no
// other one waits for it.
func (o *owned) reap() {
	for !o.reaped.Load() {
		if st, err := o.Wait(); err != nil || !st.Stopped() {
			o.reaped.Store(true)
		}
	}
}
