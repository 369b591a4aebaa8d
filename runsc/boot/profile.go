package boot

import (
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/profile"
)

// profile serves KindProfile. A CPU profile ends early when the peer or the container does.
func (p *peer) profile(f *Frame) (string, error) {
	var q ProfileRequest
	if err := decode(f, &q); err != nil {
		return "", err
	}
	var data []byte
	var err error
	switch q.What {
	case ProfileCPU:
		if q.Duration <= 0 || q.Duration > int64(MaxProfileTime) {
			return "", unix.EINVAL
		}
		data, err = p.s.cpu.Take(p.until(time.Duration(q.Duration)), MaxProfile)
		if err == profile.ErrBusy {
			err = &Error{ErrState, err.Error()}
		}
	case ProfileHeap:
		data, err = profile.Heap(MaxProfile)
	case ProfileStacks:
		data = profile.Stacks(MaxProfile)
	}
	return string(data), err
}

// until returns a channel that is closed after a time, or when there is no use in waiting any longer.
func (p *peer) until(d time.Duration) <-chan time.Time {
	end := make(chan time.Time)
	go func() {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-p.left:
		case <-p.s.ending:
		}
		close(end)
	}()
	return end
}
